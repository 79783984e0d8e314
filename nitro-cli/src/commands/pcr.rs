//! `pcr`: the measurement of a file as a PCR, or PCR8 of a certificate.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use api::{ErrorCode, Failure};
use eif::pem;
use serde::Serialize;

use crate::arguments::Pcr;
use crate::error::CommandError;
use crate::files::open_readable;
use crate::output;

/// The most bytes of a certificate's file; an image has no room for more.
const CERTIFICATE_LIMIT: u64 = eif::MAX_SIGNATURE;

/// What is printed.
#[derive(Serialize)]
enum Measured {
    #[serde(rename = "PCR")]
    File(String),
    #[serde(rename = "PCR8")]
    Certificate(String),
}

pub(super) fn execute(options: &Pcr) -> Result<(), CommandError> {
    let measured = match (&options.input, &options.signing_certificate) {
        (Some(input), _) => Measured::File(of_file(input)?.to_string()),
        (None, Some(certificate)) => Measured::Certificate(of_certificate(certificate)?.to_string()),
        // clap has seen to it that there is one of them.
        (None, None) => {
            let message = "There is nothing to measure. Give `--input` or `--signing-certificate`";
            return Err(Failure::new(ErrorCode::MissingArgument, message).into());
        }
    };
    output::print_json(&measured)
}

/// # Errors
/// E19.
fn of_file(path: &Path) -> Result<eif::Pcr, Failure> {
    eif::Pcr::of_reader(&mut open(path)?).map_err(|error| unreadable(path, &error))
}

/// # Errors
/// E19 if the file cannot be read, E57 if there is no certificate in it.
fn of_certificate(path: &Path) -> Result<eif::Pcr, Failure> {
    let mut text = Vec::new();
    open(path)?
        .take(CERTIFICATE_LIMIT)
        .read_to_end(&mut text)
        .map_err(|error| unreadable(path, &error))?;
    let der = pem::certificate_der(&text).map_err(|error| {
        let context = format!("Cannot measure the certificate `{}`", path.display());
        Failure::caused_by(ErrorCode::HasherError, &context, &error)
    })?;
    Ok(eif::Pcr::of_data(&der))
}

fn open(path: &Path) -> Result<File, Failure> {
    open_readable(path).map_err(|error| unreadable(path, &error))
}

fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    let context = format!("Cannot read `{}`", path.display());
    Failure::caused_by(ErrorCode::FileOperation, &context, error)
}
