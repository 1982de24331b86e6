//! For how long and within which bounds a store keeps.

use weir_flow::Level;

/// How a store is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// For how long.
    pub retention: Retention,
    /// Within which bounds.
    pub limits: Limits,
}

/// For how long each level is kept, in seconds. A level of 0 is not kept at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Windows of 10 seconds.
    pub ten_seconds: u64,
    /// Windows of 1 minute.
    pub minute: u64,
    /// Windows of 1 hour.
    pub hour: u64,
}

impl Default for Retention {
    /// A day, two weeks, 400 days.
    fn default() -> Self {
        const DAY: u64 = 86_400;
        Self { ten_seconds: DAY, minute: 14 * DAY, hour: 400 * DAY }
    }
}

impl Retention {
    /// The retention of a level, seconds.
    pub fn of(self, level: Level) -> u64 {
        match level {
            Level::TenSeconds => self.ten_seconds,
            Level::Minute => self.minute,
            Level::Hour => self.hour,
        }
    }
}

/// Bounds of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest a query may take, seconds.
    pub query_seconds: u64,
    /// The most groups a query may sum into, and so the most rows it may answer with.
    pub query_groups: usize,
    /// The largest the database may become, bytes; `None`: as large as the disk. When it is
    /// reached, commits fail with [`crate::StoreError::Full`] until something is pruned.
    pub file_bytes: Option<u64>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { query_seconds: 10, query_groups: 1_000_000, file_bytes: None }
    }
}
