//! What `weir up` does where it may not read conntrack: it shows this machine's TCP sockets while
//! it runs, and keeps nothing.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use weir_agent::local::LocalDirectory;

use crate::render::{Shown, Style};
use crate::top::sockets::Sockets;
use crate::top::view::View;
use crate::top::{Lacking, SPAN, host_name, program};

/// Rows of the table: with banner and headings they fit on a terminal of 24 lines.
const ROWS: usize = 15;
/// Waiting for the next reading, a stop is looked for this often.
const STOP_CHECK: Duration = Duration::from_millis(100);
/// What a terminal does before each picture: cursor home, clear to the end.
const REDRAW: &[u8] = b"\x1b[H\x1b[J";
/// From here on lines end at the terminal's edge, and after this they wrap again: a row that took
/// two lines would push the picture's beginning off the screen.
const CUT: &[u8] = b"\x1b[?7l";
const WRAP: &[u8] = b"\x1b[?7h";

/// Shows the sockets every `interval` until `stopping`; redraws in place on a terminal unless
/// `plain`, else appends.
pub(crate) fn watch(interval: Duration, plain: bool, stopping: &AtomicBool) -> anyhow::Result<()> {
    let is_terminal = io::stdout().is_terminal();
    let style = Style::choose(is_terminal, std::env::var_os("NO_COLOR").as_deref());
    let screen = Screen { in_place: is_terminal && !plain, style, program: program() };
    let mut sockets = Sockets::open(LocalDirectory::new(&host_name()))?;
    // The first picture comes soon, whatever the interval.
    let mut next = interval.min(SPAN);
    while wait(next, stopping) {
        next = interval;
        let view = sockets
            .read(Lacking::NetAdmin)
            .map(|reading| View::new(reading, Some(ROWS), sockets.directory()));
        screen.draw(&view)?;
    }
    Ok(())
}

/// Waits; false when it is time to stop.
fn wait(time: Duration, stopping: &AtomicBool) -> bool {
    let begun = Instant::now();
    while !stopping.load(Ordering::Acquire) {
        let left = time.saturating_sub(begun.elapsed());
        if left.is_zero() {
            return true;
        }
        thread::sleep(left.min(STOP_CHECK));
    }
    false
}

struct Screen {
    in_place: bool,
    style: Style,
    program: String,
}

impl Screen {
    fn draw(&self, view: &anyhow::Result<View>) -> io::Result<()> {
        let text = self.picture(view)?;
        let mut out = io::stdout().lock();
        out.write_all(&text)?;
        out.flush()
    }

    fn picture(&self, view: &anyhow::Result<View>) -> io::Result<Vec<u8>> {
        let mut text = Vec::new();
        let if_in_place = |sequence: &'static [u8]| if self.in_place { sequence } else { b"" };
        text.extend_from_slice(if_in_place(REDRAW));
        self.write_banner(&mut text)?;
        text.extend_from_slice(if_in_place(CUT));
        match view {
            Ok(view) => view.write_table(self.style, &mut text)?,
            // One reading that failed is no reason to stop looking.
            Err(error) => {
                let error = format!("{error:#}");
                writeln!(text, "{}", self.style.warning(Shown(&error)))?;
            }
        }
        if !self.in_place {
            writeln!(text)?;
        }
        text.extend_from_slice(if_in_place(WRAP));
        Ok(text)
    }

    fn write_banner(&self, out: &mut Vec<u8>) -> io::Result<()> {
        let Self { style, program, .. } = self;
        writeln!(
            out,
            "{}",
            style.bold(
                "weir · sockets · live only: this machine's TCP, payload bytes; nothing is stored"
            )
        )?;
        let advice = Lacking::NetAdmin.advice(program);
        writeln!(out, "{}", style.warning(Shown(&format!("limited: {advice}"))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_banner_says_what_is_missing_and_how_to_get_it() {
        let screen = Screen { in_place: false, style: Style::Plain, program: "/opt/weir".into() };
        let mut text = Vec::new();
        screen.write_banner(&mut text).unwrap();
        insta::assert_snapshot!(String::from_utf8(text).unwrap());
    }

    #[test]
    fn only_in_place_the_terminal_is_steered_and_an_error_does_not_end_it() {
        let picture = |in_place| {
            let screen = Screen { in_place, style: Style::Plain, program: "weir".into() };
            let failed = Err(anyhow::anyhow!("evil\x1b[2J").context("list the sockets"));
            String::from_utf8(screen.picture(&failed).unwrap()).unwrap()
        };
        let text = picture(true);
        assert!(text.starts_with("\x1b[H\x1b[J") && text.ends_with("\x1b[?7h"), "{text:?}");
        assert!(!text.contains("evil\x1b"), "{text:?}");
        let text = picture(false);
        assert!(!text.contains('\x1b') && text.ends_with("\n\n"), "{text:?}");
        assert!(text.contains("list the sockets: evil\\u{1b}[2J"), "{text:?}");
    }

    #[test]
    fn a_stop_ends_the_wait() {
        assert!(!wait(Duration::from_mins(10), &AtomicBool::new(true)));
        assert!(wait(Duration::ZERO, &AtomicBool::new(false)));
    }
}
