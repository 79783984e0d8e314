//! Which servers are believed, and who this client is: the system's root certificates, those that the user names, and the
//! directories `certs.d` of Docker and Podman.
//!
//! ```text
//! /etc/docker/certs.d/registry.example:5000/
//!     ca.crt                     each *.crt is a root to be believed, for this registry only
//!     client.cert, client.key    a pair of the same name is the client's certificate
//! ```

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};

use crate::error::FetchError;

/// Largest file of certificates.
const LIMIT: u64 = 4 << 20;
/// Docker's and Podman's directories for all users.
const DIRECTORIES: [&str; 2] = ["/etc/docker/certs.d", "/etc/containers/certs.d"];
/// Podman's, and Docker's without root, below the user's configuration.
const USER_DIRECTORIES: [&str; 2] = ["containers/certs.d", "docker/certs.d"];

/// Where certificates are that the system does not have.
#[derive(Clone, Debug, Default)]
pub(crate) struct CertificateFiles {
    /// Files with roots for all registries.
    pub(crate) roots: Vec<PathBuf>,
    /// Directories with a directory per registry.
    pub(crate) directories: Vec<PathBuf>,
}

impl CertificateFiles {
    pub(crate) fn of_environment(variable: &dyn Fn(&str) -> Option<OsString>) -> Self {
        let home = variable("HOME").map(|home| PathBuf::from(home).join(".config"));
        let user = variable("XDG_CONFIG_HOME").map(PathBuf::from).or(home);
        let of_user = user
            .iter()
            .flat_map(|directory| USER_DIRECTORIES.map(|name| directory.join(name)));
        Self {
            roots: Vec::new(),
            directories: of_user.chain(DIRECTORIES.map(PathBuf::from)).collect(),
        }
    }

    /// How to speak TLS with a registry; `host` has its port if it is not the usual one.
    pub(crate) fn tls_config(&self, host: &str) -> Result<TlsConfig, FetchError> {
        let mut roots = system_roots();
        for path in &self.roots {
            roots.extend(certificates(path)?);
        }
        let mut client = None;
        for directory in &self.directories {
            for path in files(&directory.join(host))? {
                match path.extension().and_then(|extension| extension.to_str()) {
                    Some("crt") => roots.extend(certificates(&path)?),
                    Some("cert") => {
                        client = Some(client_certificate(&path, &path.with_extension("key"))?);
                    }
                    _ => {}
                }
            }
        }
        Ok(config(roots, client))
    }
}

/// How to speak TLS with a server of which nothing is known but its name.
pub(crate) fn usual_tls_config() -> TlsConfig {
    config(system_roots(), None)
}

/// Certificates of the system that cannot be read are as good as none: if one is missed, the handshake says so.
fn system_roots() -> Vec<Certificate<'static>> {
    let found = rustls_native_certs::load_native_certs().certs;
    let roots = found.iter().map(|root| Certificate::from_der(root).to_owned());
    roots.collect()
}

/// A client's certificate, with those above it, and its key.
fn client_certificate(path: &Path, key: &Path) -> Result<ClientCert, FetchError> {
    let private_key = private_key(key)?;
    let certificates = certificates(path)?;
    // What speaks TLS panics on a pair that is none, as there is while one is being replaced.
    let chain = certificates
        .iter()
        .map(|certificate| CertificateDer::from(certificate.der().to_vec()))
        .collect();
    let der = PrivateKeyDer::try_from(private_key.der().to_vec()).map_err(|error| unusable(key, &error))?;
    let provider = rustls::crypto::ring::default_provider();
    CertifiedKey::from_der(chain, der, &provider)
        .map_err(|error| unusable(path, &format!("with the key `{}`: {error}", key.display())))?;
    Ok(ClientCert::new_with_certs(&certificates, private_key))
}

/// TLS 1.2 and 1.3 with these roots and no others.
fn config(roots: Vec<Certificate<'static>>, client: Option<ClientCert>) -> TlsConfig {
    TlsConfig::builder()
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .root_certs(RootCerts::Specific(Arc::new(roots)))
        .client_cert(client)
        .build()
}

/// How to speak TLS with a container engine: `ca.pem`, `cert.pem` and `key.pem` in a directory, as Docker has them.
pub(crate) fn engine_tls_config(directory: &Path) -> Result<TlsConfig, FetchError> {
    let roots = certificates(&directory.join("ca.pem"))?;
    let client = client_certificate(&directory.join("cert.pem"), &directory.join("key.pem"))?;
    Ok(config(roots, Some(client)))
}

/// The files in a directory, by name; none if there is no such directory, or it is not for this user.
fn files(directory: &Path) -> Result<Vec<PathBuf>, FetchError> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::PermissionDenied
            ) =>
        {
            return Ok(Vec::new());
        }
        Err(error) => return Err(unusable(directory, &error)),
    };
    let mut paths = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<io::Result<Vec<_>>>()
        .map_err(|error| unusable(directory, &error))?;
    paths.sort();
    Ok(paths)
}

fn certificates(path: &Path) -> Result<Vec<Certificate<'static>>, FetchError> {
    let mut found = Vec::new();
    for item in parse_pem(&read(path)?) {
        if let PemItem::Certificate(certificate) = item.map_err(|error| unusable(path, &error))? {
            found.push(certificate);
        }
    }
    if found.is_empty() {
        return Err(unusable(path, &"it has no certificate in PEM"));
    }
    Ok(found)
}

fn private_key(path: &Path) -> Result<PrivateKey<'static>, FetchError> {
    PrivateKey::from_pem(&read(path)?).map_err(|error| unusable(path, &error))
}

fn read(path: &Path) -> Result<Vec<u8>, FetchError> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(LIMIT).read_to_end(&mut bytes))
        .map_err(|error| unusable(path, &error))?;
    Ok(bytes)
}

fn unusable(path: &Path, reason: &dyn std::fmt::Display) -> FetchError {
    FetchError::Certificate {
        path: path.to_owned(),
        reason: reason.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use test_signer::{Curve, TestSigner};

    use super::*;

    #[test]
    fn a_registry_has_the_certificates_of_its_own_directory() {
        let directory = tempfile::tempdir().unwrap();
        let files = CertificateFiles {
            roots: Vec::new(),
            directories: vec![directory.path().join("missing"), directory.path().to_owned()],
        };
        let own = directory.path().join("registry.example:5000");
        fs::create_dir(&own).unwrap();
        fs::write(own.join("ca.crt"), "no certificate").unwrap();
        fs::write(own.join("readme"), "no certificate").unwrap();

        files.tls_config("registry.example").unwrap();
        let error = files.tls_config("registry.example:5000").unwrap_err();
        assert!(
            error
                .to_string()
                .contains("ca.crt`: it has no certificate in PEM"),
            "{error}"
        );

        fs::remove_file(own.join("ca.crt")).unwrap();
        fs::write(own.join("client.cert"), "").unwrap();
        let error = files.tls_config("registry.example:5000").unwrap_err();
        assert!(
            error.to_string().contains("client.key`"),
            "its key is missing: {error}"
        );

        let signers = [TestSigner::new(Curve::P384), TestSigner::new(Curve::P256)];
        let pair = |certificate: &TestSigner, key: &TestSigner| {
            fs::write(own.join("client.cert"), &certificate.certificate_pem).unwrap();
            fs::write(own.join("client.key"), &key.key_pem).unwrap();
            files.tls_config("registry.example:5000")
        };
        assert!(pair(&signers[0], &signers[0]).is_ok());
        let error = pair(&signers[0], &signers[1]).unwrap_err().to_string();
        assert!(
            error.contains("client.cert`"),
            "they do not belong together: {error}"
        );
    }
}
