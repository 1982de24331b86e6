//! Programs under test, each in a namespace and with a log of its own.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::command::run_command;
use crate::error::{LabError, io_error};

/// A program. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Process {
    name: String,
    log: PathBuf,
    child: Option<Child>,
}

impl Process {
    /// A program that does not run yet.
    pub(super) fn new(name: &str, data: &Path) -> Self {
        Self { name: name.to_owned(), log: data.join(format!("{name}.log")), child: None }
    }

    /// Starts it; what it prints is added to its log.
    pub(super) fn launch(&mut self, mut command: Command) -> Result<(), LabError> {
        let name = self.log.display().to_string();
        let log = File::options().create(true).append(true).open(&self.log);
        let log = log.map_err(io_error("open", &name))?;
        let errors = log.try_clone().map_err(io_error("open", &name))?;
        command.stdin(Stdio::null()).stdout(Stdio::from(log)).stderr(Stdio::from(errors));
        self.child = Some(command.spawn().map_err(io_error("start", &self.name))?);
        Ok(())
    }

    /// Fails when it has ended by itself.
    pub(super) fn must_run(&mut self) -> Result<(), LabError> {
        match self.ended()? {
            Some(status) => Err(self.trouble(&format!("ended by itself with {status}"))),
            None => Ok(()),
        }
    }

    /// `kill -9`.
    pub(super) fn kill(&mut self) -> Result<(), LabError> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        child.kill().map_err(io_error("kill", &self.name))?;
        child.wait().map(drop).map_err(io_error("wait for", &self.name))
    }

    /// SIGTERM.
    pub(super) fn tell_to_end(&self) -> Result<(), LabError> {
        let Some(pid) = self.child.as_ref().map(Child::id) else { return Ok(()) };
        let mut signal = Command::new("kill");
        signal.arg("-TERM").arg(pid.to_string());
        run_command(signal, "").map(drop)
    }

    /// Waits for its end. `None`: it does not run, or has not ended in time and was killed.
    pub(super) fn wait(&mut self, limit: Duration) -> Result<Option<ExitStatus>, LabError> {
        let deadline = Instant::now() + limit;
        while self.child.is_some() && Instant::now() < deadline {
            if let Some(status) = self.ended()? {
                self.child = None;
                return Ok(Some(status));
            }
            thread::sleep(Duration::from_millis(20));
        }
        self.kill()?;
        Ok(None)
    }

    /// Everything it has printed.
    pub(super) fn said(&self) -> String {
        let bytes = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// An error with its last words.
    pub(super) fn trouble(&self, what: &str) -> LabError {
        let said = self.said();
        let lines: Vec<&str> = said.lines().collect();
        let last = lines[lines.len().saturating_sub(12)..].join("\n");
        LabError::Weir(format!("{} {what}; its last words:\n{last}", self.name))
    }

    fn ended(&mut self) -> Result<Option<ExitStatus>, LabError> {
        match self.child.as_mut() {
            Some(child) => child.try_wait().map_err(io_error("wait for", &self.name)),
            None => Ok(None),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing left to kill.
        drop(self.kill());
    }
}
