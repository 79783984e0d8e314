//! Shows what is being done and for how long, on standard error.
//!
//! ```text
//! [ 3/9] enclave kernel (once, 5 to 8 minutes) ... 74 s      rewritten every second on a terminal
//! [ 3/9] enclave kernel (once, 5 to 8 minutes) ... done in 301.2 s
//! ```
//!
//! Where standard error is no terminal, each of these is a line of its own.

use std::io::{self, IsTerminal, Write};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

/// A quiet command shows a step only after this time.
const SLOW: Duration = Duration::from_secs(2);

/// Numbers the steps of one command.
#[derive(Debug)]
pub(crate) struct Steps {
    total: usize,
    next: usize,
    /// Whether steps that take less than [`SLOW`] are not worth a line.
    only_slow: bool,
}

impl Steps {
    /// For a command of `total` steps.
    pub(crate) fn new(total: usize) -> Self {
        Self {
            total,
            next: 1,
            only_slow: false,
        }
    }

    /// For a command whose user wants to see its own output, not its steps: only slow ones are shown.
    pub(crate) fn only_slow(total: usize) -> Self {
        Self {
            only_slow: true,
            ..Self::new(total)
        }
    }

    /// Does a step that prints nothing itself.
    pub(crate) fn quiet<T, E>(&mut self, what: &str, work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        let label = self.label(what);
        let delay = if self.only_slow { SLOW } else { Duration::ZERO };
        let started = Instant::now();
        let (finished, ended) = channel::<()>();
        thread::scope(|scope| {
            let label = label.as_str();
            let display = scope.spawn(move || show_progress(label, started, delay, &ended));
            let result = work();
            drop(finished);
            let shown = display.join().unwrap_or(true);
            if shown || !self.only_slow {
                show_end(label, started, result.is_ok());
            }
            result
        })
    }

    /// Begins a step whose own output the user wants to see.
    pub(crate) fn announce(&mut self, what: &str) {
        let label = self.label(what);
        if !self.only_slow {
            eprintln!("{label}");
        }
    }

    fn label(&mut self, what: &str) -> String {
        let (number, total) = (self.next, self.total);
        self.next += 1;
        let width = total.to_string().len();
        format!("[{number:width$}/{total}] {what}")
    }
}

/// How often the elapsed time is rewritten.
const TICK: Duration = Duration::from_secs(1);

/// Shows the step, from `delay` after its start on, until `ended` is closed. Returns whether it was shown.
fn show_progress(label: &str, started: Instant, delay: Duration, ended: &Receiver<()>) -> bool {
    let terminal = io::stderr().is_terminal();
    // Without a terminal, one line is enough for a step that ends at once.
    let delay = if terminal { delay } else { delay.max(TICK) };
    let mut shown = false;
    loop {
        if started.elapsed() >= delay {
            match (terminal, shown) {
                (true, _) => eprint!("\r{label} ... {} s ", started.elapsed().as_secs()),
                (false, false) => eprintln!("{label} ..."),
                (false, true) => {}
            }
            // Progress that cannot be shown is no reason to stop.
            let _ = io::stderr().flush();
            shown = true;
        }
        if ended.recv_timeout(TICK) != Err(RecvTimeoutError::Timeout) {
            return shown;
        }
    }
}

fn show_end(label: &str, started: Instant, succeeded: bool) {
    let result = if succeeded { "done in" } else { "failed after" };
    let seconds = started.elapsed().as_secs_f64();
    let start = if io::stderr().is_terminal() { "\r" } else { "" };
    eprintln!("{start}{label} ... {result} {seconds:.1} s");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_numbered_and_aligned() {
        let mut steps = Steps::new(10);
        assert_eq!(steps.label("first"), "[ 1/10] first");
        assert_eq!(steps.label("second"), "[ 2/10] second");
    }

    #[test]
    fn a_step_returns_what_its_work_returns() {
        let mut steps = Steps::only_slow(2);
        assert_eq!(steps.quiet("good", || Ok::<_, ()>(7)), Ok(7));
        assert_eq!(steps.quiet("bad", || Err::<(), _>(8)), Err(8));
    }

    #[test]
    fn a_quick_step_of_a_quiet_command_is_not_shown() {
        let (finished, ended) = channel();
        drop(finished);
        assert!(!show_progress("step", Instant::now(), SLOW, &ended));
    }
}
