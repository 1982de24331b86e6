//! A batch as it comes in: decompressed, and held against the stream it came by.

use weir_flow::frame::Batch;
use weir_flow::ingest::Answer;
use weir_flow::{Epoch, Name, WallTime};
use weir_proto::{Unpacker, pb};

use super::counts::Malformation;
use super::door::Shared;
use crate::ingest::Speaker;

/// Whose stream it is.
#[derive(Clone, Debug)]
pub(super) struct Stream {
    pub(super) node: Name,
    pub(super) epoch: Epoch,
}

impl Stream {
    pub(super) fn speaker(&self, skew_nanos: u64, authenticated: bool) -> Speaker {
        Speaker { node: Name::clone(&self.node), skew_nanos, authenticated }
    }
}

/// The frame and when it was sealed, or why it will never be taken.
pub(super) fn unpacked(
    shared: &Shared,
    unpacker: &mut Unpacker,
    stream: &Stream,
    batch: &pb::Batch,
) -> Result<(Vec<u8>, WallTime), Answer> {
    let refused = |what, reason: String| {
        shared.counts.count_malformed(what);
        Answer::Refused { reason }
    };
    let frame =
        unpacker.unpack(batch).map_err(|error| refused(Malformation::Packed, error.to_string()))?;
    let header = match Batch::decode(&frame) {
        Ok(batch) => batch.header,
        Err(error) => return Err(refused(Malformation::Frame, error.to_string())),
    };
    if header.id.epoch != stream.epoch || header.id.sequence != batch.sequence {
        let reason = format!(
            "the frame is batch {}, the stream's is {}#{}",
            header.id, stream.epoch, batch.sequence
        );
        return Err(refused(Malformation::Frame, reason));
    }
    let most = shared.limits.records;
    if usize::try_from(header.records).map_or(true, |records| records > most) {
        let reason = format!("{} records in a batch; {most} are allowed", header.records);
        return Err(refused(Malformation::Frame, reason));
    }
    let sealed_at = header.sealed_at.to_wall(header.wall_offset_nanos);
    let younger = shared.fenced_at(stream);
    if let Some(born) = younger.filter(|born| sealed_at > *born) {
        shared.counts.count_fenced();
        let reason = format!(
            "another agent of node {} began at {} s and has taken over; this batch was sealed {} s \
             later: stop this agent, or the other",
            stream.node,
            born.seconds(),
            sealed_at.seconds().saturating_sub(born.seconds()),
        );
        return Err(Answer::Refused { reason });
    }
    Ok((frame, sealed_at))
}
