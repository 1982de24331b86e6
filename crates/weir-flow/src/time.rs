//! Points in time. Nothing here reads a clock.

/// Nanoseconds on `CLOCK_BOOTTIME`: never steps, runs on while the machine sleeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BootTime(pub u64);

/// Nanoseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WallTime(pub u64);

/// Nanoseconds in a second.
pub const SECOND: u64 = 1_000_000_000;
/// Nanoseconds in an hour.
pub const HOUR: u64 = 3_600 * SECOND;

impl BootTime {
    /// The wall time this was, given what to add to boot time to get wall time.
    pub fn to_wall(self, offset_nanos: i64) -> WallTime {
        WallTime(self.0.saturating_add_signed(offset_nanos))
    }
}

impl WallTime {
    /// The boot time this was, given what to add to boot time to get wall time. Times before the
    /// boot clamp to 0.
    pub fn to_boot(self, offset_nanos: i64) -> BootTime {
        BootTime(self.0.saturating_sub_signed(offset_nanos))
    }

    /// Whole seconds since 1970.
    pub fn seconds(self) -> u64 {
        self.0 / SECOND
    }

    /// Whole UTC hours since 1970.
    pub fn hour(self) -> u64 {
        self.0 / HOUR
    }
}
