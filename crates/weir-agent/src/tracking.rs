//! Making the kernel track and count.

use weir_conntrack::sysctl;
use weir_conntrack::tracking::{Installed, Probe, Tracking};

use crate::AgentError;

/// Tells whoever runs weir something, in a line.
pub type Say = fn(&str);

/// The nftables table that keeps conntrack at work stands; dropping this removes it.
#[derive(Debug)]
pub struct Activated(Say);

impl Activated {
    /// Takes care of the table; what becomes of it is said.
    pub fn new(say: Say) -> Self {
        Self(say)
    }
}

impl Drop for Activated {
    fn drop(&mut self) {
        let removed = Tracking::open().and_then(|mut tracking| tracking.remove());
        match removed {
            Ok(_) => (self.0)("removed the nftables table inet weir_tracking"),
            Err(error) => (self.0)(&format!(
                "warning: the nftables table stays: {error}; remove it with `nft delete table inet \
                 weir_tracking`"
            )),
        }
    }
}

/// Makes the kernel count, as far as it may, and says what it did.
pub fn set_sysctls(say: Say) {
    let enabled = sysctl::enable();
    for change in &enabled.changed {
        say(&format!("set {} from {} to {}", change.name, change.from, change.to));
    }
    for refusal in &enabled.refused {
        say(&format!("warning: {refusal} ({})", refusal.source));
    }
}

/// Says which settings are not as they should be.
pub fn check_sysctls(how_to_set: &str, say: Say) {
    if !sysctl::Settings::read().is_complete() {
        say(&format!(
            "warning: net.netfilter.nf_conntrack_{{acct,timestamp,events}} are not all 1: run \
             {how_to_set}, or `sysctl -w net.netfilter.nf_conntrack_acct=1 \
             net.netfilter.nf_conntrack_timestamp=1 net.netfilter.nf_conntrack_events=1`"
        ));
    }
}

/// Makes the kernel track, if that was asked for; else says where it does not, and with which
/// command that can be changed.
pub fn prepare(
    activate: bool,
    how_to_activate: &str,
    say: Say,
) -> Result<(Tracking, Option<Installed>), AgentError> {
    let mut tracking = Tracking::open()?;
    // A table of ours that stands already was left by a run that was killed: it is adopted.
    let left_over = tracking.is_installed()?;
    if activate {
        let installed = tracking.install()?;
        say(match installed {
            Installed::New => {
                "conntrack activated by the nftables table inet weir_tracking (removed on exit)"
            }
            Installed::Adopted => "adopted the nftables table inet weir_tracking of an earlier run",
        });
        return Ok((tracking, Some(installed)));
    }
    if !left_over && matches!(tracking.probe()?, Probe::Untracked) {
        say(&format!(
            "warning: conntrack is idle here: no firewall rule uses it, so nothing is tracked and \
             nothing can be counted.\n  To activate it with one rule in a table of its own, removed \
             on exit: {how_to_activate}"
        ));
    }
    Ok((tracking, None))
}
