//! Whose an address outside the cluster is, kept up to date.
//!
//! Four sources say it for each provider, the best of which is used: a file the operator dropped
//! into a directory; else the newer of the last download, cached on disk, and the copy inside the
//! binary. A [`Keeper`] looks for newer ones every day. Nothing here keeps the server from
//! starting: what cannot be had is said and counted, and the older list is used.

pub mod compact;
mod fetch;
mod keeper;
mod own;
pub mod published;
mod shelf;

pub use self::compact::Edition;
pub use self::fetch::Urls;
pub use self::keeper::Keeper;
pub use self::own::{MAX_OWN_RANGES, OwnRange, OwnRangeError, own_ranges};
pub use self::shelf::{Origin, Settings, Source, Standing, load};
