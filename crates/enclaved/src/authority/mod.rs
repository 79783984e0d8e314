//! The platform's authority: who signs attestation documents, and the certificates that say so.
//!
//! # Two kinds
//!
//! **Our own.** On first start a root is made, and below it a regional, a zonal and a host authority, each with a key of its
//! own (see [`attestation::chain`]). They are renewed from the root down as each is due; the root's key is read from disk for
//! that and otherwise not in memory. Verifiers pin the root, which stays.
//!
//! **An operator's.** The operator has issued a certificate for this host and hands over its key and the chain up to their
//! root. Nothing here can renew it: when it is due the files are read again, and the log says so until there are others.
//!
//! # Enclaves
//!
//! Each enclave has a key and a certificate of its own (`EnclaveIssuer`), which exist in memory only and are made when they
//! are needed, or due. A daemon that takes over an enclave makes new ones.
//!
//! # Clocks
//!
//! Nothing is renewed by a timer: whoever needs a certificate looks whether it is good at this moment. So a clock that is set,
//! forward or back, makes the next document come with certificates that fit it. Only a root cannot be made anew; all of ours are
//! valid from the same day on, whatever the clock said when they were made.

mod store;

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use attestation::chain::{
    CaBundle, ImportError, InstanceId, IssueError, Issuer, Level, ModuleId, NameError, Region, renew_at,
};
use attestation::{
    AttestationContent, Certificate, CertificateError, KeyError, MapForm, Signer, SoftwareKey, Timestamp,
    WriteError,
};

use self::store::{Store, StoreError};
use crate::error_chain::chain_of;
use crate::ids::EnclaveId;

/// How long a failure is remembered before files are tried again: enclaves can ask many times in a second.
const RETRY: Duration = Duration::from_secs(10);

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
    /// It was tried a moment ago, and this was the reason.
    #[error("there is no certificate for attestation: {0}")]
    Unavailable(String),
    /// A document cannot be made.
    #[error("a document cannot be written")]
    Document(#[from] WriteError),
}

/// Signs for the enclaves of this host.
#[derive(Debug)]
pub struct Authority {
    region: Region,
    origin: Origin,
    current: Mutex<Current>,
}

/// Where the host comes from when it is needed anew.
#[derive(Debug)]
enum Origin {
    Own(Store),
    Imported { key: PathBuf, chain: PathBuf },
}

#[derive(Debug, Default)]
struct Current {
    host: Option<Arc<Host>>,
    /// When no host could be had the last time, and why.
    failure: Option<(Instant, String)>,
}

/// The host's key, and the certificates above its enclaves.
#[derive(Debug)]
struct Host {
    key: SoftwareKey,
    bundle: CaBundle,
}

impl Authority {
    /// The authority of the host that is called `instance` in this region. Files that cannot be used are no error here: the log
    /// says so, enclaves run and get no documents, and it is tried again when one is asked for.
    ///
    /// # Errors
    /// [`AuthorityError::Name`].
    pub fn open(source: &Source, instance: &str, region: &str) -> Result<Self, AuthorityError> {
        let region: Region = region.parse()?;
        let instance: InstanceId = instance.parse()?;
        let origin = match source.clone() {
            Source::Own(directory) => Origin::Own(Store::new(directory, instance, region.clone())),
            Source::Imported { key, chain } => Origin::Imported { key, chain },
        };
        let authority = Self {
            region,
            origin,
            current: Mutex::default(),
        };
        if let Err(error) = authority.host(now()) {
            let error = chain_of(&error);
            tracing::error!(
                error,
                "enclaves get no attestation documents until this is mended"
            );
        }
        Ok(authority)
    }

    /// The root that verifiers pin, PEM.
    ///
    /// # Errors
    /// [`AuthorityError`] if there is none that can be used.
    pub fn root_pem(&self) -> Result<String, AuthorityError> {
        Ok(self.host(now())?.bundle.root().to_pem()?)
    }

    /// The host as it is good at `now`, or else the one that there was, which may do for a while longer.
    fn host(&self, now: Timestamp) -> Result<Arc<Host>, AuthorityError> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let good = |host: &Arc<Host>| is_good(Level::Host, host.bundle.host(), now);
        if let Some(host) = current.host.as_ref().filter(|host| good(host)) {
            return Ok(Arc::clone(host));
        }
        let recent = current.failure.as_ref().filter(|(at, _)| at.elapsed() < RETRY);
        let made = match recent {
            Some((_, why)) => Err(AuthorityError::Unavailable(why.clone())),
            None => self.new_host(now),
        };
        match made {
            Ok(host) => {
                tracing::info!(until = %host.bundle.host().not_after(), "the host has a certificate for attestation");
                *current = Current {
                    host: Some(Arc::new(host)),
                    failure: None,
                };
            }
            // Said once each time it was tried; an enclave can ask many times in a second.
            Err(error) if recent.is_none() => {
                let why = chain_of(&error);
                tracing::warn!(
                    error = why,
                    "the host's certificate for attestation is missing or due"
                );
                current.failure = Some((Instant::now(), why));
                return current.host.clone().ok_or(error);
            }
            Err(error) => return current.host.clone().ok_or(error),
        }
        current
            .host
            .clone()
            .ok_or_else(|| AuthorityError::Unavailable("there is none".to_owned()))
    }

    fn new_host(&self, now: Timestamp) -> Result<Host, AuthorityError> {
        match &self.origin {
            Origin::Own(store) => store.host(now),
            Origin::Imported { key, chain } => imported(key, chain, now),
        }
    }
}

/// Whether a certificate is valid and not yet due.
fn is_good(level: Level, certificate: &Certificate, now: Timestamp) -> bool {
    (certificate.not_before()..renew_at(level, certificate)).contains(&now)
}

fn is_valid(certificate: &Certificate, now: Timestamp) -> bool {
    (certificate.not_before()..=certificate.not_after()).contains(&now)
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
        let at = content.timestamp;
        let due = |leaf: &Leaf| !is_good(Level::Enclave, &leaf.certificate, at);
        if self.leaf.as_ref().is_none_or(due) {
            match self.new_leaf(at) {
                Ok(leaf) => self.leaf = Some(leaf),
                // One that is due is still valid for a while.
                Err(error)
                    if !self
                        .leaf
                        .as_ref()
                        .is_some_and(|leaf| is_valid(&leaf.certificate, at)) =>
                {
                    return Err(error);
                }
                Err(_) => {}
            }
        }
        let Some(leaf) = &self.leaf else {
            return Err(AuthorityError::Unavailable("there is none".to_owned()));
        };
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

#[cfg(test)]
mod tests;
