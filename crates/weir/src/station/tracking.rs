//! Making the kernel track and count.

use weir_conntrack::sysctl;
use weir_conntrack::tracking::{Installed, Probe, Tracking};

use crate::say::say;

/// The nftables table that keeps conntrack at work stands; dropping this removes it.
#[derive(Debug)]
pub(super) struct Activated;

impl Drop for Activated {
    fn drop(&mut self) {
        remove();
    }
}

/// Makes the kernel count, as far as it may, and says what it did.
pub(super) fn set_sysctls() {
    let enabled = sysctl::enable();
    for change in &enabled.changed {
        say(&format!("set {} from {} to {}", change.name, change.from, change.to));
    }
    for refusal in &enabled.refused {
        say(&format!("warning: {refusal} ({})", refusal.source));
    }
}

/// Says which settings are not as they should be.
pub(super) fn check_sysctls(how_to_set: &str) {
    if !sysctl::Settings::read().is_complete() {
        say(&format!(
            "warning: net.netfilter.nf_conntrack_{{acct,timestamp,events}} are not all 1: run \
             {how_to_set}, or `sysctl -w net.netfilter.nf_conntrack_acct=1 \
             net.netfilter.nf_conntrack_timestamp=1 net.netfilter.nf_conntrack_events=1`"
        ));
    }
}

/// Makes the kernel track, if that was asked for; else says where it does not.
pub(super) fn prepare(activate: bool) -> anyhow::Result<(Tracking, Option<Installed>)> {
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
        say(
            "warning: conntrack is idle here: no firewall rule uses it, so nothing is tracked and \
             nothing can be counted.\n  To activate it with one rule in a table of its own, removed \
             on exit: weir up --activate-conntrack",
        );
    }
    Ok((tracking, None))
}

fn remove() {
    let removed = Tracking::open().and_then(|mut tracking| tracking.remove());
    match removed {
        Ok(_) => say("removed the nftables table inet weir_tracking"),
        Err(error) => say(&format!(
            "warning: the nftables table stays: {error}; remove it with `nft delete table inet \
             weir_tracking`"
        )),
    }
}
