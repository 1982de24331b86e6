//! This machine's endpoints: whose an address is, and whose a socket.
//!
//! [`LocalDirectory`] answers for a plain machine, without Kubernetes. An address is the machine's
//! own, or lies in a network inside the machine (containers, virtual machines), or is external. An
//! own address is named further by its socket: the cgroup in which the socket was made gives the
//! systemd unit or the container, else the process that has it open gives the executable.
//!
//! Nothing here needs privilege. Without it, sockets of other users are named by their cgroup
//! where that says enough, and else marked [`Unresolved::NotPermitted`].

mod addresses;
mod cgroup;
mod listening;
mod memory;
mod process;
mod sockets;
mod tcp;

#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::net::IpAddr;
use std::sync::Arc;

use hashbrown::{HashMap, HashSet};
use weir_conntrack::Error;
use weir_conntrack::netlink::Socket;
use weir_flow::attribution::Question;
use weir_flow::time::SECOND;
use weir_flow::{Directory, Endpoint, EndpointKind, Protocol, Side, Unresolved, WallTime};

use addresses::Addresses;
use cgroup::Cgroups;
use memory::{Key, Memory, wildcard};
use process::{Processes, Searched, effective_uid, sees_all};
use sockets::DiagSocket;

pub use listening::Listening;
pub use tcp::{SocketUse, TcpConnection, TcpSockets};

/// How long a socket, or an own address, is remembered after it is gone. Conntrack keeps a closed
/// TCP connection for two minutes and most datagram connections for less.
const MEMORY_NANOS: u64 = 600 * SECOND;
/// Living sockets, and as many that are gone.
const MAX_SOCKETS: usize = 65_536;
/// Endpoints that are kept to be given out again.
const MAX_ENDPOINTS: usize = 16_384;
/// A socket that this many searches did not find in any process belongs to the kernel.
const SEARCHES: u8 = 2;
/// The longest datagram of a kernel's dump.
const BUFFER_BYTES: usize = 32 * 1024;

/// The protocols whose sockets are listed.
const PROTOCOLS: [Protocol; 2] = [Protocol::TCP, Protocol::UDP];
const FAMILIES: [i32; 2] = [libc::AF_INET, libc::AF_INET6];

/// Names this machine's ends of connections. Give it [`LocalDirectory::refresh`] before each round
/// of questions.
#[derive(Debug)]
pub struct LocalDirectory {
    host: Arc<str>,
    addresses: Addresses,
    cgroups: Cgroups,
    processes: Processes,
    memory: Memory,
    uid: Option<u32>,
    sees_all_processes: bool,
    listed: Vec<DiagSocket>,
    buffer: Vec<u8>,
    endpoints: RefCell<HashMap<End, Arc<Endpoint>>>,
    counts: LocalCounts,
}

/// What a [`LocalDirectory`] holds, and what it has lost since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LocalCounts {
    /// Sockets in the last listing.
    pub sockets: u64,
    /// Sockets that are gone and still remembered.
    pub sockets_remembered: u64,
    /// Sockets forgotten before their time, because there was no room.
    pub sockets_evicted: u64,
    /// Sockets not taken in, because there was no room.
    pub sockets_refused: u64,
    /// Listings that the kernel does not offer (such as a missing `udp_diag` module).
    pub listings_refused: u64,
    /// Searches through `/proc`.
    pub searches: u64,
    /// Searches cut off at their limit of open files.
    pub searches_cut: u64,
    /// Netlink messages that could not be read.
    pub unreadable: u64,
}

/// Whose a socket is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Owner {
    unit: Option<Arc<str>>,
    container: Option<Arc<str>>,
    executable: Option<Arc<str>>,
    unresolved: Option<Unresolved>,
}

/// What makes an endpoint, apart from what its address is to this machine.
#[derive(Debug, PartialEq, Eq, Hash)]
struct End {
    address: IpAddr,
    owner: Option<Arc<Owner>>,
}

impl Owner {
    fn unit(name: &str) -> Self {
        Self { unit: Some(name.into()), ..Self::default() }
    }

    fn container(id: &str) -> Self {
        Self { container: Some(id.into()), ..Self::default() }
    }

    fn executable(name: &str) -> Self {
        Self { executable: Some(name.into()), ..Self::default() }
    }

    fn unresolved(reason: Unresolved) -> Self {
        Self { unresolved: Some(reason), ..Self::default() }
    }

    fn gone() -> Self {
        Self::unresolved(Unresolved::SocketGone)
    }
}

impl LocalDirectory {
    /// A directory for the machine called `host`. It knows nothing before its first refresh.
    pub fn new(host: &str) -> Self {
        Self {
            host: host.into(),
            addresses: Addresses::default(),
            cgroups: Cgroups::of_this_machine(),
            processes: Processes::of_this_machine(),
            memory: Memory::new(MAX_SOCKETS),
            uid: effective_uid(),
            sees_all_processes: sees_all(),
            listed: Vec::new(),
            buffer: vec![0; BUFFER_BYTES],
            endpoints: RefCell::default(),
            counts: LocalCounts::default(),
        }
    }

    /// Reads the addresses and sockets of the network namespace of the calling thread. Owners are
    /// looked for only for sockets that are new. After an error the knowledge is that of before.
    pub fn refresh(&mut self, now: WallTime) -> Result<(), Error> {
        let route = Socket::open(libc::NETLINK_ROUTE)?;
        self.counts.unreadable +=
            self.addresses.refresh(&route, &mut self.buffer, now, MEMORY_NANOS)?;

        let mut listed = std::mem::take(&mut self.listed);
        listed.clear();
        let done = self.list(|socket| listed.push(socket));
        if done.is_ok() {
            self.memory.listed(&listed, now, MEMORY_NANOS);
        }
        self.listed = listed;
        done?;
        self.settle();
        Ok(())
    }

    /// True when a socket of this machine waits for connections (or, for UDP, is bound without
    /// being connected) on this address and port.
    pub fn listens(&self, protocol: Protocol, address: IpAddr, port: u16) -> bool {
        let address = address.to_canonical();
        self.addresses.is_own(address) && self.memory.listener(protocol, (address, port)).is_some()
    }

    /// The addresses of this machine itself as of the last refresh, loopback networks aside.
    pub fn own_addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.addresses.own()
    }

    /// What is held, and what was lost.
    pub fn counts(&self) -> LocalCounts {
        let (live, gone) = self.memory.sizes();
        LocalCounts {
            sockets: live as u64,
            sockets_remembered: gone as u64,
            sockets_evicted: self.memory.evicted,
            sockets_refused: self.memory.refused,
            ..self.counts
        }
    }

    fn list(&mut self, mut each: impl FnMut(DiagSocket)) -> Result<(), Error> {
        let socket = Socket::open(libc::NETLINK_SOCK_DIAG)?;
        for protocol in PROTOCOLS {
            for family in FAMILIES {
                let buffer = &mut self.buffer;
                match sockets::list(&socket, buffer, protocol, family, false, &mut each) {
                    Ok(unreadable) => self.counts.unreadable += unreadable,
                    // The kernel has no such sockets, or no module to list them.
                    Err(error) if error.errno() == Some(libc::ENOENT) => {
                        self.counts.listings_refused += 1;
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    /// Finds the owners of new sockets: by the cgroup, by the listener that accepted them, and at
    /// last by a search for the process.
    fn settle(&mut self) {
        let unknown: Vec<u64> = self
            .memory
            .unsettled()
            .filter_map(|live| live.socket.cgroup)
            .filter(|id| self.cgroups.is_new(*id))
            .collect();
        if !unknown.is_empty() {
            self.cgroups.walk(&unknown);
        }
        for live in self.memory.unsettled() {
            if let Some(owner) = live.socket.cgroup.and_then(|id| self.cgroups.owner(id)) {
                (live.owner, live.searches) = (owner, None);
            }
        }
        let is_listener = |live: &memory::Live| live.socket.listens();
        self.search(is_listener);
        self.inherit();
        self.search(|live| !is_listener(live));
    }

    /// Gives accepted sockets the owner of their listener, which spares the search for them.
    fn inherit(&mut self) {
        let accepted: Vec<(Key, Arc<Owner>)> = {
            let listener = |socket: &DiagSocket| {
                let live = self.memory.listener(socket.protocol, socket.local)?;
                live.searches.is_none().then(|| Arc::clone(&live.owner))
            };
            let connected = self
                .listed
                .iter()
                .filter(|socket| socket.protocol == Protocol::TCP && socket.peer.is_some());
            connected
                .filter_map(|socket| {
                    let DiagSocket { protocol, local, peer, .. } = *socket;
                    let key = Key { protocol, local, peer };
                    let unsettled = self.memory.live(&key)?.searches.is_some();
                    unsettled.then(|| listener(socket).map(|owner| (key, owner)))?
                })
                .collect()
        };
        for (key, owner) in accepted {
            self.memory.settle(&key, owner);
        }
    }

    /// Searches `/proc` for the unsettled sockets among `which`.
    fn search(&mut self, which: impl Fn(&memory::Live) -> bool) {
        let inodes = self.memory.unsettled().filter(|live| which(live));
        let mut wanted: HashSet<u32> =
            inodes.map(|live| live.socket.inode).filter(|inode| *inode != 0).collect();
        let mut found = HashMap::new();
        let mut searched = Searched::default();
        if !wanted.is_empty() {
            searched = self.processes.search(&mut wanted, &mut found);
            self.counts.searches += 1;
            self.counts.searches_cut += u64::from(searched.cut);
        }
        let (own_uid, sees_all) = (self.uid, self.sees_all_processes);
        for live in self.memory.unsettled().filter(|live| which(live)) {
            let socket = &live.socket;
            if let Some(owner) = found.get(&socket.inode) {
                (live.owner, live.searches) = (Arc::clone(owner), None);
            } else if socket.inode == 0 {
                // No process has it any more; the kernel only ends the conversation.
                live.searches = None;
            } else if !searched.cut {
                let searches = live.searches.unwrap_or_default() + 1;
                live.searches = (searches < SEARCHES).then_some(searches);
                let foreign = own_uid.is_some_and(|uid| uid != 0 && uid != socket.uid);
                let hidden = foreign || searched.denied || !sees_all;
                let reason = match (hidden, live.searches) {
                    (true, _) => Unresolved::NotPermitted,
                    // It may have been closed while it was searched for.
                    (false, Some(_)) => Unresolved::SocketGone,
                    (false, None) => Unresolved::NoSocket,
                };
                live.owner = Arc::new(Owner::unresolved(reason));
            }
        }
    }

    /// Whose socket the question is about.
    fn owner(&self, question: &Question) -> Arc<Owner> {
        let Question { protocol, port, at, .. } = *question;
        if !PROTOCOLS.contains(&protocol) {
            return Arc::new(Owner::unresolved(Unresolved::NoSocket));
        }
        let address = question.address.to_canonical();
        let peer = (question.peer_address.to_canonical(), question.peer_port);
        let exact = Key { protocol, local: (address, port), peer: Some(peer) };
        let bound = |address| Key { protocol, local: (address, port), peer: None };
        let mut keys = vec![exact];
        // The socket that opened a TCP connection is connected, so a listener on its port is
        // another's.
        if protocol != Protocol::TCP || question.side == Side::Destination {
            keys.extend([bound(address), bound(wildcard(address))]);
        }
        let owner = keys.iter().find_map(|key| self.memory.owner(key, at));
        owner.map_or_else(|| Arc::new(Owner::gone()), Arc::clone)
    }

    /// The endpoint with this address and, on the machine itself, this owner.
    fn endpoint(&self, address: IpAddr, owner: Option<&Arc<Owner>>) -> Arc<Endpoint> {
        let kind = if owner.is_some() || self.addresses.is_own(address) {
            EndpointKind::Host
        } else if self.addresses.is_inside(address) {
            EndpointKind::Local
        } else {
            EndpointKind::External
        };
        let key = End { address, owner: owner.cloned() };
        let mut endpoints = self.endpoints.borrow_mut();
        if let Some(endpoint) = endpoints.get(&key).filter(|endpoint| endpoint.kind == kind) {
            return Arc::clone(endpoint);
        }
        let mut endpoint = Endpoint::bare(kind, address);
        if let Some(owner) = owner {
            let Owner { unit, container, executable, unresolved } = Owner::clone(owner);
            let host = Some(self.host.clone());
            endpoint = Endpoint { host, unit, container, executable, unresolved, ..endpoint };
        }
        if endpoints.len() >= MAX_ENDPOINTS {
            endpoints.clear();
        }
        let endpoint = Arc::new(endpoint);
        endpoints.insert(key, Arc::clone(&endpoint));
        endpoint
    }
}

impl Directory for LocalDirectory {
    fn resolve(&self, question: &Question) -> Arc<Endpoint> {
        let address = question.address.to_canonical();
        if self.addresses.is_own(address) {
            let owner = self.owner(question);
            return self.endpoint(address, Some(&owner));
        }
        self.endpoint(address, None)
    }
}
