//! Frames, compressed for the wire and back, within bounds.

use std::fmt;

use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::compress_bound;

use crate::limits::{
    MESSAGE_BYTES_MAX, UNPACKED_BYTES_FREE, UNPACKED_BYTES_MAX, UNPACKED_RATIO_MAX,
};
use crate::pb;

/// Of one frame's records the addresses and ports repeat, the identities and counters do not:
/// higher levels cost much and gain little.
const LEVEL: i32 = 1;
/// Bytes of a message around its frame.
const ENVELOPE_BYTES: usize = 64;

/// A frame could not be packed.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// It is too large for a message.
    #[error(
        "frame of {bytes} bytes does not fit in a message of {MESSAGE_BYTES_MAX}: seal smaller \
         batches"
    )]
    TooLarge {
        /// Its size after compression.
        bytes: usize,
    },
    /// The compressor failed.
    #[error("compress a frame of {bytes} bytes")]
    Compress {
        /// Its size.
        bytes: usize,
        /// What zstd said.
        source: std::io::Error,
    },
}

/// Compresses frames, one after another.
pub struct Packer {
    zstd: Compressor<'static>,
    buffer: Vec<u8>,
}

impl Packer {
    /// A packer. Its buffers are used again for every frame.
    pub fn new() -> Result<Self, PackError> {
        let zstd = Compressor::new(LEVEL);
        let zstd = zstd.map_err(|source| PackError::Compress { bytes: 0, source })?;
        Ok(Self { zstd, buffer: Vec::new() })
    }

    /// The message that carries this frame.
    pub fn pack(&mut self, sequence: u64, frame: &[u8]) -> Result<pb::Batch, PackError> {
        self.buffer.clear();
        self.buffer.reserve(compress_bound(frame.len()));
        let compressed = self.zstd.compress_to_buffer(frame, &mut self.buffer);
        let bytes = frame.len();
        compressed.map_err(|source| PackError::Compress { bytes, source })?;
        let packed = self.buffer.len();
        if packed + ENVELOPE_BYTES > MESSAGE_BYTES_MAX {
            return Err(PackError::TooLarge { bytes: packed });
        }
        let too_large = |_more_than_32_bits| PackError::TooLarge { bytes };
        let frame_bytes = u32::try_from(bytes).map_err(too_large)?;
        Ok(pb::Batch { sequence, frame: self.buffer.clone().into(), frame_bytes })
    }
}

impl fmt::Debug for Packer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Packer").finish_non_exhaustive()
    }
}

/// How large a frame may become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnpackLimits {
    /// Bytes as it crosses the wire.
    pub packed_bytes: usize,
    /// Bytes after decompression.
    pub unpacked_bytes: usize,
    /// Times its compressed size, once it is larger than [`UNPACKED_BYTES_FREE`].
    pub ratio: usize,
}

impl Default for UnpackLimits {
    fn default() -> Self {
        Self {
            packed_bytes: MESSAGE_BYTES_MAX,
            unpacked_bytes: UNPACKED_BYTES_MAX,
            ratio: UNPACKED_RATIO_MAX,
        }
    }
}

/// A compressed frame is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnpackError {
    /// More compressed bytes than allowed.
    #[error("compressed frame of {bytes} bytes is larger than the {limit} allowed")]
    Packed {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// It says that it is larger than allowed.
    #[error("frame of {bytes} bytes is larger than the {limit} allowed")]
    Unpacked {
        /// The size it says it has.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// It says that it is much larger than its compressed form.
    #[error("frame of {bytes} bytes out of {packed} is more than the {limit} times allowed")]
    Ratio {
        /// The size it says it has.
        bytes: usize,
        /// Its compressed size.
        packed: usize,
        /// The limit.
        limit: usize,
    },
    /// It has another size than it says.
    #[error("frame has {bytes} bytes after decompression where {said} were announced")]
    Size {
        /// The size it has.
        bytes: usize,
        /// The size it says it has.
        said: usize,
    },
    /// It is not zstd, or larger than it says.
    #[error("decompress a frame of {packed} bytes, announced as {said}: {what}")]
    Damaged {
        /// Its compressed size.
        packed: usize,
        /// The size it says it has.
        said: usize,
        /// What zstd said.
        what: String,
    },
}

/// Decompresses frames, one after another, and never more than was announced.
pub struct Unpacker {
    zstd: Decompressor<'static>,
    limits: UnpackLimits,
}

impl Unpacker {
    /// An unpacker that holds frames to these limits.
    pub fn new(limits: UnpackLimits) -> Self {
        Self { zstd: Decompressor::default(), limits }
    }

    /// The frame in a message.
    pub fn unpack(&mut self, batch: &pb::Batch) -> Result<Vec<u8>, UnpackError> {
        let said = self.check(batch)?;
        let packed = batch.frame.len();
        let frame = self
            .zstd
            .decompress(&batch.frame, said)
            .map_err(|error| UnpackError::Damaged { packed, said, what: error.to_string() })?;
        if frame.len() != said {
            return Err(UnpackError::Size { bytes: frame.len(), said });
        }
        Ok(frame)
    }

    /// The announced size, where it is allowed.
    fn check(&self, batch: &pb::Batch) -> Result<usize, UnpackError> {
        let packed = batch.frame.len();
        let limits = self.limits;
        if packed > limits.packed_bytes {
            return Err(UnpackError::Packed { bytes: packed, limit: limits.packed_bytes });
        }
        let bytes = usize::try_from(batch.frame_bytes).unwrap_or(usize::MAX);
        if bytes > limits.unpacked_bytes {
            return Err(UnpackError::Unpacked { bytes, limit: limits.unpacked_bytes });
        }
        if bytes > UNPACKED_BYTES_FREE && bytes > packed.saturating_mul(limits.ratio) {
            return Err(UnpackError::Ratio { bytes, packed, limit: limits.ratio });
        }
        Ok(bytes)
    }
}

impl fmt::Debug for Unpacker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unpacker").field("limits", &self.limits).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn unpack(batch: &pb::Batch) -> Result<Vec<u8>, UnpackError> {
        Unpacker::new(UnpackLimits::default()).unpack(batch)
    }

    fn pack(frame: &[u8]) -> pb::Batch {
        Packer::new().unwrap().pack(7, frame).unwrap()
    }

    #[test]
    fn each_limit_is_named_with_what_exceeded_it() {
        let good = pack(&[0; 1_000]);
        let said = |frame_bytes| pb::Batch { frame_bytes, ..good.clone() };
        let bomb = pack(&vec![0; 8 << 20]);
        for (what, batch, reason) in [
            ("a bomb", bomb.clone(), "out of"),
            ("larger than any frame", said(u32::MAX), "larger than the 33554432 allowed"),
            ("longer than announced", said(999), "announced as 999"),
            ("shorter than announced", said(1_001), "1000 bytes after decompression where 1001"),
            ("a bomb that lies", pb::Batch { frame_bytes: 60_000, ..bomb }, "announced as 60000"),
            ("not zstd", pb::Batch { frame: vec![1; 90].into(), ..good.clone() }, "decompress"),
            ("empty", pb::Batch::default(), ""),
        ] {
            match unpack(&batch) {
                Ok(frame) => assert!(reason.is_empty() && frame.is_empty(), "{what}"),
                Err(error) => assert!(error.to_string().contains(reason), "{what}: {error}"),
            }
        }
        let long = pb::Batch { frame: vec![0; MESSAGE_BYTES_MAX + 1].into(), ..good };
        assert!(matches!(unpack(&long), Err(UnpackError::Packed { .. })));
    }

    #[test]
    fn what_fits_no_message_is_not_packed() {
        let mut state = 1_u64;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state.to_le_bytes()[7]
        })
        .take(MESSAGE_BYTES_MAX + 1)
        .collect();
        let error = Packer::new().unwrap().pack(1, &noise).unwrap_err();
        assert!(matches!(error, PackError::TooLarge { .. }), "{error}");
    }

    proptest! {
        #[test]
        fn what_is_packed_unpacks_the_same(frames in prop::collection::vec(
            prop::collection::vec(any::<u8>(), 0..3_000), 1..5,
        )) {
            let (mut packer, mut unpacker) =
                (Packer::new().unwrap(), Unpacker::new(UnpackLimits::default()));
            for (frame, sequence) in frames.iter().zip(1..) {
                let batch = packer.pack(sequence, frame).unwrap();
                prop_assert_eq!(batch.sequence, sequence);
                prop_assert_eq!(&unpacker.unpack(&batch).unwrap(), frame);
            }
        }

        #[test]
        fn no_bytes_unpack_to_more_than_announced(
            bytes in prop::collection::vec(any::<u8>(), 0..600),
            flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
            frame_bytes in 0_u32..2_000,
        ) {
            // A valid frame that was damaged reaches further into the decoder than noise.
            let mut frame = pack(&bytes).frame.to_vec();
            for (place, value) in flips {
                let place = place.index(frame.len());
                frame[place] = value;
            }
            for frame in [bytes, frame] {
                let batch = pb::Batch { sequence: 1, frame: frame.into(), frame_bytes };
                if let Ok(frame) = unpack(&batch) {
                    prop_assert_eq!(frame.len(), usize::try_from(frame_bytes).unwrap());
                }
            }
        }
    }
}
