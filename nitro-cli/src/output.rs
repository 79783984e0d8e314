//! What goes where: the answer to standard output, everything else to standard error.
//!
//! Scripts capture standard output and parse it as JSON, so nothing but the answer may ever be written there.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;

use api::{ErrorCode, Failure};
use serde::Serialize;

use crate::error::CommandError;

/// Prints `answer` on standard output as AWS's nitro-cli does: two spaces of indentation, keys in the order of the
/// type, a line feed at the end. Everything is written at once, so a failed command never leaves half an answer.
///
/// # Errors
/// [`CommandError::OutputClosed`] if nobody reads; E19 if standard output cannot be written; E17 if `answer` has no
/// JSON form.
pub(crate) fn print_json(answer: &impl Serialize) -> Result<(), CommandError> {
    let mut text = serde_json::to_string_pretty(answer)
        .map_err(|error| Failure::caused_by(ErrorCode::Serde, "Cannot write the answer as JSON", &error))?;
    text.push('\n');
    print_text(&text)
}

/// Prints text, with a line feed at its end, on standard output.
///
/// # Errors
/// [`CommandError::OutputClosed`] if nobody reads; E19 if standard output cannot be written.
pub(crate) fn print_text(text: &str) -> Result<(), CommandError> {
    let mut stdout = io::stdout().lock();
    stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
        .map_err(|error| write_error(ErrorCode::FileOperation, &error))
}

/// Prints one line (or paragraph) on standard error. There is nobody to tell if that fails.
pub(crate) fn notice(text: impl Display) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Standard output without a buffer in between, for the console's bytes.
///
/// # Errors
/// E46 if standard output is closed.
pub(crate) fn raw_stdout() -> Result<File, CommandError> {
    let descriptor = io::stdout()
        .as_fd()
        .try_clone_to_owned()
        .map_err(|error| write_error(ErrorCode::ConsoleWriteOutput, &error))?;
    Ok(File::from(descriptor))
}

/// What a failed write to standard output means to the command; `code` unless the reader has just stopped reading.
pub(crate) fn write_error(code: ErrorCode, error: &io::Error) -> CommandError {
    match error.kind() {
        io::ErrorKind::BrokenPipe => CommandError::OutputClosed,
        _ => CommandError::Failed(Failure::caused_by(code, "Cannot write to standard output", error)),
    }
}
