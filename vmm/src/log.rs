//! Lines for the operator, on standard error, which the daemon collects.
//!
//! Not with `eprintln!`: that panics when nobody reads any more, and a guest can make this process write a line after
//! its daemon has gone.

use std::{
    error::Error,
    fmt,
    io::{self, Write},
    sync::atomic::{AtomicU32, Ordering},
};

/// Writes one line with one system call, if it can be written.
pub fn line(text: fmt::Arguments<'_>) {
    let line = format!("{text}\n");
    if cfg!(test) {
        // Which the test harness keeps to itself unless a test fails.
        return eprint!("{line}");
    }
    // There is nowhere else to say that standard error is broken.
    drop(io::stderr().write_all(line.as_bytes()));
}

/// `error` and what caused it, as one text.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |cause| (*cause).source());
    let texts: Vec<String> = causes.map(ToString::to_string).collect();
    texts.join(": ")
}

/// Lines about what a guest can cause any number of times, until there have been enough.
#[derive(Debug)]
pub struct Limited {
    left: AtomicU32,
}

impl Limited {
    /// Lets `most` lines through.
    pub fn new(most: u32) -> Self {
        Self {
            left: AtomicU32::new(most),
        }
    }

    /// Writes one line, unless there have been enough.
    pub fn line(&self, text: fmt::Arguments<'_>) {
        let left = self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        if left.is_ok() {
            line(text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] io::Error);

    #[test]
    fn a_chain_names_every_cause_once() {
        assert_eq!(chain(&Outer(io::Error::other("inner"))), "outer: inner");
        assert_eq!(chain(&io::Error::other("alone")), "alone");
    }
}
