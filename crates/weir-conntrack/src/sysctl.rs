//! The settings that decide what conntrack knows.
//!
//! All are read in the network namespace of the calling thread; `/proc/sys/net` follows it.

use std::fs;
use std::io;
use std::path::Path;

/// Where they are.
const ROOT: &str = "/proc/sys/net";

/// The settings as found. `None`: the kernel has no such setting here, because a module is not
/// loaded or the kernel was built without it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// `nf_conntrack_acct`: new entries get counters.
    pub accounting: Option<bool>,
    /// `nf_conntrack_timestamp`: new entries note when they begin and end.
    pub timestamps: Option<bool>,
    /// `nf_conntrack_events`. 0: no events. 1: for all entries. 2: only for entries made while
    /// somebody listens, so after a restart the older ones end unheard.
    pub events: Option<u8>,
    /// `nf_conntrack_max`: the table's limit, one for all network namespaces.
    pub max: Option<u64>,
    /// `nf_conntrack_count`: entries in this network namespace's table.
    pub count: Option<u64>,
    /// `nf_conntrack_buckets`: hash buckets, one number for all network namespaces.
    pub buckets: Option<u64>,
    /// `nf_conntrack_tcp_be_liberal`: out-of-window segments are accepted, and an entry made from
    /// the middle of a stream can no longer be told from others.
    pub tcp_be_liberal: Option<bool>,
    /// `nf_conntrack_tcp_loose`: entries are made from the middle of a stream.
    pub tcp_loose: Option<bool>,
    /// `bridge-nf-call-iptables`: IPv4 between ports of a bridge is tracked.
    pub bridged_ipv4: Option<bool>,
    /// `bridge-nf-call-ip6tables`: IPv6 between ports of a bridge is tracked.
    pub bridged_ipv6: Option<bool>,
}

impl Settings {
    /// Reads them.
    pub fn read() -> Self {
        Self::read_below(Path::new(ROOT))
    }

    fn read_below(root: &Path) -> Self {
        let number = |name: &str| -> Option<u64> {
            fs::read_to_string(root.join(name)).ok()?.trim().parse().ok()
        };
        let flag = |name: &str| number(name).map(|number| number != 0);
        Self {
            accounting: flag("netfilter/nf_conntrack_acct"),
            timestamps: flag("netfilter/nf_conntrack_timestamp"),
            events: number("netfilter/nf_conntrack_events")
                .and_then(|number| u8::try_from(number).ok()),
            max: number("netfilter/nf_conntrack_max"),
            count: number("netfilter/nf_conntrack_count"),
            buckets: number("netfilter/nf_conntrack_buckets"),
            tcp_be_liberal: flag("netfilter/nf_conntrack_tcp_be_liberal"),
            tcp_loose: flag("netfilter/nf_conntrack_tcp_loose"),
            bridged_ipv4: flag("bridge/bridge-nf-call-iptables"),
            bridged_ipv6: flag("bridge/bridge-nf-call-ip6tables"),
        }
    }

    /// True when new entries are counted, stamped and heard of.
    pub fn is_complete(&self) -> bool {
        self.accounting == Some(true) && self.timestamps == Some(true) && self.events == Some(1)
    }
}

/// What [`enable`] did.
#[derive(Debug, Default)]
pub struct Enabled {
    /// What was changed. Only entries made from now on are affected.
    pub changed: Vec<Change>,
    /// What could not be changed.
    pub refused: Vec<Refusal>,
}

/// A setting that was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its name as `sysctl` has it.
    pub name: &'static str,
    /// Its former value.
    pub from: String,
    /// Its value now.
    pub to: &'static str,
}

/// A setting that should be changed and was not.
#[derive(Debug, thiserror::Error)]
#[error("cannot set {name} to {to}; to set it by hand: `{remedy}`")]
pub struct Refusal {
    /// Its name as `sysctl` has it.
    pub name: &'static str,
    /// The value it should have.
    pub to: &'static str,
    /// The command that sets it, to be run as root in this network namespace.
    pub remedy: String,
    /// The kernel's answer.
    #[source]
    pub source: io::Error,
}

/// What weir wants: names below [`ROOT`] and as `sysctl` has them, and values.
const WANTED: [(&str, &str, &str); 3] = [
    ("netfilter/nf_conntrack_acct", "net.netfilter.nf_conntrack_acct", "1"),
    ("netfilter/nf_conntrack_timestamp", "net.netfilter.nf_conntrack_timestamp", "1"),
    ("netfilter/nf_conntrack_events", "net.netfilter.nf_conntrack_events", "1"),
];

/// Switches counters, timestamps and events on, where they are not. What is already as wanted is
/// not written.
pub fn enable() -> Enabled {
    enable_below(Path::new(ROOT))
}

fn enable_below(root: &Path) -> Enabled {
    let mut enabled = Enabled::default();
    for (file, name, to) in WANTED {
        let path = root.join(file);
        let written = fs::read_to_string(&path).and_then(|text| {
            let from = text.trim();
            if from == to {
                return Ok(None);
            }
            fs::write(&path, to)?;
            Ok(Some(from.to_owned()))
        });
        match written {
            Ok(None) => {}
            Ok(Some(from)) => enabled.changed.push(Change { name, from, to }),
            Err(source) => {
                let load = if source.kind() == io::ErrorKind::NotFound {
                    "modprobe nf_conntrack && "
                } else {
                    ""
                };
                let remedy = format!("{load}sysctl -w {name}={to}");
                enabled.refused.push(Refusal { name, to, remedy, source });
            }
        }
    }
    enabled
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn absent_settings_are_unknown() {
        let root = tree(&[
            ("netfilter/nf_conntrack_acct", "0\n"),
            ("netfilter/nf_conntrack_events", "2\n"),
            ("netfilter/nf_conntrack_max", "262144\n"),
            ("bridge/bridge-nf-call-iptables", "1\n"),
            ("netfilter/nf_conntrack_count", "garbage\n"),
        ]);
        let expected = Settings {
            accounting: Some(false),
            events: Some(2),
            max: Some(262_144),
            bridged_ipv4: Some(true),
            ..Settings::default()
        };
        assert_eq!(Settings::read_below(root.path()), expected);
        assert!(!expected.is_complete());
    }

    #[test]
    fn enabling_writes_what_differs_and_names_what_is_refused() {
        let root = tree(&[
            ("netfilter/nf_conntrack_acct", "0\n"),
            ("netfilter/nf_conntrack_events", "1\n"),
        ]);
        let enabled = enable_below(root.path());
        assert_eq!(enabled.changed.len(), 1);
        assert_eq!(enabled.changed[0].name, "net.netfilter.nf_conntrack_acct");
        assert_eq!(enabled.changed[0].from, "0");
        assert_eq!(Settings::read_below(root.path()).accounting, Some(true));
        assert_eq!(enabled.refused.len(), 1);
        assert_eq!(
            enabled.refused[0].remedy,
            "modprobe nf_conntrack && sysctl -w net.netfilter.nf_conntrack_timestamp=1"
        );
        assert!(enable_below(root.path()).changed.is_empty());
    }
}
