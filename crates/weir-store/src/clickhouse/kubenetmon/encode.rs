//! Rows of kubenetmon's table in `RowBinary`.

use weir_flow::Name;
use weir_flow::kubenetmon::{Direction, End, INTERVAL_SECONDS, Row};

use super::super::encode::{put_length, put_text};

const DAY: u64 = 86_400;
/// The last minute that a `DateTime` holds.
const LAST_MINUTE: u64 = u32::MAX as u64 / 60 * 60;

/// Bytes of an ordinary observation.
pub(super) const ROW_BYTES: usize = 2 * 320;

/// The columns of [`super::table::written`], once for each direction.
pub(super) fn put(out: &mut Vec<u8>, row: &Row) {
    let begin = out.len();
    let minute = row.minute.min(LAST_MINUTE);
    out.extend(low::<2>(minute / DAY));
    out.extend(low::<4>(minute));
    out.extend(INTERVAL_SECONDS.to_le_bytes());
    put_text(out, &row.environment);
    put_text(out, row.protocol.name().unwrap_or_default());
    put_text(out, row.class.name());
    put_length(out, row.flags.len());
    for (name, is_set) in &row.flags {
        put_text(out, name);
        out.push(u8::from(*is_set));
    }
    let direction = out.len();
    out.push(code(Direction::Out));
    put_end(out, &row.local);
    put_end(out, &row.remote);
    put_name(out, row.remote_service.as_ref());
    let end = out.len();
    put_counters(out, row, Direction::Out);
    let again = out.len();
    out.extend_from_within(begin..end);
    out[again + direction - begin] = code(Direction::In);
    put_counters(out, row, Direction::In);
}

fn put_counters(out: &mut Vec<u8>, row: &Row, direction: Direction) {
    let counters = row.counters(direction);
    out.extend(counters.bytes.to_le_bytes());
    out.extend(counters.packets.to_le_bytes());
}

/// As the table's enumeration has it.
fn code(direction: Direction) -> u8 {
    match direction {
        Direction::Out => 1,
        Direction::In => 2,
    }
}

fn put_end(out: &mut Vec<u8>, end: &End) {
    let End { cloud, region, cluster, zone, node, instance, namespace, pod, .. } = end;
    for name in [cloud, region, cluster, zone, node, instance, namespace, pod] {
        put_name(out, name.as_ref());
    }
    out.extend(end.address.to_bits().to_le_bytes());
    out.extend(end.port.to_le_bytes());
    put_name(out, end.app.as_ref());
}

fn put_name(out: &mut Vec<u8>, name: Option<&Name>) {
    put_text(out, name.map_or("", |name| name));
}

/// The lowest bytes of a number that has no others.
fn low<const N: usize>(number: u64) -> [u8; N] {
    let bytes = number.to_le_bytes();
    std::array::from_fn(|at| bytes[at])
}
