//! The embedded store's files: who may open them, and what happens when they are not as they
//! should be.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;
use weir_store::{
    FlowQuery, FlowStore as _, Limits, Measure, Options, Order, Outcome, Retention, SqliteStore,
    StoreError,
};

use crate::support::{NOON, Spelled, batch, commit, folded, query, text};

fn open(directory: &Path) -> Result<SqliteStore, StoreError> {
    SqliteStore::open(directory, Options::default())
}

fn read(directory: &Path) -> Result<SqliteStore, StoreError> {
    SqliteStore::open_read_only(directory, Limits::default())
}

fn database(directory: &Path) -> PathBuf {
    directory.join("flows.db")
}

/// Bytes of everything that is stored.
fn total(store: &SqliteStore) -> Result<u64, StoreError> {
    let table = store.query(&query(0..u64::MAX, "source.name"))?;
    Ok(table.rows.iter().filter_map(|row| row.last()?.sum()).sum())
}

/// A batch of `flows` flows of one byte each, from distinct sources.
fn add(store: &SqliteStore, sequence: u64, flows: u32) -> Result<Outcome, StoreError> {
    let flows: Vec<Spelled> = (0..flows)
        .map(|i| {
            let number = u32::try_from(sequence).unwrap() << 16 | i;
            Spelled::new(NOON, &std::net::Ipv4Addr::from(number).to_string(), "192.0.2.1", 1)
        })
        .collect();
    let flows = folded(&flows);
    Ok(store.commit(&[batch("n1", sequence, &flows, &[])])?.remove(0))
}

/// The whole chain of an error.
fn said(error: &StoreError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[test]
fn one_writer_any_number_of_readers() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("deep/er");
    assert!(matches!(read(&path), Err(StoreError::Missing { .. })));
    assert_eq!(SqliteStore::writer_of(&path).unwrap(), None);
    let writer = open(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);

    let error = open(&path).unwrap_err();
    let pid = std::process::id();
    assert!(matches!(error, StoreError::Locked { pid: Some(found), .. } if found == pid));
    assert!(said(&error).contains(&format!("process {pid}")), "{error}");
    assert_eq!(SqliteStore::writer_of(&path).unwrap().unwrap().pid, Some(pid));

    let first = read(&path).unwrap();
    assert_eq!(total(&first).unwrap(), 0);
    add(&writer, 1, 3).unwrap();
    assert_eq!(total(&first).unwrap(), 3, "a reader sees what is committed after it opened");
    let error = first.commit(&[]).unwrap_err();
    assert!(matches!(error, StoreError::NotAWriter { .. }), "{error}");
    assert!(matches!(first.prune(NOON), Err(StoreError::NotAWriter { .. })));

    drop(writer);
    assert_eq!(SqliteStore::writer_of(&path).unwrap(), None);
    assert_eq!(total(&first).unwrap(), 3);
    assert_eq!(total(&read(&path).unwrap()).unwrap(), 3, "a finished store");
    assert_eq!(add(&open(&path).unwrap(), 1, 3).unwrap(), Outcome::AlreadyCommitted);
}

#[test]
fn readers_and_the_writer_work_at_the_same_time() {
    let directory = TempDir::new().unwrap();
    let writer = open(directory.path()).unwrap();
    add(&writer, 1, 1).unwrap();
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    let reader = read(directory.path()).unwrap();
                    let mut last = 0;
                    while last < 60 {
                        let now = total(&reader).unwrap();
                        assert!(
                            now >= last && (now == 1 || now.is_multiple_of(2)),
                            "{now} after {last}"
                        );
                        last = now;
                    }
                })
            })
            .collect();
        add(&writer, 2, 1).unwrap();
        for number in 3..=31 {
            assert_eq!(add(&writer, number, 2).unwrap(), Outcome::Committed);
            writer.prune(NOON).unwrap();
        }
        for reader in readers {
            reader.join().unwrap();
        }
    });
}

#[test]
fn places_where_no_store_can_be_say_so() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "text").unwrap();
    for path in [file.clone(), file.join("below")] {
        let error = open(&path).unwrap_err();
        assert!(matches!(error, StoreError::NotADirectory { .. }), "{error}");
    }
    assert!(matches!(read(&file), Err(StoreError::NotADirectory { .. })));
    let empty = TempDir::new().unwrap();
    let error = read(empty.path()).unwrap_err();
    assert!(matches!(error, StoreError::Missing { .. }), "{error}");
    assert!(said(&error).contains("weir up"), "{error}");
    assert_eq!(fs::read_dir(empty.path()).unwrap().count(), 0, "reading makes no files");
    assert_eq!(fs::read(&file).unwrap(), b"text");
}

#[test]
fn a_newer_or_foreign_database_is_left_alone() {
    let directory = TempDir::new().unwrap();
    drop(open(directory.path()).unwrap());
    let file = database(directory.path());
    let edit = |sql: &str| rusqlite::Connection::open(&file).unwrap().execute_batch(sql).unwrap();
    edit("PRAGMA user_version = 7");
    for error in [open(directory.path()).unwrap_err(), read(directory.path()).unwrap_err()] {
        assert!(matches!(error, StoreError::Newer { found: 7, known: 2, .. }), "{error}");
    }
    edit("PRAGMA user_version = 2; PRAGMA application_id = 1");
    for error in [open(directory.path()).unwrap_err(), read(directory.path()).unwrap_err()] {
        assert!(matches!(error, StoreError::Foreign { .. }), "{error}");
    }
    edit("PRAGMA application_id = 2003134834");
    open(directory.path()).unwrap();
}

#[test]
fn damage_is_told_and_nothing_is_deleted() {
    let directory = TempDir::new().unwrap();
    let store = open(directory.path()).unwrap();
    add(&store, 1, 20_000).unwrap();
    drop(store);
    let file = database(directory.path());
    let whole = fs::read(&file).unwrap();

    let damage: [(&str, &dyn Fn()); 4] = [
        ("not a database", &|| fs::write(&file, vec![0x5a; 8_192]).unwrap()),
        ("cut short", &|| fs::write(&file, &whole[..whole.len() / 2]).unwrap()),
        ("a torn header", &|| fs::write(&file, &whole[..50]).unwrap()),
        ("scribbled over", &|| {
            let file = fs::OpenOptions::new().write(true).open(&file).unwrap();
            for page in 2..whole.len() as u64 / 4_096 {
                file.write_all_at(&[0xa5; 1_000], page * 4_096).unwrap();
            }
        }),
    ];
    for (what, apply) in damage {
        fs::write(&file, &whole).unwrap();
        apply();
        let before = fs::metadata(&file).unwrap().len();
        let error = read(directory.path()).and_then(|store| total(&store)).unwrap_err();
        assert!(matches!(error, StoreError::Damaged { .. }), "{what}: {error:?}");
        assert!(said(&error).contains("nothing was deleted"), "{what}: {error}");
        let error = open(directory.path()).and_then(|store| add(&store, 2, 10)).unwrap_err();
        assert!(matches!(error, StoreError::Damaged { .. }), "{what}: {error:?}");
        assert_eq!(fs::metadata(&file).unwrap().len(), before, "{what}");
    }
    fs::write(&file, &whole).unwrap();
    assert_eq!(total(&open(directory.path()).unwrap()).unwrap(), 20_000);
}

#[test]
fn at_its_size_limit_the_store_refuses_and_goes_on_after_pruning() {
    let directory = TempDir::new().unwrap();
    let mut options = Options {
        retention: Retention { ten_seconds: 3_600, minute: 3_600, hour: 3_600 },
        ..Options::default()
    };
    options.limits.file_bytes = Some(1 << 20);
    let store = SqliteStore::open(directory.path(), options).unwrap();
    let mut taken = 0;
    let error = loop {
        match add(&store, taken + 1, 500) {
            Ok(outcome) => assert_eq!(outcome, Outcome::Committed),
            Err(error) => break error,
        }
        taken += 1;
        assert!(taken < 100, "the limit holds");
    };
    assert!(matches!(error, StoreError::Full { .. }), "{error:?}");
    assert!(taken > 1);
    assert_eq!(total(&store).unwrap(), taken * 500, "what was committed is intact");
    assert_eq!(store.committed().unwrap()[0].ranges.low_water(), taken);
    assert!(matches!(add(&store, taken + 1, 500), Err(StoreError::Full { .. })));

    while store.prune(NOON + 3 * 3_600).unwrap().more {}
    let mut later = Spelled::new(NOON + 3 * 3_600, "10.0.0.1", "10.0.0.2", 7);
    later.measures.bytes_sent = 7;
    assert_eq!(commit(&store, "n1", taken + 1, &folded(&[later]), &[]), Outcome::Committed);
    assert_eq!(total(&store).unwrap(), 7);
}

/// A file system of its own, gone after the test.
struct Mount(TempDir);

impl Mount {
    /// `None`, said loudly, where this user may not mount; a failure in CI.
    fn new(options: &str) -> Option<Self> {
        let directory = TempDir::new().unwrap();
        let made = Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "weir-store-test"])
            .arg(directory.path())
            .output()
            .unwrap();
        if made.status.success() {
            return Some(Self(directory));
        }
        let said = String::from_utf8_lossy(&made.stderr);
        assert!(std::env::var("CI").as_deref() != Ok("true"), "cannot mount a tmpfs: {said}");
        let mut errors = std::io::stderr();
        writeln!(errors, "SKIPPED: needs root to mount a tmpfs: {said}").unwrap();
        None
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn remount(&self, options: &str) {
        let status = Command::new("mount")
            .args(["-o", &format!("remount,{options}")])
            .arg(self.path())
            .status()
            .unwrap();
        assert!(status.success());
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(self.path()).status();
        assert!(unmounted.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}

#[test]
fn a_full_disk_loses_nothing_and_is_left_behind() {
    let Some(mount) = Mount::new("size=3m") else { return };
    let directory = mount.path().join("store");
    let store = open(&directory).unwrap();
    assert_eq!(add(&store, 1, 100).unwrap(), Outcome::Committed);
    let filler = mount.path().join("filler");
    let mut file = fs::File::create(&filler).unwrap();
    while file.write_all(&[0; 4_096]).is_ok() {}

    let mut taken = 1;
    let error = loop {
        match add(&store, taken + 1, 500) {
            Ok(outcome) => assert_eq!(outcome, Outcome::Committed),
            Err(error) => break error,
        }
        taken += 1;
    };
    assert!(matches!(error, StoreError::Full { .. }), "{error:?}");
    assert_eq!(total(&store).unwrap(), 100 + (taken - 1) * 500);
    assert!(matches!(add(&store, taken + 1, 500), Err(StoreError::Full { .. })));

    fs::remove_file(&filler).unwrap();
    drop(file);
    assert_eq!(add(&store, taken + 1, 500).unwrap(), Outcome::Committed);
    assert_eq!(total(&store).unwrap(), 100 + taken * 500);
    drop(store);
    assert_eq!(total(&open(&directory).unwrap()).unwrap(), 100 + taken * 500);
}

#[test]
fn a_read_only_medium_can_be_read_and_not_written() {
    let Some(mount) = Mount::new("size=8m") else { return };
    let directory = mount.path().join("store # 1%41?x");
    let store = open(&directory).unwrap();
    add(&store, 1, 100).unwrap();
    drop(store);
    let names = || {
        let mut names: Vec<_> =
            fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let before = names();
    mount.remount("ro");
    let reader = read(&directory).unwrap();
    assert_eq!(total(&reader).unwrap(), 100);
    assert_eq!(names(), before);
    let error = open(&directory).unwrap_err();
    assert!(matches!(error, StoreError::ReadOnly { .. }), "{error:?}");
    assert!(said(&error).contains("make it writable"), "{error}");
    let error = open(&mount.path().join("new")).unwrap_err();
    assert!(matches!(error, StoreError::Directory { .. }), "{error:?}");
    drop(reader);
    mount.remount("rw");
    assert_eq!(total(&open(&directory).unwrap()).unwrap(), 100);
}

#[test]
fn a_log_left_on_a_read_only_medium_is_read_or_told_never_ignored() {
    let Some(mount) = Mount::new("size=8m") else { return };
    let directory = mount.path().join("store");
    let copy = mount.path().join("copy");
    let store = open(&directory).unwrap();
    add(&store, 1, 100).unwrap();
    // The database and its log as a killed writer leaves them, without the shared memory.
    fs::create_dir(&copy).unwrap();
    for name in ["flows.db", "flows.db-wal"] {
        fs::copy(directory.join(name), copy.join(name)).unwrap();
    }
    drop(store);
    mount.remount("ro");
    match read(&copy).and_then(|store| total(&store)) {
        Ok(bytes) => assert_eq!(bytes, 100),
        Err(error) => {
            assert!(matches!(error, StoreError::CannotOpen { .. }), "{error:?}");
            assert!(said(&error).contains("copy the whole directory"), "{error}");
        }
    }
    mount.remount("rw");
    assert_eq!(total(&read(&copy).unwrap()).unwrap(), 100);
}

#[test]
fn a_row_the_database_refuses_takes_back_its_own_batch_alone() {
    let directory = TempDir::new().unwrap();
    let store = open(directory.path()).unwrap();
    let meddler = rusqlite::Connection::open(database(directory.path())).unwrap();
    meddler
        .execute_batch(
            "CREATE TRIGGER refuse BEFORE INSERT ON endpoint WHEN NEW.name = '10.0.0.66' \
             BEGIN SELECT RAISE(ABORT, 'not this one'); END",
        )
        .unwrap();
    let from = |sources: &[&str]| {
        let flow = |source: &&str| Spelled::new(NOON, source, "192.0.2.1", 1);
        folded(sources.iter().map(flow))
    };
    // The second's endpoints go with it, so that the third must make its own.
    let flows = [from(&["10.0.0.1"]), from(&["10.0.0.2", "10.0.0.66"]), from(&["10.0.0.2"])];
    let batches: Vec<_> =
        (1..).zip(&flows).map(|(number, flows)| batch("n1", number, flows, &[])).collect();
    let outcomes = store.commit(&batches).unwrap();
    assert_eq!((&outcomes[0], &outcomes[2]), (&Outcome::Committed, &Outcome::Committed));
    assert!(outcomes[1].to_string().contains("not this one"), "{}", outcomes[1]);
    let table = store.query(&query(0..u64::MAX, "source.name")).unwrap();
    assert_eq!(text(&table), ["10.0.0.1 1", "10.0.0.2 1"]);
    assert_eq!(store.committed().unwrap()[0].ranges.spans(), [(1, 1), (3, 3)]);
}

#[test]
fn a_query_that_takes_too_long_is_ended() {
    let directory = TempDir::new().unwrap();
    let mut options = Options::default();
    options.limits.query_seconds = 0;
    let store = SqliteStore::open(directory.path(), options).unwrap();
    add(&store, 1, 20_000).unwrap();
    let error = total(&store).unwrap_err();
    assert!(matches!(error, StoreError::TimedOut { .. }), "{error:?}");
    // Writing has no such limit, and goes on.
    assert_eq!(add(&store, 2, 10).unwrap(), Outcome::Committed);
}

#[test]
fn a_level_that_is_switched_on_later_begins_where_it_is_whole() {
    let directory = TempDir::new().unwrap();
    let off = Retention { minute: 0, ..Retention::default() };
    let without = Options { retention: off, ..Options::default() };
    let store = SqliteStore::open(directory.path(), without).unwrap();
    let flow = |window| folded(&[Spelled::new(window, "10.0.0.1", "10.0.0.2", 1)]);
    commit(&store, "n1", 1, &flow(NOON), &[]);
    drop(store);
    let store = open(directory.path()).unwrap();
    commit(&store, "n1", 2, &flow(NOON + 60), &[]);
    commit(&store, "n1", 3, &flow(NOON + 3_600), &[]);
    let query = FlowQuery {
        bucket_seconds: Some(60),
        measures: vec![Measure::Bytes],
        order: Order::Keys,
        ..query(NOON..NOON + 7_200, "source.name")
    };
    let expected: Vec<String> =
        [0, 60, 3_600].iter().map(|after| format!("{} 10.0.0.1 1", NOON + after)).collect();
    assert_eq!(text(&store.query(&query).unwrap()), expected);
}

#[test]
fn health_tells_what_is_there() {
    let directory = TempDir::new().unwrap();
    let store = open(directory.path()).unwrap();
    add(&store, 1, 30).unwrap();
    let health = store.health().unwrap();
    assert!(health.engine.starts_with("SQLite 3."), "{}", health.engine);
    assert_eq!(health.schema_version, 2);
    assert_eq!((health.endpoints, health.edges), (Some(31), Some(30)));
    assert!(health.file_bytes > 4_096 && health.free_disk_bytes.unwrap() > 0);
    for level in health.levels {
        let start = NOON - NOON % level.level.seconds();
        assert_eq!((level.rows, level.oldest, level.newest), (30, Some(start), Some(start)));
    }
}
