//! Readers: as many connections as there are paths, in a process of their own.

use std::io::{BufWriter, Write as _};
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use crate::http::Client;

/// Argument of the process that asks; behind it the address, the seconds, the group and the paths.
pub(crate) const CHILD: &str = "--readers";
const PERIOD: Duration = Duration::from_secs(1);

/// When readers ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Group {
    /// All of them at the same moment, once a second.
    Together,
    /// Each as soon as it has the answer before.
    OnAndOn,
}

impl Group {
    const ALL: [(Self, &str); 2] = [(Self::Together, "together"), (Self::OnAndOn, "on-and-on")];
}

/// How long answers took, and how often there was none.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    pub(crate) milliseconds: Vec<f64>,
    /// Answers that asked to come again later.
    pub(crate) refused: u64,
}

/// Asks each path from a reader of its own.
pub(crate) fn ask(
    address: SocketAddr,
    seconds: u64,
    group: Group,
    paths: &[String],
) -> Result<Asked> {
    let name =
        Group::ALL.into_iter().find(|(known, _)| *known == group).map_or("", |(_, name)| name);
    let output = Command::new(std::env::current_exe()?)
        .args([CHILD, &address.to_string(), &seconds.to_string(), name])
        .args(paths)
        .output()
        .context("start the process that asks")?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the process that asks failed: {error}");
    let mut asked = Asked::default();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        match line.split_once(' ') {
            Some(("200", took)) => asked.milliseconds.push(took.parse().context("milliseconds")?),
            Some(("503", _)) => asked.refused += 1,
            _ => bail!("a reader was answered {line}"),
        }
    }
    Ok(asked)
}

/// The process that asks: a line an answer, `STATUS MILLISECONDS`.
pub(crate) fn child(arguments: &[String]) -> Result<()> {
    let [address, seconds, group, paths @ ..] = arguments else {
        bail!("an address, seconds, a group and paths are needed");
    };
    let (address, seconds): (SocketAddr, u64) = (address.parse()?, seconds.parse()?);
    let group = Group::ALL.into_iter().find(|(_, name)| name == group).context("a group")?.0;
    let answers = Mutex::new(Vec::new());
    let begun = Instant::now() + PERIOD;
    let until = begun + Duration::from_secs(seconds);
    thread::scope(|scope| {
        let readers: Vec<_> = paths
            .iter()
            .map(|path| scope.spawn(|| read(address, path, group, begun, until)))
            .collect();
        for reader in readers {
            let read = reader.join().map_err(|_panic| anyhow::anyhow!("a reader panicked"))??;
            answers.lock().expect("nobody panicked").extend(read);
        }
        anyhow::Ok(())
    })?;
    let mut out = BufWriter::new(std::io::stdout().lock());
    for (status, milliseconds) in answers.into_inner().expect("nobody panicked") {
        writeln!(out, "{status} {milliseconds:.3}")?;
    }
    Ok(())
}

fn read(
    address: SocketAddr,
    path: &str,
    group: Group,
    begun: Instant,
    until: Instant,
) -> Result<Vec<(u16, f64)>> {
    let mut client = Client::connect(address)?;
    let mut answers = Vec::new();
    let mut due = begun;
    while due < until {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let answer = client.get(path)?;
        if answer.status == 200 {
            answer.ensure_rows(path)?;
        }
        answers.push((answer.status, answer.milliseconds));
        let now = Instant::now();
        due = match group {
            Group::OnAndOn => now,
            Group::Together => {
                // Whoever is late comes with the others next time.
                let periods = (now - begun).as_secs_f64() / PERIOD.as_secs_f64();
                begun + PERIOD.mul_f64(periods.floor() + 1.0)
            }
        };
    }
    Ok(answers)
}
