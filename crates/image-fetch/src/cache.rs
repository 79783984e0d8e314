//! Blobs by digest, for later builds.
//!
//! ```text
//! DIRECTORY/blobs/sha256/HEX
//! ```
//!
//! A blob gets its name when it is whole and has its digest, so builds at the same time and builds that are interrupted leave
//! only good ones. When one is used its digest is checked again; a damaged one is removed and fetched anew. The directory can
//! be removed at any time. It is for one user: images may be private.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use atomic_file::AtomicFile;

use crate::digest::{Digest, DigestMismatch, HashingReader};
use crate::error::FetchError;

/// Size of reads and writes.
const BUFFER: usize = 256 << 10;

/// A directory of blobs.
#[derive(Clone, Debug)]
pub(crate) struct BlobCache {
    directory: PathBuf,
}

/// Why a blob was not taken in.
#[derive(Debug)]
pub(crate) enum StoreError {
    /// It could not be written.
    Cache(FetchError),
    /// Its source failed.
    Source(io::Error),
    /// It ended early or went on.
    Size {
        is_larger: bool,
    },
    Digest(DigestMismatch),
}

impl BlobCache {
    pub(crate) fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// The blob, if it is there and whole.
    pub(crate) fn open(&self, digest: &Digest) -> Result<Option<File>, FetchError> {
        let path = self.path(digest);
        let error = |source| cache_error(&path, source);
        self.check_owner(&path)?;
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(error(source)),
        };
        let mut reader = HashingReader::new(&file, Some(digest.clone()));
        reader.drain().map_err(error)?;
        if reader.into_verdict().1.is_ok() {
            return Ok(Some(file));
        }
        // Another build may have done that already.
        let _ = fs::remove_file(&path);
        Ok(None)
    }

    /// Takes in a blob of at most `limit` bytes; of exactly as many if `is_exact`. `progress` gets the bytes so far.
    pub(crate) fn store(
        &self,
        digest: &Digest,
        (limit, is_exact): (u64, bool),
        source: impl Read,
        progress: &mut dyn FnMut(u64),
    ) -> Result<File, StoreError> {
        let path = self.path(digest);
        let cache = |source| StoreError::Cache(cache_error(&path, source));
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path.parent().unwrap_or(&self.directory))
            .map_err(cache)?;
        self.check_owner(&path).map_err(StoreError::Cache)?;
        let output = AtomicFile::create(&path).map_err(|error| match error {
            atomic_file::Error::Write { source, .. } => cache(source),
            other => cache(io::Error::other(other.to_string())),
        })?;
        let private = Permissions::from_mode(0o600);
        output.file().set_permissions(private).map_err(cache)?;
        let mut reader = HashingReader::new(source, Some(digest.clone()));
        let mut buffer = vec![0; BUFFER];
        let mut stored = 0;
        loop {
            let count = match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(StoreError::Source(error)),
            };
            stored += count as u64;
            if stored > limit {
                return Err(StoreError::Size { is_larger: true });
            }
            output.file().write_all(&buffer[..count]).map_err(cache)?;
            progress(stored);
        }
        if is_exact && stored < limit {
            return Err(StoreError::Size { is_larger: false });
        }
        reader.into_verdict().1.map_err(StoreError::Digest)?;
        let file = output.file().try_clone().map_err(cache)?;
        output.commit().map_err(|error| match error {
            atomic_file::Error::Write { source, .. } => cache(source),
            other => cache(io::Error::other(other.to_string())),
        })?;
        Ok(file)
    }

    /// Whoever may write where blobs are could have others replaced through a link, or change a blob after it was checked.
    fn check_owner(&self, blob: &Path) -> Result<(), FetchError> {
        let own = rustix::process::geteuid().as_raw();
        let within = blob.ancestors().skip(1);
        for directory in within.take_while(|path| path.starts_with(&self.directory)) {
            let found = match fs::symlink_metadata(directory) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                found => found.map_err(|source| cache_error(directory, source))?,
            };
            if !found.is_dir() || found.uid() != own || found.mode() & 0o022 != 0 {
                let message =
                    "it is not a directory that this user alone may change; NITRO_CLI_ARTIFACTS can name one";
                return Err(cache_error(directory, io::Error::other(message)));
            }
        }
        Ok(())
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.directory.join(digest.blob_path())
    }
}

fn cache_error(path: &Path, source: io::Error) -> FetchError {
    FetchError::Cache {
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {

    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let Ok(entries) = fs::read_dir(directory.join("blobs/sha256")) else {
            return Vec::new();
        };
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    fn contents(mut file: File) -> Vec<u8> {
        io::Seek::rewind(&mut file).unwrap();
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn a_directory_that_others_may_change_is_not_used() {
        let place = tempfile::tempdir().unwrap();
        let (digest, bytes) = (Digest::sha256(b"x"), &b"x"[..]);
        let store = |cache: &BlobCache| cache.store(&digest, (10, false), bytes, &mut |_| {});
        let cache = BlobCache::new(place.path().join("layers"));
        assert!(store(&cache).is_ok());
        let blobs = place.path().join("layers/blobs/sha256");
        assert!(cache.open(&digest).unwrap().is_some());
        let blob = fs::read_dir(&blobs).unwrap().next().unwrap().unwrap();
        assert_eq!(blob.metadata().unwrap().mode() & 0o777, 0o600);

        fs::set_permissions(&blobs, Permissions::from_mode(0o777)).unwrap();
        assert!(cache.open(&digest).is_err());
        assert!(store(&cache).is_err());

        fs::set_permissions(&blobs, Permissions::from_mode(0o755)).unwrap();
        let elsewhere = place.path().join("elsewhere");
        fs::rename(place.path().join("layers/blobs"), &elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, place.path().join("layers/blobs")).unwrap();
        assert!(cache.open(&digest).is_err());
        assert!(store(&cache).is_err());
    }

    #[test]
    fn only_what_has_its_digest_and_size_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let cache = BlobCache::new(directory.path().join("new"));
        let at = directory.path().join("new");
        let digest = Digest::sha256(b"abc");
        let store = |limit, bytes: &[u8]| cache.store(&digest, limit, bytes, &mut |_| {});

        assert!(matches!(store((3, true), b"abd"), Err(StoreError::Digest(_))));
        assert!(matches!(
            store((3, true), b"ab"),
            Err(StoreError::Size { is_larger: false })
        ));
        assert!(matches!(
            store((2, false), b"abc"),
            Err(StoreError::Size { is_larger: true })
        ));
        assert!(cache.open(&digest).unwrap().is_none());
        assert_eq!(names(&at), [""; 0]);

        assert_eq!(contents(store((9, false), b"abc").unwrap()), b"abc");
        assert_eq!(names(&at), [digest.hex()]);
        assert_eq!(contents(cache.open(&digest).unwrap().unwrap()), b"abc");
        assert_eq!(at.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(
            contents(store((3, true), b"abc").unwrap()),
            b"abc",
            "another build was as fast"
        );
    }

    #[test]
    fn a_damaged_blob_is_as_good_as_none() {
        let directory = tempfile::tempdir().unwrap();
        let cache = BlobCache::new(directory.path().to_owned());
        let digest = Digest::sha256(b"abc");
        cache.store(&digest, (3, true), &b"abc"[..], &mut |_| {}).unwrap();
        fs::write(directory.path().join(digest.blob_path()), "abd").unwrap();

        assert!(cache.open(&digest).unwrap().is_none());
        assert_eq!(names(directory.path()), [""; 0]);
    }
}
