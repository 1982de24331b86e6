//! The netlink socket.

use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::time::Duration;

use super::{Control, Message, Request, messages};
use crate::Error;

/// How long [`Socket::ask`] waits for each datagram of an answer. The kernel answers within the
/// system call; only a stalled machine comes near.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// The most datagrams one `recvmmsg` takes.
const MAX_BATCH: usize = 64;
/// `struct sock_meminfo`: nine 32-bit numbers (`SK_MEMINFO_VARS`).
const MEMINFO_VARS: usize = 9;
/// Index of the drop counter in it (`SK_MEMINFO_DROPS`).
const MEMINFO_DROPS: usize = 8;

/// A bound, non-blocking netlink socket.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
}

/// What one receive brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// This many bytes, or in [`Socket::receive_many`] datagrams.
    Data(usize),
    /// Nothing is waiting.
    Empty,
    /// The kernel dropped datagrams since the last receive (`ENOBUFS`); see [`Socket::drops`].
    Overrun,
    /// A datagram of `size` bytes did not fit; its end is lost, the buffer holds its beginning.
    Cut {
        /// Bytes of the whole datagram.
        size: usize,
    },
}

impl Socket {
    /// Opens a socket for a netlink protocol (such as `libc::NETLINK_NETFILTER`) and binds it to a
    /// port of the kernel's choice.
    pub fn open(protocol: i32) -> Result<Self, Error> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: takes three numbers.
        let raw = unsafe { libc::socket(libc::AF_NETLINK, kind, protocol) };
        if raw < 0 {
            return Err(Error::call("open a netlink socket", io::Error::last_os_error()));
        }
        // SAFETY: the call above returned this descriptor and nobody else knows it.
        let fd = unsafe { OwnedFd::from_raw_fd(raw) };
        let address = address();
        // SAFETY: the address lives across the call and its size is passed with it.
        let code =
            unsafe { libc::bind(fd.as_raw_fd(), ptr::from_ref(&address).cast(), ADDRESS_BYTES) };
        if code < 0 {
            return Err(Error::call("bind a netlink socket", io::Error::last_os_error()));
        }
        Ok(Self { fd })
    }

    /// Joins a multicast group.
    pub fn join(&self, group: u32) -> Result<(), Error> {
        self.set_option(libc::SOL_NETLINK, libc::NETLINK_ADD_MEMBERSHIP, group)
            .map_err(|source| Error::call("join a netlink multicast group", source))
    }

    /// Asks for room for `bytes` of waiting datagrams and returns the room reached.
    ///
    /// With `CAP_NET_ADMIN` the system's limit (`net.core.rmem_max`) does not apply; without it
    /// the answer may be less than asked. The kernel books each datagram with its overhead: a
    /// conntrack event takes 1280 bytes of this.
    pub fn set_receive_buffer(&self, bytes: usize) -> Result<usize, Error> {
        // The kernel doubles what it is given, for its overhead, and reports the doubled value.
        // It takes the number as signed.
        const MOST: u32 = i32::MAX.unsigned_abs() / 2;
        let half = u32::try_from(bytes / 2).unwrap_or(MOST).min(MOST);
        self.set_option(libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, half)
            .or_else(|_| self.set_option(libc::SOL_SOCKET, libc::SO_RCVBUF, half))
            .map_err(|source| Error::call("size a netlink receive buffer", source))?;
        self.receive_buffer()
    }

    /// The room for waiting datagrams, in bytes.
    pub fn receive_buffer(&self) -> Result<usize, Error> {
        let mut value = [0_u32; 1];
        self.get_option(libc::SO_RCVBUF, &mut value)
            .map_err(|source| Error::call("read a netlink socket's buffer size", source))?;
        Ok(usize::try_from(value[0]).unwrap_or(usize::MAX))
    }

    /// Datagrams that the kernel dropped on this socket since it was opened; wraps at 2³².
    pub fn drops(&self) -> Result<u32, Error> {
        let mut values = [0_u32; MEMINFO_VARS];
        self.get_option(libc::SO_MEMINFO, &mut values)
            .map_err(|source| Error::call("read a netlink socket's drop counter", source))?;
        Ok(values[MEMINFO_DROPS])
    }

    /// Sends a datagram to the kernel.
    pub fn send(&self, datagram: &[u8]) -> Result<(), Error> {
        let address = address();
        // SAFETY: pointer and length are of the same slice, which lives across the call, and so
        // does the address.
        let sent = unsafe {
            libc::sendto(
                self.fd.as_raw_fd(),
                datagram.as_ptr().cast(),
                datagram.len(),
                0,
                ptr::from_ref(&address).cast(),
                ADDRESS_BYTES,
            )
        };
        if sent < 0 {
            return Err(Error::call("send a netlink request", io::Error::last_os_error()));
        }
        Ok(())
    }

    /// Receives one datagram of the kernel's, without waiting. Others' datagrams are passed over.
    pub fn receive(&self, buffer: &mut [u8]) -> Result<Received, Error> {
        loop {
            let mut sender = address();
            let mut sender_bytes = ADDRESS_BYTES;
            // SAFETY: pointer and length are of the same slice; sender and its size live across
            // the call, and the size is the sender's.
            let size = unsafe {
                libc::recvfrom(
                    self.fd.as_raw_fd(),
                    buffer.as_mut_ptr().cast(),
                    buffer.len(),
                    libc::MSG_DONTWAIT | libc::MSG_TRUNC,
                    ptr::from_mut(&mut sender).cast(),
                    &raw mut sender_bytes,
                )
            };
            let Ok(size) = usize::try_from(size) else {
                match failed_receive(io::Error::last_os_error())? {
                    Some(received) => return Ok(received),
                    None => continue,
                }
            };
            if sender.nl_pid != 0 {
                continue;
            }
            if size > buffer.len() {
                return Ok(Received::Cut { size });
            }
            return Ok(Received::Data(size));
        }
    }

    /// Receives as many datagrams as are waiting and fit into the batch, without waiting.
    /// Others' datagrams than the kernel's are left out of the batch, though not of the number.
    pub fn receive_many(&self, batch: &mut Batch) -> Result<Received, Error> {
        batch.filled.clear();
        let mut senders = [address(); MAX_BATCH];
        // SAFETY: all-zero is a valid iovec: no buffer.
        let mut vectors: [libc::iovec; MAX_BATCH] = unsafe { zeroed() };
        // SAFETY: all-zero is a valid mmsghdr: no name, no buffers.
        let mut headers: [libc::mmsghdr; MAX_BATCH] = unsafe { zeroed() };
        let slots = batch.bytes.chunks_exact_mut(batch.slot_bytes);
        let mut count = 0;
        for (((slot, sender), vector), header) in
            slots.zip(&mut senders).zip(&mut vectors).zip(&mut headers)
        {
            vector.iov_base = slot.as_mut_ptr().cast();
            vector.iov_len = slot.len();
            header.msg_hdr.msg_name = ptr::from_mut(sender).cast();
            header.msg_hdr.msg_namelen = ADDRESS_BYTES;
            header.msg_hdr.msg_iov = ptr::from_mut(vector);
            header.msg_hdr.msg_iovlen = 1;
            count += 1;
        }
        let received = loop {
            // SAFETY: the first `count` headers point to senders, vectors and slots of the sizes
            // given, all of which live across the call; no timeout is passed.
            let received = unsafe {
                libc::recvmmsg(
                    self.fd.as_raw_fd(),
                    headers.as_mut_ptr(),
                    count,
                    libc::MSG_DONTWAIT | libc::MSG_TRUNC,
                    ptr::null_mut(),
                )
            };
            if let Ok(received) = usize::try_from(received) {
                break received;
            }
            if let Some(received) = failed_receive(io::Error::last_os_error())? {
                return Ok(received);
            }
        };
        for (slot, (header, sender)) in headers.iter().zip(&senders).take(received).enumerate() {
            if sender.nl_pid == 0 {
                // 32 bits fit into the usize of every machine that runs this.
                let size = usize::try_from(header.msg_len).unwrap_or(usize::MAX);
                batch.filled.push((slot, size));
            }
        }
        Ok(Received::Data(received))
    }

    /// Waits until something can be received; false when the time is over or a signal came.
    pub fn wait(&self, timeout: Duration) -> Result<bool, Error> {
        let mut poll = libc::pollfd { fd: self.fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let milliseconds = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: the one pollfd lives across the call.
        let ready = unsafe { libc::poll(&raw mut poll, 1, milliseconds) };
        if ready >= 0 {
            return Ok(ready > 0);
        }
        let source = io::Error::last_os_error();
        if source.kind() == io::ErrorKind::Interrupted {
            return Ok(false);
        }
        Err(Error::call("wait for a netlink answer", source))
    }

    /// Sends a request and gives each message of its answer to `each`, until the kernel says that
    /// it was the last. The request needs [`Request::ACK`] or [`Request::DUMP`], else there is no
    /// last one. `operation` completes "cannot ..." in errors.
    pub fn ask(
        &self,
        request: &Request,
        operation: &'static str,
        buffer: &mut [u8],
        mut each: impl FnMut(&Message<'_>),
    ) -> Result<(), Error> {
        self.send(request.bytes())?;
        loop {
            let size = self.answer(operation, buffer)?;
            for message in messages(buffer.get(..size).unwrap_or_default()) {
                let message = message.map_err(Error::malformed(operation))?;
                if message.sequence != request.sequence() {
                    continue;
                }
                match message.control().map_err(Error::malformed(operation))? {
                    Control::Data => each(&message),
                    Control::Noop => {}
                    Control::Done(0) | Control::Answer(0) => return Ok(()),
                    Control::Done(errno) | Control::Answer(errno) => {
                        return Err(Error::answer(operation, errno));
                    }
                    Control::Overrun => return Err(Error::Overrun { operation }),
                }
            }
        }
    }

    /// Receives the next datagram of an answer, waiting for it if need be, and returns its size.
    pub(crate) fn answer(
        &self,
        operation: &'static str,
        buffer: &mut [u8],
    ) -> Result<usize, Error> {
        loop {
            match self.receive(buffer)? {
                Received::Data(size) => return Ok(size),
                Received::Overrun => return Err(Error::Overrun { operation }),
                Received::Cut { size } => {
                    return Err(Error::Cut { operation, size, room: buffer.len() });
                }
                Received::Empty => {
                    if !self.wait(ANSWER_TIMEOUT)? {
                        return Err(Error::Silent { operation, waited: ANSWER_TIMEOUT });
                    }
                }
            }
        }
    }

    fn set_option(&self, level: i32, option: i32, value: u32) -> io::Result<()> {
        // SAFETY: the value lives across the call and its size is passed with it.
        let code = unsafe {
            libc::setsockopt(
                self.fd.as_raw_fd(),
                level,
                option,
                ptr::from_ref(&value).cast(),
                size_of_u32(1),
            )
        };
        if code < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    fn get_option<const N: usize>(&self, option: i32, values: &mut [u32; N]) -> io::Result<()> {
        let mut size = size_of_u32(N);
        // SAFETY: the array lives across the call, and the size passed is its own.
        let code = unsafe {
            libc::getsockopt(
                self.fd.as_raw_fd(),
                libc::SOL_SOCKET,
                option,
                values.as_mut_ptr().cast(),
                &raw mut size,
            )
        };
        if code < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

/// Room for several datagrams, reused from receive to receive.
#[derive(Debug)]
pub struct Batch {
    bytes: Box<[u8]>,
    slot_bytes: usize,
    /// Slot and datagram size, in order of arrival.
    filled: Vec<(usize, usize)>,
}

impl Batch {
    /// Room for `slots` (at most 64) datagrams of up to `slot_bytes`.
    pub fn new(slots: usize, slot_bytes: usize) -> Self {
        let slots = slots.clamp(1, MAX_BATCH);
        let slot_bytes = slot_bytes.max(1);
        let bytes = vec![0; slots * slot_bytes].into_boxed_slice();
        Self { bytes, slot_bytes, filled: Vec::with_capacity(slots) }
    }

    /// The datagrams of the last receive; `None` stands for one that did not fit its slot.
    pub fn datagrams(&self) -> impl Iterator<Item = Option<&[u8]>> {
        self.filled.iter().map(|&(slot, size)| {
            let start = slot * self.slot_bytes;
            self.bytes.get(start..start + self.slot_bytes).and_then(|bytes| bytes.get(..size))
        })
    }
}

const ADDRESS_BYTES: libc::socklen_t = {
    let bytes = size_of::<libc::sockaddr_nl>();
    assert!(bytes == 12, "struct sockaddr_nl has 12 bytes");
    12
};

/// The kernel's address: port 0, no groups.
fn address() -> libc::sockaddr_nl {
    // SAFETY: all-zero is a valid sockaddr_nl.
    let mut address: libc::sockaddr_nl = unsafe { zeroed() };
    address.nl_family =
        libc::sa_family_t::try_from(libc::AF_NETLINK).expect("address families are small numbers");
    address
}

fn size_of_u32(count: usize) -> libc::socklen_t {
    libc::socklen_t::try_from(count * size_of::<u32>()).expect("socket options are short")
}

/// What a failed receive means; `None`: a signal came, try again.
fn failed_receive(error: io::Error) -> Result<Option<Received>, Error> {
    match error.raw_os_error() {
        Some(libc::EAGAIN) => Ok(Some(Received::Empty)),
        Some(libc::ENOBUFS) => Ok(Some(Received::Overrun)),
        Some(libc::EINTR) => Ok(None),
        _ => Err(Error::call("receive a netlink answer", error)),
    }
}
