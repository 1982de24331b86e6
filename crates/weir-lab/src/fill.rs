//! Synthetic entries, inserted into the conntrack table of the calling thread's network namespace
//! through ctnetlink, for benchmarks and tests of readers.
//!
//! One entry in ten is IPv6; two thirds are TCP, the others UDP. Their counters stand at zero:
//! no packet ever belonged to them.

use std::fs::{self, File, OpenOptions};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::FileExt as _;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use weir_conntrack::message::{KIND_ENDED, KIND_ENTRY, kind, put_tuple};
use weir_conntrack::netlink::{Control, Received, Request, Socket, messages};
use weir_flow::{Protocol, Tuple};

/// Send no more than this at once; the kernel refuses datagrams beyond the send buffer.
const DATAGRAM_BYTES: usize = 60_000;
/// `SEEN_REPLY`, `ASSURED`, `CONFIRMED` of `enum ip_conntrack_status`.
const STATUS: u32 = 0xe;
/// Long enough to outlive every benchmark.
const TIMEOUT_SECONDS: u32 = 86_400;
/// `TCP_CONNTRACK_ESTABLISHED`.
const ESTABLISHED: u8 = 3;
/// Ports per source address.
const PORTS: u32 = 50_000;
const UDP: Protocol = Protocol(17);
const MAX_PATH: &str = "/proc/sys/net/netfilter/nf_conntrack_max";

/// Inserts `entries` entries, numbers `first..first + entries`, each number another tuple.
pub fn fill(first: u32, entries: u32) -> Result<()> {
    let mut sender = Sender::open()?;
    for number in first..first.saturating_add(entries) {
        sender.insert(number)?;
    }
    sender.flush()
}

/// Deletes every entry of the namespace, of whatever origin.
pub fn flush() -> Result<()> {
    let mut sender = Sender::open()?;
    sender.datagram.begin(KIND_ENDED, 0, 0, &[0; 4]);
    sender.flush()
}

/// What a churn did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Churned {
    /// Entries made, and then deleted, each of which sends one DESTROY event.
    pub entries: u64,
    /// How long it took.
    pub took: Duration,
}

impl Churned {
    /// Entries per second reached.
    pub fn rate(self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a rate for display")]
        let entries = self.entries as f64;
        entries / self.took.as_secs_f64()
    }
}

/// Makes and deletes entries at `rate` per second in even steps for `duration`, or longer where
/// the machine does not reach that rate: the number of entries is `rate` × `duration` in any case.
pub fn churn(rate: u32, duration: Duration) -> Result<Churned> {
    /// Pairs of one insert and one delete that fit into a datagram.
    const STEP: u32 = 200;
    ensure!(rate > 0, "a churn needs a rate above 0 per second");
    let total = u64::from(rate) * duration.as_millis().try_into().unwrap_or(u64::MAX) / 1000;
    let mut sender = Sender::open()?;
    let began = Instant::now();
    let mut done = 0_u64;
    while done < total {
        let step = u64::from(STEP).min(total - done);
        let numbers = (done..done + step).map(|number| {
            u32::try_from(number % u64::from(u32::MAX)).expect("a remainder below 2^32")
        });
        for number in numbers.clone() {
            put_insert(&mut sender.datagram, number);
        }
        for number in numbers {
            put_delete(&mut sender.datagram, number);
        }
        sender.flush()?;
        done += step;
        #[expect(clippy::cast_precision_loss, reason = "below 2^52 in any bounded run")]
        let due = Duration::from_secs_f64(done as f64 / f64::from(rate));
        if let Some(early) = due.checked_sub(began.elapsed()) {
            thread::sleep(early);
        }
    }
    Ok(Churned { entries: done, took: began.elapsed() })
}

/// The tuple with this number.
pub fn tuple(number: u32) -> Tuple {
    let host = number / PORTS;
    let port = 10_000 + u16::try_from(number % PORTS).expect("ports end at 60,000");
    let [_, a, b, c] = host.to_be_bytes();
    let tcp = number % 3 != 2;
    let (source, destination) = if number % 10 == 9 {
        (
            IpAddr::V6(Ipv6Addr::new(
                0xfd00,
                0x244,
                0,
                0,
                0,
                0,
                u16::from(a) << 8 | u16::from(b),
                u16::from(c) + 2,
            )),
            IpAddr::V6(Ipv6Addr::new(0xfd00, 0x96, 0, 0, 0, 0, 0, 10)),
        )
    } else {
        (IpAddr::V4(Ipv4Addr::new(10, a, b, c)), IpAddr::V4(Ipv4Addr::new(10, 200, 0, 10)))
    };
    Tuple {
        protocol: if tcp { Protocol::TCP } else { UDP },
        source,
        destination,
        source_port: port,
        destination_port: if tcp { 443 } else { 53 },
    }
}

/// Moves the calling thread, and the threads and processes it starts from now on, into a network
/// namespace of its own, which ends with the last of them. Needs root.
pub fn own_namespace() -> Result<()> {
    #[expect(unsafe_code, reason = "a system call that the standard library does not have")]
    // SAFETY: takes a number and changes nothing in this process's memory.
    let code = unsafe { libc::unshare(libc::CLONE_NEWNET) };
    if code < 0 {
        return Err(std::io::Error::last_os_error()).context("cannot make a network namespace");
    }
    Ok(())
}

/// Raises the table's limit while it lives, and puts the former limit back.
///
/// The limit is one for all network namespaces and can be written only in the initial one, so
/// this must be made before [`own_namespace`].
#[derive(Debug)]
pub struct RaisedMax {
    /// Opened in the initial namespace, writable from every other.
    file: File,
    former: Option<String>,
}

impl RaisedMax {
    /// Makes room for `entries`.
    pub fn at_least(entries: u64) -> Result<Self> {
        let former = fs::read_to_string(MAX_PATH).context("cannot read nf_conntrack_max")?;
        let file = OpenOptions::new()
            .write(true)
            .open(MAX_PATH)
            .context("cannot open nf_conntrack_max for writing")?;
        if former.trim().parse::<u64>()? >= entries {
            return Ok(Self { file, former: None });
        }
        // At offset 0 each time: the kernel ignores what is written behind it.
        file.write_all_at(entries.to_string().as_bytes(), 0)
            .context("cannot raise nf_conntrack_max")?;
        Ok(Self { file, former: Some(former) })
    }
}

impl Drop for RaisedMax {
    fn drop(&mut self) {
        if let Some(former) = &self.former
            && let Err(error) = self.file.write_all_at(former.trim().as_bytes(), 0)
        {
            tell(&format!("nf_conntrack_max could not be put back to {}: {error}", former.trim()));
        }
    }
}

#[expect(
    clippy::print_stderr,
    reason = "a failed clean-up in a destructor has nobody else to tell"
)]
fn tell(text: &str) {
    eprintln!("{text}");
}

/// Collects requests into datagrams and sends them.
struct Sender {
    socket: Socket,
    datagram: Request,
    answers: Vec<u8>,
}

impl Sender {
    fn open() -> Result<Self> {
        let socket = Socket::open(libc::NETLINK_NETFILTER)?;
        // One refused message is answered with the message itself: leave room for all of them.
        socket.set_receive_buffer(4 << 20)?;
        Ok(Self { socket, datagram: Request::default(), answers: vec![0; 64 * 1024] })
    }

    fn insert(&mut self, number: u32) -> Result<()> {
        put_insert(&mut self.datagram, number);
        if self.datagram.bytes().len() > DATAGRAM_BYTES { self.flush() } else { Ok(()) }
    }

    /// Sends what was collected. The requests ask for no acknowledgement, so that only errors
    /// come back, and the kernel has put them into the socket before sending returns.
    fn flush(&mut self) -> Result<()> {
        if self.datagram.bytes().is_empty() {
            return Ok(());
        }
        self.socket.send(self.datagram.bytes())?;
        self.datagram.clear();
        loop {
            let size = match self.socket.receive(&mut self.answers)? {
                Received::Data(size) => size,
                Received::Empty => return Ok(()),
                Received::Overrun | Received::Cut { .. } => bail!("the kernel refused too much"),
            };
            for message in messages(self.answers.get(..size).unwrap_or_default()) {
                if let Control::Answer(errno) = message?.control()?
                    && errno != 0
                {
                    return Err(std::io::Error::from_raw_os_error(errno))
                        .context("the kernel refused a synthetic conntrack entry");
                }
            }
        }
    }
}

fn put_insert(datagram: &mut Request, number: u32) {
    let original = tuple(number);
    let reply = Tuple {
        source: original.destination,
        destination: original.source,
        source_port: original.destination_port,
        destination_port: original.source_port,
        ..original
    };
    datagram.begin(KIND_ENTRY, Request::CREATE | Request::EXCLUSIVE, 0, &header(&original));
    put_tuple(datagram, kind::TUPLE_ORIG, &original);
    put_tuple(datagram, kind::TUPLE_REPLY, &reply);
    datagram.attribute(kind::STATUS, &STATUS.to_be_bytes());
    if original.protocol == Protocol::TCP {
        let protoinfo = datagram.open(kind::PROTOINFO);
        let tcp = datagram.open(kind::PROTOINFO_TCP);
        datagram.attribute(kind::TCP_STATE, &[ESTABLISHED]).close(tcp).close(protoinfo);
    }
    datagram
        .attribute(kind::TIMEOUT, &TIMEOUT_SECONDS.to_be_bytes())
        .attribute(kind::MARK, &(number % 16).to_be_bytes());
}

fn put_delete(datagram: &mut Request, number: u32) {
    let original = tuple(number);
    datagram.begin(KIND_ENDED, 0, 0, &header(&original));
    put_tuple(datagram, kind::TUPLE_ORIG, &original);
}

/// `struct nfgenmsg` of the tuple's family (`AF_INET`, `AF_INET6`).
fn header(tuple: &Tuple) -> [u8; 4] {
    [if tuple.source.is_ipv4() { 2 } else { 10 }, 0, 0, 0]
}
