//! Rows as kubenetmon writes them: the same traffic in the words and by the rules of another
//! meter, for whoever has dashboards and queries made for it.

use crate::endpoint::Name;
use crate::ranges::Prefix;

/// What rows say of the cluster they are from, and what is left out of them.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `development`, `staging`, `production`, or whatever the operator calls it.
    pub environment: Name,
    /// `aws`, `gcp` or `azure`.
    pub cloud: Name,
    /// The cluster's region, as the cloud's published ranges write it.
    pub region: Name,
    /// The cluster's name.
    pub cluster: Name,
    /// UDP has no rows.
    pub ignore_udp: bool,
    /// Flags of connections whose remote end lies in one of these (`connectionFlags`).
    pub flags: Vec<(Prefix, Name)>,
}
