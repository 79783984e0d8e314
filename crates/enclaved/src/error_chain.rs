//! Errors in one line, for the log and for whoever starts the daemon.

use std::error::Error;

/// An error with all that caused it: `outer: inner: innermost`.
pub fn chain_of(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
