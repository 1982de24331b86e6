//! A page of flows, or all of them, sent while it is written.
//!
//! What is sent has an end of its own: when writing fails half way, the connection is cut, and
//! nobody takes a part for the whole.

use std::io::{self, Write};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame};
use serde::Serializer;
use serde::ser::Serialize;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep, sleep};

use crate::answer::{Cell, FlowsPage};
use crate::moment::rfc3339;

/// The largest piece that is sent at once, bytes.
pub(super) const MAX_PIECE: usize = 64 << 10;
/// Pieces that may wait for the reader.
const MAX_WAITING: usize = 4;

/// In which form flows are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// One object.
    Json,
    /// A row a line.
    Lines,
}

impl Form {
    /// Its media type.
    pub(super) fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Lines => "application/x-ndjson",
        }
    }

    /// What an Accept header asks for: lines where it names them, else an object.
    pub(super) fn accepted(accept: &str) -> Self {
        let names_lines = accept.split(',').any(|range| {
            let media_type = range.split(';').next().unwrap_or_default().trim();
            media_type.eq_ignore_ascii_case(Self::Lines.media_type())
        });
        if names_lines { Self::Lines } else { Self::Json }
    }
}

/// How long a body may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patience {
    /// From its beginning to its end.
    Whole(Duration),
    /// From one piece to the next.
    Piece(Duration),
}

/// A body, and where it is written to. It is cut when patience ends.
pub(super) fn channel(patience: Patience) -> (Pieces, PiecesBody) {
    let (sender, receiver) = mpsc::channel(MAX_WAITING);
    let pieces = Pieces { sender, piece: Vec::with_capacity(MAX_PIECE) };
    let (Patience::Whole(time) | Patience::Piece(time)) = patience;
    let deadline = Box::pin(sleep(time));
    (pieces, PiecesBody { receiver, deadline, patience, is_whole: false })
}

/// Writes a page, and each that `next` gives for a cursor, as lines. Where `next` gives none, the
/// body is cut: the last cursor that was written leads on.
pub(super) fn write_all(
    first: FlowsPage,
    mut next: impl FnMut(String) -> Option<FlowsPage>,
    mut pieces: Pieces,
) -> io::Result<()> {
    let mut page = first;
    loop {
        write_lines(&page, &names(&page), &mut pieces)?;
        // Whoever is cut off later can go on here.
        pieces.send()?;
        let Some(cursor) = page.next_cursor else { return pieces.end() };
        let Some(following) = next(cursor) else { return Ok(()) };
        page = following;
    }
}

fn names(page: &FlowsPage) -> Vec<String> {
    page.report.columns.iter().map(|column| column.name()).collect()
}

/// Writes a page and its end.
pub(super) fn write_page(page: &FlowsPage, form: Form, mut pieces: Pieces) -> io::Result<()> {
    let names = names(page);
    match form {
        Form::Json => write_object(page, &names, &mut pieces)?,
        Form::Lines => write_lines(page, &names, &mut pieces)?,
    }
    pieces.end()
}

fn write_object(page: &FlowsPage, names: &[String], out: &mut Pieces) -> io::Result<()> {
    let FlowsPage { report, next_cursor } = page;
    write!(out, "{{\"columns\":{},\"rows\":[", json!(names))?;
    for (number, cells) in report.rows.iter().enumerate() {
        out.write_all(if number > 0 { b"," } else { b"" })?;
        serde_json::to_writer(&mut *out, &Row { names, cells })?;
    }
    let (since, until) = (json!(rfc3339(report.since)), json!(rfc3339(report.until)));
    write!(
        out,
        "],\"since\":{since},\"until\":{until},\"level_seconds\":{},\"step_seconds\":{},\
         \"more\":{},\"next_cursor\":{}}}",
        report.level_seconds,
        json!(report.step_seconds),
        report.more,
        json!(next_cursor),
    )
}

fn write_lines(page: &FlowsPage, names: &[String], out: &mut Pieces) -> io::Result<()> {
    for cells in &page.report.rows {
        serde_json::to_writer(&mut *out, &Row { names, cells })?;
        out.write_all(b"\n")?;
    }
    writeln!(out, "{}", json!({ "next_cursor": page.next_cursor }))
}

/// A row as an object, its columns in their order.
struct Row<'a> {
    names: &'a [String],
    cells: &'a [Cell],
}

impl Serialize for Row<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.names.iter().zip(self.cells))
    }
}

/// The writing end, for a thread that may block.
pub(super) struct Pieces {
    sender: mpsc::Sender<Piece>,
    piece: Vec<u8>,
}

/// What goes through the channel.
enum Piece {
    Bytes(Bytes),
    /// Nothing follows, and nothing is missing.
    End,
}

impl Pieces {
    fn send(&mut self) -> io::Result<()> {
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(MAX_PIECE));
        self.put(Piece::Bytes(piece.into()))
    }

    fn put(&self, piece: Piece) -> io::Result<()> {
        self.sender.blocking_send(piece).map_err(|_gone| io::ErrorKind::BrokenPipe.into())
    }

    fn end(mut self) -> io::Result<()> {
        if !self.piece.is_empty() {
            self.send()?;
        }
        self.put(Piece::End)
    }
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = MAX_PIECE - self.piece.len();
        let taken = &bytes[..bytes.len().min(room)];
        self.piece.extend_from_slice(taken);
        if self.piece.len() == MAX_PIECE {
            self.send()?;
        }
        Ok(taken.len())
    }

    /// Pieces are sent when they are full, and at the end.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The body that a connection reads.
pub(super) struct PiecesBody {
    receiver: mpsc::Receiver<Piece>,
    deadline: Pin<Box<Sleep>>,
    patience: Patience,
    is_whole: bool,
}

impl Body for PiecesBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.is_whole {
            return Poll::Ready(None);
        }
        if self.deadline.as_mut().poll(context).is_ready() {
            return Poll::Ready(Some(Err(io::ErrorKind::TimedOut.into())));
        }
        match self.receiver.poll_recv(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(Piece::Bytes(bytes))) => {
                if let Patience::Piece(time) = self.patience {
                    self.deadline.as_mut().reset(Instant::now() + time);
                }
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Poll::Ready(Some(Piece::End)) => {
                self.is_whole = true;
                Poll::Ready(None)
            }
            Poll::Ready(None) => Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into()))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.is_whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_sent_to_whoever_names_them() {
        for (accept, form) in [
            ("", Form::Json),
            ("*/*", Form::Json),
            ("application/json", Form::Json),
            ("application/x-ndjson", Form::Lines),
            ("text/html, Application/X-NDJSON;q=0.9", Form::Lines),
        ] {
            assert_eq!(Form::accepted(accept), form, "{accept}");
        }
    }

    #[tokio::test]
    async fn what_has_no_end_is_an_error_and_pieces_are_bounded() {
        for ends in [true, false] {
            let (mut pieces, body) = channel(Patience::Whole(Duration::from_mins(1)));
            let writing = tokio::task::spawn_blocking(move || {
                pieces.write_all(&vec![b'x'; 3 * MAX_PIECE + 1]).unwrap();
                if ends {
                    pieces.end().unwrap();
                }
            });
            let mut body = Box::pin(body);
            let mut received = 0;
            let end = loop {
                match std::future::poll_fn(|context| body.as_mut().poll_frame(context)).await {
                    Some(Ok(frame)) => {
                        let bytes = frame.into_data().unwrap();
                        assert!(bytes.len() <= MAX_PIECE);
                        received += bytes.len();
                    }
                    Some(Err(error)) => break Err(error.kind()),
                    None => break Ok(received),
                }
            };
            writing.await.unwrap();
            let expected =
                if ends { Ok(3 * MAX_PIECE + 1) } else { Err(io::ErrorKind::UnexpectedEof) };
            assert_eq!(end, expected);
        }
    }
}
