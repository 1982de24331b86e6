//! The traffic class of a flow.

use std::fmt;

/// How far the bytes travelled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// Not known.
    #[default]
    Unknown,
    /// Both ends on the observing machine.
    SameNode,
    /// A private address that is not attributable further.
    IntraVpc,
    /// A public address.
    Internet,
}

impl Class {
    /// All classes, in the order of their codes.
    pub const ALL: [Self; 4] = [Self::Unknown, Self::SameNode, Self::IntraVpc, Self::Internet];

    /// The stable code used in stores.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The class with this code.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code)).copied()
    }

    /// The stable snake-case name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::SameNode => "same_node",
            Self::IntraVpc => "intra_vpc",
            Self::Internet => "internet",
        }
    }

    /// The class with this name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.name() == text)
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
