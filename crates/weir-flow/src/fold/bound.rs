//! A limit on the external endpoints of one batch.

use std::net::IpAddr;

use hashbrown::{HashMap, HashSet};

use crate::endpoint::{Endpoint, EndpointKind};

use super::folder::Endpoints;
use super::{FlowKey, Measures};

/// For each endpoint the index of the one that stands for it, and how many stand for others.
///
/// The `limit` external endpoints with the most bytes stay exact (of equal ones the lowest
/// address). The rest becomes its network: the /24 or /48 with the network's address. Of these
/// networks, again, the `limit` largest stay, and what remains becomes the unspecified address of
/// its family.
pub(super) fn representatives(
    endpoints: &mut Endpoints,
    flows: &HashMap<FlowKey, Measures>,
    limit: usize,
) -> (Vec<u32>, u64) {
    let count = endpoints.list.len();
    let mut representatives: Vec<u32> = (0..index(count)).collect();
    // Whoever is scanned inside the cluster is unknown, and as many.
    let strangers = [EndpointKind::External, EndpointKind::Unknown];
    let external = |endpoint: &Endpoint| strangers.contains(&endpoint.kind);
    let mut ranked: Vec<u32> =
        (0..index(count)).filter(|&index| external(&endpoints.list[index as usize])).collect();
    if ranked.len() <= limit {
        return (representatives, 0);
    }
    let bytes = bytes_by_endpoint(flows, count);
    ranked.sort_unstable_by(|&a, &b| {
        let order = bytes[b as usize].cmp(&bytes[a as usize]);
        order.then_with(|| endpoints.list[a as usize].cmp(&endpoints.list[b as usize]))
    });
    let folded = ranked.split_off(limit);

    let mut networks: HashMap<IpAddr, u64> = HashMap::new();
    for &index in &folded {
        let network = network(endpoints.list[index as usize].address);
        let sum = networks.entry(network).or_default();
        *sum = sum.saturating_add(bytes[index as usize]);
    }
    let kept = largest(&networks, limit);
    for &index in &folded {
        let network = network(endpoints.list[index as usize].address);
        let address = if kept.contains(&network) { network } else { unspecified(network) };
        representatives[index as usize] =
            endpoints.intern_value(Endpoint::bare(EndpointKind::External, address));
    }
    (representatives, folded.len() as u64)
}

fn bytes_by_endpoint(flows: &HashMap<FlowKey, Measures>, count: usize) -> Vec<u64> {
    let mut bytes = vec![0_u64; count];
    for (key, measures) in flows {
        let sum = measures.bytes_sent.saturating_add(measures.bytes_received);
        for endpoint in [key.source, key.destination] {
            let total = &mut bytes[endpoint as usize];
            *total = total.saturating_add(sum);
        }
    }
    bytes
}

fn largest(networks: &HashMap<IpAddr, u64>, limit: usize) -> HashSet<IpAddr> {
    let mut ranked: Vec<(&IpAddr, &u64)> = networks.iter().collect();
    ranked.sort_unstable_by(|a, b| b.1.cmp(a.1).then_with(|| a.0.cmp(b.0)));
    ranked.into_iter().take(limit).map(|(network, _)| *network).collect()
}

fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(v4) => IpAddr::V4((v4.to_bits() & (u32::MAX << 8)).into()),
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & (u128::MAX << 80)).into()),
    }
}

fn unspecified(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => IpAddr::V4(0.into()),
        IpAddr::V6(_) => IpAddr::V6(0.into()),
    }
}

fn index(count: usize) -> u32 {
    u32::try_from(count).expect("a batch has fewer than 2^32 endpoints")
}
