//! kubenetmon's table: its text, and whether one that somebody else made can be written.

use super::super::ddl::{literal, quoted};
use super::super::options::{ClickHouseOptions, KubenetmonTable};

const NAME: &str = "LowCardinality(String)";
const FLAGS: &str = "Map(LowCardinality(String), Bool)";
const DIRECTION: &str = "Enum('out' = 1, 'in' = 2)";

/// The columns: name, type, and the bytes of the delta before compression where there is one.
const COLUMNS: [(&str, &str, u8); 35] = [
    ("date", "Date", 2),
    ("intervalStartTime", "DateTime", 4),
    ("intervalSeconds", "UInt16", 2),
    ("environment", NAME, 0),
    ("proto", NAME, 0),
    ("connectionClass", NAME, 0),
    ("connectionFlags", FLAGS, 0),
    ("direction", DIRECTION, 0),
    ("localCloud", NAME, 0),
    ("localRegion", NAME, 0),
    ("localCluster", NAME, 0),
    ("localCell", NAME, 0),
    ("localAvailabilityZone", NAME, 0),
    ("localNode", "String", 0),
    ("localInstanceID", "String", 0),
    ("localNamespace", NAME, 0),
    ("localPod", "String", 0),
    ("localIPv4", "IPv4", 4),
    ("localPort", "UInt16", 2),
    ("localApp", "String", 0),
    ("remoteCloud", NAME, 0),
    ("remoteRegion", NAME, 0),
    ("remoteCluster", NAME, 0),
    ("remoteCell", NAME, 0),
    ("remoteAvailabilityZone", NAME, 0),
    ("remoteNode", "String", 0),
    ("remoteInstanceID", "String", 0),
    ("remoteNamespace", NAME, 0),
    ("remotePod", "String", 0),
    ("remoteIPv4", "IPv4", 4),
    ("remotePort", "UInt16", 2),
    ("remoteApp", "String", 0),
    ("remoteCloudService", NAME, 0),
    ("bytes", "UInt64", 8),
    ("packets", "UInt64", 8),
];

/// Nobody ever wrote these.
const UNWRITTEN: [&str; 2] = ["localCell", "remoteCell"];

const PRIMARY_KEY: &str =
    "date, intervalStartTime, direction, proto, localApp, remoteApp, localPod, remotePod";
/// What tells rows apart besides.
const REST_OF_KEY: &str = "intervalSeconds, environment, connectionClass, connectionFlags, \
    localCloud, localRegion, localCluster, localCell, localAvailabilityZone, localNode, \
    localInstanceID, localNamespace, localIPv4, localPort, remoteCloud, remoteRegion, \
    remoteCluster, remoteCell, remoteAvailabilityZone, remoteNode, remoteInstanceID, \
    remoteNamespace, remoteIPv4, remotePort, remoteCloudService";

/// The columns that rows fill, in the order in which they are encoded.
pub(super) fn written() -> impl Iterator<Item = &'static str> {
    COLUMNS.iter().map(|(name, ..)| *name).filter(|name| !UNWRITTEN.contains(name))
}

/// The table with its database.
pub(super) fn named(table: &KubenetmonTable) -> String {
    format!("{}.{}", quoted(&table.database), quoted(&table.table))
}

/// Makes its database.
pub(super) fn database(table: &KubenetmonTable, on_cluster: &str) -> String {
    format!("CREATE DATABASE IF NOT EXISTS {}{on_cluster}", quoted(&table.database))
}

/// Makes it, as kubenetmon publishes it.
pub(super) fn create(
    table: &KubenetmonTable,
    options: &ClickHouseOptions,
    on_cluster: &str,
) -> String {
    let columns: Vec<String> = COLUMNS
        .iter()
        .map(|(name, kind, delta)| match delta {
            0 => format!("{name} {kind} CODEC(ZSTD(1))"),
            bytes => format!("{name} {kind} CODEC(Delta({bytes}), ZSTD(1))"),
        })
        .collect();
    let replicas = if options.replicated {
        let path = format!("/clickhouse/tables/{{shard}}/{}/{}", table.database, table.table);
        ("Replicated", format!("{}, '{{replica}}', ", literal(&path)))
    } else {
        ("", String::new())
    };
    format!(
        "CREATE TABLE IF NOT EXISTS {}{on_cluster} ({}) \
         ENGINE = {}SummingMergeTree({}(bytes, packets)) PARTITION BY date \
         PRIMARY KEY ({PRIMARY_KEY}) ORDER BY ({PRIMARY_KEY}, {REST_OF_KEY}) \
         TTL intervalStartTime + toIntervalDay(90) \
         SETTINGS index_granularity = 8192, ttl_only_drop_parts = 1",
        named(table),
        columns.join(", "),
        replicas.0,
        replicas.1
    )
}

/// Lets it remember the tokens of as many blocks, where it does not yet; `None` where it does, or
/// never will.
pub(super) fn remember(
    table: &KubenetmonTable,
    on_cluster: &str,
    (engine, definition): (&str, &str),
    window: u64,
) -> Option<String> {
    let setting = setting(engine)?;
    if remembered(setting, definition) >= window {
        return None;
    }
    Some(format!("ALTER TABLE {}{on_cluster} MODIFY SETTING {setting} = {window}", named(table)))
}

/// True where a table remembers tokens as it is.
pub(super) fn remembers((engine, definition): (&str, &str)) -> bool {
    // A replicated table does unless it says otherwise.
    setting(engine).is_some_and(|setting| {
        let is_said = definition.contains(&format!(" {setting} ="));
        remembered(setting, definition) > 0 || (setting == REPLICATED && !is_said)
    })
}

const REPLICATED: &str = "replicated_deduplication_window";
const SINGLE: &str = "non_replicated_deduplication_window";

/// What an engine calls the number of blocks whose tokens it remembers.
fn setting(engine: &str) -> Option<&'static str> {
    if !engine.ends_with("MergeTree") {
        return None;
    }
    let is_replicated = engine.starts_with("Replicated") || engine.starts_with("Shared");
    Some(if is_replicated { REPLICATED } else { SINGLE })
}

fn remembered(setting: &str, definition: &str) -> u64 {
    let value = definition.split_once(&format!(" {setting} =")).map(|(_, rest)| rest.trim_start());
    let digits = value.and_then(|value| value.split(|c: char| !c.is_ascii_digit()).next());
    digits.and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

/// What stands in the way of writing rows into a table with these columns: names and types.
pub(super) fn obstacle(found: &[(String, String)]) -> Option<String> {
    COLUMNS.iter().filter(|(name, ..)| !UNWRITTEN.contains(name)).find_map(|(name, kind, _)| {
        match found.iter().find(|(found, _)| found == name) {
            None => Some(format!(
                "it has no column {name}: give weir a table that kubenetmon or weir made"
            )),
            Some((_, found)) if is_encoded_alike(kind, found) => None,
            Some((_, found)) => Some(format!(
                "its column {name} is {found} and not {kind}: change the column, or give weir another table"
            )),
        }
    })
}

/// Whether values of one type are sent as values of the other.
fn is_encoded_alike(kind: &str, found: &str) -> bool {
    let found = match found.strip_prefix("LowCardinality(").and_then(|rest| rest.strip_suffix(')'))
    {
        Some(inner) if !found.starts_with("LowCardinality(Nullable") => inner,
        _ => found,
    };
    match kind {
        NAME | "String" => found == "String",
        "DateTime" => found == "DateTime" || found.starts_with("DateTime("),
        "IPv4" => matches!(found, "IPv4" | "UInt32"),
        FLAGS => {
            let plain = found.replace("LowCardinality(String)", "String");
            matches!(plain.as_str(), "Map(String, Bool)" | "Map(String, UInt8)")
        }
        DIRECTION => {
            found.starts_with("Enum8(") && found.contains("'out' = 1") && found.contains("'in' = 2")
        }
        _ => found == kind,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the engine tells of the published table.
    fn published() -> Vec<(String, String)> {
        COLUMNS
            .iter()
            .map(|(name, kind, _)| ((*name).to_owned(), kind.replace("Enum(", "Enum8(")))
            .collect()
    }

    fn with(column: &str, kind: Option<&str>) -> Option<String> {
        let mut columns = published();
        columns.retain(|(name, _)| name != column);
        columns.extend(kind.map(|kind| (column.to_owned(), kind.to_owned())));
        obstacle(&columns)
    }

    #[test]
    fn a_table_is_written_where_its_columns_hold_what_rows_have() {
        assert_eq!(obstacle(&published()), None);
        assert_eq!(written().count(), 33);
        for (column, kind) in [
            ("localNode", "LowCardinality(String)"),
            ("localCloud", "String"),
            ("intervalStartTime", "DateTime('UTC')"),
            ("connectionFlags", "Map(String, Bool)"),
            ("direction", "Enum8('out' = 1, 'in' = 2, 'both' = 3)"),
            ("localIPv4", "UInt32"),
        ] {
            assert_eq!(with(column, Some(kind)), None, "{column} {kind}");
        }
        assert_eq!(with("localCell", None), None);
        for (column, kind) in [
            ("bytes", None),
            ("bytes", Some("Int64")),
            ("date", Some("Date32")),
            ("intervalStartTime", Some("DateTime64(3)")),
            ("localPod", Some("Nullable(String)")),
            ("localApp", Some("LowCardinality(Nullable(String))")),
            ("direction", Some("Enum8('in' = 1, 'out' = 2)")),
            ("connectionFlags", Some("String")),
        ] {
            let obstacle = with(column, kind).unwrap_or_default();
            assert!(obstacle.contains(column), "{column} {kind:?}: {obstacle}");
        }
    }

    #[test]
    fn a_window_is_widened_and_never_narrowed() {
        let table = KubenetmonTable {
            database: "default".to_owned(),
            table: "network_flows_0".to_owned(),
            settings: super::super::tests::settings(),
        };
        let plain =
            "SummingMergeTree((bytes, packets)) ORDER BY x SETTINGS index_granularity = 8192";
        let windowed = format!("{plain}, non_replicated_deduplication_window = 500");
        let widen = |engine: &str, definition: &str| {
            remember(&table, "", (engine, definition), 100).unwrap_or_default()
        };
        let alter = "ALTER TABLE `default`.`network_flows_0` MODIFY SETTING";
        let engine = "SummingMergeTree";
        let single = format!("{alter} non_replicated_deduplication_window = 100");
        assert_eq!(widen(engine, plain), single);
        assert_eq!(widen(engine, &windowed), "");
        let replicated = format!("{alter} replicated_deduplication_window = 100");
        assert_eq!(widen("ReplicatedSummingMergeTree", plain), replicated);
        assert_eq!(widen("Distributed", plain), "");
        assert!(!remembers((engine, plain)) && remembers((engine, &windowed)));
        assert!(remembers(("ReplicatedSummingMergeTree", plain)));
        let off = format!("{plain}, replicated_deduplication_window = 0");
        assert!(!remembers(("ReplicatedSummingMergeTree", &off)));
        assert!(!remembers(("Distributed", plain)));
    }
}
