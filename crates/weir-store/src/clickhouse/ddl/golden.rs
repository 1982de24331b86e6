//! The text of everything that is made, as it is reviewed: a change to a table shows here.
//!
//! `WEIR_UPDATE_GOLDEN=1 cargo test -p weir-store --lib golden` writes the files anew.

use super::*;

/// Every statement of a fresh database.
fn text(options: &ClickHouseOptions) -> String {
    let ddl = Ddl { options };
    let mut statements = vec![ddl.database(), ddl.lock("owner"), ddl.schema_version()];
    statements.extend(ddl.first());
    statements.push(ddl.unlock());
    statements.join(";\n\n") + ";\n"
}

fn check(name: &str, options: &ClickHouseOptions) {
    let path = format!("{}/src/clickhouse/ddl/golden/{name}.sql", env!("CARGO_MANIFEST_DIR"));
    let text = text(options);
    if std::env::var_os("WEIR_UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap();
    for (line, golden) in text.lines().zip(golden.lines()) {
        assert_eq!(line, golden, "{name}");
    }
    assert_eq!(text, golden, "{name}");
}

#[test]
fn the_text_is_as_it_was_reviewed() {
    let single = ClickHouseOptions::new("http://clickhouse:8123", "weir");
    check("single", &single);
    check("without_expiry", &ClickHouseOptions { expire: false, ..single.clone() });
    let replicated = ClickHouseOptions { replicated: true, ..single };
    check("replicated", &replicated);
    let cluster = Some("production".to_owned());
    check("on_cluster", &ClickHouseOptions { cluster, ..replicated });
}
