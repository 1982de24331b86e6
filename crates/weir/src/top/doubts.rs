//! What keeps the numbers from being complete, said with the command that helps.

use weir_conntrack::Error;
use weir_conntrack::sysctl::Settings;
use weir_conntrack::tracking::{Probe, Tracking};

/// Is conntrack at work here?
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum AtWork {
    Yes,
    /// No rule needs it.
    Idle,
    /// These tables need it, yet loopback is not tracked.
    NotOnLoopback(Vec<String>),
    /// No packet could be sent to find out.
    Untested(String),
}

/// Everything that can be wrong.
#[derive(Clone, Debug)]
pub(super) struct Doubts {
    pub(super) settings: Settings,
    pub(super) tracking: AtWork,
    /// Connections without counters.
    pub(super) uncounted: usize,
    /// Connections for which there was no room.
    pub(super) left_out: u64,
    /// Ends that the kernel could not tell.
    pub(super) lost_ends: u64,
    /// Messages that could not be read.
    pub(super) malformed: u64,
}

/// Sends a packet to loopback and looks whether it is tracked.
pub(super) fn probe() -> Result<AtWork, Error> {
    let mut tracking = Tracking::open()?;
    Ok(match tracking.probe()? {
        Probe::Tracked => AtWork::Yes,
        Probe::Impossible(error) => AtWork::Untested(error.to_string()),
        Probe::Untracked => {
            let installed = tracking.is_installed()?;
            let others = tracking.others()?;
            if installed || !others.tables.is_empty() || !others.legacy.is_empty() {
                AtWork::NotOnLoopback([others.tables, others.legacy].concat())
            } else {
                AtWork::Idle
            }
        }
    })
}

/// Puts it into sentences.
pub(super) fn list(doubts: &Doubts) -> Vec<String> {
    let mut list = Vec::new();
    match (&doubts.tracking, doubts.settings.accounting) {
        (AtWork::Idle, None) => list.push(
            "the kernel has no connection tracking here; to load it: modprobe nf_conntrack".into(),
        ),
        (AtWork::Idle, _) => list.push(
            "conntrack is idle here: no firewall rule uses it, so nothing new is tracked; to \
             activate it while weir runs: weir up --activate-conntrack"
                .into(),
        ),
        (AtWork::NotOnLoopback(tables), _) => list.push(format!(
            "loopback is not tracked, though rules use conntrack ({}); a notrack rule may exempt \
             it: nft list ruleset",
            if tables.is_empty() { "weir's own".to_owned() } else { tables.join(", ") }
        )),
        (AtWork::Untested(why), _) => list.push(format!(
            "whether conntrack is at work could not be tested: no packet can be sent over loopback \
             ({why}); if it is down: ip link set lo up"
        )),
        (AtWork::Yes, _) => {}
    }
    if doubts.settings.accounting == Some(false) {
        list.push(
            "accounting is off, so new connections get no counters; to count those opened from \
             then on: sysctl -w net.netfilter.nf_conntrack_acct=1"
                .into(),
        );
    }
    let mut count = |what: &str, number: u64| {
        if number > 0 {
            list.push(format!("{what}: {number}"));
        }
    };
    let uncounted = u64::try_from(doubts.uncounted).unwrap_or(u64::MAX);
    count("connections opened while accounting was off, whose bytes are unknown", uncounted);
    count("connections left out, because there was no room for more", doubts.left_out);
    count("ends of connections lost, because the kernel's event buffer was full", doubts.lost_ends);
    count("messages of the kernel that could not be read", doubts.malformed);
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fine() -> Doubts {
        Doubts {
            settings: Settings { accounting: Some(true), ..Settings::default() },
            tracking: AtWork::Yes,
            uncounted: 0,
            left_out: 0,
            lost_ends: 0,
            malformed: 0,
        }
    }

    fn said(doubts: &Doubts, words: &str) {
        let list = list(doubts);
        assert_eq!(list.len(), 1, "{list:?}");
        assert!(list[0].contains(words), "{list:?}");
    }

    #[test]
    fn each_doubt_has_its_sentence_and_its_command() {
        assert!(list(&fine()).is_empty());
        let tracking = |tracking| Doubts { tracking, ..fine() };
        said(&tracking(AtWork::Idle), "weir up --activate-conntrack");
        said(&tracking(AtWork::NotOnLoopback(vec!["raw".into()])), "(raw)");
        said(&tracking(AtWork::NotOnLoopback(Vec::new())), "(weir's own)");
        said(&tracking(AtWork::Untested("unreachable".into())), "ip link set lo up");
        let no_module = Doubts { settings: Settings::default(), ..tracking(AtWork::Idle) };
        said(&no_module, "modprobe nf_conntrack");
        let off = Settings { accounting: Some(false), ..Settings::default() };
        said(&Doubts { settings: off, ..fine() }, "sysctl -w net.netfilter.nf_conntrack_acct=1");
        said(&Doubts { uncounted: 3, ..fine() }, "accounting was off, whose bytes are unknown: 3");
        said(&Doubts { left_out: 4, ..fine() }, "left out, because there was no room for more: 4");
        said(
            &Doubts { lost_ends: 5, ..fine() },
            "ends of connections lost, because the kernel's event buffer was full: 5",
        );
        said(&Doubts { malformed: 6, ..fine() }, "could not be read: 6");
    }
}
