//! Hearing of connections that end, with their final counters.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use weir_flow::Sample;

use crate::Error;
use crate::message::{KIND_ENDED, decode};
use crate::netlink::{Batch, Received, Socket, messages};

/// `NFNLGRP_CONNTRACK_DESTROY`.
const GROUP_DESTROY: u32 = 3;
/// Events per system call.
const BATCH: usize = 64;
/// Room for one event. They are 218 to 267 bytes; labels, a helper's name and a security context
/// make the largest, below 1 KiB.
const EVENT_BYTES: usize = 2048;
/// System calls per drain: as many events as a 16 MiB buffer holds, and half as many again.
const MAX_RECEIVES: usize = 320;

/// A listener for DESTROY events.
///
/// A full buffer loses events rather than holding up the kernel: the listener never asks for
/// `NETLINK_BROADCAST_ERROR`, with which a stalled reader fills the node's table with dead entries.
#[derive(Debug)]
pub struct Events {
    socket: Socket,
    batch: Batch,
    receive_buffer_bytes: usize,
    drops: u32,
}

/// What a drain brought. `received + malformed + lost` is what the kernel sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drained {
    /// Events given to the caller.
    pub received: u64,
    /// Events that came and could not be read.
    pub malformed: u64,
    /// Events that the kernel dropped since the last drain because the buffer was full.
    pub lost: u64,
    /// The kernel announced an overrun (`ENOBUFS`).
    pub overrun: bool,
    /// The drain reached its limit; more may be waiting.
    pub more: bool,
}

impl Events {
    /// Room for waiting events that holds about 13,000 of them: at 50,000 ends per second, a
    /// reader may stall for a quarter of a second.
    pub const RECEIVE_BUFFER_BYTES: usize = 16 << 20;

    /// Starts listening, with `receive_buffer_bytes` of kernel memory for waiting events; see
    /// [`Events::receive_buffer_bytes`] for what was granted.
    pub fn open(receive_buffer_bytes: usize) -> Result<Self, Error> {
        let socket = Socket::open(libc::NETLINK_NETFILTER)?;
        let receive_buffer_bytes = socket.set_receive_buffer(receive_buffer_bytes)?;
        socket.join(GROUP_DESTROY)?;
        let batch = Batch::new(BATCH, EVENT_BYTES);
        Ok(Self { socket, batch, receive_buffer_bytes, drops: 0 })
    }

    /// The kernel memory granted for waiting events; each takes 1280 bytes of it.
    pub fn receive_buffer_bytes(&self) -> usize {
        self.receive_buffer_bytes
    }

    /// Waits until an event is there; false when the time is over or a signal came.
    pub fn wait(&self, timeout: Duration) -> Result<bool, Error> {
        self.socket.wait(timeout)
    }

    /// Gives each waiting event to `each` until none is left or a limit (20,480) is reached, and
    /// says what was lost. Does not wait.
    pub fn drain(&mut self, mut each: impl FnMut(&Sample)) -> Result<Drained, Error> {
        let mut drained = Drained { more: true, ..Drained::default() };
        let mut sample = Sample::default();
        for _ in 0..MAX_RECEIVES {
            match self.socket.receive_many(&mut self.batch)? {
                Received::Data(_) => {}
                Received::Empty => {
                    drained.more = false;
                    break;
                }
                Received::Overrun => {
                    drained.overrun = true;
                    continue;
                }
                // Single datagrams are cut, and the batch says so for each.
                Received::Cut { .. } => drained.malformed += 1,
            }
            for datagram in self.batch.datagrams() {
                // An event that did not fit its slot cannot be read, like a damaged one.
                let Some(datagram) = datagram else {
                    drained.malformed += 1;
                    continue;
                };
                for message in messages(datagram) {
                    match message {
                        Ok(message) if message.kind != KIND_ENDED => {}
                        Ok(message) if decode(message.payload, &mut sample).is_ok() => {
                            each(&sample);
                            drained.received += 1;
                        }
                        _ => drained.malformed += 1,
                    }
                }
            }
        }
        let drops = self.socket.drops()?;
        drained.lost = drops.wrapping_sub(self.drops).into();
        self.drops = drops;
        Ok(drained)
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for Events {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}
