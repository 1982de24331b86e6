//! The weir under test: started in the node, asked through its own commands.

use std::fs::{self, File};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use weir_flow::{Counters, Protocol, Totals};

use crate::command::run_command;
use crate::compare::Row;
use crate::error::{LabError, io_error};
use crate::net::Lab;
use crate::scenario::Place;
use crate::truth::Group;

/// How long weir may take until it reads.
const START_LIMIT: Duration = Duration::from_secs(10);
/// How long its last dump and commit may take.
const STOP_LIMIT: Duration = Duration::from_secs(30);
/// What flows are asked by.
pub(crate) const BY: &str = "source.address,destination.address,protocol,destination.port,service";

/// A weir in the node. Dropping it ends it.
#[derive(Debug)]
pub struct Weir {
    program: PathBuf,
    data: PathBuf,
    interval: Duration,
    child: Option<Child>,
}

/// What weir declares to be missing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// Why.
    pub reason: String,
    /// Connections concerned.
    #[serde(default)]
    pub connections: u64,
    /// Bytes known to be lost.
    #[serde(default)]
    pub bytes: u64,
    /// An upper bound of bytes that could not be counted.
    #[serde(default)]
    pub bytes_bound: Option<u64>,
}

impl Weir {
    /// Starts weir in the node and waits until it reads the kernel.
    pub fn start(
        lab: &Lab,
        program: &Path,
        data: &Path,
        interval: Duration,
    ) -> Result<Self, LabError> {
        let mut weir =
            Self { program: program.to_owned(), data: data.to_owned(), interval, child: None };
        weir.launch(lab)?;
        Ok(weir)
    }

    /// Starts weir again after [`Weir::kill`].
    pub fn launch(&mut self, lab: &Lab) -> Result<(), LabError> {
        let path = self.data.with_extension("log");
        let name = path.display().to_string();
        let log = File::options().create(true).append(true).open(&path);
        let log = log.map_err(io_error("open", &name))?;
        let error_log = log.try_clone().map_err(io_error("open", &name))?;
        let mut command = lab.command(Place::Node(0), self.program.as_os_str());
        command.arg("up").arg("--data-dir").arg(&self.data);
        command.arg("--interval").arg(format!("{}s", self.interval.as_secs()));
        // It is asked through its data; another weir on the node may have the usual port.
        command.args(["--listen", "none"]);
        command.stdout(Stdio::from(log)).stderr(Stdio::from(error_log));
        let child = command.spawn().map_err(io_error("start", "weir"))?;
        self.child = Some(child);
        self.wait_until_reading()
    }

    /// `kill -9`.
    pub fn kill(&mut self) -> Result<(), LabError> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        child.kill().map_err(io_error("kill", "weir"))?;
        child.wait().map(drop).map_err(io_error("wait for", "weir"))
    }

    /// SIGTERM: weir takes a last dump, commits it and ends.
    pub fn stop(&mut self) -> Result<(), LabError> {
        let Some(child) = self.child.as_mut() else { return Ok(()) };
        let mut signal = Command::new("kill");
        signal.arg("-TERM").arg(child.id().to_string());
        run_command(signal, "")?;
        let deadline = Instant::now() + STOP_LIMIT;
        loop {
            match child.try_wait().map_err(io_error("wait for", "weir"))? {
                Some(status) if status.success() => {
                    self.child = None;
                    return Ok(());
                }
                Some(status) => return Err(self.trouble(&format!("ended with {status}"))),
                None if Instant::now() > deadline => {
                    return Err(self.trouble("did not end within 30 s of SIGTERM"));
                }
                None => thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    /// The flows weir has stored.
    pub fn flows(&self) -> Result<Vec<Row>, LabError> {
        let arguments = ["query", "top", "--by", BY, "--limit", "0", "--since", "1h"];
        parse_flows(&self.ask(&arguments)?)
    }

    /// What weir declares to be missing.
    pub fn gaps(&self) -> Result<Vec<Gap>, LabError> {
        parse_gaps(&self.ask(&["query", "status", "--since", "1h"])?)
    }

    fn wait_until_reading(&mut self) -> Result<(), LabError> {
        let deadline = Instant::now() + START_LIMIT;
        loop {
            let ended = match self.child.as_mut() {
                Some(child) => child.try_wait().map_err(io_error("wait for", "weir"))?,
                None => None,
            };
            if let Some(status) = ended {
                return Err(self.trouble(&format!("ended at its start with {status}")));
            }
            // Until weir has made its store, the question itself fails.
            let answer = self.ask(&["query", "status"]);
            let pid = self.child.as_ref().map(Child::id);
            if answer.is_ok_and(|text| is_reading(&text, pid)) {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(self.trouble("did not say that it is reading within 10 s"));
            }
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// Asks outside of the node: a question must not make traffic there.
    fn ask(&self, arguments: &[&str]) -> Result<String, LabError> {
        let mut command = Command::new(&self.program);
        command.args(arguments).args(["-o", "json", "--data-dir"]).arg(&self.data);
        run_command(command, "")
    }

    fn trouble(&self, what: &str) -> LabError {
        let log = fs::read_to_string(self.data.with_extension("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let last = lines[lines.len().saturating_sub(12)..].join("\n");
        LabError::Weir(format!("it {what}; its last words:\n{last}"))
    }
}

impl Drop for Weir {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing left to kill.
        drop(self.kill());
    }
}

/// Finds weir: what was said, else beside this program, else on the path.
pub fn find(said: Option<&Path>) -> Result<PathBuf, LabError> {
    find_program("weir", said)
}

/// Finds a program: what was said, else beside this program, else on the path.
pub(crate) fn find_program(name: &str, said: Option<&Path>) -> Result<PathBuf, LabError> {
    let beside = std::env::current_exe().ok().map(|own| own.with_file_name(name));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|directory| directory.join(name));
    let mut places = match said {
        Some(said) => vec![said.to_owned()],
        None => beside.into_iter().chain(on_path).collect(),
    };
    places.retain(|place| place.is_file());
    let named =
        || said.map_or_else(|| format!("({name}) on the path"), |said| said.display().to_string());
    let found = places.into_iter().next().ok_or_else(|| LabError::NoWeir(named()))?;
    let name = found.display().to_string();
    found.canonicalize().map_err(io_error("find", &name))
}

fn answer_error(message: String) -> LabError {
    LabError::Answer { program: "weir".to_owned(), message }
}

fn parsed<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, LabError> {
    serde_json::from_str(text).map_err(|error| answer_error(error.to_string()))
}

/// True when weir reads, and it is this weir that says so and not the word of a killed one.
fn is_reading(text: &str, pid: Option<u32>) -> bool {
    serde_json::from_str::<Value>(text).is_ok_and(|answer| {
        let node = &answer["nodes"][0];
        let said = node["pid"].as_u64();
        node["state"] == "reading" && (said.is_none() || said == pid.map(u64::from))
    })
}

pub(crate) fn parse_gaps(text: &str) -> Result<Vec<Gap>, LabError> {
    #[derive(Deserialize)]
    struct Answer {
        gaps: Vec<Gap>,
    }
    parsed::<Answer>(text).map(|answer| answer.gaps)
}

pub(crate) fn parse_flows(text: &str) -> Result<Vec<Row>, LabError> {
    #[derive(Deserialize)]
    struct Answer {
        rows: Vec<Flow>,
    }
    #[derive(Deserialize)]
    struct Flow {
        #[serde(rename = "source.address")]
        source: IpAddr,
        #[serde(rename = "destination.address")]
        destination: IpAddr,
        protocol: Value,
        #[serde(rename = "destination.port")]
        destination_port: u16,
        service: Option<String>,
        bytes_sent: Option<u64>,
        bytes_received: Option<u64>,
        packets_sent: Option<u64>,
        packets_received: Option<u64>,
        #[serde(default)]
        connections_opened: u64,
    }
    let answer: Answer = parsed(text)?;
    // Unknown to weir is nothing said: the truth will tell.
    let counted = Option::unwrap_or_default;
    let row = |flow: Flow| {
        let protocol = match &flow.protocol {
            Value::String(name) => Protocol::parse(name),
            number => number.as_u64().and_then(|n| u8::try_from(n).ok()).map(Protocol),
        };
        let unknown = || answer_error(format!("protocol {}", flow.protocol));
        let service = flow.service.as_deref().filter(|text| !text.is_empty());
        let service = service.map(|text| {
            text.parse::<SocketAddr>().map_err(|e| answer_error(format!("service {text}: {e}")))
        });
        Ok(Row {
            group: Group {
                source: flow.source,
                destination: flow.destination,
                protocol: protocol.ok_or_else(unknown)?,
                destination_port: flow.destination_port,
                service: service.transpose()?,
            },
            totals: Totals {
                sent: Counters {
                    packets: counted(flow.packets_sent),
                    bytes: counted(flow.bytes_sent),
                },
                received: Counters {
                    packets: counted(flow.packets_received),
                    bytes: counted(flow.bytes_received),
                },
            },
            connections_opened: flow.connections_opened,
        })
    };
    answer.rows.into_iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recorded_answer_is_read() {
        let text = r#"{"columns": ["source.address"], "rows": [
            {"source.address": "10.244.1.2", "destination.address": "10.244.1.3", "protocol": "tcp",
             "destination.port": 8080, "service": "10.96.0.10:80", "bytes_sent": 10,
             "bytes_received": 20, "packets_sent": 1, "packets_received": 2,
             "connections_opened": 1},
            {"source.address": "fd00::2", "destination.address": "fd00::3", "protocol": "icmpv6",
             "destination.port": 32768, "service": null, "bytes_sent": 1, "bytes_received": 1,
             "packets_sent": 1, "packets_received": 1}]}"#;
        let rows = parse_flows(text).unwrap();
        assert_eq!(rows[0].group.service, Some("10.96.0.10:80".parse().unwrap()));
        assert_eq!(rows[0].totals.received, Counters { packets: 2, bytes: 20 });
        assert_eq!(rows[1].group.protocol, Protocol::ICMPV6);
        assert_eq!(rows[1].group.service, None);
    }

    #[test]
    fn a_status_is_read() {
        let text = r#"{"nodes": [{"state": "reading"}], "gaps": [{"reason": "agent_down", "from": "x",
            "connections": 3, "bytes": 0, "bytes_bound": null}]}"#;
        assert!(is_reading(text, Some(7)));
        assert!(!is_reading("{}", Some(7)));
        let of = |pid: u32| format!(r#"{{"nodes": [{{"state": "reading", "pid": {pid}}}]}}"#);
        assert!(is_reading(&of(7), Some(7)));
        assert!(!is_reading(&of(6), Some(7)), "the word of the one before");
        let gap =
            Gap { reason: "agent_down".to_owned(), connections: 3, bytes: 0, bytes_bound: None };
        assert_eq!(parse_gaps(text).unwrap(), [gap]);
    }

    #[test]
    fn nonsense_is_an_error() {
        parse_flows("{}").unwrap_err();
        parse_gaps("[]").unwrap_err();
    }
}
