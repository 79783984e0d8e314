//! What is written down of a command: one log for all of them, and a file for each error.
//!
//! ```text
//! /var/log/nitro_enclaves/                                  or NITRO_CLI_LOGS_PATH
//!   nitro_enclaves.log                                      one line per record, of all commands of all users
//!   nitro_enclaves.log.1                                    what it was before it became too long
//!   err2026-01-31T12:00:00.123456789+00:00.log              of one error; the error's text names the file
//! ```
//!
//! Names and forms are those of AWS's nitro-cli, whose users and tools look there. A directory that was named with
//! `NITRO_CLI_LOGS_PATH` has to be usable, else the command fails with E19 before it does anything; the default one is used
//! where it can be, and done without where it cannot (see `docs/decisions/0019-logs-of-the-command-line.md`).
//!
//! The directory belongs to all members of a group, so nothing in it is followed that another member could have put there:
//! no link, and nothing but a regular file.

use std::fmt::Display;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::panic::Location;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use api::{ErrorCode, Failure};
use rustix::fs::OFlags;

use crate::time::{milliseconds, nanoseconds};

/// Where logs are unless `NITRO_CLI_LOGS_PATH` says otherwise; AWS's path.
pub(crate) const DEFAULT_DIRECTORY: &str = "/var/log/nitro_enclaves";

const LOG_FILE: &str = "nitro_enclaves.log";
const EARLIER_LOG: &str = "nitro_enclaves.log.1";

/// A log of this many bytes is put aside, in place of the one before.
const LONGEST_LOG: u64 = 8 << 20;

/// All users of the directory write to the same log.
const LOG_MODE: u32 = 0o664;

/// The file of an error is for whoever made it: it may hold the console of an enclave.
const ERROR_MODE: u32 = 0o640;

/// Which records are kept: those of a level and all above it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// None.
    Off,
    /// A command has failed.
    Error,
    /// Something may be wrong.
    Warn,
    /// What was asked for and how it ended.
    Info,
    /// More than that, of which there is nothing.
    All,
}

impl Level {
    /// The value of `RUST_LOG`. What is no level is taken for the default.
    pub(crate) fn parse(text: &str) -> Self {
        match text.to_ascii_lowercase().as_str() {
            "off" => Self::Off,
            "error" => Self::Error,
            "warn" => Self::Warn,
            "debug" | "trace" => Self::All,
            _ => Self::Info,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Off => "OFF",
            Self::Error => "ERROR",
            Self::Warn => "WARN",
            Self::Info => "INFO",
            Self::All => "DEBUG",
        }
    }
}

/// Which directory is to be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Directory {
    /// [`DEFAULT_DIRECTORY`], if that works.
    Default,
    /// The one of `NITRO_CLI_LOGS_PATH`; it has to work.
    Named(PathBuf),
}

/// An open log, or none.
#[derive(Debug)]
pub(crate) struct Log {
    open: Option<Open>,
    level: Level,
}

#[derive(Debug)]
struct Open {
    directory: PathBuf,
    file: File,
}

impl Log {
    /// Opens the log in `directory`.
    ///
    /// # Errors
    /// E19 if that is a named one and cannot be used.
    pub(crate) fn open(directory: &Directory, level: Level) -> Result<Self, Failure> {
        let open = match directory {
            Directory::Default => Open::at(Path::new(DEFAULT_DIRECTORY)).ok(),
            Directory::Named(path) => Some(Open::made(path).map_err(|error| unusable(path, &error))?),
        };
        Ok(Self { open, level })
    }

    /// No log, for a command that ends because there is none.
    pub(crate) fn none() -> Self {
        Self {
            open: None,
            level: Level::Off,
        }
    }

    /// Adds one record. There is nobody to tell if that fails.
    #[track_caller]
    pub(crate) fn record(&self, level: Level, text: impl Display) {
        let Some(Open { file, .. }) = &self.open else {
            return;
        };
        if level > self.level {
            return;
        }
        let place = Location::caller();
        let line = format!(
            "[nitro-cli:{}][{}][{}][{}:{}] {}\n",
            std::process::id(),
            level.name(),
            milliseconds(SystemTime::now()),
            place.file(),
            place.line(),
            one_line(&text.to_string()),
        );
        // At once, so that records of processes that write at the same time stay whole.
        let _ = (&*file).write_all(line.as_bytes());
    }

    /// Writes a file with `text` about an error. Where it is; nowhere if it could not be written.
    pub(crate) fn keep_error(&self, text: &str) -> Option<PathBuf> {
        let Open { directory, .. } = self.open.as_ref()?;
        let path = directory.join(format!("err{}.log", nanoseconds(SystemTime::now())));
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(ERROR_MODE)
            .open(&path)
            .ok()?;
        file.write_all(text.as_bytes()).ok()?;
        Some(path)
    }
}

impl Open {
    /// The log in a directory that is made if it is missing.
    fn made(directory: &Path) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        Self::at(directory)
    }

    /// The log in a directory that is there.
    fn at(directory: &Path) -> io::Result<Self> {
        let path = directory.join(LOG_FILE);
        let (mut file, mut length) = open_to_append(&path)?;
        if length >= LONGEST_LOG {
            // Another process may do the same at the same time: then a short log is put aside, and no record is lost
            // that was not about to be.
            fs::rename(&path, directory.join(EARLIER_LOG))?;
            (file, length) = open_to_append(&path)?;
        }
        if length == 0 {
            // Whatever the caller's umask: the log is not the caller's alone. It may be somebody else's already.
            let _ = file.set_permissions(Permissions::from_mode(LOG_MODE));
        }
        Ok(Self {
            directory: directory.to_owned(),
            file,
        })
    }
}

/// The log and its length.
fn open_to_append(path: &Path) -> io::Result<(File, u64)> {
    // Without NONBLOCK, opening a FIFO would wait for a reader.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(LOG_MODE)
        .custom_flags(flags.bits().cast_signed())
        .open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    Ok((file, metadata.len()))
}

fn unusable(directory: &Path, error: &io::Error) -> Failure {
    Failure::new(
        ErrorCode::FileOperation,
        format!(
            "Cannot open the log `{}`: {error}. Set NITRO_CLI_LOGS_PATH to a directory that you can write to, or unset it",
            directory.join(LOG_FILE).display()
        ),
    )
}

/// Text of a guest or a file must neither make up records nor reach a terminal as commands.
fn one_line(text: &str) -> String {
    let visible = |c: char| if c.is_control() { ' ' } else { c };
    text.trim_end().chars().map(visible).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn named(directory: &Path) -> Result<Log, Failure> {
        Log::open(&Directory::Named(directory.to_owned()), Level::Info)
    }

    #[test]
    fn a_record_is_one_line_whatever_it_says() {
        let directory = tempfile::tempdir().unwrap();
        let log = named(directory.path()).unwrap();

        log.record(Level::Error, "a guest said\n[x][ERROR] \u{1b}[2Jmore\n");
        log.record(Level::All, "left out");

        let text = fs::read_to_string(directory.path().join(LOG_FILE)).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.starts_with(&format!("[nitro-cli:{}][ERROR][", std::process::id())));
        assert!(text.contains("Z][nitro-cli/src/log.rs:"), "{text}");
        assert!(text.ends_with("] a guest said [x][ERROR]  [2Jmore\n"), "{text}");
    }

    #[test]
    fn links_and_pipes_of_others_are_not_written_to() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join(LOG_FILE);
        let victim = directory.path().join("victim");
        fs::write(&victim, "").unwrap();
        symlink(&victim, &log).unwrap();

        assert_eq!(
            named(directory.path()).unwrap_err().code,
            ErrorCode::FileOperation
        );

        fs::remove_file(&log).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, &log, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        assert!(named(directory.path()).is_err());
        assert_eq!(fs::read(&victim).unwrap(), b"");
    }

    #[test]
    fn a_log_that_has_become_too_long_is_put_aside() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(LOG_FILE);
        File::create(&path).unwrap().set_len(LONGEST_LOG).unwrap();

        named(directory.path()).unwrap().record(Level::Info, "after");

        let earlier = directory.path().join(EARLIER_LOG);
        assert_eq!(fs::metadata(earlier).unwrap().len(), LONGEST_LOG);
        assert!(fs::read_to_string(&path).unwrap().ends_with("after\n"));
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            LOG_MODE
        );
    }
}
