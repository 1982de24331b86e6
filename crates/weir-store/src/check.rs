//! What every store asks of a batch before it takes it, and of the levels it keeps.

use weir_flow::{Level, Measures};

use crate::{CommitBatch, InvalidBatch};

/// 9999-12-31T23:59:59Z: no window begins later.
pub(crate) const LAST_SECOND: u64 = 253_402_300_799;

/// The columns of sums, in the order of [`columns`].
pub(crate) const SUMS: [&str; 10] = [
    "bytes_sent",
    "bytes_received",
    "packets_sent",
    "packets_received",
    "connections_opened",
    "connections_closed",
    "connections_failed",
    "connections_unreplied",
    "connections_uncounted",
    "transit_bytes",
];

/// Bytes of a node's name, as DNS has it.
const NODE_BYTES: usize = 253;
/// Bytes of any name of an endpoint.
const NAME_BYTES: usize = 1_024;
/// Bytes of a counter's name.
const COUNTER_BYTES: usize = 64;
/// Counters of a batch.
const COUNTERS: usize = 64;
/// Gaps of a batch.
const GAPS: usize = 4_096;

/// A level as a writer keeps it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeptLevel {
    pub(crate) level: Level,
    /// Seconds; 0: not kept.
    pub(crate) retention: u64,
    /// Seconds since 1970 before which it holds nothing.
    pub(crate) horizon: u64,
}

impl KeptLevel {
    /// True when a row of this window is kept.
    pub(crate) fn takes(&self, window: u64) -> bool {
        self.retention > 0 && window >= self.horizon
    }
}

/// The sums in the order of [`SUMS`].
pub(crate) fn columns(sums: &Measures) -> [u64; 10] {
    [
        sums.bytes_sent,
        sums.bytes_received,
        sums.packets_sent,
        sums.packets_received,
        sums.connections_opened,
        sums.connections_closed,
        sums.connections_failed,
        sums.connections_unreplied,
        sums.connections_uncounted,
        sums.transit_bytes,
    ]
}

/// True when the coarsest level no longer holds all of the batch: it never crosses an hour, so the
/// coarsest level takes all of it or nothing. Batches without flows are never too old.
pub(crate) fn is_too_old(batch: &CommitBatch<'_>, levels: &[KeptLevel; 3]) -> bool {
    let Some(last) = levels.iter().rposition(|level| level.retention > 0) else { return false };
    batch.flows.levels[last].iter().any(|flow| !levels[last].takes(flow.key.window))
}

/// Everything that can be wrong with a batch by itself.
pub(crate) fn check(batch: &CommitBatch<'_>) -> Result<(), InvalidBatch> {
    let sequence = batch.id.sequence;
    if sequence == 0 || i64::try_from(sequence).is_err() {
        return Err(InvalidBatch::Sequence(sequence));
    }
    check_names(batch)?;
    let endpoints = batch.flows.endpoints.len();
    let names = batch.flows.service_names.len();
    let mut finest = None;
    for (level, flows) in Level::ALL.into_iter().zip(&batch.flows.levels) {
        let mut sums = [0_u128; 10];
        for flow in flows {
            let key = &flow.key;
            let index = key.source.max(key.destination);
            if index as usize >= endpoints {
                return Err(InvalidBatch::Endpoint { index, len: endpoints });
            }
            if let Some(index) = key.service_name.filter(|index| *index as usize >= names) {
                return Err(InvalidBatch::ServiceName { index, len: names });
            }
            if key.window % level.seconds() != 0 || key.window > LAST_SECOND {
                let level_seconds = level.seconds();
                return Err(InvalidBatch::Window { window: key.window, level_seconds });
            }
            for (sum, value) in sums.iter_mut().zip(columns(&flow.measures)) {
                *sum += u128::from(value);
            }
        }
        if sums != *finest.get_or_insert(sums) {
            return Err(InvalidBatch::LevelsDisagree { level_seconds: level.seconds() });
        }
    }
    Ok(())
}

fn check_names(batch: &CommitBatch<'_>) -> Result<(), InvalidBatch> {
    let short = |what, text: &str, limit| match text.len() {
        len if len > limit => Err(InvalidBatch::TooLong { what, len, limit }),
        _ => Ok(()),
    };
    let few = |what, len, limit| match len {
        len if len > limit => Err(InvalidBatch::TooMany { what, len, limit }),
        _ => Ok(()),
    };
    short("the node's name", batch.node, NODE_BYTES)?;
    few("gaps", batch.gaps.len(), GAPS)?;
    few("counters", batch.counters.len(), COUNTERS)?;
    for (name, _) in batch.counters {
        short("a counter's name", name, COUNTER_BYTES)?;
    }
    for endpoint in &batch.flows.endpoints {
        let names = [
            ("a host's name", &endpoint.host),
            ("a unit's name", &endpoint.unit),
            ("a container's id", &endpoint.container),
            ("an executable's name", &endpoint.executable),
            ("a namespace's name", &endpoint.namespace),
            ("a pod's name", &endpoint.pod),
            ("a service's name", &endpoint.service),
            ("a workload's kind", &endpoint.workload_kind),
            ("a workload's name", &endpoint.workload_name),
            ("a node's name", &endpoint.node),
            ("a zone's name", &endpoint.zone),
            ("a region's name", &endpoint.region),
            ("an application's name", &endpoint.app),
            ("a label list", &endpoint.labels),
            ("a cloud's name", &endpoint.cloud),
            ("a cloud service's name", &endpoint.cloud_service),
            ("a range's name", &endpoint.range),
        ];
        for (what, name) in names {
            short(what, name.as_deref().unwrap_or_default(), NAME_BYTES)?;
        }
    }
    batch
        .flows
        .service_names
        .iter()
        .try_for_each(|name| short("a service's name", name, NAME_BYTES))
}
