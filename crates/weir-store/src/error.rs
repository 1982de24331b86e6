//! What can go wrong, with what to do about it.

use std::path::PathBuf;

/// What can go wrong in a store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The directory could not be made or looked into.
    #[error("cannot {operation} {}", path.display())]
    Directory {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// There is something else where the directory should be.
    #[error("{} is not a directory: give weir a directory of its own", path.display())]
    NotADirectory {
        /// What was given.
        path: PathBuf,
    },
    /// There is no store to read.
    #[error("there is no store in {}: `weir up --data-dir {}` makes one", path.display(), path.display())]
    Missing {
        /// What was given.
        path: PathBuf,
    },
    /// Somebody else writes here.
    #[error(
        "the store in {} is being written by {}: stop it first, or use another directory (reading needs no lock)",
        path.display(),
        pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
    )]
    Locked {
        /// The store's directory.
        path: PathBuf,
        /// Who holds the lock, where the lock file says so.
        pid: Option<u32>,
    },
    /// The schema is of a later weir.
    #[error(
        "{} has schema version {found}, this weir knows up to {known}: use the newer weir that wrote it, or another directory",
        path.display()
    )]
    Newer {
        /// The database.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// The last version known here.
        known: u32,
    },
    /// Written by an earlier weir, and not brought up to date yet.
    #[error(
        "{} has schema version {found}, this weir reads {known}: start this weir on it once, which brings it up to date",
        path.display()
    )]
    Older {
        /// The database.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The version known here.
        known: u32,
    },
    /// An SQLite database, but not one of weir's.
    #[error("{} is a database of another program: use another directory", path.display())]
    Foreign {
        /// The database.
        path: PathBuf,
    },
    /// The file is damaged.
    #[error(
        "{} is damaged ({detail}): nothing was deleted; move it away to start anew, or restore a copy (`sqlite3 FILE .recover` may save what is left)",
        path.display()
    )]
    Damaged {
        /// The database.
        path: PathBuf,
        /// What the engine said.
        detail: String,
    },
    /// The disk, or the size allowed for the store, is full.
    #[error(
        "no space left to {operation} in {}: nothing of it was kept and earlier data is intact; free space on the disk, or allow the store more, and it goes on",
        path.display()
    )]
    Full {
        /// What was tried.
        operation: &'static str,
        /// The database.
        path: PathBuf,
    },
    /// The file or its medium cannot be written.
    #[error("cannot {operation}: {} is read-only: make it writable, or use another directory", path.display())]
    ReadOnly {
        /// What was tried.
        operation: &'static str,
        /// The database.
        path: PathBuf,
    },
    /// The file cannot be opened.
    #[error(
        "cannot {operation} {} ({detail}): check that this user may read and write it and its directory; from a read-only medium copy the whole directory first",
        path.display()
    )]
    CannotOpen {
        /// What was tried.
        operation: &'static str,
        /// The database.
        path: PathBuf,
        /// What the engine said.
        detail: String,
    },
    /// The store was opened for reading.
    #[error("cannot {operation}: the store was opened for reading only")]
    NotAWriter {
        /// What was tried.
        operation: &'static str,
    },
    /// The query took too long.
    #[error("the query took more than {seconds} s: ask for a shorter range or a narrower filter")]
    TimedOut {
        /// The limit.
        seconds: u64,
    },
    /// The query has too many groups.
    #[error(
        "the query has more than {limit} groups: group by fewer fields, a longer step, a shorter range or a narrower filter"
    )]
    TooManyGroups {
        /// The limit.
        limit: usize,
    },
    /// The query needs more memory than there is for one.
    #[error(
        "the query takes too much memory ({detail}): ask for a shorter range, a longer step, fewer fields or a narrower filter"
    )]
    TooLarge {
        /// What had no room.
        detail: String,
    },
    /// The query makes no sense.
    #[error("the query {reason}")]
    Query {
        /// Why.
        reason: &'static str,
    },
    /// How ClickHouse is to be reached makes no sense, or does not fit this machine.
    #[error("cannot use ClickHouse at {url}: {detail}")]
    ClickHouseSetup {
        /// Where it should be.
        url: String,
        /// What is wrong, and what to do.
        detail: String,
    },
    /// ClickHouse does not answer, or the connection broke before it did.
    #[error(
        "cannot {operation}: ClickHouse at {url} is out of reach ({detail}); check that it runs, the address, and what lies between (TLS, firewall). Batches wait in the agents meanwhile"
    )]
    ClickHouseUnreachable {
        /// What was tried.
        operation: &'static str,
        /// Where it should be.
        url: String,
        /// What happened.
        detail: String,
    },
    /// ClickHouse took longer than it may.
    #[error(
        "cannot {operation}: ClickHouse at {url} did not answer within {seconds} s; whether it will finish is unknown, so that it is tried again and counted once"
    )]
    ClickHouseSlow {
        /// What was tried.
        operation: &'static str,
        /// Where it is.
        url: String,
        /// The limit.
        seconds: u64,
    },
    /// ClickHouse refused.
    #[error("cannot {operation}: ClickHouse at {url} refused ({detail}): {advice}")]
    ClickHouseRefused {
        /// What was tried.
        operation: &'static str,
        /// Where it is.
        url: String,
        /// Its code for the reason; 0 where it gave none.
        code: u32,
        /// What it said, shortened.
        detail: String,
        /// What to do.
        advice: &'static str,
    },
    /// What ClickHouse answered cannot be read.
    #[error(
        "cannot {operation}: the answer of ClickHouse at {url} is not what was asked for ({detail}); check that this is ClickHouse's HTTP port"
    )]
    ClickHouseAnswer {
        /// What was tried.
        operation: &'static str,
        /// Where it is.
        url: String,
        /// What is wrong with it.
        detail: String,
    },
    /// The tables were made by a later weir that nobody older may write to.
    #[error(
        "the ClickHouse database {database} has schema version {found}, this weir knows up to {known}: use the newer weir"
    )]
    ClickHouseNewer {
        /// The database.
        database: String,
        /// Its version.
        found: u32,
        /// The last version known here.
        known: u32,
    },
    /// The tables are missing or were made by an earlier weir, and may not be touched now.
    #[error(
        "the ClickHouse database {database} has schema version {found}, this weir needs {known}: run `weir server migrate` with a user who may make tables"
    )]
    ClickHouseOlder {
        /// The database.
        database: String,
        /// Its version; 0 where there is none.
        found: u32,
        /// The version needed here.
        known: u32,
    },
    /// The database holds tables of the same names that are not weir's.
    #[error(
        "the ClickHouse database {database} has a table {table} that is not weir's: give weir a database of its own"
    )]
    ClickHouseForeign {
        /// The database.
        database: String,
        /// The table.
        table: String,
    },
    /// A table is not as it has to be.
    #[error("the ClickHouse table {table} cannot be used: {detail}")]
    ClickHouseTable {
        /// The table, with its database.
        table: String,
        /// What is wrong with it, and what to do.
        detail: String,
    },
    /// Another server brings the tables up to date right now.
    #[error(
        "the tables in the ClickHouse database {database} are being brought up to date by {owner}: wait for it, then start again"
    )]
    ClickHouseMigrating {
        /// The database.
        database: String,
        /// Who does it.
        owner: String,
    },
    /// Whatever else the database says.
    #[error("cannot {operation} in {}", path.display())]
    Database {
        /// What was tried.
        operation: &'static str,
        /// The database.
        path: PathBuf,
        /// What the engine said.
        source: rusqlite::Error,
    },
}

/// Why a batch can never be taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidBatch {
    /// Numbers count from 1.
    #[error("its number {0} is not between 1 and 2^63 - 1")]
    Sequence(u64),
    /// A flow names an endpoint that the batch does not have.
    #[error("a flow names endpoint {index} of {len}")]
    Endpoint {
        /// The index.
        index: u32,
        /// How many there are.
        len: usize,
    },
    /// A flow names a service that the batch does not have.
    #[error("a flow names service {index} of {len}")]
    ServiceName {
        /// The index.
        index: u32,
        /// How many there are.
        len: usize,
    },
    /// A window does not begin where windows of its level begin, or is beyond the year 9999.
    #[error("window {window} does not fit the level of {level_seconds} s")]
    Window {
        /// Its start, seconds since 1970.
        window: u64,
        /// The level.
        level_seconds: u64,
    },
    /// The levels do not hold the same traffic.
    #[error("the level of {level_seconds} s does not sum to what the finest holds")]
    LevelsDisagree {
        /// The level.
        level_seconds: u64,
    },
    /// A name is longer than any name is.
    #[error("{what} is {len} bytes long, more than {limit}")]
    TooLong {
        /// Which name.
        what: &'static str,
        /// Its length, bytes.
        len: usize,
        /// What is allowed.
        limit: usize,
    },
    /// More of something than a batch may bring.
    #[error("{len} {what}, more than {limit}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many.
        len: usize,
        /// What is allowed.
        limit: usize,
    },
    /// The epoch is another node's.
    #[error("its epoch belongs to node {owner:?}")]
    OtherNode {
        /// Whose it is.
        owner: String,
    },
    /// The database refused a row.
    #[error("the store refused a row of it: {0}")]
    Row(String),
}
