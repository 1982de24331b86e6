//! What one provider published, each prefix once.

use std::collections::BTreeMap;

use super::Prefix;
use crate::endpoint::Name;

/// Who publishes ranges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Provider {
    /// Amazon's `ip-ranges.json`.
    Aws,
    /// Google's `cloud.json`: addresses of customers.
    Gcp,
    /// Google's `goog.json`: all of Google's addresses.
    Google,
    /// Microsoft's `ServiceTags_Public`.
    Azure,
}

impl Provider {
    /// All providers, in the order their lists are laid over each other: on the same prefix Google's
    /// own addresses win over those of its customers.
    pub const ALL: [Self; 4] = [Self::Aws, Self::Gcp, Self::Google, Self::Azure];

    /// The stable lower-case name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Aws => "aws",
            Self::Gcp => "gcp",
            Self::Google => "google",
            Self::Azure => "azure",
        }
    }

    /// The provider with this name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|provider| provider.name() == text)
    }

    /// The cloud its ranges belong to.
    pub fn cloud(self) -> &'static str {
        match self {
            Self::Gcp | Self::Google => "gcp",
            Self::Aws | Self::Azure => self.name(),
        }
    }

    /// True when `new`, found after `old` for the same prefix, says more about it.
    fn prefers(self, new: &Listed, old: &Listed) -> bool {
        match self {
            Self::Aws => aws_rank(&new.service) <= aws_rank(&old.service),
            Self::Gcp | Self::Google => true,
            Self::Azure => azure_prefers(new, old),
        }
    }
}

/// One published prefix, with texts as [`normalise`] leaves them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The block of addresses.
    pub prefix: Prefix,
    /// Where it is; may be empty.
    pub region: Name,
    /// What it is for; may be empty.
    pub service: Name,
}

/// What one provider published: prefixes in ascending order, each once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct List {
    /// Who published it.
    pub provider: Provider,
    entries: Vec<Listed>,
}

impl List {
    /// Keeps of each prefix the entry that says most about it.
    ///
    /// Providers list a prefix several times: AWS once for `amazon` (everything), again for `ec2`,
    /// and again for a service on top of it, which is the one to know. Azure lists it in the tag of
    /// a region, of a service, and of a service in a region.
    pub fn new(provider: Provider, published: impl IntoIterator<Item = Listed>) -> Self {
        let mut best: BTreeMap<Prefix, Listed> = BTreeMap::new();
        for listed in published {
            match best.get_mut(&listed.prefix) {
                Some(old) if provider.prefers(&listed, old) => *old = listed,
                Some(_) => {}
                None => drop(best.insert(listed.prefix, listed)),
            }
        }
        Self { provider, entries: best.into_values().collect() }
    }

    /// Its entries, by prefix ascending.
    pub fn entries(&self) -> &[Listed] {
        &self.entries
    }
}

/// Regions and services as every answer spells them: lower case, no white space or control
/// characters (`Germany West Central` is `germanywestcentral`).
pub fn normalise(text: &str) -> String {
    text.chars()
        .filter(|c| !c.is_whitespace() && !c.is_control())
        .flat_map(char::to_lowercase)
        .collect()
}

/// Lower says more.
fn aws_rank(service: &str) -> u8 {
    match service {
        "s3" => 0,
        "amazon" => 2,
        "ec2" => 3,
        _ => 1,
    }
}

/// Storage above other services above tags that name none; then a region above none, as long as
/// both speak of the same service.
fn azure_prefers(new: &Listed, old: &Listed) -> bool {
    let rank = |service: &str| match service {
        "azurestorage" => 2_u8,
        "" | "azurecloud" | "azureservice" => 0,
        _ => 1,
    };
    let (new_rank, old_rank) = (rank(&new.service), rank(&old.service));
    if new_rank != old_rank {
        return new_rank > old_rank;
    }
    let is_global = |listed: &Listed| matches!(&*listed.region, "" | "global");
    new.service == old.service && is_global(old) && !is_global(new)
}
