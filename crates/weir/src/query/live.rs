//! What a running weir says about itself: the status file it rewrites every tick.

use std::fs;
use std::io::{ErrorKind, Read as _};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use weir_server::answer::{NodeStatus, State};
use weir_server::moment;

/// The file's name in the data directory.
const FILE: &str = "status.json";

/// More than any status; a larger file is not one.
const MAX_BYTES: u64 = 1 << 20;

/// Ticks that may be missed, and seconds besides, before silence is worth a word.
const PATIENCE_TICKS: u32 = 3;
const PATIENCE_SECONDS: u64 = 30;

/// The last thing weir said, if it ever said anything.
pub(super) fn read(directory: &Path) -> anyhow::Result<Option<NodeStatus>> {
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
pub(super) fn judge(said: NodeStatus, writer: Writer, now_seconds: u64) -> NodeStatus {
    let updated = said.updated.as_deref().and_then(moment::parse_rfc3339);
    let silent_seconds = updated.map(|updated| now_seconds.saturating_sub(updated));
    let interval = Duration::try_from_secs_f64(said.interval_seconds).unwrap_or_default();
    let patience = interval.saturating_mul(PATIENCE_TICKS).as_secs() + PATIENCE_SECONDS;

    let (state, reason) = match writer {
        Writer::Nobody if said.state == State::Stopped => (State::Stopped, None),
        Writer::Nobody => (State::Stopped, Some("weir is gone without saying so".to_owned())),
        Writer::Process(holder) if holder.is_some() && holder != said.pid => {
            (State::Starting, Some("weir has not spoken since it was started".to_owned()))
        }
        Writer::Process(_) => match silent_seconds {
            Some(silent) if silent > patience => {
                (State::Stalled, Some(format!("weir runs but has not spoken for {silent} s")))
            }
            _ => (said.state, said.reason.clone()),
        },
    };
    NodeStatus { state, reason, silent_seconds, ..said }
}

/// Who holds the store's lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Writer {
    /// Nobody: weir does not run on this directory.
    Nobody,
    /// A process, with its id where that is known.
    Process(Option<u32>),
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_769_846_400;

    fn said(state: State, updated: &str, interval_seconds: f64) -> NodeStatus {
        let updated = Some(updated.to_owned());
        NodeStatus { state, updated, interval_seconds, pid: Some(7), ..NodeStatus::default() }
    }

    #[test]
    fn the_state_is_what_is_true_now() {
        let me = Writer::Process(Some(7));
        let fresh = "2026-01-31T07:59:58Z";
        let old = "2026-01-31T07:59:14Z";
        for (state, updated, writer, expected) in [
            (State::Reading, fresh, me, State::Reading),
            (State::Reading, fresh, Writer::Process(None), State::Reading),
            (State::Reading, fresh, Writer::Nobody, State::Stopped),
            (State::Stopped, old, Writer::Nobody, State::Stopped),
            (State::Reading, old, me, State::Stalled),
            (State::Reading, "garbage", me, State::Reading),
            (State::Stopped, old, Writer::Process(Some(8)), State::Starting),
        ] {
            let judged = judge(said(state, updated, 5.0), writer, NOW);
            assert_eq!(judged.state, expected, "{state:?} {updated} {writer:?}");
            assert_eq!(judged.reason.is_some(), state != expected, "{judged:?}");
        }
    }

    #[test]
    fn a_long_interval_is_not_silence() {
        for (interval, state) in
            [(300.5, State::Reading), (5.0, State::Stalled), (-1.0, State::Stalled)]
        {
            let said = said(State::Reading, "2026-01-31T07:50:00Z", interval);
            let judged = judge(said, Writer::Process(None), NOW);
            assert_eq!(judged.state, state, "{interval}");
            assert_eq!(judged.silent_seconds, Some(600));
        }
    }

    /// As earlier and later versions write it.
    #[test]
    fn a_status_need_not_say_everything_and_may_say_more() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join(FILE);
        fs::write(&file, r#"{"state":"reading","mood":["fine"],"coverage":null}"#).unwrap();
        let said = read(directory.path()).unwrap().unwrap();
        assert_eq!(said, NodeStatus { state: State::Reading, ..NodeStatus::default() });
    }

    #[test]
    fn no_status_is_not_an_error_and_a_damaged_one_is() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(read(directory.path()).unwrap(), None);
        let file = directory.path().join(FILE);
        for damaged in ["", "[7]", "{\"state\":", "\u{0}", r#"{"state":"dreaming"}"#] {
            fs::write(&file, damaged).unwrap();
            let error = format!("{:#}", read(directory.path()).unwrap_err());
            assert!(error.contains("is not a status object"), "{error}");
        }
        fs::write(&file, " ".repeat(usize::try_from(MAX_BYTES).unwrap() + 1)).unwrap();
        let error = format!("{:#}", read(directory.path()).unwrap_err());
        assert!(error.contains("too large"), "{error}");
    }
}
