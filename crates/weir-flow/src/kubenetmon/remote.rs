//! Where the remote end is, and how far away that is.
//!
//! It goes by the address: a private one is in the own network, any other is where the clouds'
//! published ranges say. A pod, a node or another address known to be the cluster's is in the own
//! network whatever its address looks like, and what the operator says of a range comes first.

use std::fmt;
use std::net::Ipv4Addr;

use super::{Ignored, Settings};
use crate::class::Class;
use crate::endpoint::{Endpoint, EndpointKind, Name};

/// The region of addresses that are served near everywhere.
const GLOBAL: &str = "global";

/// How far the bytes travelled, in the table's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ConnectionClass {
    /// To an address of the own network.
    IntraVpc,
    /// To an address of the own cloud in the own region, or one that is served near everywhere.
    IntraRegion,
    /// To an address of the own cloud in another region.
    InterRegion,
    /// To any other address.
    PublicInternet,
}

impl ConnectionClass {
    /// As the table has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::IntraVpc => "INTRA_VPC",
            Self::IntraRegion => "INTRA_REGION",
            Self::InterRegion => "INTER_REGION",
            Self::PublicInternet => "PUBLIC_INTERNET",
        }
    }

    /// What a class that the operator gave to a range is here.
    fn of(class: Class) -> Option<Self> {
        match class {
            Class::SameNode | Class::SameZone | Class::CrossZone | Class::IntraVpc => {
                Some(Self::IntraVpc)
            }
            Class::IntraRegion => Some(Self::IntraRegion),
            Class::InterRegion => Some(Self::InterRegion),
            Class::Internet => Some(Self::PublicInternet),
            Class::Unknown | Class::Transport => None,
        }
    }
}

impl fmt::Display for ConnectionClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Where a remote end is.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) class: ConnectionClass,
    pub(super) cloud: Option<Name>,
    pub(super) region: Option<Name>,
    pub(super) service: Option<Name>,
}

/// Where this end is. `said` is the class of its traffic where the directory told one.
pub(super) fn place(
    endpoint: &Endpoint,
    address: Ipv4Addr,
    said: Option<Class>,
    settings: &Settings,
) -> Result<Place, Ignored> {
    let is_ours = endpoint.kind != EndpointKind::External;
    // Only a named range is the operator's; what is published of an address says nothing of a class.
    let said = said.filter(|_| endpoint.range.is_some()).and_then(ConnectionClass::of);
    if is_ours || is_local(address) {
        return Ok(Place {
            class: said.unwrap_or(ConnectionClass::IntraVpc),
            cloud: Some(Name::clone(&settings.cloud)),
            region: Some(Name::clone(&settings.region)),
            service: endpoint.cloud_service.clone(),
        });
    }
    let class = match said {
        Some(class) => class,
        None => published(endpoint, settings)?,
    };
    Ok(Place {
        class,
        cloud: endpoint.cloud.clone(),
        region: endpoint.region.clone(),
        service: endpoint.cloud_service.clone(),
    })
}

fn published(endpoint: &Endpoint, settings: &Settings) -> Result<ConnectionClass, Ignored> {
    if endpoint.cloud.as_ref() != Some(&settings.cloud) {
        return Ok(ConnectionClass::PublicInternet);
    }
    match endpoint.region.as_deref() {
        None | Some("") => Err(Ignored::EmptyCloudRegion),
        Some(GLOBAL) => Ok(ConnectionClass::IntraRegion),
        Some(region) if *region == *settings.region => Ok(ConnectionClass::IntraRegion),
        Some(_) => Ok(ConnectionClass::InterRegion),
    }
}

/// Addresses that are in the own network by what they look like.
fn is_local(address: Ipv4Addr) -> bool {
    address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_unspecified()
        || match address.octets() {
            [224, 0, 0, _] | [239, ..] => true,
            // Assigned by hosts themselves; the first 256 are IANA's.
            [232, second, third, _] => second > 0 || third > 0,
            _ => false,
        }
}
