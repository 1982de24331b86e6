//! A batch as the raw table's rows: its flows of the finest level, and one row for itself.

use std::net::IpAddr;

use bytes::Bytes;
use weir_flow::fold::Flow;
use weir_flow::{Endpoint, Level, Measures};

use super::ddl::{BATCH, RAW, raw_columns};
use super::schema::{KEY, SIDE};
use crate::CommitBatch;
use crate::check::{SUMS, columns};

/// The largest second a `DateTime` holds.
pub(super) const LAST_WINDOW: u64 = u32::MAX as u64 / 3_600 * 3_600 + 3_599;

/// What one batch may add to a stored sum.
const LARGEST: u64 = i64::MAX.unsigned_abs();

/// The insert whose rows [`rows`] writes.
pub(super) fn insert() -> String {
    format!("INSERT INTO {RAW} ({}) FORMAT RowBinary", raw_columns().join(", "))
}

/// The insert whose rows [`batch_rows`] writes.
pub(super) fn insert_batches() -> String {
    format!(
        "INSERT INTO {BATCH} (epoch, sequence, node, digest, end_seconds, written) \
         FORMAT RowBinary"
    )
}

/// The batches' rows in the table of batches.
pub(super) fn batch_rows<'a>(
    batches: impl Iterator<Item = &'a CommitBatch<'a>>,
    written: u64,
) -> Bytes {
    let mut out = Vec::new();
    for batch in batches {
        out.extend(batch.id.epoch.0.to_le_bytes());
        out.extend(batch.id.sequence.to_le_bytes());
        put_text(&mut out, batch.node);
        out.extend(batch.digest.0.to_le_bytes());
        out.extend(small(batch.end_seconds).to_le_bytes());
        out.extend(small(written).to_le_bytes());
    }
    out.into()
}

/// The UTC hour of the batch's own row.
pub(super) fn hour(batch: &CommitBatch<'_>) -> u32 {
    // An interval that ends with the hour belongs to that hour.
    let last = batch.end_seconds.saturating_sub(1).min(LAST_WINDOW);
    small(last - last % Level::Hour.seconds())
}

/// The batch in `RowBinary`, in the order of [`raw_columns`]. It is checked: no index leads astray.
pub(super) fn rows(batch: &CommitBatch<'_>, written: u64) -> Bytes {
    let sides: Vec<Vec<u8>> = batch
        .flows
        .endpoints
        .iter()
        .map(|endpoint| side(&endpoint.without_empty_names()))
        .collect();
    let flows = &batch.flows.levels[0];
    let mut out = Vec::with_capacity((flows.len() + 1) * 400);
    for flow in flows {
        put_identity(&mut out, 0, batch);
        out.extend([0; NOTHING_OF_BATCH]);
        put_flow(&mut out, batch, flow, &sides);
    }
    put_identity(&mut out, 1, batch);
    put_own(&mut out, batch, written);
    out.extend(hour(batch).to_le_bytes());
    put_text(&mut out, batch.node);
    out.extend([0; NOTHING_OF_KEY]);
    let nobody = nobody();
    out.extend(&nobody);
    out.extend(&nobody);
    put_sums(&mut out, &Measures::default());
    out.into()
}

/// Bytes of digest, end, time, gaps and counters where there are none.
const NOTHING_OF_BATCH: usize = 16 + 4 + 4 + 1 + 1;
/// Bytes of a key after window and node where it says nothing.
const NOTHING_OF_KEY: usize = 1 + 2 + 1 + 1 + 16 + 2 + 1;

// The order of the columns is what the code below writes.
const _: () = assert!(KEY.len() == 9 && SIDE.len() == 26 && SUMS.len() == 10);

fn put_identity(out: &mut Vec<u8>, is_batch: u8, batch: &CommitBatch<'_>) {
    out.push(is_batch);
    out.extend(batch.id.epoch.0.to_le_bytes());
    out.extend(batch.id.sequence.to_le_bytes());
}

fn put_own(out: &mut Vec<u8>, batch: &CommitBatch<'_>, written: u64) {
    out.extend(batch.digest.0.to_le_bytes());
    out.extend(small(batch.end_seconds).to_le_bytes());
    out.extend(small(written).to_le_bytes());
    put_length(out, batch.gaps.len());
    for gap in batch.gaps {
        out.push(gap.reason.code());
        for number in [gap.from_seconds, gap.to_seconds, gap.connections, gap.records, gap.bytes] {
            out.extend(number.min(LARGEST).to_le_bytes());
        }
        match gap.bytes_bound {
            Some(bound) => {
                out.push(0);
                out.extend(bound.min(LARGEST).to_le_bytes());
            }
            None => out.push(1),
        }
    }
    put_length(out, batch.counters.len());
    for (name, value) in batch.counters {
        put_text(out, name);
        out.extend(value.to_le_bytes());
    }
}

fn put_flow(out: &mut Vec<u8>, batch: &CommitBatch<'_>, flow: &Flow, sides: &[Vec<u8>]) {
    let key = &flow.key;
    out.extend(small(key.window).to_le_bytes());
    put_text(out, batch.node);
    out.push(key.protocol.0);
    out.extend(key.destination_port.to_le_bytes());
    out.push(key.class.code());
    match key.service {
        Some((address, port)) => {
            put_address(out, address);
            out.extend(port.to_le_bytes());
        }
        None => out.extend([0; 1 + 16 + 2]),
    }
    let name = key.service_name.map_or("", |name| &batch.flows.service_names[name as usize]);
    put_text(out, name);
    out.extend(&sides[key.source as usize]);
    out.extend(&sides[key.destination as usize]);
    put_sums(out, &flow.measures);
}

fn put_sums(out: &mut Vec<u8>, measures: &Measures) {
    for sum in columns(measures) {
        out.extend(sum.min(LARGEST).to_le_bytes());
    }
}

/// An endpoint in the order of [`SIDE`].
fn side(endpoint: &Endpoint) -> Vec<u8> {
    let mut out = Vec::with_capacity(160);
    out.push(endpoint.kind.code());
    put_address(&mut out, endpoint.address);
    for text in [
        &endpoint.host,
        &endpoint.unit,
        &endpoint.container,
        &endpoint.executable,
        &endpoint.namespace,
        &endpoint.pod,
        &endpoint.service,
        &endpoint.workload_kind,
        &endpoint.workload_name,
        &endpoint.node,
        &endpoint.zone,
        &endpoint.region,
        &endpoint.app,
        &endpoint.labels,
        &endpoint.cloud,
        &endpoint.cloud_service,
        &endpoint.range,
    ] {
        put_text(&mut out, text.as_deref().unwrap_or_default());
    }
    out.push(endpoint.resolution.map_or(0, |how| how.code() + 1));
    out.push(endpoint.unresolved.map_or(0, |why| why.code() + 1));
    put_text(&mut out, &endpoint.name());
    put_text(&mut out, &endpoint.id());
    put_text(&mut out, &endpoint.owner_id());
    put_text(&mut out, &endpoint.workload().unwrap_or_default());
    out
}

/// The sides of a batch's own row: everything empty.
fn nobody() -> Vec<u8> {
    // Kind, version, address; the texts' lengths; two codes.
    vec![0; 1 + 1 + 16 + 17 + 2 + 4]
}

/// The version, then the address as IPv6.
fn put_address(out: &mut Vec<u8>, address: IpAddr) {
    let (version, address) = match address {
        IpAddr::V4(address) => (4, address.to_ipv6_mapped()),
        IpAddr::V6(address) => (6, address),
    };
    out.push(version);
    out.extend(address.octets());
}

pub(super) fn put_text(out: &mut Vec<u8>, text: &str) {
    put_bytes(out, text.as_bytes());
}

pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_length(out, bytes.len());
    out.extend(bytes);
}

pub(super) fn put_length(out: &mut Vec<u8>, length: usize) {
    let mut rest = length;
    while rest > 0x7f {
        let [low, ..] = rest.to_le_bytes();
        out.push(low | 0x80);
        rest >>= 7;
    }
    let [low, ..] = rest.to_le_bytes();
    out.push(low);
}

/// Seconds as a `DateTime` has them.
fn small(seconds: u64) -> u32 {
    u32::try_from(seconds).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fmt::Write as _;
    use std::sync::Arc;

    use weir_flow::batch::{Gap, GapReason};
    use weir_flow::endpoint::{EndpointKind, Resolution, Unresolved};
    use weir_flow::fold::FlowKey;
    use weir_flow::tuple::Protocol;
    use weir_flow::{BatchId, Class, Digest, Epoch, Folded};

    use super::super::ddl::OF_BATCH;
    use super::super::rows::{Malformed, Rows};
    use super::*;

    /// Values by column, read back by the columns' types.
    fn decoded(bytes: &[u8]) -> Result<Vec<BTreeMap<String, String>>, Malformed> {
        let sides = ["src_", "dst_"].into_iter().flat_map(|prefix| {
            SIDE.iter().map(move |(name, kind)| (format!("{prefix}{name}"), *kind))
        });
        let columns: Vec<(String, &str)> = OF_BATCH
            .iter()
            .chain(&KEY)
            .map(|(name, kind)| ((*name).to_owned(), *kind))
            .chain(sides)
            .chain(SUMS.iter().map(|name| ((*name).to_owned(), "UInt64")))
            .collect();
        let names: Vec<String> = columns.iter().map(|(name, _)| name.clone()).collect();
        assert_eq!(names, raw_columns());
        let mut rows = Rows::new(bytes);
        let mut decoded = Vec::new();
        while !rows.is_empty() {
            let mut row = BTreeMap::new();
            for (name, kind) in &columns {
                row.insert(name.clone(), value(&mut rows, name, kind)?);
            }
            decoded.push(row);
        }
        Ok(decoded)
    }

    fn value(rows: &mut Rows<'_>, name: &str, kind: &str) -> Result<String, Malformed> {
        Ok(match (name, kind) {
            ("gaps", _) => {
                let mut text = String::new();
                for _ in 0..rows.length()? {
                    write!(text, "{}:", rows.u8()?).unwrap();
                    for _ in 0..5 {
                        write!(text, "{},", rows.u64()?).unwrap();
                    }
                    if rows.u8()? == 0 {
                        text += &rows.u64()?.to_string();
                    }
                }
                text
            }
            ("counters", _) => {
                let mut text = String::new();
                for _ in 0..rows.length()? {
                    write!(text, "{}={};", rows.text()?, rows.i64()?).unwrap();
                }
                text
            }
            (_, "LowCardinality(String)") => rows.text()?.to_owned(),
            (_, "UInt8") => rows.u8()?.to_string(),
            (_, "UInt16") => rows.u16()?.to_string(),
            (_, "UInt32" | "DateTime('UTC')") => rows.u32()?.to_string(),
            (_, "UInt64") => rows.u64()?.to_string(),
            (_, "UInt128") => rows.u128()?.to_string(),
            (_, "IPv6") => {
                let mut octets = [0; 16];
                for octet in &mut octets {
                    *octet = rows.u8()?;
                }
                std::net::Ipv6Addr::from(octets).to_string()
            }
            (_, kind) if kind.starts_with("Enum8") => rows.u8()?.to_string(),
            _ => return Err(Malformed),
        })
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "one row, every column")]
    fn every_column_holds_what_it_is_called() {
        let mut pod = Endpoint::bare(EndpointKind::Pod, "10.1.0.9".parse().unwrap());
        pod.namespace = Some("shop".into());
        pod.pod = Some("web-1".into());
        pod.workload_kind = Some("Deployment".into());
        pod.workload_name = Some("web".into());
        pod.labels = Some("x".repeat(300).into());
        pod.range = Some("".into());
        pod.resolution = Some(Resolution::Directory);
        pod.unresolved = Some(Unresolved::SocketGone);
        let other = Endpoint::bare(EndpointKind::External, "2001:db8::1".parse().unwrap());
        let key = FlowKey {
            window: 1_795_176_000,
            protocol: Protocol::TCP,
            source: 0,
            destination: 1,
            destination_port: 443,
            service: Some(("10.96.0.1".parse().unwrap(), 80)),
            service_name: Some(0),
            class: Class::CrossZone,
        };
        let measures = Measures {
            bytes_sent: u64::MAX,
            bytes_received: 2,
            transit_bytes: 10,
            ..Measures::default()
        };
        let flows = Folded {
            endpoints: vec![Arc::new(pod), Arc::new(other)],
            service_names: vec!["shop/web".into()],
            levels: [vec![Flow { key, measures }], Vec::new(), Vec::new()],
            folded_keys: 0,
        };
        let gap = Gap { reason: GapReason::EventsLost, bytes: 7, ..Gap::default() };
        let bound = Gap { bytes_bound: Some(u64::MAX), ..gap };
        let batch = CommitBatch {
            node: "n1",
            id: BatchId { epoch: Epoch(1 << 100), sequence: 9 },
            digest: Digest(u128::MAX),
            // It ends with the hour, and belongs to it.
            end_seconds: 1_795_179_600,
            flows: &flows,
            gaps: &[gap, bound],
            counters: &[("records", -5)],
            records: &[],
            wall_offset: 0,
        };
        let rows = decoded(&rows(&batch, 1_795_179_601)).unwrap();
        assert_eq!(rows.len(), 2);
        let is =
            |row: usize, column: &str, text: &str| assert_eq!(rows[row][column], text, "{column}");
        for row in 0..2 {
            is(row, "epoch", &(1_u128 << 100).to_string());
            is(row, "sequence", "9");
            is(row, "node", "n1");
            is(row, "window", "1795176000");
            is(row, "is_batch", &row.to_string());
        }
        is(0, "src_kind", &EndpointKind::Pod.code().to_string());
        is(0, "src_address", "::ffff:10.1.0.9");
        is(0, "src_labels", &"x".repeat(300));
        is(0, "src_range", "");
        is(0, "src_owner_id", "workload/shop/Deployment/web");
        is(0, "src_resolution", &(Resolution::Directory.code() + 1).to_string());
        is(0, "src_unresolved", &(Unresolved::SocketGone.code() + 1).to_string());
        is(0, "dst_id", "external/2001:db8::1");
        is(0, "dst_ip_version", "6");
        is(0, "service_name", "shop/web");
        is(0, "service_port", "80");
        is(0, "class", &Class::CrossZone.code().to_string());
        is(0, "bytes_sent", &i64::MAX.to_string());
        is(0, "transit_bytes", "10");
        is(0, "digest", "0");
        is(1, "digest", &u128::MAX.to_string());
        is(1, "end_seconds", "1795179600");
        is(1, "written", "1795179601");
        let largest = i64::MAX;
        is(1, "gaps", &format!("1:0,0,0,0,7,1:0,0,0,0,7,{largest}"));
        is(1, "counters", "records=-5;");
        is(1, "src_kind", "0");
        is(1, "bytes_sent", "0");
    }
}
