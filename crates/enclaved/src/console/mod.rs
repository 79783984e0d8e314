//! The console of a debug-mode enclave: one writer, its kept history, any number of watchers.
//!
//! The VMM writes the guest's serial output into a pipe and drops what does not fit, so it never waits. A task here
//! empties the pipe into a [`Ring`] as fast as bytes come. Each watcher reads the ring at its own pace from the oldest
//! byte on; one that falls behind by more than the ring skips, and is shown how much it missed. No watcher can slow
//! the guest or another watcher.

mod history;
pub mod ring;

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::unix::pipe::Receiver;
use tokio::sync::watch;

use history::HistoryFile;
use ring::Ring;

use crate::run_directory::{CONSOLE_PIPE, EnclaveDirectory, RunDirectoryError};

/// Bytes of history kept per console.
pub const HISTORY: usize = 1 << 20;

/// Room in the pipe, so that a burst survives until the daemon gets to it.
const PIPE_SIZE: usize = 1 << 20;

/// The most bytes moved at a time.
const CHUNK: usize = 64 * 1024;

/// How long a watcher may take over one chunk once the enclave has ended. While it runs there is no limit: a watcher
/// that stands still costs nothing but its connection.
const FAREWELL_TIME_LIMIT: Duration = Duration::from_secs(10);

/// Where the history is, in the enclave's directory.
const HISTORY_FILE: &str = "console.history";

/// Why a console cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ConsoleError {
    /// Its pipe.
    #[error(transparent)]
    Pipe(#[from] RunDirectoryError),
    /// Its history, or watching the pipe.
    #[error("the console cannot be opened")]
    Io(#[from] io::Error),
}

/// Where the history is of the enclave that has this `directory`.
pub(crate) fn history_in(directory: &Path) -> PathBuf {
    directory.join(HISTORY_FILE)
}

/// The console in a history that nobody writes to any more.
///
/// # Errors
/// If it cannot be read.
pub(crate) fn read_history(file: File) -> io::Result<Vec<u8>> {
    HistoryFile::new(file).load().map(|(kept, _)| kept)
}

/// One console. Clones share it; it lives until the last watcher has seen its end.
#[derive(Debug, Clone)]
pub struct Console(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    ring: Mutex<Ring>,
    state: watch::Sender<State>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct State {
    /// Bytes ever written.
    written: u64,
    /// Whether more can come.
    ended: bool,
}

impl Console {
    /// The console of a new enclave, and the end of its pipe for the VMM alone: the console ends when the last copy of that
    /// is closed. Must be called on a Tokio runtime.
    ///
    /// # Errors
    /// If the pipe or the history cannot be made.
    pub fn create(directory: &EnclaveDirectory) -> Result<(Self, OwnedFd), ConsoleError> {
        directory.create_pipe(CONSOLE_PIPE)?;
        // First the end that reads, so that it never finds a pipe without a writer; then it cannot be opened too late.
        let read_end = directory.pipe_reader(CONSOLE_PIPE)?;
        let write_end = directory.pipe_writer(CONSOLE_PIPE)?;
        // Refused where pipe-max-size is lower; the default of 64 KiB works too, with less room for bursts.
        if let Err(error) = rustix::pipe::fcntl_setpipe_size(&write_end, PIPE_SIZE) {
            tracing::debug!(%error, "the console pipe keeps its default size");
        }
        Ok((Self::start(directory, read_end)?, write_end))
    }

    /// The console of an enclave that an earlier daemon has started: its history, and what the pipe has kept since.
    /// Must be called on a Tokio runtime.
    ///
    /// # Errors
    /// If the pipe or the history is not there.
    pub fn reopen(directory: &EnclaveDirectory) -> Result<Self, ConsoleError> {
        Self::start(directory, directory.pipe_reader(CONSOLE_PIPE)?)
    }

    fn start(directory: &EnclaveDirectory, read_end: OwnedFd) -> Result<Self, ConsoleError> {
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(history_in(directory.path()))?;
        let history = HistoryFile::new(file);
        let (kept, written) = history.load()?;
        let ring = Ring::resume(HISTORY, &kept, written);
        let console = Self(Arc::new(Shared {
            ring: Mutex::new(ring),
            state: watch::Sender::new(State {
                written,
                ended: false,
            }),
        }));
        tokio::spawn(console.clone().fill(Receiver::from_owned_fd(read_end)?, history));
        Ok(console)
    }

    /// The newest bytes, at most `limit`.
    pub fn tail(&self, limit: usize) -> Vec<u8> {
        self.with_ring(|ring| ring.tail(limit))
    }

    /// All that is kept.
    pub fn kept(&self) -> Vec<u8> {
        self.tail(HISTORY)
    }

    /// Returns when no more bytes can come.
    pub async fn ended(&self) {
        // The sender lives in `self`, so this cannot fail.
        let _ = self.0.state.subscribe().wait_for(|state| state.ended).await;
    }

    /// Writes the history to `watcher` and then what follows, until the console ends and all is delivered.
    ///
    /// # Errors
    /// If the watcher cannot be written to, or takes too long after the end.
    pub async fn show(&self, watcher: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        let mut state = self.0.state.subscribe();
        let mut position = 0;
        loop {
            // Taken before reading: what is written meanwhile shows as a change.
            let seen = *state.borrow_and_update();
            let chunk = self.with_ring(|ring| ring.read(position, CHUNK));
            position = chunk.next;
            if chunk.lost > 0 {
                let note = format!("\n[... {} bytes of console output lost ...]\n", chunk.lost);
                self.write(watcher, note.as_bytes()).await?;
            }
            if !chunk.bytes.is_empty() {
                self.write(watcher, &chunk.bytes).await?;
                continue;
            }
            if seen.ended {
                return watcher.flush().await;
            }
            if state.changed().await.is_err() {
                return Ok(());
            }
        }
    }

    async fn write(&self, watcher: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
        let too_long = async {
            self.ended().await;
            tokio::time::sleep(FAREWELL_TIME_LIMIT).await;
        };
        tokio::select! {
            written = watcher.write_all(bytes) => written,
            () = too_long => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    /// Moves bytes from the pipe into the ring and the history until every writer is gone.
    async fn fill(self, mut pipe: Receiver, history: HistoryFile) {
        let mut buffer = vec![0; CHUNK];
        loop {
            let bytes = match pipe.read(&mut buffer).await {
                Ok(0) => break,
                Ok(length) => buffer.get(..length).unwrap_or_default(),
                Err(error) => {
                    tracing::warn!(%error, "reading a console failed");
                    break;
                }
            };
            let written = self.with_ring(|ring| {
                ring.push(bytes);
                ring.written()
            });
            // The console works without; only the next daemon would miss it.
            if let Err(error) = history.append(bytes, written) {
                tracing::debug!(%error, "a console's history cannot be written");
            }
            self.0.state.send_modify(|state| state.written = written);
        }
        self.0.state.send_modify(|state| state.ended = true);
    }

    fn with_ring<R>(&self, access: impl FnOnce(&mut Ring) -> R) -> R {
        access(&mut self.0.ring.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests;
