//! Opening the store, however long it takes to be there.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use weir_server::attended::comes_back;
use weir_server::{Attended, StoreState};
use weir_store::{ClickHouseStore, FlowStore, Limits, Options, SqliteStore, StoreError};

use super::config::{Config, StoreChoice};
use crate::render::Shown;
use crate::say::say;

/// The first wait for a store that is away; doubled each time.
const SHORTEST: Duration = Duration::from_secs(1);
/// The longest.
const LONGEST: Duration = Duration::from_secs(30);
/// Says that the flows of a data directory are in ClickHouse.
const ELSEWHERE: &str = "flows-in-clickhouse";
/// Between two looks at the signals.
const LOOK: Duration = Duration::from_millis(100);

/// Opens the store; how it does is noted in `state`.
pub(super) fn open(config: &Config, state: &Arc<StoreState>) -> anyhow::Result<Arc<dyn FlowStore>> {
    let store: Arc<dyn FlowStore> = match &config.store {
        StoreChoice::Sqlite => {
            let options = Options { retention: config.retention, limits: Limits::default() };
            Arc::new(SqliteStore::open(&config.data_dir, options)?)
        }
        StoreChoice::ClickHouse(clickhouse) => {
            let store = ClickHouseStore::open(clickhouse.with_password()?)?;
            mark(&config.data_dir);
            Arc::new(store)
        }
    };
    Ok(Arc::new(Attended::new(store, Arc::clone(state))))
}

/// Where the embedded store is; `None` where the store is elsewhere.
pub(super) fn directory(config: &Config) -> Option<String> {
    match config.store {
        StoreChoice::Sqlite => Some(config.data_dir.display().to_string()),
        StoreChoice::ClickHouse(_) => None,
    }
}

/// Leaves word for whoever looks for flows here.
fn mark(directory: &Path) {
    if directory.join("flows.db").exists() {
        say(&format!(
            "note: the flows kept in {} before are not read; `weir query --data-dir` still does",
            directory.display()
        ));
        return;
    }
    let text = "The server of this directory keeps its flows in ClickHouse.\n";
    let written =
        fs::create_dir_all(directory).and_then(|()| fs::write(directory.join(ELSEWHERE), text));
    if let Err(error) = written {
        tracing::debug!(%error, "the data directory cannot be written");
    }
}

/// True where the server of this directory keeps its flows in ClickHouse.
pub(crate) fn is_elsewhere(directory: &Path) -> bool {
    directory.join(ELSEWHERE).exists()
}

/// Tries again while the store is only away. `None`: told to stop before it came.
pub(super) fn patiently<T>(
    stopping: &AtomicBool,
    state: &StoreState,
    mut open: impl FnMut() -> anyhow::Result<T>,
) -> anyhow::Result<Option<T>> {
    let mut wait = SHORTEST;
    loop {
        let error = match open() {
            Ok(opened) => {
                state.opened();
                return Ok(Some(opened));
            }
            Err(error) => error,
        };
        let failure = error.chain().find_map(|cause| cause.downcast_ref::<StoreError>());
        let Some(failure) = failure.filter(|failure| comes_back(failure)) else {
            return Err(error);
        };
        state.cannot_open(failure);
        say(&format!(
            "waiting for the store, agents are not let in: {}; next try in {} s",
            Shown(&failure.to_string()),
            wait.as_secs()
        ));
        if !pause(wait, stopping) {
            return Ok(None);
        }
        wait = (wait * 2).min(LONGEST);
    }
}

/// False when it is time to stop.
fn pause(time: Duration, stopping: &AtomicBool) -> bool {
    let begun = Instant::now();
    while begun.elapsed() < time {
        if stopping.load(Ordering::Relaxed) {
            return false;
        }
        thread::sleep(LOOK);
    }
    true
}
