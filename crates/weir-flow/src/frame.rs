//! The bytes of a batch: what the spool holds and the wire carries.
//!
//! A frame is a fixed header, notes (gaps, forgotten connections, health counts) and records. The
//! digest in the header covers everything else, so a torn, flipped or foreign frame is refused as
//! a whole; what it holds is decoded record by record, without allocating.
//!
//! All integers are little endian; `varint` is LEB128, signed values are zigzag-coded.

mod bytes;
mod sample;

use xxhash_rust::xxh3::Xxh3;

use self::bytes::{Reader, Writer};
pub use self::sample::{decode_sample, encode_sample};
use crate::batch::{BatchId, Digest, Epoch, Gap, GapReason};
use crate::counters::{Counters, Totals};
use crate::record::{FlowRecord, RecordFlags};
use crate::state::ConnectionState;
use crate::time::{BootTime, HOUR, WallTime};
use crate::tuple::Protocol;

/// `WEIRBAT` and the format's version.
const MAGIC: [u8; 8] = *b"WEIRBAT\x02";
/// The version before: its records do not tell the connection's state. A spool may still hold it.
const MAGIC_STATELESS: [u8; 8] = *b"WEIRBAT\x01";
/// Bytes of the header.
pub const HEADER_BYTES: usize = 104;
/// The largest frame anybody may hand us.
pub const FRAME_BYTES_MAX: usize = 4 << 20;
/// The longest name of a health count.
const NAME_BYTES_MAX: usize = 64;

/// Why bytes are not a frame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Shorter than it says, or than anything valid.
    #[error("frame is cut short: {what} needs more than the {have} bytes there are")]
    Truncated {
        /// What was being read.
        what: &'static str,
        /// Bytes there are.
        have: usize,
    },
    /// Larger than [`FRAME_BYTES_MAX`].
    #[error("frame of {bytes} bytes is larger than the {FRAME_BYTES_MAX} allowed")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// Not ours, or of a later format.
    #[error("not a frame of this version of weir (magic {found:02x?})")]
    Magic {
        /// What stands where the magic should.
        found: [u8; 8],
    },
    /// The content is not what was sealed.
    #[error("frame is damaged: its content does not match its digest")]
    Digest,
    /// A value that no writer of ours makes.
    #[error("frame holds an impossible {what}")]
    Impossible {
        /// Which value.
        what: &'static str,
    },
}

/// Who sealed a batch, when, and how much it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Which batch.
    pub id: BatchId,
    /// The UTC hour since 1970 in which every record's interval lies.
    pub hour: u64,
    /// What to add to boot time to get wall time, measured when the batch was sealed.
    pub wall_offset_nanos: i64,
    /// When it was sealed.
    pub sealed_at: BootTime,
    /// The boot whose clock it uses (`/proc/sys/kernel/random/boot_id`).
    pub boot: u128,
    /// Records in it.
    pub records: u32,
    /// Over everything else.
    pub digest: Digest,
}

/// What a batch says beside its records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// Something is missing.
    Gap(Gap),
    /// A connection left the table unseen: its ledger entry is gone.
    Forget(u64),
    /// A count about the agent's own work, summed by the store.
    Health(String, i64),
}

/// A frame whose digest holds.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// Its header.
    pub header: Header,
    notes: &'a [u8],
    records: &'a [u8],
    has_states: bool,
}

impl<'a> Batch<'a> {
    /// Checks a frame whole. Records and notes are decoded as they are asked for.
    pub fn decode(frame: &'a [u8]) -> Result<Self, FrameError> {
        if frame.len() > FRAME_BYTES_MAX {
            return Err(FrameError::TooLarge { bytes: frame.len() });
        }
        let mut reader = Reader::new(frame, "header");
        let magic = reader.array::<8>()?;
        if magic != MAGIC && magic != MAGIC_STATELESS {
            return Err(FrameError::Magic { found: magic });
        }
        let id = BatchId { epoch: Epoch(reader.u128()?), sequence: reader.u64()? };
        let hour = reader.u64()?;
        if hour >= u64::MAX / HOUR {
            return Err(FrameError::Impossible { what: "hour" });
        }
        let wall_offset_nanos = reader.u64()?.cast_signed();
        let sealed_at = BootTime(reader.u64()?);
        let boot = reader.u128()?;
        let (records, notes_bytes) = (reader.u32()?, reader.u32()?);
        let (payload_bytes, _reserved) = (reader.u32()?, reader.u32()?);
        let digest = Digest(reader.u128()?);
        let payload = reader.rest();
        let lengths = (to_usize(payload_bytes), to_usize(notes_bytes));
        if payload.len() < lengths.0 {
            return Err(FrameError::Truncated { what: "payload", have: frame.len() });
        }
        if payload.len() > lengths.0 || lengths.1 > payload.len() {
            return Err(FrameError::Impossible { what: "length" });
        }
        if digest_of(&frame[..HEADER_BYTES - 16], payload) != digest {
            return Err(FrameError::Digest);
        }
        let header = Header { id, hour, wall_offset_nanos, sealed_at, boot, records, digest };
        let (notes, records) = payload.split_at(lengths.1);
        Ok(Self { header, notes, records, has_states: magic == MAGIC })
    }

    /// The notes, in the order they were made.
    pub fn notes(&self) -> impl Iterator<Item = Result<Note, FrameError>> + 'a {
        let mut reader = Reader::new(self.notes, "note");
        std::iter::from_fn(move || {
            if reader.is_empty() {
                return None;
            }
            let note = decode_note(&mut reader);
            if note.is_err() {
                reader = Reader::new(&[], "note");
            }
            Some(note)
        })
    }

    /// The records, in the order they were sealed.
    pub fn records(&self) -> impl Iterator<Item = Result<FlowRecord, FrameError>> + 'a {
        let mut reader = Reader::new(self.records, "record");
        let mut left = self.header.records;
        let mut context = Context::default();
        let has_states = self.has_states;
        std::iter::from_fn(move || {
            if left == 0 {
                // Nothing may hide behind the last record.
                let trailing = !reader.is_empty();
                reader = Reader::new(&[], "record");
                return trailing.then_some(Err(FrameError::Impossible { what: "trailing bytes" }));
            }
            left -= 1;
            let record = decode_record(&mut reader, &mut context, has_states);
            if record.is_err() {
                left = 0;
                reader = Reader::new(&[], "record");
            }
            Some(record)
        })
    }
}

/// A frame in the making. Its buffers are used again for the next one.
#[derive(Debug)]
pub struct FrameBuilder {
    frame: Vec<u8>,
    notes: Vec<u8>,
    context: Context,
    records: u32,
}

impl Default for FrameBuilder {
    fn default() -> Self {
        let mut builder =
            Self { frame: Vec::new(), notes: Vec::new(), context: Context::default(), records: 0 };
        builder.clear();
        builder
    }
}

impl FrameBuilder {
    /// Records in it so far.
    pub fn records(&self) -> u32 {
        self.records
    }

    /// Bytes of the frame so far, header included.
    pub fn bytes(&self) -> usize {
        self.frame.len() + self.notes.len()
    }

    /// True when there is nothing to seal.
    pub fn is_empty(&self) -> bool {
        self.records == 0 && self.notes.is_empty()
    }

    /// Adds a record.
    #[inline]
    pub fn record(&mut self, record: &FlowRecord) {
        encode_record(&mut Writer(&mut self.frame), &mut self.context, record);
        self.records += 1;
    }

    /// Adds a note.
    pub fn note(&mut self, note: &Note) {
        encode_note(&mut Writer(&mut self.notes), note);
    }

    /// Completes the frame. The header's `records` and `digest` are filled in here.
    pub fn finish(&mut self, mut header: Header) -> (Header, &[u8]) {
        // Records were written straight behind the header's place; notes go between.
        let records_at = HEADER_BYTES;
        let notes_bytes = self.notes.len();
        let records_bytes = self.frame.len() - records_at;
        self.frame.extend_from_slice(&self.notes);
        self.frame[records_at..].rotate_right(notes_bytes);
        header.records = self.records;
        let mut head = Vec::with_capacity(HEADER_BYTES);
        let mut writer = Writer(&mut head);
        writer.bytes(&MAGIC);
        writer.u128(header.id.epoch.0);
        writer.u64(header.id.sequence);
        writer.u64(header.hour);
        writer.u64(header.wall_offset_nanos.cast_unsigned());
        writer.u64(header.sealed_at.0);
        writer.u128(header.boot);
        writer.u32(header.records);
        writer.u32(to_u32(notes_bytes));
        writer.u32(to_u32(notes_bytes + records_bytes));
        writer.u32(0);
        header.digest = digest_of(&head, &self.frame[records_at..]);
        Writer(&mut head).u128(header.digest.0);
        self.frame[..HEADER_BYTES].copy_from_slice(&head);
        (header, &self.frame)
    }

    /// Begins the next frame in the same buffers.
    pub fn clear(&mut self) {
        self.frame.clear();
        self.frame.resize(HEADER_BYTES, 0);
        self.notes.clear();
        self.records = 0;
        self.context = Context::default();
    }
}

/// What the coding of a record takes from the one before it: in a tick, intervals repeat.
#[derive(Clone, Copy, Debug, Default)]
struct Context {
    from: BootTime,
    to: BootTime,
}

mod shape {
    pub(super) const SOURCE_V6: u8 = 1;
    pub(super) const DESTINATION_V6: u8 = 1 << 1;
    pub(super) const SERVICE: u8 = 1 << 2;
    pub(super) const TRANSLATED: u8 = 1 << 3;
    pub(super) const START: u8 = 1 << 4;
    pub(super) const ZONE: u8 = 1 << 5;
    pub(super) const SAME_INTERVAL: u8 = 1 << 6;
}

fn encode_record(writer: &mut Writer<'_>, context: &mut Context, record: &FlowRecord) {
    let same = (record.interval_from, record.interval_to) == (context.from, context.to);
    let bit = |bit: u8, set: bool| if set { bit } else { 0 };
    writer.u8(bit(shape::SOURCE_V6, record.source.is_ipv6())
        | bit(shape::DESTINATION_V6, record.destination.is_ipv6())
        | bit(shape::SERVICE, record.service.is_some())
        | bit(shape::TRANSLATED, record.translated_source.is_some())
        | bit(shape::START, record.start.is_some())
        | bit(shape::ZONE, record.zone != 0)
        | bit(shape::SAME_INTERVAL, same));
    writer.varint(record.flags.0.into());
    writer.u8(record.state.code());
    writer.u64(record.connection);
    writer.u8(record.protocol.0);
    if record.zone != 0 {
        writer.varint(record.zone.into());
    }
    writer.address(record.source);
    writer.u16(record.source_port);
    writer.address(record.destination);
    writer.u16(record.destination_port);
    for (address, port) in [record.service, record.translated_source].into_iter().flatten() {
        writer.u8(u8::from(address.is_ipv6()));
        writer.address(address);
        writer.u16(port);
    }
    if let Some(start) = record.start {
        writer.u64(start.0);
    }
    if !same {
        writer.signed(record.interval_from.0.wrapping_sub(context.from.0).cast_signed());
        writer.varint(record.interval_to.0.saturating_sub(record.interval_from.0));
        *context = Context { from: record.interval_from, to: record.interval_to };
    }
    let delta = record.delta();
    for totals in [record.from, delta] {
        for counters in [totals.sent, totals.received] {
            writer.varint(counters.packets);
            writer.varint(counters.bytes);
        }
    }
}

fn decode_record(
    reader: &mut Reader<'_>,
    context: &mut Context,
    has_states: bool,
) -> Result<FlowRecord, FrameError> {
    let shape = reader.u8()?;
    let has = |bit: u8| shape & bit != 0;
    let flags = RecordFlags(narrow(reader.varint()?, "flags")?);
    let state = if has_states {
        ConnectionState::from_code(reader.u8()?)
    } else {
        ConnectionState::UNKNOWN
    };
    let connection = reader.u64()?;
    let protocol = Protocol(reader.u8()?);
    let zone = if has(shape::ZONE) { narrow(reader.varint()?, "zone")? } else { 0 };
    let source = reader.address(has(shape::SOURCE_V6))?;
    let source_port = reader.u16()?;
    let destination = reader.address(has(shape::DESTINATION_V6))?;
    let destination_port = reader.u16()?;
    let mut address_and_port = |present: bool| {
        if !present {
            return Ok(None);
        }
        let v6 = reader.u8()? != 0;
        Ok(Some((reader.address(v6)?, reader.u16()?)))
    };
    let service = address_and_port(has(shape::SERVICE))?;
    let translated_source = address_and_port(has(shape::TRANSLATED))?;
    let start = if has(shape::START) { Some(WallTime(reader.u64()?)) } else { None };
    if !has(shape::SAME_INTERVAL) {
        let from = context.from.0.wrapping_add(reader.signed()?.cast_unsigned());
        let to = from.checked_add(reader.varint()?);
        let to = to.ok_or(FrameError::Impossible { what: "interval" })?;
        *context = Context { from: BootTime(from), to: BootTime(to) };
    }
    let from = totals(reader)?;
    let delta = totals(reader)?;
    let to = sum(from, delta).ok_or(FrameError::Impossible { what: "counter" })?;
    Ok(FlowRecord {
        connection,
        zone,
        protocol,
        source,
        source_port,
        destination,
        destination_port,
        service,
        translated_source,
        start,
        interval_from: context.from,
        interval_to: context.to,
        from,
        to,
        state,
        flags,
    })
}

fn totals(reader: &mut Reader<'_>) -> Result<Totals, FrameError> {
    let mut counters =
        || Ok::<_, FrameError>(Counters { packets: reader.varint()?, bytes: reader.varint()? });
    Ok(Totals { sent: counters()?, received: counters()? })
}

fn sum(from: Totals, delta: Totals) -> Option<Totals> {
    let add = |a: Counters, b: Counters| {
        Some(Counters {
            packets: a.packets.checked_add(b.packets)?,
            bytes: a.bytes.checked_add(b.bytes)?,
        })
    };
    Some(Totals {
        sent: add(from.sent, delta.sent)?,
        received: add(from.received, delta.received)?,
    })
}

fn encode_note(writer: &mut Writer<'_>, note: &Note) {
    match note {
        Note::Gap(gap) => {
            writer.u8(1);
            writer.u8(gap.reason.code());
            let numbers =
                [gap.from_seconds, gap.to_seconds, gap.connections, gap.records, gap.bytes];
            for number in numbers {
                writer.varint(number);
            }
            // 0 means "no bound", so a bound is stored one higher.
            writer.varint(gap.bytes_bound.map_or(0, |bound| bound.saturating_add(1)));
        }
        Note::Forget(connection) => {
            writer.u8(2);
            writer.u64(*connection);
        }
        Note::Health(name, value) => {
            writer.u8(3);
            let name = &name.as_bytes()[..name.len().min(NAME_BYTES_MAX)];
            writer.u8(u8::try_from(name.len()).expect("a name is at most 64 bytes"));
            writer.bytes(name);
            writer.signed(*value);
        }
    }
}

fn decode_note(reader: &mut Reader<'_>) -> Result<Note, FrameError> {
    match reader.u8()? {
        1 => {
            let reason = GapReason::from_code(reader.u8()?)
                .ok_or(FrameError::Impossible { what: "gap reason" })?;
            Ok(Note::Gap(Gap {
                reason,
                from_seconds: reader.varint()?,
                to_seconds: reader.varint()?,
                connections: reader.varint()?,
                records: reader.varint()?,
                bytes: reader.varint()?,
                bytes_bound: reader.varint()?.checked_sub(1),
            }))
        }
        2 => Ok(Note::Forget(reader.u64()?)),
        3 => {
            let length = usize::from(reader.u8()?);
            if length > NAME_BYTES_MAX {
                return Err(FrameError::Impossible { what: "name length" });
            }
            let name = std::str::from_utf8(reader.slice(length)?)
                .map_err(|_invalid| FrameError::Impossible { what: "name" })?;
            Ok(Note::Health(name.to_owned(), reader.signed()?))
        }
        _ => Err(FrameError::Impossible { what: "kind of note" }),
    }
}

fn digest_of(head: &[u8], payload: &[u8]) -> Digest {
    let mut hasher = Xxh3::new();
    hasher.update(head);
    hasher.update(payload);
    Digest(hasher.digest128())
}

fn narrow<T: TryFrom<u64>>(value: u64, what: &'static str) -> Result<T, FrameError> {
    T::try_from(value).map_err(|_too_large| FrameError::Impossible { what })
}

fn to_usize(length: u32) -> usize {
    usize::try_from(length).expect("32 bits fit in a usize on every platform weir runs on")
}

fn to_u32(length: usize) -> u32 {
    u32::try_from(length).expect("a frame is sealed far below 4 GiB")
}
