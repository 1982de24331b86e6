//! Reaching ClickHouse and making the tables: what can be wrong, and what is said of it.

use std::time::Duration;

use weir_lab::clickhouse::{Database, Fault, Faults, READER, USER, VIEWER};
use weir_store::{
    ClickHouseOptions, ClickHouseStore, FlowStore, Outcome, Password, Retention, StoreError,
};

use super::{HOUR, bytes, bytes_of, code, content, open, options_through, stand_in};
use crate::support::{NOON, batch, clickhouse_options, commit, engine};

fn as_user(database: &Database, (user, password): (&str, &str)) -> ClickHouseOptions {
    ClickHouseOptions {
        user: Some(user.to_owned()),
        password: Some(Password::new(password.to_owned())),
        ..clickhouse_options(database)
    }
}

fn refused(options: ClickHouseOptions) -> StoreError {
    ClickHouseStore::open(options).unwrap_err()
}

#[test]
fn a_password_is_needed_and_never_shown() {
    let Some(engine) = stand_in("passwords") else { return };
    let database = engine.name();
    ClickHouseStore::open(as_user(&database, USER)).unwrap();
    for (user, password) in [(USER.0, "p4ssw0rd-that-is-wrong"), ("nobody", "p4ssw0rd")] {
        let options = as_user(&database, (user, password));
        assert!(!format!("{options:?}").contains(password));
        let error = refused(options);
        assert_eq!(code(&error), Some(516), "{error}");
        let text = format!("{error} {error:?}");
        assert!(!text.contains(password) && text.contains("password"), "{text}");
    }
}

#[test]
fn a_user_who_may_only_read_is_told_so() {
    let Some(engine) = stand_in("read-only users") else { return };
    let database = engine.name();
    drop(open(&database));
    // One that may change settings reads, and cannot commit.
    let viewer = ClickHouseOptions { migrate: false, ..as_user(&database, VIEWER) };
    let store = ClickHouseStore::open(viewer).unwrap();
    assert_eq!(bytes(&store), 0);
    let flows = content(1);
    let error = store.commit(&[batch("n1", 1, &flows, &[])]).unwrap_err();
    assert_eq!(code(&error), Some(164), "{error}");
    assert!(error.to_string().contains("read-only"), "{error}");
    // One that may not even do that is refused, and told why.
    let reader = ClickHouseOptions { migrate: false, ..as_user(&database, READER) };
    match ClickHouseStore::open(reader) {
        Err(error) => assert_eq!(code(&error), Some(164), "{error}"),
        Ok(store) => {
            let error = store.commit(&[batch("n1", 1, &flows, &[])]).unwrap_err();
            assert_eq!(code(&error), Some(164), "{error}");
        }
    }
}

#[test]
fn a_certificate_is_for_its_name_and_from_who_is_trusted() {
    let Some(engine) = stand_in("certificates") else { return };
    let directory = tempfile::TempDir::new().unwrap();
    let file = |name: &str, faults: &Faults| {
        let path = directory.path().join(name);
        std::fs::write(&path, faults.ca().unwrap()).unwrap();
        path
    };
    let database = engine.name();
    let good = Faults::with_tls(&engine, "localhost").unwrap();
    let other = Faults::with_tls(&engine, "elsewhere.example").unwrap();
    let (good_ca, other_ca) = (file("good.pem", &good), file("other.pem", &other));
    let at = |faults: &Faults, ca: Option<&std::path::PathBuf>| ClickHouseOptions {
        url: format!("https://localhost:{}", faults.port()),
        ca: ca.cloned(),
        ..clickhouse_options(&database)
    };
    let store = ClickHouseStore::open(at(&good, Some(&good_ca))).unwrap();
    assert_eq!(commit(&store, "n1", 1, &content(1), &[]), Outcome::Committed);
    assert_eq!(bytes(&store), bytes_of([1]));

    for (options, said) in [
        (at(&other, Some(&other_ca)), "elsewhere.example"),
        (at(&good, Some(&other_ca)), "certificate"),
        (at(&good, None), "certificate"),
    ] {
        let error = refused(options);
        assert!(matches!(error, StoreError::ClickHouseUnreachable { .. }), "{error}");
        assert!(error.to_string().contains(said), "{error}");
    }
    let anybody = ClickHouseOptions { insecure_skip_verify: true, ..at(&other, None) };
    assert_eq!(bytes(&ClickHouseStore::open(anybody).unwrap()), bytes_of([1]));

    // The wrong scheme for a port, both ways round.
    let plain = ClickHouseOptions { url: good.url().replace("https", "http"), ..at(&good, None) };
    refused(plain);
    let url = engine.url().replace("http", "https");
    let error = refused(ClickHouseOptions { url, ..at(&good, None) });
    assert!(matches!(error, StoreError::ClickHouseUnreachable { .. }), "{error}");

    let nothing = directory.path().join("nothing.pem");
    std::fs::write(&nothing, "no certificate").unwrap();
    for path in [nothing, directory.path().join("missing.pem"), directory.path().to_owned()] {
        let error = refused(at(&good, Some(&path)));
        assert!(error.to_string().contains(&*path.to_string_lossy()), "{error}");
    }
}

#[test]
fn addresses_that_cannot_be_are_refused() {
    let Some(engine) = stand_in("addresses") else { return };
    let database = engine.name();
    for url in [
        "",
        "clickhouse",
        "tcp://127.0.0.1:9000",
        "http://",
        "http://u:s3cret@127.0.0.1:1",
        "http://a b",
    ] {
        let error =
            refused(ClickHouseOptions { url: url.to_owned(), ..clickhouse_options(&database) });
        assert!(!error.to_string().contains("s3cret"), "{error}");
    }
    let nobody = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap();
    let url = format!("http://{nobody}");
    let error = refused(ClickHouseOptions { url: url.clone(), ..clickhouse_options(&database) });
    assert!(matches!(error, StoreError::ClickHouseUnreachable { .. }), "{error}");
    assert!(error.to_string().contains(&url), "{error}");
}

#[test]
fn tables_of_other_versions_are_told_apart() {
    let Some(engine) = engine("schema versions") else { return };
    let database = engine.name();
    let with = |migrate| ClickHouseOptions { migrate, ..clickhouse_options(&database) };
    let error = refused(with(false));
    assert!(matches!(error, StoreError::ClickHouseOlder { found: 0, .. }), "{error}");
    assert!(error.to_string().contains("weir server migrate"), "{error}");
    drop(open(&database));
    ClickHouseStore::open(with(false)).unwrap();

    // Expanded by a later weir that earlier ones may go on writing to.
    database.run("INSERT INTO schema_version SELECT 2, 1, now()").unwrap();
    database.run("ALTER TABLE flow_10s ADD COLUMN colour UInt8").unwrap();
    let store = open(&database);
    assert_eq!(commit(&store, "n1", 1, &content(1), &[]), Outcome::Committed);
    assert_eq!(bytes(&store), bytes_of([1]));
    assert_eq!(store.health().unwrap().schema_version, 2);
    // Contracted: none but later ones may.
    database.run("INSERT INTO schema_version SELECT 3, 3, now()").unwrap();
    for migrate in [false, true] {
        let error = refused(with(migrate));
        assert!(matches!(error, StoreError::ClickHouseNewer { found: 3, .. }), "{error}");
    }
}

#[test]
fn tables_that_are_not_as_they_must_be_are_refused() {
    let Some(engine) = engine("damaged tables") else { return };
    for (change, said) in [
        ("DROP TABLE flow_1h", "flow_1h"),
        ("DROP TABLE batch", "batch"),
        ("ALTER TABLE flow_1m DROP COLUMN src_workload", "src_workload"),
        (
            "ALTER TABLE flow_10s MODIFY SETTING non_replicated_deduplication_window = 0",
            "MODIFY SETTING",
        ),
        ("ALTER TABLE counter RESET SETTING non_replicated_deduplication_window", "counter"),
    ] {
        let database = engine.name();
        drop(open(&database));
        database.run(change).unwrap();
        let error = refused(clickhouse_options(&database));
        assert!(matches!(error, StoreError::ClickHouseTable { .. }), "{change}: {error}");
        assert!(error.to_string().contains(said), "{change}: {error}");
    }
    let database = engine.database().unwrap();
    database.run("CREATE TABLE batch (n UInt8) ENGINE = MergeTree ORDER BY n").unwrap();
    let error = refused(clickhouse_options(&database));
    assert!(matches!(error, StoreError::ClickHouseForeign { .. }), "{error}");
    assert_eq!(database.run("SHOW TABLES").unwrap(), "batch\n");
}

/// What goes missing while the store is in use is an error of that operation, not of the process.
#[test]
fn tables_that_vanish_under_a_store_are_errors() {
    let Some(engine) = engine("vanishing tables") else { return };
    let database = engine.name();
    let store = open(&database);
    let flows = content(1);
    assert_eq!(commit(&store, "n1", 1, &flows, &[]), Outcome::Committed);
    database.run("ALTER TABLE flow_10s DROP COLUMN src_app").unwrap_err();
    database.run("DROP TABLE flow_10s SYNC").unwrap();
    let error = store.commit(&[batch("n1", 2, &flows, &[])]).unwrap_err();
    assert_eq!(code(&error), Some(60), "{error}");
    assert!(error.to_string().contains("weir server migrate"), "{error}");
    // A question that reads it fails, others go on.
    store.query(&crate::support::query(NOON..NOON + 10, "")).unwrap_err();
    store.query(&crate::support::query(NOON..NOON + HOUR, "")).unwrap();
}

#[test]
fn a_migration_that_broke_off_is_finished_by_the_next() {
    let Some(engine) = stand_in("broken migrations") else { return };
    let faults = Faults::before(&engine).unwrap();
    // Wherever it stops: after each of its requests in turn.
    let mut stops = 0;
    loop {
        let database = engine.database().unwrap();
        faults.add("", Fault::Delay(Duration::ZERO), stops);
        faults.add("", Fault::CutAfter, 1);
        let first = ClickHouseStore::open(options_through(&faults, &database));
        faults.clear();
        let is_whole = first.is_ok();
        drop(first);
        // The lock of the one that broke off may stand; its owner is named.
        database.run("DROP TABLE IF EXISTS migration_lock SYNC").unwrap();
        let store = open(&database);
        assert_eq!(commit(&store, "n1", 1, &content(1), &[]), Outcome::Committed);
        assert_eq!(bytes(&store), bytes_of([1]));
        if is_whole {
            break;
        }
        stops += 1;
        assert!(stops < 100);
    }
    assert!(stops > 15, "only {stops} stops");
}

#[test]
fn a_lock_that_somebody_holds_is_told_with_its_owner() {
    let Some(engine) = engine("the migration's lock") else { return };
    let database = engine.database().unwrap();
    database
        .run("CREATE TABLE migration_lock (n UInt8) ENGINE = MergeTree ORDER BY n COMMENT 'weir-7'")
        .unwrap();
    let options =
        ClickHouseOptions { timeout: Duration::from_secs(1), ..clickhouse_options(&database) };
    let error = refused(options);
    assert!(matches!(error, StoreError::ClickHouseMigrating { .. }), "{error}");
    assert!(error.to_string().contains("weir-7"), "{error}");
}

/// The engine deletes by itself what is past its retention, and nothing else.
#[test]
fn tables_expire_by_their_level() {
    let Some(engine) = engine("expiry of levels") else { return };
    let database = engine.name();
    let retention = Retention { ten_seconds: 86_400, minute: 2 * 86_400, hour: 30 * 86_400 };
    let options = ClickHouseOptions { expire: true, retention, ..clickhouse_options(&database) };
    drop(ClickHouseStore::open(options.clone()).unwrap());
    for (table, days) in [("flow_10s", 1), ("flow_1m", 2), ("flow_1h", 30)] {
        for age in [days * 86_400 + 90_000, 60] {
            let row = format!(
                "INSERT INTO {table} (window, bytes_sent) \
                 SELECT toDateTime(toUInt32(now()) - {age}, 'UTC'), 5"
            );
            database.run(&row).unwrap();
        }
        database.run(&format!("OPTIMIZE TABLE {table} FINAL")).unwrap();
        // What reached a coarser level through its view is not as old as that.
        let left =
            format!("sum(bytes_sent) >= 5, sum(window < now() - {})", days * 86_400 + 80_000);
        let left = database.run(&format!("SELECT {left} FROM {table}")).unwrap();
        assert_eq!(left, "1\t0\n", "{table}");
    }
    // A longer retention is one statement away.
    let longer = Retention { hour: 60 * 86_400, ..retention };
    drop(ClickHouseStore::open(ClickHouseOptions { retention: longer, ..options }).unwrap());
    let definition = database.run("SHOW CREATE TABLE flow_1h").unwrap();
    assert!(definition.contains(&(60 * 86_400 + 3_600).to_string()), "{definition}");
}

#[test]
fn a_database_may_have_any_name() {
    let Some(engine) = stand_in("hostile database names") else { return };
    for name in ["we'ir `quoted` \\ db", "weir; DROP DATABASE default", "ünïcödé 🦀"] {
        let quoted = format!("`{}`", name.replace('\\', "\\\\").replace('`', "\\`"));
        engine.run(&format!("DROP DATABASE IF EXISTS {quoted} SYNC")).unwrap();
        let options =
            ClickHouseOptions { database: name.to_owned(), ..clickhouse_options(&engine.name()) };
        let store = ClickHouseStore::open(options).unwrap();
        assert_eq!(commit(&store, "n1", 1, &content(1), &[]), Outcome::Committed);
        assert_eq!(bytes(&store), bytes_of([1]));
        drop(store);
        engine.run(&format!("DROP DATABASE {quoted} SYNC")).unwrap();
    }
}
