//! Checkpoints: the ledger's table as it was after a batch.
//!
//! Magic, epoch, last batch, boot, tick, wall time, count; 48 bytes a connection; an XXH3-128 of it
//! all. Little endian. Streamed both ways: the table is never in memory twice.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::Path;

use weir_flow::journal::Recovery;
use weir_flow::ledger::Slot;
use weir_flow::{BootTime, Epoch, WallTime};
use xxhash_rust::xxh3::Xxh3;

use super::CheckpointAt;
use crate::AgentError;

const MAGIC: [u8; 8] = *b"WEIRCKP\x01";

/// Writes a checkpoint, not synced.
pub(crate) fn write(
    path: &Path,
    epoch: Epoch,
    at: CheckpointAt,
    count: u64,
    slots: &mut dyn Iterator<Item = &Slot>,
) -> Result<(), AgentError> {
    let written = File::create(path).and_then(|file| {
        let mut out = Hashed { inner: BufWriter::new(file), hasher: Xxh3::new() };
        out.put(&MAGIC)?;
        out.put(&epoch.0.to_le_bytes())?;
        out.put(&at.sequence.to_le_bytes())?;
        out.put(&at.boot.to_le_bytes())?;
        out.put(&at.tick.0.to_le_bytes())?;
        out.put(&at.wall.0.to_le_bytes())?;
        out.put(&count.to_le_bytes())?;
        for slot in slots {
            out.put(&slot.to_bytes())?;
        }
        let digest = out.hasher.digest128();
        out.inner.write_all(&digest.to_le_bytes())?;
        out.inner.flush()
    });
    if written.is_err() {
        // Half a checkpoint is of no use, and the disk may be full.
        drop(fs::remove_file(path));
    }
    written.map_err(AgentError::spool("write", path))
}

/// Reads a checkpoint into a recovery.
pub(super) fn read(
    path: &Path,
    epoch: Epoch,
    recovery: &mut Recovery,
) -> Result<CheckpointAt, AgentError> {
    let damaged = |what: &str| AgentError::Damaged { path: path.to_owned(), what: what.to_owned() };
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::UnexpectedEof => damaged("the checkpoint is cut short"),
        _ => AgentError::spool("read", path)(error),
    };
    let file = File::open(path).map_err(AgentError::spool("open", path))?;
    let mut input = Hashed { inner: BufReader::new(file), hasher: Xxh3::new() };
    if input.take::<8>().map_err(failed)? != MAGIC {
        return Err(damaged("the checkpoint is not of this version of weir"));
    }
    if input.take().map(u128::from_le_bytes).map_err(failed)? != epoch.0 {
        return Err(damaged("the checkpoint belongs to another epoch"));
    }
    let sequence = input.take().map(u64::from_le_bytes).map_err(failed)?;
    let boot = input.take().map(u128::from_le_bytes).map_err(failed)?;
    let tick = BootTime(input.take().map(u64::from_le_bytes).map_err(failed)?);
    let wall = WallTime(input.take().map(u64::from_le_bytes).map_err(failed)?);
    let count = input.take().map(u64::from_le_bytes).map_err(failed)?;
    recovery.tick(boot, tick);
    for _ in 0..count {
        let bytes = input.take::<48>().map_err(failed)?;
        recovery.slot(Slot::from_bytes(&bytes));
    }
    let digest = input.hasher.digest128();
    let mut sealed = [0; 16];
    input.inner.read_exact(&mut sealed).map_err(failed)?;
    if u128::from_le_bytes(sealed) != digest {
        return Err(damaged("the checkpoint does not match its digest"));
    }
    Ok(CheckpointAt { sequence, boot, tick, wall })
}

struct Hashed<T> {
    inner: T,
    hasher: Xxh3,
}

impl<T: Write> Hashed<T> {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.inner.write_all(bytes)
    }
}

impl<T: Read> Hashed<T> {
    fn take<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.inner.read_exact(&mut bytes)?;
        self.hasher.update(&bytes);
        Ok(bytes)
    }
}
