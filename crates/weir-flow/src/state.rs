//! What stage of its life a connection is in, as far as the kernel says.

use std::fmt;

use crate::sample::{Sample, TcpState};

/// The kernel's word on a connection: the TCP state, else how far its datagrams were answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionState(u8);

impl ConnectionState {
    /// Nobody said.
    pub const UNKNOWN: Self = Self(0);
    /// Packets went one way only.
    pub const UNREPLIED: Self = Self(1);
    /// Packets went both ways.
    pub const REPLIED: Self = Self(2);
    /// Packets went both ways more than once (`IPS_ASSURED`).
    pub const ASSURED: Self = Self(3);
    /// Codes from here on are TCP's, in the kernel's order.
    const TCP: u8 = 16;

    /// As a sample has it.
    pub fn of(sample: &Sample) -> Self {
        match sample.tcp {
            Some(TcpState { state, .. }) => Self(Self::TCP.saturating_add(state)),
            // A TCP entry without its state (an offloaded one) says nothing.
            None if sample.original.protocol == crate::Protocol::TCP => Self::UNKNOWN,
            None if sample.status.assured() => Self::ASSURED,
            None if sample.status.seen_reply() => Self::REPLIED,
            None => Self::UNREPLIED,
        }
    }

    /// The stable code, as frames hold it.
    pub fn code(self) -> u8 {
        self.0
    }

    /// The state with this code; unknown codes are a later weir's and kept as they are.
    pub fn from_code(code: u8) -> Self {
        Self(code)
    }

    /// The kernel's name of a TCP state (`ESTABLISHED`), else `unreplied`, `replied` or `assured`;
    /// `None` where nobody said.
    pub fn name(self) -> Option<&'static str> {
        match self {
            Self::UNKNOWN => None,
            Self::UNREPLIED => Some("unreplied"),
            Self::REPLIED => Some("replied"),
            Self::ASSURED => Some("assured"),
            Self(code) => {
                let state = code.checked_sub(Self::TCP)?;
                Some(TcpState { state, ..TcpState::default() }.name())
            }
        }
    }
}

impl fmt::Display for ConnectionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name().unwrap_or("?"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Status;
    use crate::tuple::{Protocol, Tuple};

    fn sample(protocol: Protocol, status: u32, tcp: Option<u8>) -> Sample {
        let original = Tuple { protocol, ..Tuple::default() };
        let tcp = tcp.map(|state| TcpState { state, ..TcpState::default() });
        Sample { original, status: Status(status), tcp, ..Sample::default() }
    }

    #[test]
    fn every_state_has_its_kernel_name_and_survives_its_code() {
        for (protocol, status, tcp, name) in [
            (Protocol::TCP, 0, Some(3), Some("ESTABLISHED")),
            (Protocol::TCP, 0, Some(7), Some("TIME_WAIT")),
            (Protocol::TCP, 0, Some(200), Some("UNKNOWN")),
            (Protocol::TCP, 0b1110, None, None),
            (Protocol::UDP, 0, None, Some("unreplied")),
            (Protocol::UDP, 1 << 1, None, Some("replied")),
            (Protocol::UDP, 0b110, None, Some("assured")),
            (Protocol::ICMP, 1 << 1, None, Some("replied")),
        ] {
            let state = ConnectionState::of(&sample(protocol, status, tcp));
            assert_eq!(state.name(), name);
            assert_eq!(ConnectionState::from_code(state.code()), state);
        }
        assert_eq!(ConnectionState::from_code(9).name(), None);
    }
}
