//! Going to the background, without forking a process that has threads.
//!
//! ```text
//! enclaved                                enclaved --foreground --background-child
//!   starts itself again  ───────────────►   new session
//!   waits on its output                     builds the daemon; errors go to the caller's terminal
//!            ◄───────────── "ready" ─────   clients can connect
//!   exit 0                                  output and errors are appended to enclaved.log from here on
//! ```
//!
//! If the child ends before it is ready, its error has been shown and the caller fails too.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::run_directory::LOG_FILE;

const READY: &str = "ready";

/// Starts this program again with the same arguments as a daemon in the background, and waits until it is ready.
///
/// # Errors
/// If it cannot be started, or ends before it is ready.
pub fn start() -> io::Result<()> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .args(["--foreground", "--background-child"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let output = child.stdout.take().map(BufReader::new);
    let mut line = String::new();
    if let Some(mut output) = output {
        output.read_line(&mut line)?;
    }
    if line.trim() == READY {
        return Ok(());
    }
    let status = child.wait()?;
    Err(io::Error::other(format!(
        "the daemon ended before it was ready ({status})"
    )))
}

/// In the child, first of all: leaves the caller's session, so that its terminal can close.
///
/// # Errors
/// If this process leads a group already.
pub fn leave_session() -> io::Result<()> {
    rustix::process::setsid()?;
    Ok(())
}

/// In the child, once clients can connect: lets the caller return, and logs to the run directory from here on.
///
/// # Errors
/// If the log cannot be opened.
pub fn report_ready(run_directory: &Path) -> io::Result<()> {
    let log = File::options()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(run_directory.join(LOG_FILE))?;
    // A caller that was killed does not read it; the daemon goes on.
    let _ = writeln!(io::stdout(), "{READY}");
    rustix::stdio::dup2_stdout(&log)?;
    rustix::stdio::dup2_stderr(&log)?;
    Ok(())
}
