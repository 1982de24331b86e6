//! The answering side.

use std::io::{BufRead, Write};
use std::net::{TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::thread;

use super::plan::{SinkPlan, SinkReport};
use super::{READY, tcp, udp};
use crate::error::{LabError, io_error};
use crate::scenario::TrafficProtocol;

/// Connections answered at the same time; more wait in the listener's queue.
pub(super) const ANSWERED_LIMIT: u32 = 2_048;

/// What a sink has seen so far.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) active: AtomicU32,
    pub(super) accepted: AtomicU64,
    pub(super) received: AtomicU64,
    pub(super) sent: AtomicU64,
}

/// Listens as planned, says so on `output`, and answers until `input` ends.
pub fn run(
    plan: &SinkPlan,
    mut input: impl BufRead,
    mut output: impl Write,
) -> Result<SinkReport, LabError> {
    let seen = Arc::new(Seen::default());
    for (protocol, address) in &plan.listen {
        let name = format!("{protocol:?} {address}");
        let seen = Arc::clone(&seen);
        // These threads live as long as the process: it ends right after the report.
        match protocol {
            TrafficProtocol::Tcp => {
                let listener = TcpListener::bind(address).map_err(io_error("listen on", &name))?;
                thread::spawn(move || tcp::answer(&listener, &seen));
            }
            TrafficProtocol::Udp => {
                let socket = UdpSocket::bind(address).map_err(io_error("listen on", &name))?;
                thread::spawn(move || udp::answer(&socket, &seen));
            }
            // The kernel answers.
            TrafficProtocol::Icmp => {}
        }
    }
    writeln!(output, "{READY}")
        .and_then(|()| output.flush())
        .map_err(io_error("write to", "standard output"))?;
    let mut rest = String::new();
    while input.read_line(&mut rest).map_err(io_error("read", "standard input"))? > 0 {
        rest.clear();
    }
    Ok(SinkReport {
        accepted: seen.accepted.load(Ordering::Relaxed),
        payload_received: seen.received.load(Ordering::Relaxed),
        payload_sent: seen.sent.load(Ordering::Relaxed),
    })
}
