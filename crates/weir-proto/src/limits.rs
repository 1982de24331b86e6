//! The bounds of the wire. Both sides hold themselves to them and refuse what exceeds them.

/// The largest message, as it crosses the wire.
pub const MESSAGE_BYTES_MAX: usize = 4 << 20;
/// The largest message an agent takes from a server: nothing a server says is long.
pub const REPLY_BYTES_MAX: usize = 64 << 10;
/// The largest frame after decompression that any server may ask for.
pub const UNPACKED_BYTES_MAX: usize = 32 << 20;
/// How many times larger than its compressed form a frame may be.
pub const UNPACKED_RATIO_MAX: usize = 50;
/// Up to this size the ratio is not looked at: a short frame may well be all alike.
pub const UNPACKED_BYTES_FREE: usize = 64 << 10;
/// Facts in one message. A longer picture goes in several.
pub const FACTS_MAX: usize = 4_096;
/// Bytes of an agent's status.
pub const STATUS_BYTES_MAX: usize = 64 << 10;
/// Bytes of a node's name: what a DNS name may have.
pub const NAME_BYTES_MAX: usize = 253;
/// Bytes of an agent's version.
pub const VERSION_BYTES_MAX: usize = 64;
/// Bytes of a reason that is sent to an agent.
pub const REASON_BYTES_MAX: usize = 1_024;
