//! Daemons of a test's own, beside the one of the parent instance.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::Signal;

use crate::command::{Finished, Running};
use crate::{Host, poll};

/// Distinguishes the run directories of one suite's daemons.
static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A new path for a run directory.
pub fn new_run_directory() -> PathBuf {
    format!("/tmp/run-{}", NUMBER.fetch_add(1, Ordering::Relaxed)).into()
}

/// `enclaved --foreground` with a run directory of its own. Dropping it kills it and removes the directory.
#[derive(Debug)]
pub struct OwnDaemon {
    process: Option<Running>,
    host: Host,
}

impl OwnDaemon {
    /// Starts it with more options and waits until clients can connect.
    ///
    /// # Panics
    /// If it ends at once or takes for ever.
    #[must_use]
    pub fn start(options: &[&str]) -> Self {
        Self::start_in(&new_run_directory(), options)
    }

    /// Likewise, in this run directory.
    ///
    /// # Panics
    /// If it ends at once or takes for ever.
    #[must_use]
    pub fn start_in(run_directory: &Path, options: &[&str]) -> Self {
        let host = Host::at(run_directory);
        Self {
            process: Some(listening(&host, options)),
            host,
        }
    }

    /// Starts the next daemon of the same run directory, with these options, once this one has ended.
    ///
    /// # Panics
    /// If it ends at once or takes for ever.
    pub fn start_next(&mut self, options: &[&str]) {
        assert!(self.process.is_none(), "the first still runs");
        self.process = Some(listening(&self.host, options));
    }

    /// What its clients see.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        self.process.as_ref().map(Running::stderr).unwrap_or_default()
    }

    /// Waits until its log has this text, which may come after what it is about: an enclave is gone before that is logged.
    ///
    /// # Panics
    /// If that takes for ever.
    pub fn wait_until_logged(&self, text: &str) {
        poll::until(text, || self.log().contains(text).then_some(()));
    }

    /// Its process id.
    pub fn process_id(&self) -> u32 {
        self.process.as_ref().map(Running::id).unwrap_or_default()
    }

    /// Sends a signal and waits for the daemon's end. The run directory stays until this is dropped.
    ///
    /// # Panics
    /// If it does not end.
    pub fn end_with(&mut self, signal: Signal) -> Finished {
        let process = self.process.take().expect("ended only once");
        process.signal(signal);
        process.finish()
    }
}

/// The daemon of the parent instance has the machine's vsock ports, if it runs.
fn beside_another() -> &'static [&'static str] {
    if Host::of_the_parent().socket().exists() {
        &["--vsock", "unix"]
    } else {
        &[]
    }
}

/// A daemon to which clients can connect.
fn listening(host: &Host, options: &[&str]) -> Running {
    let mut command = Command::new("enclaved");
    command
        .args(["--foreground", "--run-directory"])
        .arg(host.run_directory())
        .args(beside_another())
        .args(options);
    let mut process = Running::start(&mut command);
    // A daemon that was killed leaves its socket behind, so it does not suffice that there is one.
    poll::until("the daemon to listen", || {
        assert!(
            !process.has_ended(),
            "the daemon ended at once: {}",
            process.stderr()
        );
        UnixStream::connect(host.socket()).ok()
    });
    process
}

impl Drop for OwnDaemon {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process
            && !process.has_ended()
        {
            // In order, so that it ends its enclaves; if it hangs it is killed when `process` is dropped.
            process.signal(Signal::INT);
            poll::within(poll::LIMIT, || process.has_ended().then_some(()));
        }
        // Gone already if a second daemon used it.
        let _ = fs::remove_dir_all(self.host.run_directory());
    }
}
