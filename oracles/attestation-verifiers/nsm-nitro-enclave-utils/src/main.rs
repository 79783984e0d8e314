//! `attestation-verifier DOCUMENT ROOT MILLISECONDS`: whether an implementation that is not ours accepts a document.
//!
//! DOCUMENT is the path of an attestation document, ROOT of a root certificate in DER, MILLISECONDS the Unix time at which the
//! certificates must be valid. Exit code 0 if the document is accepted, 1 if it is not, 2 if that cannot be told.

use std::process::ExitCode;

use nsm_nitro_enclave_utils::api::nsm::AttestationDoc;
use nsm_nitro_enclave_utils::time::Time;
use nsm_nitro_enclave_utils::verify::AttestationDocVerifierExt;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [document, root, millis] = arguments.as_slice() else {
        eprintln!("usage: attestation-verifier DOCUMENT ROOT MILLISECONDS");
        return ExitCode::from(2);
    };
    let (document, root, millis) = match (
        std::fs::read(document),
        std::fs::read(root),
        millis.parse::<u64>(),
    ) {
        (Ok(document), Ok(root), Ok(millis)) => (document, root, millis),
        (document, root, millis) => {
            eprintln!("{:?} {:?} {:?}", document.err(), root.err(), millis.err());
            return ExitCode::from(2);
        }
    };
    match AttestationDoc::from_cose(&document, &root, Time::new(Box::new(move || millis))) {
        Ok(document) => {
            println!("{}", document.module_id);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error:?}");
            ExitCode::from(1)
        }
    }
}
