//! How other servers answered, as it is answered.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What became of a question to another server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PeerState {
    /// It answered.
    #[default]
    Ok,
    /// It did not answer in time.
    Late,
    /// One of both does not take the other's credentials.
    Refused,
    /// There is no connection.
    Unreachable,
    /// It speaks another version of the protocol between servers.
    OtherVersion,
    /// Its answer is of no use, or it could not give one.
    Failed,
}

impl PeerState {
    /// The stable snake-case name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Late => "late",
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::OtherVersion => "other_version",
            Self::Failed => "failed",
        }
    }
}

/// Another server, and how it answered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PeerStatus {
    /// Where it was asked.
    pub address: String,
    /// What became of it.
    pub state: PeerState,
    /// Why, where it did not answer.
    pub reason: Option<String>,
    /// How long that took; absent where it was not asked, because it failed a moment ago.
    pub milliseconds: Option<u64>,
    /// Nodes of which it told; absent where it did not answer.
    pub nodes: Option<u64>,
}
