//! The scenario file as it is written.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::de::{self, Deserialize, Deserializer, Visitor};
use toml::Spanned;

use super::{Pattern, Range, Setup, Span, Store, Token, TrafficProtocol, Transport};

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) name: String,
    #[serde(default = "a_minute")]
    pub(super) duration: Spanned<Time>,
    #[serde(default)]
    pub(super) seed: u64,
    #[serde(default)]
    pub(super) sysctl: BTreeMap<Spanned<String>, i64>,
    #[serde(default)]
    pub(super) node: Vec<Spanned<Node>>,
    #[serde(default)]
    pub(super) pod: Vec<Pod>,
    #[serde(default)]
    pub(super) service: Vec<Service>,
    #[serde(default)]
    pub(super) outside: Vec<Outside>,
    #[serde(default)]
    pub(super) traffic: Vec<Spanned<Traffic>>,
    #[serde(default)]
    pub(super) action: Vec<Action>,
    #[serde(default)]
    pub(super) transport: Transport,
    pub(super) churn: Option<Spanned<Churn>>,
    #[serde(default)]
    pub(super) imposter: Vec<Imposter>,
    pub(super) weir: Option<Spanned<Weir>>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Weir {
    #[serde(default)]
    pub(super) store: Store,
    pub(super) servers: Option<usize>,
    #[serde(default)]
    pub(super) kubenetmon: bool,
    pub(super) cloud: Option<String>,
}

impl Weir {
    pub(super) fn setup(&self) -> Setup {
        let Self { store, servers, kubenetmon, cloud } = self;
        let servers = servers.unwrap_or(1);
        Setup { store: *store, servers, kubenetmon: *kubenetmon, cloud: cloud.clone() }
    }
}

fn a_minute() -> Spanned<Time> {
    Spanned::new(0..0, Time(Duration::from_mins(1)))
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Node {
    pub(super) name: Spanned<String>,
    pub(super) pod_networks: Vec<Spanned<String>>,
    #[serde(default)]
    pub(super) uplinks: Vec<Spanned<String>>,
    #[serde(default = "yes")]
    pub(super) masquerade: bool,
    #[serde(default)]
    pub(super) masquerade_services: bool,
    pub(super) zone: Option<Spanned<String>>,
    pub(super) region: Option<Spanned<String>>,
    pub(super) instance: Option<String>,
}

fn yes() -> bool {
    true
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Pod {
    pub(super) name: Spanned<String>,
    pub(super) node: Option<Spanned<String>>,
    pub(super) addresses: Option<Spanned<Vec<Spanned<String>>>>,
    pub(super) namespace: Option<Spanned<String>>,
    pub(super) workload: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) host_network: bool,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Service {
    pub(super) name: Spanned<String>,
    pub(super) addresses: Spanned<Vec<Spanned<String>>>,
    pub(super) port: Spanned<u16>,
    #[serde(default = "tcp")]
    pub(super) protocol: Spanned<TrafficProtocol>,
    pub(super) backends: Spanned<Vec<Spanned<String>>>,
    pub(super) namespace: Option<Spanned<String>>,
    pub(super) node_port: Option<Spanned<u16>>,
    pub(super) load_balancer: Option<Spanned<Vec<Spanned<String>>>>,
    #[serde(default)]
    pub(super) external_traffic_policy: Policy,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Policy {
    #[default]
    Cluster,
    Local,
}

fn tcp() -> Spanned<TrafficProtocol> {
    Spanned::new(0..0, TrafficProtocol::Tcp)
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Outside {
    pub(super) name: Spanned<String>,
    pub(super) addresses: Spanned<Vec<Spanned<String>>>,
    pub(super) range: Option<Range>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Traffic {
    pub(super) from: Spanned<String>,
    pub(super) to: Spanned<String>,
    pub(super) port: Option<Spanned<u16>>,
    pub(super) protocol: Spanned<TrafficProtocol>,
    #[serde(default)]
    pub(super) family: Families,
    pub(super) connections: Spanned<u32>,
    pub(super) concurrency: Option<Spanned<u32>>,
    #[serde(default)]
    pub(super) start: Option<Spanned<Time>>,
    pub(super) within: Option<Spanned<Time>>,
    pub(super) request_bytes: Spanned<OneOrTwo<u64>>,
    pub(super) response_bytes: Option<Spanned<OneOrTwo<u64>>>,
    pub(super) life: Spanned<OneOrTwo<Time>>,
    #[serde(default)]
    pub(super) pattern: Pattern,
    pub(super) source_ports: Option<Spanned<OneOrTwo<u16>>>,
    #[serde(default)]
    pub(super) reuse_ports: bool,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Action {
    pub(super) at: Spanned<Time>,
    #[serde(rename = "do")]
    pub(super) what: What,
    pub(super) node: Option<Spanned<String>>,
    pub(super) down: Option<Spanned<Time>>,
}

#[derive(Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum What {
    FlushConntrack,
    KillAgent,
    CutAgent,
    CutConnections,
    KillServer,
    StopServer,
    CutEngine,
    KillEngine,
    KillServerUnanswered,
    RaceServers,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Churn {
    pub(super) node: Spanned<String>,
    pub(super) address: Spanned<String>,
    pub(super) pods: Spanned<u32>,
    pub(super) life: Spanned<OneOrTwo<Time>>,
    pub(super) peer: Spanned<String>,
    #[serde(default = "yes")]
    pub(super) deletes: bool,
    pub(super) unnamed_percent: u8,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Imposter {
    pub(super) node: Spanned<String>,
    pub(super) token: Token,
}

/// Families of traffic: `4`, `6` or `"both"`.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Families {
    Four,
    Six,
    #[default]
    Both,
}

impl<'de> Deserialize<'de> for Families {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FamiliesVisitor;
        impl Visitor<'_> for FamiliesVisitor {
            type Value = Families;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("4, 6 or \"both\"")
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Families, E> {
                match number {
                    4 => Ok(Families::Four),
                    6 => Ok(Families::Six),
                    _ => Err(E::invalid_value(de::Unexpected::Signed(number), &self)),
                }
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Families, E> {
                match text {
                    "4" => Ok(Families::Four),
                    "6" => Ok(Families::Six),
                    "both" => Ok(Families::Both),
                    _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
                }
            }
        }
        deserializer.deserialize_any(FamiliesVisitor)
    }
}

/// A time such as `"10ms"`, `"4s"`, `"1.5s"` or `"2m"`.
#[derive(Clone, Copy)]
pub(super) struct Time(pub(super) Duration);

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_time(&text).map(Self).ok_or_else(|| {
            let expected = "a time such as \"10ms\", \"4s\" or \"2m\"";
            de::Error::invalid_value(de::Unexpected::Str(&text), &expected)
        })
    }
}

/// Reads a time: a number and `ms`, `s` or `m`. At most an hour.
pub fn parse_time(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| c.is_ascii_alphabetic())?;
    let (number, unit) = text.split_at(digits);
    let plain = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let number: f64 = if plain { number.parse().ok()? } else { return None };
    let seconds = match unit {
        "ms" => number / 1_000.0,
        "s" => number,
        "m" => number * 60.0,
        _ => return None,
    };
    (seconds <= 3_600.0).then(|| Duration::from_secs_f64(seconds))
}

/// One value, or the two ends of a range.
#[derive(Clone, Copy, serde::Deserialize)]
#[serde(untagged, expecting = "a value or a range [least, most]")]
pub(super) enum OneOrTwo<T> {
    One(T),
    Two([T; 2]),
}

impl OneOrTwo<Time> {
    pub(super) fn times(self) -> Span<Duration> {
        let Span { low: Time(low), high: Time(high) } = self.span();
        Span { low, high }
    }
}

impl<T: Copy> OneOrTwo<T> {
    pub(super) fn span(self) -> Span<T> {
        match self {
            Self::One(value) => Span { low: value, high: value },
            Self::Two([low, high]) => Span { low, high },
        }
    }
}
