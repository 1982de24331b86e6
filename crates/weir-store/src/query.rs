//! A question, and the table that answers it.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::sync::Arc;

use weir_flow::endpoint::{Resolution, Unresolved};
use weir_flow::tuple::Protocol;
use weir_flow::{Class, EndpointKind, Field, Filter, Level, Measures};

/// A question to a store.
#[derive(Clone, Debug)]
pub struct FlowQuery {
    /// Seconds since 1970, half-open. Rounded outward to windows: see [`Table::covers`].
    pub range: Range<u64>,
    /// Which flows.
    pub filter: Filter,
    /// Rows are summed by these. Empty: one row for everything.
    pub group_by: Vec<Field>,
    /// Rows are also summed by windows of this length, seconds, aligned to 1970. Raised to what the
    /// levels that still hold the range can show: see [`Table::bucket_seconds`].
    pub bucket_seconds: Option<u64>,
    /// The sums asked for.
    pub measures: Vec<Measure>,
    /// In which order.
    pub order: Order,
    /// How many rows at most. `None`: as many as the store allows.
    pub limit: Option<usize>,
}

/// The order of a table's rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Largest first; ties by the keys, ascending. The measure need not be among those asked for.
    Measure(Measure),
    /// By bucket, then by the grouped fields as they were given, ascending.
    Keys,
}

/// The answer: only groups in which something was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// The bucket where there is one, the grouped fields, the measures.
    pub columns: Vec<Column>,
    /// A cell per column.
    pub rows: Vec<Vec<Cell>>,
    /// The coarsest level that was read. Whole windows of it were used inside the range, finer
    /// levels at its ends, as far as these are still held.
    pub level: Level,
    /// Length of the windows to which the range was rounded, seconds.
    pub window_seconds: u64,
    /// Length of the buckets, where they were asked for, seconds.
    pub bucket_seconds: Option<u64>,
    /// The range the sums cover, seconds since 1970, half-open.
    pub covers: Range<u64>,
    /// True when the limit left groups out.
    pub more: bool,
}

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Column {
    /// Start of the bucket.
    Bucket,
    /// A grouped field.
    Field(Field),
    /// A sum.
    Measure(Measure),
}

/// A sum that can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Measure {
    /// Both directions.
    Bytes,
    /// Source to destination.
    BytesSent,
    /// Destination to source.
    BytesReceived,
    /// Both directions.
    Packets,
    /// Source to destination.
    PacketsSent,
    /// Destination to source.
    PacketsReceived,
    /// See [`Measures::connections_opened`].
    ConnectionsOpened,
    /// See [`Measures::connections_closed`].
    ConnectionsClosed,
    /// See [`Measures::connections_failed`].
    ConnectionsFailed,
    /// See [`Measures::connections_unreplied`].
    ConnectionsUnreplied,
    /// See [`Measures::connections_uncounted`].
    ConnectionsUncounted,
    /// See [`Measures::transit_bytes`].
    TransitBytes,
}

impl Measure {
    /// All of them, in the order of the documentation.
    pub const ALL: [Self; 12] = [
        Self::Bytes,
        Self::BytesSent,
        Self::BytesReceived,
        Self::Packets,
        Self::PacketsSent,
        Self::PacketsReceived,
        Self::ConnectionsOpened,
        Self::ConnectionsClosed,
        Self::ConnectionsFailed,
        Self::ConnectionsUnreplied,
        Self::ConnectionsUncounted,
        Self::TransitBytes,
    ];

    /// The stable snake-case name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bytes => "bytes",
            Self::BytesSent => "bytes_sent",
            Self::BytesReceived => "bytes_received",
            Self::Packets => "packets",
            Self::PacketsSent => "packets_sent",
            Self::PacketsReceived => "packets_received",
            Self::ConnectionsOpened => "connections_opened",
            Self::ConnectionsClosed => "connections_closed",
            Self::ConnectionsFailed => "connections_failed",
            Self::ConnectionsUnreplied => "connections_unreplied",
            Self::ConnectionsUncounted => "connections_uncounted",
            Self::TransitBytes => "transit_bytes",
        }
    }

    /// The measure with this name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|measure| measure.name() == text)
    }

    /// What it is of these sums.
    pub fn of(self, sums: &Measures) -> u64 {
        match self {
            Self::Bytes => sums.bytes_sent.saturating_add(sums.bytes_received),
            Self::BytesSent => sums.bytes_sent,
            Self::BytesReceived => sums.bytes_received,
            Self::Packets => sums.packets_sent.saturating_add(sums.packets_received),
            Self::PacketsSent => sums.packets_sent,
            Self::PacketsReceived => sums.packets_received,
            Self::ConnectionsOpened => sums.connections_opened,
            Self::ConnectionsClosed => sums.connections_closed,
            Self::ConnectionsFailed => sums.connections_failed,
            Self::ConnectionsUnreplied => sums.connections_unreplied,
            Self::ConnectionsUncounted => sums.connections_uncounted,
            Self::TransitBytes => sums.transit_bytes,
        }
    }
}

impl fmt::Display for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Column {
    /// `bucket`, or the field's or measure's own name.
    pub fn name(self) -> String {
        match self {
            Self::Bucket => "bucket".to_owned(),
            Self::Field(field) => field.to_string(),
            Self::Measure(measure) => measure.to_string(),
        }
    }
}

/// One cell. Ordered as its column is; unknown comes first.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Cell {
    /// The flow has no such thing.
    None,
    /// Start of a bucket, seconds since 1970.
    Time(u64),
    /// A sum.
    Sum(u64),
    /// A name or an id.
    Text(Arc<str>),
    /// An address.
    Address(IpAddr),
    /// A service: address and port.
    Service(IpAddr, u16),
    /// A port.
    Port(u16),
    /// An IP protocol.
    Protocol(Protocol),
    /// A traffic class.
    Class(Class),
    /// A kind of endpoint.
    Kind(EndpointKind),
    /// What told whose an endpoint is.
    Resolution(Resolution),
    /// A reason.
    Unresolved(Unresolved),
    /// 4 or 6.
    IpVersion(u8),
}

impl Cell {
    /// The sum, of a measure's cell.
    pub fn sum(&self) -> Option<u64> {
        match self {
            Self::Sum(sum) => Some(*sum),
            _ => None,
        }
    }
}

/// As written in filters; empty for [`Cell::None`].
impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => Ok(()),
            Self::Time(number) | Self::Sum(number) => write!(f, "{number}"),
            Self::Text(text) => f.write_str(text),
            Self::Address(address) => write!(f, "{address}"),
            Self::Service(address, port) => write!(f, "{}", SocketAddr::new(*address, *port)),
            Self::Port(port) => write!(f, "{port}"),
            Self::Protocol(protocol) => write!(f, "{protocol}"),
            Self::Class(class) => write!(f, "{class}"),
            Self::Kind(kind) => write!(f, "{kind}"),
            Self::Resolution(how) => f.write_str(how.name()),
            Self::Unresolved(reason) => f.write_str(reason.name()),
            Self::IpVersion(version) => write!(f, "{version}"),
        }
    }
}
