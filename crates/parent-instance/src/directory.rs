//! The directory of one running machine: its initramfs, sockets and logs.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::Error;
use crate::error::at;

/// A directory of its own below the system's directory for temporary files, removed when dropped unless it is kept.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    keep: bool,
}

impl Directory {
    /// Makes a directory that nobody else has and that only this user can enter.
    pub(crate) fn create() -> Result<Self, Error> {
        let parent = std::env::temp_dir();
        let process = std::process::id();
        let mut number = 0_u32;
        loop {
            let path = parent.join(format!("parent-instance-{process}-{number}"));
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Self { path, keep: false }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
                Err(error) => return Err(at("create", &path)(error)),
            }
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves the directory in place, for its logs.
    pub(crate) fn keep(&mut self) {
        self.keep = true;
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if !self.keep {
            // It is a directory for temporary files: what cannot be removed now is removed with all of them.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_differ_and_are_removed_unless_kept() {
        let (first, mut second) = (
            Directory::create().expect("first"),
            Directory::create().expect("second"),
        );
        assert_ne!(first.path(), second.path());
        second.keep();
        let (removed, kept) = (first.path().to_owned(), second.path().to_owned());
        fs::write(removed.join("file"), "text").expect("write");
        drop((first, second));
        assert!(!removed.exists());
        assert!(kept.exists());
        fs::remove_dir(kept).expect("remove");
    }
}
