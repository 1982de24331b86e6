//! Live connections, as they are answered.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::PeerStatus;

/// Connections as they are now.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Connections {
    /// When the newest reading was taken, RFC 3339; absent before the first.
    pub at: Option<String>,
    /// Time between the newest reading and the one before it; absent where nothing is measured now.
    pub interval_seconds: Option<f64>,
    /// Connections that live, whatever was asked for.
    pub known: u64,
    /// Connections that ended a moment ago and are still shown, whatever was asked for.
    pub ended: u64,
    /// Connections that match, ended ones included.
    pub matching: u64,
    /// Connections of the newest reading that could not be held because there were too many.
    pub left_out: u64,
    /// Rates of all that match, both directions; absent: nothing was measured.
    pub bytes_per_second: Option<f64>,
    /// The rows asked for, in the order asked for.
    pub connections: Vec<ConnectionRow>,
    /// The other servers that were asked. Where one did not answer, what its agents see is missing.
    #[serde(default)]
    pub peers: Vec<PeerStatus>,
}

/// One connection.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ConnectionRow {
    /// Stable while the connection lives: `NODE/KEY`.
    pub id: String,
    /// Where it was observed.
    pub node: String,
    /// `tcp`, `udp`, `icmp`, …
    pub protocol: String,
    /// The kernel's state (`ESTABLISHED`, …), for datagrams `unreplied`, `replied` or `assured`;
    /// `ended` once it is over; absent where nobody knows, as with connections that nobody counts.
    pub state: Option<String>,
    /// Who opened.
    pub source: End,
    /// The real backend.
    pub destination: End,
    /// The service address dialled, where it differs from the backend: `ADDRESS:PORT`.
    pub service: Option<String>,
    /// The Kubernetes service dialled: `NAMESPACE/NAME`.
    pub service_name: Option<String>,
    /// What the source was translated to, where it was: `ADDRESS:PORT`.
    pub translated_source: Option<String>,
    /// The destination port's registered name (`https`), where it has one.
    pub port_name: Option<String>,
    /// Traffic class.
    pub class: String,
    /// When it was opened, RFC 3339; absent where the kernel does not say.
    pub start: Option<String>,
    /// How long ago that was, or how long it lived; absent where the kernel does not say.
    pub age_seconds: Option<f64>,
    /// How long ago it last moved anything; absent: it was not seen to.
    pub idle_seconds: Option<f64>,
    /// Since the connection began, source to destination; absent: nobody counted.
    pub bytes_sent: Option<u64>,
    /// Since the connection began, destination to source; absent: nobody counted.
    pub bytes_received: Option<u64>,
    /// As `bytes_sent`.
    pub packets_sent: Option<u64>,
    /// As `bytes_received`.
    pub packets_received: Option<u64>,
    /// Over the last measured interval; absent: not measured.
    pub bytes_sent_per_second: Option<f64>,
    /// Over the last measured interval; absent: not measured.
    pub bytes_received_per_second: Option<f64>,
    /// The kernel met it in mid-stream: who opened it was inferred.
    pub picked_up: bool,
}

/// One side of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct End {
    /// The stable entity id.
    pub id: String,
    /// The most specific name.
    pub name: String,
    /// What it is: `pod`, `node`, `service`, `host`, `local`, `external`, `unknown`.
    pub kind: String,
    /// The address its packets bear.
    pub address: String,
    /// Its port; absent where the protocol has none.
    pub port: Option<u16>,
    /// The machine it is on.
    pub host: Option<String>,
    /// The systemd unit whose socket it is.
    pub unit: Option<String>,
    /// The container whose socket it is.
    pub container: Option<String>,
    /// The executable whose socket it is.
    pub executable: Option<String>,
    /// The Kubernetes namespace.
    pub namespace: Option<String>,
    /// The top of its owner chain: `NAMESPACE/KIND/NAME`.
    pub workload: Option<String>,
    /// The node it is on.
    pub node: Option<String>,
    /// The availability zone.
    pub zone: Option<String>,
    /// The region.
    pub region: Option<String>,
    /// The application, as the pod's labels call it.
    pub app: Option<String>,
    /// The cloud whose address it is.
    pub cloud: Option<String>,
    /// The cloud's service whose address it is.
    pub cloud_service: Option<String>,
    /// What told whose it is.
    pub resolution: Option<String>,
    /// Why it could not be named further, where it could not.
    pub unresolved: Option<String>,
}

/// What connections can be sorted by: largest or newest first for numbers, ascending for text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ConnectionSort {
    /// Both directions' rate.
    #[default]
    Rate,
    /// Source to destination, per second.
    SentRate,
    /// Destination to source, per second.
    ReceivedRate,
    /// Bytes of both directions since the connection began.
    Bytes,
    /// Youngest first.
    Age,
    /// By protocol.
    Protocol,
    /// By the source's name, then its address and port.
    Source,
    /// By the destination's name, then its address and port.
    Destination,
    /// By the state's name.
    State,
    /// By destination port.
    Port,
}

impl ConnectionSort {
    /// All of them, in the order a person would go through them.
    pub const ALL: [Self; 10] = [
        Self::Rate,
        Self::SentRate,
        Self::ReceivedRate,
        Self::Bytes,
        Self::Age,
        Self::Protocol,
        Self::Source,
        Self::Destination,
        Self::State,
        Self::Port,
    ];

    /// The stable snake-case name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::SentRate => "sent_rate",
            Self::ReceivedRate => "received_rate",
            Self::Bytes => "bytes",
            Self::Age => "age",
            Self::Protocol => "protocol",
            Self::Source => "source",
            Self::Destination => "destination",
            Self::State => "state",
            Self::Port => "port",
        }
    }

    /// The order with this name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|sort| sort.name() == text)
    }
}

/// What moves now, summed by fields, the busiest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Rates {
    /// When the newest reading was taken, RFC 3339; absent before the first.
    pub at: Option<String>,
    /// Time between the newest reading and the one before it; absent where nothing is measured now.
    pub interval_seconds: Option<f64>,
    /// The sums.
    pub rates: Vec<RateRow>,
    /// True when the limit left rows out.
    pub more: bool,
    /// The other servers that were asked. Where one did not answer, what its agents see is missing.
    #[serde(default)]
    pub peers: Vec<PeerStatus>,
}

/// The connections of one group.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RateRow {
    /// The group: each field's value as it is written in filters; absent where the flow has no
    /// such thing.
    pub fields: BTreeMap<String, Option<String>>,
    /// Connections that live.
    pub connections: u64,
    /// Of those, connections whose bytes nobody counts.
    pub connections_uncounted: u64,
    /// Source to destination, over the last measured interval; absent: nothing was measured.
    pub bytes_sent_per_second: Option<f64>,
    /// Destination to source; absent: nothing was measured.
    pub bytes_received_per_second: Option<f64>,
}
