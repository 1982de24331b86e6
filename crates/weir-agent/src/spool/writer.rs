//! The spool's writer: a thread of its own, so that a slow disk does not keep events waiting.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::{Frames, open_frame, sync_directory};
use crate::{AgentError, error};

/// What the reader asks of the disk, in order.
#[derive(Debug)]
pub(crate) enum ToDisk {
    /// Make a sealed batch durable.
    Frame {
        /// Its number.
        sequence: u64,
        /// Its bytes.
        frame: Vec<u8>,
    },
    /// Every last word of the open frames up to this generation is in the batches before.
    Supersede {
        /// The generation.
        generation: u64,
    },
    /// A checkpoint was written; make it the one that counts.
    Checkpoint {
        /// Where it was written.
        written: PathBuf,
        /// The last batch it covers.
        sequence: u64,
    },
}

/// Time between two tries when the disk is full or fails.
const RETRY: Duration = Duration::from_secs(1);
/// Tries after a stop was asked for.
const LAST_TRIES: u32 = 3;
/// Time between two looks whether the reader is still there.
const PATIENCE: Duration = Duration::from_millis(200);

/// Writes until the reader hangs up. A failing disk is tried again for as long as weir runs: the
/// kernel keeps counting meanwhile.
pub(crate) fn run(
    directory: &Path,
    frames: &Frames,
    queue: &Receiver<ToDisk>,
    ending: &dyn Fn() -> bool,
    reader_done: &AtomicBool,
) -> Result<(), AgentError> {
    loop {
        let request = match queue.recv_timeout(PATIENCE) {
            Ok(request) => request,
            // A reader that panicked cannot hang up.
            Err(RecvTimeoutError::Timeout) if !reader_done.load(Ordering::Acquire) => continue,
            Err(_) => return Ok(()),
        };
        let mut tries = 0;
        while let Err(error) = perform(directory, frames, &request) {
            if tries == 0 {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "the spool cannot be written; trying again"
                );
            }
            frames.disk_failed(&error::chain(&error));
            tries += 1;
            if ending() && tries > LAST_TRIES {
                return Err(error);
            }
            thread::sleep(RETRY);
        }
        frames.disk_works();
    }
}

fn perform(directory: &Path, frames: &Frames, request: &ToDisk) -> Result<(), AgentError> {
    match request {
        ToDisk::Frame { sequence, frame } => frames.write(*sequence, frame),
        ToDisk::Supersede { generation } => open_frame::supersede(directory, *generation),
        ToDisk::Checkpoint { written, sequence } => {
            let path = directory.join("checkpoint");
            match fs::File::open(written).and_then(|file| file.sync_all()) {
                // Renamed by a try that failed behind that, or taken away: the next one counts.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    frames.want_checkpoint();
                    return Ok(());
                }
                // After a failed sync the kernel forgets what it could not write, and a second one
                // would lie: another checkpoint is written instead.
                Err(error) => {
                    tracing::error!(%error, file = %written.display(), "checkpoint not synced");
                    super::remove(written)?;
                    frames.want_checkpoint();
                    return Ok(());
                }
                Ok(()) => {}
            }
            // The open frames it covers must be gone for good before it counts.
            sync_directory(directory)?;
            fs::rename(written, &path).map_err(AgentError::spool("replace", &path))?;
            sync_directory(directory)?;
            frames.checkpointed(*sequence)
        }
    }
}
