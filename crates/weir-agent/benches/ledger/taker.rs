//! A server of gRPC over TLS that takes everything, in a process of its own: what it costs is not the
//! agent's.

#![expect(clippy::print_stdout, reason = "the server tells the other process where it listens")]

use std::io::{self, BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::{Context as _, Result};
use rcgen::generate_simple_self_signed;
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::codegen::tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server as Tonic;
use tonic::transport::server::Connected;
use tonic::{Request, Response, Status, Streaming};
use weir_agent::facts::Facts;
use weir_agent::wire::{Server as Address, Speaker, StatusBoard, TlsFiles, Wire, WireConfig};
use weir_proto::limits::MESSAGE_BYTES_MAX;
use weir_proto::pb::ingest_server::{Ingest, IngestServer};
use weir_proto::pb::{self, FromAgent, FromServer, answer, from_agent, from_server};

/// Argument of the process that takes; the next one is where to put its certificate.
pub(crate) const CHILD: &str = "--taking-process";

/// The process that takes, ended when dropped.
pub(crate) struct TakingProcess {
    child: Child,
    port: u16,
    authority: PathBuf,
}

impl TakingProcess {
    /// Starts it, in this network namespace.
    pub(crate) fn start(directory: &Path) -> Result<Self> {
        let authority = directory.join("certificate.pem");
        let mut child = Command::new(std::env::current_exe()?)
            .arg(CHILD)
            .arg(&authority)
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the process that takes")?;
        let mut line = String::new();
        let stdout = child.stdout.take().context("its output was asked for")?;
        BufReader::new(stdout).read_line(&mut line)?;
        let port = line.trim().parse().with_context(|| format!("it said {line:?}"))?;
        Ok(Self { child, port, authority })
    }

    /// The product's way to it.
    pub(crate) fn way(&self, speaker: Speaker) -> Wire {
        let config = WireConfig {
            server: Address { host: "127.0.0.1".to_owned(), port: self.port },
            node: "bench".to_owned(),
            tls: Some(TlsFiles {
                authorities: Some(self.authority.clone()),
                identity: None,
                server_name: Some("localhost".to_owned()),
            }),
            token: None,
            connect_timeout: Duration::from_secs(10),
            answer_timeout: Duration::from_mins(1),
            drain: Duration::from_secs(10),
        };
        Wire::new(config, speaker, Facts::default(), StatusBoard::default())
    }
}

impl Drop for TakingProcess {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The process that takes, until it is killed.
pub(crate) fn child(certificate: &Path) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(certificate))
}

async fn serve(certificate: &Path) -> Result<()> {
    let signed = generate_simple_self_signed(vec!["localhost".to_owned()])?;
    std::fs::write(certificate, signed.cert.pem())?;
    let key = PrivateKeyDer::Pkcs8(signed.signing_key.serialize_der().into());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![signed.cert.der().clone()], key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?.port());
    let (connections, incoming) = mpsc::channel::<io::Result<Connection>>(1);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let accepted = acceptor.accept(stream).await.map(Connection);
            if connections.send(accepted).await.is_err() {
                return;
            }
        }
    });
    let service = IngestServer::new(TakesAll).max_decoding_message_size(MESSAGE_BYTES_MAX);
    Tonic::builder()
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(4 << 20)
        .serve_with_incoming(service, ReceiverStream::new(incoming))
        .await?;
    Ok(())
}

struct TakesAll;

#[tonic::async_trait]
impl Ingest for TakesAll {
    type StreamStream = ReceiverStream<Result<FromServer, Status>>;

    async fn stream(
        &self,
        request: Request<Streaming<FromAgent>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        let (out, replies) = mpsc::channel(8);
        tokio::spawn(async move {
            let mut inbound = request.into_inner();
            while let Ok(Some(FromAgent { message: Some(message) })) = inbound.message().await {
                let Some(reply) = reply(&message) else { continue };
                if out.send(Ok(FromServer { message: Some(reply) })).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(replies)))
    }
}

fn reply(message: &from_agent::Message) -> Option<from_server::Message> {
    match message {
        from_agent::Message::Hello(_) => {
            Some(from_server::Message::Welcome(pb::Welcome { protocol: 1, ..Default::default() }))
        }
        from_agent::Message::Batch(pb::Batch { sequence, .. }) => {
            let outcome = Some(answer::Outcome::Committed(pb::Committed {}));
            Some(from_server::Message::Answer(pb::Answer { sequence: *sequence, outcome }))
        }
        _ => None,
    }
}

struct Connection(TlsStream<TcpStream>);

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
