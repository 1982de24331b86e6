//! The tables, and the order of their columns.
//!
//! One batch is one insert into `flow_10s`, the raw table: its flows of the finest level, and one
//! row more that stands for the batch itself (`is_batch`), with its gaps and counters. Views carry
//! the rows on into the roll-ups and the batch into tables of its own. All facts of a flow stand in
//! its row, so that a question needs no join.

use weir_flow::{EndpointField, Field, Level, Side};

/// The schema this code writes.
pub(super) const VERSION: u32 = 1;

const TEXT: &str = "LowCardinality(String)";

/// The columns of one side of a flow, after `src_` or `dst_`: name and type. Empty text is absent.
pub(super) const SIDE: [(&str, &str); 26] = [
    // Code as in `EndpointKind::code`.
    (
        "kind",
        "Enum8('unknown' = 0, 'host' = 1, 'local' = 2, 'external' = 3, 'pod' = 4, 'node' = 5, 'service' = 6)",
    ),
    // 4 or 6: tells an IPv4 address from the same one mapped into IPv6.
    ("ip_version", "UInt8"),
    ("address", "IPv6"),
    ("host", TEXT),
    ("unit", TEXT),
    ("container", TEXT),
    ("executable", TEXT),
    ("namespace", TEXT),
    ("pod", TEXT),
    ("service", TEXT),
    ("workload_kind", TEXT),
    ("workload_name", TEXT),
    ("node", TEXT),
    ("zone", TEXT),
    ("region", TEXT),
    ("app", TEXT),
    ("labels", TEXT),
    ("cloud", TEXT),
    ("cloud_service", TEXT),
    ("range", TEXT),
    // Code plus one; 0 is absent.
    (
        "resolution",
        "Enum8('' = 0, 'directory' = 1, 'local_facts' = 2, 'node_address' = 3, 'pod_network' = 4, 'service_address' = 5, 'cloud_range' = 6, 'operator_range' = 7, 'kubelet_probe' = 8)",
    ),
    // Code plus one; 0 is absent.
    (
        "unresolved",
        "Enum8('' = 0, 'socket_gone' = 1, 'not_permitted' = 2, 'no_socket' = 3, 'not_in_directory' = 4, 'ambiguous' = 5, 'directory_unavailable' = 6)",
    ),
    // Derived, so that nobody has to put them together: `Endpoint::{name, id, owner_id, workload}`.
    ("name", TEXT),
    ("id", TEXT),
    ("owner_id", TEXT),
    ("workload", TEXT),
];

/// The columns of a flow key beside its sides: name and type. `service_version` is 0 where no
/// service was dialled, else 4 or 6.
pub(super) const KEY: [(&str, &str); 9] = [
    ("window", "DateTime('UTC')"),
    ("node", TEXT),
    ("protocol", "UInt8"),
    ("destination_port", "UInt16"),
    (
        "class",
        "Enum8('unknown' = 0, 'same_node' = 1, 'intra_vpc' = 2, 'internet' = 3, 'same_zone' = 4, 'cross_zone' = 5, 'intra_region' = 6, 'inter_region' = 7, 'transport' = 8)",
    ),
    ("service_version", "UInt8"),
    ("service_address", "IPv6"),
    ("service_port", "UInt16"),
    ("service_name", TEXT),
];

/// Facts of a level.
pub(super) fn flow_table(level: Level) -> &'static str {
    match level {
        Level::TenSeconds => "flow_10s",
        Level::Minute => "flow_1m",
        Level::Hour => "flow_1h",
    }
}

/// The prefix of a side's columns.
pub(super) fn prefix(side: Side) -> &'static str {
    match side {
        Side::Source => "src_",
        Side::Destination => "dst_",
    }
}

/// The column of a field of text or code; `None` for fields of several columns
/// (`Field::Service`, addresses) and for `Field::IpVersion`, which is the source's.
pub(super) fn column(field: Field) -> Option<String> {
    Some(match field {
        Field::Endpoint(_, EndpointField::Address) | Field::Service => return None,
        Field::Endpoint(side, field) => format!("{}{}", prefix(side), field.name()),
        Field::DestinationPort => "destination_port".to_owned(),
        Field::Protocol => "protocol".to_owned(),
        Field::ServiceName => "service_name".to_owned(),
        Field::Class => "class".to_owned(),
        Field::Node => "node".to_owned(),
        Field::IpVersion => "src_ip_version".to_owned(),
    })
}
