//! `sign-eif`: an image file gets a signature, or another one in place of it.
//!
//! The file is replaced when the signed one is complete or not at all. A damaged image is not signed.
//!
//! With a key that is elsewhere this takes two steps: `--to-be-signed` writes what has to be signed and leaves the image as it is,
//! `--signature` adds what came back, if it is good.

use std::io::Write;
use std::path::Path;

use api::{ErrorCode, Failure, Measurements};
use atomic_file::AtomicFile;
use eif_signature::OfflineSigner;
use serde::Serialize;

use crate::arguments::{SignEif, Signing};
use crate::error::CommandError;
use crate::files::open_regular;
use crate::{interruption, measurements, output, signing};

/// Whatever fails here has AWS's number for signing.
const CODE: ErrorCode = ErrorCode::EIFSigning;

/// # Errors
/// E01 without an image, E60 for everything else, as on AWS.
pub(super) fn execute(options: &SignEif) -> Result<(), CommandError> {
    let Some(path) = &options.eif_path else {
        let message = "The EIF to sign is missing. Name it with `--eif-path`";
        return Err(Failure::new(ErrorCode::MissingArgument, message).into());
    };
    interruption::clean_up_at_the_end()?;
    let signed = match (
        &options.signing_certificate,
        &options.to_be_signed,
        &options.signature,
    ) {
        (Some(certificate), Some(to), _) => write_to_be_signed(path, certificate, to),
        (Some(certificate), _, Some(signature)) => attach(path, certificate, signature),
        _ => sign(path, options),
    };
    output::print_json(&signed?)
}

/// What is printed.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Signed {
    measurements: Measurements,
}

fn sign(path: &Path, options: &SignEif) -> Result<Signed, Failure> {
    let files = Signing {
        signing_certificate: options.signing_certificate.clone(),
        private_key: options.private_key.clone(),
    };
    let signer = signing::signer(&files, CODE)?.ok_or_else(|| {
        let message = "There is nothing to sign with. Give both `--signing-certificate` and `--private-key`";
        Failure::new(CODE, message)
    })?;
    let measured = image::sign(path, &signer).map_err(|error| cannot("sign the EIF", path, &error))?;
    output::notice("Enclave Image successfully signed.");
    Ok(Signed {
        measurements: measurements::of_image(&measured, Some(&signer.certificate().pcr8())),
    })
}

/// Prints the measurements that the image will have.
fn write_to_be_signed(path: &Path, certificate: &Path, to: &Path) -> Result<Signed, Failure> {
    let signer = signing::offline_signer(certificate, CODE)?;
    let (file, size) = open_regular(path).map_err(|error| cannot("read the EIF", path, &error))?;
    let image = eif::inspect(&file, size).map_err(|error| cannot("read the EIF", path, &error))?;
    if !image.crc_ok {
        let message = format!(
            "The EIF `{}` is damaged: its CRC is wrong. Build it anew",
            path.display()
        );
        return Err(Failure::new(CODE, message));
    }
    if to
        .canonicalize()
        .is_ok_and(|to| path.canonicalize().is_ok_and(|path| path == to))
    {
        let message = "`--to-be-signed` names the EIF itself. Name another file";
        return Err(Failure::new(CODE, message));
    }
    let output = AtomicFile::create(to).map_err(|error| cannot("write", to, &error))?;
    let bytes = signer.to_be_signed(&image.measurements.pcr0);
    output
        .file()
        .write_all(&bytes)
        .map_err(|error| cannot("write", to, &error))?;
    output.commit().map_err(|error| cannot("write", to, &error))?;
    output::notice(format_args!(
        "Have `{}` signed by the certificate's key, with {}, and give the signature with `--signature`.",
        to.display(),
        signer.algorithm()
    ));
    Ok(signed(&signer, &image.measurements))
}

fn attach(path: &Path, certificate: &Path, signature: &Path) -> Result<Signed, Failure> {
    let signer = signing::offline_signer(certificate, CODE)?;
    let signature = signing::read(signature, "signature", CODE)?;
    let measured = image::sign_with(path, |pcr0| signer.attach(pcr0, &signature))
        .map_err(|error| cannot("sign the EIF", path, &error))?;
    output::notice("Enclave Image successfully signed.");
    Ok(signed(&signer, &measured))
}

fn signed(signer: &OfflineSigner, measured: &eif::Measurements) -> Signed {
    Signed {
        measurements: measurements::of_image(measured, Some(&signer.certificate().pcr8())),
    }
}

fn cannot(what: &str, path: &Path, error: &(dyn std::error::Error + 'static)) -> Failure {
    Failure::caused_by(CODE, &format!("Cannot {what} `{}`", path.display()), error)
}
