//! The bytes of batches and last words: what is written is read back, what is damaged is refused.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;
use weir_flow::batch::{Gap, GapReason};
use weir_flow::frame::{
    Batch, FrameBuilder, FrameError, HEADER_BYTES, Header, Note, decode_sample, encode_sample,
};
use weir_flow::journal::{decode_last_words, encode_last_word};
use weir_flow::ledger::Clock;
use weir_flow::{
    BatchId, BootTime, ConnectionState, Counters, Digest, Epoch, FlowRecord, Protocol, RecordFlags,
    Sample, Status, TcpState, Totals, Tuple, WallTime,
};

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<u32>().prop_map(|bits| IpAddr::V4(Ipv4Addr::from(bits))),
        any::<u128>().prop_map(|bits| IpAddr::V6(Ipv6Addr::from(bits))),
    ]
}

/// Small numbers, numbers of every length, and the ends.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![0_u64..300, (any::<u64>(), 0_u32..64).prop_map(|(n, by)| n >> by), Just(u64::MAX)]
}

fn totals() -> impl Strategy<Value = Totals> {
    [number(), number(), number(), number()].prop_map(|[a, b, c, d]| Totals {
        sent: Counters { packets: a, bytes: b },
        received: Counters { packets: c, bytes: d },
    })
}

/// Counters before and after.
fn growth() -> impl Strategy<Value = (Totals, Totals)> {
    (totals(), totals()).prop_map(|(one, other)| {
        let sort = |one: Counters, other: Counters| {
            let least = Counters {
                packets: one.packets.min(other.packets),
                bytes: one.bytes.min(other.bytes),
            };
            let most = Counters {
                packets: one.packets.max(other.packets),
                bytes: one.bytes.max(other.bytes),
            };
            (least, most)
        };
        let (sent, received) = (sort(one.sent, other.sent), sort(one.received, other.received));
        let from = Totals { sent: sent.0, received: received.0 };
        (from, Totals { sent: sent.1, received: received.1 })
    })
}

/// Few enough that neighbouring records often share one, which is coded differently.
fn interval() -> impl Strategy<Value = (BootTime, BootTime)> {
    let one = (number(), number()).prop_map(|(a, b)| (BootTime(a.min(b)), BootTime(a.max(b))));
    prop_oneof![Just((BootTime(5), BootTime(9))), Just((BootTime(0), BootTime(0))), one]
}

fn record() -> impl Strategy<Value = FlowRecord> {
    let end = || (address(), any::<u16>());
    let other = || proptest::option::of(end());
    let zone = prop_oneof![Just(0), any::<u16>()];
    let names =
        (any::<u64>(), zone, any::<u8>(), any::<(u16, u8)>(), proptest::option::of(number()));
    (names, (end(), end(), other(), other()), interval(), growth()).prop_map(
        |((connection, zone, protocol, (flags, state), start), ends, interval, (from, to))| {
            FlowRecord {
                connection,
                zone,
                protocol: Protocol(protocol),
                source: ends.0.0,
                source_port: ends.0.1,
                destination: ends.1.0,
                destination_port: ends.1.1,
                service: ends.2,
                translated_source: ends.3,
                start: start.map(WallTime),
                interval_from: interval.0,
                interval_to: interval.1,
                from,
                to,
                state: ConnectionState::from_code(state),
                flags: RecordFlags(flags),
            }
        },
    )
}

fn note() -> impl Strategy<Value = Note> {
    let numbers = [number(), number(), number(), number(), number()];
    // A bound of u64::MAX says nothing and has no code of its own.
    let bound = proptest::option::of(number().prop_map(|bound| bound.min(u64::MAX - 1)));
    let gap = (proptest::sample::select(&GapReason::ALL[..]), numbers, bound);
    prop_oneof![
        gap.prop_map(|(reason, [from_seconds, to_seconds, connections, records, bytes], bound)| {
            let gap = Gap { reason, from_seconds, to_seconds, ..Gap::default() };
            Note::Gap(Gap { connections, records, bytes, bytes_bound: bound, ..gap })
        }),
        any::<u64>().prop_map(Note::Forget),
        ("[a-z_]{0,64}", any::<i64>()).prop_map(|(name, value)| Note::Health(name, value)),
    ]
}

fn header() -> impl Strategy<Value = Header> {
    (any::<u128>(), any::<u128>(), [number(), number(), number()], any::<i64>()).prop_map(
        |(epoch, boot, [sequence, hour, sealed_at], wall_offset_nanos)| Header {
            id: BatchId { epoch: Epoch(epoch), sequence },
            // The hours of 64-bit nanoseconds.
            hour: hour % (u64::MAX / 3_600_000_000_000),
            wall_offset_nanos,
            sealed_at: BootTime(sealed_at),
            boot,
            // Filled in by the builder.
            records: 0,
            digest: Digest(0),
        },
    )
}

fn tuple() -> impl Strategy<Value = Tuple> {
    (any::<u8>(), address(), address(), any::<u16>(), any::<u16>()).prop_map(
        |(protocol, source, destination, source_port, destination_port)| Tuple {
            protocol: Protocol(protocol),
            source,
            destination,
            source_port,
            destination_port,
        },
    )
}

fn sample() -> impl Strategy<Value = Sample> {
    let tcp = proptest::option::of(any::<[u8; 3]>());
    let times = (proptest::option::of(number()), proptest::option::of(number()));
    let names = (any::<u32>(), any::<u16>(), any::<u32>(), any::<u32>());
    (names, tuple(), tuple(), proptest::option::of(totals()), tcp, times).prop_map(
        |((id, zone, status, mark), original, reply, totals, tcp, (start, stop))| Sample {
            id,
            zone,
            original,
            reply,
            totals,
            status: Status(status),
            mark,
            tcp: tcp.map(|[state, flags_original, flags_reply]| TcpState {
                state,
                flags_original,
                flags_reply,
            }),
            start: start.map(WallTime),
            stop: stop.map(WallTime),
        },
    )
}

fn sealed(header: Header, records: &[FlowRecord], notes: &[Note]) -> (Header, Vec<u8>) {
    let mut builder = FrameBuilder::default();
    for record in records {
        builder.record(record);
    }
    for note in notes {
        builder.note(note);
    }
    let (header, frame) = builder.finish(header);
    (header, frame.to_vec())
}

/// All of a frame, or the first thing wrong with it.
fn read(frame: &[u8]) -> Result<(Header, Vec<FlowRecord>, Vec<Note>), FrameError> {
    let batch = Batch::decode(frame)?;
    let records = batch.records().collect::<Result<_, _>>()?;
    Ok((batch.header, records, batch.notes().collect::<Result<_, _>>()?))
}

fn words(words: &[(Sample, u64, i64)]) -> (Vec<u8>, Vec<usize>) {
    let (mut bytes, mut ends) = (Vec::new(), vec![0]);
    for (sample, now, wall_offset_nanos) in words {
        let read_at = Clock { now: BootTime(*now), wall_offset_nanos: *wall_offset_nanos };
        encode_last_word(&mut bytes, sample, read_at);
        ends.push(bytes.len());
    }
    (bytes, ends)
}

fn plain(words: Vec<(Sample, Clock)>) -> Vec<(Sample, u64, i64)> {
    let plain = |(sample, at): (Sample, Clock)| (sample, at.now.0, at.wall_offset_nanos);
    words.into_iter().map(plain).collect()
}

proptest! {
    #[test]
    fn a_frame_is_read_as_it_was_written(
        header in header(),
        records in proptest::collection::vec(record(), 0..12),
        notes in proptest::collection::vec(note(), 0..6),
    ) {
        let (header, frame) = sealed(header, &records, &notes);
        prop_assert_eq!(header.records as usize, records.len());
        prop_assert_eq!(read(&frame).unwrap(), (header, records, notes));
    }

    #[test]
    fn a_builder_carries_nothing_from_one_frame_to_the_next(
        header in header(),
        first in proptest::collection::vec(record(), 1..6),
        second in proptest::collection::vec(record(), 0..6),
        note in note(),
    ) {
        let mut builder = FrameBuilder::default();
        for record in &first {
            builder.record(record);
        }
        builder.note(&note);
        builder.finish(header);
        builder.clear();
        prop_assert!(builder.is_empty());
        for record in &second {
            builder.record(record);
        }
        let (sealed_header, frame) = builder.finish(header);
        let alone = sealed(header, &second, &[]);
        prop_assert_eq!((sealed_header, frame), (alone.0, &alone.1[..]));
    }

    #[test]
    fn a_cut_or_longer_frame_is_refused(
        header in header(),
        records in proptest::collection::vec(record(), 0..3),
        notes in proptest::collection::vec(note(), 0..3),
        more in any::<u8>(),
    ) {
        let (_, mut frame) = sealed(header, &records, &notes);
        for length in 0..frame.len() {
            prop_assert!(Batch::decode(&frame[..length]).is_err(), "cut to {}", length);
        }
        frame.push(more);
        prop_assert!(Batch::decode(&frame).is_err());
    }

    #[test]
    fn every_flipped_bit_is_noticed(
        header in header(),
        records in proptest::collection::vec(record(), 0..3),
        notes in proptest::collection::vec(note(), 0..3),
    ) {
        let (_, mut frame) = sealed(header, &records, &notes);
        for place in 0..frame.len() * 8 {
            frame[place / 8] ^= 1 << (place % 8);
            prop_assert!(Batch::decode(&frame).is_err(), "bit {}", place);
            frame[place / 8] ^= 1 << (place % 8);
        }
        prop_assert!(Batch::decode(&frame).is_ok());
    }

    #[test]
    fn a_sample_is_read_as_it_was_written_and_no_other_length(sample in sample(), more: u8) {
        let mut bytes = Vec::new();
        encode_sample(&mut bytes, &sample);
        prop_assert_eq!(decode_sample(&bytes).unwrap(), sample);
        for length in 0..bytes.len() {
            prop_assert!(decode_sample(&bytes[..length]).is_err(), "cut to {}", length);
        }
        bytes.push(more);
        prop_assert!(decode_sample(&bytes).is_err());
    }

    #[test]
    fn any_cut_of_the_last_words_yields_a_prefix(
        said in proptest::collection::vec((sample(), number(), any::<i64>()), 0..6),
    ) {
        let (bytes, ends) = words(&said);
        for length in 0..=bytes.len() {
            let (read, good) = decode_last_words(&bytes[..length]);
            let whole = ends.iter().filter(|end| **end <= length).count() - 1;
            prop_assert_eq!(good, ends[whole]);
            prop_assert_eq!(&plain(read)[..], &said[..whole]);
        }
    }

    #[test]
    fn a_flipped_bit_ends_the_last_words_there(
        said in proptest::collection::vec((sample(), number(), any::<i64>()), 1..4),
        place in any::<proptest::sample::Index>(),
    ) {
        let (mut bytes, ends) = words(&said);
        let place = place.index(bytes.len() * 8);
        bytes[place / 8] ^= 1 << (place % 8);
        let (read, good) = decode_last_words(&bytes);
        let whole = ends.iter().filter(|end| **end <= place / 8).count() - 1;
        prop_assert_eq!(good, ends[whole]);
        prop_assert_eq!(&plain(read)[..], &said[..whole]);
    }

    #[test]
    fn no_bytes_break_the_readers(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(Batch::decode(&bytes).is_err());
        let (_, good) = decode_last_words(&bytes);
        prop_assert!(good <= bytes.len());
        let _unused = decode_sample(&bytes);
    }
}

/// Sealed by a weir whose records did not tell the connection's state.
#[test]
fn a_frame_of_the_version_before_is_read_without_states() {
    let frame = &include_bytes!("../../../fuzz/corpus/spool/03")[1..];
    assert_eq!(frame[7], 1);
    let batch = Batch::decode(frame).unwrap();
    let records: Vec<_> = batch.records().map(Result::unwrap).collect();
    assert!(!records.is_empty());
    assert_eq!(records.len(), batch.header.records as usize);
    assert!(records.iter().all(|record| record.state == ConnectionState::UNKNOWN));
}

#[test]
fn a_frame_says_what_is_wrong_with_it() {
    let header = Header {
        id: BatchId { epoch: Epoch(1), sequence: 1 },
        hour: 0,
        wall_offset_nanos: 0,
        sealed_at: BootTime(0),
        boot: 0,
        records: 0,
        digest: Digest(0),
    };
    let (_, frame) = sealed(header, &[], &[Note::Forget(7)]);
    let spoiled = |spoil: &dyn Fn(&mut Vec<u8>)| {
        let mut frame = frame.clone();
        spoil(&mut frame);
        Batch::decode(&frame).unwrap_err().to_string()
    };
    assert_eq!(
        spoiled(&|frame| frame[HEADER_BYTES] ^= 1),
        "frame is damaged: its content does not match its digest"
    );
    assert_eq!(
        spoiled(&|frame| frame[7] = 3),
        "not a frame of this version of weir (magic [57, 45, 49, 52, 42, 41, 54, 03])"
    );
    assert_eq!(spoiled(&|frame| frame.push(0)), "frame holds an impossible length");
    assert_eq!(
        spoiled(&|frame| frame.truncate(HEADER_BYTES)),
        "frame is cut short: payload needs more than the 104 bytes there are"
    );
    let too_large = weir_flow::frame::FRAME_BYTES_MAX + 1;
    assert_eq!(
        spoiled(&|frame| frame.resize(too_large, 0)),
        "frame of 4194305 bytes is larger than the 4194304 allowed"
    );
}
