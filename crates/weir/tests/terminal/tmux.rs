//! A real terminal: tmux with a server of its own.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::machine::Machine;

/// How long anything may take to appear: the machine may be busy with other tests.
const PATIENCE: Duration = Duration::from_mins(1);

/// A shell in a terminal, on a machine. Gone when dropped, with what runs in it.
pub(crate) struct Terminal {
    /// Where its server listens.
    socket: String,
}

impl Terminal {
    /// A shell with these variables.
    pub(crate) fn open(
        machine: &Machine,
        (width, height): (u16, u16),
        variables: &[(&str, &str)],
    ) -> Self {
        let settings = machine.path("tmux.conf");
        fs::write(&settings, "set -g status off\n").unwrap();
        let this = Self { socket: machine.path("tmux").display().to_string() };
        let (width, height) = (width.to_string(), height.to_string());
        let words =
            ["-u", "-S", &this.socket, "-f", settings.to_str().unwrap(), "new-session", "-d"];
        let mut command = machine.command("tmux", &words);
        command.args(["-x", &width, "-y", &height, "sh"]);
        // What the shell has is what tmux has, and tmux keeps to itself where it runs.
        for name in ["TMUX", "NO_COLOR", "LC_ALL", "LC_CTYPE", "WEIR_LISTEN"] {
            command.env_remove(name);
        }
        command.env("LANG", "C.UTF-8").env("ENV", "");
        for (name, value) in variables {
            command.env(name, value);
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        this.wait("a prompt", |screen| screen.trim_end().ends_with(['#', '$']));
        this
    }

    /// Types a line in the shell.
    pub(crate) fn run(&self, line: &str) {
        self.text(line);
        self.key("Enter");
    }

    /// Types this.
    pub(crate) fn text(&self, text: &str) {
        self.tmux(&["send-keys", "-l", text]);
    }

    /// Presses a key, by tmux's name of it.
    pub(crate) fn key(&self, key: &str) {
        self.tmux(&["send-keys", key]);
    }

    pub(crate) fn resize(&self, width: u16, height: u16) {
        self.tmux(&["resize-window", "-x", &width.to_string(), "-y", &height.to_string()]);
    }

    /// What is on the screen, a line each.
    pub(crate) fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    /// The same, with the codes of its colours.
    pub(crate) fn coloured(&self) -> String {
        self.tmux(&["capture-pane", "-p", "-e"])
    }

    /// True while a program uses the alternate screen.
    pub(crate) fn is_alternate(&self) -> bool {
        self.tmux(&["display-message", "-p", "#{alternate_on}"]).trim() == "1"
    }

    /// Column and row of the cursor, from 0.
    pub(crate) fn cursor(&self) -> (usize, usize) {
        let said = self.tmux(&["display-message", "-p", "#{cursor_x} #{cursor_y}"]);
        let (column, row) = said.trim().split_once(' ').unwrap();
        (column.parse().unwrap(), row.parse().unwrap())
    }

    /// The program that the shell runs.
    pub(crate) fn program(&self) -> u32 {
        let shell = self.tmux(&["display-message", "-p", "#{pane_pid}"]);
        let shell = shell.trim();
        let children = fs::read_to_string(format!("/proc/{shell}/task/{shell}/children")).unwrap();
        children.trim().parse().unwrap_or_else(|_| panic!("one child, not {children:?}"))
    }

    /// Waits until the screen is so, and returns it.
    pub(crate) fn wait(&self, what: &str, holds: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let screen = self.screen();
            if holds(&screen) {
                return screen;
            }
            assert!(Instant::now() < deadline, "waited in vain: {what}\n{}", framed(&screen));
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until this is on the screen.
    pub(crate) fn shows(&self, text: &str) -> String {
        self.wait(text, |screen| screen.contains(text))
    }

    /// Waits until this is not on the screen any more.
    pub(crate) fn hides(&self, text: &str) -> String {
        self.wait(&format!("no {text}"), |screen| !screen.contains(text))
    }

    fn tmux(&self, words: &[&str]) -> String {
        let mut command = Command::new("tmux");
        let output = command.args(["-u", "-S", &self.socket]).args(words).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "tmux {words:?}: {said}");
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        drop(Command::new("tmux").args(["-S", &self.socket, "kill-server"]).status());
    }
}

/// A screen in a message.
fn framed(screen: &str) -> String {
    screen.lines().fold(String::new(), |mut text, line| {
        writeln!(text, "| {line}").unwrap();
        text
    })
}
