//! The truth against what weir says. Pure: values in, a verdict out.

mod render;

use std::collections::BTreeMap;

use serde::Serialize;
use weir_flow::{Counters, Totals};

use crate::truth::{Excluded, ExcludedReason, Group, Truth};
use crate::weir::Gap;

pub use render::table;

/// What weir says of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// The group.
    pub group: Group,
    /// Both directions.
    pub totals: Totals,
    /// Connections opened.
    pub connections_opened: u64,
}

/// What the lab itself knows of an agent's absence.
#[derive(Clone, Debug, Default)]
pub struct Absence {
    /// Connections that were gone when the agent came back, with all they ever counted: what is
    /// missing of a group can be no more.
    pub vanished: BTreeMap<Group, Totals>,
    /// The bytes of those that began so late that the agent may never have seen them; it can declare
    /// that such connections may have been, but neither their number nor a bound.
    pub unseen_bytes: u64,
}

/// What a difference is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// There is none.
    Exact,
    /// weir has less, and says so.
    Declared,
    /// weir has less and does not say so.
    Missing,
    /// weir has more than there was, in at least one direction.
    Excess,
    /// weir has a group that never was.
    Extra,
    /// weir has the group with source and destination exchanged.
    Reversed,
    /// weir took no part in the run.
    NotCompared,
}

impl Verdict {
    /// True for what a run may end with.
    pub fn is_good(self) -> bool {
        matches!(self, Self::Exact | Self::Declared | Self::NotCompared)
    }
}

/// Truth minus weir.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Bytes source to destination.
    pub bytes_sent: i128,
    /// Bytes destination to source.
    pub bytes_received: i128,
    /// Packets source to destination.
    pub packets_sent: i128,
    /// Packets destination to source.
    pub packets_received: i128,
}

impl Difference {
    fn of(truth: Totals, weir: Totals) -> Self {
        let minus = |a: u64, b: u64| i128::from(a) - i128::from(b);
        Self {
            bytes_sent: minus(truth.sent.bytes, weir.sent.bytes),
            bytes_received: minus(truth.received.bytes, weir.received.bytes),
            packets_sent: minus(truth.sent.packets, weir.sent.packets),
            packets_received: minus(truth.received.packets, weir.received.packets),
        }
    }

    fn parts(self) -> [i128; 4] {
        [self.bytes_sent, self.bytes_received, self.packets_sent, self.packets_received]
    }

    /// Bytes of both directions.
    pub fn bytes(self) -> i128 {
        self.bytes_sent + self.bytes_received
    }
}

/// A group's line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// The group.
    pub group: Group,
    /// What was.
    pub truth: Totals,
    /// What weir says; nothing where it does not know the group.
    pub weir: Option<Totals>,
    /// Truth minus weir.
    pub difference: Difference,
    /// Bytes that may be missing here because connections vanished while weir was absent.
    pub declared_bytes: u64,
    /// Bytes between these two that belong to no connection's counters; not in `truth`.
    pub excluded_bytes: u64,
    /// Bytes of packets that made a fresh entry in the middle of a stream; they are in `truth`.
    pub picked_up_bytes: u64,
    /// Different connections, and how many of them weir says were opened.
    pub connections: (u64, u64),
    /// What the difference is.
    pub verdict: Verdict,
}

/// The whole comparison.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// Each group, in order.
    pub lines: Vec<Line>,
    /// All groups together.
    pub total: Sums,
    /// What belongs to no connection's counters, by reason.
    pub excluded: BTreeMap<ExcludedReason, Counters>,
    /// What weir declares.
    pub gaps: Vec<Gap>,
    /// What is to be said besides.
    pub notes: Vec<String>,
}

/// The sums of all lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// What was.
    pub truth: Totals,
    /// What weir says.
    pub weir: Totals,
    /// Truth minus weir.
    pub difference: Difference,
    /// See [`Line::picked_up_bytes`].
    pub picked_up_bytes: u64,
}

impl Comparison {
    /// True when every difference is declared.
    pub fn is_good(&self) -> bool {
        self.lines.iter().all(|line| line.verdict.is_good())
    }

    /// True when there is no difference at all.
    pub fn is_exact(&self) -> bool {
        self.lines.iter().all(|line| line.verdict == Verdict::Exact)
    }
}

/// Holds weir's rows and declarations against the truth. `absence` is given where weir was killed
/// on purpose.
pub fn compare(truth: &Truth, rows: &[Row], gaps: &[Gap], absence: Option<&Absence>) -> Comparison {
    let mut said: BTreeMap<Group, (Totals, u64)> = BTreeMap::new();
    for row in rows {
        let (totals, opened) = said.entry(row.group).or_default();
        *totals += row.totals;
        *opened += row.connections_opened;
    }
    let mut excluded = truth.excluded.clone();
    let mut lines: Vec<Line> = Vec::new();
    for (group, known) in &truth.groups {
        let weir = said.remove(group);
        let totals = weir.map(|(totals, _)| totals);
        let vanished = absence.and_then(|absence| absence.vanished.get(group));
        let mut line = Line {
            excluded_bytes: take_excluded(&mut excluded, group),
            picked_up_bytes: known.picked_up.bytes,
            connections: (known.connections, weir.map_or(0, |(_, opened)| opened)),
            ..Line::new(*group, known.totals, totals)
        };
        line.verdict = verdict(line.difference, vanished, absence.is_some());
        if line.verdict == Verdict::Declared {
            line.declared_bytes = vanished.map_or(0, |totals| totals.bytes());
        }
        lines.push(line);
    }
    for (group, (totals, opened)) in said {
        let turned = truth.groups.keys().any(|known| is_reverse(known, &group));
        lines.push(Line {
            connections: (0, opened),
            verdict: if turned { Verdict::Reversed } else { Verdict::Extra },
            ..Line::new(group, Totals::default(), Some(totals))
        });
    }
    let mut notes = Vec::new();
    judge_declarations(&mut lines, gaps, absence, &mut notes);
    lines.sort_by_key(|line| (line.verdict.is_good(), line.group));
    Comparison {
        total: sums(&lines),
        lines,
        excluded: by_reason(truth),
        gaps: gaps.to_vec(),
        notes,
    }
}

/// The truth of a run without weir.
pub fn truth_alone(truth: &Truth) -> Comparison {
    let rows: Vec<Row> = truth
        .groups
        .iter()
        .map(|(group, known)| Row { group: *group, totals: known.totals, connections_opened: 0 })
        .collect();
    let mut comparison = compare(truth, &rows, &[], None);
    for line in &mut comparison.lines {
        line.weir = None;
        line.verdict = Verdict::NotCompared;
    }
    comparison.total.weir = Totals::default();
    comparison
}

impl Line {
    fn new(group: Group, truth: Totals, weir: Option<Totals>) -> Self {
        Self {
            group,
            truth,
            weir,
            difference: Difference::of(truth, weir.unwrap_or_default()),
            declared_bytes: 0,
            excluded_bytes: 0,
            picked_up_bytes: 0,
            connections: (0, 0),
            verdict: Verdict::Exact,
        }
    }
}

/// A group's verdict before it is known how much weir declares in all.
fn verdict(difference: Difference, vanished: Option<&Totals>, absent: bool) -> Verdict {
    let parts = difference.parts();
    if parts == [0; 4] {
        return Verdict::Exact;
    }
    if parts.iter().any(|part| *part < 0) {
        return Verdict::Excess;
    }
    if !absent {
        return Verdict::Declared;
    }
    // While weir was killed on purpose, only connections that vanished meanwhile may be missing:
    // a group whose connections all survive is exact or wrong.
    let most = Difference::of(vanished.copied().unwrap_or_default(), Totals::default()).parts();
    let within = parts.iter().zip(most).all(|(part, most)| *part <= most);
    if within { Verdict::Declared } else { Verdict::Missing }
}

/// Holds what is missing in all against what weir declares in all; if it is more, none of it is
/// declared.
fn judge_declarations(
    lines: &mut [Line],
    gaps: &[Gap],
    absence: Option<&Absence>,
    notes: &mut Vec<String>,
) {
    let missing: i128 = lines
        .iter()
        .filter(|line| line.verdict == Verdict::Declared)
        .map(|line| line.difference.bytes())
        .sum();
    let candidates = lines.iter().any(|line| line.verdict == Verdict::Declared);
    if !candidates {
        return;
    }
    let bounded: i128 = gaps
        .iter()
        .map(|gap| i128::from(gap.bytes) + i128::from(gap.bytes_bound.unwrap_or(0)))
        .sum();
    let unbounded = gaps.iter().any(|gap| gap.connections > 0 && gap.bytes_bound.is_none());
    let away = gaps.iter().any(|gap| gap.reason == "agent_down");
    let unseen = absence.filter(|_| away).map_or(0, |absence| i128::from(absence.unseen_bytes));
    if missing <= bounded + unseen {
        notes.push(format!(
            "{missing} bytes are missing; weir declares at most {bounded}, and at most {unseen} belong \
             to connections that were gone before it can have known them"
        ));
        return;
    }
    // A declaration without a bound covers only what the lab itself has seen vanish.
    if unbounded && absence.is_some() {
        notes.push(format!("{missing} bytes are missing; weir declares them without a bound"));
        return;
    }
    notes.push(format!(
        "{missing} bytes are missing, more than the {} that weir declares or cannot know of",
        bounded + unseen
    ));
    for line in lines.iter_mut().filter(|line| line.verdict == Verdict::Declared) {
        line.verdict = Verdict::Missing;
        line.declared_bytes = 0;
    }
}

fn is_reverse(known: &Group, other: &Group) -> bool {
    known.protocol == other.protocol
        && known.source == other.destination
        && (known.destination == other.source
            || known.service.is_some_and(|service| service.ip() == other.source))
}

/// Takes out what was excluded between the ends of a group, so that it is shown once.
fn take_excluded(excluded: &mut Vec<Excluded>, group: &Group) -> u64 {
    let mut bytes = 0;
    excluded.retain(|packets| {
        let ends = [packets.source, packets.destination];
        let theirs = ends.contains(&group.source)
            && (ends.contains(&group.destination)
                || group.service.is_some_and(|service| ends.contains(&service.ip())))
            && (packets.protocol == group.protocol || packets.reason == ExcludedReason::IcmpError);
        if theirs {
            bytes += packets.counters.bytes;
        }
        !theirs
    });
    bytes
}

fn by_reason(truth: &Truth) -> BTreeMap<ExcludedReason, Counters> {
    let mut sums: BTreeMap<ExcludedReason, Counters> = BTreeMap::new();
    for packets in &truth.excluded {
        *sums.entry(packets.reason).or_default() += packets.counters;
    }
    if !truth.stillborn.is_zero() {
        sums.insert(ExcludedReason::Stillborn, truth.stillborn);
    }
    sums
}

fn sums(lines: &[Line]) -> Sums {
    let mut sums = Sums::default();
    for line in lines {
        sums.truth += line.truth;
        sums.weir += line.weir.unwrap_or_default();
        sums.picked_up_bytes += line.picked_up_bytes;
    }
    sums.difference = Difference::of(sums.truth, sums.weir);
    sums
}

#[cfg(test)]
mod tests {
    use weir_flow::Protocol;

    use super::*;
    use crate::truth::GroupTruth;

    fn group(source: &str, destination: &str, port: u16) -> Group {
        Group {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            protocol: Protocol::TCP,
            destination_port: port,
            service: None,
        }
    }

    fn totals(sent: u64, received: u64) -> Totals {
        Totals {
            sent: Counters { packets: 2, bytes: sent },
            received: Counters { packets: 2, bytes: received },
        }
    }

    fn truth(groups: &[(Group, Totals)]) -> Truth {
        let groups = groups.iter().map(|(group, totals)| {
            (*group, GroupTruth { totals: *totals, connections: 1, ..GroupTruth::default() })
        });
        Truth { groups: groups.collect(), ..Truth::default() }
    }

    fn row(group: Group, totals: Totals) -> Row {
        Row { group, totals, connections_opened: 1 }
    }

    fn gap(bytes_bound: Option<u64>) -> Gap {
        Gap { reason: "agent_down".to_owned(), connections: 1, bytes: 0, bytes_bound }
    }

    #[test]
    fn equal_is_exact() {
        let group = group("10.0.0.2", "10.0.0.3", 80);
        let rows = [row(group, totals(40, 60)), row(group, totals(60, 40))];
        let all = Totals {
            sent: Counters { packets: 4, bytes: 100 },
            received: Counters { packets: 4, bytes: 100 },
        };
        let result = compare(&truth(&[(group, all)]), &rows, &[], None);
        assert!(result.is_exact() && result.is_good(), "{result:?}");
        assert_eq!(result.total.difference, Difference::default());
    }

    #[test]
    fn one_missing_byte_is_told() {
        let group = group("10.0.0.2", "10.0.0.3", 80);
        let rows = [row(group, totals(100, 199))];
        let result = compare(&truth(&[(group, totals(100, 200))]), &rows, &[], None);
        assert_eq!(result.lines[0].verdict, Verdict::Missing);
        assert_eq!(result.lines[0].difference.bytes_received, 1);
        assert!(!result.is_good());
    }

    #[test]
    fn a_group_unknown_to_weir_is_missing() {
        let group = group("10.0.0.2", "10.0.0.3", 80);
        let result = compare(&truth(&[(group, totals(100, 200))]), &[], &[], None);
        assert_eq!((result.lines[0].verdict, result.lines[0].weir), (Verdict::Missing, None));
    }

    #[test]
    fn one_byte_too_many_is_never_declared() {
        let group = group("10.0.0.2", "10.0.0.3", 80);
        let rows = [row(group, totals(101, 150))];
        let gaps = [gap(Some(1_000))];
        let absence =
            Absence { vanished: BTreeMap::from([(group, totals(100, 200))]), ..Absence::default() };
        let truth = truth(&[(group, totals(100, 200))]);
        let result = compare(&truth, &rows, &gaps, Some(&absence));
        assert_eq!(result.lines[0].verdict, Verdict::Excess);
    }

    #[test]
    fn a_reversed_group_is_told_even_when_the_sum_agrees() {
        let known = group("10.0.0.2", "10.0.0.3", 80);
        let turned = group("10.0.0.3", "10.0.0.2", 40_000);
        let rows = [row(turned, totals(200, 100))];
        let result = compare(&truth(&[(known, totals(100, 200))]), &rows, &[], None);
        let verdicts: Vec<Verdict> = result.lines.iter().map(|line| line.verdict).collect();
        assert_eq!(verdicts, [Verdict::Missing, Verdict::Reversed]);
        assert_eq!(result.total.difference.bytes(), 0);
        assert!(!result.is_good());
    }

    #[test]
    fn a_group_that_never_was_is_extra() {
        let known = group("10.0.0.2", "10.0.0.3", 80);
        let other = group("10.0.0.4", "10.0.0.3", 80);
        let rows = [row(known, totals(1, 1)), row(other, totals(1, 1))];
        let result = compare(&truth(&[(known, totals(1, 1))]), &rows, &[], None);
        assert_eq!(result.lines[0].verdict, Verdict::Extra);
        assert_eq!(result.lines[0].group, other);
    }

    #[test]
    fn what_vanished_while_weir_was_away_is_declared_up_to_its_bound() {
        let gone = group("10.0.0.2", "10.0.0.3", 80);
        let stays = group("10.0.0.4", "10.0.0.3", 80);
        let truth = truth(&[(gone, totals(100, 200)), (stays, totals(10, 10))]);
        let rows = [row(gone, totals(90, 150)), row(stays, totals(10, 10))];
        let vanished = BTreeMap::from([(gone, totals(20, 60))]);
        let absence = Absence { vanished, unseen_bytes: 0 };
        let verdict = |gaps: &[Gap], rows: &[Row], absence: &Absence| {
            let result = compare(&truth, rows, gaps, Some(absence));
            let line = result.lines.iter().find(|line| line.group == gone).copied();
            (result.is_good(), line.map(|line| line.verdict))
        };
        // 60 bytes are missing.
        let bounded = |bound| [gap(Some(bound))];
        assert_eq!(verdict(&bounded(60), &rows, &absence), (true, Some(Verdict::Declared)));
        assert_eq!(verdict(&bounded(59), &rows, &absence), (false, Some(Verdict::Missing)));
        assert_eq!(verdict(&[], &rows, &absence), (false, Some(Verdict::Missing)));
        let unseen = Absence { unseen_bytes: 1, ..absence.clone() };
        assert_eq!(verdict(&bounded(59), &rows, &unseen), (true, Some(Verdict::Declared)));
        // More than what vanished of this group is missing, whatever the bound says.
        let less = [row(gone, totals(79, 200)), rows[1]];
        assert_eq!(verdict(&bounded(999), &less, &absence), (false, Some(Verdict::Missing)));
        // A group whose connections all survive must be exact.
        let hurt = [rows[0], row(stays, totals(9, 10))];
        assert!(!verdict(&bounded(999), &hurt, &absence).0);
    }

    #[test]
    fn excluded_bytes_are_shown_once() {
        let first = group("10.0.0.2", "10.0.0.3", 80);
        let second = group("10.0.0.2", "10.0.0.3", 81);
        let mut truth = truth(&[(first, totals(1, 1)), (second, totals(1, 1))]);
        truth.excluded.push(Excluded {
            reason: ExcludedReason::Invalid,
            source: first.destination,
            destination: first.source,
            protocol: Protocol::TCP,
            counters: Counters { packets: 1, bytes: 40 },
        });
        let result = compare(&truth, &[], &[], None);
        let shown: u64 = result.lines.iter().map(|line| line.excluded_bytes).sum();
        assert_eq!(shown, 40);
        assert_eq!(result.excluded[&ExcludedReason::Invalid].bytes, 40);
    }
}
