//! Connections that move: datagrams to many addresses of the loopback network.

use std::net::{Ipv4Addr, UdpSocket};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

/// Each connection moves once in this many rounds, of which there is one a tenth of a second.
const ROUNDS: u32 = 100;
const ROUND: Duration = Duration::from_millis(100);

/// A talk on a thread of its own.
pub(crate) struct Talk {
    stopping: Arc<AtomicBool>,
    talker: JoinHandle<Result<bool>>,
}

impl Talk {
    /// From one socket to so many addresses; a tenth of them every second. All are known to the
    /// kernel when this returns.
    pub(crate) fn between(addresses: u32) -> Result<Self> {
        let listener = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).context("bind a socket")?;
        let port = listener.local_addr()?.port();
        let talker = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).context("bind a socket")?;
        let send = move |number: u32| {
            let address = Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 1, 0, 0)) + number);
            talker.send_to(&[0; 1_000], (address, port)).context("send a datagram")
        };
        for number in 0..addresses {
            send(number)?;
        }
        let stopping = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&stopping);
        let talker = thread::spawn(move || {
            // What is sent to it counts when it comes in, whether or not anybody reads it.
            let _listener = listener;
            let begun = Instant::now();
            let mut round = 0;
            let mut in_time = true;
            while !stop.load(Ordering::Acquire) {
                for number in (round % ROUNDS..addresses).step_by(ROUNDS as usize) {
                    send(number)?;
                }
                round += 1;
                let early = (ROUND * round).checked_sub(begun.elapsed());
                in_time &= early.is_some() || begun.elapsed() < ROUND * (round + 10);
                thread::sleep(early.unwrap_or_default());
            }
            Ok(in_time)
        });
        Ok(Self { stopping, talker })
    }

    /// Ends it; true when it kept its pace.
    pub(crate) fn stop(self) -> Result<bool> {
        self.stopping.store(true, Ordering::Release);
        self.talker.join().map_err(|_panic| anyhow::anyhow!("the talker panicked"))?
    }
}

/// A new network namespace has its loopback down.
pub(crate) fn loopback_up() -> Result<()> {
    let status = Command::new("ip").args(["link", "set", "lo", "up"]).status();
    ensure!(status.context("cannot start ip")?.success(), "loopback stays down");
    Ok(())
}
