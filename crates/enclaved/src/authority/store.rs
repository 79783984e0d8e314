//! The authority's own files: one for each level, with its private key and its certificate, PEM.
//!
//! ```text
//!   <state directory>/attestation/root.pem  regional.pem  zonal.pem  host.pem       0600, in a directory 0700
//!                                 lock                                                one daemon at a time
//! ```
//!
//! Key and certificate of a level lie in one file, which is written beside and renamed, so that they always belong together.
//! A root that is there but cannot be read is an error, never replaced: every verifier has pinned it. What is below can be made
//! anew at any time.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use attestation::chain::{CaBundle, InstanceId, Issuer, Level, Region, certificates_from_bytes, issue_root};
use attestation::{Certificate, KeyError, PublicKey, Signer, SoftwareKey, Timestamp};
use getrandom::SysRng;
use getrandom::rand_core::UnwrapErr;
use rustix::fs::FlockOperation;

use super::{AuthorityError, Host, is_good};
use crate::error_chain::chain_of;

/// 2026-01-01, the first day of every root, so that a clock that is set later does not put it into the future. A machine whose
/// clock says less has not been told the time.
const FIRST_ROOTS: Timestamp = Timestamp::from_secs(1_767_225_600);

/// A key and a certificate take a tenth of it, in bytes.
const MAX_FILE: u64 = 64 << 10;

const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----";

/// What is wrong with the files.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// One cannot be read or written.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The root is there and is none.
    #[error(
        "the root of attestation in {path} is damaged ({reason}); restore it from a backup. If it is lost, move the file away: \
         a new root is then made, which all verifiers must be given"
    )]
    Root {
        /// Where.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A root would be valid from a time long ago.
    #[error(
        "the machine's clock says {0}, so a root of attestation cannot be made; set the clock and start the daemon again"
    )]
    Clock(Timestamp),
    /// A key cannot be written as PEM.
    #[error("a key cannot be encoded")]
    Key(#[from] KeyError),
}

/// The directory with the files.
#[derive(Debug)]
pub(super) struct Store {
    directory: PathBuf,
    instance: InstanceId,
    region: Region,
}

/// A level's key and certificate.
struct Pair {
    key: SoftwareKey,
    certificate: Certificate,
}

/// A new key, from the kernel's random numbers.
pub(super) fn new_key() -> SoftwareKey {
    SoftwareKey::generate(&mut random())
}

/// The kernel's random numbers, which do not fail on any kernel that runs this program.
fn random() -> UnwrapErr<SysRng> {
    UnwrapErr(SysRng)
}

impl Store {
    pub(super) fn new(directory: PathBuf, instance: InstanceId, region: Region) -> Self {
        Self {
            directory,
            instance,
            region,
        }
    }

    /// The host with a chain that is good at `now`. What is missing or due is made.
    pub(super) fn host(&self, now: Timestamp) -> Result<Host, AuthorityError> {
        let _lock = self.lock()?;
        let root = self.root(now)?;
        self.below(&root, now, false).or_else(|error| {
            // For instance files of two generations, after a crash between two of them.
            tracing::warn!(
                error = chain_of(&error),
                "the certificates below the root are made anew"
            );
            self.below(&root, now, true)
        })
    }

    /// All levels below the root; each is kept if it is good and nothing above it is new.
    fn below(&self, root: &Pair, now: Timestamp, mut anew: bool) -> Result<Host, AuthorityError> {
        let mut certificates = vec![root.certificate.clone()];
        let mut issuer: Option<Pair> = None;
        for level in [Level::Regional, Level::Zonal, Level::Host] {
            let kept = if anew {
                None
            } else {
                self.read(level).ok().flatten()
            };
            let pair = if let Some(pair) = kept.filter(|pair| {
                self.is_ours(level, &pair.certificate) && is_good(level, &pair.certificate, now)
            }) {
                pair
            } else {
                anew = true;
                let made = self.issue(level, issuer.as_ref().unwrap_or(root), now)?;
                self.write(level, &made)?;
                made
            };
            certificates.push(pair.certificate.clone());
            issuer = Some(pair);
        }
        let bundle = CaBundle::new(certificates, now)?;
        let key = issuer.map_or_else(new_key, |pair| pair.key);
        Ok(Host { key, bundle })
    }

    /// Whether a certificate names this region, and the host this instance: a machine may be a copy of another, or renamed.
    fn is_ours(&self, level: Level, certificate: &Certificate) -> bool {
        let place = match level {
            Level::Host => format!("{}.{}.", self.instance, self.region),
            _ => format!(".{}.", self.region),
        };
        certificate.subject().contains(&place)
    }

    fn issue(&self, level: Level, issuer: &Pair, now: Timestamp) -> Result<Pair, AuthorityError> {
        let key = new_key();
        let certificate = self.certificate(level, issuer, &key.public_key(), now)?;
        Ok(Pair { key, certificate })
    }

    fn certificate(
        &self,
        level: Level,
        issuer: &Pair,
        key: &PublicKey,
        now: Timestamp,
    ) -> Result<Certificate, AuthorityError> {
        let issuer = Issuer::new(&issuer.certificate, &issuer.key)?;
        let mut random = random();
        Ok(match level {
            Level::Regional => issuer.issue_regional(&self.region, key, now, &mut random),
            Level::Zonal => issuer.issue_zonal(&self.region, key, now, &mut random),
            _ => issuer.issue_host(&self.instance, &self.region, key, now, &mut random),
        }?)
    }

    /// The root; made if there is none.
    fn root(&self, now: Timestamp) -> Result<Pair, AuthorityError> {
        match self.read(Level::Root) {
            Ok(Some(root)) => Ok(root),
            Ok(None) if now < FIRST_ROOTS => Err(StoreError::Clock(now).into()),
            Ok(None) => {
                let key = new_key();
                let certificate = issue_root(&key, FIRST_ROOTS, &mut random())?;
                let root = Pair { key, certificate };
                self.write(Level::Root, &root)?;
                tracing::info!(path = %self.path(Level::Root).display(), "made a root of attestation");
                Ok(root)
            }
            Err(reason) => Err(StoreError::Root {
                path: self.path(Level::Root),
                reason,
            }
            .into()),
        }
    }

    /// The lock, which is free again when it is dropped.
    fn lock(&self) -> Result<File, StoreError> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.directory)
            .map_err(failed("create", &self.directory))?;
        let path = self.directory.join("lock");
        let lock = private().open(&path).map_err(failed("open", &path))?;
        rustix::fs::flock(&lock, FlockOperation::LockExclusive)
            .map_err(io::Error::from)
            .map_err(failed("lock", &path))?;
        Ok(lock)
    }

    /// `None` if there is none; an error in words if it is none.
    fn read(&self, level: Level) -> Result<Option<Pair>, String> {
        let path = self.path(level);
        let length = match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            metadata => metadata.map_err(|error| error.to_string())?.len(),
        };
        if length > MAX_FILE {
            return Err(format!("it has {length} bytes"));
        }
        let text = fs::read_to_string(&path).map_err(|error| error.to_string())?;
        let (key, certificate) = text
            .find(CERTIFICATE)
            .and_then(|at| text.split_at_checked(at))
            .ok_or("no certificate follows the key")?;
        let key = SoftwareKey::from_pkcs8(key.as_bytes()).map_err(|error| error.to_string())?;
        let certificates =
            certificates_from_bytes(certificate.as_bytes()).map_err(|error| chain_of(&error))?;
        let [certificate] = <[Certificate; 1]>::try_from(certificates)
            .map_err(|all| format!("it has {} certificates", all.len()))?;
        if *certificate.public_key() != key.public_key() {
            return Err("the certificate is not the key's".to_owned());
        }
        Ok(Some(Pair { key, certificate }))
    }

    fn write(&self, level: Level, pair: &Pair) -> Result<(), AuthorityError> {
        let path = self.path(level);
        let unfinished = path.with_extension("new");
        let key = pair.key.to_pkcs8_pem().map_err(StoreError::from)?;
        let certificate = pair.certificate.to_pem()?;
        let write = || {
            let mut file = private().truncate(true).open(&unfinished)?;
            file.write_all(key.as_bytes())?;
            file.write_all(certificate.as_bytes())?;
            file.sync_all()?;
            fs::rename(&unfinished, &path)?;
            File::open(&self.directory)?.sync_all()
        };
        Ok(write().map_err(failed("write", &path))?)
    }

    fn path(&self, level: Level) -> PathBuf {
        self.directory.join(match level {
            Level::Root => "root.pem",
            Level::Regional => "regional.pem",
            Level::Zonal => "zonal.pem",
            Level::Host | Level::Enclave => "host.pem",
        })
    }
}

/// Files that nobody else may read, from their first moment on.
fn private() -> fs::OpenOptions {
    let mut options = File::options();
    options.write(true).create(true).mode(0o600);
    options
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Io { action, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_root_is_made_while_the_clock_is_not_set() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::new(
            directory.path().to_owned(),
            "i-1".parse().unwrap(),
            "local".parse().unwrap(),
        );

        let error = store.host(Timestamp::from_secs(86_400)).unwrap_err();

        assert!(error.to_string().contains("1970-01-02T00:00:00Z"), "{error}");
        assert!(!directory.path().join("root.pem").exists());
        assert!(store.host(FIRST_ROOTS).is_ok());
    }
}
