//! Reading all entries of the table.

use weir_flow::Sample;

use crate::Error;
use crate::message::{KIND_ENTRY, KIND_GET, decode};
use crate::netlink::{Control, Request, Socket, messages};

/// The kernel fills no more than 32448 bytes per receive, so more room buys nothing.
const BUFFER_BYTES: usize = 32 * 1024;
const OPERATION: &str = "dump the conntrack table";

/// A reader of the whole conntrack table, on a socket of its own, for one dump after another.
///
/// It asks for a plain GET: counters are read and left as they are.
#[derive(Debug)]
pub struct Dump {
    socket: Socket,
    buffer: Box<[u8]>,
    sequence: u32,
    running: bool,
    malformed: u64,
}

impl Dump {
    /// Opens the socket. Whether the kernel will answer shows in the first [`Dump::next_chunk`].
    pub fn open() -> Result<Self, Error> {
        Ok(Self {
            socket: Socket::open(libc::NETLINK_NETFILTER)?,
            buffer: vec![0; BUFFER_BYTES].into_boxed_slice(),
            sequence: 0,
            running: false,
            malformed: 0,
        })
    }

    /// Asks for all entries of both families. A dump that was not read to its end is given up.
    pub fn start(&mut self) -> Result<(), Error> {
        if self.running {
            // Closing is the one way to make the kernel forget the rest of a dump.
            self.socket = Socket::open(libc::NETLINK_NETFILTER)?;
            self.running = false;
        }
        self.sequence = self.sequence.wrapping_add(1);
        // struct nfgenmsg with family AF_UNSPEC: IPv4 and IPv6 in one dump.
        let mut request = Request::new(KIND_GET, Request::DUMP, &[0; 4]);
        request.set_sequence(self.sequence);
        // Set first: a failed send may leave an answer behind.
        self.running = true;
        self.socket.send(request.bytes())
    }

    /// Receives the next piece of the dump, at most 32 KiB (about 130 entries). `None`: that was
    /// all. After an error the next [`Dump::start`] begins afresh.
    pub fn next_chunk(&mut self) -> Result<Option<Chunk<'_>>, Error> {
        if !self.running {
            return Ok(None);
        }
        let size = self.socket.answer(OPERATION, &mut self.buffer)?;
        let datagram = self.buffer.get(..size).unwrap_or_default();
        let mut entries = false;
        for message in messages(datagram) {
            let message = message.map_err(Error::malformed(OPERATION))?;
            if message.sequence != self.sequence {
                continue;
            }
            match message.control().map_err(Error::malformed(OPERATION))? {
                Control::Data => entries = true,
                Control::Noop => {}
                Control::Done(0) | Control::Answer(0) => self.running = false,
                Control::Done(errno) | Control::Answer(errno) => {
                    self.running = false;
                    return Err(Error::answer(OPERATION, errno));
                }
                Control::Overrun => return Err(Error::Overrun { operation: OPERATION }),
            }
        }
        if !entries && !self.running {
            return Ok(None);
        }
        Ok(Some(Chunk { datagram, sequence: self.sequence, malformed: &mut self.malformed }))
    }

    /// Entries that could not be read and were passed over, since the opening.
    pub fn malformed(&self) -> u64 {
        self.malformed
    }
}

/// One receive's worth of entries.
#[derive(Debug)]
#[must_use = "the entries are lost with the chunk"]
pub struct Chunk<'a> {
    datagram: &'a [u8],
    sequence: u32,
    malformed: &'a mut u64,
}

impl Chunk<'_> {
    /// Gives each entry to `each`. One that cannot be read is counted ([`Dump::malformed`]) and
    /// passed over.
    pub fn entries(self, mut each: impl FnMut(&Sample)) {
        let mut sample = Sample::default();
        // The messages were walked once without an error, so the Ok ones are all there are.
        for message in messages(self.datagram).flatten() {
            if message.kind != KIND_ENTRY || message.sequence != self.sequence {
                continue;
            }
            match decode(message.payload, &mut sample) {
                Ok(()) => each(&sample),
                Err(_) => *self.malformed += 1,
            }
        }
    }
}
