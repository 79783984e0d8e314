//! `verify-attestation`, which AWS does not have: whether an attestation document is genuine and says what it should.
//!
//! The answer is JSON on standard output in either case, and the exit code says which: 0 for a document that passed every
//! check, 1 for one that did not, and the number of an `[ ENN ]` error if no answer can be given. Nothing but the files that
//! are named is read; no daemon is asked.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use api::{ErrorCode, Failure};
use attestation::{
    AttestationContent, AttestationDocument, Certificate, MAX_DOCUMENT, Policy, Timestamp, TrustAnchor,
    UnverifiedDocument, VerifyError,
};
use serde::Serialize;

use crate::arguments::VerifyAttestation;
use crate::error::{CommandError, chain_of};
use crate::files::open_regular;
use crate::{hex, output, values};

/// The longest root that is read, in bytes: a certificate as PEM with some words around it.
const MAX_ROOT: u64 = 64 << 10;

pub(super) fn execute(options: &VerifyAttestation) -> Result<(), CommandError> {
    let policy = policy(options)?;
    let root = read_file("the root", &options.root, MAX_ROOT)?;
    let root = TrustAnchor::from_bytes(&root).map_err(|error| {
        let context = format!("`{}` is no root certificate", options.root.display());
        Failure::caused_by(ErrorCode::InvalidArgument, &context, &error)
    })?;
    let document = read_document(&options.document)?;
    match verify(&document, &root, options.at.as_deref(), &policy)? {
        Ok(document) => output::print_json(&Accepted::of(&document)),
        Err(error) => {
            output::print_json(&Rejected::of(&error))?;
            Err(CommandError::NotVerified(format!(
                "The document does not pass the check \"{}\": {}",
                error.check(),
                chain_of(&error)
            )))
        }
    }
}

fn policy(options: &VerifyAttestation) -> Result<Policy, Failure> {
    let pcrs: Result<BTreeMap<_, _>, _> = options.pcr.iter().map(|text| values::pcr(text)).collect();
    Ok(Policy {
        pcrs: pcrs?,
        nonce: options
            .nonce
            .as_deref()
            .map(|text| values::bytes("--nonce", text))
            .transpose()?,
        user_data: options
            .user_data
            .as_deref()
            .map(|text| values::bytes("--user-data", text))
            .transpose()?,
        allow_debug: options.allow_debug,
        max_age: options
            .max_age
            .as_deref()
            .map(values::seconds)
            .transpose()?
            .map(Duration::from_secs),
    })
}

/// The outer error is one of the command line.
fn verify(
    document: &[u8],
    root: &TrustAnchor,
    at: Option<&str>,
    policy: &Policy,
) -> Result<Result<AttestationDocument, VerifyError>, Failure> {
    let at = match at {
        None => now(),
        // Only its own word for it: for documents from an archive.
        Some("document") => match UnverifiedDocument::parse(document) {
            Ok(document) => document.claimed().timestamp,
            Err(error) => return Ok(Err(error.into())),
        },
        Some(text) => values::time("--at", text)?,
    };
    Ok(attestation::verify(document, root, at, policy))
}

fn now() -> Timestamp {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX))
}

/// From a file, or standard input if the path is `-`. One byte more than a document may have, so that a longer one shows.
fn read_document(path: &Path) -> Result<Vec<u8>, Failure> {
    let limit = u64::try_from(MAX_DOCUMENT).unwrap_or(u64::MAX) + 1;
    if path != Path::new("-") {
        return read_file("the document", path, limit);
    }
    let mut bytes = Vec::new();
    io::stdin()
        .lock()
        .take(limit)
        .read_to_end(&mut bytes)
        .map_err(|error| {
            Failure::caused_by(
                ErrorCode::FileOperation,
                "Cannot read the document from standard input",
                &error,
            )
        })?;
    Ok(bytes)
}

fn read_file(what: &str, path: &Path, limit: u64) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    open_regular(path)
        .and_then(|(file, _)| file.take(limit).read_to_end(&mut bytes))
        .map_err(|error| {
            let context = format!("Cannot read {what} `{}`", path.display());
            Failure::caused_by(ErrorCode::FileOperation, &context, &error)
        })?;
    Ok(bytes)
}

/// What is printed of a document that passed.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Accepted {
    verified: bool,
    #[serde(rename = "ModuleID")]
    module_id: String,
    /// RFC 3339.
    time: String,
    /// Milliseconds since 1970.
    timestamp: u64,
    digest: &'static str,
    #[serde(rename = "PCRs")]
    pcrs: BTreeMap<u8, String>,
    /// Bytes in hexadecimal, as are the next ones.
    public_key: Option<String>,
    user_data: Option<String>,
    nonce: Option<String>,
    /// The root first, the enclave's own last.
    certificates: Vec<Link>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Link {
    subject: String,
    not_before: String,
    not_after: String,
}

impl Accepted {
    fn of(document: &AttestationDocument) -> Self {
        let AttestationContent {
            module_id,
            timestamp,
            pcrs,
            public_key,
            user_data,
            nonce,
        } = document.content();
        let text = |bytes: &Option<Vec<u8>>| bytes.as_deref().map(hex::encode);
        let certificates = document.cabundle().iter().chain([document.leaf()]);
        Self {
            verified: true,
            module_id: module_id.clone(),
            time: timestamp.to_string(),
            timestamp: timestamp.as_millis(),
            digest: "SHA384",
            pcrs: pcrs
                .iter()
                .map(|(index, value)| (*index, hex::encode(value)))
                .collect(),
            public_key: text(public_key),
            user_data: text(user_data),
            nonce: text(nonce),
            certificates: certificates.map(Link::of).collect(),
        }
    }
}

impl Link {
    fn of(certificate: &Certificate) -> Self {
        Self {
            subject: certificate.subject(),
            not_before: certificate.not_before().to_string(),
            not_after: certificate.not_after().to_string(),
        }
    }
}

/// What is printed of a document that did not pass.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Rejected {
    verified: bool,
    /// [`VerifyError::check`].
    check: &'static str,
    /// `root`, `cabundle[1]`, `leaf`.
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate: Option<String>,
    reason: String,
}

impl Rejected {
    fn of(error: &VerifyError) -> Self {
        Self {
            verified: false,
            check: error.check(),
            certificate: error.position().map(|position| position.to_string()),
            reason: chain_of(error),
        }
    }
}
