//! Runs the built `nitro-cli` and collects what it leaves.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::fake_daemon::FakeDaemon;

/// A command line about to be run, in an environment that is the same on every machine.
pub(crate) struct Program {
    command: Command,
}

/// What a run left behind.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Program {
    /// `nitro-cli` with `arguments`; no daemon, no blobs, no input, and a log that is not the machine's.
    pub(crate) fn new(arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nitro-cli"));
        command
            .args(arguments)
            .env_clear()
            .env("ENCLAVED_SOCKET", "/nonexistent/enclaved.sock")
            .env("NITRO_CLI_BLOBS", "/nonexistent/blobs")
            .env(
                "NITRO_CLI_LOGS_PATH",
                concat!(env!("CARGO_TARGET_TMPDIR"), "/logs"),
            )
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Self { command }
    }

    pub(crate) fn daemon(self, daemon: &FakeDaemon) -> Self {
        self.env("ENCLAVED_SOCKET", daemon.socket())
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    pub(crate) fn without_env(mut self, name: &str) -> Self {
        self.command.env_remove(name);
        self
    }

    pub(crate) fn directory(mut self, directory: &Path) -> Self {
        self.command.current_dir(directory);
        self
    }

    pub(crate) fn stdout(mut self, stdout: impl Into<Stdio>) -> Self {
        self.command.stdout(stdout);
        self
    }

    pub(crate) fn stderr(mut self, stderr: impl Into<Stdio>) -> Self {
        self.command.stderr(stderr);
        self
    }

    pub(crate) fn spawn(mut self) -> Child {
        self.command.spawn().expect("nitro-cli starts")
    }

    pub(crate) fn run(self) -> Finished {
        Finished::wait_for(self.spawn())
    }
}

impl Finished {
    pub(crate) fn wait_for(child: Child) -> Self {
        let output = child.wait_with_output().expect("nitro-cli ends");
        let finished = Self {
            code: output.status.code().expect("no signal ended nitro-cli"),
            stdout: String::from_utf8(output.stdout).expect("standard output is UTF-8"),
            stderr: String::from_utf8(output.stderr).expect("standard error is UTF-8"),
        };
        assert!(!finished.stderr.contains("panicked"), "{}", finished.stderr);
        finished
    }

    /// Standard output as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }

    /// Asserts a failure of AWS's kind: this exit code, nothing on standard output, and the `[ ENN ]` blocks on standard
    /// error, in this order and no others.
    #[track_caller]
    pub(crate) fn assert_failed(&self, code: i32, blocks: &[&str]) {
        assert_eq!(self.code, code, "{self:#?}");
        assert_eq!(self.stdout, "", "{self:#?}");
        assert_eq!(self.blocks(), blocks, "{self:#?}");
        for block in blocks {
            let address = format!(
                "\n\nFor more details, please visit \
                 https://docs.aws.amazon.com/enclaves/latest/user/cli-errors.html#{block}\n"
            );
            assert!(self.stderr.contains(&address), "{self:#?}");
        }
        let files = self.error_files();
        assert_eq!(files.len(), blocks.len(), "{self:#?}");
        for file in files {
            assert!(file.is_file(), "{self:#?}");
        }
    }

    /// The files of errors that standard error names, as tools find them.
    pub(crate) fn error_files(&self) -> Vec<PathBuf> {
        const BEFORE: &str = "If you open a support ticket, please provide the error log found at \"";
        let after = self.stderr.lines().filter_map(|line| line.strip_prefix(BEFORE));
        let paths = after.filter_map(|rest| rest.strip_suffix('"'));
        paths.map(PathBuf::from).collect()
    }

    /// Asserts that standard error has all `texts`, in this order.
    #[track_caller]
    pub(crate) fn assert_says(&self, texts: &[&str]) {
        let mut rest = self.stderr.as_str();
        for text in texts {
            let Some((_, after)) = rest.split_once(text) else {
                panic!("no {text:?} in, or out of order: {self:#?}");
            };
            rest = after;
        }
    }

    /// The numbers of the errors on standard error, as scripts find them.
    pub(crate) fn blocks(&self) -> Vec<&str> {
        let after_bracket = self.stderr.lines().filter_map(|line| line.strip_prefix("[ "));
        after_bracket
            .filter_map(|rest| Some(rest.split_once(" ] ")?.0))
            .collect()
    }
}
