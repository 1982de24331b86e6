//! A door from this machine's loopback to the server's API, which is in a namespace of its own.

use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use crate::error::{LabError, io_error};
use crate::net::enter;

/// Connections at the same time; more are closed.
const LIMIT: u32 = 64;

/// Listens on loopback (at `port` if it is free, else anywhere) and hands every connection on to
/// the same port inside of the namespace. Lasts as long as the process.
pub(super) fn open(space: &str, port: u16) -> Result<SocketAddr, LabError> {
    let target = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
    let listener = TcpListener::bind(target)
        .or_else(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
        .map_err(io_error("listen on", "127.0.0.1"))?;
    let address = listener.local_addr().map_err(io_error("listen on", "127.0.0.1"))?;
    let space = space.to_owned();
    let open = Arc::new(AtomicU32::new(0));
    // The listening socket stays where it was made; what this thread connects from is inside.
    thread::spawn(move || {
        if enter(&space).is_err() {
            return;
        }
        for stream in listener.incoming().flatten() {
            if open.fetch_add(1, Ordering::Relaxed) >= LIMIT {
                open.fetch_sub(1, Ordering::Relaxed);
                continue;
            }
            let open = Arc::clone(&open);
            thread::spawn(move || {
                // Either side may go at any time; the other learns it by the end of its stream.
                drop(hand_on(&stream, target));
                open.fetch_sub(1, Ordering::Relaxed);
            });
        }
    });
    Ok(address)
}

fn hand_on(outer: &TcpStream, target: SocketAddr) -> io::Result<()> {
    let inner = TcpStream::connect(target)?;
    thread::scope(|scope| {
        scope.spawn(|| copy(outer, &inner));
        copy(&inner, outer)
    })
}

fn copy(mut from: &TcpStream, mut to: &TcpStream) -> io::Result<()> {
    let copied = io::copy(&mut from, &mut to).map(drop);
    // Both directions end together: HTTP needs no half-open connections.
    drop(from.shutdown(Shutdown::Both));
    drop(to.shutdown(Shutdown::Both));
    copied
}
