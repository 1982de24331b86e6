//! Which socket was whose, now and a while ago.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use hashbrown::HashMap;
use weir_flow::time::SECOND;
use weir_flow::{Protocol, WallTime};

use super::Owner;
use super::sockets::DiagSocket;

/// How much earlier than its socket a connection may have begun: an accepted socket is made after
/// the handshake, and clocks are read at different moments.
const SLACK_NANOS: u64 = 5 * SECOND;

/// What identifies a socket among those of its time; without a peer: a listener, or a datagram
/// socket that is not connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) protocol: Protocol,
    pub(super) local: (IpAddr, u16),
    pub(super) peer: Option<(IpAddr, u16)>,
}

/// A socket that was in the last listing.
#[derive(Clone, Debug)]
pub(super) struct Live {
    pub(super) socket: DiagSocket,
    pub(super) owner: Arc<Owner>,
    /// Searches that have not found who has it; `None` when it is settled.
    pub(super) searches: Option<u8>,
    /// It was made after this.
    not_before: WallTime,
    generation: u64,
}

#[derive(Clone, Debug)]
struct Gone {
    owner: Arc<Owner>,
    not_before: WallTime,
    /// It was closed before this.
    not_after: WallTime,
}

/// Sockets by key: all that live, and as many as fit of those that are gone.
#[derive(Debug)]
pub(super) struct Memory {
    live: HashMap<Key, Live>,
    gone: HashMap<Key, Gone>,
    /// In the order of their end. An entry whose time differs from its key's is outdated.
    ended: VecDeque<(WallTime, Key)>,
    limit: usize,
    generation: u64,
    previous: WallTime,
    /// Sockets forgotten before their time, because there was no room.
    pub(super) evicted: u64,
    /// Sockets not taken in, because there was no room.
    pub(super) refused: u64,
}

impl Memory {
    /// Room for `limit` living and `limit` ended sockets.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            live: HashMap::new(),
            gone: HashMap::new(),
            ended: VecDeque::new(),
            limit,
            generation: 0,
            previous: WallTime(0),
            evicted: 0,
            refused: 0,
        }
    }

    /// Takes in a listing of all sockets.
    pub(super) fn listed(&mut self, sockets: &[DiagSocket], now: WallTime, keep_nanos: u64) {
        self.generation += 1;
        for socket in sockets {
            self.take_in(key_of(socket), socket);
        }
        // A wildcard socket for both families answers on IPv4 unless another one does.
        for socket in sockets.iter().filter(|socket| socket.takes_both_families) {
            let key = key_of(socket);
            self.take_in(Key { local: (Ipv4Addr::UNSPECIFIED.into(), key.local.1), ..key }, socket);
        }
        let Self { live, gone, ended, generation, previous, .. } = self;
        live.retain(|key, entry| {
            let listed = entry.generation == *generation;
            if !listed {
                let (owner, not_before) = (Arc::clone(&entry.owner), entry.not_before);
                gone.insert(*key, Gone { owner, not_before, not_after: now });
                ended.push_back((now, *key));
            }
            listed
        });
        *previous = now;
        self.forget(now, keep_nanos);
    }

    fn take_in(&mut self, key: Key, socket: &DiagSocket) {
        if let Some(entry) = self.live.get_mut(&key) {
            // Several sockets may share a port (SO_REUSEPORT); the first one listed stands for all.
            if entry.generation == self.generation {
                return;
            }
            entry.generation = self.generation;
            if entry.socket.cookie == socket.cookie {
                entry.socket = *socket;
                return;
            }
        } else if self.live.len() >= self.limit {
            self.refused += 1;
            return;
        }
        let owner = Arc::new(Owner::gone());
        let (not_before, generation) = (self.previous, self.generation);
        let fresh = Live { socket: *socket, owner, searches: Some(0), not_before, generation };
        if let Some(before) = self.live.insert(key, fresh) {
            let Live { owner, not_before, .. } = before;
            self.gone.insert(key, Gone { owner, not_before, not_after: self.previous });
            self.ended.push_back((self.previous, key));
        }
    }

    fn forget(&mut self, now: WallTime, keep_nanos: u64) {
        while let Some((ended, key)) = self.ended.front().copied() {
            let old = now.0.saturating_sub(ended.0) > keep_nanos;
            let crowded = self.ended.len() > self.limit;
            if !old && !crowded {
                break;
            }
            self.ended.pop_front();
            if self.gone.get(&key).is_some_and(|gone| gone.not_after == ended) {
                self.gone.remove(&key);
                self.evicted += u64::from(!old);
            }
        }
    }

    /// The living sockets whose owner is not settled.
    pub(super) fn unsettled(&mut self) -> impl Iterator<Item = &mut Live> {
        self.live.values_mut().filter(|live| live.searches.is_some())
    }

    /// Says whose the living socket of this key is.
    pub(super) fn settle(&mut self, key: &Key, owner: Arc<Owner>) {
        if let Some(live) = self.live.get_mut(key) {
            (live.owner, live.searches) = (owner, None);
        }
    }

    /// The living socket of this key.
    pub(super) fn live(&self, key: &Key) -> Option<&Live> {
        self.live.get(key)
    }

    /// The living socket that listens on this address and port, or on the wildcard address.
    pub(super) fn listener(&self, protocol: Protocol, local: (IpAddr, u16)) -> Option<&Live> {
        let addresses = [local.0, wildcard(local.0)];
        addresses
            .into_iter()
            .find_map(|address| self.live(&Key { protocol, local: (address, local.1), peer: None }))
            .filter(|live| live.socket.listens())
    }

    /// Whose socket this was at that time.
    pub(super) fn owner(&self, key: &Key, at: WallTime) -> Option<&Arc<Owner>> {
        let begun = |not_before: WallTime| not_before.0 <= at.0.saturating_add(SLACK_NANOS);
        if let Some(live) = self.live.get(key).filter(|live| begun(live.not_before)) {
            return Some(&live.owner);
        }
        // A whole tuple hardly comes back within the memory's time, and the last record of a
        // connection may begin after its socket's end. A mere port soon has another owner.
        let gone = self.gone.get(key).filter(|gone| begun(gone.not_before))?;
        let ended = at.0 > gone.not_after.0.saturating_add(SLACK_NANOS);
        (key.peer.is_some() || !ended).then_some(&gone.owner)
    }

    /// Living and remembered sockets.
    pub(super) fn sizes(&self) -> (usize, usize) {
        (self.live.len(), self.gone.len())
    }
}

fn key_of(socket: &DiagSocket) -> Key {
    Key { protocol: socket.protocol, local: socket.local, peer: socket.peer }
}

/// The address that stands for all of this one's family.
pub(super) fn wildcard(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEEP: u64 = 100 * SECOND;

    fn at(seconds: u64) -> WallTime {
        WallTime(seconds * SECOND)
    }

    fn socket(cookie: u64, port: u16, peer_port: u16) -> DiagSocket {
        DiagSocket {
            protocol: Protocol::TCP,
            state: if peer_port == 0 { 10 } else { 1 },
            local: ([127, 0, 0, 1].into(), port),
            peer: (peer_port != 0).then(|| ([127, 0, 0, 1].into(), peer_port)),
            cookie,
            uid: 0,
            inode: 0,
            cgroup: None,
            takes_both_families: false,
            carried: None,
        }
    }

    /// Takes in a listing and settles each new socket's owner as its cookie.
    fn list(memory: &mut Memory, sockets: &[DiagSocket], seconds: u64) {
        memory.listed(sockets, at(seconds), KEEP);
        for live in memory.unsettled() {
            live.owner = Arc::new(Owner::executable(&live.socket.cookie.to_string()));
            live.searches = None;
        }
    }

    fn owner(memory: &Memory, socket: &DiagSocket, seconds: u64) -> Option<String> {
        let owner = memory.owner(&key_of(socket), at(seconds))?;
        owner.executable.as_deref().map(str::to_owned)
    }

    #[test]
    fn a_socket_is_remembered_for_a_while() {
        let (mut memory, connection) = (Memory::new(100), socket(7, 4000, 80));
        list(&mut memory, &[connection], 10);
        list(&mut memory, &[], 20);
        assert_eq!(owner(&memory, &connection, 12).as_deref(), Some("7"));
        // The record of its end, a while later.
        list(&mut memory, &[], 119);
        assert_eq!(owner(&memory, &connection, 118).as_deref(), Some("7"));
        list(&mut memory, &[], 121);
        assert_eq!(owner(&memory, &connection, 12), None);
        assert_eq!((memory.sizes(), memory.evicted), ((0, 0), 0));
    }

    #[test]
    fn a_port_that_found_another_owner_is_told_by_time() {
        let mut memory = Memory::new(100);
        let port = socket(1, 53, 0);
        list(&mut memory, &[port], 10);
        list(&mut memory, &[], 20);
        list(&mut memory, &[], 40);
        list(&mut memory, &[socket(2, 53, 0)], 60);
        assert_eq!(owner(&memory, &port, 15).as_deref(), Some("1"));
        assert_eq!(owner(&memory, &port, 30), None, "nobody listened then");
        assert_eq!(owner(&memory, &port, 50).as_deref(), Some("2"));
        assert_eq!(owner(&memory, &port, 500).as_deref(), Some("2"));
    }

    #[test]
    fn what_lived_before_the_first_listing_may_be_of_any_age() {
        let mut memory = Memory::new(100);
        list(&mut memory, &[socket(1, 22, 0)], 1_000);
        assert_eq!(owner(&memory, &socket(1, 22, 0), 3).as_deref(), Some("1"));
    }

    #[test]
    fn sockets_that_share_a_port_do_not_take_turns() {
        let mut memory = Memory::new(100);
        let (one, other) = (socket(1, 80, 0), socket(2, 80, 0));
        list(&mut memory, &[one, other], 10);
        list(&mut memory, &[one, other], 20);
        assert_eq!(owner(&memory, &one, 20).as_deref(), Some("1"));
        assert_eq!(memory.sizes(), (1, 0));
    }

    #[test]
    fn a_wildcard_socket_of_both_families_answers_on_both() {
        let mut memory = Memory::new(100);
        let mut both = socket(1, 80, 0);
        both.local.0 = Ipv6Addr::UNSPECIFIED.into();
        both.takes_both_families = true;
        list(&mut memory, &[both], 10);
        for address in [IpAddr::from([10, 0, 0, 1]), Ipv6Addr::LOCALHOST.into()] {
            assert!(memory.listener(Protocol::TCP, (address, 80)).is_some(), "{address}");
        }
        assert!(memory.listener(Protocol::UDP, (Ipv6Addr::LOCALHOST.into(), 80)).is_none());
    }

    #[test]
    fn the_limit_holds_and_is_counted() {
        let mut memory = Memory::new(10);
        let many: Vec<DiagSocket> = (1..=25).map(|port| socket(port.into(), port, 80)).collect();
        list(&mut memory, &many[..10], 10);
        list(&mut memory, &many[10..], 20);
        // The ten that ended are still known, which is the limit; of the new ones none has room
        // until their places are free.
        assert_eq!((memory.sizes(), memory.refused, memory.evicted), ((0, 10), 15, 0));
        list(&mut memory, &many[10..20], 30);
        list(&mut memory, &[], 40);
        assert_eq!((memory.sizes(), memory.evicted), ((0, 10), 10));
    }
}
