//! `console`: an enclave's console on standard output, read-only, until the enclave ends, the time is up or nobody
//! reads any more.
//!
//! One loop moves bytes from the daemon's connection to standard output through one small buffer. It waits in
//! `poll`, not in `read` or `write`, so that `--disconnect-timeout` holds to the second even if the console is silent or
//! standard output is a pipe that nobody empties, and so that it sees at once when that pipe's reader is gone. Only a
//! terminal that was stopped amid a chunk (Ctrl-S) can hold it up.

use std::error::Error;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use api::{ErrorCode, Failure, Reply, Request, Selector};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::arguments::Console;
use crate::daemon::{Daemon, unexpected_answer};
use crate::environment::Environment;
use crate::error::CommandError;
use crate::output;
use crate::values;

/// Bytes moved at a time: `PIPE_BUF`, the most that a pipe which `poll` calls writable takes without blocking.
const CHUNK: usize = 4096;

pub(super) fn execute(options: &Console, environment: &Environment) -> Result<(), CommandError> {
    let timeout = match &options.disconnect_timeout {
        Some(text) => Some(Duration::from_secs(values::disconnect_timeout(text)?)),
        None => None,
    };
    watch(options.selector(), timeout, environment)
}

/// Shows the console of the enclave that `selector` names, for `timeout` at most.
pub(super) fn watch(
    selector: Selector,
    timeout: Option<Duration>,
    environment: &Environment,
) -> Result<(), CommandError> {
    // A time too far away to be a time is no limit.
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let mut daemon = Daemon::connect(&environment.daemon_socket)?;
    if let Some(deadline) = deadline {
        daemon.answer_until(deadline);
    }
    let Reply::ConsoleAttached { enclave_cid } = daemon.ask(&Request::Console(selector), None)? else {
        return Err(unexpected_answer().into());
    };
    let mut stdout = output::raw_stdout()?;
    let greeting = format!(
        "Connecting to the console for enclave {enclave_cid}...\nSuccessfully connected to the console.\n"
    );
    match show(&mut stdout, greeting.as_bytes(), deadline)? {
        Wait::Ready => copy(&daemon.into_stream(), &mut stdout, deadline),
        Wait::TimeIsUp => Ok(()),
    }
}

/// Moves bytes until the end of the stream or the deadline.
fn copy(mut console: &UnixStream, stdout: &mut File, deadline: Option<Instant>) -> Result<(), CommandError> {
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
fn show(stdout: &mut File, bytes: &[u8], deadline: Option<Instant>) -> Result<Wait, CommandError> {
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
enum Wait {
    /// What was waited for has happened.
    Ready,
    /// The deadline has passed.
    TimeIsUp,
}

/// Waits for one of `descriptors`, of which standard output is the first.
///
/// # Errors
/// [`CommandError::OutputClosed`] as soon as nobody reads standard output, whatever is waited for.
fn wait(descriptors: &mut [PollFd<'_>], deadline: Option<Instant>) -> Result<Wait, CommandError> {
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
