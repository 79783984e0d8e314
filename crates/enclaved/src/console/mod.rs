//! The console of a debug-mode enclave: one writer, its kept history, any number of watchers.
//!
//! The VMM writes the guest's serial output into a pipe and drops what does not fit, so it never waits. A task here
//! empties the pipe into a [`Ring`] as fast as bytes come. Each watcher reads the ring at its own pace from the oldest
//! byte on; one that falls behind by more than the ring skips, and is shown how much it missed. No watcher can slow
//! the guest or another watcher.

pub mod ring;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::pipe::PipeFlags;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::unix::pipe::Receiver;
use tokio::sync::watch;

use ring::Ring;

/// Bytes of history kept per console.
pub const HISTORY: usize = 1 << 20;

/// Room in the pipe, so that a burst survives until the daemon gets to it.
const PIPE_SIZE: usize = 1 << 20;

/// The most bytes moved at a time.
const CHUNK: usize = 64 * 1024;

/// How long a watcher may take over one chunk once the enclave has ended. While it runs there is no limit: a watcher
/// that stands still costs nothing but its connection.
const FAREWELL_TIME_LIMIT: Duration = Duration::from_secs(10);

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
    /// A console and the write end of its pipe, which never blocks and is for the VMM alone: the console ends when the
    /// last copy of it is closed. Must be called on a Tokio runtime.
    ///
    /// # Errors
    /// If the pipe cannot be made.
    pub fn open() -> io::Result<(Self, OwnedFd)> {
        let (read_end, write_end) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // Refused where pipe-max-size is lower; the default of 64 KiB works too, with less room for bursts.
        if let Err(error) = rustix::pipe::fcntl_setpipe_size(&write_end, PIPE_SIZE) {
            tracing::debug!(%error, "the console pipe keeps its default size");
        }
        let console = Self(Arc::new(Shared {
            ring: Mutex::new(Ring::new(HISTORY)),
            state: watch::Sender::new(State {
                written: 0,
                ended: false,
            }),
        }));
        tokio::spawn(console.clone().fill(Receiver::from_owned_fd(read_end)?));
        Ok((console, write_end))
    }

    /// The newest bytes, at most `limit`.
    pub fn tail(&self, limit: usize) -> Vec<u8> {
        self.with_ring(|ring| ring.tail(limit))
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

    /// Moves bytes from the pipe into the ring until every writer is gone.
    async fn fill(self, mut pipe: Receiver) {
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
