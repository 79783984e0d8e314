//! How far a build is: a bar on a terminal; elsewhere a line now and then, so that logs hold no half lines and short builds say
//! nothing; with `--quiet` nothing.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use image::Progress;

use crate::output;

/// To the start of the line, and erase it (ECMA-48, `EL`).
const ERASE_LINE: &str = "\r\x1b[K";
/// Columns of a bar.
const BAR: u64 = 24;
/// Time between two lines where there is no terminal, and before the first.
const INTERVAL: Duration = Duration::from_secs(5);

/// What is being done.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    /// A container engine gives the image; how much there will be it does not say.
    Receive {
        /// Bytes that are here.
        received: u64,
    },
    /// Anything that is done with the image itself.
    Image(Progress),
}

/// Shows progress. Whoever makes one also [`clear`](Self::clear)s it, before anything else is written.
#[derive(Debug)]
pub(crate) struct ProgressReport {
    style: Style,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Style {
    Bar {
        /// Whether there is one on the terminal now.
        is_shown: bool,
    },
    /// Since when nothing was said.
    Lines(Instant),
    Quiet,
}

impl ProgressReport {
    /// A report on standard error.
    pub(crate) fn on_stderr(is_quiet: bool) -> Self {
        let style = if is_quiet {
            Style::Quiet
        } else if io::stderr().is_terminal() {
            Style::Bar { is_shown: false }
        } else {
            Style::Lines(Instant::now())
        };
        Self { style }
    }

    /// Says something that is no progress, unless the report is quiet.
    pub(crate) fn notice(&mut self, text: &str) {
        self.clear();
        if self.style != Style::Quiet {
            output::notice(text);
        }
    }

    /// Shows how far it is.
    pub(crate) fn show(&mut self, step: Step) {
        let Some(words) = Words::of(step) else {
            return;
        };
        match &mut self.style {
            Style::Bar { is_shown } => {
                erase_and_write(&words.with_bar());
                *is_shown = true;
            }
            Style::Lines(last) if last.elapsed() >= INTERVAL => {
                output::notice(words.plain());
                *last = Instant::now();
            }
            Style::Lines(_) | Style::Quiet => {}
        }
    }

    /// Removes the bar.
    pub(crate) fn clear(&mut self) {
        if let Style::Bar { is_shown: true } = self.style {
            erase_and_write("");
            self.style = Style::Bar { is_shown: false };
        }
    }
}

fn erase_and_write(text: &str) {
    let mut stderr = io::stderr().lock();
    // There is nobody to tell if that fails.
    let _ = write!(stderr, "{ERASE_LINE}{text}").and_then(|()| stderr.flush());
}

/// A step for a person: what is done, and how much of it.
#[derive(Debug)]
struct Words {
    what: &'static str,
    done: u64,
    total: Option<u64>,
    unit: &'static str,
}

impl Words {
    fn of(step: Step) -> Option<Self> {
        const MIB: u64 = 1 << 20;
        let mib = |what, done: u64, total: Option<u64>| Self {
            what,
            done: done / MIB,
            total: total.map(|total| total.div_ceil(MIB)),
            unit: " MiB",
        };
        match step {
            Step::Receive { received } => Some(mib("Receiving the image", received, None)),
            Step::Image(Progress::Pull { received, total }) => {
                Some(mib("Pulling the image", received, Some(total)))
            }
            Step::Image(Progress::Layer { number, count }) => Some(Self {
                what: "Reading the layers",
                done: number as u64,
                total: Some(count as u64),
                unit: "",
            }),
            Step::Image(Progress::Write { written, total }) => {
                Some(mib("Writing the image", written, Some(total)))
            }
            Step::Image(_) => None,
        }
    }

    fn plain(&self) -> String {
        let Self { what, done, unit, .. } = self;
        match self.total {
            Some(total) => format!("{what}: {done} of {total}{unit}"),
            None => format!("{what}: {done}{unit}"),
        }
    }

    fn with_bar(&self) -> String {
        let Some(total) = self.total else {
            return self.plain();
        };
        let full = (BAR * self.done.min(total)).checked_div(total).unwrap_or(BAR);
        let bar: String = (0..BAR)
            .map(|column| if column < full { '#' } else { '-' })
            .collect();
        format!("{:<20} [{bar}] {} of {total}{}", self.what, self.done, self.unit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_told_in_layers_and_mebibytes() {
        let cases = [
            (
                Step::Image(Progress::Layer { number: 3, count: 6 }),
                "Reading the layers: 3 of 6",
                "Reading the layers   [############------------] 3 of 6",
            ),
            (
                Step::Image(Progress::Write {
                    written: 40 << 20,
                    total: (800 << 20) + 1,
                }),
                "Writing the image: 40 of 801 MiB",
                "Writing the image    [#-----------------------] 40 of 801 MiB",
            ),
            (
                Step::Image(Progress::Pull {
                    received: 9,
                    total: 9,
                }),
                "Pulling the image: 0 of 1 MiB",
                "Pulling the image    [------------------------] 0 of 1 MiB",
            ),
            (
                Step::Image(Progress::Pull {
                    received: 0,
                    total: 0,
                }),
                "Pulling the image: 0 of 0 MiB",
                "Pulling the image    [########################] 0 of 0 MiB",
            ),
            (
                Step::Receive { received: 5 << 20 },
                "Receiving the image: 5 MiB",
                "Receiving the image: 5 MiB",
            ),
        ];
        for (step, plain, bar) in cases {
            let words = Words::of(step).unwrap();
            assert_eq!((words.plain().as_str(), words.with_bar().as_str()), (plain, bar));
        }
    }
}
