//! Lines for the person at the terminal: on stderr, or in the screen while one is up.

use std::io::{self, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::top::live::Messages;

/// Where lines go while a screen is up.
static SCREEN: Mutex<Option<Messages>> = Mutex::new(None);

/// Says a line. stdout is for answers.
pub(crate) fn say(text: &str) {
    line(format!("weir: {text}"));
}

/// From now on lines go to the screen, until what is returned is dropped.
pub(crate) fn to_screen(messages: Messages) -> ToScreen {
    *screen() = Some(messages);
    ToScreen
}

/// Log lines go the same way.
pub(crate) fn log() {
    let filter = EnvFilter::try_from_env("WEIR_LOG").unwrap_or_else(|_| EnvFilter::new("warn"));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        // Lines may end up on the screen, which draws no escapes.
        .with_ansi(false)
        .with_writer(Log)
        .compact();
    // Only a second call could fail, and there is none.
    drop(subscriber.try_init());
}

/// Lines go to the screen while this lives.
#[derive(Debug)]
pub(crate) struct ToScreen;

impl Drop for ToScreen {
    fn drop(&mut self) {
        *screen() = None;
    }
}

fn line(text: String) {
    match &*screen() {
        Some(messages) => messages.push(text),
        // With stderr closed there is nobody to tell.
        None => drop(writeln!(io::stderr(), "{text}")),
    }
}

fn screen() -> MutexGuard<'static, Option<Messages>> {
    SCREEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Gives each log event a place to be written to.
struct Log;

impl<'a> MakeWriter<'a> for Log {
    type Writer = LogLine;

    fn make_writer(&'a self) -> LogLine {
        LogLine(Vec::new())
    }
}

/// One log event; said when it is complete.
struct LogLine(Vec<u8>);

impl Write for LogLine {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for LogLine {
    fn drop(&mut self) {
        line(String::from_utf8_lossy(&self.0).trim_end().to_owned());
    }
}
