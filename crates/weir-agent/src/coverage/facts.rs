//! What the diagnosis looks at.

use weir_conntrack::Error;
use weir_conntrack::sysctl::Settings;
use weir_conntrack::tracking::{Probe, Tracking};

use super::rules::Rules;
use crate::interfaces::Moved;

/// What conntrack counted in an interval, and what its table looks like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Sum of all connections' deltas of both directions, other zones' entries of the same
    /// connection included once.
    pub bytes: u64,
    /// Of these: bytes that this machine itself sent (the direction's source is one of its own
    /// addresses). `None` where that is not known.
    pub from_here: Option<u64>,
    /// Live entries that have no counters.
    pub entries_without_counters: u64,
    /// Live entries that a flowtable or hardware carries ([`weir_flow::Status::offloaded`]).
    pub offloaded_entries: u64,
}

/// All that [`super::diagnose`] looks at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The kernel's settings.
    pub settings: Settings,
    /// A packet of our own became an entry; `None`: none could be sent.
    pub tracked: Option<bool>,
    /// What conntrack counted.
    pub counted: Counted,
    /// What moved.
    pub moved: Moved,
    /// What the rule set says.
    pub rules: Rules,
}

impl Facts {
    /// Reads the system. The whole rule set is read, which takes long on a busy node: for rare use,
    /// when coverage is low, at most once a minute.
    pub fn gather(counted: Counted, moved: Moved) -> Result<Self, Error> {
        let settings = Settings::read();
        let tracked = match Tracking::open()?.probe()? {
            Probe::Tracked => Some(true),
            // A rule may exempt loopback alone; entries that were counted prove that it works.
            Probe::Untracked => Some(counted.bytes > 0),
            Probe::Impossible(_) => None,
        };
        Ok(Self { settings, tracked, counted, moved, rules: Rules::read()? })
    }
}
