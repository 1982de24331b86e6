//! What weir takes for granted of the engine. Where one of these fails, a new release does things
//! differently and the rules built on it are to be thought over.

use weir_lab::clickhouse::Database;

use crate::support::engine;

fn table(database: &Database, name: &str, engine: &str, window: u32) {
    let sql = format!(
        "CREATE TABLE {name} (k UInt64, v UInt64) ENGINE = {engine} ORDER BY k \
         SETTINGS non_replicated_deduplication_window = {window}"
    );
    database.run(&sql).unwrap();
}

fn insert(database: &Database, token: &str) -> Result<(), String> {
    let sql = format!(
        "INSERT INTO raw SETTINGS insert_deduplication_token = '{token}', async_insert = 0, \
         deduplicate_blocks_in_dependent_materialized_views = 1 \
         SELECT number, 1 FROM numbers(30)"
    );
    database.run(&sql).map(drop).map_err(|error| error.to_string())
}

fn sum(database: &Database, table: &str) -> u64 {
    database.run(&format!("SELECT sum(v) FROM {table}")).unwrap().trim().parse().unwrap()
}

#[test]
fn a_token_counts_once_where_a_window_remembers_it() {
    let Some(engine) = engine("tokens") else { return };
    for (window, stored) in [(0, 60), (10, 30)] {
        let database = engine.database().unwrap();
        table(&database, "raw", "MergeTree", window);
        for _ in 0..2 {
            insert(&database, "one").unwrap();
        }
        assert_eq!(sum(&database, "raw"), stored, "window {window}");
    }
}

#[test]
fn a_window_forgets_its_oldest_token() {
    let Some(engine) = engine("a window's end") else { return };
    let database = engine.database().unwrap();
    table(&database, "raw", "MergeTree", 5);
    insert(&database, "first").unwrap();
    for number in 0..6 {
        insert(&database, &format!("other-{number}")).unwrap();
    }
    insert(&database, "first").unwrap();
    assert_eq!(sum(&database, "raw"), 8 * 30);
}

#[test]
fn a_view_s_target_needs_a_window_of_its_own() {
    let Some(engine) = engine("windows of views") else { return };
    for (window, stored) in [(0, 60), (10, 30)] {
        let database = engine.database().unwrap();
        table(&database, "raw", "MergeTree", 10);
        table(&database, "rolled", "SummingMergeTree", window);
        database
            .run("CREATE MATERIALIZED VIEW v TO rolled AS SELECT k % 3 AS k, v FROM raw")
            .unwrap();
        for _ in 0..2 {
            insert(&database, "one").unwrap();
        }
        assert_eq!(sum(&database, "raw"), 30);
        assert_eq!(sum(&database, "rolled"), stored, "window {window}");
    }
}

#[test]
fn a_view_that_throws_leaves_the_source_s_part_and_a_retry_heals_it() {
    let Some(engine) = engine("a view that throws") else { return };
    let database = engine.database().unwrap();
    table(&database, "raw", "MergeTree", 10);
    table(&database, "rolled", "SummingMergeTree", 10);
    table(&database, "broken", "MergeTree", 10);
    database
        .run("CREATE MATERIALIZED VIEW a TO broken AS SELECT throwIf(k = 7) AS k, v FROM raw")
        .unwrap();
    database.run("CREATE MATERIALIZED VIEW v TO rolled AS SELECT k % 3 AS k, v FROM raw").unwrap();
    insert(&database, "one").unwrap_err();
    assert!(sum(&database, "rolled") < 30, "nothing was left open");
    database.run("DROP TABLE a").unwrap();
    insert(&database, "one").unwrap();
    assert_eq!((sum(&database, "raw"), sum(&database, "rolled")), (30, 30));
}

#[test]
fn what_is_past_its_expiry_goes_away() {
    let Some(engine) = engine("expiry") else { return };
    let database = engine.database().unwrap();
    database
        .run(
            "CREATE TABLE t (w DateTime, v UInt64) ENGINE = MergeTree PARTITION BY toYYYYMMDD(w) \
             ORDER BY w TTL w + toIntervalHour(1) SETTINGS ttl_only_drop_parts = 1",
        )
        .unwrap();
    database.run("INSERT INTO t VALUES (now() - 90000, 1)").unwrap();
    database.run("INSERT INTO t VALUES (now(), 2)").unwrap();
    database.run("OPTIMIZE TABLE t FINAL").unwrap();
    assert_eq!(sum(&database, "t"), 2);
}
