//! A file that appears whole or not at all, and that leaves nothing behind.
//!
//! [`AtomicFile`] is written beside its place and put there by [`AtomicFile::commit`]. Until then it has no name, so there is
//! nothing to clean up, whatever happens to the process. Two moments need more than that:
//!
//! * Where a file system has no files without names, the file has one from the start.
//! * A file can be linked to a name that is free, but not over one that is taken: for an instant before it replaces another
//!   file, it has a name of its own.
//!
//! These names are on a list. A program that is told to end (Ctrl-C) calls [`remove_unfinished`] before it does.

#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{AtFlags, CWD, Mode, OFlags};

/// Permissions before the caller's umask.
const MODE: u32 = 0o666;
/// What the names of unfinished files begin with.
const PREFIX: &str = ".unfinished-";

/// Names of files that are not finished.
static UNFINISHED: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// Why a file cannot be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Something else is in its place, such as a directory or a device.
    #[error("the output `{}` exists and is not a regular file", .0.display())]
    NotAFile(PathBuf),
    /// It cannot be created, or not be put in its place.
    #[error("cannot write `{}`", path.display())]
    Write {
        /// Its place.
        path: PathBuf,
        /// What failed.
        source: io::Error,
    },
}

/// Removes the files of this process that have a name and are not finished. None can be created or finished while the guard
/// that is returned is there, so the caller keeps it until the process has ended.
pub fn remove_unfinished() -> impl Sized {
    let names = unfinished();
    for name in names.iter() {
        // Whoever is about to remove it as well has nothing to be told.
        let _ = fs::remove_file(name);
    }
    names
}

fn unfinished() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    // A set of names is whole after each of its methods.
    UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The name of an unfinished file, on the list.
#[derive(Debug)]
struct UnfinishedName(PathBuf);

impl UnfinishedName {
    /// Has `make` create a file of a new name in `directory`.
    fn new(directory: &Path, make: impl Fn(&Path) -> io::Result<()>) -> io::Result<Self> {
        // The list is locked from before the file has a name.
        let mut names = unfinished();
        let ((), path) = tempfile::Builder::new()
            .prefix(PREFIX)
            .make_in(directory, make)?
            .keep()
            .map_err(|failed| failed.error)?;
        names.insert(path.clone());
        Ok(Self(path))
    }

    /// Gives the file its name.
    fn persist(self, target: &Path) -> io::Result<()> {
        let mut names = unfinished();
        fs::rename(&self.0, target)?;
        names.remove(&self.0);
        Ok(())
    }
}

impl Drop for UnfinishedName {
    fn drop(&mut self) {
        let mut names = unfinished();
        if names.remove(&self.0) {
            let _ = fs::remove_file(&self.0);
        }
    }
}

/// A file being written beside its place.
#[derive(Debug)]
pub struct AtomicFile {
    file: File,
    /// The name, where one was needed.
    name: Option<UnfinishedName>,
    target: PathBuf,
}

impl AtomicFile {
    /// Prepares to create or replace `path`. If that is a symbolic link, what it points to is replaced.
    ///
    /// # Errors
    /// [`Error::NotAFile`], [`Error::Write`].
    pub fn create(path: &Path) -> Result<Self, Error> {
        let error = |source| Error::Write {
            path: path.to_owned(),
            source,
        };
        let target = match fs::canonicalize(path) {
            Ok(target) if target.is_file() => target,
            Ok(_) => return Err(Error::NotAFile(path.to_owned())),
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => path.to_owned(),
            Err(source) => return Err(error(source)),
        };
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let unnamed = rustix::fs::openat(CWD, directory_of(&target), flags, Mode::from_raw_mode(MODE));
        if let Ok(file) = unnamed {
            return Ok(Self {
                file: file.into(),
                name: None,
                target,
            });
        }
        let create = |path: &Path| File::options().read(true).write(true).create_new(true).open(path);
        let name =
            UnfinishedName::new(directory_of(&target), |path| create(path).map(|_| ())).map_err(error)?;
        let file = File::options()
            .read(true)
            .write(true)
            .open(&name.0)
            .map_err(error)?;
        Ok(Self {
            file,
            name: Some(name),
            target,
        })
    }

    /// The file, open for reading and writing.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The directory that the file will be in, which has room for it.
    pub fn directory(&self) -> &Path {
        directory_of(&self.target)
    }

    /// Puts the file in its place, over what is there.
    ///
    /// # Errors
    /// [`Error::Write`].
    pub fn commit(self) -> Result<(), Error> {
        let error = |source| Error::Write {
            path: self.target.clone(),
            source,
        };
        let name = match self.name {
            Some(name) => name,
            // Most files are new.
            None => match link(&self.file, &self.target) {
                Ok(()) => return Ok(()),
                Err(taken) if taken.kind() == io::ErrorKind::AlreadyExists => {
                    UnfinishedName::new(directory_of(&self.target), |name| link(&self.file, name))
                        .map_err(error)?
                }
                Err(other) => return Err(error(other)),
            },
        };
        name.persist(&self.target).map_err(error)
    }
}

/// Gives a file without a name one that no other file has.
fn link(file: &File, name: &Path) -> io::Result<()> {
    // Linking an open file itself (AT_EMPTY_PATH) takes a privilege; by its name in /proc it does not.
    let source = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok(rustix::fs::linkat(
        CWD,
        &source,
        CWD,
        name,
        AtFlags::SYMLINK_FOLLOW,
    )?)
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// The list of unfinished files is the process's: a test that empties it runs alone.
    static ALONE: Mutex<()> = Mutex::new(());

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn the_file_appears_at_the_end_and_replaces_the_old_one() {
        let _alone = ALONE.lock();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("out");
        for contents in ["one", "two"] {
            let before = names(directory.path());
            let output = AtomicFile::create(&path).unwrap();
            output.file().write_all(contents.as_bytes()).unwrap();
            assert_eq!(names(directory.path()), before);
            output.commit().unwrap();
            assert_eq!(names(directory.path()), ["out"]);
            assert_eq!(fs::read_to_string(&path).unwrap(), contents);
        }
        drop(AtomicFile::create(&path).unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), "two");
        assert_eq!(names(directory.path()), ["out"]);
    }

    #[test]
    fn a_symbolic_link_stays_one() {
        let _alone = ALONE.lock();
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("real"), "old").unwrap();
        let link = directory.path().join("link");
        std::os::unix::fs::symlink("real", &link).unwrap();
        let output = AtomicFile::create(&link).unwrap();
        output.file().write_all(b"new").unwrap();
        output.commit().unwrap();
        assert!(link.is_symlink());
        assert_eq!(fs::read_to_string(directory.path().join("real")).unwrap(), "new");
    }

    #[test]
    fn what_is_no_regular_file_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        for path in [Path::new("/dev/null"), directory.path()] {
            assert!(matches!(AtomicFile::create(path), Err(Error::NotAFile(_))));
        }
        let nowhere = directory.path().join("missing/out");
        assert!(matches!(AtomicFile::create(&nowhere), Err(Error::Write { .. })));
    }

    #[test]
    fn a_file_with_a_name_is_removed_when_the_program_is_told_to_end() {
        let _alone = ALONE.lock();
        let directory = tempfile::tempdir().unwrap();
        let name = UnfinishedName::new(directory.path(), |path| fs::write(path, "half")).unwrap();
        assert_eq!(names(directory.path()).len(), 1);

        drop(remove_unfinished());
        assert_eq!(names(directory.path()), [""; 0]);

        drop(name);
        let finished = UnfinishedName::new(directory.path(), |path| fs::write(path, "all")).unwrap();
        finished.persist(&directory.path().join("out")).unwrap();
        drop(remove_unfinished());
        assert_eq!(names(directory.path()), ["out"]);
    }
}
