//! What other programs want to know of the command line: shells, and `man`.

use std::fs;

use anyhow::Context as _;
use clap::CommandFactory as _;
use clap_mangen::Man;

use crate::args::{Args, CompletionsArgs, ManArgs};
use crate::render;

/// Prints a shell's completions.
pub(crate) fn complete(args: &CompletionsArgs) -> anyhow::Result<()> {
    let CompletionsArgs { shell } = args;
    // The generator does not take an error for an answer, so it writes where none can happen.
    let mut text = Vec::new();
    clap_complete::generate(*shell, &mut Args::command(), "weir", &mut text);
    Ok(render::to_stdout(|out, _| out.write_all(&text))?)
}

/// Prints weir's manual page, or writes those of all commands.
pub(crate) fn man(args: ManArgs) -> anyhow::Result<()> {
    let ManArgs { dir } = args;
    let Some(directory) = dir else {
        let man = Man::new(Args::command());
        return Ok(render::to_stdout(|out, _| man.render(out))?);
    };
    fs::create_dir_all(&directory)
        .and_then(|()| clap_mangen::generate_to(Args::command(), &directory))
        .with_context(|| format!("write manual pages into {}", directory.display()))
}
