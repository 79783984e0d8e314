//! `pool.json`: what the allocator has set apart for enclaves, as the daemon reads it.
//!
//! ```json
//! {"version":1,"entries":[{"node":0,"cpus":[2,3],"pages_1g":0,"pages_2m":256}]}
//! ```
//!
//! The file is replaced as a whole, so a reader sees one pool or the other. It says what *may* be used; who holds what is
//! the registry's to say. `pool.lock` beside it keeps both apart: the allocator holds it exclusively while it changes the
//! pool, the daemon holds it shared from reading the pool until an enclave's VMM is noted in the enclave's directory.
//! So the allocator sees every enclave, and no enclave starts on CPUs that are being given to another pool.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::admission::memory::PageSize;

/// The pool's file in the run directory.
pub const POOL_FILE: &str = "pool.json";

/// The lock beside it.
pub const LOCK_FILE: &str = "pool.lock";

/// The format that this program writes and reads.
pub const VERSION: u32 = 1;

/// More than the pool of any machine takes, in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// How long the allocator waits for a daemon that is just starting an enclave.
const PATIENCE: Duration = Duration::from_secs(5);

/// Between two attempts to lock.
const INTERVAL: Duration = Duration::from_millis(20);

/// Everything that enclaves may have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pool {
    /// [`VERSION`].
    version: u32,
    /// In the order of `allocator.yaml`. No CPU is in two of them.
    pub entries: Vec<PoolEntry>,
}

/// One part of the pool, all of it on one NUMA node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoolEntry {
    /// The NUMA node.
    pub node: u32,
    /// The CPUs: whole cores, ascending, never CPU 0's core.
    pub cpus: Vec<u32>,
    /// Hugepages of 1 GiB.
    pub pages_1g: u64,
    /// Hugepages of 2 MiB.
    pub pages_2m: u64,
}

/// Why the pool cannot be read, written or locked.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// A file could not be used.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The file is longer than any pool.
    #[error(
        "{path} has more than {MAX_BYTES} bytes, so it is no pool; run nitro-enclaves-allocator to replace it"
    )]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// The file is not what the allocator writes.
    #[error("{path} is damaged; run nitro-enclaves-allocator to replace it")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// The file is of another release.
    #[error(
        "{path} has version {found}, and this program reads version {VERSION}; run its nitro-enclaves-allocator to \
         replace it"
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u64,
    },
    /// The file gives a CPU away twice.
    #[error("{path} has CPU {cpu} twice; run nitro-enclaves-allocator to replace it")]
    CpuTwice {
        /// The file.
        path: PathBuf,
        /// The CPU.
        cpu: u32,
    },
    /// The allocator is at work.
    #[error(
        "the pool is being changed: nitro-enclaves-allocator holds {path}; try again when it has finished"
    )]
    BeingChanged {
        /// The lock.
        path: PathBuf,
    },
    /// The daemon is starting an enclave, or another allocator is at work.
    #[error(
        "the pool is in use: {path} is held by enclaved, which is starting an enclave, or by another \
         nitro-enclaves-allocator; try again"
    )]
    InUse {
        /// The lock.
        path: PathBuf,
    },
}

impl Pool {
    /// A pool of these parts.
    pub fn new(entries: Vec<PoolEntry>) -> Self {
        Self {
            version: VERSION,
            entries,
        }
    }

    /// The pool of `run_directory`; `None` if the allocator has made none.
    ///
    /// # Errors
    /// [`PoolError`], all but those of locks.
    pub fn read(run_directory: &Path) -> Result<Option<Self>, PoolError> {
        let path = run_directory.join(POOL_FILE);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed("open", &path)(error)),
        };
        let mut bytes = Vec::new();
        file.take(MAX_BYTES + 1)
            .read_to_end(&mut bytes)
            .map_err(failed("read", &path))?;
        if u64::try_from(bytes.len()).is_ok_and(|length| length <= MAX_BYTES) {
            Self::parse(&bytes, &path).map(Some)
        } else {
            Err(PoolError::TooLarge { path })
        }
    }

    fn parse(bytes: &[u8], path: &Path) -> Result<Self, PoolError> {
        // Another version may have other fields, so it is looked at alone and first.
        #[derive(Deserialize)]
        struct Versioned {
            version: u64,
        }
        let malformed = |source| PoolError::Malformed {
            path: path.to_owned(),
            source,
        };
        let Versioned { version: found } = serde_json::from_slice(bytes).map_err(malformed)?;
        if found != u64::from(VERSION) {
            let path = path.to_owned();
            return Err(PoolError::Version { path, found });
        }
        let pool: Self = serde_json::from_slice(bytes).map_err(malformed)?;
        let mut seen = BTreeSet::new();
        let mut cpus = pool.entries.iter().flat_map(|entry| &entry.cpus);
        match cpus.find(|cpu| !seen.insert(**cpu)) {
            Some(&cpu) => Err(PoolError::CpuTwice {
                path: path.to_owned(),
                cpu,
            }),
            None => Ok(pool),
        }
    }

    /// Makes this the pool of `run_directory`, which must exist. All may read it.
    ///
    /// # Errors
    /// [`PoolError::Io`]; the pool that was there stays.
    pub fn write(&self, run_directory: &Path) -> Result<(), PoolError> {
        let path = run_directory.join(POOL_FILE);
        let new = run_directory.join(format!("{POOL_FILE}.new"));
        let written = self.write_to(&new).and_then(|()| fs::rename(&new, &path));
        if let Err(error) = written {
            // Best effort: the next write replaces it.
            let _ = fs::remove_file(&new);
            return Err(failed("write", &path)(error));
        }
        // The name itself; without this a crash of the machine could bring the old one back.
        let directory = File::open(run_directory).and_then(|directory| directory.sync_all());
        directory.map_err(failed("write", run_directory))
    }

    fn write_to(&self, path: &Path) -> io::Result<()> {
        let mut file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)?;
        let mut text = serde_json::to_vec(self)?;
        text.push(b'\n');
        file.write_all(&text)?;
        // Whatever this process's umask is.
        file.set_permissions(fs::Permissions::from_mode(0o644))?;
        file.sync_all()
    }

    /// Takes the pool of `run_directory` away, if there is one.
    ///
    /// # Errors
    /// [`PoolError::Io`].
    pub fn remove(run_directory: &Path) -> Result<(), PoolError> {
        let path = run_directory.join(POOL_FILE);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", &path)(error)),
            _ => Ok(()),
        }
    }

    /// The pages of one size on one node.
    pub(crate) fn pages(&self, node: u32, size: PageSize) -> u64 {
        let entries = self.entries.iter().filter(|entry| entry.node == node);
        entries.fold(0, |sum, entry| sum.saturating_add(entry.pages(size)))
    }

    /// The nodes that it has a part of.
    pub(crate) fn nodes(&self) -> BTreeSet<u32> {
        self.entries.iter().map(|entry| entry.node).collect()
    }
}

impl PoolEntry {
    /// Its memory in MiB.
    pub fn mib(&self) -> u64 {
        let mib = |size: PageSize| self.pages(size).saturating_mul(size.bytes() >> 20);
        PageSize::ALL
            .iter()
            .fold(0, |sum, size| sum.saturating_add(mib(*size)))
    }

    pub(crate) fn pages(&self, size: PageSize) -> u64 {
        match size {
            PageSize::Gigabyte => self.pages_1g,
            PageSize::TwoMegabytes => self.pages_2m,
        }
    }
}

impl fmt::Display for PoolEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cpus: Vec<String> = self.cpus.iter().map(u32::to_string).collect();
        let pages = PageSize::ALL.iter().filter_map(|size| match self.pages(*size) {
            0 => None,
            1 => Some(format!("1 page of {}", size.name())),
            count => Some(format!("{count} pages of {}", size.name())),
        });
        write!(
            f,
            "CPUs {} and {} MiB ({}) on NUMA node {}",
            cpus.join(","),
            self.mib(),
            pages.collect::<Vec<_>>().join(", "),
            self.node
        )
    }
}

/// The pool's lock, held until this is dropped or the process ends.
#[derive(Debug)]
pub struct PoolLock {
    _file: File,
}

impl PoolLock {
    /// For who changes the pool. Waits a few seconds for a daemon that is just starting an enclave.
    ///
    /// # Errors
    /// [`PoolError::InUse`], or [`PoolError::Io`] if `run_directory` does not exist or may not be written.
    pub fn exclusive(run_directory: &Path) -> Result<Self, PoolError> {
        Self::exclusive_within(PATIENCE, run_directory)
    }

    fn exclusive_within(patience: Duration, run_directory: &Path) -> Result<Self, PoolError> {
        let path = run_directory.join(LOCK_FILE);
        let file = open_lock(&path)?;
        let deadline = Instant::now() + patience;
        while !lock(&file, FlockOperation::NonBlockingLockExclusive, &path)? {
            if Instant::now() >= deadline {
                return Err(PoolError::InUse { path });
            }
            thread::sleep(INTERVAL);
        }
        Ok(Self { _file: file })
    }

    /// For who uses the pool. Does not wait: a thread that serves clients may call it.
    ///
    /// # Errors
    /// [`PoolError::BeingChanged`], or [`PoolError::Io`] if `run_directory` does not exist or may not be written.
    pub fn shared(run_directory: &Path) -> Result<Self, PoolError> {
        let path = run_directory.join(LOCK_FILE);
        let file = open_lock(&path)?;
        if lock(&file, FlockOperation::NonBlockingLockShared, &path)? {
            Ok(Self { _file: file })
        } else {
            Err(PoolError::BeingChanged { path })
        }
    }
}

/// The lock's file, which only its owner can open: whoever can open it can lock it.
fn open_lock(path: &Path) -> Result<File, PoolError> {
    File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(failed("open", path))
}

/// Whether the lock is ours now.
fn lock(file: &File, operation: FlockOperation, path: &Path) -> Result<bool, PoolError> {
    match rustix::fs::flock(file, operation) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(failed("lock", path)(error.into())),
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PoolError {
    let path = path.to_owned();
    move |source| PoolError::Io { action, path, source }
}

#[cfg(test)]
mod tests;
