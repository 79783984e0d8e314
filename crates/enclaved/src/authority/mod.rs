//! The platform's authority: who signs attestation documents, and the certificates that say so.
//!
//! # Two kinds
//!
//! **Our own.** On first start a root is made, and below it a regional, a zonal and a host authority, each with a key of its
//! own (see [`attestation::chain`]). They are renewed from the root down as each is due; the root's key is read from disk for
//! that and otherwise not in memory. Verifiers pin the root, which stays.
//!
//! **An operator's.** The operator has issued a certificate for this host and hands over its key and the chain up to their
//! root. Nothing here can renew it: the daemon says when it is due.
//!
//! # Enclaves
//!
//! Each enclave has a key and a certificate of its own ([`EnclaveIssuer`]), which exist in memory only and are made when they
//! are needed, or due. A daemon that takes over an enclave makes new ones.
//!
//! # Clocks
//!
//! Nothing is renewed by a timer: whoever needs a certificate looks whether it is good at this moment. So a clock that is set,
//! forward or back, makes the next document come with certificates that fit it. Only a root cannot be made anew; it is valid
//! from a day before it was made.

mod store;

use std::error::Error;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use attestation::chain::{
    CaBundle, ImportError, IssueError, Issuer, Level, ModuleId, NameError, Region, renew_at,
};
use attestation::{
    AttestationContent, Certificate, CertificateError, KeyError, MapForm, Signer, SoftwareKey, Timestamp,
    WriteError,
};

use self::store::{Store, StoreError};
use crate::ids::EnclaveId;

/// How often the log says that an imported certificate is due.
const REMINDER: Duration = Duration::from_hours(1);

/// Where an authority comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Files in this directory, made on first start.
    Own(PathBuf),
    /// An operator's files, PEM.
    Imported {
        /// The host's private key (PKCS#8).
        key: PathBuf,
        /// The host's certificate and those above it, up to the root.
        chain: PathBuf,
    },
}

/// Why there is no authority, or no document.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The authority's own files.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An operator's file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// An operator's key.
    #[error("the key {path} cannot be used")]
    Key {
        /// Where it is.
        path: PathBuf,
        /// What is wrong.
        source: KeyError,
    },
    /// The certificates are not a chain.
    #[error("the chain of certificates cannot be used")]
    Chain(#[from] ImportError),
    /// A name does not do in a certificate.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A certificate cannot be made.
    #[error("a certificate cannot be issued")]
    Issue(#[from] IssueError),
    /// A certificate cannot be written as text.
    #[error("a certificate cannot be written as PEM")]
    Certificate(#[from] CertificateError),
    /// A document cannot be made.
    #[error("a document cannot be written")]
    Document(#[from] WriteError),
}

/// Signs for the enclaves of this host.
#[derive(Debug)]
pub struct Authority {
    region: Region,
    /// Where renewed certificates come from; `None` for an operator's chain.
    store: Option<Store>,
    host: Mutex<Arc<Host>>,
    /// When the log last said that an imported certificate is due, in seconds since 1970.
    said_at: AtomicU64,
}

/// The host's key, and the certificates above its enclaves.
#[derive(Debug)]
struct Host {
    key: SoftwareKey,
    bundle: CaBundle,
}

impl Authority {
    /// Opens, and where necessary makes, the authority of the host that is called `instance` in this region.
    ///
    /// # Errors
    /// [`AuthorityError`].
    pub fn open(source: &Source, instance: &str, region: &str) -> Result<Self, AuthorityError> {
        let region: Region = region.parse()?;
        let now = now();
        let (store, host) = match source {
            Source::Own(directory) => {
                let store = Store::new(directory.clone(), instance.parse()?, region.clone());
                let host = store.host(now)?;
                (Some(store), host)
            }
            Source::Imported { key, chain } => (None, imported(key, chain, now)?),
        };
        Ok(Self {
            region,
            store,
            host: Mutex::new(Arc::new(host)),
            said_at: AtomicU64::new(0),
        })
    }

    /// The root that verifiers pin, PEM.
    ///
    /// # Errors
    /// None that happens with a certificate that was read.
    pub fn root_pem(&self) -> Result<String, AuthorityError> {
        Ok(self.current().bundle.root().to_pem()?)
    }

    fn current(&self) -> Arc<Host> {
        Arc::clone(&self.host.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The host as it is good at `now`.
    fn host(&self, now: Timestamp) -> Result<Arc<Host>, AuthorityError> {
        let mut host = self.host.lock().unwrap_or_else(PoisonError::into_inner);
        let certificate = host.bundle.host();
        if !is_good(Level::Host, certificate, now) {
            if let Some(store) = &self.store {
                *host = Arc::new(store.host(now)?);
                tracing::info!(until = %host.bundle.host().not_after(), "the host's certificate is renewed");
            } else {
                self.say_that_it_is_due(certificate, now);
            }
        }
        Ok(Arc::clone(&host))
    }

    /// Once in a while: an enclave can ask for documents many times in a second.
    fn say_that_it_is_due(&self, certificate: &Certificate, now: Timestamp) {
        let last = self.said_at.swap(now.as_secs(), Ordering::Relaxed);
        if now.distance(Timestamp::from_secs(last)) >= REMINDER {
            tracing::warn!(
                until = %certificate.not_after(),
                "the host's imported certificate is due: replace it and restart the daemon"
            );
        } else {
            self.said_at.store(last, Ordering::Relaxed);
        }
    }
}

/// Whether a certificate is valid and not yet due.
fn is_good(level: Level, certificate: &Certificate, now: Timestamp) -> bool {
    (certificate.not_before()..renew_at(level, certificate)).contains(&now)
}

fn imported(key_file: &Path, chain_file: &Path, now: Timestamp) -> Result<Host, AuthorityError> {
    let read = |path: &Path| {
        fs::read(path).map_err(|source| AuthorityError::Read {
            path: path.to_owned(),
            source,
        })
    };
    let key = SoftwareKey::from_pkcs8(&read(key_file)?).map_err(|source| AuthorityError::Key {
        path: key_file.to_owned(),
        source,
    })?;
    let bundle = CaBundle::import(&read(chain_file)?, &key.public_key(), now)?;
    Ok(Host { key, bundle })
}

/// The time.
pub(crate) fn now() -> Timestamp {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX))
}

/// Makes the documents of one enclave.
pub(crate) struct EnclaveIssuer {
    authority: Arc<Authority>,
    module: ModuleId,
    leaf: Option<Leaf>,
}

/// An enclave's key and certificate, with those above it.
struct Leaf {
    key: SoftwareKey,
    certificate: Certificate,
    host: Arc<Host>,
}

impl EnclaveIssuer {
    pub(crate) fn new(authority: Arc<Authority>, id: &EnclaveId) -> Result<Self, AuthorityError> {
        let module = ModuleId {
            instance: id.instance().parse()?,
            slot_uid: id.slot(),
        };
        Ok(Self {
            authority,
            module,
            leaf: None,
        })
    }

    /// The name of the enclave's module in its documents.
    pub(crate) fn module_id(&self) -> String {
        self.module.to_string()
    }

    /// A document that says `content`, made now.
    pub(crate) fn document(&mut self, content: &AttestationContent) -> Result<Vec<u8>, AuthorityError> {
        let leaf = match self.leaf.take() {
            Some(leaf) if is_good(Level::Enclave, &leaf.certificate, content.timestamp) => leaf,
            _ => self.new_leaf(content.timestamp)?,
        };
        let leaf = self.leaf.insert(leaf);
        let bundle = &leaf.host.bundle;
        Ok(attestation::write(
            content,
            &leaf.certificate,
            bundle,
            &leaf.key,
            MapForm::default(),
        )?)
    }

    fn new_leaf(&self, now: Timestamp) -> Result<Leaf, AuthorityError> {
        let host = self.authority.host(now)?;
        let key = store::new_key();
        let issuer = Issuer::new(host.bundle.host(), &host.key)?;
        let certificate =
            issuer.issue_enclave(&self.module, &self.authority.region, &key.public_key(), now)?;
        Ok(Leaf {
            key,
            certificate,
            host,
        })
    }
}

impl fmt::Debug for EnclaveIssuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EnclaveIssuer")
            .field("module", &self.module)
            .finish_non_exhaustive()
    }
}

/// An error with all that caused it, as a log line.
pub(crate) fn chain_of(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests;
