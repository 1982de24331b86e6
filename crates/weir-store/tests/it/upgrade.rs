//! Stores of earlier versions.

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::Connection;
use tempfile::TempDir;
use weir_store::{Cell, FlowStore, Limits, Options, SqliteStore, StoreError};

use crate::support::{NOON, query, text};

const VERSION_1: &str = include_str!("version-1.sql");

fn old() -> TempDir {
    let directory = TempDir::new().unwrap();
    connection(directory.path()).execute_batch(VERSION_1).unwrap();
    directory
}

fn connection(directory: &Path) -> Connection {
    Connection::open(directory.join("flows.db")).unwrap()
}

/// Every table's columns with their types, and every index.
fn shape(directory: &Path) -> BTreeMap<String, Vec<String>> {
    let connection = connection(directory);
    let list = |sql: &str| -> Vec<String> {
        let mut query = connection.prepare(sql).unwrap();
        let rows = query.query_map([], |row| row.get(0)).unwrap();
        rows.map(Result::unwrap).collect()
    };
    let tables = list("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name");
    let mut shape: BTreeMap<String, Vec<String>> = tables
        .into_iter()
        .map(|table| {
            let columns = format!(
                "SELECT name || ' ' || type || ' ' || \"notnull\" || ' ' || pk \
                 FROM pragma_table_info('{table}') ORDER BY name"
            );
            (table, list(&columns))
        })
        .collect();
    let indices =
        "SELECT name FROM sqlite_schema WHERE type = 'index' AND sql NOT NULL ORDER BY name";
    shape.insert("indices".to_owned(), list(indices));
    shape
}

#[test]
fn a_store_of_version_1_is_brought_up_to_date_with_all_it_has() {
    let directory = old();
    let error =
        SqliteStore::open_read_only(directory.path(), Limits::default()).map(drop).unwrap_err();
    assert!(matches!(error, StoreError::Older { found: 1, known: 2, .. }), "{error}");

    let store = SqliteStore::open(directory.path(), Options::default()).unwrap();
    assert_eq!(store.health().unwrap().schema_version, 2);
    for (by, expected) in [
        ("source.address", "10.0.0.1 770"),
        ("destination.id", "host/n1/nginx.service 770"),
        ("service", "10.96.0.1:80 770"),
        ("class", "unknown 770"),
    ] {
        let table = store.query(&query(NOON..NOON + 10, by)).unwrap();
        assert_eq!(text(&table), [expected], "{by}");
    }
    // What version 1 did not know is absent, not empty.
    for by in ["service.name", "source.namespace", "source.workload"] {
        let table = store.query(&query(NOON..NOON + 10, by)).unwrap();
        assert_eq!(table.rows[0][0], Cell::None, "{by}");
    }
    assert_eq!(store.committed().unwrap()[0].ranges.low_water(), 1);
    drop(store);
    // A second time nothing is left to do.
    drop(SqliteStore::open(directory.path(), Options::default()).unwrap());

    let fresh = TempDir::new().unwrap();
    drop(SqliteStore::open(fresh.path(), Options::default()).unwrap());
    assert_eq!(shape(directory.path()), shape(fresh.path()));
}
