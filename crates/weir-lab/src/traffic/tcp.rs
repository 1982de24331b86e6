//! TCP: a header tells the sink how much will come, how much is wanted and in how many rounds.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use super::plan::{Connection, SourcePlan};
use super::sink::{ANSWERED_LIMIT, Seen};
use super::source::Tally;

/// Request bytes, response bytes, rounds: two `u64` and a `u32`, most significant byte first.
const HEADER_BYTES: usize = 20;
/// What a connection reads and writes at a time.
const CHUNK: [u8; 16_384] = [b'w'; 16_384];
/// How long an end waits for the other.
const PATIENCE: Duration = Duration::from_secs(20);

/// Makes one connection and keeps it for its life.
pub(super) fn connect(plan: &SourcePlan, connection: &Connection, tally: &Tally) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&plan.target, PATIENCE)?;
    let begin = Instant::now();
    Tally::add(&tally.established, 1);
    prepare(&stream)?;
    // The header is payload as well, whatever the plan's least is.
    let request = connection.request.max(HEADER_BYTES as u64);
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(&(request - HEADER_BYTES as u64).to_be_bytes());
    header[8..16].copy_from_slice(&connection.response.to_be_bytes());
    header[16..].copy_from_slice(&connection.rounds.to_be_bytes());
    stream.write_all(&header)?;
    Tally::add(&tally.sent, HEADER_BYTES as u64);
    for round in 0..connection.rounds {
        let sent = connection.slice(request - HEADER_BYTES as u64, round);
        write(&mut stream, sent)?;
        Tally::add(&tally.sent, sent);
        let wanted = connection.slice(connection.response, round);
        read(&mut stream, wanted)?;
        Tally::add(&tally.received, wanted);
        thread::sleep(connection.round_end(round).saturating_sub(begin.elapsed()));
    }
    stream.shutdown(Shutdown::Write)?;
    // The sink closes when it has seen our end: the source's side is the one in TIME_WAIT.
    match stream.read(&mut [0])? {
        0 => Ok(()),
        _ => Err(io::Error::new(ErrorKind::InvalidData, "more bytes than were asked for")),
    }
}

/// Accepts connections and answers each in a thread of its own.
pub(super) fn answer(listener: &TcpListener, seen: &Arc<Seen>) {
    for stream in listener.incoming() {
        let Ok(stream) = stream else {
            // Out of descriptors, most likely: others must end first.
            thread::sleep(Duration::from_millis(10));
            continue;
        };
        while seen.active.load(Ordering::Relaxed) >= ANSWERED_LIMIT {
            thread::sleep(Duration::from_millis(1));
        }
        seen.active.fetch_add(1, Ordering::Relaxed);
        seen.accepted.fetch_add(1, Ordering::Relaxed);
        let seen = Arc::clone(seen);
        thread::spawn(move || {
            // A connection that breaks is reported by its source, which counts what it missed.
            drop(serve(stream, &seen));
            seen.active.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

fn serve(mut stream: TcpStream, seen: &Seen) -> io::Result<()> {
    prepare(&stream)?;
    let mut header = [0; HEADER_BYTES];
    stream.read_exact(&mut header)?;
    seen.received.fetch_add(HEADER_BYTES as u64, Ordering::Relaxed);
    let number = |at: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&header[at..at + 8]);
        u64::from_be_bytes(bytes)
    };
    let rounds = u32::from_be_bytes([header[16], header[17], header[18], header[19]]);
    let plan = Connection {
        index: 0,
        start: Duration::ZERO,
        life: Duration::ZERO,
        request: number(0),
        response: number(8),
        rounds: rounds.max(1),
    };
    for round in 0..plan.rounds {
        let wanted = plan.slice(plan.request, round);
        read(&mut stream, wanted)?;
        seen.received.fetch_add(wanted, Ordering::Relaxed);
        let sent = plan.slice(plan.response, round);
        write(&mut stream, sent)?;
        seen.sent.fetch_add(sent, Ordering::Relaxed);
    }
    stream.read(&mut [0]).map(drop)
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))
}

fn write(stream: &mut TcpStream, mut bytes: u64) -> io::Result<()> {
    while bytes > 0 {
        let size = usize::try_from(bytes).unwrap_or(usize::MAX).min(CHUNK.len());
        stream.write_all(&CHUNK[..size])?;
        bytes -= size as u64;
    }
    Ok(())
}

fn read(stream: &mut TcpStream, mut bytes: u64) -> io::Result<()> {
    let mut buffer = [0; CHUNK.len()];
    while bytes > 0 {
        let size = usize::try_from(bytes).unwrap_or(usize::MAX).min(buffer.len());
        match stream.read(&mut buffer[..size])? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            read => bytes -= read as u64,
        }
    }
    Ok(())
}
