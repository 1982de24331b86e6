//! What servers ask each other: the messages, and what keeps them small.
//!
//! `proto/weir/peers/v1/peers.proto` is the protocol. What a question and an answer say is JSON in
//! the shapes of the API, compressed: rows repeat each other's names.

use std::io;
use std::ops::RangeInclusive;

use crate::limits::MESSAGE_BYTES_MAX;

/// What is generated from `proto/weir/peers/v1/peers.proto`.
#[expect(
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    clippy::pedantic,
    unused_qualifications,
    reason = "generated: see tests/generated.rs"
)]
pub mod pb {
    include!("generated/weir.peers.v1.rs");
}

/// The versions of the protocol that this build speaks.
pub const SPOKEN: RangeInclusive<u32> = 1..=1;
/// The largest question before compression.
pub const QUESTION_BYTES_MAX: usize = 4 << 20;
/// The largest answer before compression.
pub const ANSWER_BYTES_MAX: usize = 32 << 20;

/// Text repeats itself so much that higher levels gain little.
const LEVEL: i32 = 1;
/// Bytes of a message around its JSON.
const ENVELOPE_BYTES: usize = 256;

/// A question or an answer does not fit, or is none.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// It is too large before compression.
    #[error("{bytes} bytes where {limit} may be")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// What it may have.
        limit: usize,
    },
    /// It is too large after compression.
    #[error("{bytes} bytes after compression, where {MESSAGE_BYTES_MAX} may be")]
    TooLargePacked {
        /// Its size.
        bytes: usize,
    },
    /// It cannot be compressed.
    #[error("compress it")]
    Pack(#[source] io::Error),
    /// It does not decompress within its limit.
    #[error("it does not decompress to at most {limit} bytes")]
    Unpack {
        /// The limit.
        limit: usize,
        /// What zstd said.
        source: io::Error,
    },
}

/// Compresses the JSON of a message.
pub fn pack(json: &[u8], limit: usize) -> Result<Vec<u8>, JsonError> {
    if json.len() > limit {
        return Err(JsonError::TooLarge { bytes: json.len(), limit });
    }
    let packed = zstd::bulk::compress(json, LEVEL).map_err(JsonError::Pack)?;
    if packed.len() + ENVELOPE_BYTES > MESSAGE_BYTES_MAX {
        return Err(JsonError::TooLargePacked { bytes: packed.len() });
    }
    Ok(packed)
}

/// Decompresses the JSON of a message, to at most `limit` bytes.
pub fn unpack(packed: &[u8], limit: usize) -> Result<Vec<u8>, JsonError> {
    zstd::bulk::decompress(packed, limit).map_err(|source| JsonError::Unpack { limit, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_comes_back_within_its_limit_only() {
        let json = r#"{"node":"worker-1"},"#.repeat(1_000).into_bytes();
        let packed = pack(&json, QUESTION_BYTES_MAX).unwrap();
        assert!(packed.len() < json.len() / 20);
        assert_eq!(unpack(&packed, json.len()).unwrap(), json);
        assert!(matches!(unpack(&packed, json.len() - 1), Err(JsonError::Unpack { .. })));
        assert!(matches!(pack(&json, json.len() - 1), Err(JsonError::TooLarge { .. })));
        for garbage in [&b"{}"[..], &packed[..packed.len() / 2], &[0xff; 64]] {
            assert!(unpack(garbage, ANSWER_BYTES_MAX).is_err(), "{garbage:?}");
        }
    }

    #[test]
    fn what_does_not_compress_is_too_large_for_a_message() {
        let noise: Vec<u8> = (0_u64..700_000)
            .flat_map(|number| (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ number).to_le_bytes())
            .collect();
        assert!(matches!(pack(&noise, ANSWER_BYTES_MAX), Err(JsonError::TooLargePacked { .. })));
    }
}
