//! Pods that own one address in turn, with traffic from and to each of them.
//!
//! Each has ports of its own, so that the truth knows without asking whose every byte is: the
//! first of them dials the peer's first port, and is dialled at its own first.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::objects::uid;
use crate::error::LabError;
use crate::kube::{self, Api};
use crate::net::{Lab, Visitor};
use crate::scenario::{Churn, Family, Pattern, Scenario, Span, TrafficProtocol};
use crate::traffic::{Generator, SinkPlan, SourcePlan};
use crate::truth::Truth;
use crate::verify::check_stop;

/// The Kubernetes namespace of the pods.
const NAMESPACE: &str = "churn";
/// Whose bytes theirs are in totals: the truth sees one address.
pub(super) const OWNER: &str = "workload/churn/Pod/*";
/// What the first pod dials at the peer, and is dialled at: the others follow.
const OUTWARD: u16 = 20_000;
const INWARD: u16 = 21_000;
/// How long the word of a pod's address takes to the API after the pod has it.
const WORD: Duration = Duration::from_millis(300);
/// A pod's traffic ends that long before the pod.
const QUIET: Duration = Duration::from_millis(200);
/// What attribution is asked by.
pub(super) const BY: &str = "source.address,source.id,source.unresolved,destination.address,\
                             destination.id,destination.unresolved,destination.port";

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// Pods that had the address.
    pub pods: u16,
    /// Bytes from and to it, by the truth.
    pub bytes: u64,
    /// Bytes named after the pod that had it.
    pub right_bytes: u64,
    /// Bytes marked as ambiguous.
    pub ambiguous_bytes: u64,
    /// Bytes named after somebody else.
    pub wrong_bytes: u64,
    /// Bytes named after nobody for another reason.
    pub unnamed_bytes: u64,
    /// How much may be ambiguous or named after nobody, in percent.
    pub allowed_percent: u8,
    /// The first few that are neither right nor ambiguous.
    pub examples: Vec<String>,
}

impl Outcome {
    /// Share of bytes that are ambiguous or named after nobody, in percent.
    #[expect(clippy::cast_precision_loss, reason = "shown with two digits")]
    pub fn unnamed_percent(&self) -> f64 {
        // What is in no row is not named either.
        let unnamed = self.bytes.saturating_sub(self.right_bytes + self.wrong_bytes);
        if self.bytes == 0 { 0.0 } else { unnamed as f64 * 100.0 / self.bytes as f64 }
    }

    /// True when nothing is named after somebody else, and little after nobody.
    pub fn is_good(&self) -> bool {
        self.bytes > 0
            && self.wrong_bytes == 0
            && self.unnamed_percent() <= f64::from(self.allowed_percent)
    }
}

/// The ports that somebody listens on, for the truth's turning of connections.
pub(crate) fn listeners(scenario: &Scenario) -> Vec<SocketAddr> {
    let Some(churn) = &scenario.churn else { return Vec::new() };
    let peer = scenario.address(churn.peer, churn.peer, Family::of(churn.address));
    let outward = peer.into_iter().flat_map(|peer| ports(peer, OUTWARD, churn.pods));
    outward.chain(ports(churn.address, INWARD, churn.pods)).collect()
}

fn ports(address: IpAddr, first: u16, count: u16) -> impl Iterator<Item = SocketAddr> {
    (first..first + count).map(move |port| SocketAddr::new(address, port))
}

/// Lets every pod have its turn. Returns how many had it.
pub(super) fn run(
    lab: &Lab,
    scenario: &Scenario,
    churn: &Churn,
    api: Option<&Api>,
    program: &Path,
    stop: &AtomicBool,
) -> Result<u16, LabError> {
    let Some(peer) = scenario.address(churn.peer, churn.peer, Family::of(churn.address)) else {
        return Ok(0);
    };
    let listen = ports(peer, OUTWARD, churn.pods).map(|at| (TrafficProtocol::Tcp, at)).collect();
    let sink = SinkPlan { listen };
    let sink = Generator::sink(lab.command(churn.peer, program.as_os_str()), "peer", &sink)?;
    for number in 0..churn.pods {
        check_stop(stop)?;
        turn(&Turn { lab, scenario, churn, api, program, peer, number })?;
    }
    sink.end().map(|_| churn.pods)
}

/// One pod's turn.
struct Turn<'a> {
    lab: &'a Lab,
    scenario: &'a Scenario,
    churn: &'a Churn,
    api: Option<&'a Api>,
    program: &'a Path,
    peer: IpAddr,
    number: u16,
}

fn turn(turn: &Turn<'_>) -> Result<(), LabError> {
    let Turn { lab, scenario, churn, api, program, peer, number } = *turn;
    let name = pod_name(number);
    let node = &scenario.nodes[churn.node].name;
    let begin = SystemTime::now();
    let mut object = kube::pod(NAMESPACE, &name, node, &[churn.address], begin);
    object["metadata"]["uid"] = json!(uid(&name));
    if let Some(api) = api {
        // As a scheduler and then a kubelet leave it, before it has an address.
        let mut early = object.clone();
        early["status"] = json!({ "phase": "Pending", "startTime": object["status"]["startTime"] });
        api.put(early)?;
    }
    let visitor = Visitor::arrive(lab, churn.node, churn.address, number)?;
    let own = SocketAddr::new(churn.address, INWARD + number);
    let sink = SinkPlan { listen: vec![(TrafficProtocol::Tcp, own)] };
    let sink = Generator::sink(visitor.command(program.as_os_str()), &name, &sink)?;
    let time = life(churn, number).saturating_sub(QUIET);
    let outward = plan(churn.address, SocketAddr::new(peer, OUTWARD + number), time, number);
    let inward = plan(peer, own, time, number);
    let sources = [
        Generator::source(visitor.command(program.as_os_str()), &name, &outward)?,
        Generator::source(lab.command(churn.peer, program.as_os_str()), "peer", &inward)?,
    ];
    thread::sleep(WORD);
    let started = kube::timestamp(SystemTime::now());
    object["status"]["containerStatuses"][0]["state"]["running"]["startedAt"] = json!(started);
    if let Some(api) = api {
        api.put(object.clone())?;
    }
    for source in sources {
        source.finish()?;
    }
    sink.end()?;
    // A kubelet takes the network away when the containers have ended, and tells afterwards.
    let finished = kube::timestamp(SystemTime::now());
    visitor.leave()?;
    let Some(api) = api else { return Ok(()) };
    if !churn.deletes || number % 2 == 0 {
        object["status"]["phase"] = json!("Succeeded");
        object["status"]["containerStatuses"][0]["state"] = json!({ "terminated": {
            "exitCode": 0, "startedAt": started, "finishedAt": finished } });
        return api.put(object);
    }
    object["metadata"]["deletionTimestamp"] = json!(finished);
    api.put(object)?;
    api.delete("Pod", NAMESPACE, &name).map(drop)
}

/// The owner in totals: one for all pods of the churn.
pub(super) fn owner(id: &str) -> &str {
    let prefix = OWNER.trim_end_matches('*');
    if id.starts_with(prefix) { OWNER } else { id }
}

fn pod_name(number: u16) -> String {
    format!("churn-{number}")
}

/// How long a pod lives: spread over the range, and the same in every run.
fn life(churn: &Churn, number: u16) -> Duration {
    let share = f64::from(u32::from(number) * 37 % 100) / 100.0;
    churn.life.low + churn.life.high.saturating_sub(churn.life.low).mul_f64(share)
}

fn plan(source: IpAddr, target: SocketAddr, time: Duration, number: u16) -> SourcePlan {
    let life = Span { low: time / 10, high: time / 4 };
    SourcePlan {
        protocol: TrafficProtocol::Tcp,
        source,
        target,
        connections: 12,
        concurrency: 12,
        start: Duration::ZERO,
        within: time.saturating_sub(life.high),
        request_bytes: Span { low: 500, high: 40_000 },
        response_bytes: Span { low: 500, high: 90_000 },
        life,
        pattern: Pattern::Rounds,
        seed: u64::from(number) << 16 | u64::from(target.port()),
        first_identifier: 0,
    }
}

/// Holds what weir answered to a question by [`BY`] against the truth.
pub(super) fn judge(churn: &Churn, truth: &Truth, answer: &str) -> Result<Outcome, LabError> {
    #[derive(Deserialize)]
    struct Answer {
        rows: Vec<Row>,
    }
    #[derive(Deserialize)]
    struct Row {
        #[serde(rename = "source.address")]
        source: IpAddr,
        #[serde(rename = "source.id")]
        source_id: Option<String>,
        #[serde(rename = "source.unresolved")]
        source_unresolved: Option<String>,
        #[serde(rename = "destination.address")]
        destination: IpAddr,
        #[serde(rename = "destination.id")]
        destination_id: Option<String>,
        #[serde(rename = "destination.unresolved")]
        destination_unresolved: Option<String>,
        #[serde(rename = "destination.port")]
        port: u16,
        bytes_sent: Option<u64>,
        bytes_received: Option<u64>,
    }
    let answer: Answer = serde_json::from_str(answer).map_err(|error| LabError::Answer {
        program: "weir".to_owned(),
        message: error.to_string(),
    })?;
    let mut outcome =
        Outcome { pods: churn.pods, allowed_percent: churn.unnamed_percent, ..Outcome::default() };
    for (group, known) in &truth.groups {
        if [group.source, group.destination].contains(&churn.address) {
            outcome.bytes += known.totals.bytes();
        }
    }
    for row in answer.rows {
        let (id, unresolved, first) = if row.source == churn.address {
            (row.source_id, row.source_unresolved, OUTWARD)
        } else if row.destination == churn.address {
            (row.destination_id, row.destination_unresolved, INWARD)
        } else {
            continue;
        };
        let bytes = row.bytes_sent.unwrap_or_default() + row.bytes_received.unwrap_or_default();
        let expected = row
            .port
            .checked_sub(first)
            .filter(|number| *number < churn.pods)
            .map(|number| format!("pod/{NAMESPACE}/{}", pod_name(number)));
        let unresolved = unresolved.filter(|reason| !reason.is_empty());
        let sum = match unresolved.as_deref() {
            Some("ambiguous") => &mut outcome.ambiguous_bytes,
            None if id.is_some() && id == expected => &mut outcome.right_bytes,
            Some(_) => &mut outcome.unnamed_bytes,
            None => &mut outcome.wrong_bytes,
        };
        *sum += bytes;
        let is_good = unresolved.as_deref() == Some("ambiguous") || id == expected;
        if !is_good && outcome.examples.len() < 8 {
            outcome.examples.push(format!(
                "port {}: {bytes} bytes of {} are named {} ({})",
                row.port,
                expected.unwrap_or_default(),
                id.unwrap_or_default(),
                unresolved.unwrap_or_default()
            ));
        }
    }
    Ok(outcome)
}
