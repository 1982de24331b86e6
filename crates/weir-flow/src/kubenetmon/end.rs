//! One end of a row.

use std::net::Ipv4Addr;

use crate::endpoint::{Endpoint, EndpointKind, Name};

/// The label of a pod that becomes `localInstanceID` and `remoteInstanceID`. An endpoint has it
/// only where it is among the labels that are kept.
pub const INSTANCE_LABEL: &str = "control-plane-id";

/// The columns of one end, after `local` or `remote`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// `Cloud`.
    pub cloud: Option<Name>,
    /// `Region`.
    pub region: Option<Name>,
    /// `Cluster`.
    pub cluster: Option<Name>,
    /// `AvailabilityZone`.
    pub zone: Option<Name>,
    /// `Node`.
    pub node: Option<Name>,
    /// `InstanceID`.
    pub instance: Option<Name>,
    /// `Namespace`.
    pub namespace: Option<Name>,
    /// `Pod`.
    pub pod: Option<Name>,
    /// `IPv4`.
    pub address: Ipv4Addr,
    /// `Port`.
    pub port: u16,
    /// `App`.
    pub app: Option<Name>,
}

impl End {
    /// This address, and the pod's facts where it is a pod's.
    pub(super) fn of(endpoint: &Endpoint, address: Ipv4Addr, port: u16) -> Self {
        let nobody = Self {
            cloud: None,
            region: None,
            cluster: None,
            zone: None,
            node: None,
            instance: None,
            namespace: None,
            pod: None,
            address,
            port,
            app: None,
        };
        if endpoint.kind != EndpointKind::Pod {
            return nobody;
        }
        Self {
            zone: endpoint.zone.clone(),
            node: endpoint.node.clone(),
            instance: endpoint.labels.as_deref().and_then(instance),
            namespace: endpoint.namespace.clone(),
            pod: endpoint.pod.clone(),
            app: endpoint.app.clone(),
            ..nobody
        }
    }
}

/// The instance among labels as an endpoint has them: `key=value,key=value`.
fn instance(labels: &str) -> Option<Name> {
    let mut pairs = labels.split(',').filter_map(|pair| pair.split_once('='));
    pairs.find(|(key, _)| *key == INSTANCE_LABEL).map(|(_, value)| Name::from(value))
}
