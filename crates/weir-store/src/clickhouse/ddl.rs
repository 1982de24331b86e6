//! The text of the tables and views.

use weir_flow::Level;

use super::options::ClickHouseOptions;
use super::schema::{KEY, SIDE, flow_table};
use crate::check::SUMS;

/// The raw table: where batches land.
pub(super) const RAW: &str = "flow_10s";
/// The batches, one row each.
pub(super) const BATCH: &str = "batch";
pub(super) const GAP: &str = "gap";
pub(super) const COUNTER: &str = "counter";
pub(super) const LEVEL: &str = "level";
pub(super) const MEMORY: &str = "memory";
/// Hours whose roll-ups may not be what the raw table says.
pub(super) const DOUBT: &str = "hour_in_doubt";
pub(super) const SCHEMA_VERSION: &str = "schema_version";
/// There while somebody brings the tables up to date.
pub(super) const LOCK: &str = "migration_lock";

/// All tables that hold something, in the order in which they are made: the raw table after
/// everything it is carried on to.
pub(super) const TABLES: [&str; 9] =
    [LEVEL, MEMORY, DOUBT, BATCH, GAP, COUNTER, "flow_1m", "flow_1h", RAW];

/// Tables that the batches' blocks reach: each needs a memory of tokens.
pub(super) const WRITTEN_BY_BATCHES: [&str; 6] = [RAW, "flow_1m", "flow_1h", BATCH, GAP, COUNTER];

/// The batch's own columns in the raw table: name, type, codec.
pub(super) const OF_BATCH: [(&str, &str); 8] = [
    ("is_batch", "UInt8"),
    ("epoch", "UInt128"),
    ("sequence", "UInt64"),
    ("digest", "UInt128"),
    ("end_seconds", "UInt32"),
    ("written", "DateTime('UTC')"),
    (
        "gaps",
        "Array(Tuple(reason UInt8, from_seconds UInt64, to_seconds UInt64, connections UInt64, \
         records UInt64, bytes UInt64, bytes_bound Nullable(UInt64)))",
    ),
    ("counters", "Array(Tuple(name String, value Int64))"),
];

/// Columns that others of the same side say: they tell no flows apart.
const DERIVED: [&str; 4] = ["name", "id", "owner_id", "workload"];
/// What stands together in a part, so that it is packed well and found by node and owner.
const ORDER: [&str; 6] =
    ["node", "src_owner_id", "dst_owner_id", "src_id", "dst_id", "destination_port"];

/// Seconds that rows outlive their retention by, so that the engine's clock deletes nothing that
/// is still read.
const GRACE: u64 = 3_600;
/// Seconds that batches stay in the raw table at least.
const LANDING: u64 = 86_400;
/// Days for which a batch's digest is kept; its number stays as long as any flow.
const DIGEST_DAYS: u64 = 30;
/// When a batch ended.
const BATCH_END: &str = "toDateTime(end_seconds, 'UTC')";
/// Seconds for which a replicated table remembers tokens.
pub(super) const WINDOW_SECONDS: u64 = 7 * 86_400;

/// A name as the engine takes any name.
pub(super) fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('\\', "\\\\").replace('`', "\\`"))
}

/// Text as the engine takes any text.
pub(super) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// Writes the statements for one way of keeping the tables.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ddl<'a> {
    pub(super) options: &'a ClickHouseOptions,
}

impl Ddl<'_> {
    /// Makes the database.
    pub(super) fn database(self) -> String {
        let database = quoted(&self.options.database);
        format!("CREATE DATABASE IF NOT EXISTS {database}{}", self.on_cluster())
    }

    /// Makes the table of versions.
    pub(super) fn schema_version(self) -> String {
        self.table(
            SCHEMA_VERSION,
            "version UInt32, oldest_writer UInt32, written DateTime('UTC')",
            "MergeTree",
            "",
            "ORDER BY version",
            false,
        )
    }

    /// Makes everything of the first version.
    pub(super) fn first(self) -> Vec<String> {
        let mut all: Vec<String> = TABLES.iter().map(|table| self.of(table)).collect();
        all.extend(self.views());
        all
    }

    fn of(self, table: &str) -> String {
        match table {
            LEVEL => self.table(
                LEVEL,
                "seconds UInt32, retention UInt64, \
                 horizon SimpleAggregateFunction(max, UInt64), \
                 written SimpleAggregateFunction(max, DateTime64(6, 'UTC'))",
                "AggregatingMergeTree",
                "",
                "ORDER BY (seconds, retention)",
                false,
            ),
            MEMORY => self.table(
                MEMORY,
                "key String, value String CODEC(ZSTD(1)), until UInt64, version UInt64",
                "ReplacingMergeTree",
                "version",
                "ORDER BY key",
                false,
            ),
            DOUBT => self.table(
                DOUBT,
                "hour DateTime('UTC'), written DateTime64(6, 'UTC')",
                "ReplacingMergeTree",
                "written",
                "ORDER BY hour",
                false,
            ),
            BATCH => self.batch(),
            GAP => self.gap(),
            COUNTER => self.table(
                COUNTER,
                "hour DateTime('UTC') CODEC(Delta, ZSTD(1)), node LowCardinality(String), \
                 name LowCardinality(String), value Int128 CODEC(ZSTD(1))",
                "SummingMergeTree",
                "value",
                &format!(
                    "PARTITION BY toYYYYMM(hour) ORDER BY (node, name, hour){}",
                    self.ttl("hour", self.longest())
                ),
                true,
            ),
            RAW => self.raw(),
            "flow_1m" => self.roll_up(Level::Minute),
            _ => self.roll_up(Level::Hour),
        }
    }

    fn batch(self) -> String {
        let digest = if self.options.expire {
            format!("digest UInt128 TTL written + toIntervalDay({DIGEST_DAYS})")
        } else {
            "digest UInt128".to_owned()
        };
        self.table(
            BATCH,
            &format!(
                "epoch UInt128 CODEC(ZSTD(1)), sequence UInt64 CODEC(Delta, ZSTD(1)), \
                 node LowCardinality(String), {digest}, \
                 end_seconds UInt32 CODEC(Delta, ZSTD(1)), \
                 written DateTime('UTC') CODEC(Delta, ZSTD(1)), \
                 INDEX written_of_rows written TYPE minmax GRANULARITY 1"
            ),
            "ReplacingMergeTree",
            "",
            &format!(
                "PARTITION BY toYYYYMM(toDateTime(end_seconds, 'UTC')) ORDER BY (epoch, sequence){}",
                self.ttl(BATCH_END, self.longest())
            ),
            true,
        )
    }

    fn gap(self) -> String {
        let end = "toDateTime(least(to_seconds, 4294967295), 'UTC')";
        self.table(
            GAP,
            "node LowCardinality(String), epoch UInt128, sequence UInt64, position UInt32, \
             reason UInt8, from_seconds UInt64, to_seconds UInt64, connections UInt64, \
             records UInt64, bytes UInt64, bytes_bound Nullable(UInt64)",
            "ReplacingMergeTree",
            "",
            &format!("PARTITION BY toYYYYMM({end}) ORDER BY (epoch, sequence, position)"),
            true,
        )
    }

    fn raw(self) -> String {
        let mut columns: Vec<String> = KEY
            .iter()
            .map(|(name, kind)| column(name, kind))
            .chain(sides())
            .chain(SUMS.iter().map(|name| sum(name)))
            .collect();
        columns.extend(OF_BATCH.iter().map(|(name, kind)| column(name, kind)));
        let retention = self.options.retention.ten_seconds.max(LANDING);
        self.table(
            RAW,
            &columns.join(", "),
            "MergeTree",
            "",
            &format!(
                "PARTITION BY toYYYYMMDD(window) \
                 PRIMARY KEY (is_batch, toStartOfHour(window), node, src_owner_id, dst_owner_id) \
                 ORDER BY (is_batch, toStartOfHour(window), {}, window){}",
                ORDER.join(", "),
                self.ttl("window", retention)
            ),
            true,
        )
    }

    fn roll_up(self, level: Level) -> String {
        let columns: Vec<String> = KEY
            .iter()
            .map(|(name, kind)| column(name, kind))
            .chain(sides())
            .chain(SUMS.iter().map(|name| sum(name)))
            .collect();
        // Flows are told apart by all of these.
        let rest: Vec<String> = KEY
            .iter()
            .map(|(name, _)| (*name).to_owned())
            .filter(|name| name != "window" && !ORDER.contains(&name.as_str()))
            .chain(side_names().into_iter().filter(|name| !is_derived(name)))
            .collect();
        let (partition, hour) = match level {
            Level::Hour => ("toYYYYMM(window)", "window"),
            _ => ("toYYYYMMDD(window)", "toStartOfHour(window)"),
        };
        let window = if level == Level::Hour { "" } else { "window, " };
        let kept = self.options.retention.of(level).max(LANDING);
        self.table(
            flow_table(level),
            &columns.join(", "),
            "SummingMergeTree",
            &format!("({})", SUMS.join(", ")),
            &format!(
                "PARTITION BY {partition} \
                 PRIMARY KEY ({hour}, node, src_owner_id, dst_owner_id) \
                 ORDER BY ({hour}, {}, {window}{}){}",
                ORDER.join(", "),
                rest.join(", "),
                self.ttl("window", kept)
            ),
            true,
        )
    }

    fn views(self) -> Vec<String> {
        let names: Vec<String> = KEY
            .iter()
            .map(|(name, _)| (*name).to_owned())
            .filter(|name| name != "window")
            .chain(side_names())
            .chain(SUMS.iter().map(|name| (*name).to_owned()))
            .collect();
        let names = names.join(", ");
        let raw = self.named(RAW);
        let mut views: Vec<String> =
            [(Level::Minute, "toStartOfMinute"), (Level::Hour, "toStartOfHour")]
                .into_iter()
                .map(|(level, start)| {
                    let select = format!(
                        "SELECT {start}(window) AS window, {names} FROM {raw} WHERE is_batch = 0"
                    );
                    self.view(flow_table(level), &select)
                })
                .collect();
        views.push(self.view(
            GAP,
            &format!(
                "SELECT node, epoch, sequence, position, gap.reason AS reason, \
                 gap.from_seconds AS from_seconds, gap.to_seconds AS to_seconds, \
                 gap.connections AS connections, gap.records AS records, gap.bytes AS bytes, \
                 gap.bytes_bound AS bytes_bound \
                 FROM {raw} ARRAY JOIN gaps AS gap, arrayEnumerate(gaps) AS position \
                 WHERE is_batch = 1"
            ),
        ));
        views.push(self.view(
            COUNTER,
            &format!(
                "SELECT toStartOfHour(window) AS hour, node, counter.name AS name, \
                 toInt128(counter.value) AS value \
                 FROM {raw} ARRAY JOIN counters AS counter WHERE is_batch = 1"
            ),
        ));
        views
    }

    fn view(self, target: &str, select: &str) -> String {
        format!(
            "CREATE MATERIALIZED VIEW IF NOT EXISTS {}{} TO {} AS {select}",
            self.named(&format!("{target}_view")),
            self.on_cluster(),
            self.named(target)
        )
    }

    /// `arguments` are the engine's own; `rest` begins with its order or partitions. A table that
    /// batches reach remembers tokens, and is on the disk before the insert is answered.
    fn table(
        self,
        name: &str,
        columns: &str,
        family: &str,
        arguments: &str,
        rest: &str,
        is_written_by_batches: bool,
    ) -> String {
        let engine = self.engine(name, family, arguments);
        let settings = self.settings(is_written_by_batches);
        format!(
            "CREATE TABLE IF NOT EXISTS {}{} ({columns}) ENGINE = {engine} {rest}{settings}",
            self.named(name),
            self.on_cluster()
        )
    }

    fn engine(self, table: &str, family: &str, arguments: &str) -> String {
        if !self.options.replicated {
            return format!("{family}({arguments})");
        }
        let path =
            literal(&format!("/clickhouse/tables/{{shard}}/{}/{table}", self.options.database));
        let separator = if arguments.is_empty() { "" } else { ", " };
        format!("Replicated{family}({path}, '{{replica}}'{separator}{arguments})")
    }

    fn settings(self, is_written_by_batches: bool) -> String {
        let mut settings = vec!["ttl_only_drop_parts = 1".to_owned()];
        if is_written_by_batches {
            let window = self.options.deduplication_window.max(1);
            if self.options.replicated {
                settings.push(format!("replicated_deduplication_window = {window}"));
                settings
                    .push(format!("replicated_deduplication_window_seconds = {WINDOW_SECONDS}"));
            } else {
                settings.push(format!("non_replicated_deduplication_window = {window}"));
            }
        }
        // Where there are replicas, a quorum of them is what makes an insert durable.
        if !self.options.replicated {
            settings.push("fsync_after_insert = 1".to_owned());
            settings.push("fsync_part_directory = 1".to_owned());
        }
        format!(" SETTINGS {}", settings.join(", "))
    }

    fn ttl(self, time: &str, retention: u64) -> String {
        if !self.options.expire {
            return String::new();
        }
        format!(" TTL {}", expiry(time, retention))
    }

    /// Every table's expiry as the options have it; none where the engine deletes nothing by itself.
    pub(super) fn expiries(self) -> Vec<Expiry> {
        if !self.options.expire {
            return Vec::new();
        }
        let of_level = |level: Level| {
            (flow_table(level), "window", self.options.retention.of(level).max(LANDING))
        };
        let others = [(BATCH, BATCH_END, self.longest()), (COUNTER, "hour", self.longest())];
        let all = Level::ALL.into_iter().map(of_level).chain(others);
        all.map(|(table, time, retention)| {
            let rule = expiry(time, retention);
            let change =
                format!("ALTER TABLE {}{} MODIFY TTL {rule}", self.named(table), self.on_cluster());
            Expiry { table, rule, change }
        })
        .collect()
    }

    /// Seconds for which anything of a batch may be asked for.
    fn longest(self) -> u64 {
        let retentions = Level::ALL.into_iter().map(|level| self.options.retention.of(level));
        retentions.max().unwrap_or(0).max(LANDING)
    }

    /// Brings a table's memory of tokens to the options.
    pub(super) fn window(self, table: &str, setting: &str) -> String {
        format!(
            "ALTER TABLE {}{} MODIFY SETTING {setting} = {}",
            self.named(table),
            self.on_cluster(),
            self.options.deduplication_window.max(1)
        )
    }

    /// Makes the lock, or fails where somebody holds it: with replicas in Keeper, so that one
    /// holds it for all of them.
    pub(super) fn lock(self, owner: &str) -> String {
        let engine = if self.options.replicated {
            let path = literal(&format!("/clickhouse/weir/{}/{LOCK}", self.options.database));
            format!("ReplicatedMergeTree({path}, 'lock')")
        } else {
            "MergeTree".to_owned()
        };
        format!(
            "CREATE TABLE {} (nothing UInt8) ENGINE = {engine} ORDER BY nothing COMMENT {}",
            self.named(LOCK),
            literal(owner)
        )
    }

    pub(super) fn unlock(self) -> String {
        format!("DROP TABLE IF EXISTS {} SYNC", self.named(LOCK))
    }

    /// A table with its database.
    pub(super) fn named(self, table: &str) -> String {
        format!("{}.{}", quoted(&self.options.database), quoted(table))
    }

    /// On which of the engine's clusters a statement is run.
    pub(super) fn on_cluster(self) -> String {
        self.options
            .cluster
            .as_deref()
            .map_or_else(String::new, |cluster| format!(" ON CLUSTER {}", literal(cluster)))
    }
}

/// How a table forgets by itself.
#[derive(Debug)]
pub(super) struct Expiry {
    pub(super) table: &'static str,
    /// As the engine shows it.
    pub(super) rule: String,
    pub(super) change: String,
}

fn expiry(time: &str, retention: u64) -> String {
    format!(
        "{time} + toIntervalSecond({})",
        retention.saturating_add(GRACE).min(u64::from(u32::MAX))
    )
}

/// The columns of the raw table in the order in which rows are encoded.
pub(super) fn raw_columns() -> Vec<String> {
    OF_BATCH
        .iter()
        .map(|(name, _)| (*name).to_owned())
        .chain(KEY.iter().map(|(name, _)| (*name).to_owned()))
        .chain(side_names())
        .chain(SUMS.iter().map(|name| (*name).to_owned()))
        .collect()
}

/// The columns of a roll-up.
pub(super) fn roll_up_columns() -> Vec<String> {
    KEY.iter()
        .map(|(name, _)| (*name).to_owned())
        .chain(side_names())
        .chain(SUMS.iter().map(|name| (*name).to_owned()))
        .collect()
}

/// Source's, then destination's.
fn side_names() -> Vec<String> {
    ["src_", "dst_"]
        .into_iter()
        .flat_map(|prefix| SIDE.iter().map(move |(name, _)| format!("{prefix}{name}")))
        .collect()
}

fn sides() -> impl Iterator<Item = String> {
    ["src_", "dst_"].into_iter().flat_map(|prefix| {
        SIDE.iter().map(move |(name, kind)| column(&format!("{prefix}{name}"), kind))
    })
}

fn is_derived(name: &str) -> bool {
    let bare = name.trim_start_matches("src_").trim_start_matches("dst_");
    DERIVED.contains(&bare)
}

fn column(name: &str, kind: &str) -> String {
    let codec = match name {
        "window" | "sequence" | "end_seconds" | "written" => "Delta, ZSTD(1)",
        _ => "ZSTD(1)",
    };
    format!("{name} {kind} CODEC({codec})")
}

fn sum(name: &str) -> String {
    format!("{name} UInt64 CODEC(T64, ZSTD(1))")
}

#[cfg(test)]
mod golden;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_and_clusters_are_named_where_they_are() {
        let mut options = ClickHouseOptions::new("http://a:8123", "weir's");
        let alone = Ddl { options: &options }.raw();
        assert!(alone.starts_with("CREATE TABLE IF NOT EXISTS `weir's`.`flow_10s` (window"));
        assert!(alone.contains("ENGINE = MergeTree() "), "{alone}");
        assert!(alone.contains("non_replicated_deduplication_window = 10000"), "{alone}");
        options.replicated = true;
        options.cluster = Some("it's".to_owned());
        let replicated = Ddl { options: &options }.roll_up(Level::Hour);
        assert!(replicated.contains("`flow_1h` ON CLUSTER 'it\\'s' ("), "{replicated}");
        assert!(
            replicated.contains(
                "ReplicatedSummingMergeTree('/clickhouse/tables/{shard}/weir\\'s/flow_1h', \
                 '{replica}', (bytes_sent, "
            ),
            "{replicated}"
        );
        assert!(!replicated.contains("fsync"), "{replicated}");
        assert!(replicated.contains("replicated_deduplication_window = 10000"), "{replicated}");
    }

    #[test]
    fn a_roll_up_is_told_apart_by_everything_that_is_not_summed() {
        let options = ClickHouseOptions::new("http://a:8123", "weir");
        let text = Ddl { options: &options }.roll_up(Level::Minute);
        let order = text.split("ORDER BY (").nth(1).unwrap().split(") TTL").next().unwrap();
        for name in roll_up_columns() {
            let is_there = order.split(", ").any(|it| it == name);
            let is_free = SUMS.contains(&name.as_str()) || is_derived(&name);
            assert!(is_there || is_free, "{name} is missing in {order}");
        }
    }
}
