//! A terminal in tmux, on which weir runs.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use tempfile::TempDir;

/// Two looks at the screen are this far apart at least.
const BETWEEN_LOOKS: Duration = Duration::from_millis(5);
const PATIENCE: Duration = Duration::from_mins(1);

/// The terminal; it ends with this.
pub(crate) struct Screen {
    /// A tmux server of its own.
    socket: String,
    directory: TempDir,
}

impl Screen {
    pub(crate) fn open() -> Result<Self> {
        let screen = Self {
            socket: format!("weir-bench-{}", std::process::id()),
            directory: TempDir::with_prefix("weir-bench-")?,
        };
        screen.tmux(&["-f", "/dev/null", "new-session", "-d", "-x", "120", "-y", "40", "cat"])?;
        screen.tmux(&["set-option", "-g", "remain-on-exit", "on"])?;
        Ok(screen)
    }

    /// Starts `weir top` on it.
    pub(crate) fn start(&self, log: &str) -> Result<()> {
        let command = format!(
            "exec env LC_ALL=C.UTF-8 WEIR_LOG={log} {} top --standalone 2> {}",
            env!("CARGO_BIN_EXE_weir"),
            self.errors().display()
        );
        self.tmux(&["clear-history"])?;
        self.tmux(&["respawn-pane", "-k", &command]).map(drop)
    }

    /// Waits until so many lines have this text.
    pub(crate) fn wait_for(&self, text: &str, lines: usize) -> Result<()> {
        let begun = Instant::now();
        loop {
            let shown = self.tmux(&["capture-pane", "-p"])?;
            if shown.lines().filter(|line| line.contains(text)).count() >= lines {
                return Ok(());
            }
            let said = self.said().unwrap_or_default();
            ensure!(begun.elapsed() < PATIENCE, "{text} is not on the screen:\n{shown}\n{said}");
            thread::sleep(BETWEEN_LOOKS);
        }
    }

    pub(crate) fn key(&self, key: &str) -> Result<()> {
        self.tmux(&["send-keys", key]).map(drop)
    }

    /// Leaves weir, and waits until it has ended.
    pub(crate) fn quit(&self) -> Result<()> {
        self.key("q")?;
        let begun = Instant::now();
        while self.tmux(&["display-message", "-p", "#{pane_dead}"])?.trim() != "1" {
            ensure!(begun.elapsed() < PATIENCE, "weir does not end: {}", self.said()?);
            thread::sleep(BETWEEN_LOOKS);
        }
        Ok(())
    }

    /// What weir wrote to stderr.
    pub(crate) fn said(&self) -> Result<String> {
        fs::read_to_string(self.errors()).context("read what weir said")
    }

    pub(crate) fn process(&self) -> Result<u32> {
        let pid = self.tmux(&["display-message", "-p", "#{pane_pid}"])?;
        pid.trim().parse().context("tmux tells the process")
    }

    /// CPU time of weir so far, user and system.
    pub(crate) fn cpu_seconds(&self) -> Result<f64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process()?))?;
        // The name, in parentheses, may hold anything; utime and stime are fields 14 and 15.
        let fields = stat.rsplit(") ").next().unwrap_or_default().split(' ');
        let ticks: Vec<f64> =
            fields.skip(11).take(2).filter_map(|tick| tick.parse().ok()).collect();
        let [user, system] = ticks[..] else { bail!("no times in {stat}") };
        // USER_HZ, which is 100 on every architecture that weir runs on.
        Ok((user + system) / 100.0)
    }

    fn errors(&self) -> PathBuf {
        self.directory.path().join("stderr")
    }

    fn tmux(&self, arguments: &[&str]) -> Result<String> {
        let output = Command::new("tmux")
            .args(["-L", &self.socket])
            .args(arguments)
            .output()
            .context("cannot start tmux; scripts/need.sh installs it")?;
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "tmux {}: {error}", arguments.join(" "));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // One that has ended already is as good.
        drop(self.tmux(&["kill-server"]));
    }
}
