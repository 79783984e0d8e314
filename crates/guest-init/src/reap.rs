//! Waiting: PID 1 inherits every orphan and must collect each process that dies, until the application is the one.

use std::fmt;
use std::io;

use rustix::process::{Pid, WaitOptions, WaitStatus, wait};

use crate::error::Error;

/// How the application ended. Its text completes "the application ...".
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub(crate) enum Ended {
    /// It exited with this code.
    Exited(i32),
    /// This signal killed it.
    Killed(i32),
}

impl Ended {
    /// `None` for a process that lives: one that was stopped or continued.
    fn from_status(status: WaitStatus) -> Option<Self> {
        status
            .exit_status()
            .map(Self::Exited)
            .or_else(|| status.terminating_signal().map(Self::Killed))
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Exited(code) => write!(f, "ended with exit code {code}"),
            Self::Killed(number) => match signal_name(number) {
                Some(name) => write!(f, "was killed by signal {number} ({name})"),
                None => write!(f, "was killed by signal {number}"),
            },
        }
    }
}

/// Reaps every process that dies until `application` has.
pub(crate) fn until_ended(application: Pid) -> Result<Ended, Error> {
    loop {
        // The application is a child, so there is always a process to wait for; every signal is blocked, so nothing
        // interrupts the wait.
        let Some((pid, status)) = wait(WaitOptions::empty())
            .map_err(io::Error::from)
            .map_err(Error::Wait)?
        else {
            continue;
        };
        if pid == application
            && let Some(ended) = Ended::from_status(status)
        {
            return Ok(ended);
        }
    }
}

/// Name and meaning of the signals that end programs.
fn signal_name(number: i32) -> Option<&'static str> {
    Some(match number {
        libc::SIGHUP => "SIGHUP",
        libc::SIGINT => "SIGINT",
        libc::SIGQUIT => "SIGQUIT",
        libc::SIGILL => "SIGILL, illegal instruction",
        libc::SIGTRAP => "SIGTRAP",
        libc::SIGABRT => "SIGABRT, it aborted itself",
        libc::SIGBUS => "SIGBUS",
        libc::SIGFPE => "SIGFPE, arithmetic error",
        libc::SIGKILL => "SIGKILL, as the kernel does when memory runs out",
        libc::SIGSEGV => "SIGSEGV, invalid memory access",
        libc::SIGPIPE => "SIGPIPE",
        libc::SIGALRM => "SIGALRM",
        libc::SIGTERM => "SIGTERM",
        libc::SIGSYS => "SIGSYS, forbidden system call",
        libc::SIGXCPU => "SIGXCPU, CPU time limit",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::sync::{Mutex, PoisonError};

    use super::*;

    /// `wait` collects any child of the process, so two such tests must not run at once.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

    /// Starts a shell that only [`until_ended`] waits for.
    #[expect(clippy::zombie_processes, reason = "until_ended reaps it")]
    fn shell(script: &str) -> Pid {
        let child = Command::new("/bin/sh").args(["-c", script]).spawn().unwrap();
        Pid::from_child(&child)
    }

    fn end_of(script: &str) -> Ended {
        let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        until_ended(shell(script)).unwrap()
    }

    #[test]
    fn exit_code_and_signal_are_told_apart() {
        assert_eq!(end_of("exit 0"), Ended::Exited(0));
        assert_eq!(end_of("exit 3"), Ended::Exited(3));
        assert_eq!(end_of("kill -SEGV $$"), Ended::Killed(libc::SIGSEGV));
    }

    #[test]
    fn other_children_are_reaped_on_the_way() {
        let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let orphan = shell("exit 1");
        // A process that has died can be signalled until it is reaped, so this one ends only once the other is.
        let application = shell(&format!(
            "while kill -0 {} 2>/dev/null; do :; done; exit 5",
            orphan.as_raw_nonzero()
        ));
        assert_eq!(until_ended(application).unwrap(), Ended::Exited(5));
    }

    #[test]
    fn the_end_is_said_in_words() {
        assert_eq!(Ended::Exited(127).to_string(), "ended with exit code 127");
        assert_eq!(
            Ended::Killed(11).to_string(),
            "was killed by signal 11 (SIGSEGV, invalid memory access)"
        );
        assert_eq!(Ended::Killed(40).to_string(), "was killed by signal 40");
    }
}
