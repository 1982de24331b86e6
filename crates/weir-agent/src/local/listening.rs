//! Who listens on this machine: all that orienting a connection met in mid-stream needs to know of
//! sockets.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use hashbrown::HashSet;
use weir_conntrack::Error;
use weir_conntrack::netlink::Socket;
use weir_flow::Protocol;

use super::memory::wildcard;
use super::{BUFFER_BYTES, FAMILIES, MAX_SOCKETS, PROTOCOLS, sockets};

/// What was looked at this long ago will do: listeners stay.
const FRESH: Duration = Duration::from_secs(10);

/// The listening sockets of the network namespace it was opened in; looked at only when asked for.
#[derive(Debug)]
pub struct Listening {
    socket: Socket,
    known: HashSet<(Protocol, IpAddr, u16)>,
    looked: Option<Instant>,
}

impl Listening {
    /// Opens a netlink socket. Needs no privilege.
    pub fn open() -> Result<Self, Error> {
        let socket = Socket::open(libc::NETLINK_SOCK_DIAG)?;
        Ok(Self { socket, known: HashSet::new(), looked: None })
    }

    /// True when something listens at this address and port.
    pub fn listens(&mut self, protocol: Protocol, address: IpAddr, port: u16) -> bool {
        if self.looked.is_none_or(|at| at.elapsed() > FRESH) {
            self.look();
        }
        [address, wildcard(address)].iter().any(|at| self.known.contains(&(protocol, *at, port)))
    }

    fn look(&mut self) {
        self.looked = Some(Instant::now());
        self.known.clear();
        let mut buffer = vec![0; BUFFER_BYTES];
        for protocol in PROTOCOLS {
            for family in FAMILIES {
                let known = &mut self.known;
                let listed =
                    sockets::list(&self.socket, &mut buffer, protocol, family, false, |socket| {
                        if socket.listens() && known.len() < MAX_SOCKETS {
                            let (address, port) = socket.local;
                            known.insert((protocol, address, port));
                            if socket.takes_both_families {
                                known.insert((protocol, IpAddr::from([0, 0, 0, 0]), port));
                            }
                        }
                    });
                if let Err(error) = listed {
                    // Then the lower port decides.
                    tracing::debug!(error = &error as &dyn std::error::Error, "not listed");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_listener_is_found_where_it_listens() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut listening = Listening::open().unwrap();
        let here = IpAddr::from([127, 0, 0, 1]);
        assert!(listening.listens(Protocol::TCP, here, port));
        assert!(!listening.listens(Protocol::UDP, here, port));
        assert!(!listening.listens(Protocol::TCP, IpAddr::from([127, 0, 0, 2]), port));
    }
}
