//! HTTP/1.1 messages, whole and as they came.

use std::io::{self, Read};

/// The longest message that is passed on.
const LIMIT: usize = 1 << 30;

/// A request or an answer, head and body.
pub(super) struct Message {
    pub(super) bytes: Vec<u8>,
    /// Where the body begins.
    body: usize,
    /// True when its sender wants to end the connection after it.
    pub(super) is_last: bool,
}

/// Reads messages from a connection, one after the other.
#[derive(Default)]
pub(super) struct Reader {
    buffer: Vec<u8>,
}

impl Message {
    /// The statement of a request, from its URL and its body.
    pub(super) fn statement(&self) -> String {
        let head = String::from_utf8_lossy(self.bytes.get(..self.body).unwrap_or_default());
        let target = head.split(' ').nth(1).unwrap_or_default();
        let body = self.bytes.get(self.body..).unwrap_or_default();
        let body = body.get(..body.len().min(1 << 16)).unwrap_or_default();
        format!("{} {}", unescaped(target), String::from_utf8_lossy(body))
    }

    /// The middle of the body.
    pub(super) fn middle(&self) -> usize {
        self.body.midpoint(self.bytes.len())
    }

    /// An answer of another program.
    pub(super) fn page(status: u16, body: &[u8]) -> Vec<u8> {
        let head = format!(
            "HTTP/1.1 {status} Page\r\nContent-Type: text/html\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        [head.as_bytes(), body].concat()
    }

    /// An answer as ClickHouse refuses.
    pub(super) fn exception(status: u16, code: u32, text: &str) -> Vec<u8> {
        let body = format!("Code: {code}. DB::Exception: {text}\n");
        let head = format!(
            "HTTP/1.1 {status} Fault\r\nX-ClickHouse-Exception-Code: {code}\r\n\
             Content-Type: text/plain; charset=UTF-8\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        (head + &body).into_bytes()
    }
}

/// Undoes the escapes of a URL.
fn unescaped(target: &str) -> String {
    let mut out = Vec::with_capacity(target.len());
    let mut bytes = target.bytes();
    while let Some(byte) = bytes.next() {
        let escaped = || {
            let mut ahead = bytes.clone();
            let digits = [ahead.next()?, ahead.next()?];
            u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()
        };
        match byte {
            b'+' => out.push(b' '),
            b'%' if let Some(byte) = escaped() => {
                out.push(byte);
                bytes.nth(1);
            }
            byte => out.push(byte),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

impl Reader {
    /// The next message; `None` where the connection ended between two.
    pub(super) fn read(&mut self, from: &mut impl Read) -> io::Result<Option<Message>> {
        let head = loop {
            if let Some(at) = find(&self.buffer, b"\r\n\r\n") {
                break at + 4;
            }
            if !self.more(from)? {
                return if self.buffer.is_empty() { Ok(None) } else { Err(cut()) };
            }
        };
        let text = String::from_utf8_lossy(self.buffer.get(..head).unwrap_or_default());
        let text = text.to_ascii_lowercase();
        let field = |name: &str| {
            text.lines().find_map(|line| Some(line.strip_prefix(name)?.trim().to_owned()))
        };
        let is_last = field("connection:").is_some_and(|how| how == "close");
        let end = if field("transfer-encoding:").is_some_and(|how| how.contains("chunked")) {
            self.chunks(head, from)?
        } else {
            let length = field("content-length:").and_then(|length| length.parse().ok());
            head.saturating_add(length.unwrap_or(0_usize))
        };
        while self.buffer.len() < end {
            if end > LIMIT || !self.more(from)? {
                return Err(cut());
            }
        }
        let rest = self.buffer.split_off(end);
        let bytes = std::mem::replace(&mut self.buffer, rest);
        Ok(Some(Message { bytes, body: head, is_last }))
    }

    /// Where the chunked body that begins here ends.
    fn chunks(&mut self, mut at: usize, from: &mut impl Read) -> io::Result<usize> {
        loop {
            let rest = self.buffer.get(at..).unwrap_or_default();
            let Some(line) = find(rest, b"\r\n") else {
                if !self.more(from)? {
                    return Err(cut());
                }
                continue;
            };
            let size = std::str::from_utf8(rest.get(..line).unwrap_or_default())
                .ok()
                .and_then(|line| usize::from_str_radix(line.split(';').next()?.trim(), 16).ok())
                .ok_or_else(cut)?;
            let next = at.saturating_add(line + 2).saturating_add(size).saturating_add(2);
            if next > LIMIT {
                return Err(cut());
            }
            at = next;
            while self.buffer.len() < at {
                if !self.more(from)? {
                    return Err(cut());
                }
            }
            if size == 0 {
                return Ok(at);
            }
        }
    }

    fn more(&mut self, from: &mut impl Read) -> io::Result<bool> {
        let mut piece = vec![0; 1 << 16];
        let got = from.read(&mut piece)?;
        self.buffer.extend(piece.iter().take(got));
        Ok(got > 0)
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

fn cut() -> io::Error {
    io::ErrorKind::UnexpectedEof.into()
}
