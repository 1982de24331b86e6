//! The call by which kubenetmon's agents come in.

use std::fmt;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError, watch};
use tokio::time::timeout;
use tonic::{Request, Response, Status, Streaming};
use weir_flow::Name;
use weir_flow::kubenetmon::Observation;
use weir_proto::kubenetmon as pb;
use weir_proto::kubenetmon::flow_handler_server::FlowHandler;

use super::Limits;
use super::counts::{Counts, Dropped};
use super::message::{Malformed, read};
use crate::query::Clock;

/// Observations that are handed on together.
const CHUNK: usize = 256;
/// How long observations may wait for room before they are dropped. Meanwhile their agent waits,
/// too: it reads the kernel again only after it was answered.
const ROOM_TIME: Duration = Duration::from_secs(5);
/// How long an agent may say nothing within a call.
const SILENCE: Duration = Duration::from_mins(1);

/// Observations, and their place among those that wait.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) observations: Vec<Observation>,
    _place: OwnedSemaphorePermit,
}

/// The service.
#[derive(Clone)]
pub(super) struct Door {
    pub(super) counts: Arc<Counts>,
    pub(super) clock: Clock,
    pub(super) limits: Limits,
    /// Places for observations that wait to be written.
    pub(super) room: Arc<Semaphore>,
    /// Places for calls.
    pub(super) calls: Arc<Semaphore>,
    pub(super) chunks: mpsc::SyncSender<Chunk>,
    pub(super) stop: watch::Receiver<bool>,
}

impl Door {
    async fn take(
        &self,
        messages: &mut Streaming<pb::Observation>,
    ) -> Result<pb::ObservationSummary, Status> {
        let mut stop = self.stop.clone();
        let mut reading = Reading { door: self, last_node: None, observations: Vec::new() };
        let mut count: u32 = 0;
        let result = loop {
            let next = tokio::select! {
                () = super::stopped(&mut stop) => {
                    break Err(Status::unavailable("weir stops: report to another server"));
                }
                next = timeout(SILENCE, messages.message()) => next,
            };
            match next {
                Ok(Ok(Some(message))) => {
                    count = count.saturating_add(1);
                    reading.message(message).await;
                }
                Ok(Ok(None)) => break Ok(pb::ObservationSummary { observation_count: count }),
                Ok(Err(status)) => {
                    if is_malformed(&status) {
                        self.counts.count_malformed(Malformed::Message);
                    }
                    break Err(status);
                }
                Err(_silent) => break Err(Status::deadline_exceeded("nothing was said for long")),
            }
        };
        reading.hand_on().await;
        result
    }
}

/// Whether a call ended for what was said, not for how it was carried.
fn is_malformed(status: &Status) -> bool {
    use tonic::Code::{Internal, InvalidArgument, OutOfRange, Unimplemented};
    matches!(status.code(), Internal | InvalidArgument | OutOfRange | Unimplemented)
}

/// A call's observations that are not handed on yet.
struct Reading<'a> {
    door: &'a Door,
    last_node: Option<Name>,
    observations: Vec<Observation>,
}

impl Reading<'_> {
    async fn message(&mut self, message: pb::Observation) {
        let counts = &self.door.counts;
        counts.count_received();
        let observation = match read(message, self.last_node.as_ref(), (self.door.clock)()) {
            Ok(observation) => observation,
            Err(what) => return counts.count_malformed(what),
        };
        self.last_node = Some(Name::clone(&observation.node));
        self.observations.push(observation);
        if self.observations.len() >= CHUNK {
            self.hand_on().await;
        }
    }

    async fn hand_on(&mut self) {
        let Some(places) = self.places() else { return };
        let room = Arc::clone(&self.door.room);
        // Until there is room they stay here: whoever ends the call meanwhile drops this.
        match timeout(ROOM_TIME, room.acquire_many_owned(places)).await {
            Ok(Ok(place)) => self.give(place),
            Ok(Err(_closed)) => self.give_up(Dropped::Stopped),
            Err(_late) => self.give_up(Dropped::QueueFull),
        }
    }

    fn places(&self) -> Option<u32> {
        u32::try_from(self.observations.len()).ok().filter(|count| *count > 0)
    }

    fn give(&mut self, place: OwnedSemaphorePermit) {
        let observations = std::mem::take(&mut self.observations);
        let count = observations.len();
        if self.door.chunks.send(Chunk { observations, _place: place }).is_err() {
            self.door.counts.count_dropped(Dropped::Stopped, count);
        }
    }

    fn give_up(&mut self, why: Dropped) {
        let count = std::mem::take(&mut self.observations).len();
        self.door.counts.count_dropped(why, count);
    }
}

/// A call that is reset ends in the midst of it: what was read counts all the same.
impl Drop for Reading<'_> {
    fn drop(&mut self) {
        let Some(places) = self.places() else { return };
        match Arc::clone(&self.door.room).try_acquire_many_owned(places) {
            Ok(place) => self.give(place),
            Err(TryAcquireError::Closed) => self.give_up(Dropped::Stopped),
            Err(TryAcquireError::NoPermits) => self.give_up(Dropped::QueueFull),
        }
    }
}

#[tonic::async_trait]
impl FlowHandler for Door {
    async fn submit(
        &self,
        request: Request<Streaming<pb::Observation>>,
    ) -> Result<Response<pb::ObservationSummary>, Status> {
        let Ok(_place) = self.calls.try_acquire() else {
            return Err(Status::resource_exhausted("too many report at once: try again"));
        };
        let _present = self.counts.stream();
        self.take(&mut request.into_inner()).await.map(Response::new)
    }
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Door").field("limits", &self.limits).finish_non_exhaustive()
    }
}
