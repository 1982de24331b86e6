//! Reading the table as text, one reading after another.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use weir_flow::Sample;

use super::line::{LineError, parse_line};
use super::proc::{self, Limits};
use super::{Candidates, ProcfsError};

/// Text per piece.
const PIECE_BYTES: usize = 64 * 1024;
/// The longest line. The kernel's have some 300 bytes; a security context makes the longest.
const MAX_LINE_BYTES: usize = 4096;
/// After so many lines it must be clear that this is conntrack's text.
const JUDGED_LINES: u64 = 100;

/// A reader of the table's text form, or of a copy of it.
#[derive(Debug)]
pub struct Table {
    path: PathBuf,
    limits: Limits,
    reading: Option<Reading>,
    /// Lines of all readings that could not be read.
    malformed: u64,
    /// The opening has found no entry.
    empty: bool,
}

impl Table {
    /// A reader of the file at `path`, which must be there and look like conntrack's text. The
    /// kernel's own file may be empty.
    pub fn open(path: &Path, limits: Limits) -> Result<Self, ProcfsError> {
        let mut table =
            Self { path: path.to_owned(), limits, reading: None, malformed: 0, empty: false };
        table.start()?;
        let mut entries = 0_u64;
        // A piece without an entry is not the end.
        while entries == 0 && table.next_chunk(|_| entries += 1)? {}
        Ok(Self { reading: None, malformed: 0, empty: entries == 0, ..table })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// True when the opening found no entry.
    pub fn was_empty(&self) -> bool {
        self.empty
    }

    /// Begins a reading. One that was not brought to its end is given up.
    pub fn start(&mut self) -> Result<(), ProcfsError> {
        self.reading = None;
        self.reading = Some(Reading::begin(&self.path, self.limits)?);
        Ok(())
    }

    /// Reads the next piece, at most 64 KiB of text, and gives its entries to `each`. False: there
    /// was nothing left. Lines that cannot be read are counted ([`Table::malformed`]) and passed over.
    ///
    /// The kernel writes 4 KiB at a time and goes on where it was by counting: an entry that is
    /// made or ends meanwhile may hide another, or show it twice.
    pub fn next_chunk(&mut self, each: impl FnMut(&Sample)) -> Result<bool, ProcfsError> {
        let Some(mut reading) = self.reading.take() else { return Ok(false) };
        let before = reading.malformed;
        let more = reading.next_chunk(&self.path, self.limits, each);
        self.malformed += reading.malformed - before;
        let more = more?;
        if more {
            self.reading = Some(reading);
        }
        Ok(more)
    }

    /// Lines that could not be read and were passed over, since the opening.
    pub fn malformed(&self) -> u64 {
        self.malformed
    }
}

/// One reading from its begin to its end.
#[derive(Debug)]
struct Reading {
    file: File,
    /// The kernel's own file, not a copy.
    kernels: bool,
    buffer: Box<[u8]>,
    /// What of the buffer is read and not yet understood.
    held: Range<usize>,
    bytes: u64,
    /// Lines that are not blank.
    lines: u64,
    malformed: u64,
    /// All lines, for messages.
    line: u64,
    /// The first line that could not be read.
    first_bad: Option<(u64, LineError)>,
    /// The rest of a line that is too long is being passed over.
    skipping: bool,
    ended: bool,
}

impl Reading {
    fn begin(path: &Path, limits: Limits) -> Result<Self, ProcfsError> {
        let at = || path.to_owned();
        // Without blocking: a pipe would wait for somebody to write to it.
        let opened = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
        let file = opened.map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => {
                ProcfsError::Absent { path: at(), existing: Candidates::default().existing() }
            }
            _ => ProcfsError::Unreadable { path: at(), source },
        })?;
        let facts =
            file.metadata().map_err(|source| ProcfsError::Unreadable { path: at(), source })?;
        if facts.is_dir() {
            return Err(ProcfsError::Directory { path: at() });
        }
        if !facts.is_file() {
            return Err(ProcfsError::Special { path: at() });
        }
        let kernels = proc::is_kernels(&file);
        let count = if kernels { proc::count(path) } else { None };
        if let Some(entries) = count.filter(|entries| *entries > limits.entries) {
            return Err(large(path, entries, limits));
        }
        if !kernels && facts.len() > limits.copy_bytes {
            return Err(ProcfsError::LargeFile { path: at(), limit: limits.copy_bytes });
        }
        Ok(Self {
            file,
            kernels,
            buffer: vec![0; PIECE_BYTES].into_boxed_slice(),
            held: 0..0,
            bytes: 0,
            lines: 0,
            malformed: 0,
            line: 0,
            first_bad: None,
            skipping: false,
            ended: false,
        })
    }

    /// False when there was nothing left.
    fn next_chunk(
        &mut self,
        path: &Path,
        limits: Limits,
        mut each: impl FnMut(&Sample),
    ) -> Result<bool, ProcfsError> {
        if self.ended {
            return Ok(false);
        }
        self.fill(path, limits)?;
        while let Some(line) = self.cut_line() {
            self.understand(line, path, &mut each)?;
            // Where the table grows under the reader, or nobody has counted it.
            if self.kernels && self.lines > limits.entries {
                return Err(large(path, self.lines, limits));
            }
        }
        if self.ended {
            self.end(path, &mut each)?;
        }
        Ok(true)
    }

    /// Fills the buffer behind what is held in it, unless the file ends before.
    fn fill(&mut self, path: &Path, limits: Limits) -> Result<(), ProcfsError> {
        self.buffer.copy_within(self.held.clone(), 0);
        self.held = 0..self.held.len();
        while self.held.end < self.buffer.len() {
            let read = match self.file.read(&mut self.buffer[self.held.end..]) {
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => {
                    return Err(ProcfsError::Unreadable { path: path.to_owned(), source });
                }
            };
            if read == 0 {
                self.ended = true;
                break;
            }
            let fresh = &self.buffer[self.held.end..self.held.end + read];
            // Every file that is no text at all has a zero byte near its begin.
            if self.bytes == 0 && fresh.contains(&0) {
                return Err(ProcfsError::Binary { path: path.to_owned() });
            }
            self.held.end += read;
            self.bytes += u64::try_from(read).unwrap_or(u64::MAX);
        }
        if !self.kernels && self.bytes > limits.copy_bytes {
            let limit = limits.copy_bytes;
            return Err(ProcfsError::LargeFile { path: path.to_owned(), limit });
        }
        Ok(())
    }

    /// The next whole line of the buffer, without its end.
    fn cut_line(&mut self) -> Option<Range<usize>> {
        let held = &self.buffer[self.held.clone()];
        let Some(length) = held.iter().position(|byte| *byte == b'\n') else {
            if held.len() > MAX_LINE_BYTES {
                // What belongs to the line so far is of no use; its end is still to come.
                self.skipping = true;
                self.held = 0..0;
            }
            return None;
        };
        let start = self.held.start;
        self.held.start += length + 1;
        Some(start..start + length)
    }

    fn understand(
        &mut self,
        line: Range<usize>,
        path: &Path,
        each: &mut impl FnMut(&Sample),
    ) -> Result<(), ProcfsError> {
        self.line += 1;
        let line = &self.buffer[line];
        let long = std::mem::take(&mut self.skipping) || line.len() > MAX_LINE_BYTES;
        if !long && line.trim_ascii().is_empty() {
            return Ok(());
        }
        self.lines += 1;
        let read =
            if long { Err(LineError::Long { limit: MAX_LINE_BYTES }) } else { parse_line(line) };
        match read {
            Ok(sample) => each(&sample),
            Err(error) => self.note_bad(error),
        }
        if self.lines == JUDGED_LINES { self.judge(path) } else { Ok(()) }
    }

    fn note_bad(&mut self, error: LineError) {
        self.malformed += 1;
        self.first_bad.get_or_insert((self.line, error));
    }

    /// The last line, if nothing ends it, and what the whole was.
    fn end(&mut self, path: &Path, each: &mut impl FnMut(&Sample)) -> Result<(), ProcfsError> {
        if !self.held.is_empty() || self.skipping {
            let rest = &self.buffer[self.held.clone()];
            // Every entry ends with its use count: without it, the last number may be cut short.
            let whole = rest.split(u8::is_ascii_whitespace).any(|word| word.starts_with(b"use="));
            if whole || self.skipping || rest.trim_ascii().is_empty() {
                self.understand(self.held.clone(), path, each)?;
            } else {
                self.line += 1;
                self.lines += 1;
                self.note_bad(LineError::Cut);
            }
        }
        if self.lines == 0 && !self.kernels {
            return Err(ProcfsError::Empty { path: path.to_owned() });
        }
        if self.lines < JUDGED_LINES { self.judge(path) } else { Ok(()) }
    }

    /// More than half of the lines cannot be read: this is something else.
    fn judge(&mut self, path: &Path) -> Result<(), ProcfsError> {
        match self.first_bad.take() {
            Some((line, source)) if self.malformed * 2 > self.lines => {
                Err(ProcfsError::NotConntrack { path: path.to_owned(), line, source })
            }
            _ => Ok(()),
        }
    }
}

fn large(path: &Path, entries: u64, limits: Limits) -> ProcfsError {
    let Limits { entries: limit, slow, .. } = limits;
    ProcfsError::Large { path: path.to_owned(), entries, limit, slow }
}

#[cfg(test)]
mod tests;
