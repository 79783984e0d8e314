//! From the daemon's connection to standard output, as it comes.
//!
//! One loop moves bytes through one small buffer. It waits in `poll`, not in `read` or `write`, so that a deadline holds even if
//! the connection is silent or standard output is a pipe that nobody empties, and so that it sees at once when that pipe's
//! reader is gone. Only a terminal that was stopped amid a chunk (Ctrl-S) can hold it up.

use std::error::Error;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use api::{ErrorCode, Failure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::error::CommandError;
use crate::output;

/// Bytes moved at a time: `PIPE_BUF`, the most that a pipe which `poll` calls writable takes without blocking.
const CHUNK: usize = 4096;

/// Moves bytes until the end of the stream or the deadline.
pub(crate) fn copy(
    mut console: &UnixStream,
    stdout: &mut File,
    deadline: Option<Instant>,
) -> Result<(), CommandError> {
    let mut chunk = [0; CHUNK];
    loop {
        let mut both = [
            PollFd::new(&*stdout, PollFlags::empty()),
            PollFd::new(console, PollFlags::IN),
        ];
        if wait(&mut both, deadline)? == Wait::TimeIsUp {
            return Ok(());
        }
        let length = match console.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(read_error("The connection to the console broke", &error)),
        };
        if show(stdout, chunk.get(..length).unwrap_or_default(), deadline)? == Wait::TimeIsUp {
            return Ok(());
        }
    }
}

/// Writes `bytes` as standard output takes them, which may be few at a time if it does not block.
pub(crate) fn show(stdout: &mut File, bytes: &[u8], deadline: Option<Instant>) -> Result<Wait, CommandError> {
    let mut rest = bytes;
    while !rest.is_empty() {
        if wait(&mut [PollFd::new(&*stdout, PollFlags::OUT)], deadline)? == Wait::TimeIsUp {
            return Ok(Wait::TimeIsUp);
        }
        let written = match stdout.write(rest) {
            Ok(0) => Err(ErrorKind::WriteZero.into()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(0),
            written => written,
        };
        let written = written.map_err(|error| output::write_error(ErrorCode::ConsoleWriteOutput, &error))?;
        rest = rest.get(written..).unwrap_or_default();
    }
    Ok(Wait::Ready)
}

/// What ended a wait.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// What was waited for has happened.
    Ready,
    /// The deadline has passed.
    TimeIsUp,
}

/// Waits for one of `descriptors`, of which standard output is the first.
///
/// # Errors
/// [`CommandError::OutputClosed`] as soon as nobody reads standard output, whatever is waited for.
pub(crate) fn wait(descriptors: &mut [PollFd<'_>], deadline: Option<Instant>) -> Result<Wait, CommandError> {
    loop {
        let remaining = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if remaining == Some(Duration::ZERO) {
            return Ok(Wait::TimeIsUp);
        }
        // A time too long for the kernel is no limit.
        let remaining = remaining.and_then(|remaining| Timespec::try_from(remaining).ok());
        match poll(descriptors, remaining.as_ref()) {
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => break,
            Err(error) => return Err(read_error("Waiting for the console failed", &error)),
        }
    }
    let reader_is_gone = PollFlags::ERR | PollFlags::HUP;
    match descriptors.first() {
        Some(stdout) if stdout.revents().intersects(reader_is_gone) => Err(CommandError::OutputClosed),
        _ => Ok(Wait::Ready),
    }
}

fn read_error(context: &str, error: &(dyn Error + 'static)) -> CommandError {
    Failure::caused_by(ErrorCode::ConsoleRead, context, error).into()
}
