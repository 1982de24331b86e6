//! What is wrong, and what helps.

use std::time::Duration;

use weir_server::answer::{NodeStatus, PeerState, State, Status};

use super::app::App;
use super::text::{count, length, shown, whole};

/// Coverage below this is worth a line.
const LOW: f64 = 0.9;
/// A node whose newest stored batch is older than this is missing in what is shown as now.
const LATE_SECONDS: f64 = 60.0;
/// For how long a loss is shown.
const SHOWN_FOR: Duration = Duration::from_mins(1);

/// Losses, since when they are known.
#[derive(Clone, Debug, Default)]
pub(super) struct Losses {
    known: u64,
    /// When more of them were found.
    rose_at: Option<Duration>,
}

impl Losses {
    /// Takes the newest count.
    pub(super) fn note(&mut self, lost: u64, now: Duration) {
        if lost > self.known {
            self.rose_at = Some(now);
        }
        self.known = lost;
    }

    fn is_recent(&self, now: Duration) -> bool {
        self.rose_at.is_some_and(|at| now.saturating_sub(at) < SHOWN_FOR)
    }
}

/// All lines, the most important first.
pub(super) fn banners(app: &App) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(trouble) = &app.trouble {
        let retry = trouble.retry_at.saturating_sub(app.now).as_secs_f64().ceil();
        let since = app.now.saturating_sub(trouble.since).as_secs_f64();
        lines.push(format!(
            "weir does not answer since {}, retrying ({} s): {}",
            length(Some(since)),
            whole(retry),
            shown(&trouble.why),
        ));
    }
    for (part, why) in &app.refused {
        lines.push(format!("no {}: {}", part.name(), shown(why)));
    }
    if let Some(status) = &app.status {
        lines.extend(missing_servers(status));
        lines.extend(status.store_error.as_ref().map(|trouble| {
            let (since, error) = (shown(&trouble.since), shown(&trouble.error));
            format!("the store fails since {since}, agents keep their batches: {error}")
        }));
        for node in &status.nodes {
            let place = if status.nodes.len() > 1 {
                format!("{}: ", shown(&node.node))
            } else {
                String::new()
            };
            let uncounted = app.node_row(&node.node).map_or(0, |row| row.connections_uncounted);
            let found = of_node(node, uncounted, app.losses.is_recent(app.now));
            lines.extend(found.into_iter().map(|line| format!("{place}{line}")));
        }
        lines.extend(gaps(status, app.since_seconds));
    }
    lines
}

/// Servers that did not answer: what their agents see now is not on the screen.
fn missing_servers(status: &Status) -> Option<String> {
    let silent = || status.peers.iter().filter(|peer| peer.state != PeerState::Ok);
    let first = silent().next()?;
    let why = first.reason.as_deref().map(|why| format!(": {}", shown(why)));
    Some(format!(
        "{} of {} other servers did not answer, what their agents see now is missing here; {} is \
         {}{}",
        silent().count(),
        status.peers.len(),
        shown(&first.address),
        first.state.name().replace('_', " "),
        why.unwrap_or_default(),
    ))
}

fn of_node(node: &NodeStatus, uncounted: u64, lost_lately: bool) -> Vec<String> {
    let mut lines = Vec::new();
    if matches!(node.state, State::Stalled | State::Stopped) {
        let silent =
            node.silent_seconds.map(|seconds| format!(" for {}", length(Some(as_f64(seconds)))));
        let reason = node.reason.as_deref().map(|reason| format!(": {}", shown(reason)));
        lines.push(format!(
            "the agent is {}{}{}; see `weir query status`",
            node.state.name(),
            silent.unwrap_or_default(),
            reason.unwrap_or_default(),
        ));
    }
    if node.accounting == Some(false) {
        lines.push(
            "accounting is off, bytes of connections are unknown: \
             sudo sysctl -w net.netfilter.nf_conntrack_acct=1"
                .to_owned(),
        );
    }
    if let Some(coverage) = node.coverage.filter(|coverage| *coverage < LOW) {
        let percent = whole(coverage * 100.0);
        if node.causes.is_empty() {
            lines.push(format!(
                "only {percent} % of what the interfaces moved was counted; see `weir query status`"
            ));
        }
        for cause in &node.causes {
            lines.push(format!("only {percent} % was counted: {}", shown(&cause.text)));
        }
    }
    if lost_lately && node.lost_events > 0 {
        lines.push(format!(
            "the kernel dropped {} notices of ended connections since the start; \
             their last bytes are declared as a gap",
            count(node.lost_events)
        ));
    }
    // With accounting off this is said already.
    if node.accounting != Some(false) && uncounted > 0 {
        lines.push(format!(
            "{} connections began while accounting was off: their bytes are unknown",
            count(uncounted)
        ));
    }
    if let Some(limits) = &node.source_limits {
        lines.push(format!("source {}: {}", shown(&node.source), shown(limits)));
    }
    if let Some(lag) = node.lag_seconds.filter(|lag| *lag > LATE_SECONDS)
        && node.state == State::Reading
    {
        lines.push(format!(
            "its newest batch here is {} old: it is cut off, or sends what it kept",
            length(Some(lag))
        ));
    }
    if let Some(why) = &node.delivery_waits {
        lines.push(format!(
            "{} batches wait to be stored: {}",
            count(node.undelivered_batches),
            shown(why)
        ));
    }
    lines
}

fn gaps(status: &Status, since_seconds: u64) -> Option<String> {
    let newest = status.gaps.iter().max_by(|left, right| left.to.cmp(&right.to))?;
    Some(format!(
        "{} in the last {}, the newest {} to {}: {}; totals are too low there, see `weir query status`",
        if status.gaps.len() == 1 {
            "a gap".to_owned()
        } else {
            format!("{} gaps", status.gaps.len())
        },
        weir_server::moment::human(since_seconds),
        super::text::clock(&newest.from),
        super::text::clock(&newest.to),
        shown(&newest.reason),
    ))
}

#[expect(clippy::cast_precision_loss, reason = "lengths of time for people")]
fn as_f64(seconds: u64) -> f64 {
    seconds as f64
}
