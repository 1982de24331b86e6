//! What a running weir says about itself: the status file it rewrites every tick.

use std::fs;
use std::io::{ErrorKind, Read as _};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use jiff::Timestamp;
use serde_json::{Map, Value};

/// The file's name in the data directory.
const FILE: &str = "status.json";

/// More than any status; a larger file is not one.
const MAX_BYTES: u64 = 1 << 20;

/// Ticks that may be missed, and seconds besides, before silence is worth a word.
const PATIENCE_TICKS: u32 = 3;
const PATIENCE_SECONDS: u64 = 30;

/// The last thing weir said, if it ever said anything.
pub(super) fn read(directory: &Path) -> anyhow::Result<Option<Map<String, Value>>> {
    let path = directory.join(FILE);
    let file = match fs::File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("open {}", path.display())),
    };
    let mut text = String::new();
    let length = file
        .take(MAX_BYTES + 1)
        .read_to_string(&mut text)
        .with_context(|| format!("read {}", path.display()))?;
    ensure!(length as u64 <= MAX_BYTES, "{} is too large to be a status", path.display());
    serde_json::from_str(&text)
        .map(Some)
        .with_context(|| format!("{} is not a status object", path.display()))
}

/// Corrects the state that was written last by what is true now: a process that is gone wrote
/// `reading` too. `writer` is the process that holds the store's lock.
pub(super) fn judge(said: &Map<String, Value>, writer: Writer, now_seconds: u64) -> Judged {
    let said_state = said.get("state").and_then(Value::as_str).unwrap_or("unknown");
    let updated = said
        .get("updated")
        .and_then(Value::as_str)
        .and_then(|text| text.parse::<Timestamp>().ok())
        .and_then(|time| u64::try_from(time.as_second()).ok());
    let silent_seconds = updated.map(|updated| now_seconds.saturating_sub(updated));
    let interval = said.get("interval_seconds").and_then(Value::as_f64).unwrap_or(0.0);
    let interval = Duration::try_from_secs_f64(interval).unwrap_or_default();
    let patience = interval.saturating_mul(PATIENCE_TICKS).as_secs() + PATIENCE_SECONDS;

    let pid = said.get("pid").and_then(Value::as_u64);
    let (state, reason) = match writer {
        Writer::Nobody if said_state == "stopped" => (said_state, None),
        Writer::Nobody => ("stopped", Some("weir is gone without saying so".to_owned())),
        Writer::Process(holder) if holder.is_some() && holder != pid => {
            ("starting", Some("weir has not spoken since it was started".to_owned()))
        }
        Writer::Process(_) => match silent_seconds {
            Some(silent) if silent > patience => {
                ("stalled", Some(format!("weir runs but has not spoken for {silent} s")))
            }
            _ => (said_state, None),
        },
    };
    Judged { state: state.to_owned(), reason, silent_seconds }
}

/// Who holds the store's lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Writer {
    /// Nobody: weir does not run on this directory.
    Nobody,
    /// A process, with its id where that is known.
    Process(Option<u64>),
}

/// What is true now.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Judged {
    /// The corrected state.
    pub(super) state: String,
    /// Why it was corrected, where it was.
    pub(super) reason: Option<String>,
    /// How long ago weir spoke, where it says when.
    pub(super) silent_seconds: Option<u64>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: u64 = 1_769_846_400;

    fn judged(state: &str, updated: &str, writer: Writer) -> String {
        let said = json!({"state": state, "updated": updated, "interval_seconds": 5, "pid": 7});
        judge(said.as_object().unwrap(), writer, NOW).state
    }

    #[test]
    fn the_state_is_what_is_true_now() {
        let me = Writer::Process(Some(7));
        let fresh = "2026-01-31T07:59:58Z";
        let old = "2026-01-31T07:59:14Z";
        for (said, updated, writer, state) in [
            ("reading", fresh, me, "reading"),
            ("reading", fresh, Writer::Process(None), "reading"),
            ("reading", fresh, Writer::Nobody, "stopped"),
            ("stopped", old, Writer::Nobody, "stopped"),
            ("reading", old, me, "stalled"),
            ("reading", "garbage", me, "reading"),
            ("stopped", old, Writer::Process(Some(8)), "starting"),
            ("no_permission", fresh, me, "no_permission"),
        ] {
            assert_eq!(judged(said, updated, writer), state, "{said} {updated} {writer:?}");
        }
    }

    #[test]
    fn a_long_interval_is_not_silence() {
        for (interval, state) in
            [(json!(300.5), "reading"), (json!(5), "stalled"), (json!(-1), "stalled")]
        {
            let said = json!({
                "state": "reading", "updated": "2026-01-31T07:50:00Z", "interval_seconds": interval,
            });
            let judged = judge(said.as_object().unwrap(), Writer::Process(None), NOW);
            assert_eq!(judged.state, state, "{interval}");
            assert_eq!(judged.silent_seconds, Some(600));
        }
    }

    #[test]
    fn no_status_is_not_an_error_and_a_damaged_one_is() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(read(directory.path()).unwrap(), None);
        let file = directory.path().join(FILE);
        fs::write(&file, "{\"state\":\"reading\"}").unwrap();
        assert_eq!(read(directory.path()).unwrap().unwrap()["state"], "reading");
        for damaged in ["", "[]", "{\"state\":", "\u{0}"] {
            fs::write(&file, damaged).unwrap();
            let error = format!("{:#}", read(directory.path()).unwrap_err());
            assert!(error.contains("is not a status object"), "{error}");
        }
        fs::write(&file, " ".repeat(usize::try_from(MAX_BYTES).unwrap() + 1)).unwrap();
        let error = format!("{:#}", read(directory.path()).unwrap_err());
        assert!(error.contains("too large"), "{error}");
    }
}
