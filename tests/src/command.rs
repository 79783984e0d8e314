//! Programs: started, watched, and never left running.

use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::poll;

/// A program that has ended.
#[derive(Debug)]
pub struct Finished {
    /// The command line, for messages.
    pub command: String,
    /// All of standard output.
    pub stdout: String,
    /// All of standard error.
    pub stderr: String,
    /// How it ended.
    pub status: ExitStatus,
}

impl Finished {
    /// The exit code; `None` if a signal ended it.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// Returns itself if the program succeeded.
    ///
    /// # Panics
    /// If it did not, with all it printed.
    #[must_use]
    #[track_caller]
    pub fn succeeded(self) -> Self {
        assert!(self.status.success(), "{self:#?}");
        self
    }

    /// Standard output as JSON.
    ///
    /// # Panics
    /// If it is none.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }

    /// The command failed as nitro-cli fails: this exit code, nothing on standard output, and on standard error the
    /// block of this error number first, whose text has all of `words`, and the address of its explanation.
    ///
    /// # Panics
    /// If it did not.
    #[track_caller]
    pub fn failed_with(&self, exit_code: i32, error: &str, words: &[&str]) {
        assert_eq!(self.code(), Some(exit_code), "{self:#?}");
        assert_eq!(self.stdout, "", "{self:#?}");
        let first_block = self.stderr.find("[ E").map(|at| &self.stderr[at..]);
        assert!(
            first_block.is_some_and(|block| block.starts_with(&format!("[ {error} ] "))),
            "{error} is not the first error: {self:#?}"
        );
        assert!(
            self.stderr.contains(&format!("#{error}")),
            "no address of {error}: {self:#?}"
        );
        assert!(!self.stderr.contains("panicked at"), "{self:#?}");
        for word in words {
            assert!(self.stderr.contains(word), "{word:?} is not said: {self:#?}");
        }
    }

    /// `run-enclave` failed after its arguments were accepted: exit code 39 as on AWS, the root cause `error` first.
    ///
    /// # Panics
    /// If it did not.
    #[track_caller]
    pub fn failed_to_run(&self, error: &str, words: &[&str]) {
        self.failed_with(39, error, words);
        assert!(self.stderr.contains("[ E39 ]"), "{self:#?}");
    }
}

/// A program that runs, with its output collected. Dropping it kills it.
#[derive(Debug)]
pub struct Running {
    command: String,
    child: Child,
    stdout: Captured,
    stderr: Captured,
}

impl Running {
    /// Starts a command with nothing on standard input.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn start(command: &mut Command) -> Self {
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        let text = words
            .map(|word| word.to_string_lossy())
            .collect::<Vec<_>>()
            .join(" ");
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start `{text}`: {error}"));
        let stdout = child.stdout.take().map(Captured::from);
        let stderr = child.stderr.take().map(Captured::from);
        Self {
            command: text,
            child,
            stdout: stdout.expect("standard output is a pipe"),
            stderr: stderr.expect("standard error is a pipe"),
        }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Standard output so far.
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// Standard error so far.
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// Returns once standard output contains `text`.
    ///
    /// # Panics
    /// If the program ends without, or it takes for ever.
    pub fn wait_for(&mut self, text: &str) {
        self.wait_for_either(text, |running| &running.stdout);
    }

    /// Returns once standard error contains `text`.
    ///
    /// # Panics
    /// If the program ends without, or it takes for ever.
    pub fn wait_for_stderr(&mut self, text: &str) {
        self.wait_for_either(text, |running| &running.stderr);
    }

    fn wait_for_either(&mut self, text: &str, stream: impl Fn(&Self) -> &Captured) {
        let seen = poll::within(poll::LIMIT, || {
            let ended = self.has_ended() && stream(self).is_complete();
            if stream(self).contains(text) {
                return Some(true);
            }
            ended.then_some(false)
        });
        assert!(seen == Some(true), "{text:?} was not printed: {}", self.said());
    }

    /// Whether the process has ended.
    ///
    /// # Panics
    /// If the operating system does not say.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("wait for a child").is_some()
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// If the process has ended and was waited for.
    pub fn signal(&self, signal: Signal) {
        send_signal(self.id(), signal);
    }

    /// Likewise, if it has not ended.
    ///
    /// # Panics
    /// If the operating system does not say whether it has.
    pub fn signal_if_running(&mut self, signal: Signal) {
        // One that ends in between stays there until it is waited for.
        if !self.has_ended() {
            self.signal(signal);
        }
    }

    /// Waits for the end.
    ///
    /// # Panics
    /// If it takes for ever.
    #[must_use]
    pub fn finish(mut self) -> Finished {
        let status = poll::within(poll::LIMIT, || self.child.try_wait().expect("wait for a child"));
        let Some(status) = status else {
            panic!("it did not end: {}", self.said());
        };
        // Output may also be held open by what the program left running.
        poll::until("the end of the output", || {
            (self.stdout.is_complete() && self.stderr.is_complete()).then_some(())
        });
        Finished {
            command: self.command.clone(),
            stdout: self.stdout(),
            stderr: self.stderr(),
            status,
        }
    }

    fn said(&self) -> String {
        format!(
            "`{}`\nstdout:\n{}\nstderr:\n{}",
            self.command,
            self.stdout(),
            self.stderr()
        )
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a command to its end.
///
/// # Panics
/// If it cannot be started or takes for ever.
#[must_use]
pub fn run(command: &mut Command) -> Finished {
    Running::start(command).finish()
}

/// Sends a signal to any process.
///
/// # Panics
/// If there is no such process.
pub fn send_signal(process_id: u32, signal: Signal) {
    let pid = i32::try_from(process_id).ok().and_then(Pid::from_raw);
    kill_process(pid.expect("a process id"), signal)
        .unwrap_or_else(|error| panic!("cannot send {signal:?} to process {process_id}: {error}"));
}

/// The processes whose command name is `name`.
///
/// # Panics
/// If `/proc` cannot be read.
pub fn processes_named(name: &str) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").expect("/proc");
    let ids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    ids.filter(|id: &u32| {
        let comm = std::fs::read_to_string(Path::new("/proc").join(id.to_string()).join("comm"));
        comm.is_ok_and(|comm| comm.trim_end() == name)
    })
    .collect()
}

/// A stream that a thread of its own reads to the end.
#[derive(Debug)]
struct Captured {
    bytes: Arc<Mutex<Vec<u8>>>,
    reader: JoinHandle<()>,
}

impl Captured {
    fn from(mut stream: impl Read + Send + 'static) -> Self {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let collected = Arc::clone(&bytes);
        let reader = thread::spawn(move || {
            let mut buffer = [0; 16 << 10];
            while let Ok(length @ 1..) = stream.read(&mut buffer) {
                let mut bytes = collected.lock().unwrap_or_else(PoisonError::into_inner);
                bytes.extend_from_slice(&buffer[..length]);
            }
        });
        Self { bytes, reader }
    }

    fn is_complete(&self) -> bool {
        self.reader.is_finished()
    }

    fn text(&self) -> String {
        let bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn contains(&self, text: &str) -> bool {
        let bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        bytes.windows(text.len()).any(|window| window == text.as_bytes())
    }
}
