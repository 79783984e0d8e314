//! `nsm-nitro-enclave-utils DOCUMENT ROOT MILLISECONDS`: whether that library accepts an attestation document. The arguments
//! and exit codes are those of all verifiers, in the README of `oracles`.

use std::error::Error;
use std::process::ExitCode;

use nsm_nitro_enclave_utils::api::nsm::AttestationDoc;
use nsm_nitro_enclave_utils::time::Time;
use nsm_nitro_enclave_utils::verify::AttestationDocVerifierExt;

fn main() -> ExitCode {
    match accepts() {
        Ok(Ok(module)) => {
            println!("{module}");
            ExitCode::SUCCESS
        }
        Ok(Err(refusal)) => {
            eprintln!("{refusal}");
            ExitCode::from(1)
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

/// The module id in the document, or why it is refused.
fn accepts() -> Result<Result<String, String>, Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [document, root, millis] = arguments.as_slice() else {
        return Err("usage: nsm-nitro-enclave-utils DOCUMENT ROOT MILLISECONDS".into());
    };
    let document = std::fs::read(document)?;
    let (_, root) = pem_rfc7468::decode_vec(&std::fs::read(root)?).map_err(|error| format!("{root}: {error}"))?;
    let millis: u64 = millis.parse()?;
    let result = AttestationDoc::from_cose(&document, &root, Time::new(Box::new(move || millis)));
    Ok(result
        .map(|document| document.module_id)
        .map_err(|error| format!("{error:?}")))
}
