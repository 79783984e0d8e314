//! The file of the audit log: added to line by line, and put aside when it is too long, in place of the one before.
//!
//! It may be moved away meanwhile, by an administrator or by another daemon that writes to the same path; then it is made again.

use std::fs::{self, DirBuilder, File, Metadata};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags};

/// A file of so many bytes is put aside.
const LONGEST: u64 = 8 << 20;

/// For root, and for the group that an administrator gives it to.
const MODE: Mode = Mode::from_raw_mode(0o640);

#[derive(Debug)]
pub(super) struct AuditFile {
    path: PathBuf,
    longest: u64,
    open: Option<File>,
    /// Lines that could not be written since the last one that could.
    lost: u64,
    /// Whether the last line may have been cut off, as by a full disk.
    torn: bool,
}

impl AuditFile {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            longest: LONGEST,
            open: None,
            lost: 0,
            torn: false,
        }
    }

    /// Opens the file before there is a line for it, so that a daemon that cannot write it says so when it starts.
    pub(super) fn open(&mut self) {
        match open(&self.path) {
            Ok(file) => self.open = Some(file),
            Err(error) => {
                tracing::error!(path = %self.path.display(), %error, "the audit log cannot be opened; it is tried again with each request");
            }
        }
    }

    /// Adds a line. If that fails, the daemon's log says so, once until it works again.
    pub(super) fn write(&mut self, line: &str) {
        let mut text = String::new();
        if self.torn {
            text.push('\n');
        }
        if self.lost > 0 {
            text.push_str(&super::lines_left_out(self.lost));
        }
        text.push_str(line);
        match self.try_write(&text) {
            Ok(()) => {
                if self.lost > 0 {
                    tracing::warn!(path = %self.path.display(), lost = self.lost, "the audit log can be written again");
                }
                self.lost = 0;
                self.torn = false;
            }
            Err(error) => {
                if self.lost == 0 {
                    tracing::error!(path = %self.path.display(), %error, "the audit log cannot be written; requests are answered all the same");
                }
                self.lost += 1;
                self.open = None;
            }
        }
    }

    fn try_write(&mut self, text: &str) -> io::Result<()> {
        let mut file = match self.open.take() {
            Some(file) if is_at(&file, &self.path) => file,
            _ => open(&self.path)?,
        };
        if file.metadata()?.len() >= self.longest {
            put_aside(&file, &self.path)?;
            file = open(&self.path)?;
        }
        // At once, so that lines of two daemons stay whole.
        let written = file.write_all(text.as_bytes());
        self.torn |= written.is_err();
        written?;
        self.open = Some(file);
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<File> {
    if let Some(directory) = path.parent() {
        // For root alone, unless it is there and somebody has chosen otherwise.
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    }
    // Without NONBLOCK, opening a FIFO would wait for a reader.
    let flags = OFlags::WRONLY
        | OFlags::APPEND
        | OFlags::CREATE
        | OFlags::NOFOLLOW
        | OFlags::NONBLOCK
        | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, MODE)?);
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    Ok(file)
}

/// Moves the file at `path` away, unless another daemon has done so meanwhile.
fn put_aside(file: &File, path: &Path) -> io::Result<()> {
    rustix::fs::flock(file, FlockOperation::LockExclusive)?;
    if is_at(file, path) {
        let mut earlier = path.as_os_str().to_owned();
        earlier.push(".1");
        fs::rename(path, earlier)?;
    }
    Ok(())
}

fn is_at(file: &File, path: &Path) -> bool {
    let identity = |metadata: Metadata| (metadata.dev(), metadata.ino());
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(open), Ok(there)) => identity(open) == identity(there),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn in_directory(directory: &Path) -> AuditFile {
        AuditFile {
            longest: 100,
            ..AuditFile::new(directory.join("log").join("audit.jsonl"))
        }
    }

    #[test]
    fn the_log_is_made_for_root_alone_and_is_two_files_of_bounded_length() {
        let directory = tempfile::tempdir().unwrap();
        let mut file = in_directory(directory.path());

        for number in 0..1000 {
            file.write(&format!("{number}\n"));
        }

        let length = |path: &Path| fs::metadata(path).unwrap().len();
        let earlier = file.path.with_extension("jsonl.1");
        assert!(length(&file.path) <= 104 && length(&earlier) <= 104);
        let names = fs::read_dir(file.path.parent().unwrap()).unwrap();
        assert_eq!(names.count(), 2);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&file.path) & 0o027, 0);
        assert_eq!(mode(file.path.parent().unwrap()), 0o700);
        let text = fs::read_to_string(&file.path).unwrap();
        assert!(text.ends_with("999\n"), "{text}");
    }

    #[test]
    fn a_log_that_was_moved_away_or_put_aside_by_another_daemon_is_made_again() {
        let directory = tempfile::tempdir().unwrap();
        let (mut one, mut other) = (in_directory(directory.path()), in_directory(directory.path()));
        one.write("first\n");
        other.write("second\n");
        let moved = directory.path().join("moved");
        fs::rename(&one.path, &moved).unwrap();

        one.write("third\n");
        other.write("fourth\n");

        assert_eq!(fs::read_to_string(&moved).unwrap(), "first\nsecond\n");
        assert_eq!(fs::read_to_string(&one.path).unwrap(), "third\nfourth\n");
    }

    #[test]
    fn what_is_no_regular_file_is_not_written_to_and_the_log_goes_on_when_it_can() {
        let directory = tempfile::tempdir().unwrap();
        let mut file = in_directory(directory.path());
        let elsewhere = directory.path().join("elsewhere");
        fs::create_dir(file.path.parent().unwrap()).unwrap();
        fs::write(&elsewhere, "").unwrap();
        std::os::unix::fs::symlink(&elsewhere, &file.path).unwrap();

        file.write("lost\n");
        fs::remove_file(&file.path).unwrap();
        file.write("kept\n");

        assert_eq!(fs::read_to_string(&elsewhere).unwrap(), "");
        let text = fs::read_to_string(&file.path).unwrap();
        let (first, rest) = text.split_once('\n').unwrap();
        assert!(first.ends_with("\"left_out\":1}"), "{text}");
        assert_eq!(rest, "kept\n");
    }
}
