//! As little of HTTP as it takes to ask the same server again and again.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

/// Longer than weir lets anybody wait.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection that is kept.
pub(crate) struct Client {
    stream: BufReader<TcpStream>,
    address: SocketAddr,
    line: String,
    body: Vec<u8>,
}

/// What came back, and how soon.
#[derive(Debug)]
pub(crate) struct Answer<'a> {
    pub(crate) status: u16,
    pub(crate) body: &'a [u8],
    pub(crate) milliseconds: f64,
}

impl Answer<'_> {
    /// An empty answer would be a fast one.
    pub(crate) fn ensure_rows(&self, path: &str) -> Result<()> {
        let text = String::from_utf8_lossy(self.body);
        ensure!(self.status == 200, "{path} was answered {}: {text}", self.status);
        ensure!(text.contains("app-"), "{path} was answered without rows: {text}");
        Ok(())
    }
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).context("connect to the API")?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { stream: BufReader::new(stream), address, line: String::new(), body: Vec::new() })
    }

    pub(crate) fn get(&mut self, path: &str) -> Result<Answer<'_>> {
        let begun = Instant::now();
        let request = format!("GET {path} HTTP/1.1\r\nhost: {}\r\n\r\n", self.address);
        self.stream.get_mut().write_all(request.as_bytes()).context("ask")?;
        let status = self.read_line()?.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.with_context(|| format!("not HTTP: {:?}", self.line))?;
        let mut length = 0;
        loop {
            let line = self.read_line()?;
            if line.is_empty() {
                break;
            }
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().context("a length")?;
            }
        }
        self.body.resize(length, 0);
        self.stream.read_exact(&mut self.body).context("read an answer")?;
        let milliseconds = begun.elapsed().as_secs_f64() * 1e3;
        Ok(Answer { status, body: &self.body, milliseconds })
    }

    fn read_line(&mut self) -> Result<&str> {
        self.line.clear();
        let size = self.stream.read_line(&mut self.line).context("read an answer's head")?;
        ensure!(size > 0, "the connection ended");
        Ok(self.line.trim_end())
    }
}
