//! Connections as conntrack has them: two plain dumps, and the ends in between.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::time::Duration;

use weir_agent::local::LocalDirectory;
use weir_agent::{AgentError, ConntrackSource, FlowSource, Heard, Visitor, clock};
use weir_conntrack::Events;
use weir_conntrack::sysctl::Settings;
use weir_flow::connection::{KeyMaker, Listeners};
use weir_flow::ledger::{Clock, Ledger, Surroundings};
use weir_flow::{Epoch, FlowRecord, Protocol, RecordFlags, Sample, Totals, WallTime};

use super::doubts::{self, Doubts};
use super::measured::{Bytes, Measured, Reading, Source};

/// Connections held at most; more than any table's default limit.
const MAX_CONNECTIONS: usize = 1 << 20;
/// After the first event it waits this long for more, to read them in one go.
const GATHER: Duration = Duration::from_millis(5);

/// Reads the table twice, `span` apart or as soon after as the first dump allows.
pub(super) fn read(directory: &mut LocalDirectory, span: Duration) -> Result<Reading, AgentError> {
    let settings = Settings::read();
    let tracking = doubts::probe()?;
    let mut source = ConntrackSource::open(Events::RECEIVE_BUFFER_BYTES)?;
    let mut meter = Meter::new(secret_epoch());
    let mut heard = Heard::default();

    directory.refresh(clock::wall())?;
    let listeners = Known { directory, is_liberal: settings.tcp_be_liberal == Some(true) };
    let first = clock::now();
    heard.add(dump(&mut source, &mut meter.desk(first, &listeners))?);
    loop {
        let now = clock::now();
        let passed = Duration::from_nanos(now.now.0.saturating_sub(first.now.0));
        let left = span.saturating_sub(passed);
        if left.is_zero() {
            break;
        }
        if source.wait(left)? {
            std::thread::sleep(GATHER.min(left));
            heard.add(source.drain(&mut meter.desk(clock::now(), &listeners))?);
        }
    }
    let second = clock::now();
    heard.add(dump(&mut source, &mut meter.desk(second, &listeners))?);
    // Sockets that were made in between get their names.
    directory.refresh(clock::wall())?;

    let interval = Duration::from_nanos(second.now.0.saturating_sub(first.now.0));
    let left_out = meter.book.left_out;
    let connections = meter.connections(interval);
    let doubts = doubts::list(&Doubts {
        settings,
        tracking,
        uncounted: connections.iter().filter(|connection| connection.total.is_none()).count(),
        left_out,
        lost_ends: heard.lost,
        malformed: source.malformed() + heard.malformed,
    });
    let now = second.now.to_wall(second.wall_offset_nanos);
    Ok(Reading { source: Source::Conntrack, interval, now, connections, doubts })
}

/// One whole dump with the ends that are told meanwhile.
fn dump(source: &mut ConntrackSource, desk: &mut Desk<'_>) -> Result<Heard, AgentError> {
    let mut heard = source.drain(desk)?;
    desk.begin_dump();
    source.begin_dump()?;
    while let Some(more) = source.next_piece(desk)? {
        heard.add(more);
    }
    desk.end_dump();
    heard.add(source.drain(desk)?);
    desk.judge();
    Ok(heard)
}

/// Keys are hashes of what others choose: nobody shall be able to aim for a collision.
fn secret_epoch() -> Epoch {
    let [high, low] = [0_u8, 1].map(|half| u128::from(RandomState::new().hash_one(half)));
    Epoch(high << 64 | low)
}

/// What this machine knows of who listens.
struct Known<'a> {
    directory: &'a LocalDirectory,
    is_liberal: bool,
}

impl Listeners for Known<'_> {
    fn listens(&self, protocol: Protocol, address: IpAddr, port: u16) -> bool {
        self.directory.listens(protocol, address, port)
    }

    fn kernel_is_liberal(&self) -> bool {
        self.is_liberal
    }
}

/// The ledger does the accounting: who is who, each connection once, turned the right way round.
#[derive(Debug)]
struct Meter {
    ledger: Ledger,
    keys: KeyMaker,
    book: Book,
}

impl Meter {
    fn new(epoch: Epoch) -> Self {
        let (keys, book) = (KeyMaker::new(epoch), Book::default());
        Self { ledger: Ledger::new(epoch, false), keys, book }
    }

    /// Open for work; what is read from now on was read at `clock`.
    fn desk<'a>(&'a mut self, clock: Clock, listeners: &'a dyn Listeners) -> Desk<'a> {
        let Self { ledger, keys, book } = self;
        book.begun.get_or_insert_with(|| clock.now.to_wall(clock.wall_offset_nanos));
        Desk { ledger, keys, clock, pen: Pen { book, listeners } }
    }

    /// All that was seen, rates over `interval`.
    fn connections(self, interval: Duration) -> Vec<Measured> {
        let Book { accounts, sightings, .. } = self.book;
        let measured = accounts.into_iter().map(|(key, account)| {
            account.measured(sightings.get(&key).copied().unwrap_or_default(), interval)
        });
        measured.collect()
    }
}

/// The books, open.
struct Desk<'a> {
    ledger: &'a mut Ledger,
    keys: &'a KeyMaker,
    clock: Clock,
    pen: Pen<'a>,
}

impl Desk<'_> {
    fn begin_dump(&mut self) {
        self.pen.book.dumps += 1;
        self.ledger.begin_dump(self.clock);
    }

    fn end_dump(&mut self) {
        self.ledger.end_dump(true, &mut self.pen);
    }

    fn judge(&mut self) {
        // What has gone without a word keeps its last numbers and has no rate.
        let _forgotten = self.ledger.judge(&mut self.pen);
        self.pen.book.judged = self.pen.book.dumps;
    }
}

impl Visitor for Desk<'_> {
    fn last_word(&mut self, sample: &Sample) {
        self.pen.book.see(self.keys.connection(sample), sample, true);
        self.ledger.destroyed(sample, self.clock, &mut self.pen);
    }

    fn entry(&mut self, sample: &Sample) {
        self.pen.book.see(self.keys.connection(sample), sample, false);
        self.ledger.observe(sample, &mut self.pen);
    }
}

/// Writes the ledger's records into the book.
struct Pen<'a> {
    book: &'a mut Book,
    listeners: &'a dyn Listeners,
}

impl Surroundings for Pen<'_> {
    fn record(&mut self, record: &FlowRecord) {
        self.book.enter(record);
    }

    fn listeners(&self) -> &dyn Listeners {
        self.listeners
    }
}

#[derive(Debug, Default)]
struct Book {
    accounts: HashMap<u64, Account>,
    sightings: HashMap<u64, Sighting>,
    /// When the first dump began.
    begun: Option<WallTime>,
    /// Dumps begun, and judged.
    dumps: u32,
    judged: u32,
    /// Connections for which there was no room.
    left_out: u64,
}

/// What was billed of one connection.
#[derive(Debug)]
struct Account {
    record: FlowRecord,
    total: Totals,
    /// Since the first dump; `None` where it is not known what was before it.
    growth: Option<Totals>,
}

/// What an entry said last.
#[derive(Clone, Copy, Debug, Default)]
struct Sighting {
    state: Option<&'static str>,
    /// Seen after the first dump was judged.
    again: bool,
}

impl Book {
    fn see(&mut self, key: u64, sample: &Sample, ended: bool) {
        let again = self.judged > 0;
        let state = Some(if ended { "ended" } else { state(sample) });
        match self.sightings.entry(key) {
            // A dump may show an entry whose end was told already.
            Entry::Occupied(known) if known.get().state == Some("ended") => {}
            Entry::Occupied(mut known) => *known.get_mut() = Sighting { state, again },
            Entry::Vacant(_) if self.accounts.len() >= MAX_CONNECTIONS => {}
            Entry::Vacant(unknown) => {
                unknown.insert(Sighting { state, again });
            }
        }
    }

    fn enter(&mut self, record: &FlowRecord) {
        let has_room = self.accounts.len() < MAX_CONNECTIONS;
        match self.accounts.entry(record.connection) {
            Entry::Occupied(mut known) => {
                let account = known.get_mut();
                if let Some(growth) = &mut account.growth {
                    *growth += record.delta();
                }
                account.total = record.to;
            }
            Entry::Vacant(_) if !has_room => self.left_out += 1,
            Entry::Vacant(unknown) => {
                let first = self.judged == 0;
                // Without a start, what the first dump did not show is new.
                let born = record.start.map_or(!first, |start| Some(start) >= self.begun);
                let growth = if born {
                    Some(record.delta())
                } else if first && !record.flags.has(RecordFlags::CLOSED) {
                    Some(Totals::default())
                } else {
                    None
                };
                unknown.insert(Account { record: *record, total: record.to, growth });
            }
        }
    }
}

impl Account {
    fn measured(self, sighting: Sighting, interval: Duration) -> Measured {
        let Self { record, total, growth } = self;
        let counted = !record.flags.has(RecordFlags::UNCOUNTED);
        let growth = growth.filter(|_| counted && sighting.again).map(bytes);
        Measured {
            protocol: record.protocol,
            source: (record.source, record.source_port),
            destination: (record.destination, record.destination_port),
            service: record.service,
            translated_source: record.translated_source,
            start: record.start,
            state: sighting.state,
            total: counted.then(|| bytes(total)),
            per_second: growth.and_then(|growth| growth.per_second(interval)),
        }
    }
}

fn bytes(totals: Totals) -> Bytes {
    Bytes { sent: totals.sent.bytes, received: totals.received.bytes }
}

fn state(sample: &Sample) -> &'static str {
    match sample.tcp {
        Some(tcp) => tcp.name(),
        None if sample.status.assured() => "assured",
        None if sample.status.seen_reply() => "replied",
        None => "unreplied",
    }
}

#[cfg(test)]
mod tests;
