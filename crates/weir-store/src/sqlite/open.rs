//! Opening: the directory, the lock, the connections.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::commit::Writer;
use super::{SqliteStore, WriterProcess, database_error, schema};
use crate::{Limits, Options};
use crate::{Result, StoreError};

const DATABASE: &str = "flows.db";
const LOCK: &str = "lock";

/// How long a connection waits for another; a checkpoint at the end of a process takes longest.
const BUSY: Duration = Duration::from_secs(5);

/// Bytes a connection may keep of the file in memory.
const WRITER_CACHE_KIB: i64 = 64 * 1024;
const READER_CACHE_KIB: i64 = 32 * 1024;

pub(super) fn for_writing(directory: &Path, options: Options) -> Result<SqliteStore> {
    make_directory(directory)?;
    let lock = take_lock(directory)?;
    let file = directory.join(DATABASE);
    let failed = |error| database_error("open", &file, error);
    make_private(&file)?;

    let mut connection =
        Connection::open_with_flags(&file, flags(OpenFlags::SQLITE_OPEN_READ_WRITE))
            .map_err(failed)?;
    connection.busy_timeout(BUSY).map_err(failed)?;
    connection.pragma_update(None, "cache_size", -WRITER_CACHE_KIB).map_err(failed)?;
    // Before anything is written, a database of others included.
    schema::found(&connection, &file)?;
    connection.pragma_update(None, "journal_mode", "WAL").map_err(failed)?;
    connection.pragma_update(None, "synchronous", "FULL").map_err(failed)?;
    connection.pragma_update(None, "wal_autocheckpoint", 4_000).map_err(failed)?;
    connection.pragma_update(None, "journal_size_limit", 64 << 20).map_err(failed)?;
    schema::prepare(&mut connection, &file)?;
    limit_size(&connection, options.limits).map_err(failed)?;
    let writer = Writer::new(connection, options.retention).map_err(failed)?;

    Ok(SqliteStore {
        directory: directory.to_owned(),
        file,
        limits: options.limits,
        readers: Mutex::default(),
        writer: Some(Mutex::new(writer)),
        _lock: Some(lock),
    })
}

pub(super) fn for_reading(directory: &Path, limits: Limits) -> Result<SqliteStore> {
    let file = directory.join(DATABASE);
    match fs::metadata(directory) {
        Ok(found) if !found.is_dir() => {
            return Err(StoreError::NotADirectory { path: directory.to_owned() });
        }
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(StoreError::Missing { path: directory.to_owned() });
        }
        Err(source) => {
            let path = directory.to_owned();
            return Err(StoreError::Directory { operation: "look into", path, source });
        }
    }
    let connection = reader(directory, &file)?;
    Ok(SqliteStore {
        directory: directory.to_owned(),
        file,
        limits,
        readers: Mutex::new(vec![connection]),
        writer: None,
        _lock: None,
    })
}

/// A connection for reading.
pub(super) fn reader(directory: &Path, file: &Path) -> Result<Connection> {
    let failed = |error| database_error("read", file, error);
    let missing = || StoreError::Missing { path: directory.to_owned() };
    match fs::metadata(file) {
        // A writer that is just starting has made the file but not yet its tables.
        Ok(found) if found.len() == 0 && length(&log_of(file)) == 0 => return Err(missing()),
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(missing()),
        Err(source) => {
            return Err(StoreError::Directory {
                operation: "look for",
                path: file.to_owned(),
                source,
            });
        }
    }
    let connection = match try_reader(file, false) {
        // A writer always has a log. Without one the file is all there is, and where nothing can
        // be written it stays so: it may be read as it stands, without the shared memory file that
        // readers beside a writer need.
        Err(_) if !log_of(file).exists() && is_read_only(directory) => try_reader(file, true),
        other => other,
    }
    .map_err(failed)?;
    if schema::known(&connection, file)? { Ok(connection) } else { Err(missing()) }
}

/// Whether somebody holds the lock.
pub(super) fn writer_of(directory: &Path) -> Result<Option<WriterProcess>> {
    let path = directory.join(LOCK);
    let failed = |source| StoreError::Directory { operation: "open", path: path.clone(), source };
    let mut file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(None),
        Err(TryLockError::WouldBlock) => Ok(Some(WriterProcess { pid: pid_in(&mut file) })),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

fn make_directory(directory: &Path) -> Result<()> {
    match fs::metadata(directory) {
        Ok(found) if found.is_dir() => return Ok(()),
        Ok(_) => return Err(StoreError::NotADirectory { path: directory.to_owned() }),
        Err(error) if error.kind() == ErrorKind::NotADirectory => {
            return Err(StoreError::NotADirectory { path: directory.to_owned() });
        }
        Err(_) => {}
    }
    let failed = |source| StoreError::Directory {
        operation: "make the directory",
        path: directory.to_owned(),
        source,
    };
    let directory = std::path::absolute(directory).map_err(failed)?;
    let missing = directory.ancestors().take_while(|path| !path.exists()).count();
    // Who talked to whom is nobody else's business.
    DirBuilder::new().recursive(true).mode(0o700).create(&directory).map_err(failed)?;
    // What is committed inside must not vanish with the directory when the power fails.
    for parent in directory.ancestors().skip(1).take(missing) {
        File::open(parent).and_then(|parent| parent.sync_all()).map_err(failed)?;
    }
    Ok(())
}

fn take_lock(directory: &Path) -> Result<File> {
    let path = directory.join(LOCK);
    let failed = |source: std::io::Error| match source.kind() {
        ErrorKind::ReadOnlyFilesystem => {
            StoreError::ReadOnly { operation: "lock the store", path: directory.to_owned() }
        }
        _ => StoreError::Directory { operation: "lock", path: path.clone(), source },
    };
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o644)
        .open(&path)
        .map_err(failed)?;
    match try_lock(&file) {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let pid = pid_in(&mut file);
            return Err(StoreError::Locked { path: directory.to_owned(), pid });
        }
        Err(TryLockError::Error(error)) => return Err(failed(error)),
    }
    // On a full disk the lock still holds, it only cannot say whose it is.
    let written = file
        .set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| writeln!(file, "{}", std::process::id()));
    if let Err(error) = written {
        tracing::warn!(path = %path.display(), %error, "cannot note the process in the lock file");
    }
    Ok(file)
}

/// Takes the lock. Who asks whether somebody writes ([`writer_of`]) holds it for an instant, so one
/// refusal means little.
fn try_lock(file: &File) -> std::result::Result<(), TryLockError> {
    for _ in 0..5 {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => thread::sleep(Duration::from_millis(10)),
            other => return other,
        }
    }
    file.try_lock()
}

fn pid_in(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// SQLite gives its log and shared memory the mode of the database, so this one is enough.
fn make_private(file: &Path) -> Result<()> {
    let made = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(file);
    match made {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::ReadOnlyFilesystem => {
            Err(StoreError::ReadOnly { operation: "open the store", path: file.to_owned() })
        }
        Err(error) if error.kind() == ErrorKind::StorageFull => {
            Err(StoreError::Full { operation: "open the store", path: file.to_owned() })
        }
        Err(source) => {
            Err(StoreError::Directory { operation: "open", path: file.to_owned(), source })
        }
    }
}

fn limit_size(connection: &Connection, limits: Limits) -> rusqlite::Result<()> {
    let Some(bytes) = limits.file_bytes else { return Ok(()) };
    let page: i64 = connection.query_row("PRAGMA page_size", [], |row| row.get(0))?;
    let pages = i64::try_from(bytes).unwrap_or(i64::MAX) / page.max(1);
    // SQLite never goes below the size the file has.
    connection.query_row(&format!("PRAGMA max_page_count = {}", pages.max(1)), [], |_| Ok(()))
}

fn try_reader(file: &Path, immutable: bool) -> rusqlite::Result<Connection> {
    let read_only = flags(OpenFlags::SQLITE_OPEN_READ_ONLY);
    let connection = if immutable {
        let uri = format!("file:{}?immutable=1", escaped(file));
        Connection::open_with_flags(uri, read_only | OpenFlags::SQLITE_OPEN_URI)?
    } else {
        Connection::open_with_flags(file, read_only)?
    };
    connection.busy_timeout(BUSY)?;
    connection.pragma_update(None, "cache_size", -READER_CACHE_KIB)?;
    connection.pragma_update(None, "query_only", true)?;
    // The first touch of the file: opening alone does not read it.
    connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
    Ok(connection)
}

fn flags(mode: OpenFlags) -> OpenFlags {
    mode | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_EXRESCODE
}

/// A path as part of an SQLite URI.
fn escaped(path: &Path) -> String {
    use std::fmt::Write as _;
    use std::os::unix::ffi::OsStrExt as _;
    path.as_os_str().as_bytes().iter().fold(String::new(), |mut uri, byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' | b'~' => {
                uri.push(char::from(*byte));
            }
            other => write!(uri, "%{other:02X}").expect("writing to a string cannot fail"),
        }
        uri
    })
}

fn log_of(file: &Path) -> PathBuf {
    let mut log = file.as_os_str().to_owned();
    log.push("-wal");
    log.into()
}

fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |found| found.len())
}

/// By the mount's flag: root may write whatever the modes say.
fn is_read_only(directory: &Path) -> bool {
    super::health::disk(directory).is_some_and(|disk| disk.read_only)
}
