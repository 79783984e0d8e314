//! `sign-eif`: an image file gets a signature, or another one in place of it.
//!
//! The file is replaced when the signed one is complete or not at all. A damaged image is not signed.

use api::{ErrorCode, Failure, Measurements};
use serde::Serialize;

use crate::arguments::SignEif;
use crate::error::CommandError;
use crate::{measurements, output, signing};

/// # Errors
/// E01 without an image, E60 for everything else, as on AWS.
pub(super) fn execute(options: &SignEif) -> Result<(), CommandError> {
    let Some(path) = &options.eif_path else {
        let message = "The EIF to sign is missing. Name it with `--eif-path`";
        return Err(Failure::new(ErrorCode::MissingArgument, message).into());
    };
    let code = ErrorCode::EIFSigning;
    let signer = signing::signer(&options.signing, code)?.ok_or_else(|| {
        let message = "There is nothing to sign with. Give both `--signing-certificate` and `--private-key`";
        Failure::new(code, message)
    })?;
    let measured = image::sign(path, &signer).map_err(|error| {
        Failure::caused_by(code, &format!("Cannot sign the EIF `{}`", path.display()), &error)
    })?;
    output::notice("Enclave Image successfully signed.");
    output::print_json(&Signed {
        measurements: measurements::of_image(&measured, Some(&signer.certificate().pcr8())),
    })
}

/// What is printed.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Signed {
    measurements: Measurements,
}
