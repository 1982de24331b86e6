//! Is conntrack at work in this network namespace, and how to make it so.
//!
//! The kernel tracks nothing until somebody needs it: an nftables rule with a `ct` or NAT
//! expression, an iptables match or target on conntrack, or IPVS. Found by experiment on Linux
//! 6.18: the *presence* of one rule with a `ct` expression in a table of family `inet` switches
//! tracking on for everything that enters, leaves or passes, IPv4 and IPv6 alike. The chain needs
//! no hook and nobody has to jump to it, so [`Tracking::install`] adds a rule that no packet ever
//! runs. An empty chain of type `nat` does not switch tracking on, and switching it off leaves the
//! entries made so far in the table until they expire: a count above 0 proves nothing.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

use weir_flow::{Protocol, Tuple};

use crate::Error;
use crate::message::{KIND_ENDED, KIND_GET, kind, put_tuple};
use crate::netlink::{Attribute, Malformed, Request, Socket, attributes};

/// Name of weir's table, in family `inet`.
pub const TABLE: &str = "weir_tracking";
const CHAIN: &str = "track";
const COMMENT: &str = "weir: connection tracking stays on while this table exists";
/// At most this many tables are named by [`Tracking::others`].
const MAX_OTHERS: usize = 32;
const BUFFER_BYTES: usize = 32 * 1024;
/// The names of tables with legacy iptables rules, per network namespace.
const LEGACY: [&str; 2] =
    ["/proc/thread-self/net/ip_tables_names", "/proc/thread-self/net/ip6_tables_names"];

/// `nf_tables` over netlink, from `include/uapi/linux/netfilter/nf_tables.h` and `nfnetlink.h`.
mod nft {
    pub(super) const BATCH_BEGIN: u16 = 0x10;
    pub(super) const BATCH_END: u16 = 0x11;
    const SUBSYSTEM: u16 = 10;
    pub(super) const NEW_TABLE: u16 = SUBSYSTEM << 8;
    pub(super) const DELETE_TABLE: u16 = SUBSYSTEM << 8 | 2;
    pub(super) const NEW_CHAIN: u16 = SUBSYSTEM << 8 | 3;
    pub(super) const NEW_RULE: u16 = SUBSYSTEM << 8 | 6;
    pub(super) const GET_RULE: u16 = SUBSYSTEM << 8 | 7;
    pub(super) const DELETE_RULE: u16 = SUBSYSTEM << 8 | 8;

    /// `struct nfgenmsg` of family `NFPROTO_INET`.
    pub(super) const INET: [u8; 4] = [1, 0, 0, 0];
    /// `struct nfgenmsg` of every family.
    pub(super) const ANY_FAMILY: [u8; 4] = [0, 0, 0, 0];
    /// `struct nfgenmsg` of a batch, whose resource is the subsystem in network order.
    pub(super) const BATCH: [u8; 4] = [0, 0, 0, 10];

    pub(super) const TABLE_NAME: u16 = 1;
    pub(super) const TABLE_USERDATA: u16 = 6;
    pub(super) const CHAIN_TABLE: u16 = 1;
    pub(super) const CHAIN_NAME: u16 = 3;
    pub(super) const RULE_TABLE: u16 = 1;
    pub(super) const RULE_CHAIN: u16 = 2;
    pub(super) const RULE_EXPRESSIONS: u16 = 4;
    pub(super) const LIST_ELEMENT: u16 = 1;
    pub(super) const EXPRESSION_NAME: u16 = 1;
    pub(super) const EXPRESSION_DATA: u16 = 2;
    /// Name of an iptables match or target within its expression.
    pub(super) const COMPAT_NAME: u16 = 1;

    pub(super) const CT_REGISTER: u16 = 1;
    pub(super) const CT_KEY: u16 = 2;
    pub(super) const CT_KEY_STATE: u32 = 0;
    pub(super) const BITWISE_FROM: u16 = 1;
    pub(super) const BITWISE_TO: u16 = 2;
    pub(super) const BITWISE_LENGTH: u16 = 3;
    pub(super) const BITWISE_MASK: u16 = 4;
    pub(super) const BITWISE_XOR: u16 = 5;
    pub(super) const COMPARE_FROM: u16 = 1;
    pub(super) const COMPARE_OPERATION: u16 = 2;
    pub(super) const COMPARE_WITH: u16 = 3;
    pub(super) const NOT_EQUAL: u32 = 1;
    pub(super) const DATA_VALUE: u16 = 1;
    pub(super) const REGISTER_1: u32 = 1;
    /// `NF_CT_STATE_BIT(IP_CT_NEW)`, which `nft` prints as `new`.
    pub(super) const STATE_NEW: u32 = 8;
    /// The tag of a comment in `TABLE_USERDATA`, as `nft` writes and prints it.
    pub(super) const USERDATA_COMMENT: u8 = 0;
}

/// Expressions that make the kernel track.
const EXPRESSIONS: [&str; 7] =
    ["ct", "nat", "masq", "redir", "connlimit", "synproxy", "flow_offload"];
/// iptables matches and targets that do, as `iptables-nft` stores them.
const COMPAT: [&str; 17] = [
    "conntrack",
    "state",
    "connmark",
    "connbytes",
    "connlabel",
    "connlimit",
    "cluster",
    "helper",
    "SNAT",
    "DNAT",
    "MASQUERADE",
    "REDIRECT",
    "NETMAP",
    "CONNMARK",
    "CONNSECMARK",
    "CT",
    "SYNPROXY",
];

/// What [`Tracking::install`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Installed {
    /// The table was made.
    New,
    /// It was there already, from this weir or another.
    Adopted,
}

/// What [`Tracking::probe`] saw.
#[derive(Debug)]
pub enum Probe {
    /// A packet of our own became an entry.
    Tracked,
    /// It did not: conntrack is idle here, or loopback is exempt from it.
    Untracked,
    /// No packet could be sent, for example because loopback has never been up.
    Impossible(io::Error),
}

/// Who else keeps tracking on, as far as rules tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Others {
    /// nftables tables, without weir's, that hold a rule which needs tracking; at most 32.
    pub tables: Vec<String>,
    /// Tables with legacy iptables rules. Those rules cannot be read here, so they may or may
    /// not need tracking.
    pub legacy: Vec<String>,
}

/// A socket to ask about and to change tracking, kept open for the checks of every tick.
#[derive(Debug)]
pub struct Tracking {
    socket: Socket,
    buffer: Box<[u8]>,
    sequence: u32,
}

impl Tracking {
    /// Opens the socket.
    pub fn open() -> Result<Self, Error> {
        let socket = Socket::open(libc::NETLINK_NETFILTER)?;
        Ok(Self { socket, buffer: vec![0; BUFFER_BYTES].into_boxed_slice(), sequence: 0 })
    }

    /// Makes conntrack work here by a table `inet weir_tracking` with one rule that no packet
    /// runs. Does nothing where the table already stands.
    pub fn install(&mut self) -> Result<Installed, Error> {
        if self.is_installed()? {
            return Ok(Installed::Adopted);
        }
        let sequence = self.next_sequence();
        let mut batch = Request::default();
        batch.begin(nft::BATCH_BEGIN, 0, sequence, &nft::BATCH);
        let mut userdata = vec![nft::USERDATA_COMMENT];
        userdata.push(u8::try_from(COMMENT.len() + 1).expect("the comment is short"));
        userdata.extend_from_slice(COMMENT.as_bytes());
        userdata.push(0);
        batch
            .begin(nft::NEW_TABLE, Request::CREATE, sequence, &nft::INET)
            .text(nft::TABLE_NAME, TABLE)
            .attribute(nft::TABLE_USERDATA, &userdata);
        batch
            .begin(nft::NEW_CHAIN, Request::CREATE, sequence, &nft::INET)
            .text(nft::CHAIN_TABLE, TABLE)
            .text(nft::CHAIN_NAME, CHAIN);
        // Empties a chain that stands without its rule, or with another.
        batch
            .begin(nft::DELETE_RULE, 0, sequence, &nft::INET)
            .text(nft::RULE_TABLE, TABLE)
            .text(nft::RULE_CHAIN, CHAIN);
        let flags = Request::CREATE | Request::APPEND | Request::ACK;
        batch
            .begin(nft::NEW_RULE, flags, sequence, &nft::INET)
            .text(nft::RULE_TABLE, TABLE)
            .text(nft::RULE_CHAIN, CHAIN);
        put_rule(&mut batch);
        batch.begin(nft::BATCH_END, 0, sequence, &nft::BATCH);
        self.socket
            .ask(&batch, "add the nftables table weir_tracking", &mut self.buffer, |_| {})
            .map(|()| Installed::New)
    }

    /// Removes the table; false when there was none. Unless others need it, the kernel stops
    /// tracking a moment later; entries that exist stay until they expire.
    pub fn remove(&mut self) -> Result<bool, Error> {
        let sequence = self.next_sequence();
        let mut batch = Request::default();
        batch.begin(nft::BATCH_BEGIN, 0, sequence, &nft::BATCH);
        batch
            .begin(nft::DELETE_TABLE, Request::ACK, sequence, &nft::INET)
            .text(nft::TABLE_NAME, TABLE);
        batch.begin(nft::BATCH_END, 0, sequence, &nft::BATCH);
        let operation = "remove the nftables table weir_tracking";
        match self.socket.ask(&batch, operation, &mut self.buffer, |_| {}) {
            Ok(()) => Ok(true),
            Err(error) if error.errno() == Some(libc::ENOENT) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// True while weir's table stands with its rule. Cheap: one request, one short answer.
    pub fn is_installed(&mut self) -> Result<bool, Error> {
        let mut request = Request::new(nft::GET_RULE, Request::DUMP, &nft::INET);
        request.set_sequence(self.next_sequence());
        request.text(nft::RULE_TABLE, TABLE).text(nft::RULE_CHAIN, CHAIN);
        let mut found = false;
        self.socket.ask(&request, "look for weir's rule", &mut self.buffer, |message| {
            let rule = Rule::read(message.payload).unwrap_or_default();
            found |= rule.table == TABLE && rule.tracks;
        })?;
        Ok(found)
    }

    /// Sends one packet of 29 bytes from loopback to loopback, both ends its own, looks whether it
    /// became an entry, and deletes the entry. The most truthful answer, whoever made the rules;
    /// but a rule that exempts loopback or moves it to another zone hides the rest of the traffic.
    pub fn probe(&mut self) -> Result<Probe, Error> {
        let tuple = match send_to_self() {
            Ok(tuple) => tuple,
            Err(error) => return Ok(Probe::Impossible(error)),
        };
        let mut request = Request::new(KIND_GET, Request::ACK, &INET4);
        request.set_sequence(self.next_sequence());
        put_tuple(&mut request, kind::TUPLE_ORIG, &tuple);
        match self.socket.ask(&request, "look up one conntrack entry", &mut self.buffer, |_| {}) {
            Ok(()) => {}
            Err(error) if error.errno() == Some(libc::ENOENT) => return Ok(Probe::Untracked),
            Err(error) => return Err(error),
        }
        let mut request = Request::new(KIND_ENDED, Request::ACK, &INET4);
        request.set_sequence(self.next_sequence());
        put_tuple(&mut request, kind::TUPLE_ORIG, &tuple);
        match self.socket.ask(&request, "delete weir's own entry", &mut self.buffer, |_| {}) {
            Err(error) if error.errno() != Some(libc::ENOENT) => Err(error),
            _ => Ok(Probe::Tracked),
        }
    }

    /// Looks for rules of others that need tracking. Reads the whole rule set, which is large on
    /// a busy node: not for every tick.
    pub fn others(&mut self) -> Result<Others, Error> {
        let mut others = Others::default();
        let mut request = Request::new(nft::GET_RULE, Request::DUMP, &nft::ANY_FAMILY);
        request.set_sequence(self.next_sequence());
        self.socket.ask(&request, "read the nftables rules", &mut self.buffer, |message| {
            let rule = Rule::read(message.payload).unwrap_or_default();
            let known = rule.table == TABLE || others.tables.iter().any(|name| name == rule.table);
            if rule.tracks && !known && others.tables.len() < MAX_OTHERS {
                others.tables.push(rule.table.to_owned());
            }
        })?;
        for path in LEGACY {
            // Absent unless the legacy modules are loaded.
            for name in fs::read_to_string(path).unwrap_or_default().lines() {
                if !others.legacy.iter().any(|known| known == name) {
                    others.legacy.push(name.to_owned());
                }
            }
        }
        Ok(others)
    }

    fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }
}

/// `struct nfgenmsg` of family `AF_INET`.
const INET4: [u8; 4] = [2, 0, 0, 0];

/// What matters of a rule.
#[derive(Debug, Default)]
struct Rule<'a> {
    table: &'a str,
    tracks: bool,
}

impl<'a> Rule<'a> {
    /// Reads the payload of a rule's message.
    fn read(payload: &'a [u8]) -> Result<Self, Malformed> {
        let mut rule = Self::default();
        for attribute in attributes(payload.get(4..).unwrap_or_default()) {
            let attribute = attribute?;
            match attribute.kind {
                nft::RULE_TABLE => rule.table = attribute.text().unwrap_or_default(),
                nft::RULE_EXPRESSIONS => {
                    for expression in attribute.nested()? {
                        rule.tracks |= expression_tracks(&expression?)?;
                    }
                }
                _ => {}
            }
        }
        Ok(rule)
    }
}

/// Does this expression make the kernel track?
fn expression_tracks(expression: &Attribute<'_>) -> Result<bool, Malformed> {
    let (mut name, mut compat) = ("", "");
    for part in expression.nested()? {
        let part = part?;
        match part.kind {
            nft::EXPRESSION_NAME => name = part.text().unwrap_or_default(),
            nft::EXPRESSION_DATA if matches!(name, "match" | "target") => {
                for field in part.nested()? {
                    let field = field?;
                    if field.kind == nft::COMPAT_NAME {
                        compat = field.text().unwrap_or_default();
                    }
                }
            }
            _ => {}
        }
    }
    Ok(EXPRESSIONS.contains(&name) || COMPAT.contains(&compat))
}

/// Appends the rule `ct state new`: load the state, mask it, compare it with 0. It has no verdict.
fn put_rule(batch: &mut Request) {
    let register = nft::REGISTER_1.to_be_bytes();
    let value = |batch: &mut Request, attribute: u16, value: u32| {
        let nest = batch.open(attribute);
        batch.attribute(nft::DATA_VALUE, &value.to_ne_bytes()).close(nest);
    };
    let list = batch.open(nft::RULE_EXPRESSIONS);
    put_expression(batch, "ct", |batch| {
        batch
            .attribute(nft::CT_REGISTER, &register)
            .attribute(nft::CT_KEY, &nft::CT_KEY_STATE.to_be_bytes());
    });
    put_expression(batch, "bitwise", |batch| {
        batch
            .attribute(nft::BITWISE_FROM, &register)
            .attribute(nft::BITWISE_TO, &register)
            .attribute(nft::BITWISE_LENGTH, &4_u32.to_be_bytes());
        value(batch, nft::BITWISE_MASK, nft::STATE_NEW);
        value(batch, nft::BITWISE_XOR, 0);
    });
    put_expression(batch, "cmp", |batch| {
        batch
            .attribute(nft::COMPARE_FROM, &register)
            .attribute(nft::COMPARE_OPERATION, &nft::NOT_EQUAL.to_be_bytes());
        value(batch, nft::COMPARE_WITH, 0);
    });
    batch.close(list);
}

fn put_expression(batch: &mut Request, name: &str, data: impl FnOnce(&mut Request)) {
    let element = batch.open(nft::LIST_ELEMENT);
    batch.text(nft::EXPRESSION_NAME, name);
    let nest = batch.open(nft::EXPRESSION_DATA);
    data(batch);
    batch.close(nest).close(element);
}

/// Sends one byte from one loopback socket to another and returns the tuple it travelled as.
fn send_to_self() -> io::Result<Tuple> {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let destination = UdpSocket::bind(any)?;
    let source = UdpSocket::bind(any)?;
    let (from, to) = (source.local_addr()?, destination.local_addr()?);
    source.send_to(&[0], to)?;
    Ok(Tuple {
        protocol: Protocol(17),
        source: from.ip(),
        destination: to.ip(),
        source_port: from.port(),
        destination_port: to.port(),
    })
}
