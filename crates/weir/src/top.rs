//! `weir top`: what this machine's connections are doing now.

use crate::args::TopArgs;

/// Prints one view of the live connections.
pub(crate) fn run(_args: TopArgs) -> anyhow::Result<()> {
    anyhow::bail!("weir top is not built yet")
}
