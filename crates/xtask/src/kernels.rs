//! The two kernels, built by `images/kernel/build.sh` and kept under a name that tells what they were built from.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{Error, at};
use crate::workspace::Workspace;
use crate::{apt, digest, lock, process};

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
    /// One that is in `directory`.
    #[cfg(test)]
    pub(crate) fn in_directory(directory: &Path) -> Self {
        Self(directory.to_owned())
    }

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
    let _turn = lock::exclusive(&workspace.cache().join("kernel.lock"))?;
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

/// What the checkout and Debian's source say of the kernel: its configuration, the build script, the source's version.
///
/// The compiler is not part of it although the bytes, and so PCR0, depend on it: a kernel that an earlier compiler of this
/// machine built runs as well, and is not worth minutes after each update. Who compares measurements between machines
/// needs the same compiler on both, and an empty cache after an update.
fn key(workspace: &Workspace, kind: Kind) -> Result<String, Error> {
    let fragment = workspace.file(&format!("images/kernel/{}.config", kind.name()));
    let script = workspace.file("images/kernel/build.sh");
    let read = |path: &Path| fs::read(path).map_err(at("read", path));
    Ok(digest::of(&[
        &read(&fragment)?,
        &read(&script)?,
        apt::version(SOURCE_PACKAGE)?.as_bytes(),
    ]))
}
