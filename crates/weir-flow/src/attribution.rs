//! Deciding whose an endpoint is.

use std::net::IpAddr;
use std::sync::Arc;

use crate::endpoint::Endpoint;
use crate::field::Side;
use crate::time::WallTime;
use crate::tuple::Protocol;

/// A question to the directory: who was this, then?
#[derive(Clone, Copy, Debug)]
pub struct Question {
    /// Which side of the connection is asked about.
    pub side: Side,
    /// IP protocol.
    pub protocol: Protocol,
    /// Its address.
    pub address: IpAddr,
    /// Its port (ICMP: see [`crate::Tuple`]).
    pub port: u16,
    /// The other side's address, as this side's socket sees it.
    pub peer_address: IpAddr,
    /// The other side's port, as this side's socket sees it.
    pub peer_port: u16,
    /// When the connection began.
    pub at: WallTime,
}

/// Who had this address at that time. Always answers: an endpoint that cannot be named carries
/// the reason.
pub trait Directory {
    /// Names one side of a connection.
    fn resolve(&self, question: &Question) -> Arc<Endpoint>;
}
