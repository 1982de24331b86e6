//! The demo: a scenario's cluster with weir on it, until somebody has seen enough.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::Duration;

use super::servers::API_PORT;
use super::{relay, start};
use crate::error::{LabError, io_error};
use crate::net::Lab;
use crate::scenario::{Place, Scenario, SourcePorts};
use crate::traffic::Generators;
use crate::verify::{Data, Options, check_stop};

/// Runs a scenario again and again until `stop` is set. With `screen`, `weir top` is shown on it and
/// its end is the demo's.
pub fn run(
    scenario: &Scenario,
    ports: &BTreeMap<Place, SourcePorts>,
    options: &Options,
    screen: bool,
    mut say: impl Write,
    stop: &AtomicBool,
) -> Result<(), LabError> {
    let mut tell = |text: &str| {
        writeln!(say, "{text}")
            .and_then(|()| say.flush())
            .map_err(io_error("write to", "standard output"))
    };
    tell(&format!("building {} nodes of the cluster `{}`", scenario.nodes.len(), scenario.name))?;
    let lab = Lab::build(scenario, ports)?;
    let data = Data::make(options)?;
    let program = options.weir.as_deref().unwrap_or_else(|| "weir".as_ref());
    tell("starting weir's server and an agent on every node")?;
    let mut station = start(&lab, scenario, program, &data.path, options)?;
    let mut generators = Generators::start(&lab, scenario, &options.program)?;
    generators.go(&lab, scenario)?;
    let address: SocketAddr = relay::open(lab.control(), API_PORT)?;
    tell(&format!("weir answers at http://{address}"))?;
    tell(&format!("  weir top http://{address}"))?;
    tell(&format!(
        "  weir query http://{address} top --by source.workload,destination.workload,class"
    ))?;
    tell(&format!("  curl http://{address}/api/v1/status"))?;
    let mut top = if screen {
        let mut command = station.watch();
        command.stdin(Stdio::inherit());
        Some(command.spawn().map_err(io_error("start", "weir top"))?)
    } else {
        tell("Ctrl-C ends it and removes everything.")?;
        None
    };
    loop {
        let ended = match top.as_mut() {
            Some(top) => top.try_wait().map_err(io_error("wait for", "weir top"))?.is_some(),
            None => false,
        };
        match check_stop(stop) {
            Ok(()) if ended => break,
            Ok(()) => {}
            Err(LabError::Interrupted) => break,
            Err(error) => return Err(error),
        }
        station.must_run()?;
        generators.go_on(&lab, scenario)?;
        thread::sleep(Duration::from_millis(200));
    }
    if let Some(mut top) = top {
        // It may have ended by itself; then there is nothing left to kill.
        drop(top.kill());
        drop(top.wait());
    }
    Ok(())
}
