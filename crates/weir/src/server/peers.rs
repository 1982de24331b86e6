//! Other servers over the same store: asked for what they hold in memory.

use std::sync::Arc;

use anyhow::Context as _;
use weir_server::peers::{Local, Options};
use weir_server::query::{Board, Query};
use weir_server::{Clock, Live, Peers};

use crate::say::say;

/// Lets `query` ask other servers, where there are any, and gives what they may ask for.
pub(super) fn open(
    options: Option<&Options>,
    query: Query,
    live: &Arc<Live>,
    board: &Arc<Board>,
    clock: &Clock,
) -> anyhow::Result<(Query, Option<Arc<Local>>)> {
    let Some(options) = options else { return Ok((query, None)) };
    let local = Local::new(Arc::clone(live), Arc::clone(board), Arc::clone(clock));
    let local = Arc::new(local.context("ask other servers")?);
    let peers = Peers::start(options.clone(), Arc::clone(&local)).context("ask other servers")?;
    let places: Vec<String> = options.places.iter().map(ToString::to_string).collect();
    say(&format!("asks other servers at {}", places.join(", ")));
    Ok((query.with_peers(Arc::new(peers)), Some(local)))
}
