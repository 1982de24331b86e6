//! The door for other servers: one question, one answer, from what this one holds itself.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::timeout;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::{Request, Response, Status};
use weir_proto::limits::MESSAGE_BYTES_MAX;
use weir_proto::negotiate;
use weir_proto::pb::ingest_server::IngestServer;
use weir_proto::peers::pb::peers_server::{Peers, PeersServer, SERVICE_NAME};
use weir_proto::peers::{ANSWER_BYTES_MAX, QUESTION_BYTES_MAX, SPOKEN, pack, pb, unpack};

use super::door::{Door, Shared};
use super::identify::{Denial, Denied, bearer, server_by_certificate};
use super::listener::Peer;
use crate::ingest::chain;
use crate::peers::{Asked, Instance, Local};

/// Questions that are answered at the same time; agents' batches go before.
const AT_ONCE: usize = 2;
/// How long a question waits for others. Whoever asks does not wait long.
const WAITING: Duration = Duration::from_secs(1);

/// The service that other servers call.
#[derive(Clone, Debug)]
pub(super) struct PeersDoor {
    shared: Arc<Shared>,
    places: Arc<Semaphore>,
}

impl PeersDoor {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, places: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// Lets in who is a server; who it is, for the log.
    async fn who(
        &self,
        peer: &Peer,
        header: Option<&[u8]>,
    ) -> Result<(String, Arc<Local>), Denied> {
        if !self.shared.authenticates() {
            let detail = "without TLS other servers are not answered";
            return Err(Denied::new(Denial::NotAServer, detail));
        }
        let who = match &peer.certificate {
            Some(certificate) => server_by_certificate(certificate)?,
            None => self.shared.identify_server(bearer(header)?).await?,
        };
        let local = self.shared.peers.clone().ok_or_else(|| {
            let detail = "this server was started without --peers, so it answers none";
            Denied::new(Denial::NotAServer, detail)
        })?;
        Ok((who, local))
    }
}

#[tonic::async_trait]
impl Peers for PeersDoor {
    async fn ask(&self, request: Request<pb::Question>) -> Result<Response<pb::Answer>, Status> {
        let peer = request.extensions().get::<Peer>().cloned().unwrap_or_default();
        let header = request.metadata().get("authorization").map(|it| it.as_bytes().to_vec());
        let (who, local) = self.who(&peer, header.as_deref()).await.map_err(|denied| {
            self.shared.deny_whom("somebody who asks as a server", &peer.address_text(), &denied)
        })?;
        peer.is_known();
        let question = request.into_inner();
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let instance = local.instance().bytes();
        let theirs = question.protocol_min..=question.protocol_max;
        let protocol = negotiate(&SPOKEN, &theirs).unwrap_or(0);
        if protocol == 0 || Instance::read(&question.instance) == Some(local.instance()) {
            let json = Vec::new();
            return Ok(Response::new(pb::Answer { protocol, version, instance, json }));
        }
        let busy = || Status::unavailable("too many servers ask at once");
        let places = Arc::clone(&self.places);
        let place = timeout(WAITING, places.acquire_owned()).await;
        let place = place.ok().and_then(Result::ok).ok_or_else(busy)?;
        let answering = tokio::task::spawn_blocking(move || {
            let json = answer(&local, &question.json);
            drop(place);
            json
        });
        let json = answering.await.map_err(|error| {
            tracing::error!(%error, who, "answering another server failed");
            Status::internal("answering failed; its log says more")
        })??;
        Ok(Response::new(pb::Answer { protocol, version, instance, json }))
    }
}

fn answer(local: &Local, question: &[u8]) -> Result<Vec<u8>, Status> {
    let wrong = |what: &str| Status::invalid_argument(format!("the question: {what}"));
    let json = unpack(question, QUESTION_BYTES_MAX).map_err(|error| wrong(&chain(&error)))?;
    let asked: Asked = serde_json::from_slice(&json).map_err(|error| wrong(&error.to_string()))?;
    let told = local.answer(asked).map_err(|what| wrong(&what))?;
    let json = serde_json::to_vec(&told).expect("answers are plain data with text keys");
    pack(&json, ANSWER_BYTES_MAX).map_err(|error| Status::resource_exhausted(chain(&error)))
}

/// Both doors behind one port.
#[derive(Clone, Debug)]
pub(super) struct Doors {
    agents: IngestServer<Door>,
    servers: PeersServer<PeersDoor>,
}

impl Doors {
    pub(super) fn new(door: Door) -> Self {
        let servers = PeersDoor::new(Arc::clone(&door.0));
        Self {
            agents: IngestServer::new(door)
                .max_decoding_message_size(MESSAGE_BYTES_MAX)
                .max_encoding_message_size(MESSAGE_BYTES_MAX),
            servers: PeersServer::new(servers)
                .max_decoding_message_size(MESSAGE_BYTES_MAX)
                .max_encoding_message_size(MESSAGE_BYTES_MAX),
        }
    }
}

impl Service<http::Request<Body>> for Doors {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let service = request.uri().path().trim_start_matches('/').split('/').next();
        if service == Some(SERVICE_NAME) {
            self.servers.call(request)
        } else {
            self.agents.call(request)
        }
    }
}
