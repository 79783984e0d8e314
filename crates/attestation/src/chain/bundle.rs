//! The authorities of a host, root first: our own, or an operator's.

use std::time::Duration;

use super::{HOUR, Level};
use crate::certificate::PEM_LABEL;
use crate::path::{PathFault, Position, check_authorities};
use crate::{Certificate, CertificateError, MAX_CABUNDLE, PublicKey, Timestamp};

const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END CERTIFICATE-----";

/// How much of each certificate must be left: an enclave's certificate must fit, with time to renew.
const MIN_LEFT: Duration = Duration::from_secs(Level::Enclave.lifetime().as_secs() + HOUR.as_secs());

/// The `cabundle` of a host's documents: a valid path of 1 to [`MAX_CABUNDLE`] authorities, self-signed root first, the host
/// last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaBundle {
    certificates: Vec<Certificate>,
    host: Certificate,
}

impl CaBundle {
    /// From certificates, root first, the host last, as they are at the time `at`.
    pub fn new(certificates: Vec<Certificate>, at: Timestamp) -> Result<Self, ImportError> {
        let Some(host) = certificates.last().cloned() else {
            return Err(ImportError::Count(0));
        };
        if certificates.len() > MAX_CABUNDLE {
            return Err(ImportError::Count(certificates.len()));
        }
        check_authorities(&certificates, at).map_err(|error| {
            let index = match error.position {
                Position::Bundle(index) => index,
                Position::Root | Position::Leaf => 0,
            };
            ImportError::Path {
                subject: certificates
                    .get(index)
                    .map(Certificate::subject)
                    .unwrap_or_default(),
                fault: error.fault,
            }
        })?;
        for certificate in &certificates {
            let end = certificate.not_after();
            if end < at.after(MIN_LEFT) {
                let subject = certificate.subject();
                return Err(ImportError::Lifetime { subject, end, at });
            }
        }
        Ok(Self { certificates, host })
    }

    /// From an operator's chain, PEM or DER one after the other, root first or root last, and the host's public key.
    pub fn import(chain: &[u8], host_key: &PublicKey, at: Timestamp) -> Result<Self, ImportError> {
        let mut certificates = certificates_from_bytes(chain)?;
        if !certificates.first().is_some_and(Certificate::is_self_issued) {
            certificates.reverse();
        }
        match certificates.first() {
            Some(root) if !root.is_self_issued() => return Err(ImportError::NoRoot(root.issuer())),
            _ => {}
        }
        let bundle = Self::new(certificates, at)?;
        if bundle.host.public_key() != host_key {
            return Err(ImportError::Key(bundle.host.subject()));
        }
        Ok(bundle)
    }

    /// All of them, root first.
    pub fn certificates(&self) -> &[Certificate] {
        &self.certificates
    }

    /// The first: what verifiers pin.
    pub fn root(&self) -> &Certificate {
        self.certificates.first().unwrap_or(&self.host)
    }

    /// The last: what issues the enclaves' certificates.
    pub fn host(&self) -> &Certificate {
        &self.host
    }
}

/// Certificates one after the other: PEM blocks, with anything between them, or DER. At most [`MAX_CABUNDLE`].
pub fn certificates_from_bytes(bytes: &[u8]) -> Result<Vec<Certificate>, ParseError> {
    let blocks = match std::str::from_utf8(bytes) {
        Ok(text) if text.contains(BEGIN) => pem_blocks(text)?,
        _ => der_blocks(bytes)?,
    };
    blocks
        .iter()
        .enumerate()
        .map(|(index, der)| Certificate::from_der(der).map_err(|source| ParseError { index, source }))
        .collect()
}

fn pem_blocks(text: &str) -> Result<Vec<Vec<u8>>, ParseError> {
    let label = format!("{BEGIN}{PEM_LABEL}-----");
    let mut blocks = Vec::new();
    let mut rest = text;
    while let Some(begin) = rest.find(&label) {
        let index = blocks.len();
        let block = rest.get(begin..).unwrap_or_default();
        let end = block.find(END).map_or(block.len(), |end| end + END.len());
        let (block, after) = block.split_at(end);
        let (_, der) = der::pem::decode_vec(block.as_bytes()).map_err(|error| ParseError {
            index,
            source: CertificateError::Der(error.into()),
        })?;
        blocks.push(der);
        rest = after;
        if blocks.len() > MAX_CABUNDLE {
            break;
        }
    }
    Ok(blocks)
}

fn der_blocks(bytes: &[u8]) -> Result<Vec<Vec<u8>>, ParseError> {
    let mut blocks: Vec<Vec<u8>> = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() && blocks.len() <= MAX_CABUNDLE {
        let (block, after) = next_der(rest).map_err(|error| ParseError {
            index: blocks.len(),
            source: CertificateError::Der(error),
        })?;
        blocks.push(block.to_vec());
        rest = after;
    }
    Ok(blocks)
}

/// The first DER value of `bytes`, and what follows it.
fn next_der(bytes: &[u8]) -> der::Result<(&[u8], &[u8])> {
    use der::Reader;
    let mut reader = der::SliceReader::new(bytes)?;
    let block = reader.tlv_bytes()?;
    Ok((block, bytes.get(block.len()..).unwrap_or_default()))
}

/// Which certificate of several cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("certificate {} of the chain cannot be used", index + 1)]
pub struct ParseError {
    /// Its place, from 0.
    pub index: usize,
    /// What is wrong with it.
    pub source: CertificateError,
}

/// Why a chain is not taken, and what to change.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// One cannot be read.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// None, or too many.
    #[error(
        "{0} certificates in the chain; 1 to {MAX_CABUNDLE} are needed, the host's and every issuer up to the root"
    )]
    Count(usize),
    /// Neither the first nor the last is self-signed.
    #[error(
        "the chain has no root; add the certificate of {0}, and sort the chain from root to host or from host to root"
    )]
    NoRoot(String),
    /// The key is another's.
    #[error(
        "the key is not the one of {0}, the last certificate of the chain; give the key that this certificate was issued \
         for, or issue it again"
    )]
    Key(String),
    /// A certificate breaks the chain.
    #[error("{subject}: {fault}; {}", advice(fault))]
    Path {
        /// The certificate's subject.
        subject: String,
        /// What is wrong with it.
        fault: PathFault,
    },
    /// It ends soon.
    #[error(
        "{subject}: valid until {end}, and the time is {at}; issue it again with at least {} hours left",
        MIN_LEFT.as_secs() / 3600
    )]
    Lifetime {
        /// The certificate's subject.
        subject: String,
        /// Its last second.
        end: Timestamp,
        /// The time it was looked at.
        at: Timestamp,
    },
}

/// What an operator changes at their authority.
fn advice(fault: &PathFault) -> &'static str {
    match fault {
        PathFault::NotYetValid { .. } => "set the clock, or issue it with an earlier start",
        PathFault::Expired { .. } => "set the clock, or issue it again",
        PathFault::IssuerName => "sort the chain from root to host or from host to root, without gaps",
        PathFault::Signature => "issue it again with the key of the certificate above it",
        PathFault::NotCa | PathFault::LeafIsCa => "issue it with basicConstraints=critical,CA:TRUE",
        PathFault::PathLength { .. } => "issue it with a larger pathlen or none",
        PathFault::KeyUsage(_) => "issue it with keyUsage=critical,keyCertSign",
    }
}
