//! The two kernels, built by `images/kernel/build.sh` and kept under a name that tells what they were built from.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest, Sha256};

use crate::error::{Error, at};
use crate::workspace::Workspace;
use crate::{apt, process};

/// Debian's package of the kernel source.
const SOURCE_PACKAGE: &str = "linux-source-6.12";

/// Which kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Runs in enclaves.
    Enclave,
    /// Runs in parent instances.
    Parent,
}

impl Kind {
    /// As `build.sh` calls it.
    fn name(self) -> &'static str {
        match self {
            Self::Enclave => "enclave",
            Self::Parent => "parent",
        }
    }

    /// What building it is called.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Enclave => "enclave kernel (built once, 5 to 8 minutes)",
            Self::Parent => "parent kernel (built once, 5 to 8 minutes)",
        }
    }
}

/// A built kernel: a directory with `bzImage`, `vmlinux` and `config`.
#[derive(Debug)]
pub(crate) struct Kernel(PathBuf);

impl Kernel {
    pub(crate) fn bzimage(&self) -> PathBuf {
        self.0.join("bzImage")
    }

    pub(crate) fn vmlinux(&self) -> PathBuf {
        self.0.join("vmlinux")
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.0.join("config")
    }
}

/// The kernel as the checkout describes it, built unless that has been done before. Two builds never run at once: the
/// second waits, and finds the first's result if it is the same kernel.
pub(crate) fn built(workspace: &Workspace, kind: Kind) -> Result<Kernel, Error> {
    let directory = workspace
        .cache()
        .join(format!("kernel-{}-{}", kind.name(), key(workspace, kind)?));
    if directory.exists() {
        return Ok(Kernel(directory));
    }
    let _lock = lock(workspace.cache())?;
    if !directory.exists() {
        let unfinished = workspace.cache().join("kernel-unfinished");
        if unfinished.exists() {
            // Left by a build that was killed: whoever holds the lock is the only one here.
            fs::remove_dir_all(&unfinished).map_err(at("remove", &unfinished))?;
        }
        let mut build = Command::new(workspace.file("images/kernel/build.sh"));
        build.arg(kind.name()).arg(&unfinished);
        process::logged(&mut build, &workspace.log(&format!("kernel-{}", kind.name())))?;
        fs::rename(&unfinished, &directory).map_err(at("create", &directory))?;
    }
    Ok(Kernel(directory))
}

/// Whatever can change the kernel: its configuration, the build script, the source's version.
fn key(workspace: &Workspace, kind: Kind) -> Result<String, Error> {
    let fragment = workspace.file(&format!("images/kernel/{}.config", kind.name()));
    let script = workspace.file("images/kernel/build.sh");
    let read = |path: &Path| fs::read(path).map_err(at("read", path));
    Ok(digest(&[
        &read(&fragment)?,
        &read(&script)?,
        apt::version(SOURCE_PACKAGE)?.as_bytes(),
    ]))
}

/// 16 hexadecimal digits that differ when any of the parts, or where one ends, differs.
fn digest(parts: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let mut text = String::new();
    for byte in hash.finalize().iter().take(8) {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// Waits for other builds; released when dropped.
fn lock(cache: &Path) -> Result<File, Error> {
    let path = cache.join("kernel.lock");
    let file = File::create(&path).map_err(at("create", &path))?;
    file.lock().map_err(at("lock", &path))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_and_every_border_changes_the_key() {
        let key = digest(&[b"fragment", b"script", b"6.12.1"]);
        assert_eq!(key.len(), 16);
        assert_eq!(key, digest(&[b"fragment", b"script", b"6.12.1"]));
        assert_ne!(key, digest(&[b"fragment", b"script", b"6.12.2"]));
        assert_ne!(key, digest(&[b"fragments", b"cript", b"6.12.1"]));
        assert_ne!(key, digest(&[b"script", b"fragment", b"6.12.1"]));
    }
}
