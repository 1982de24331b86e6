//! Batches as an agent's sealing makes them: pods that talk to services and to each other.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::Result;
use weir_flow::frame::{FrameBuilder, Header};
use weir_flow::time::SECOND;
use weir_flow::{
    BatchId, BootTime, ConnectionState, Counters, Digest, Epoch, FlowRecord, Protocol, RecordFlags,
    Totals, WallTime,
};
use weir_proto::{Packer, pb};

/// Noon of a day.
pub(crate) const NOON: u64 = 12 * 3_600 + 20_000 * 86_400;
/// Pods in the cluster; those of the observing node are the first of them.
pub(crate) const PODS: u32 = 30_000;
const PODS_HERE: u64 = 100;
pub(crate) const EPOCH: Epoch = Epoch(1);

/// Packed batches, and how large they are.
pub(crate) struct Made {
    pub(crate) batches: Vec<pb::Batch>,
    pub(crate) packed_bytes: u64,
    pub(crate) frame_bytes: u64,
}

impl Made {
    pub(crate) fn new(batches: u64, records: u64) -> Result<Self> {
        let mut packer = Packer::new()?;
        let mut made = Self { batches: Vec::new(), packed_bytes: 0, frame_bytes: 0 };
        let mut random = Random(1);
        for sequence in 1..=batches {
            let frame = frame(sequence, records, &mut random);
            let batch = packer.pack(sequence, &frame)?;
            made.packed_bytes += batch.frame.len() as u64;
            made.frame_bytes += u64::from(batch.frame_bytes);
            made.batches.push(batch);
        }
        Ok(made)
    }
}

/// The address of a pod.
pub(crate) fn address(pod: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from_bits(0x0af4_0000 + 256 + pod))
}

fn frame(sequence: u64, records: u64, random: &mut Random) -> Vec<u8> {
    let mut builder = FrameBuilder::default();
    for _ in 0..records {
        builder.record(&record(random));
    }
    let header = Header {
        id: BatchId { epoch: EPOCH, sequence },
        hour: NOON / 3_600,
        wall_offset_nanos: i64::try_from(NOON * SECOND).unwrap_or_default(),
        sealed_at: BootTime(60 * SECOND),
        boot: 7,
        records: 0,
        digest: Digest(0),
    };
    builder.finish(header).1.to_vec()
}

/// A connection that has lasted for a while and moved something in the last interval.
fn record(random: &mut Random) -> FlowRecord {
    let small = |random: &mut Random, below: u64| random.next() % below;
    let pod = |random: &mut Random, of: u64| {
        address(u32::try_from(small(random, of)).unwrap_or_default())
    };
    let source = pod(random, PODS_HERE);
    let destination = pod(random, 500);
    let packets = 1 + small(random, 200);
    let sent = Counters { packets, bytes: packets * (60 + small(random, 400)) };
    let received = Counters { packets, bytes: packets * (60 + small(random, 1_400)) };
    let before = Counters { packets: 1_000, bytes: small(random, 1 << 24) };
    let from = Totals { sent: before, received: before };
    let mut to = from;
    to += Totals { sent, received };
    let service = (small(random, 2) == 0).then(|| {
        (
            IpAddr::V4(Ipv4Addr::from_bits(
                0x0a60_0001 + u32::try_from(small(random, 50)).unwrap_or_default(),
            )),
            80,
        )
    });
    FlowRecord {
        connection: random.next(),
        zone: 0,
        protocol: Protocol::TCP,
        source,
        source_port: u16::try_from(32_768 + small(random, 28_000)).unwrap_or_default(),
        destination,
        destination_port: 8_080,
        service,
        translated_source: None,
        start: Some(WallTime((NOON - 600) * SECOND + small(random, 600 * SECOND))),
        interval_from: BootTime(50 * SECOND),
        interval_to: BootTime(55 * SECOND),
        from,
        to,
        state: ConnectionState::from_code(19),
        flags: RecordFlags::default(),
    }
}

/// The same numbers in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
