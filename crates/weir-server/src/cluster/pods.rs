//! What a pod's object tells of its addresses: whose, since when, until when.
//!
//! The API's times are whole seconds, cut off, by the clock of whoever wrote them; the server sees
//! each change a little after it happened. So both ends of a holding are bounds.

use std::net::IpAddr;

use weir_flow::WallTime;
use weir_flow::cluster::Bounds;
use weir_flow::time::SECOND;

use super::lenient::NumberOrName;
use super::objects::{Container, ContainerStatus, Object, Pods, Probe, Ran, second, time};

/// Ports at which a pod may be probed.
const PROBE_PORTS: usize = 16;
/// Addresses a pod may have: one of each family today.
const ADDRESSES: usize = 8;

/// All its addresses.
pub(super) fn addresses(pod: &Object<Pods>) -> Vec<IpAddr> {
    let listed = pod.status.pod_ips.items().iter().map(|ip| &ip.0.ip);
    let mut addresses = Vec::new();
    for text in listed.chain([&pod.status.pod_ip]).filter_map(|text| text.text()) {
        let Ok(address) = text.parse::<IpAddr>() else { continue };
        if !addresses.contains(&address) && addresses.len() < ADDRESSES {
            addresses.push(address);
        }
    }
    addresses
}

/// When it got its addresses, as they were first seen at `seen`.
pub(super) fn began(pod: &Object<Pods>, seen: WallTime) -> Bounds {
    // The kubelet takes note of a pod before it asks for an address ...
    let earliest = time(&pod.status.start_time).or_else(|| pod.metadata.created());
    // ... has one when the sandbox is ready, and starts containers after that.
    let ready = pod.status.conditions.items().iter().map(|condition| &condition.0).find(|it| {
        it.r#type.text() == Some("PodReadyToStartContainers") && it.status.text() == Some("True")
    });
    let ready = ready.and_then(|condition| time(&condition.last_transition_time));
    let latest = runs(pod).filter_map(|ran| time(&ran.started_at)).chain(ready).min();
    let latest = latest.map_or(seen, |latest| second(latest).latest.min(seen));
    Bounds { earliest: earliest.unwrap_or(WallTime(0)).min(latest), latest }
}

/// When it ended, where it has: what has finished for good gives its addresses back though it is
/// still listed.
pub(super) fn ended(pod: &Object<Pods>, began: Bounds, now: WallTime) -> Option<Bounds> {
    if !matches!(pod.status.phase.text(), Some("Succeeded" | "Failed")) {
        return None;
    }
    Some(match finished(pod) {
        // The kubelet's clock may run ahead of ours; it has ended by now all the same.
        Some(last) => {
            let Bounds { earliest, latest } = second(last);
            not_before(Bounds { earliest: earliest.min(now), latest: latest.min(now) }, began)
        }
        None => gone(pod, began, now),
    })
}

/// When it let go of its addresses, where it was seen to be deleted at `now`.
pub(super) fn gone(pod: &Object<Pods>, began: Bounds, now: WallTime) -> Bounds {
    let earliest = finished(pod).or_else(|| pod.metadata.deletion_asked());
    let earliest = earliest.unwrap_or(began.latest).min(now);
    not_before(Bounds { earliest, latest: now }, began)
}

/// An end lies after the beginning, whatever clocks say.
fn not_before(end: Bounds, began: Bounds) -> Bounds {
    let earliest = end.earliest.max(began.earliest);
    Bounds { earliest, latest: end.latest.max(earliest) }
}

/// When its last container finished, where all have and say so.
fn finished(pod: &Object<Pods>) -> Option<WallTime> {
    let statuses = pod.status.container_statuses.items();
    let mut last = None;
    for status in statuses {
        let terminated = status.0.state.fields().and_then(|state| state.terminated.fields())?;
        last = last.max(Some(time(&terminated.finished_at)?));
    }
    last
}

/// Every run of a container that the object knows of.
fn runs(pod: &Object<Pods>) -> impl Iterator<Item = &Ran> {
    let status = &pod.status;
    let statuses = status.container_statuses.items().iter();
    statuses.chain(status.init_container_statuses.items()).flat_map(|status| {
        let ContainerStatus { state, last_state } = &status.0;
        let states = [state, last_state].into_iter().filter_map(|state| state.fields());
        states.flat_map(|state| [state.running.fields(), state.terminated.fields()]).flatten()
    })
}

/// The ports at which the kubelet probes it.
pub(super) fn probe_ports(pod: &Object<Pods>) -> Vec<u16> {
    let spec = &pod.spec;
    let containers = spec.containers.items().iter().chain(spec.init_containers.items());
    let mut ports: Vec<u16> = containers.flat_map(|container| probed(&container.0)).collect();
    ports.sort_unstable();
    ports.dedup();
    ports.truncate(PROBE_PORTS);
    ports
}

fn probed(container: &Container) -> impl Iterator<Item = u16> {
    let Container { ports, liveness_probe, readiness_probe, startup_probe } = container;
    let probes = [liveness_probe, readiness_probe, startup_probe];
    let ways = probes.into_iter().filter_map(|probe| probe.fields()).flat_map(|probe| {
        let Probe { http_get, tcp_socket, grpc } = probe;
        [http_get, tcp_socket, grpc].into_iter().filter_map(|way| way.fields())
    });
    ways.filter_map(|way| match way.port.get()? {
        NumberOrName::Number(port) => u16::try_from(*port).ok(),
        NumberOrName::Name(name) => ports
            .items()
            .iter()
            .find(|port| port.0.name.text() == Some(name))
            .and_then(|port| u16::try_from(*port.0.container_port.get()?).ok()),
    })
}

/// When something ended that was there at `known` and is not any more at `now`.
pub(super) fn vanished(known: WallTime, now: WallTime) -> Bounds {
    // What the API said of itself at a time may have been a second old.
    Bounds::between(WallTime(known.0.saturating_sub(SECOND)), now)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(status: &Value, metadata: &Value) -> Object<Pods> {
        serde_json::from_value(json!({ "metadata": metadata, "status": status })).unwrap()
    }

    /// Seconds after 2026-11-21T10:00:00Z.
    fn at(seconds: f64) -> WallTime {
        let nanos = std::time::Duration::from_secs_f64(seconds).as_nanos();
        WallTime(1_795_255_200 * SECOND + u64::try_from(nanos).unwrap())
    }

    fn stamp(second: u64) -> String {
        format!("2026-11-21T10:00:{second:02}Z")
    }

    fn seconds(bounds: Bounds) -> (f64, f64) {
        let of = |time: WallTime| {
            let nanos = time.0.saturating_sub(at(0.0).0);
            (std::time::Duration::from_nanos(nanos).as_secs_f64() * 10.0).round() / 10.0
        };
        (of(bounds.earliest), of(bounds.latest))
    }

    #[test]
    fn the_beginning_lies_between_the_start_and_the_first_container() {
        let began = |status: Value, seen: f64| seconds(began(&pod(&status, &json!({})), at(seen)));
        let running = |second| json!({ "state": { "running": { "startedAt": stamp(second) } } });
        let started = json!({ "startTime": stamp(3), "containerStatuses": [running(5)] });
        assert_eq!(began(started.clone(), 60.0), (3.0, 6.0));
        // Seen before the second is over.
        assert_eq!(began(started, 5.5), (3.0, 5.5));
        // A container that was restarted knows when it ran before.
        let again = json!({ "startTime": stamp(3), "containerStatuses": [
            { "state": { "running": { "startedAt": stamp(40) } },
              "lastState": { "terminated": { "startedAt": stamp(4), "finishedAt": stamp(30) } } },
        ] });
        assert_eq!(began(again, 60.0), (3.0, 5.0));
        let ready = json!({ "startTime": stamp(3), "containerStatuses": [running(40)],
            "conditions": [{ "type": "PodReadyToStartContainers", "status": "True",
                             "lastTransitionTime": stamp(4) }] });
        assert_eq!(began(ready, 60.0), (3.0, 5.0));
        assert_eq!(began(json!({ "startTime": stamp(3) }), 60.0), (3.0, 60.0));
        let (_, latest) = began(json!({ "startTime": "yesterday" }), 1.0);
        assert!((latest - 1.0).abs() < 0.1);
    }

    #[test]
    fn what_finished_has_ended_and_what_only_crashed_has_not() {
        let finished = |phase: &str| {
            json!({ "phase": phase, "startTime": stamp(1), "containerStatuses": [
                { "state": { "terminated": { "finishedAt": stamp(7) } } },
                { "state": { "terminated": { "finishedAt": stamp(9) } } },
            ] })
        };
        let ended = |status: &Value| {
            let pod = pod(status, &json!({}));
            ended(&pod, began(&pod, at(50.0)), at(50.0)).map(seconds)
        };
        for phase in ["Succeeded", "Failed"] {
            assert_eq!(ended(&finished(phase)), Some((9.0, 10.0)), "{phase}");
        }
        assert_eq!(ended(&finished("Running")), None);
        // Nobody says when.
        let evicted = json!({ "phase": "Failed", "startTime": stamp(1) });
        assert_eq!(ended(&evicted), Some((50.0, 50.0)));
    }

    #[test]
    fn a_deleted_pod_ends_between_its_last_container_and_now() {
        let gone = |status: Value, metadata: Value| {
            let pod = pod(&status, &metadata);
            seconds(gone(&pod, began(&pod, at(20.0)), at(50.0)))
        };
        let start = json!({ "startTime": stamp(1) });
        let deletion = json!({ "deletionTimestamp": stamp(40), "deletionGracePeriodSeconds": 30 });
        assert_eq!(gone(start.clone(), deletion.clone()), (10.0, 50.0));
        let finished = json!({ "startTime": stamp(1), "containerStatuses": [
            { "state": { "terminated": { "startedAt": stamp(2), "finishedAt": stamp(12) } } },
        ] });
        assert_eq!(gone(finished, deletion), (12.0, 50.0));
        assert_eq!(gone(start, json!({})), (20.0, 50.0));
    }

    #[test]
    fn probes_name_ports_by_number_or_name() {
        let pod: Object<Pods> = serde_json::from_value(json!({ "spec": {
            "containers": [{
                "ports": [{ "name": "http", "containerPort": 8080 }, { "containerPort": "x" }],
                "livenessProbe": { "httpGet": { "port": "http" } },
                "readinessProbe": { "tcpSocket": { "port": 9090 } },
                "startupProbe": { "grpc": { "port": 99999 }, "exec": { "command": ["true"] } },
            }, { "livenessProbe": { "httpGet": { "port": "unknown" } } }],
            "initContainers": [{ "readinessProbe": { "grpc": { "port": 7 } } }],
        } }))
        .unwrap();
        assert_eq!(probe_ports(&pod), [7, 8080, 9090]);
    }

    #[test]
    fn addresses_come_once_each() {
        let status = json!({ "podIP": "10.0.0.1", "podIPs": [
            { "ip": "10.0.0.1" }, { "ip": "fd00::1" }, { "ip": "none" }, {}, 5,
        ] });
        let expected: [IpAddr; 2] = ["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
        assert_eq!(addresses(&pod(&status, &json!({}))), expected);
        assert!(addresses(&pod(&json!({ "podIPs": "10.0.0.1" }), &json!({}))).is_empty());
    }
}
