//! How the store is.

use std::ffi::CString;
use std::fs;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rusqlite::Connection;
use weir_flow::Level;

use super::schema::{VERSION, flow_table, window_seconds};
use crate::{Health, LevelHealth};

pub(super) fn health(connection: &Connection, directory: &Path) -> rusqlite::Result<Health> {
    let number = |sql: &str| {
        connection
            .query_row(sql, [], |row| row.get::<_, i64>(0))
            .map(|n| u64::try_from(n).unwrap_or(0))
    };
    let mut levels = Vec::new();
    for level in Level::ALL {
        let retention =
            number(&format!("SELECT retention FROM level WHERE seconds = {}", level.seconds()))?;
        if retention == 0 {
            continue;
        }
        let table = flow_table(level);
        levels.push(LevelHealth {
            level,
            retention_seconds: retention,
            rows: number(&format!("SELECT count(*) FROM {table}"))?,
            oldest: bound(connection, level, "min")?,
            newest: newest(connection, level)?,
        });
    }
    Ok(Health {
        engine: format!("SQLite {}", rusqlite::version()),
        schema_version: VERSION,
        levels,
        file_bytes: bytes_in(directory),
        reusable_bytes: number("PRAGMA freelist_count")? * number("PRAGMA page_size")?,
        free_disk_bytes: disk(directory).map(|disk| disk.free_bytes),
        endpoints: Some(number("SELECT count(*) FROM endpoint")?),
        edges: Some(number("SELECT count(*) FROM edge")?),
    })
}

/// Start of a level's newest window.
pub(super) fn newest(connection: &Connection, level: Level) -> rusqlite::Result<Option<u64>> {
    bound(connection, level, "max")
}

fn bound(connection: &Connection, level: Level, end: &str) -> rusqlite::Result<Option<u64>> {
    let sql = format!("SELECT {end}(window) FROM {}", flow_table(level));
    let number: Option<i64> = connection.query_row(&sql, [], |row| row.get(0))?;
    Ok(number.map(|number| window_seconds(level, number)))
}

fn bytes_in(directory: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(directory) else { return 0 };
    entries
        .flatten()
        .filter(|entry| entry.file_name().as_bytes().starts_with(b"flows.db"))
        .filter_map(|entry| entry.metadata().ok())
        .map(|found| found.len())
        .sum()
}

/// The disk a path is on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Disk {
    pub(super) free_bytes: u64,
    pub(super) read_only: bool,
}

/// Asks the system; `None` where it does not say.
pub(super) fn disk(path: &Path) -> Option<Disk> {
    let path = CString::new(path.as_os_str().as_bytes()).ok()?;
    let mut answer = MaybeUninit::<libc::statvfs>::uninit();
    #[expect(unsafe_code, reason = "the standard library cannot ask for a disk's free space")]
    // SAFETY: `path` ends with a zero byte and `answer` has room for what statvfs(3) writes; both
    // live until it returns, and it keeps neither.
    let result = unsafe { libc::statvfs(path.as_ptr(), answer.as_mut_ptr()) };
    if result != 0 {
        return None;
    }
    #[expect(unsafe_code, reason = "the standard library cannot ask for a disk's free space")]
    // SAFETY: statvfs(3) returned 0, so it filled the whole structure.
    let answer = unsafe { answer.assume_init() };
    Some(Disk {
        free_bytes: answer.f_bavail.saturating_mul(answer.f_frsize),
        read_only: answer.f_flag & libc::ST_RDONLY != 0,
    })
}
