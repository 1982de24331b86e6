//! A scenario's objects as its Kubernetes API serves them.

use std::time::SystemTime;

use serde_json::{Value, json};

use crate::error::LabError;
use crate::kube::{self, Api, TokenIdentity};
use crate::scenario::{Pod, Scenario, Service};

/// The namespace that weir itself is in.
pub(super) const NAMESPACE: &str = "weir";
/// The account of its agents.
pub(super) const ACCOUNT: &str = "weir-agent";
/// What its agents' pods are told by.
pub(super) const SELECTOR: &str = "app=weir-agent";
/// Whom agents' tokens are for.
pub(super) const AUDIENCE: &str = "weir";

/// Puts everything a scenario has into the API.
pub(super) fn publish(api: &Api, scenario: &Scenario) -> Result<(), LabError> {
    let now = SystemTime::now();
    for (index, node) in scenario.nodes.iter().enumerate() {
        let networks: Vec<String> = node
            .pod_networks
            .iter()
            .map(|network| format!("{}/{}", network.base(), network.prefix))
            .collect();
        let networks: Vec<&str> = networks.iter().map(String::as_str).collect();
        let zone = node.zone.as_deref().unwrap_or_default();
        let mut object = kube::node(&node.name, &node.uplinks, &networks, zone);
        let labels = &mut object["metadata"]["labels"];
        labels["topology.kubernetes.io/region"] = json!(node.region);
        labels["node.kubernetes.io/instance-type"] = json!(node.instance);
        if node.zone.is_none() {
            labels["topology.kubernetes.io/zone"] = Value::Null;
        }
        drop_nulls(labels);
        api.put(object)?;
        api.put(agent_pod(scenario, index, now))?;
    }
    for pod in &scenario.pods {
        publish_pod(api, scenario, pod, now)?;
    }
    for service in &scenario.services {
        publish_service(api, scenario, service)?;
    }
    Ok(())
}

/// The name of the pod that a node's agent is.
pub(super) fn agent_name(node: &str) -> String {
    format!("weir-agent-{node}")
}

/// Whom a node's agent's token stands for.
pub(super) fn agent_identity(node: &str) -> TokenIdentity {
    TokenIdentity {
        username: format!("system:serviceaccount:{NAMESPACE}:{ACCOUNT}"),
        audiences: vec![AUDIENCE.to_owned()],
        node: Some(node.to_owned()),
        pod: Some((agent_name(node), uid(&agent_name(node)))),
        expires: None,
    }
}

/// Whom the servers' token stands for.
pub(super) fn server_identity() -> TokenIdentity {
    TokenIdentity {
        username: format!("system:serviceaccount:{NAMESPACE}:weir-server"),
        audiences: vec![AUDIENCE.to_owned()],
        node: None,
        pod: None,
        expires: None,
    }
}

fn agent_pod(scenario: &Scenario, node: usize, now: SystemTime) -> Value {
    let node = &scenario.nodes[node];
    let name = agent_name(&node.name);
    let mut object = kube::pod(NAMESPACE, &name, &node.name, &node.uplinks, now);
    object["metadata"]["uid"] = json!(uid(&name));
    object["metadata"]["labels"] = json!({ "app": "weir-agent" });
    object["metadata"]["ownerReferences"] = owner("apps/v1", "DaemonSet", "weir-agent");
    object["spec"]["hostNetwork"] = json!(true);
    object["spec"]["serviceAccountName"] = json!(ACCOUNT);
    object
}

fn publish_pod(api: &Api, scenario: &Scenario, pod: &Pod, now: SystemTime) -> Result<(), LabError> {
    let node = &scenario.nodes[pod.node].name;
    let mut object = kube::pod(&pod.namespace, &pod.name, node, &pod.addresses, now);
    object["metadata"]["uid"] = json!(uid(&pod.name));
    object["spec"]["hostNetwork"] = json!(pod.host_network);
    if let Some(of) = &pod.workload {
        object["metadata"]["labels"] = json!({ "app": of.name, "app.kubernetes.io/name": of.name });
        // Two of the kinds own their pods through an object between.
        let (between, kind, api_version) = match of.kind.as_str() {
            "Deployment" => (Some("ReplicaSet"), "ReplicaSet", "apps/v1"),
            "CronJob" => (Some("Job"), "Job", "batch/v1"),
            "Job" => (None, "Job", "batch/v1"),
            other => (None, other, "apps/v1"),
        };
        let name = match between {
            Some("ReplicaSet") => format!("{}-5d4f8c7b9", of.name),
            Some(_) => format!("{}-29431680", of.name),
            None => of.name.clone(),
        };
        if let Some(between) = between {
            let controller = (of.kind.as_str(), of.name.as_str(), &*uid(&of.name));
            api.put(kube::workload(between, &pod.namespace, &name, &uid(&name), Some(controller)))?;
        } else if of.kind == "Job" {
            api.put(kube::workload("Job", &pod.namespace, &name, &uid(&name), None))?;
        }
        object["metadata"]["ownerReferences"] = owner(api_version, kind, &name);
    }
    api.put(object)
}

fn publish_service(api: &Api, scenario: &Scenario, service: &Service) -> Result<(), LabError> {
    let Service { name, namespace, addresses, port, .. } = service;
    let protocol = service.protocol.to_string().to_uppercase();
    let mut object = kube::service(namespace, name, addresses, *port);
    let spec = &mut object["spec"];
    spec["ports"] = json!([{ "port": port, "protocol": protocol, "nodePort": service.node_port }]);
    drop_nulls(&mut spec["ports"][0]);
    let is_balanced = !service.load_balancer.is_empty();
    if is_balanced || service.node_port.is_some() {
        spec["type"] = json!(if is_balanced { "LoadBalancer" } else { "NodePort" });
        spec["externalTrafficPolicy"] = json!(if service.local { "Local" } else { "Cluster" });
    }
    let ingress: Vec<Value> =
        service.load_balancer.iter().map(|address| json!({ "ip": address.to_string() })).collect();
    object["status"] = json!({ "loadBalancer": { "ingress": ingress } });
    api.put(object)?;
    for (kind, four) in [("IPv4", true), ("IPv6", false)] {
        let mut endpoints: Vec<Value> = Vec::new();
        for (pod, _) in &service.backends {
            let pod = &scenario.pods[*pod];
            let own = pod.addresses.iter().filter(|address| address.is_ipv4() == four);
            let own: Vec<String> = own.map(ToString::to_string).collect();
            if !own.is_empty() {
                endpoints.push(json!({ "addresses": own, "conditions": { "ready": true },
                    "nodeName": scenario.nodes[pod.node].name,
                    "targetRef": { "kind": "Pod", "name": pod.name, "namespace": pod.namespace } }));
            }
        }
        let port = service.backends.first().map(|(_, port)| *port);
        api.put(json!({
            "kind": "EndpointSlice", "addressType": kind,
            "metadata": { "namespace": namespace, "name": format!("{name}-{}", kind.to_lowercase()),
                "labels": { "kubernetes.io/service-name": name } },
            "endpoints": endpoints,
            "ports": [{ "port": port, "protocol": protocol }],
        }))?;
    }
    Ok(())
}

fn owner(api_version: &str, kind: &str, name: &str) -> Value {
    json!([{ "apiVersion": api_version, "kind": kind, "name": name, "uid": uid(name),
        "controller": true }])
}

/// A uid that follows from a name, so that objects which name each other agree.
pub(super) fn uid(name: &str) -> String {
    let hash = |seed: u64| {
        name.bytes().fold(0xcbf2_9ce4_8422_2325 ^ seed, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        })
    };
    let (one, two) = (hash(0), hash(0x5bd1_e995));
    format!(
        "{:08x}-{:04x}-4{:03x}-8{:03x}-{:012x}",
        one >> 32,
        (one >> 16) & 0xffff,
        one & 0xfff,
        two >> 52,
        two & 0xffff_ffff_ffff
    )
}

fn drop_nulls(object: &mut Value) {
    if let Some(map) = object.as_object_mut() {
        map.retain(|_, value| !value.is_null());
    }
}
