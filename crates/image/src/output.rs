//! A file that appears whole or not at all.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use tempfile::TempPath;

use crate::ImageError;

/// Permissions before the caller's umask.
const MODE: u32 = 0o666;

/// A file being written beside its place. It has no name until [`Self::commit`], so that nothing stays behind when the
/// process is killed. Where a file system has no files without names it has one that is removed on drop.
#[derive(Debug)]
pub(crate) struct AtomicFile {
    file: File,
    /// The name, where one was needed.
    name: Option<TempPath>,
    target: PathBuf,
}

impl AtomicFile {
    /// Prepares to create or replace `path`. If that is a symbolic link, what it points to is replaced.
    pub(crate) fn create(path: &Path) -> Result<Self, ImageError> {
        let error = |source| ImageError::Write {
            path: path.to_owned(),
            source,
        };
        let target = match fs::canonicalize(path) {
            Ok(target) if target.is_file() => target,
            Ok(_) => return Err(ImageError::Output(path.to_owned())),
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
        let named = tempfile::Builder::new()
            .prefix(".eif-")
            .permissions(Permissions::from_mode(MODE))
            .tempfile_in(directory_of(&target))
            .map_err(error)?;
        let (file, name) = named.into_parts();
        Ok(Self {
            file,
            name: Some(name),
            target,
        })
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// The directory that the file will be in, which has room for it.
    pub(crate) fn directory(&self) -> &Path {
        directory_of(&self.target)
    }

    /// Puts the file in its place, over what is there.
    pub(crate) fn commit(self) -> Result<(), ImageError> {
        let error = |source| ImageError::Write {
            path: self.target.clone(),
            source,
        };
        let name = match self.name {
            Some(name) => name,
            None => link(&self.file, directory_of(&self.target)).map_err(error)?,
        };
        name.persist(&self.target).map_err(|failed| error(failed.error))
    }
}

/// Gives a file without a name one that no other file has.
fn link(file: &File, directory: &Path) -> io::Result<TempPath> {
    // Linking an open file itself (AT_EMPTY_PATH) takes a privilege; by its name in /proc it does not.
    let source = format!("/proc/self/fd/{}", file.as_raw_fd());
    let link = |name: &Path| -> io::Result<()> {
        Ok(rustix::fs::linkat(
            CWD,
            &source,
            CWD,
            name,
            AtFlags::SYMLINK_FOLLOW,
        )?)
    };
    Ok(tempfile::Builder::new()
        .prefix(".eif-")
        .make_in(directory, link)?
        .into_temp_path())
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
            assert!(matches!(AtomicFile::create(path), Err(ImageError::Output(_))));
        }
        let nowhere = directory.path().join("missing/out");
        assert!(matches!(
            AtomicFile::create(&nowhere),
            Err(ImageError::Write { .. })
        ));
    }
}
