//! Objects as a cluster has them, as short as they can be written.

use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

/// A node in a zone of a region.
pub fn node(name: &str, addresses: &[IpAddr], pod_networks: &[&str], zone: &str) -> Value {
    let region = zone.trim_end_matches(|last: char| last.is_ascii_lowercase());
    let addresses: Vec<Value> = addresses
        .iter()
        .map(|address| json!({ "type": "InternalIP", "address": address.to_string() }))
        .chain([json!({ "type": "Hostname", "address": name })])
        .collect();
    json!({
        "kind": "Node",
        "metadata": { "name": name, "labels": {
            "kubernetes.io/hostname": name,
            "topology.kubernetes.io/zone": zone,
            "topology.kubernetes.io/region": region,
        } },
        "spec": { "podCIDRs": pod_networks, "podCIDR": pod_networks.first() },
        "status": { "addresses": addresses,
            "conditions": [{ "type": "Ready", "status": "True" }] },
    })
}

/// A pod that runs on a node since `started`. Everything else may be set on the result.
pub fn pod(
    namespace: &str,
    name: &str,
    node: &str,
    addresses: &[IpAddr],
    started: SystemTime,
) -> Value {
    let started = timestamp(started);
    let ips: Vec<Value> =
        addresses.iter().map(|address| json!({ "ip": address.to_string() })).collect();
    json!({
        "kind": "Pod",
        "metadata": { "namespace": namespace, "name": name, "labels": {},
            "creationTimestamp": started },
        "spec": { "nodeName": node, "containers": [{ "name": "main", "image": "lab" }] },
        "status": { "phase": "Running", "startTime": started,
            "podIP": ips.first().map(|first| first["ip"].clone()), "podIPs": ips,
            "containerStatuses": [{ "name": "main", "ready": true,
                "state": { "running": { "startedAt": started } } }] },
    })
}

/// A service with one TCP port.
pub fn service(namespace: &str, name: &str, addresses: &[IpAddr], port: u16) -> Value {
    let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    json!({
        "kind": "Service",
        "metadata": { "namespace": namespace, "name": name },
        "spec": { "type": "ClusterIP", "clusterIP": addresses.first(), "clusterIPs": addresses,
            "ports": [{ "port": port, "protocol": "TCP" }] },
        "status": { "loadBalancer": {} },
    })
}

/// A `ReplicaSet` or `Job`, made by its controller where that is named by kind, name and uid.
pub fn workload(
    kind: &str,
    namespace: &str,
    name: &str,
    uid: &str,
    controller: Option<(&str, &str, &str)>,
) -> Value {
    let owners: Vec<Value> = controller
        .into_iter()
        .map(|(kind, name, uid)| {
            json!({ "apiVersion": "apps/v1", "kind": kind, "name": name, "uid": uid,
                "controller": true })
        })
        .collect();
    json!({
        "kind": kind,
        "metadata": { "namespace": namespace, "name": name, "uid": uid,
            "ownerReferences": owners },
        "spec": {},
    })
}

/// A time as objects have it: whole seconds, UTC.
pub fn timestamp(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Eras of 400 years that begin with March, so that the leap day is a year's last.
    let shifted = days + 719_468;
    let (era, day) = (shifted / 146_097, shifted % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (month, day, next) = (
        if month < 10 { month + 3 } else { month - 9 },
        day - (153 * month + 2) / 5 + 1,
        month >= 10,
    );
    let year = year + era * 400 + u64::from(next);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_795_091_020, "2026-11-19T12:23:40Z"),
            (1_798_761_599, "2026-12-31T23:59:59Z"),
        ] {
            assert_eq!(timestamp(UNIX_EPOCH + Duration::from_secs(seconds)), text);
        }
    }
}
