//! Which service was dialled: virtual addresses and node ports, as of a time.

use std::net::IpAddr;
use std::sync::Arc;

use hashbrown::HashMap;

use crate::endpoint::{Endpoint, EndpointKind, Name, Resolution};
use crate::time::WallTime;
use crate::tuple::Protocol;

use super::networks::Key;
use super::told::ServiceFacts;

/// Services that may share an address or a node port, past ones included.
const SHARING_LIMIT: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Services {
    known: HashMap<Name, Service>,
    by_address: HashMap<Key, Vec<Part>>,
    by_node_port: HashMap<(Protocol, u16), Vec<Part>>,
}

#[derive(Debug)]
struct Service {
    addresses: Vec<Key>,
    node_ports: Vec<(Protocol, u16)>,
}

/// A service's part in an address or a node port.
#[derive(Debug)]
struct Part {
    /// `NAMESPACE/NAME`.
    service: Name,
    endpoint: Arc<Endpoint>,
    ports: Arc<[(Protocol, u16)]>,
    from: WallTime,
    to: Option<WallTime>,
}

impl Part {
    fn at(&self, at: WallTime) -> bool {
        self.from <= at && self.to.is_none_or(|to| at <= to)
    }
}

impl Services {
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    pub(super) fn knows(&self, facts: &ServiceFacts) -> bool {
        self.known.contains_key(&*qualified(&facts.namespace, &facts.name))
    }

    /// Takes in a service as it is now.
    pub(super) fn put(&mut self, facts: &ServiceFacts) {
        let service = Name::from(qualified(&facts.namespace, &facts.name));
        self.drop_open_parts(&service);
        let ports: Arc<[(Protocol, u16)]> = facts.ports.as_slice().into();
        let part = |address: IpAddr| Part {
            service: Name::clone(&service),
            endpoint: Arc::new(Endpoint {
                namespace: Some(Name::clone(&facts.namespace)),
                service: Some(Name::clone(&facts.name)),
                resolution: Some(Resolution::ServiceAddress),
                ..Endpoint::bare(EndpointKind::Service, address)
            }),
            ports: Arc::clone(&ports),
            from: facts.since,
            to: None,
        };
        let addresses: Vec<Key> = facts.addresses.iter().map(|address| Key::of(*address)).collect();
        for key in &addresses {
            push(self.by_address.entry(*key).or_default(), part(key.address()));
        }
        for port in &facts.node_ports {
            let unspecified = IpAddr::from([0; 4]);
            push(self.by_node_port.entry(*port).or_default(), part(unspecified));
        }
        let node_ports = facts.node_ports.clone();
        self.known.insert(service, Service { addresses, node_ports });
    }

    /// A service is no more; what was dialled before is still its own.
    pub(super) fn end(&mut self, namespace: &str, name: &str, at: WallTime) {
        let service = qualified(namespace, name);
        let Some(known) = self.known.remove(&*service) else { return };
        for key in &known.addresses {
            end(self.by_address.get_mut(key), &service, at);
        }
        for port in &known.node_ports {
            end(self.by_node_port.get_mut(port), &service, at);
        }
    }

    pub(super) fn forget_before(&mut self, horizon: WallTime) {
        let lasts = |part: &Part| part.to.is_none_or(|to| to >= horizon);
        let keep = |parts: &mut Vec<Part>| {
            parts.retain(lasts);
            !parts.is_empty()
        };
        self.by_address.retain(|_, parts| keep(parts));
        self.by_node_port.retain(|_, parts| keep(parts));
    }

    /// The name of the service dialled at this virtual address.
    pub(super) fn dialled(&self, key: Key, port: (Protocol, u16), at: WallTime) -> Option<&Name> {
        self.part(key, port, at).map(|part| &part.service)
    }

    /// The name of the service that has this port on every node.
    pub(super) fn at_node_port(&self, port: (Protocol, u16), at: WallTime) -> Option<&Name> {
        let parts = self.by_node_port.get(&port)?;
        parts.iter().rev().find(|part| part.at(at)).map(|part| &part.service)
    }

    /// The endpoint that a virtual address is where its backend is not known.
    pub(super) fn endpoint(
        &self,
        key: Key,
        port: (Protocol, u16),
        at: WallTime,
    ) -> Option<&Arc<Endpoint>> {
        self.part(key, port, at).map(|part| &part.endpoint)
    }

    /// Whether the address was some service's.
    pub(super) fn has(&self, key: Key, at: WallTime) -> bool {
        self.by_address.get(&key).is_some_and(|parts| parts.iter().any(|part| part.at(at)))
    }

    /// Services may share a load balancer's address: the port tells which.
    fn part(&self, key: Key, port: (Protocol, u16), at: WallTime) -> Option<&Part> {
        let parts = self.by_address.get(&key)?;
        let mut then = parts.iter().rev().filter(|part| part.at(at));
        let first = then.next()?;
        let mut others = then.peekable();
        if others.peek().is_none() {
            return Some(first);
        }
        [first].into_iter().chain(others).find(|part| part.ports.contains(&port))
    }

    fn drop_open_parts(&mut self, service: &Name) {
        let Some(known) = self.known.remove(service) else { return };
        let past = |part: &Part| part.service != *service || part.to.is_some();
        for key in known.addresses {
            if let Some(parts) = self.by_address.get_mut(&key) {
                parts.retain(past);
            }
        }
        for port in known.node_ports {
            if let Some(parts) = self.by_node_port.get_mut(&port) {
                parts.retain(past);
            }
        }
    }
}

fn qualified(namespace: &str, name: &str) -> String {
    format!("{namespace}/{name}")
}

fn push(parts: &mut Vec<Part>, part: Part) {
    if parts.len() >= SHARING_LIMIT {
        parts.remove(0);
    }
    parts.reserve_exact(1);
    parts.push(part);
}

fn end(parts: Option<&mut Vec<Part>>, service: &str, at: WallTime) {
    for part in
        parts.into_iter().flatten().filter(|part| &*part.service == service && part.to.is_none())
    {
        part.to = Some(at);
    }
}
