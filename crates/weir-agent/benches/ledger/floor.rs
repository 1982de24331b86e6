//! The floor: what the kernel's dump costs whoever receives it.

use anyhow::{Result, ensure};
use weir_conntrack::message::KIND_GET;
use weir_conntrack::netlink::{Received, Request, Socket};
use weir_lab::figures::thread_cpu;

pub(crate) struct Floor {
    socket: Socket,
    buffer: Vec<u8>,
}

impl Floor {
    pub(crate) fn open() -> Result<Self> {
        Ok(Self { socket: Socket::open(libc::NETLINK_NETFILTER)?, buffer: vec![0; 32 * 1024] })
    }

    /// CPU seconds of receiving a dump and throwing it away.
    pub(crate) fn once(&mut self) -> Result<f64> {
        let before = thread_cpu();
        self.socket.send(Request::new(KIND_GET, Request::DUMP, &[0; 4]).bytes())?;
        let mut bytes = 0;
        while let Received::Data(size) = self.socket.receive(&mut self.buffer)? {
            bytes += size;
        }
        ensure!(bytes > 0, "the floor read nothing");
        Ok(thread_cpu() - before)
    }
}
