//! Netlink without a library: a raw socket, and readers that never trust a length.
//!
//! Nothing here knows about conntrack, so the same socket serves `NETLINK_NETFILTER`,
//! `NETLINK_ROUTE` and `NETLINK_SOCK_DIAG`. Layouts are from `include/uapi/linux/netlink.h`.

mod attribute;
mod frame;
mod request;
#[expect(unsafe_code, reason = "system calls on netlink sockets")]
mod socket;

pub use attribute::{Attribute, Attributes, MAX_DEPTH, attributes};
pub use frame::{Control, Message, Messages, messages};
pub use request::{Nest, Request};
pub use socket::{Batch, Received, Socket};

/// Why bytes cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    /// Fewer bytes are left than a header has.
    #[error("{available} bytes are left where a {header} header should be")]
    HeaderCut {
        /// Which header.
        header: &'static str,
        /// Bytes left.
        available: usize,
    },
    /// A header declares a length that is shorter than itself or longer than what is there.
    #[error("{header} {kind} declares {declared} bytes where {available} are left")]
    Length {
        /// Which header.
        header: &'static str,
        /// The message's or attribute's type.
        kind: u16,
        /// The length it declares, header included.
        declared: usize,
        /// Bytes left, header included.
        available: usize,
    },
    /// Attributes are nested deeper than [`MAX_DEPTH`].
    #[error("attribute {kind} nests deeper than {MAX_DEPTH} levels")]
    Depth {
        /// The attribute's type.
        kind: u16,
    },
    /// A value has another size than its type.
    #[error("attribute {kind} holds {found} bytes where {expected} are expected")]
    Size {
        /// The attribute's type.
        kind: u16,
        /// Bytes of the expected type.
        expected: usize,
        /// Bytes found.
        found: usize,
    },
    /// Something that every such message has is absent.
    #[error("the message has no {0}")]
    Missing(&'static str),
    /// One tuple has addresses of both families.
    #[error("a tuple mixes IPv4 and IPv6 addresses")]
    MixedFamilies,
}
