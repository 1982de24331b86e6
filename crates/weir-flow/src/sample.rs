//! What the kernel says about one connection at one moment.

use crate::counters::Totals;
use crate::time::WallTime;
use crate::tuple::Tuple;

/// One conntrack entry, from a dump or from its DESTROY event, whichever door it came by.
///
/// Directions are still the kernel's: `original` is the direction of the first packet *seen*.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// The kernel's 32-bit id (`CTA_ID`): a hash, neither unique nor fresh.
    pub id: u32,
    /// Conntrack zone (`CTA_ZONE`, else `CTA_TUPLE_ZONE` of the original tuple); 0 when absent.
    pub zone: u16,
    /// The original direction.
    pub original: Tuple,
    /// The reply direction; differs from the mirror of `original` where addresses are translated.
    pub reply: Tuple,
    /// Cumulative counters (`sent` = original, `received` = reply). `None`: the entry carries no
    /// counters because it was made while `nf_conntrack_acct` was off. Never read that as zero.
    pub totals: Option<Totals>,
    /// Status bits (`CTA_STATUS`).
    pub status: Status,
    /// Connection mark (`CTA_MARK`).
    pub mark: u32,
    /// TCP state, for TCP entries whose message carries one.
    pub tcp: Option<TcpState>,
    /// When the entry was made (`CTA_TIMESTAMP_START`), if `nf_conntrack_timestamp` was on then.
    pub start: Option<WallTime>,
    /// When it ended (`CTA_TIMESTAMP_STOP`), only in DESTROY events.
    pub stop: Option<WallTime>,
}

/// Conntrack status bits, under their kernel names (`enum ip_conntrack_status` in
/// `include/uapi/linux/netfilter/nf_conntrack_common.h`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Status(pub u32);

impl Status {
    /// Packets were seen in both directions (`IPS_SEEN_REPLY`).
    pub fn seen_reply(self) -> bool {
        self.0 & (1 << 1) != 0
    }

    /// The connection is never evicted early (`IPS_ASSURED`); for TCP: it was established.
    pub fn assured(self) -> bool {
        self.0 & (1 << 2) != 0
    }

    /// Source translation applies (`IPS_SRC_NAT`).
    pub fn source_nat(self) -> bool {
        self.0 & (1 << 4) != 0
    }

    /// Destination translation applies (`IPS_DST_NAT`).
    pub fn destination_nat(self) -> bool {
        self.0 & (1 << 5) != 0
    }

    /// The entry is leaving the table (`IPS_DYING`).
    pub fn dying(self) -> bool {
        self.0 & (1 << 9) != 0
    }

    /// A flowtable or hardware carries the packets (`IPS_OFFLOAD`, `IPS_HW_OFFLOAD`), so the
    /// counters may lag or stand still.
    pub fn offloaded(self) -> bool {
        self.0 & ((1 << 14) | (1 << 15)) != 0
    }
}

/// The TCP part of an entry (`CTA_PROTOINFO_TCP`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TcpState {
    /// `enum tcp_conntrack` of `nf_conntrack_tcp.h`.
    pub state: u8,
    /// `IP_CT_TCP_FLAG_*` of the original direction.
    pub flags_original: u8,
    /// `IP_CT_TCP_FLAG_*` of the reply direction.
    pub flags_reply: u8,
}

impl TcpState {
    /// Closed by a reset (`TCP_CONNTRACK_CLOSE`).
    pub const CLOSE: u8 = 8;
    /// `IP_CT_TCP_FLAG_BE_LIBERAL`.
    const BE_LIBERAL: u8 = 0x08;

    /// The state's kernel name.
    pub fn name(self) -> &'static str {
        const STATES: [&str; 10] = [
            "NONE",
            "SYN_SENT",
            "SYN_RECV",
            "ESTABLISHED",
            "FIN_WAIT",
            "CLOSE_WAIT",
            "LAST_ACK",
            "TIME_WAIT",
            "CLOSE",
            "SYN_SENT2",
        ];
        STATES.get(usize::from(self.state)).copied().unwrap_or("UNKNOWN")
    }

    /// Both directions are liberal: with `nf_conntrack_tcp_be_liberal=0` the kernel sets that
    /// only on an entry it made from the middle of a stream.
    pub fn both_liberal(self) -> bool {
        self.flags_original & self.flags_reply & Self::BE_LIBERAL != 0
    }
}
