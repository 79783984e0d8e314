//! What one image's registry gives: manifests and blobs, from the cache, a mirror, or the registry itself.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use ureq::Body;
use ureq::http::Response;

use crate::cache::{BlobCache, StoreError};
use crate::certificates::CertificateFiles;
use crate::client::{Client, Endpoint, Security, is_loopback};
use crate::credentials::CredentialFiles;
use crate::digest::Digest;
use crate::error::FetchError;
use crate::reference::Reference;

/// Largest manifest or configuration; the OCI distribution specification asks registries for as much.
pub const DOCUMENT_LIMIT: u64 = 4 << 20;

/// What manifests may be, in the order of no preference: registries choose.
const MANIFEST_TYPES: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";
/// What blobs may be.
const ANY_TYPE: &str = "*/*";
/// Where Docker's own registry is.
const DOCKER: (&str, &str) = ("docker.io", "registry-1.docker.io");

/// What all registries have in common.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where blobs are kept.
    pub cache: PathBuf,
    /// Asked first, from the first to the last.
    pub mirrors: Vec<Mirror>,
    certificates: CertificateFiles,
    credentials: CredentialFiles,
}

impl Settings {
    /// Credentials and certificates from where Docker and Podman have them, as environment variables say; no mirrors.
    pub fn of_environment(cache: PathBuf, variable: &dyn Fn(&str) -> Option<OsString>) -> Self {
        Self {
            cache,
            mirrors: Vec::new(),
            certificates: CertificateFiles::of_environment(variable),
            credentials: CredentialFiles::of_environment(variable),
        }
    }

    /// Adds a file with certificates in PEM that are believed for any registry.
    pub fn trust(&mut self, file: PathBuf) {
        self.certificates.roots.push(file);
    }
}

/// A registry that has images of others (OCI distribution specification, "registry proxying"): `https://HOST[:PORT][/PATH]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    host: String,
    prefix: String,
    security: Security,
}

/// Why a text is no mirror.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a mirror is `https://HOST`, with a port or a path if it has one; `http://` only on this machine")]
pub struct MirrorError;

impl FromStr for Mirror {
    type Err = MirrorError;

    fn from_str(text: &str) -> Result<Self, MirrorError> {
        let (is_secure, rest) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
            (Some(rest), _) => (true, rest),
            (_, Some(rest)) => (false, rest),
            _ => return Err(MirrorError),
        };
        let (host, prefix) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let prefix = prefix.trim_end_matches('/');
        // A host and a path as those of images are, which have nothing that would have to be escaped.
        let is_image = format!("{host}/x{}", prefix.to_ascii_lowercase()).parse::<Reference>();
        let is_host =
            is_image.is_ok_and(|reference| reference.host() == host && reference.tag() == Some("latest"));
        if !is_host || !is_secure && !is_loopback(host) {
            return Err(MirrorError);
        }
        Ok(Self {
            host: host.to_owned(),
            prefix: prefix.to_owned(),
            security: if is_secure { Security::Tls } else { Security::None },
        })
    }
}

/// Registries, with what they have in common.
#[derive(Clone, Debug)]
pub struct Registry {
    settings: Arc<Settings>,
}

impl Registry {
    /// Registries to be reached with these settings. Nothing is read or sent yet.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings: Arc::new(settings),
        }
    }

    /// The repository that an image is in.
    ///
    /// # Errors
    /// [`FetchError::Credentials`], [`FetchError::Certificate`].
    pub fn repository(&self, reference: &Reference) -> Result<Repository, FetchError> {
        let settings = &*self.settings;
        let client = |endpoint| {
            Client::new(
                endpoint,
                reference.repository(),
                &settings.certificates,
                &settings.credentials,
            )
        };
        let host = reference.host();
        let mirrors = settings.mirrors.iter().map(|mirror| Endpoint {
            host: mirror.host.clone(),
            authority: mirror.host.clone(),
            prefix: mirror.prefix.clone(),
            security: mirror.security,
            namespace: Some(host.to_owned()),
        });
        let origin = Endpoint {
            host: host.to_owned(),
            authority: if host == DOCKER.0 { DOCKER.1 } else { host }.to_owned(),
            prefix: String::new(),
            security: if is_loopback(host) {
                Security::Opportunistic
            } else {
                Security::Tls
            },
            namespace: None,
        };
        Ok(Repository {
            reference: reference.clone(),
            mirrors: mirrors.map(client).collect::<Result<_, _>>()?,
            origin: client(origin)?,
            cache: BlobCache::new(settings.cache.clone()),
        })
    }
}

/// A manifest or an index of manifests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The digest of the bytes.
    pub digest: Digest,
    /// The JSON document.
    pub bytes: Vec<u8>,
}

/// The repository of one image.
#[derive(Debug)]
pub struct Repository {
    reference: Reference,
    mirrors: Vec<Client>,
    origin: Client,
    cache: BlobCache,
}

impl Repository {
    /// The image that this is the repository of.
    pub fn reference(&self) -> &Reference {
        &self.reference
    }

    /// The manifest that the reference names. With a digest, and once it has been fetched, no server is asked.
    ///
    /// # Errors
    /// [`FetchError`].
    pub fn resolve(&self) -> Result<Manifest, FetchError> {
        if let Some(digest) = self.reference.digest() {
            return self.manifest(digest);
        }
        let what = format!("image `{}`", self.reference);
        let path = format!("manifests/{}", self.reference.selector());
        self.anywhere(|client| {
            client.get(&path, &what, MANIFEST_TYPES, &mut |response| {
                // Of the bytes as they are: a tag promises nothing, and what a server says about its digest adds nothing.
                let bytes = document(client, response, &what)?;
                let digest = Digest::sha256(&bytes);
                self.keep(&digest, &bytes)?;
                Ok(Manifest { digest, bytes })
            })
        })
    }

    /// A manifest by its digest.
    ///
    /// # Errors
    /// [`FetchError`].
    pub fn manifest(&self, digest: &Digest) -> Result<Manifest, FetchError> {
        if let Some(file) = self.cache.open(digest)? {
            let bytes = read(digest, file)?;
            return Ok(Manifest {
                digest: digest.clone(),
                bytes,
            });
        }
        let what = format!("manifest `{digest}` of `{}`", self.reference.name());
        let path = format!("manifests/{digest}");
        self.anywhere(|client| {
            client.get(&path, &what, MANIFEST_TYPES, &mut |response| {
                let bytes = document(client, response, &what)?;
                digest
                    .check(&bytes)
                    .map_err(|source| wrong_digest(client, &what, source))?;
                self.keep(digest, &bytes)?;
                Ok(Manifest {
                    digest: digest.clone(),
                    bytes,
                })
            })
        })
    }

    /// A blob that is a document.
    ///
    /// # Errors
    /// [`FetchError`].
    pub fn document(&self, digest: &Digest) -> Result<Vec<u8>, FetchError> {
        let file = self.fetch(digest, (DOCUMENT_LIMIT, false), &mut |_| {})?;
        read(digest, file)
    }

    /// A blob of `size` bytes. `progress` gets the bytes that have come so far.
    ///
    /// # Errors
    /// [`FetchError`].
    pub fn blob(
        &self,
        digest: &Digest,
        size: u64,
        progress: &mut dyn FnMut(u64),
    ) -> Result<File, FetchError> {
        let file = self.fetch(digest, (size, true), progress)?;
        progress(size);
        Ok(file)
    }

    fn fetch(
        &self,
        digest: &Digest,
        limit: (u64, bool),
        progress: &mut dyn FnMut(u64),
    ) -> Result<File, FetchError> {
        if let Some(file) = self.cache.open(digest)? {
            return Ok(file);
        }
        let what = format!("blob `{digest}` of `{}`", self.reference.name());
        let path = format!("blobs/{digest}");
        self.anywhere(|client| {
            client.get(&path, &what, ANY_TYPE, &mut |response| {
                let stored = self
                    .cache
                    .store(digest, limit, response.into_body().into_reader(), progress);
                stored.map_err(|error| match error {
                    StoreError::Cache(error) => error,
                    StoreError::Source(error) => cut_off(client, &error),
                    StoreError::Size { is_larger } => FetchError::Size {
                        host: client.host().to_owned(),
                        what: what.clone(),
                        limit: limit.0,
                        is_larger,
                    },
                    StoreError::Digest(source) => wrong_digest(client, &what, source),
                })
            })
        })
    }

    /// Asks one mirror after the other, and then the registry.
    fn anywhere<T>(&self, mut ask: impl FnMut(&Client) -> Result<T, FetchError>) -> Result<T, FetchError> {
        let mut refusals = Vec::new();
        for mirror in &self.mirrors {
            match ask(mirror) {
                Ok(answer) => return Ok(answer),
                // Without a cache nothing works, wherever it comes from.
                Err(error @ FetchError::Cache { .. }) => return Err(error),
                Err(error) => refusals.push(error.to_string()),
            }
        }
        ask(&self.origin).map_err(|error| match error {
            error if refusals.is_empty() => error,
            error => FetchError::Everywhere {
                error: Box::new(error),
                mirrors: refusals,
            },
        })
    }

    fn keep(&self, digest: &Digest, bytes: &[u8]) -> Result<(), FetchError> {
        match self
            .cache
            .store(digest, (DOCUMENT_LIMIT, false), bytes, &mut |_| {})
        {
            Err(StoreError::Cache(error)) => Err(error),
            // What it is has just been checked.
            _ => Ok(()),
        }
    }
}

/// A document of the cache.
fn read(digest: &Digest, mut file: File) -> Result<Vec<u8>, FetchError> {
    let mut bytes = Vec::new();
    let read = file
        .rewind()
        .and_then(|()| file.take(DOCUMENT_LIMIT).read_to_end(&mut bytes));
    read.map_err(|source| FetchError::Cache {
        path: PathBuf::from(digest.blob_path()),
        source,
    })?;
    Ok(bytes)
}

fn document(client: &Client, response: Response<Body>, what: &str) -> Result<Vec<u8>, FetchError> {
    let mut bytes = Vec::new();
    response
        .into_body()
        .into_reader()
        .take(DOCUMENT_LIMIT + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| cut_off(client, &error))?;
    if bytes.len() as u64 > DOCUMENT_LIMIT {
        return Err(FetchError::Size {
            host: client.host().to_owned(),
            what: what.to_owned(),
            limit: DOCUMENT_LIMIT,
            is_larger: true,
        });
    }
    Ok(bytes)
}

fn cut_off(client: &Client, error: &io::Error) -> FetchError {
    FetchError::Unreachable {
        host: client.host().to_owned(),
        reason: format!("the connection broke off: {error}"),
        is_transient: true,
    }
}

fn wrong_digest(client: &Client, what: &str, source: crate::DigestMismatch) -> FetchError {
    FetchError::Digest {
        host: client.host().to_owned(),
        what: what.to_owned(),
        source,
    }
}

#[cfg(test)]
#[path = "repository_tests.rs"]
mod tests;
