//! What happens on a node while its weir is killed, from the kernel's own tables.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::compare::Absence;
use crate::error::LabError;
use crate::net::Lab;
use crate::table;
use crate::truth::{self, ConnectionKey, Ports, Reading};

/// How often the box is looked at.
const EVERY: Duration = Duration::from_millis(500);

/// Watches which connections there are, so that it can be told which vanished unseen.
pub(crate) struct Watch {
    node: usize,
    ports: Ports,
    /// A connection this young may have been unknown to weir.
    young: Duration,
    first_seen: BTreeMap<ConnectionKey, Instant>,
    /// Which connections stood in the table, at the last look and the one before.
    tables: [BTreeSet<ConnectionKey>; 2],
    looked: Option<Instant>,
    away: Option<(Instant, Reading)>,
    absence: Absence,
}

impl Watch {
    pub(crate) fn new(node: usize, ports: Ports, interval: Duration) -> Self {
        Self {
            node,
            ports,
            // weir may stretch its interval to keep to its budget.
            young: 3 * interval + 2 * EVERY,
            first_seen: BTreeMap::new(),
            tables: [BTreeSet::new(), BTreeSet::new()],
            looked: None,
            away: None,
            absence: Absence::default(),
        }
    }

    /// Looks at the box, if it is time.
    pub(crate) fn look(&mut self, lab: &Lab) -> Result<(), LabError> {
        if self.looked.is_some_and(|looked| looked.elapsed() < EVERY) {
            return Ok(());
        }
        let now = Instant::now();
        self.looked = Some(now);
        self.tables.swap(0, 1);
        self.tables[0] = connections(lab, self.node)?;
        for key in truth::glance(lab, self.node)?.connections.into_keys() {
            self.first_seen.entry(key).or_insert(now);
        }
        Ok(())
    }

    /// weir has just been killed.
    pub(crate) fn away(&mut self, lab: &Lab) -> Result<(), LabError> {
        self.away = Some((Instant::now(), truth::glance(lab, self.node)?));
        Ok(())
    }

    /// weir reads again.
    pub(crate) fn back(&mut self, lab: &Lab) -> Result<(), LabError> {
        if let Some((killed, before)) = self.away.take() {
            let now = connections(lab, self.node)?;
            self.note_vanished(killed, &before, &truth::glance(lab, self.node)?, &now);
        }
        Ok(())
    }

    /// Notes the connections that were counted by now but are in the table no more, unless they
    /// had left it before the kill.
    fn note_vanished(
        &mut self,
        killed: Instant,
        before: &Reading,
        by_now: &Reading,
        table: &BTreeSet<ConnectionKey>,
    ) {
        for (key, totals) in &by_now.connections {
            let counted_meanwhile = before.connections.get(key) != Some(totals);
            // An end shortly before the kill may not have been read by weir any more: the older of
            // the two last looks decides.
            let was_there = self.tables.iter().any(|table| table.contains(key));
            if table.contains(key) || !(was_there || counted_meanwhile) {
                continue;
            }
            let (group, turned) = self.ports.group(key);
            let totals = if turned { totals.turned() } else { *totals };
            *self.absence.vanished.entry(group).or_default() += totals;
            let known = self.first_seen.get(key).is_some_and(|seen| *seen + self.young < killed);
            if !known {
                self.absence.unseen_bytes += totals.bytes();
            }
        }
    }

    pub(crate) fn into_absence(self) -> Absence {
        self.absence
    }
}

fn connections(lab: &Lab, node: usize) -> Result<BTreeSet<ConnectionKey>, LabError> {
    let entries = table::parse(&lab.conntrack_table(node)?)?;
    Ok(entries.into_iter().map(|entry| entry.key).collect())
}

#[cfg(test)]
mod tests {
    use weir_flow::{Counters, Protocol, Totals};

    use super::*;

    fn key(port: u16) -> ConnectionKey {
        let backend = "10.0.0.3".parse().unwrap();
        ConnectionKey {
            protocol: Protocol::TCP,
            source: "10.0.0.2".parse().unwrap(),
            source_port: port,
            dialled: backend,
            dialled_port: 80,
            backend,
        }
    }

    fn reading(connections: &[(u16, u64)]) -> Reading {
        let totals =
            |bytes| Totals { sent: Counters { packets: 1, bytes }, received: Counters::default() };
        let connections = connections.iter().map(|(port, bytes)| (key(*port), totals(*bytes)));
        Reading { connections: connections.collect(), ..Reading::default() }
    }

    #[test]
    fn only_what_vanished_meanwhile_is_noted() {
        let killed = Instant::now() + Duration::from_mins(1);
        let mut watch = Watch::new(0, Ports::default(), Duration::from_secs(2));
        // 1 was over long before, 2 ends meanwhile, 3 survives, 4 begins and ends meanwhile,
        // 5 ended just before the kill.
        watch.tables = [BTreeSet::from([key(2), key(3)]), BTreeSet::from([key(5)])];
        for port in [1, 2, 3, 5] {
            watch.first_seen.insert(key(port), Instant::now());
        }
        let before = reading(&[(1, 100), (2, 200), (3, 300), (5, 500)]);
        let by_now = reading(&[(1, 100), (2, 250), (3, 350), (4, 4_000), (5, 500)]);
        watch.note_vanished(killed, &before, &by_now, &BTreeSet::from([key(3)]));
        let absence = watch.into_absence();
        let bytes: Vec<u64> = absence.vanished.values().map(|totals| totals.bytes()).collect();
        assert_eq!(bytes, [250 + 4_000 + 500]);
        assert_eq!(absence.unseen_bytes, 4_000);
    }
}
