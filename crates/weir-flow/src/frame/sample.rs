//! A connection's last word as it is written to the open frame, before anybody asks the ledger.

use super::bytes::{Reader, Writer};
use super::{FrameError, totals};
use crate::sample::{Sample, Status, TcpState};
use crate::time::WallTime;
use crate::tuple::{Protocol, Tuple};

const COUNTED: u8 = 1;
const TCP: u8 = 1 << 1;
const START: u8 = 1 << 2;
const STOP: u8 = 1 << 3;

/// Appends a sample to `bytes`.
pub fn encode_sample(bytes: &mut Vec<u8>, sample: &Sample) {
    let mut writer = Writer(bytes);
    let bit = |bit: u8, set: bool| if set { bit } else { 0 };
    writer.u8(bit(COUNTED, sample.totals.is_some())
        | bit(TCP, sample.tcp.is_some())
        | bit(START, sample.start.is_some())
        | bit(STOP, sample.stop.is_some()));
    writer.u32(sample.id);
    writer.u16(sample.zone);
    writer.u32(sample.status.0);
    writer.u32(sample.mark);
    for tuple in [&sample.original, &sample.reply] {
        writer.u8(tuple.protocol.0);
        writer.u8(u8::from(tuple.source.is_ipv6()) | u8::from(tuple.destination.is_ipv6()) << 1);
        writer.address(tuple.source);
        writer.address(tuple.destination);
        writer.u16(tuple.source_port);
        writer.u16(tuple.destination_port);
    }
    if let Some(totals) = sample.totals {
        for counters in [totals.sent, totals.received] {
            writer.varint(counters.packets);
            writer.varint(counters.bytes);
        }
    }
    if let Some(tcp) = sample.tcp {
        writer.bytes(&[tcp.state, tcp.flags_original, tcp.flags_reply]);
    }
    for time in [sample.start, sample.stop].into_iter().flatten() {
        writer.u64(time.0);
    }
}

/// Reads one sample from the whole of `bytes`.
pub fn decode_sample(bytes: &[u8]) -> Result<Sample, FrameError> {
    let mut reader = Reader::new(bytes, "sample");
    let shape = reader.u8()?;
    let has = |bit: u8| shape & bit != 0;
    let mut sample = Sample {
        id: reader.u32()?,
        zone: reader.u16()?,
        status: Status(reader.u32()?),
        mark: reader.u32()?,
        ..Sample::default()
    };
    sample.original = tuple(&mut reader)?;
    sample.reply = tuple(&mut reader)?;
    sample.totals = if has(COUNTED) { Some(totals(&mut reader)?) } else { None };
    if has(TCP) {
        let [state, flags_original, flags_reply] = reader.array()?;
        sample.tcp = Some(TcpState { state, flags_original, flags_reply });
    }
    sample.start = if has(START) { Some(WallTime(reader.u64()?)) } else { None };
    sample.stop = if has(STOP) { Some(WallTime(reader.u64()?)) } else { None };
    if reader.is_empty() { Ok(sample) } else { Err(FrameError::Impossible { what: "length" }) }
}

fn tuple(reader: &mut Reader<'_>) -> Result<Tuple, FrameError> {
    let protocol = Protocol(reader.u8()?);
    let families = reader.u8()?;
    Ok(Tuple {
        protocol,
        source: reader.address(families & 1 != 0)?,
        destination: reader.address(families & 2 != 0)?,
        source_port: reader.u16()?,
        destination_port: reader.u16()?,
    })
}
