//! The wire between weir's agents and its server: the messages, their limits, and what turns them
//! into the words of flows or refuses them.
//!
//! `proto/weir/v1/ingest.proto` is the protocol; [`pb`] is generated from it and checked in, so
//! that building needs no protocol compiler. Everything that reads bytes from the network is here
//! and pure: [`Unpacker`] for frames, [`Greeting`] and [`Fact`] for what messages say.

pub mod limits;
mod message;
mod pack;
pub mod peers;
mod version;

pub use message::{Fact, Greeting, Malformed, Measured, id_from_bytes, shortened};
pub use pack::{PackError, Packer, UnpackError, UnpackLimits, Unpacker};
pub use version::{SPOKEN, UnknownVersion, negotiate};

/// What is generated from `proto/weir/v1/ingest.proto`.
#[expect(
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    clippy::derive_partial_eq_without_eq,
    clippy::empty_structs_with_brackets,
    clippy::pedantic,
    unused_qualifications,
    reason = "generated: see tests/generated.rs"
)]
pub mod pb {
    include!("generated/weir.v1.rs");
}

/// What is generated from `proto/kubenetmon/flow.proto`: what kubenetmon's agents say.
#[expect(
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    clippy::pedantic,
    unused_qualifications,
    reason = "generated: see tests/generated.rs"
)]
pub mod kubenetmon {
    include!("generated/grpc.rs");
}
