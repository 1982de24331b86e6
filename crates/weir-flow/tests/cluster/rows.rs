//! The row of kubenetmon's table that a node's entry makes, as a line of columns.

use weir_flow::attribution::{Attributed, Directory};
use weir_flow::kubenetmon::{Direction, End, Ends, INTERVAL_SECONDS, Ignored, Observation};
use weir_flow::kubenetmon::{Row, Settings};
use weir_flow::{Counters, FlowRecord, Name, Sample};

/// An entry, and what weir made of it.
pub(crate) struct Seen<'a> {
    pub(crate) node: &'a Name,
    pub(crate) sample: &'a Sample,
    pub(crate) record: &'a FlowRecord,
    pub(crate) ends: &'a Attributed,
}

/// What a scenario says of it.
pub(crate) struct Said<'a> {
    /// The row.
    pub(crate) row: Option<&'a str>,
    /// Why there is none.
    pub(crate) no_row: Option<&'a str>,
    /// Why weir's own record makes none all the same.
    pub(crate) not_ours: Option<&'a str>,
}

impl Seen<'_> {
    /// What is wrong with the rows of what kubenetmon's agent would have told of the entry, and of
    /// weir's record.
    pub(crate) fn differences(
        &self,
        said: &Said<'_>,
        directory: &dyn Directory,
        settings: &Settings,
    ) -> Vec<String> {
        let should = match (said.row, said.no_row) {
            (Some(row), None) => row.split_whitespace().collect::<Vec<_>>().join(" "),
            (None, Some(why)) => format!("none: {why}"),
            _ => return vec!["there is a row, or there is none".to_owned()],
        };
        let of_record = self.row_of_record(settings);
        // Their agent keeps these to itself.
        let is_told = !matches!(
            of_record,
            Err(Ignored::NoTraffic | Ignored::NotCounted | Ignored::Protocol | Ignored::Loopback)
        );
        let of_entry = is_told.then(|| self.row_of_entry(directory, settings));
        let ours = said.not_ours.map_or_else(|| should.clone(), |why| format!("none: {why}"));
        let rows = [Some((of_record, ours)), of_entry.map(|row| (row, should))];
        rows.into_iter()
            .flatten()
            .filter_map(|(row, should)| {
                let is = match row {
                    Ok(row) => self.text(&row, settings),
                    Err(why) => format!("none: {}", why.name()),
                };
                (is != should).then(|| format!("the row is\n    {is}\n  should be\n    {should}"))
            })
            .collect()
    }

    fn text(&self, row: &Row, settings: &Settings) -> String {
        let seconds = (self.record.interval_to.0 - 1) / 1_000_000_000;
        let minute = seconds - seconds % u64::from(INTERVAL_SECONDS);
        let constants = (&*row.environment, row.local.cluster.as_deref(), row.minute);
        assert_eq!(constants, ("development", Some("cluster"), minute));
        assert_eq!(row.local.cloud.as_ref(), Some(&settings.cloud));
        assert_eq!(row.local.region.as_ref(), Some(&settings.region));
        assert_eq!(row.remote.cluster.as_deref(), Some("UNKNOWN"));
        text(row)
    }

    fn row_of_record(&self, settings: &Settings) -> Result<Row, Ignored> {
        let observation = Observation::of_record(self.record, self.ends, self.node, 0)?;
        Row::of(&observation, &Ends::of(self.ends), settings)
    }

    fn row_of_entry(&self, directory: &dyn Directory, settings: &Settings) -> Result<Row, Ignored> {
        let totals = self.sample.totals.unwrap_or_default();
        let observation = Observation {
            original: self.sample.original,
            reply: self.sample.reply,
            sent: totals.sent,
            received: totals.received,
            node: Name::clone(self.node),
            seconds: (self.record.interval_to.0 - 1) / 1_000_000_000,
        };
        let [source, destination] = observation.name_ends(directory);
        let ends = Ends {
            source: &source,
            destination: &destination,
            // Such an agent's observations have no class; the operator's own does not reach them.
            class: Some(self.ends.class).filter(|_| has_range(self.ends)),
        };
        Row::of(&observation, &ends, settings)
    }
}

fn has_range(ends: &Attributed) -> bool {
    ends.source.range.is_some() || ends.destination.range.is_some()
}

/// Every column that is not empty, in the table's order; the constant ones aside.
fn text(row: &Row) -> String {
    let mut words = vec![format!("proto={}", row.protocol), format!("class={}", row.class)];
    words.extend(row.flags.iter().map(|(name, on)| format!("flag={name}:{on}")));
    for (side, end) in [("local", &row.local), ("remote", &row.remote)] {
        let End { cloud, region, cluster: _, zone, node, instance, namespace, pod, .. } = end;
        let place = [("Cloud", cloud), ("Region", region)];
        let place = place.into_iter().filter(|_| side == "remote");
        let named = [("AvailabilityZone", zone), ("Node", node), ("InstanceID", instance)];
        let named = place.chain(named).chain([("Namespace", namespace), ("Pod", pod)]);
        words.extend(named.filter_map(|(column, name)| {
            name.as_deref().map(|name| format!("{side}{column}={name}"))
        }));
        words.push(format!("{side}={}:{}", end.address, end.port));
        words.extend(end.app.as_deref().map(|app| format!("{side}App={app}")));
    }
    words.extend(row.remote_service.as_deref().map(|name| format!("remoteCloudService={name}")));
    words.extend(Direction::ALL.map(|direction| {
        let Counters { packets, bytes } = row.counters(direction);
        format!("{}={packets}/{bytes}", direction.name())
    }));
    words.join(" ")
}
