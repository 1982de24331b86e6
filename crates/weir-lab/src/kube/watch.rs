//! Watches, and the lists that come as one.

use std::sync::Arc;
use std::time::Duration;

use hyper::body::Bytes;
use hyper::{Response, StatusCode};
use serde_json::json;
use tokio::sync::mpsc::{self, Sender};
use tokio::time::{Instant, sleep_until};

use super::Fault;
use super::answer::{self, Asks};
use super::body::Said;
use super::serve::Target;
use super::state::{Event, Gone, Key, Resource, Shared, What};

/// Objects and events looked up at a time.
const AT_ONCE: usize = 256;
/// Lines that wait for a slow reader.
const LINES: usize = 64;
/// Silence until a bookmark tells how far the watch is.
const BOOKMARK: Duration = Duration::from_secs(10);
/// A watch ends by itself after that, unless it asks for another time.
const TIMEOUT: Duration = Duration::from_mins(30);

pub(super) fn answer(
    shared: &Arc<Shared>,
    target: &Target,
    asks: &Asks,
    only_metadata: bool,
) -> Response<Said> {
    let (refuses, revision) = shared.note(|state| {
        state.asked.entry(target.resource.plural.to_owned()).or_default().watches += 1;
        (state.faults.contains(&Fault::NoWatchList), state.revision)
    });
    if asks.initial_events && refuses {
        return answer::no_watch_list(target.resource);
    }
    let from = asks.resource_version.filter(|version| *version > 0 && !asks.initial_events);
    let (lines, hears) = mpsc::channel(LINES);
    let watch = Watch {
        shared: Arc::clone(shared),
        resource: target.resource,
        namespace: target.namespace.clone(),
        only_metadata,
        bookmarks: asks.bookmarks,
        lines,
        told: from.unwrap_or(revision),
    };
    let (begins, marks_end) = (from.is_none(), asks.initial_events);
    let timeout = asks.timeout.unwrap_or(TIMEOUT);
    tokio::spawn(async move {
        watch.note_open(1);
        // Whether the reader left or the time is over: the watch ends either way.
        let _ended = watch.run(begins, marks_end, timeout).await;
    });
    answer::with(StatusCode::OK, Said::Lines(hears))
}

struct Watch {
    shared: Arc<Shared>,
    resource: &'static Resource,
    namespace: Option<String>,
    only_metadata: bool,
    bookmarks: bool,
    lines: Sender<Bytes>,
    /// The resource version up to which the reader knows everything.
    told: u64,
}

/// The reader is gone.
struct Left;

impl Watch {
    async fn run(mut self, begins: bool, marks_end: bool, timeout: Duration) -> Result<(), Left> {
        let ends = Instant::now() + timeout;
        let mut changes = self.shared.changes();
        if begins {
            self.initial(marks_end).await?;
        }
        let mut bookmark = Instant::now() + BOOKMARK;
        loop {
            let _seen = *changes.borrow_and_update();
            let plural = self.resource.plural;
            let (is_forbidden, is_stalled) = self.shared.look(|state| {
                (state.is_forbidden(plural) || state.ended, state.is_stalled(plural))
            });
            if is_forbidden {
                return Ok(());
            }
            if !is_stalled && !self.news().await? {
                return Ok(());
            }
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return Ok(()) },
                () = self.lines.closed() => return Err(Left),
                () = sleep_until(bookmark), if !is_stalled => {
                    self.bookmark(false).await?;
                    bookmark = Instant::now() + BOOKMARK;
                }
                () = sleep_until(ends), if !is_stalled => {
                    // The real one tells where to resume before it ends a watch.
                    return self.bookmark(false).await;
                }
            }
        }
    }

    /// Tells of every object, and that these were all.
    async fn initial(&mut self, marks_end: bool) -> Result<(), Left> {
        let mut after: Option<Key> = None;
        loop {
            let (page, more) = self.shared.look(|state| {
                state.page(self.resource, self.namespace.as_deref(), after.as_ref(), AT_ONCE)
            });
            for (_, json) in &page {
                self.say("ADDED", json).await?;
            }
            after = page.into_iter().next_back().map(|(key, _)| key);
            if !more {
                break;
            }
        }
        if marks_end { self.bookmark(true).await } else { Ok(()) }
    }

    /// Tells of what happened since; false: the history is gone.
    async fn news(&mut self) -> Result<bool, Left> {
        loop {
            let events = self.shared.look(|state| state.events(self.resource, self.told, AT_ONCE));
            let events = match events {
                Ok(events) if events.is_empty() => return Ok(true),
                Ok(events) => events,
                Err(Gone) => {
                    let message = format!("too old resource version: {}", self.told);
                    let status = answer::status_object(410, "Expired", &message);
                    self.line(json!({ "type": "ERROR", "object": status }).to_string()).await?;
                    return Ok(false);
                }
            };
            for event in events {
                self.tell(&event).await?;
                self.told = event.revision;
            }
        }
    }

    async fn tell(&self, event: &Event) -> Result<(), Left> {
        if self.namespace.as_ref().is_some_and(|namespace| *namespace != event.namespace) {
            return Ok(());
        }
        match &event.what {
            What::Added(json) => self.say("ADDED", json).await,
            What::Modified(json) => self.say("MODIFIED", json).await,
            What::Deleted(json) => self.say("DELETED", json).await,
            What::Garbage => self.line("{\"type\":\"ADDED\",\"object\":{\"meta".to_owned()).await,
        }
    }

    async fn bookmark(&self, ends_list: bool) -> Result<(), Left> {
        let (none, revision) =
            self.shared.look(|state| (state.faults.contains(&Fault::NoBookmarks), state.revision));
        if none || !self.bookmarks {
            return Ok(());
        }
        let mut metadata = json!({ "creationTimestamp": null });
        // The list's end says the version that the watch goes on from; later ones the newest.
        let revision = if ends_list { self.told } else { revision.max(self.told) };
        metadata["resourceVersion"] = json!(revision.to_string());
        if ends_list {
            metadata["annotations"] = json!({ "k8s.io/initial-events-end": "true" });
        }
        let (kind, version) = if self.only_metadata {
            ("PartialObjectMetadata", "meta.k8s.io/v1".to_owned())
        } else {
            (self.resource.kind, self.resource.api_version())
        };
        let object = json!({ "kind": kind, "apiVersion": version, "metadata": metadata });
        self.line(json!({ "type": "BOOKMARK", "object": object }).to_string()).await
    }

    async fn say(&self, what: &str, json: &Bytes) -> Result<(), Left> {
        let mut line = format!("{{\"type\":\"{what}\",\"object\":").into_bytes();
        line.extend_from_slice(&answer::typed(self.resource, json, self.only_metadata));
        line.extend_from_slice(b"}\n");
        self.lines.send(line.into()).await.map_err(|_left| Left)
    }

    async fn line(&self, mut line: String) -> Result<(), Left> {
        line.push('\n');
        self.lines.send(line.into()).await.map_err(|_left| Left)
    }

    fn note_open(&self, change: i64) {
        self.shared.note(|state| {
            let asked = state.asked.entry(self.resource.plural.to_owned()).or_default();
            asked.open = asked.open.saturating_add_signed(change);
        });
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.note_open(-1);
    }
}
