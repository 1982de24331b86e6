//! Running the programs the lab is built with.

use std::io::{self, Write};
use std::process::{Command, Output, Stdio};

use crate::error::{LabError, io_error};

/// Runs `program` with `arguments`, gives it `input`, and returns what it printed.
pub(crate) fn run(program: &str, arguments: &[&str], input: &str) -> Result<String, LabError> {
    let mut command = Command::new(program);
    command.args(arguments);
    run_command(command, input)
}

/// Runs a prepared command, gives it `input`, and returns what it printed.
pub(crate) fn run_command(mut command: Command, input: &str) -> Result<String, LabError> {
    let line = describe(&command);
    let program = command.get_program().to_string_lossy().into_owned();
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| spawn_error(&program, error))?;
    // The programs used here read all of their input before they answer, so this cannot stall.
    if let Some(mut stdin) = child.stdin.take()
        && let Err(error) = stdin.write_all(input.as_bytes())
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        return Err(io_error("write to", &line)(error));
    }
    let output = child.wait_with_output().map_err(io_error("wait for", &line))?;
    let Output { status, stdout, stderr } = output;
    if !status.success() {
        return Err(LabError::Command {
            command: line,
            status: status.to_string(),
            stderr: String::from_utf8_lossy(&stderr).trim().to_owned(),
        });
    }
    String::from_utf8(stdout)
        .map_err(|error| LabError::Answer { program, message: error.to_string() })
}

/// Names the package when a program is absent.
pub(crate) fn spawn_error(program: &str, error: io::Error) -> LabError {
    let package = match program {
        "ip" => "iproute2",
        "nft" => "nftables",
        "conntrack" => "conntrack",
        _ => return io_error("run", program)(error),
    };
    LabError::Program { program: program.to_owned(), package, source: error }
}

fn describe(command: &Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        line.push(' ');
        line.push_str(&argument.to_string_lossy());
    }
    line
}
