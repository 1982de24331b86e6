//! Being told to stop.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::Context as _;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// Becomes true when a signal asks the process to end. A second one ends it at once: the spool is
/// made for that.
pub(crate) fn stop() -> anyhow::Result<Arc<AtomicBool>> {
    let stopping = Arc::new(AtomicBool::new(false));
    // Apart from `stopping`, which a key sets, too: the signal after it is only the first.
    let signalled = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register_conditional_shutdown(signal, 1, Arc::clone(&signalled))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&signalled)))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&stopping)))
            .context("listen for signals")?;
    }
    Ok(stopping)
}
