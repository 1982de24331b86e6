//! Faults before an engine: a proxy that lets requests through, or does something worse with them.

mod message;

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::Engine;
use crate::LabError;
use crate::error::io_error;
use message::Message;

/// What happens to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The connection ends before the engine hears of it.
    CutBefore,
    /// The engine does it, and the connection ends before the answer.
    CutAfter,
    /// The engine gets the first half of it, and the connection ends.
    CutDuring,
    /// The engine does it, and the connection ends in the midst of the answer.
    CutAnswer,
    /// It waits so long, or until the faults are cleared.
    Delay(Duration),
    /// The engine does it, and the answer waits until the faults are cleared.
    Hold,
    /// This is the answer, as another program at the same port would give it.
    Page {
        /// The HTTP status.
        status: u16,
        /// What it says.
        body: Vec<u8>,
    },
    /// This is the answer, and the engine never hears of it.
    Answer {
        /// The HTTP status.
        status: u16,
        /// ClickHouse's code.
        code: u32,
        /// ClickHouse's words for it, after `DB::Exception: `.
        text: String,
    },
}

/// A proxy before an engine. Ends when dropped.
#[derive(Debug)]
pub struct Faults {
    url: String,
    ca: Option<String>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    engine: String,
    address: SocketAddr,
    tls: Option<Arc<ServerConfig>>,
    state: Mutex<State>,
    changed: Condvar,
    is_over: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    rules: Vec<Rule>,
    /// Grows when the faults are cleared: what waits goes on.
    clearings: u64,
    /// What came by, the last ones.
    seen: Vec<String>,
    /// By number, so that they can be cut.
    connections: HashMap<u64, TcpStream>,
    next_connection: u64,
}

#[derive(Debug)]
struct Rule {
    needle: String,
    fault: Fault,
    times: u64,
}

/// How many requests are remembered for [`Faults::wait_for`].
const SEEN: usize = 100_000;

impl Faults {
    /// Before this engine, on a port of its own.
    pub fn before(engine: &Engine) -> Result<Self, LabError> {
        Self::start(engine, None)
    }

    /// The same with TLS, and a certificate for this name from an authority of its own
    /// ([`Faults::ca`]).
    pub fn with_tls(engine: &Engine, name: &str) -> Result<Self, LabError> {
        let (config, ca) = certificate(name)?;
        Self::start(engine, Some((config, ca)))
    }

    fn start(engine: &Engine, tls: Option<(ServerConfig, String)>) -> Result<Self, LabError> {
        let listener = TcpListener::bind(("127.0.0.1", 0));
        let listener = listener.map_err(io_error("listen on", "127.0.0.1"))?;
        let address = listener.local_addr().map_err(io_error("listen on", "127.0.0.1"))?;
        let (tls, ca) = tls.map_or((None, None), |(tls, ca)| (Some(Arc::new(tls)), Some(ca)));
        let scheme = if tls.is_some() { "https" } else { "http" };
        let engine = engine.url().trim_start_matches("http://").to_owned();
        let shared = Arc::new(Shared {
            engine,
            address,
            tls,
            state: Mutex::default(),
            changed: Condvar::new(),
            is_over: AtomicBool::new(false),
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || accept(&listener, &accepting));
        Ok(Self { url: format!("{scheme}://{address}"), ca, shared })
    }

    /// Where it listens.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.shared.address.port()
    }

    /// Who signed its certificate, PEM; `None` without TLS.
    pub fn ca(&self) -> Option<&str> {
        self.ca.as_deref()
    }

    /// Does this to the next `times` requests that hold the text in their statement. The first rule
    /// that fits is followed.
    pub fn add(&self, needle: &str, fault: Fault, times: u64) {
        self.shared.state().rules.push(Rule { needle: needle.to_owned(), fault, times });
    }

    /// The engine is away: every connection ends at once, those that are open, too.
    pub fn go_away(&self) {
        self.add("", Fault::CutBefore, u64::MAX);
        for (_, connection) in self.shared.state().connections.drain() {
            drop(connection.shutdown(std::net::Shutdown::Both));
        }
    }

    /// No faults any more; what waits goes on.
    pub fn clear(&self) {
        let mut state = self.shared.state();
        state.rules.clear();
        state.clearings += 1;
        self.shared.changed.notify_all();
    }

    /// How many requests held the text.
    pub fn seen(&self, needle: &str) -> usize {
        self.shared.state().seen(needle)
    }

    /// Waits until so many requests held the text; false when they did not come in time.
    pub fn wait_for(&self, needle: &str, times: usize, within: Duration) -> bool {
        let state = self.shared.state();
        let waited =
            self.shared.changed.wait_timeout_while(state, within, |s| s.seen(needle) < times);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.seen(needle) >= times
    }
}

impl Drop for Faults {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Release);
        self.clear();
        // Wakes the listener.
        drop(TcpStream::connect(self.shared.address));
    }
}

impl State {
    fn seen(&self, needle: &str) -> usize {
        self.seen.iter().filter(|statement| statement.contains(needle)).count()
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers a request and says what is to happen to it, and how often faults were cleared so
    /// far: what is cleared from now on holds nobody back.
    fn fault(&self, statement: String) -> (Option<Fault>, u64) {
        let mut state = self.state();
        let rule = state
            .rules
            .iter_mut()
            .find(|rule| rule.times > 0 && statement.contains(rule.needle.as_str()));
        let fault = rule.map(|rule| {
            rule.times -= 1;
            rule.fault.clone()
        });
        if state.seen.len() < SEEN {
            state.seen.push(statement);
        }
        self.changed.notify_all();
        (fault, state.clearings)
    }

    /// Waits until the faults are cleared once more, at most so long.
    fn wait(&self, clearings: u64, at_most: Option<Duration>) {
        let state = self.state();
        let waits = |state: &mut State| state.clearings == clearings;
        if let Some(at_most) = at_most {
            drop(self.changed.wait_timeout_while(state, at_most, waits));
        } else {
            drop(self.changed.wait_while(state, waits));
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for connection in listener.incoming() {
        if shared.is_over.load(Ordering::Acquire) {
            return;
        }
        let Ok(connection) = connection else { continue };
        let shared = Arc::clone(shared);
        thread::spawn(move || {
            let number = {
                let mut state = shared.state();
                let number = state.next_connection;
                state.next_connection += 1;
                if let Ok(copy) = connection.try_clone() {
                    state.connections.insert(number, copy);
                }
                number
            };
            // Whatever ends it, the one at the other end sees the connection end.
            drop(converse(connection, &shared));
            shared.state().connections.remove(&number);
        });
    }
}

fn converse(connection: TcpStream, shared: &Shared) -> io::Result<()> {
    connection.set_nodelay(true)?;
    let Some(tls) = &shared.tls else { return relay(&mut &connection, shared) };
    let session = ServerConnection::new(Arc::clone(tls)).map_err(io::Error::other)?;
    relay(&mut StreamOwned::new(session, connection), shared)
}

/// One request after the other, until somebody ends the connection.
fn relay(asker: &mut (impl Read + Write), shared: &Shared) -> io::Result<()> {
    let mut asking = message::Reader::default();
    let mut engine: Option<(TcpStream, message::Reader)> = None;
    while let Some(request) = asking.read(asker)? {
        let (fault, clearings) = shared.fault(request.statement());
        let said = match &fault {
            Some(Fault::CutBefore) => return Ok(()),
            Some(Fault::Answer { status, code, text }) => {
                Some(Message::exception(*status, *code, text))
            }
            Some(Fault::Page { status, body }) => Some(Message::page(*status, body)),
            Some(Fault::Delay(delay)) => {
                shared.wait(clearings, Some(*delay));
                None
            }
            _ => None,
        };
        if let Some(said) = said {
            asker.write_all(&said)?;
            asker.flush()?;
            if request.is_last {
                return Ok(());
            }
            continue;
        }
        let (stream, answers) = if let Some(engine) = &mut engine {
            engine
        } else {
            let stream = TcpStream::connect(&shared.engine)?;
            stream.set_nodelay(true)?;
            engine.insert((stream, message::Reader::default()))
        };
        if fault == Some(Fault::CutDuring) {
            let (half, _) = request.bytes.split_at(request.bytes.len() / 2);
            return stream.write_all(half);
        }
        stream.write_all(&request.bytes)?;
        let Some(answer) = answers.read(stream)? else { return Ok(()) };
        match fault {
            Some(Fault::CutAfter) => return Ok(()),
            Some(Fault::CutAnswer) => {
                // At least the head, so that the answer has begun.
                let (half, _) = answer.bytes.split_at(answer.middle());
                asker.write_all(half)?;
                return asker.flush();
            }
            Some(Fault::Hold) => shared.wait(clearings, None),
            _ => {}
        }
        asker.write_all(&answer.bytes)?;
        asker.flush()?;
        if request.is_last {
            return Ok(());
        }
    }
    Ok(())
}

/// A certificate for a name, and who signed it.
fn certificate(name: &str) -> Result<(ServerConfig, String), LabError> {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    let trouble = |message: String| LabError::Answer { program: "rcgen".to_owned(), message };
    let made = || -> Result<_, rcgen::Error> {
        let mut authority = CertificateParams::new(Vec::new())?;
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
        let key = KeyPair::generate()?;
        let certificate =
            CertificateParams::new(vec![name.to_owned()])?.signed_by(&key, &authority)?;
        Ok((certificate.der().clone(), key.serialize_der(), authority.pem()))
    };
    let (certificate, key, ca) = made().map_err(|error| trouble(error.to_string()))?;
    let key = PrivateKeyDer::try_from(key).map_err(|error| trouble(error.to_owned()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(vec![certificate], key))
        .map_err(|error| trouble(error.to_string()))?;
    Ok((config, ca))
}
