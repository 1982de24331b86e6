//! `weir top`: what connections are doing now.
//!
//! On a terminal a screen ([`live`]), over a weir that runs or over a pipeline of its own
//! ([`attend`]). `--once` prints one view: two readings about a second apart make the rates. With
//! `CAP_NET_ADMIN` they are dumps of the conntrack table ([`tracked`]), without it lists of this
//! machine's TCP sockets ([`sockets`]).

pub(crate) mod attend;
mod doubts;
pub(crate) mod live;
mod measured;
pub(crate) mod sockets;
mod tracked;
pub(crate) mod view;

use std::fs;
use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use anyhow::Context as _;
use weir_agent::local::LocalDirectory;
use weir_agent::{AgentError, pages};
use weir_conntrack::{Error, capability};

use self::view::View;
use crate::args::{TopArgs, UsageError};
use crate::render::{self, Shown};
use crate::{say as speech, signals};

/// Time between two readings.
pub(crate) const SPAN: Duration = Duration::from_secs(1);

/// Shows live connections: on a screen until somebody quits, or once.
pub(crate) fn run(args: &TopArgs) -> anyhow::Result<()> {
    if args.once {
        return once(args);
    }
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        let advice = "weir top draws on a terminal; here is none: to print once, weir top --once";
        return Err(UsageError(advice.to_owned()).into());
    }
    speech::log();
    pages::keep_small();
    let stopping = signals::stop()?;
    attend::run(args, &stopping)
}

/// Prints one view of the live connections.
fn once(args: &TopArgs) -> anyhow::Result<()> {
    let TopArgs { limit, ref output, .. } = *args;
    let view = read((limit > 0).then_some(limit))?;
    say(&view);
    Ok(render::to_stdout(|out, style| view.write(output.output, style, out))?)
}

fn read(limit: Option<usize>) -> anyhow::Result<View> {
    let mut directory = LocalDirectory::new(&host_name());
    let lacking = if capability::net_admin()? {
        match tracked::read(&mut directory, SPAN) {
            Ok(reading) => return Ok(View::new(reading, limit, &directory)),
            // The capability may be one of a user namespace that does not own this network.
            Err(AgentError::Conntrack(Error::NotPermitted { .. })) => Lacking::Elsewhere,
            Err(error) => return Err(error).context("read the conntrack table"),
        }
    } else {
        Lacking::NetAdmin
    };
    let mut sockets = sockets::Sockets::open(directory)?;
    std::thread::sleep(SPAN);
    let reading = sockets.read(lacking)?;
    Ok(View::new(reading, limit, sockets.directory()))
}

/// Why conntrack cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lacking {
    /// The process does not have the capability.
    NetAdmin,
    /// It has it, but not over this network namespace.
    Elsewhere,
}

impl Lacking {
    /// What is missing, and how to get it.
    pub(crate) fn advice(self, program: &str) -> String {
        match self {
            Self::NetAdmin => format!(
                "this process lacks CAP_NET_ADMIN, which connection tracking asks for; run weir \
                 as root (sudo), or grant it: sudo setcap cap_net_admin+ep {program}"
            ),
            Self::Elsewhere => {
                "this process has CAP_NET_ADMIN only in a user namespace that does not own this \
                 network; run weir as root outside of it"
                    .to_owned()
            }
        }
    }
}

/// Path of the running program, for commands to copy.
pub(crate) fn program() -> String {
    std::env::current_exe().map_or_else(|_| String::from("weir"), |path| path.display().to_string())
}

/// This machine's name.
pub(crate) fn host_name() -> String {
    fs::read_to_string("/proc/sys/kernel/hostname")
        .map(|name| name.trim().to_owned())
        .ok()
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "localhost".to_owned())
}

/// Says what the numbers do not: on stderr, so that stdout stays what was asked for.
fn say(view: &View) {
    for doubt in view.doubts() {
        // With stderr closed there is nobody to tell.
        drop(writeln!(io::stderr(), "weir: {}", Shown(doubt)));
    }
}
