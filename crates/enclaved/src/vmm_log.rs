//! What a VMM prints on standard error, brought into the daemon's log.
//!
//! A VMM that a guest has taken over must not fill the disk or forge log lines: lines are cut, control characters
//! replaced, and only so many per period are kept. The VMM writes to a pipe with a name, without waiting: what it prints
//! while there is no daemon stays there for the next one, as far as there is room.

use std::os::fd::OwnedFd;
use std::time::Duration;

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, BufReader};
use tokio::net::unix::pipe::Receiver;
use tokio::time::Instant;

use crate::printable::printable;
use crate::run_directory::{EnclaveDirectory, LOG_PIPE, RunDirectoryError};

/// The most bytes of one line that are logged.
const MAX_LINE: usize = 2048;

/// How many lines are logged per period.
const LINES_PER_PERIOD: u32 = 200;

const PERIOD: Duration = Duration::from_secs(10);

/// Makes the pipe of a new enclave and begins to log what comes through it; the end for the VMM. Must be called on a Tokio
/// runtime.
pub(crate) fn start(directory: &EnclaveDirectory, enclave: String) -> Result<OwnedFd, RunDirectoryError> {
    directory.create_pipe(LOG_PIPE)?;
    // First this end: a pipe that nobody has open for writing reads as ended.
    let writer = directory.pipe_writer(LOG_PIPE)?;
    resume(directory, enclave)?;
    Ok(writer)
}

/// Goes on with the log of an enclave that an earlier daemon has started. Must be called on a Tokio runtime.
pub(crate) fn resume(directory: &EnclaveDirectory, enclave: String) -> Result<(), RunDirectoryError> {
    let pipe = Receiver::from_owned_fd(directory.pipe_reader(LOG_PIPE)?).map_err(|source| {
        RunDirectoryError::Io {
            action: "watch the pipe",
            path: directory.path().join(LOG_PIPE),
            source,
        }
    })?;
    tokio::spawn(forward(pipe, enclave));
    Ok(())
}

/// Logs every line of `stream`, which belongs to the VMM of `enclave`, until its end.
async fn forward(stream: impl AsyncRead + Unpin, enclave: String) {
    let mut reader = BufReader::new(stream);
    let mut budget = Budget::new(Instant::now());
    while let Some(line) = next_line(&mut reader).await {
        match budget.spend(Instant::now()) {
            Spent::Granted { dropped: 0 } => {}
            Spent::Granted { dropped } => {
                tracing::warn!(%enclave, dropped, "the VMM printed too much; lines dropped");
            }
            Spent::Refused => continue,
        }
        tracing::info!(%enclave, line = printable(&line).as_str(), "the VMM says");
    }
}

/// The next line without its end, cut after [`MAX_LINE`] bytes; `None` at the end of the stream.
async fn next_line(reader: &mut (impl AsyncBufRead + Unpin)) -> Option<Vec<u8>> {
    let mut line = Vec::new();
    let mut begun = false;
    loop {
        let available = reader.fill_buf().await.ok()?;
        if available.is_empty() {
            return begun.then_some(line);
        }
        begun = true;
        let (part, consumed, complete) = match available.iter().position(|byte| *byte == b'\n') {
            Some(end) => (available.get(..end), end + 1, true),
            None => (Some(available), available.len(), false),
        };
        let room = MAX_LINE - line.len();
        line.extend(part.unwrap_or_default().iter().take(room));
        reader.consume(consumed);
        if complete {
            return Some(line);
        }
    }
}

/// How many lines may still be logged in the current period.
struct Budget {
    period_start: Instant,
    spent: u32,
    dropped: u64,
}

enum Spent {
    Granted { dropped: u64 },
    Refused,
}

impl Budget {
    fn new(now: Instant) -> Self {
        Self {
            period_start: now,
            spent: 0,
            dropped: 0,
        }
    }

    fn spend(&mut self, now: Instant) -> Spent {
        if now.duration_since(self.period_start) >= PERIOD {
            self.period_start = now;
            self.spent = 0;
        }
        if self.spent >= LINES_PER_PERIOD {
            self.dropped += 1;
            return Spent::Refused;
        }
        self.spent += 1;
        Spent::Granted {
            dropped: std::mem::take(&mut self.dropped),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_are_cut_and_a_last_line_without_end_is_kept() {
        let text = format!("short\n\n{}\nlast", "x".repeat(3 * MAX_LINE));
        let mut reader = BufReader::new(text.as_bytes());

        let mut lengths = Vec::new();
        while let Some(line) = next_line(&mut reader).await {
            lengths.push(line.len());
        }

        assert_eq!(lengths, [5, 0, MAX_LINE, 4]);
    }

    #[test]
    fn a_flood_is_dropped_and_counted_until_the_next_period() {
        let start = Instant::now();
        let mut budget = Budget::new(start);
        for _ in 0..LINES_PER_PERIOD {
            assert!(matches!(budget.spend(start), Spent::Granted { dropped: 0 }));
        }

        for _ in 0..3 {
            assert!(matches!(budget.spend(start), Spent::Refused));
        }

        assert!(matches!(
            budget.spend(start + PERIOD),
            Spent::Granted { dropped: 3 }
        ));
        assert!(matches!(
            budget.spend(start + PERIOD),
            Spent::Granted { dropped: 0 }
        ));
    }
}
