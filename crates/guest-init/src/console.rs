//! The console, `/dev/console`: standard input, output and error of init and of the application.

use std::fs::OpenOptions;
use std::path::Path;

use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};

use crate::error::Error;

const CONSOLE: &str = "/dev/console";

/// Opens the console as standard input, output and error.
pub(crate) fn open() -> Result<(), Error> {
    let path = Path::new(CONSOLE);
    let console = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .map_err(Error::at("open", path))?;
    dup2_stdin(&console).map_err(Error::at("make standard input of", path))?;
    dup2_stdout(&console).map_err(Error::at("make standard output of", path))?;
    dup2_stderr(&console).map_err(Error::at("make standard error of", path))
}

/// Prints one line, marked as init's. It is not lost in a buffer: standard error has none.
pub(crate) fn say(line: &str) {
    eprintln!("init: {line}");
}

/// Waits until the serial port has sent everything. A reset discards what the terminal still holds, which would be the
/// application's last words.
pub(crate) fn drain() {
    // Without a terminal there is nothing to wait for.
    let _ = rustix::termios::tcdrain(rustix::stdio::stderr());
}
