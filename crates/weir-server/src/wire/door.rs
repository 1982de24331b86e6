//! What all streams share, and the call by which agents come in.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashbrown::HashMap;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tonic::codegen::tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use weir_flow::{Name, WallTime};
use weir_proto::pb::ingest_server::Ingest;
use weir_proto::{Greeting, pb};
use weir_store::FlowStore;

use super::batch::Stream;
use super::counts::Counts;
use super::fence::{self, Fence};
use super::identify::{Denial, Denied, Identify, Identity, bearer, by_certificate, checked_node};
use super::listener::Peer;
use super::queue::Queue;
use super::seldom::Seldom;
use super::session::Session;
use super::{Announce, Spoken, WireLimits};
use crate::answer::NodeStatus;
use crate::peers::Local;
use crate::query::{Board, Clock};

/// Answers that may wait to be written, per stream.
const OUTGOING: usize = 64;

/// What all streams share.
pub(super) struct Shared {
    pub(super) credentials: Credentials,
    pub(super) queue: Queue,
    pub(super) announce: Arc<dyn Announce>,
    pub(super) board: Arc<Board>,
    pub(super) counts: Arc<Counts>,
    pub(super) clock: Clock,
    pub(super) limits: WireLimits,
    pub(super) stop: watch::Receiver<bool>,
    pub(super) fence: Mutex<Fence>,
    pub(super) store: Arc<dyn FlowStore>,
    pub(super) streams: Mutex<HashMap<Name, usize>>,
    pub(super) denials: Seldom,
    /// Answers other servers, where there are any.
    pub(super) peers: Option<Arc<Local>>,
}

/// What an agent must show.
#[derive(Clone)]
pub enum Credentials {
    /// A client certificate, which the handshake has verified, or a token, where somebody can tell
    /// whose it is.
    Asked {
        /// Tells whose a token is.
        tokens: Option<Arc<dyn Identify>>,
    },
    /// Nothing: whoever comes is who they say.
    NotAsked,
}

/// A stream's place among those of its node.
pub(super) struct Place {
    shared: Arc<Shared>,
    node: Name,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut streams = locked(&self.shared.streams);
        if let Some(count) = streams.get_mut(&self.node) {
            *count -= 1;
            if *count == 0 {
                streams.remove(&self.node);
            }
        }
    }
}

impl Shared {
    pub(super) fn authenticates(&self) -> bool {
        matches!(self.credentials, Credentials::Asked { .. })
    }

    /// Counts and logs a denial; what the other side is told.
    pub(super) fn deny(&self, peer: &str, denied: &Denied) -> Status {
        self.deny_whom("an agent", peer, denied)
    }

    /// The same for whoever came through another door.
    pub(super) fn deny_whom(&self, who: &str, peer: &str, denied: &Denied) -> Status {
        self.counts.count_denied(denied.reason);
        let Denied { reason, detail, retry } = denied;
        if let Some(hidden) = self.denials.may_say() {
            tracing::warn!(peer, reason = reason.name(), detail, hidden, "{who} is not let in");
        }
        let text = denied.to_string();
        match reason {
            _ if *retry => Status::unavailable(text),
            Denial::Missing | Denial::Malformed | Denial::Unauthenticated => {
                Status::unauthenticated(text)
            }
            Denial::TooManyStreams => Status::resource_exhausted(text),
            Denial::Version | Denial::Greeting => Status::failed_precondition(text),
            _ => Status::permission_denied(text),
        }
    }

    pub(super) async fn identify(&self, token: &str) -> Result<Identity, Denied> {
        let asked = timeout(self.limits.identify_time, self.tokens()?.identify(token)).await;
        let identity = asked.unwrap_or_else(|_late| Err(unsaid()))?;
        checked_node(&identity.node)?;
        Ok(identity)
    }

    pub(super) async fn identify_server(&self, token: &str) -> Result<String, Denied> {
        let asking = self.tokens()?.identify_server(token);
        timeout(self.limits.identify_time, asking).await.unwrap_or_else(|_late| Err(unsaid()))
    }

    fn tokens(&self) -> Result<&dyn Identify, Denied> {
        let Credentials::Asked { tokens: Some(tokens) } = &self.credentials else {
            let detail = "tokens are not accepted here: use a client certificate";
            return Err(Denied::new(Denial::Missing, detail));
        };
        Ok(&**tokens)
    }

    pub(super) fn place(self: &Arc<Self>, node: &Name) -> Result<Place, Denied> {
        let mut streams = locked(&self.streams);
        let count = streams.entry(Name::clone(node)).or_default();
        if *count >= self.limits.streams_per_node {
            let detail = format!("node {node} has {count} streams already");
            return Err(Denied::new(Denial::TooManyStreams, detail));
        }
        *count += 1;
        Ok(Place { shared: Arc::clone(self), node: Name::clone(node) })
    }

    pub(super) fn greets(
        &self,
        node: &Name,
        greeting: &Greeting,
        now: WallTime,
    ) -> Result<(), Denied> {
        let Greeting { epoch, epoch_born, .. } = *greeting;
        let greeted = locked(&self.fence).greets(node, epoch, epoch_born, now);
        let is_new = greeted.map_err(|owner| {
            let detail = format!(
                "the spool of epoch {epoch} belongs to node {owner}, not {node}: give this agent a \
                 spool of its own"
            );
            Denied::new(Denial::OtherEpoch, detail)
        })?;
        if is_new {
            let birth = fence::kept(node, epoch, epoch_born, now);
            // The disk may take its time; other streams go on meanwhile.
            let kept = tokio::task::block_in_place(|| self.store.remember(&[birth]));
            if let Err(error) = kept {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "which of two agents of a node is the younger is forgotten at a restart"
                );
            }
        }
        Ok(())
    }

    /// Takes in the births that other servers were told of.
    pub(super) fn learns(&self, births: Vec<fence::Birth>) {
        locked(&self.fence).learn(births);
    }

    pub(super) fn fenced_at(&self, stream: &Stream) -> Option<WallTime> {
        locked(&self.fence).fenced_at(&stream.node, stream.epoch)
    }

    /// Puts what an agent says of itself on the board, with what is known of it here.
    pub(super) fn tell(&self, node: &Name, said: NodeStatus, spoken: &Spoken) {
        let report = self.queue.report();
        self.board.put(spoken.complete(node, said, &report.views, (self.clock)()));
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// The service that agents call.
#[derive(Clone, Debug)]
pub(super) struct Door(pub(super) Arc<Shared>);

#[tonic::async_trait]
impl Ingest for Door {
    type StreamStream = ReceiverStream<Result<pb::FromServer, Status>>;

    async fn stream(
        &self,
        request: Request<Streaming<pb::FromAgent>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        let peer = request.extensions().get::<Peer>().cloned().unwrap_or_default();
        let header = request.metadata().get("authorization").map(|it| it.as_bytes().to_vec());
        let known = self.who(&peer, header.as_deref()).await;
        let (identity, token) =
            known.map_err(|denied| self.0.deny(&peer.address_text(), &denied))?;
        peer.is_known();
        let (outgoing, answers) = mpsc::channel(OUTGOING);
        let session = Session {
            shared: Arc::clone(&self.0),
            incoming: request.into_inner(),
            outgoing,
            identity,
            token,
            peer: peer.address_text(),
        };
        tokio::spawn(session.run());
        Ok(Response::new(ReceiverStream::new(answers)))
    }
}

impl Door {
    /// Who calls, and the token to be shown again later.
    async fn who(
        &self,
        peer: &Peer,
        header: Option<&[u8]>,
    ) -> Result<(Option<Identity>, Option<String>), Denied> {
        if !self.0.authenticates() {
            return Ok((None, None));
        }
        if let Some(certificate) = &peer.certificate {
            return Ok((Some(by_certificate(certificate)?), None));
        }
        let token = bearer(header)?;
        let identity = self.0.identify(token).await?;
        Ok((Some(identity), Some(token.to_owned())))
    }
}

fn unsaid() -> Denied {
    Denied::undecided("nobody said in time whose token it is")
}

pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change is whole in itself.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
