//! The way from a server to ClickHouse: a door in the servers' namespace that can be shut, and that
//! can hold back inserts or their answers.
//!
//! It knows just enough of HTTP for that: a request with a token of deduplication for weir's own
//! table is an insert of a batch, and a client asks nothing more on a connection before it has its
//! answer.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{LabError, io_error};
use crate::net::inside;

/// Connections at the same time; more are closed.
const LIMIT: usize = 256;
/// Inserts remembered; later ones are passed on all the same.
const INSERTS_LIMIT: usize = 100_000;
/// How often the door is looked at for somebody who knocks.
const EVERY: Duration = Duration::from_millis(5);
/// How every insert of a batch into weir's own table is told.
const TOKEN: &[u8] = b"insert_deduplication_token=";
/// The table that a batch is inserted into.
const TABLE: &[u8] = b"flow_10s";
/// How the answer to an insert begins that was done.
const DONE: &[u8] = b"HTTP/1.1 200";
/// The end of a request's body.
const BODY_END: &[u8] = b"0\r\n\r\n";

/// What the gate does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Mode {
    /// It lets everything pass.
    #[default]
    Open,
    /// Every connection is cut, and new ones at once.
    Shut,
    /// Inserts wait in front of it.
    HoldInserts,
    /// The answers to inserts wait behind it.
    HoldAnswers,
}

/// What has passed.
#[derive(Clone, Debug, Default)]
struct Passed {
    /// Inserts that were held back since the mode was set.
    held: usize,
    /// Inserts of which the answer was held back since the mode was set.
    unanswered: usize,
    /// Inserts that the engine was given as a whole, by token: how often.
    given: BTreeMap<String, u32>,
    /// Inserts given to the engine so far.
    count: u64,
}

#[derive(Debug, Default)]
struct State {
    mode: Mode,
    target: Option<SocketAddr>,
    passed: Passed,
    streams: BTreeMap<usize, [TcpStream; 2]>,
    next: usize,
    ended: bool,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

/// A door to ClickHouse. Dropping it closes it.
#[derive(Debug)]
pub(super) struct Gate {
    shared: Arc<Shared>,
}

impl Gate {
    /// Opens a door at `address` in a namespace; behind it is `target`, reached from where the lab
    /// itself is.
    pub(super) fn open(
        space: &str,
        address: SocketAddr,
        target: SocketAddr,
    ) -> Result<Self, LabError> {
        let name = address.to_string();
        let listener = inside(space, || {
            let listener = TcpListener::bind(address).map_err(io_error("listen on", &name))?;
            listener.set_nonblocking(true).map_err(io_error("listen on", &name))?;
            Ok(listener)
        })?;
        let shared = Arc::new(Shared::default());
        shared.lock().target = Some(target);
        let door = Arc::clone(&shared);
        thread::spawn(move || listen(&door, &listener));
        Ok(Self { shared })
    }

    /// What it does from now on.
    pub(super) fn set(&self, mode: Mode) {
        let mut state = self.shared.lock();
        state.mode = mode;
        (state.passed.held, state.passed.unanswered) = (0, 0);
        if mode == Mode::Shut {
            state.cut();
        }
        self.shared.changed.notify_all();
    }

    /// Where ClickHouse is from now on.
    pub(super) fn lead_to(&self, target: SocketAddr) {
        let mut state = self.shared.lock();
        state.target = Some(target);
        state.cut();
        self.shared.changed.notify_all();
    }

    /// Waits until the engine is given the next insert as a whole; false when there was none.
    pub(super) fn wait_for_insert(&self, limit: Duration) -> bool {
        let before = self.shared.lock().passed.count;
        self.shared.wait(limit, |state| state.passed.count > before)
    }

    /// Waits until an insert is held back; false when there is none.
    pub(super) fn wait_for_held(&self, limit: Duration) -> bool {
        self.shared.wait(limit, |state| state.passed.held > 0)
    }

    /// Waits until the engine has done an insert and the answer is held back; false when there is
    /// none.
    pub(super) fn wait_for_unanswered(&self, limit: Duration) -> bool {
        self.shared.wait(limit, |state| state.passed.unanswered > 0)
    }

    /// The tokens of all inserts that the engine was given through this door, and how often.
    pub(super) fn given(&self) -> BTreeMap<String, u32> {
        self.shared.lock().passed.given.clone()
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.ended = true;
        state.cut();
        self.shared.changed.notify_all();
    }
}

impl State {
    fn cut(&mut self) {
        for stream in std::mem::take(&mut self.streams).into_values().flatten() {
            // Either side may have gone by itself.
            drop(stream.shutdown(Shutdown::Both));
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic of another thread leaves the state as good as it was.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait(&self, limit: Duration, is_so: impl Fn(&State) -> bool) -> bool {
        let deadline = Instant::now() + limit;
        let mut state = self.lock();
        while !is_so(&state) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Waits as long as the gate does this and the connection stands.
    fn wait_while(&self, mode: Mode, stream: usize) {
        let mut state = self.lock();
        while state.mode == mode && state.streams.contains_key(&stream) {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

fn listen(shared: &Arc<Shared>, listener: &TcpListener) {
    while !shared.lock().ended {
        let Ok((stream, _)) = listener.accept() else {
            thread::sleep(EVERY);
            continue;
        };
        let shared = Arc::clone(shared);
        thread::spawn(move || {
            // Whoever knocks learns of a failure by the end of the connection.
            drop(hand_on(&shared, &stream));
        });
    }
}

fn hand_on(shared: &Shared, outer: &TcpStream) -> io::Result<()> {
    outer.set_nonblocking(false)?;
    let target = {
        let state = shared.lock();
        if state.mode == Mode::Shut || state.ended || state.streams.len() >= LIMIT {
            return Ok(());
        }
        state.target.ok_or(io::ErrorKind::NotConnected)?
    };
    let inner = TcpStream::connect(target)?;
    for stream in [outer, &inner] {
        stream.set_nodelay(true)?;
    }
    let number = {
        let mut state = shared.lock();
        if state.mode == Mode::Shut || state.target != Some(target) {
            return Ok(());
        }
        let number = state.next;
        state.next += 1;
        state.streams.insert(number, [outer.try_clone()?, inner.try_clone()?]);
        number
    };
    // The insert that waits for its answer on this connection.
    let current = Mutex::new(None);
    let way = Way { shared, number, current: &current };
    thread::scope(|scope| {
        scope.spawn(|| way.run(outer, &inner, Way::request));
        way.run(&inner, outer, Way::answer);
    });
    shared.lock().streams.remove(&number);
    Ok(())
}

/// An insert on its way.
#[derive(Debug)]
struct Insert {
    token: String,
    /// Whether it has been counted as given to the engine.
    is_given: bool,
}

/// A connection through the gate.
#[derive(Clone, Copy)]
struct Way<'a> {
    shared: &'a Shared,
    number: usize,
    current: &'a Mutex<Option<Insert>>,
}

impl Way<'_> {
    /// Hands everything on until one side ends; then both do: HTTP needs no half-open connections.
    fn run(self, mut from: &TcpStream, mut to: &TcpStream, look: fn(Self, &[u8], bool)) {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            let part = &buffer[..length];
            look(self, part, false);
            if to.write_all(part).is_err() {
                break;
            }
            look(self, part, true);
        }
        for stream in [from, to] {
            drop(stream.shutdown(Shutdown::Both));
        }
    }

    fn current(&self) -> MutexGuard<'_, Option<Insert>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at a part of a request, before it is handed on and after.
    fn request(self, part: &[u8], is_handed_on: bool) {
        if !is_handed_on {
            let Some(token) = insert_of(part) else { return };
            *self.current() = Some(Insert { token, is_given: false });
            let mut state = self.shared.lock();
            if state.mode == Mode::HoldInserts {
                state.passed.held += 1;
                self.shared.changed.notify_all();
                drop(state);
                self.shared.wait_while(Mode::HoldInserts, self.number);
            }
            return;
        }
        if part.ends_with(BODY_END) {
            self.count(&mut self.current());
        }
    }

    /// Looks at a part of an answer, before it is handed on: the first tells that the insert is
    /// done.
    fn answer(self, part: &[u8], is_handed_on: bool) {
        if is_handed_on {
            return;
        }
        {
            let mut current = self.current();
            // The engine may be faster than whoever saw the request's end off.
            if part.starts_with(DONE) {
                self.count(&mut current);
            }
            if current.take().is_none() {
                return;
            }
        }
        let mut state = self.shared.lock();
        if state.mode == Mode::HoldAnswers {
            state.passed.unanswered += 1;
            self.shared.changed.notify_all();
            drop(state);
            self.shared.wait_while(Mode::HoldAnswers, self.number);
        }
    }

    /// Counts an insert that the engine has as a whole, once.
    fn count(self, current: &mut Option<Insert>) {
        let Some(insert) = current.as_mut().filter(|insert| !insert.is_given) else { return };
        insert.is_given = true;
        let mut state = self.shared.lock();
        state.passed.count += 1;
        if state.passed.given.len() < INSERTS_LIMIT {
            *state.passed.given.entry(insert.token.clone()).or_default() += 1;
        }
        self.shared.changed.notify_all();
    }
}

/// The token of an insert of a batch, where a request begins that is one.
fn insert_of(part: &[u8]) -> Option<String> {
    if !part.starts_with(b"POST ") {
        return None;
    }
    let head = part.split(|byte| *byte == b'\r').next()?;
    head.windows(TABLE.len()).position(|window| window == TABLE)?;
    let at = head.windows(TOKEN.len()).position(|window| window == TOKEN)? + TOKEN.len();
    let token = head[at..].split(|byte| matches!(byte, b'&' | b' ')).next()?;
    Some(String::from_utf8_lossy(token).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_insert_of_a_batch_is_told_by_its_token() {
        let insert =
            b"POST /?query=INSERT+INTO+flow_10s&insert_deduplication_token=AB-7&x=1 HTTP/1.1\r\n";
        assert_eq!(insert_of(insert).as_deref(), Some("AB-7"));
        let other = b"POST /?query=INSERT+INTO+memory&insert_deduplication_token=AB-7 HTTP/1.1\r\n";
        assert_eq!(insert_of(other), None);
        assert_eq!(insert_of(b"POST /?query=SELECT+1+FROM+flow_10s HTTP/1.1\r\n"), None);
        assert_eq!(insert_of(b"flow_10s insert_deduplication_token=AB-7 "), None);
    }

    #[test]
    fn answers_are_held_until_the_gate_opens() {
        use std::net::Ipv4Addr;
        let engine = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        free.set_nonblocking(true).unwrap();
        let door = free.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        {
            let mut state = shared.lock();
            state.target = Some(engine.local_addr().unwrap());
            state.mode = Mode::HoldAnswers;
        }
        let gate = Gate { shared: Arc::clone(&shared) };
        thread::spawn(move || listen(&shared, &free));
        let mut client = TcpStream::connect(door).unwrap();
        let request =
            b"POST /?query=flow_10s&insert_deduplication_token=T-1 HTTP/1.1\r\n\r\n0\r\n\r\n";
        client.write_all(request).unwrap();
        let (mut served, _) = engine.accept().unwrap();
        let mut got = vec![0; request.len()];
        served.read_exact(&mut got).unwrap();
        assert_eq!(got, request);
        served.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
        assert!(gate.wait_for_unanswered(Duration::from_secs(10)), "the answer is at the gate");
        assert_eq!(gate.given(), BTreeMap::from([("T-1".to_owned(), 1)]));
        client.set_nonblocking(true).unwrap();
        assert!(client.read(&mut got).is_err(), "nothing has come through");
        gate.set(Mode::Open);
        client.set_nonblocking(false).unwrap();
        let mut answer = [0; 12];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200");
    }
}
