//! The open frame: last words as they are read, before any batch holds them.
//!
//! It is written through to the kernel at each drain and never synced: a killed agent loses none,
//! a power loss at most what was read since the last seal.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use weir_flow::Sample;
use weir_flow::journal::decode_last_words;
use weir_flow::ledger::Clock;

use crate::AgentError;

/// The file that takes last words now, and how to move on to the next.
#[derive(Debug)]
pub(crate) struct OpenFrame {
    directory: PathBuf,
    generation: u64,
    file: File,
    /// Bytes of whole items in the file.
    length: u64,
    /// More than that stands there: a write broke off in an item.
    torn: bool,
}

/// Last words held in memory while the disk does not take them. They are in the ledger already;
/// what is beyond this is lost only if weir is killed before the next seal.
const UNWRITTEN_BYTES_MAX: usize = 4 << 20;

impl OpenFrame {
    /// Begins a new file behind those that are there.
    pub(super) fn new(directory: &Path) -> Result<Self, AgentError> {
        let last = list(directory)?.last().map_or(0, |(generation, _)| *generation);
        let generation = last + 1;
        let file = create(directory, generation)?;
        Ok(Self { directory: directory.to_owned(), generation, file, length: 0, torn: false })
    }

    /// Writes encoded last words ([`weir_flow::journal::encode_last_word`]) and empties `words`;
    /// after an error they stay there for the next try.
    pub(crate) fn append(&mut self, words: &mut Vec<u8>) -> Result<(), AgentError> {
        if words.is_empty() {
            return Ok(());
        }
        let written = self.write(words);
        if written.is_ok() || words.len() > UNWRITTEN_BYTES_MAX {
            words.clear();
        }
        written.map_err(AgentError::spool("write", &path(&self.directory, self.generation)))
    }

    fn write(&mut self, words: &[u8]) -> io::Result<()> {
        if self.torn {
            // Whatever follows half an item could not be read again.
            self.file.set_len(self.length)?;
        }
        self.torn = true;
        self.file.write_all(words)?;
        self.torn = false;
        self.length += u64::try_from(words.len()).unwrap_or(0);
        Ok(())
    }

    /// Moves on to the next file once everything in this one is in sealed batches. The files up
    /// to the returned generation are superseded when those batches are durable.
    pub(crate) fn rotate(&mut self) -> Result<Option<u64>, AgentError> {
        if self.length == 0 && !self.torn {
            // Files of an earlier run may still wait to be superseded.
            return Ok((self.generation > 1).then_some(self.generation - 1));
        }
        let done = self.generation;
        self.file = create(&self.directory, done + 1)?;
        self.generation = done + 1;
        self.length = 0;
        self.torn = false;
        Ok(Some(done))
    }
}

fn create(directory: &Path, generation: u64) -> Result<File, AgentError> {
    let path = path(directory, generation);
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(&path)
        .map_err(AgentError::spool("open", &path))
}

fn path(directory: &Path, generation: u64) -> PathBuf {
    directory.join(format!("open-{generation}"))
}

/// The open frames' files, by generation.
pub(super) fn list(directory: &Path) -> Result<Vec<(u64, PathBuf)>, AgentError> {
    let number = |path: &PathBuf| path.file_name()?.to_str()?.strip_prefix("open-")?.parse().ok();
    let paths = super::list(directory)?.into_iter();
    let mut files: Vec<_> = paths.filter_map(|path| Some((number(&path)?, path))).collect();
    files.sort_unstable();
    Ok(files)
}

/// All last words in them. A torn tail is where a kill cut the last write.
pub(super) fn read_all(directory: &Path) -> Result<Vec<(Sample, Clock)>, AgentError> {
    let mut words = Vec::new();
    for (_, path) in list(directory)? {
        let bytes = fs::read(&path).map_err(AgentError::spool("read", &path))?;
        let (mut found, good) = decode_last_words(&bytes);
        if good < bytes.len() {
            tracing::warn!(file = %path.display(), cut = bytes.len() - good, "torn tail cut off");
        }
        words.append(&mut found);
    }
    Ok(words)
}

/// Removes the files up to `generation`.
pub(super) fn supersede(directory: &Path, generation: u64) -> Result<(), AgentError> {
    for (_, path) in list(directory)?.into_iter().filter(|(number, _)| *number <= generation) {
        super::remove(&path)?;
    }
    Ok(())
}
