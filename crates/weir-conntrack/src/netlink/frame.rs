//! Messages in a datagram: `struct nlmsghdr` and what follows it.

use super::Malformed;

/// Bytes of `struct nlmsghdr`.
const HEADER: usize = 16;
/// Messages start at multiples of this.
const ALIGN: usize = 4;
/// The first type that is not netlink's own (`NLMSG_MIN_TYPE`).
const FIRST_DATA_KIND: u16 = 0x10;
const ERROR: u16 = 2;
const DONE: u16 = 3;
const OVERRUN: u16 = 4;
/// `NLM_F_DUMP_INTR`.
const DUMP_INTERRUPTED: u16 = 0x10;

/// Reads the messages in a datagram.
pub fn messages(datagram: &[u8]) -> Messages<'_> {
    Messages { rest: datagram }
}

/// Iterator over messages; ends after the first error.
#[derive(Clone, Debug)]
pub struct Messages<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Messages<'a> {
    type Item = Result<Message<'a>, Malformed>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let available = self.rest.len();
        let Some(header) = self.rest.first_chunk::<HEADER>() else {
            self.rest = &[];
            return Some(Err(Malformed::HeaderCut { header: "message", available }));
        };
        let [l0, l1, l2, l3, k0, k1, f0, f1, s0, s1, s2, s3, p0, p1, p2, p3] = *header;
        // A length beyond usize (never on 64 bits) is also beyond the datagram.
        let declared = usize::try_from(u32::from_ne_bytes([l0, l1, l2, l3])).unwrap_or(usize::MAX);
        let kind = u16::from_ne_bytes([k0, k1]);
        let Some(payload) = self.rest.get(HEADER..declared) else {
            self.rest = &[];
            return Some(Err(Malformed::Length { header: "message", kind, declared, available }));
        };
        self.rest = self.rest.get(declared.next_multiple_of(ALIGN)..).unwrap_or_default();
        Some(Ok(Message {
            kind,
            flags: u16::from_ne_bytes([f0, f1]),
            sequence: u32::from_ne_bytes([s0, s1, s2, s3]),
            port: u32::from_ne_bytes([p0, p1, p2, p3]),
            payload,
        }))
    }
}

/// One message.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// `nlmsg_type`.
    pub kind: u16,
    /// `nlmsg_flags` (`NLM_F_*`).
    pub flags: u16,
    /// `nlmsg_seq`: the request's number in its answers, 0 in events.
    pub sequence: u32,
    /// `nlmsg_pid`: the netlink port that asked.
    pub port: u32,
    /// What follows the header.
    pub payload: &'a [u8],
}

/// What a message means to the exchange, before anybody looks into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// The message carries data.
    Data,
    /// To be ignored.
    Noop,
    /// A dump is at its end; an error number above 0 says that it ended early.
    Done(i32),
    /// The answer to a request: 0 acknowledges it, above 0 is the error number.
    Answer(i32),
    /// Data was lost.
    Overrun,
}

impl Message<'_> {
    /// What is being dumped changed meanwhile (`NLM_F_DUMP_INTR`), so that something may be
    /// missing or doubled. The kernel says so for rtnetlink and rules, not for conntrack entries.
    pub fn is_interrupted(&self) -> bool {
        self.flags & DUMP_INTERRUPTED != 0
    }

    /// Tells data from netlink's own messages.
    #[inline]
    pub fn control(&self) -> Result<Control, Malformed> {
        if self.kind >= FIRST_DATA_KIND {
            return Ok(Control::Data);
        }
        match self.kind {
            ERROR => self.errno().map(Control::Answer),
            // Old kernels end a dump without a number.
            DONE if self.payload.is_empty() => Ok(Control::Done(0)),
            DONE => self.errno().map(Control::Done),
            OVERRUN => Ok(Control::Overrun),
            // NLMSG_NOOP, and the types reserved below NLMSG_MIN_TYPE.
            _ => Ok(Control::Noop),
        }
    }

    /// The error number at the payload's beginning, as a positive number; netlink has it negative.
    fn errno(&self) -> Result<i32, Malformed> {
        let bytes = self.payload.first_chunk().ok_or(Malformed::HeaderCut {
            header: "error number",
            available: self.payload.len(),
        })?;
        Ok(i32::from_ne_bytes(*bytes).checked_neg().unwrap_or(i32::MAX).max(0))
    }
}
