//! One line on a terminal that says how far a build is. Where standard error is no terminal nothing is shown, so that
//! logs hold no half lines.

use std::io::{self, IsTerminal, Write};

use image::Progress;

/// To the start of the line, and erase it (ECMA-48, `EL`).
const ERASE_LINE: &str = "\r\x1b[K";

/// The line. Whoever makes one also [`clear`](Self::clear)s it, before anything else is written.
#[derive(Debug)]
pub(crate) struct ProgressLine {
    visible: bool,
}

impl ProgressLine {
    /// A line on standard error, if that is a terminal.
    pub(crate) fn on_stderr() -> Self {
        Self {
            visible: io::stderr().is_terminal(),
        }
    }

    /// Replaces the line.
    pub(crate) fn show(&mut self, step: Progress) {
        if let Some(text) = describe(step) {
            self.write(&text);
        }
    }

    /// Removes the line.
    pub(crate) fn clear(&mut self) {
        self.write("");
    }

    fn write(&mut self, text: &str) {
        if self.visible {
            let mut stderr = io::stderr().lock();
            let _ = write!(stderr, "{ERASE_LINE}{text}");
            let _ = stderr.flush();
        }
    }
}

/// What is being done, for a person.
fn describe(step: Progress) -> Option<String> {
    const MIB: u64 = 1 << 20;
    match step {
        Progress::Pull { received, total } => Some(format!(
            "Pulling the image: {} of {} MiB",
            received / MIB,
            total.div_ceil(MIB)
        )),
        Progress::Layer { number, count } => Some(format!("Reading layer {number} of {count}")),
        Progress::Write { written, total } => Some(format!(
            "Writing the image: {} of {} MiB",
            written / MIB,
            total.div_ceil(MIB)
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_told_in_layers_and_mebibytes() {
        let layer = describe(Progress::Layer { number: 3, count: 7 });
        let write = describe(Progress::Write {
            written: 40 << 20,
            total: (800 << 20) + 1,
        });

        assert_eq!(layer.as_deref(), Some("Reading layer 3 of 7"));
        assert_eq!(write.as_deref(), Some("Writing the image: 40 of 801 MiB"));
    }
}
