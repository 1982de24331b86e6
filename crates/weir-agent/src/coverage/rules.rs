//! Rules that keep packets from being tracked or counted, read and never changed.
//!
//! Numbers are from `include/uapi/linux/netfilter/{nf_tables,nf_tables_compat,xt_CT}.h`.

use std::fmt;
use std::fs;

use weir_conntrack::netlink::{Attribute, Request, Socket, attributes};
use weir_conntrack::{Error, Malformed};

/// `NFNL_SUBSYS_NFTABLES`, the upper half of a message's type.
const NFTABLES: u16 = 10 << 8;
const GET_RULE: u16 = NFTABLES + 7;
const GET_FLOWTABLE: u16 = NFTABLES + 23;
/// `struct nfgenmsg` of every family.
const ANY_FAMILY: [u8; 4] = [0; 4];
const HEADER: usize = 4;

const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
const RULE_HANDLE: u16 = 3;
const RULE_EXPRESSIONS: u16 = 4;
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
const TARGET_NAME: u16 = 1;
const TARGET_INFO: u16 = 3;
/// `XT_CT_NOTRACK`, in the first 16 bits of `struct xt_ct_target_info`.
const TARGET_NOTRACK: u16 = 1;
const FLOWTABLE_TABLE: u16 = 1;
const FLOWTABLE_NAME: u16 = 2;
const FLOWTABLE_FLAGS: u16 = 7;
/// `NFT_FLOWTABLE_COUNTER`.
const COUNTS: u32 = 2;

/// Tables with legacy iptables rules.
const LEGACY: [&str; 2] =
    ["/proc/thread-self/net/ip_tables_names", "/proc/thread-self/net/ip6_tables_names"];
const BUFFER_BYTES: usize = 32 * 1024;

/// What the rule set has against counting.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Rules with `notrack`, at most [`Rules::LIMIT`].
    pub notrack: Vec<Place>,
    /// Flowtables without `counter`, at most [`Rules::LIMIT`].
    pub flowtables: Vec<Place>,
    /// Why part of the rule set could not be read, where it could not.
    pub unknown: Option<String>,
}

/// Where a rule or flowtable stands. Displayed as `nft` names it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Its table's family.
    pub family: &'static str,
    /// Its table.
    pub table: String,
    /// The rule's chain, or the flowtable itself.
    pub name: String,
    /// The rule's handle.
    pub handle: Option<u64>,
}

impl Rules {
    /// So many places of each sort are kept; the rest is passed over.
    pub const LIMIT: usize = 16;

    /// Reads the rule set of nftables. What may not be read is said in [`Rules::unknown`].
    pub fn read() -> Result<Self, Error> {
        let socket = Socket::open(libc::NETLINK_NETFILTER)?;
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut rules = Self::default();
        let mut unreadable = 0_u64;
        let mut request = Request::new(GET_RULE, Request::DUMP, &ANY_FAMILY);
        request.set_sequence(1);
        let operation = "read the nftables rules";
        let answer = socket.ask(&request, operation, &mut buffer, |message| {
            match notrack(message.payload) {
                Ok(Some(place)) if rules.notrack.len() < Self::LIMIT => rules.notrack.push(place),
                Ok(_) => {}
                Err(_) => unreadable += 1,
            }
        });
        rules.note_failure(answer);
        let mut request = Request::new(GET_FLOWTABLE, Request::DUMP, &ANY_FAMILY);
        request.set_sequence(2);
        let operation = "read the nftables flowtables";
        let answer = socket.ask(&request, operation, &mut buffer, |message| {
            match uncounted_flowtable(message.payload) {
                Ok(Some(place)) if rules.flowtables.len() < Self::LIMIT => {
                    rules.flowtables.push(place);
                }
                Ok(_) => {}
                Err(_) => unreadable += 1,
            }
        });
        rules.note_failure(answer);
        if unreadable > 0 {
            rules.note(format!("{unreadable} nftables rules could not be read"));
        }
        for path in LEGACY {
            // Absent unless the legacy modules are loaded. Only table "raw" can exempt packets.
            if fs::read_to_string(path).unwrap_or_default().lines().any(|table| table == "raw") {
                rules.note(
                    "there are legacy iptables rules in the table raw; `iptables-legacy-save -t \
                     raw` and `ip6tables-legacy-save -t raw` show them"
                        .to_owned(),
                );
            }
        }
        Ok(rules)
    }

    fn note_failure(&mut self, answer: Result<(), Error>) {
        match answer {
            Ok(()) => {}
            // The kernel has no nftables, or none with flowtables.
            Err(error) if matches!(error.errno(), Some(libc::EINVAL | libc::EOPNOTSUPP)) => {}
            Err(error) => self.note(error.to_string()),
        }
    }

    /// Keeps the first reason.
    fn note(&mut self, reason: String) {
        self.unknown.get_or_insert(reason);
    }
}

impl Place {
    /// The command that deletes the rule.
    pub(super) fn deletion(&self) -> Option<String> {
        let Self { family, table, name, handle } = self;
        handle.map(|handle| format!("nft delete rule {family} {table} {name} handle {handle}"))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.family, self.table, self.name)
    }
}

/// Where the rule stands, if it exempts packets.
fn notrack(payload: &[u8]) -> Result<Option<Place>, Malformed> {
    let mut place = Place { family: family(payload), ..Place::default() };
    let mut exempts = false;
    for attribute in attributes(payload.get(HEADER..).unwrap_or_default()) {
        let attribute = attribute?;
        match attribute.kind {
            RULE_TABLE => place.table = text(&attribute),
            RULE_CHAIN => place.name = text(&attribute),
            RULE_HANDLE => place.handle = Some(attribute.be_u64()?),
            RULE_EXPRESSIONS => {
                for expression in attribute.nested()? {
                    exempts |= expression_exempts(&expression?)?;
                }
            }
            _ => {}
        }
    }
    Ok(exempts.then_some(place))
}

fn expression_exempts(expression: &Attribute<'_>) -> Result<bool, Malformed> {
    let (mut name, mut target, mut flags) = ("", "", 0);
    for part in expression.nested()? {
        let part = part?;
        match part.kind {
            EXPRESSION_NAME => name = part.text().unwrap_or_default(),
            EXPRESSION_DATA if name == "target" => {
                for field in part.nested()? {
                    let field = field?;
                    match field.kind {
                        TARGET_NAME => target = field.text().unwrap_or_default(),
                        TARGET_INFO => {
                            let first = field.payload.first_chunk().copied();
                            flags = first.map_or(0, u16::from_ne_bytes);
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    let by_iptables = target == "NOTRACK" || target == "CT" && flags & TARGET_NOTRACK != 0;
    Ok(name == "notrack" || by_iptables)
}

/// Which flowtable this is, if it does not count.
fn uncounted_flowtable(payload: &[u8]) -> Result<Option<Place>, Malformed> {
    let mut place = Place { family: family(payload), ..Place::default() };
    let mut flags = 0;
    for attribute in attributes(payload.get(HEADER..).unwrap_or_default()) {
        let attribute = attribute?;
        match attribute.kind {
            FLOWTABLE_TABLE => place.table = text(&attribute),
            FLOWTABLE_NAME => place.name = text(&attribute),
            FLOWTABLE_FLAGS => flags = attribute.be_u32()?,
            _ => {}
        }
    }
    Ok((flags & COUNTS == 0 && !place.name.is_empty()).then_some(place))
}

/// `NFPROTO_*` of `include/uapi/linux/netfilter.h`, as `nft` writes them.
fn family(payload: &[u8]) -> &'static str {
    match payload.first() {
        Some(1) => "inet",
        Some(2) => "ip",
        Some(3) => "arp",
        Some(5) => "netdev",
        Some(7) => "bridge",
        Some(10) => "ip6",
        _ => "unknown",
    }
}

fn text(attribute: &Attribute<'_>) -> String {
    attribute.text().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(expressions: impl FnOnce(&mut Request)) -> Vec<u8> {
        // The message that the kernel would send has the layout of one that asks.
        let mut message = Request::new(GET_RULE, 0, &[2, 0, 0, 0]);
        message.text(RULE_TABLE, "raw").text(RULE_CHAIN, "PREROUTING");
        message.attribute(RULE_HANDLE, &7_u64.to_be_bytes());
        let list = message.open(RULE_EXPRESSIONS);
        let element = message.open(1);
        expressions(&mut message);
        message.close(element).close(list);
        message.bytes()[16..].to_vec()
    }

    fn target(name: &str, flags: u16) -> Vec<u8> {
        rule(|message| {
            message.text(EXPRESSION_NAME, "target");
            let data = message.open(EXPRESSION_DATA);
            let mut info = flags.to_ne_bytes().to_vec();
            info.resize(40, 0);
            message.text(TARGET_NAME, name).attribute(TARGET_INFO, &info).close(data);
        })
    }

    #[test]
    fn exemptions_are_told_from_other_rules() {
        let exempt = |payload: &[u8]| notrack(payload).unwrap();
        let place = exempt(&rule(|message| {
            message.text(EXPRESSION_NAME, "notrack");
        }));
        let place = place.unwrap();
        assert_eq!(place.to_string(), "ip raw PREROUTING");
        let deletion = place.deletion();
        assert_eq!(deletion.as_deref(), Some("nft delete rule ip raw PREROUTING handle 7"));
        assert!(exempt(&target("NOTRACK", 0)).is_some());
        assert!(exempt(&target("CT", TARGET_NOTRACK)).is_some());
        // CT with a helper or a zone, and others.
        assert!(exempt(&target("CT", 0)).is_none());
        assert!(exempt(&target("MARK", TARGET_NOTRACK)).is_none());
        assert!(
            exempt(&rule(|message| {
                message.text(EXPRESSION_NAME, "ct");
            }))
            .is_none()
        );
        assert!(notrack(&[2, 0, 0, 0, 9]).is_err());
    }

    #[test]
    fn flowtables_that_count_are_left_out() {
        let flowtable = |flags: Option<u32>| {
            let mut message = Request::new(GET_FLOWTABLE, 0, &[1, 0, 0, 0]);
            message.text(FLOWTABLE_TABLE, "t").text(FLOWTABLE_NAME, "fast");
            if let Some(flags) = flags {
                message.attribute(FLOWTABLE_FLAGS, &flags.to_be_bytes());
            }
            uncounted_flowtable(&message.bytes()[16..]).unwrap()
        };
        assert_eq!(flowtable(None).unwrap().to_string(), "inet t fast");
        assert!(flowtable(Some(1)).is_some());
        assert!(flowtable(Some(COUNTS)).is_none());
    }
}
