//! The machine's sockets, as `NETLINK_SOCK_DIAG` lists them.
//!
//! Layouts are from `include/uapi/linux/inet_diag.h` and `struct tcp_info` in
//! `include/uapi/linux/tcp.h`. Everything asked for here is given to unprivileged users too.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use weir_conntrack::netlink::{Request, Socket, attributes};
use weir_conntrack::{Error, Malformed};
use weir_flow::Protocol;

/// `SOCK_DIAG_BY_FAMILY`.
const BY_FAMILY: u16 = 20;
/// `TCP_LISTEN` of `include/net/tcp_states.h`.
const LISTEN: u8 = 10;
/// All states but `TIME_WAIT` (6) and `NEW_SYN_RECV` (12), in which no process has the socket.
const STATES: u32 = 0x1fff & !(1 << 6) & !(1 << 12);

/// `struct inet_diag_req_v2`.
const REQUEST_BYTES: usize = 56;
/// `struct inet_diag_msg`.
const MESSAGE_BYTES: usize = 72;
/// `INET_DIAG_INFO`.
const INFO: u16 = 2;
/// `INET_DIAG_SKV6ONLY`.
const V6_ONLY: u16 = 11;
/// `INET_DIAG_CGROUP_ID`, since Linux 5.8.
const CGROUP_ID: u16 = 21;
/// `tcpi_bytes_acked` and, after it, `tcpi_bytes_received`, since Linux 4.1.
const BYTES_ACKED: usize = 120;
const BYTES_RECEIVED: usize = 128;
/// `tcpi_segs_out` and, after it, `tcpi_segs_in`, since Linux 4.2.
const SEGMENTS_SENT: usize = 136;
const SEGMENTS_RECEIVED: usize = 140;

/// One socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DiagSocket {
    pub(super) protocol: Protocol,
    pub(super) state: u8,
    /// IPv4-mapped addresses are given as IPv4.
    pub(super) local: (IpAddr, u16),
    /// `None` while the socket is not connected.
    pub(super) peer: Option<(IpAddr, u16)>,
    /// Unique while the machine is up, unlike the inode.
    pub(super) cookie: u64,
    pub(super) uid: u32,
    /// 0: no process has it any more.
    pub(super) inode: u32,
    /// The cgroup in which it was made.
    pub(super) cgroup: Option<u64>,
    /// An IPv6 socket bound to every address that also takes IPv4.
    pub(super) takes_both_families: bool,
    /// What it has carried, where asked for.
    pub(super) carried: Option<Carried>,
}

/// What a TCP socket has carried since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Carried {
    /// Payload bytes acknowledged by the peer.
    pub(super) bytes_acked: u64,
    /// Payload bytes received.
    pub(super) bytes_received: u64,
    pub(super) segments_sent: u32,
    pub(super) segments_received: u32,
}

impl Carried {
    /// Reads `struct tcp_info`; `None` where the kernel is too old to count.
    fn of(info: &[u8]) -> Option<Self> {
        let bytes = |at: usize| Some(u64::from_ne_bytes(*info.get(at..)?.first_chunk()?));
        let segments = |at: usize| Some(u32::from_ne_bytes(*info.get(at..)?.first_chunk()?));
        Some(Self {
            bytes_acked: bytes(BYTES_ACKED)?,
            bytes_received: bytes(BYTES_RECEIVED)?,
            segments_sent: segments(SEGMENTS_SENT)?,
            segments_received: segments(SEGMENTS_RECEIVED)?,
        })
    }
}

impl DiagSocket {
    /// True for a socket that waits for others to open a connection to it.
    pub(super) fn listens(&self) -> bool {
        self.peer.is_none() && (self.protocol != Protocol::TCP || self.state == LISTEN)
    }
}

/// Lists the sockets of one protocol and address family. Answers that cannot be read are counted.
pub(super) fn list(
    socket: &Socket,
    buffer: &mut [u8],
    protocol: Protocol,
    family: i32,
    with_info: bool,
    mut each: impl FnMut(DiagSocket),
) -> Result<u64, Error> {
    let mut header = [0_u8; REQUEST_BYTES];
    header[0] = u8::try_from(family).expect("AF_INET and AF_INET6 are small numbers");
    header[1] = protocol.0;
    header[2] = if with_info { 1 << (INFO - 1) } else { 0 };
    header[4..8].copy_from_slice(&STATES.to_ne_bytes());
    let request = Request::new(BY_FAMILY, Request::DUMP, &header);
    let mut unreadable = 0;
    socket.ask(&request, "list this machine's sockets", buffer, |message| {
        match parse(protocol, message.payload) {
            Ok(found) => each(found),
            Err(_) => unreadable += 1,
        }
    })?;
    Ok(unreadable)
}

/// Reads `struct inet_diag_msg` and its attributes.
fn parse(protocol: Protocol, payload: &[u8]) -> Result<DiagSocket, Malformed> {
    let Some((message, rest)) = payload.split_first_chunk::<MESSAGE_BYTES>() else {
        return Err(Malformed::HeaderCut { header: "inet_diag", available: payload.len() });
    };
    let family = i32::from(message[0]);
    let local = (address(family, bytes(message, 8)), u16::from_be_bytes(bytes(message, 4)));
    let peer = (address(family, bytes(message, 24)), u16::from_be_bytes(bytes(message, 6)));
    let mut socket = DiagSocket {
        protocol,
        state: message[1],
        local,
        peer: (peer.1 != 0 || !peer.0.is_unspecified()).then_some(peer),
        cookie: u64::from(u32::from_ne_bytes(bytes(message, 44)))
            | u64::from(u32::from_ne_bytes(bytes(message, 48))) << 32,
        uid: u32::from_ne_bytes(bytes(message, 64)),
        inode: u32::from_ne_bytes(bytes(message, 68)),
        cgroup: None,
        takes_both_families: false,
        carried: None,
    };
    for attribute in attributes(rest) {
        let attribute = attribute?;
        match attribute.kind {
            CGROUP_ID => socket.cgroup = Some(attribute.u64()?),
            V6_ONLY => {
                socket.takes_both_families =
                    attribute.u8()? == 0 && local.0 == IpAddr::V6(Ipv6Addr::UNSPECIFIED);
            }
            INFO => socket.carried = Carried::of(attribute.payload),
            _ => {}
        }
    }
    Ok(socket)
}

fn bytes<const N: usize>(message: &[u8; MESSAGE_BYTES], at: usize) -> [u8; N] {
    let bytes = message.get(at..).and_then(|rest| rest.first_chunk());
    *bytes.expect("all fields lie within the message")
}

/// Addresses take 16 bytes; an IPv4 address is in the first four.
fn address(family: i32, bytes: [u8; 16]) -> IpAddr {
    if family == libc::AF_INET {
        let [a, b, c, d, ..] = bytes;
        return IpAddr::V4(Ipv4Addr::new(a, b, c, d));
    }
    IpAddr::V6(Ipv6Addr::from(bytes)).to_canonical()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A listener on [::]:8080 as the kernel sends it, and its attributes apart.
    fn listener() -> (Vec<u8>, Vec<u8>) {
        let mut message = vec![0_u8; MESSAGE_BYTES];
        message[0] = u8::try_from(libc::AF_INET6).unwrap();
        message[1] = LISTEN;
        message[4..6].copy_from_slice(&8080_u16.to_be_bytes());
        message[44..48].copy_from_slice(&7_u32.to_ne_bytes());
        message[48..52].copy_from_slice(&1_u32.to_ne_bytes());
        message[64..68].copy_from_slice(&1000_u32.to_ne_bytes());
        message[68..72].copy_from_slice(&4711_u32.to_ne_bytes());
        let mut request = Request::new(0, 0, &[]);
        request.attribute(V6_ONLY, &[0]).attribute(CGROUP_ID, &99_u64.to_ne_bytes());
        (message, request.bytes()[16..].to_vec())
    }

    #[test]
    fn a_listener_is_read() {
        let (message, attributes) = listener();
        let socket = parse(Protocol::TCP, &[message, attributes].concat()).unwrap();
        let expected = DiagSocket {
            protocol: Protocol::TCP,
            state: LISTEN,
            local: (Ipv6Addr::UNSPECIFIED.into(), 8080),
            peer: None,
            cookie: 1 << 32 | 7,
            uid: 1000,
            inode: 4711,
            cgroup: Some(99),
            takes_both_families: true,
            carried: None,
        };
        assert_eq!(socket, expected);
        assert!(socket.listens());
    }

    #[test]
    fn mapped_addresses_are_ipv4_and_tcp_info_may_be_short() {
        let (mut message, _) = listener();
        message[1] = 1;
        message[6..8].copy_from_slice(&443_u16.to_be_bytes());
        message[8..24].copy_from_slice(&Ipv4Addr::new(10, 0, 0, 1).to_ipv6_mapped().octets());
        message[24..40].copy_from_slice(&Ipv4Addr::new(10, 0, 0, 2).to_ipv6_mapped().octets());
        let with_info = |bytes: usize| {
            let mut info = vec![0; bytes];
            if bytes >= 144 {
                info[120..128].copy_from_slice(&5_u64.to_ne_bytes());
                info[128..136].copy_from_slice(&6_u64.to_ne_bytes());
                info[136..140].copy_from_slice(&7_u32.to_ne_bytes());
                info[140..144].copy_from_slice(&8_u32.to_ne_bytes());
            }
            let mut request = Request::new(0, 0, &message);
            request.attribute(INFO, &info);
            parse(Protocol::TCP, &request.bytes()[16..]).unwrap()
        };
        let socket = with_info(232);
        assert_eq!(socket.local.0, IpAddr::from([10, 0, 0, 1]));
        assert_eq!(socket.peer, Some(([10, 0, 0, 2].into(), 443)));
        let carried =
            Carried { bytes_acked: 5, bytes_received: 6, segments_sent: 7, segments_received: 8 };
        assert_eq!(socket.carried, Some(carried));
        assert!(!socket.listens());
        assert_eq!((with_info(104).carried, with_info(136).carried), (None, None));
    }

    #[test]
    fn every_cut_is_an_error_or_a_socket() {
        let (message, attributes) = listener();
        let whole = [message, attributes].concat();
        for end in 0..whole.len() {
            let cut = parse(Protocol::TCP, &whole[..end]);
            assert!(end >= MESSAGE_BYTES || cut.is_err(), "{end} bytes");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let read = parse(Protocol::UDP, &bytes);
            prop_assert!(read.is_err() || bytes.len() >= MESSAGE_BYTES);
        }
    }
}
