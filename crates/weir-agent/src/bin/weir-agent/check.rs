//! `weir-agent check`: what the settings come to, before anything runs.

use std::io::{self, Write};

use anyhow::Context as _;
use weir_conntrack::sysctl;

use crate::config::Config;
use crate::settings::{SETTINGS, Settings};
use crate::units::shown_bytes;

/// Bytes of a record in a frame; a little more than is usual.
const RECORD_BYTES: u64 = 48;

/// Prints the settings and what they mean. Fails where a file they name is of no use.
pub(crate) fn print(settings: &Settings, notes: &[String], config: &Config) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    let noted = notes.iter().try_for_each(|note| writeln!(out, "# {note}"));
    let written =
        noted.and_then(|()| list(settings, &mut out)).and_then(|()| size(config, &mut out));
    match written {
        // Who reads us has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        written => written?,
    }
    if let Some(tls) = &config.tls {
        tls.load().context("the TLS files cannot be used")?;
    }
    if let Some(token) = &config.token {
        std::fs::metadata(token)
            .with_context(|| format!("the token cannot be read: {}", token.display()))?;
    }
    Ok(())
}

fn list(settings: &Settings, out: &mut impl Write) -> io::Result<()> {
    for setting in &SETTINGS {
        match settings.get(setting.key) {
            Some(said) => {
                let line = format!("{}: {}", said.key, scalar(&said.text));
                writeln!(out, "{line:<48} # {}", said.origin)?;
            }
            None => writeln!(out, "# {}:", setting.key)?,
        }
    }
    Ok(())
}

/// Text as YAML reads it back.
fn scalar(text: &str) -> String {
    let plain = text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '/')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "/._-:%".contains(c));
    if plain { text.to_owned() } else { format!("{text:?}") }
}

/// What an hour without the server takes on disk, by the connections there are now.
fn size(config: &Config, out: &mut impl Write) -> io::Result<()> {
    let Some(entries) = sysctl::Settings::read().count else {
        return writeln!(out, "\n# How many connections there are is unknown here.");
    };
    let need = |percent: u64| hour_bytes(entries, percent, config.interval.as_millis());
    writeln!(out, "\n# {entries} connections now. An hour without the server takes in the spool:")?;
    for percent in [5, 20, 100] {
        let bytes = need(percent);
        let fits = if bytes > config.limits.bytes { " (more than spool_bytes)" } else { "" };
        let shown = shown_bytes(bytes);
        writeln!(out, "#   {shown:>10} where {percent:>3} % move in every interval{fits}")?;
    }
    Ok(())
}

fn hour_bytes(entries: u64, percent: u64, interval_millis: u128) -> u64 {
    let ticks = 3_600_000 / interval_millis.max(1);
    let bytes = u128::from(entries) * u128::from(percent) * u128::from(RECORD_BYTES) / 100 * ticks;
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_s_need_grows_with_what_moves() {
        assert_eq!(hour_bytes(10_000, 100, 5_000), 10_000 * 48 * 720);
        assert_eq!(hour_bytes(10_000, 5, 5_000), 500 * 48 * 720);
        assert_eq!(hour_bytes(u64::MAX, 100, 0), u64::MAX);
    }
}
