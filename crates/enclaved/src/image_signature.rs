//! Whether an image that is about to run was signed by whom it says.
//!
//! A signed image's PCR8 stands for its signer: whoever releases a secret to a PCR8 trusts that the signer has signed what
//! runs. So no guest runs with a PCR8 unless the certificate behind it is valid now and its key has signed the PCR0 that was
//! measured. The VMM reports both measurements, and passes certificate and signature on from the same reading of the file;
//! it starts the guest only when it is told that they hold. Neither the client nor the file has a say in this.
//!
//! Debug mode changes nothing: an image that does not run is not found out later.

use std::time::SystemTime;

use api::vmm::ImageSignature;
use api::{ErrorCode, Failure, Measurements};
use eif::Pcr;
use eif_signature::{Certificate, CertificateError, SignatureCheckError};

use crate::end::End;

/// Why an image does not run.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    #[error(transparent)]
    Signature(#[from] SignatureCheckError),
}

/// Checks what a VMM has said of its image's signature against the measurements, which are well-formed. An image without a
/// signature passes if it has no PCR8.
///
/// # Errors
/// E59 if the image is not to run, a broken protocol if what the VMM says does not go together.
pub(crate) fn check(
    signature: Option<&ImageSignature>,
    measurements: &Measurements,
    now: SystemTime,
) -> Result<(), End> {
    let nonsense = |what: &str| End::Nonsense(what.to_owned());
    let (signature, pcr8) = match (signature, &measurements.pcr8) {
        (None, None) => return Ok(()),
        (Some(signature), Some(pcr8)) => (signature, pcr8),
        (Some(_), None) => return Err(nonsense("a signature without PCR8")),
        (None, Some(_)) => return Err(nonsense("PCR8 without a signature")),
    };
    if Pcr::of_data(&signature.certificate).to_string() != *pcr8 {
        return Err(nonsense("a PCR8 that is not the certificate's"));
    }
    let pcr0 = Pcr::from_hex(&measurements.pcr0).map_err(|error| End::Nonsense(error.to_string()))?;
    verify(signature, &pcr0, now).map_err(|refusal| {
        let context = "The image's signature does not hold, so it does not run";
        End::Failed(Failure::caused_by(
            ErrorCode::EIFSignatureChecker,
            context,
            &refusal,
        ))
    })
}

fn verify(signature: &ImageSignature, pcr0: &Pcr, now: SystemTime) -> Result<(), Refusal> {
    let certificate = Certificate::from_der(&signature.certificate)?;
    certificate.check_dates(now)?;
    certificate.check_signature(&signature.cose_sign1, pcr0)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use eif_signature::Signer;
    use test_signer::{Curve, TestSigner};

    use super::*;

    const ALWAYS: (&str, &str) = ("20000101000000Z", "21000101000000Z");
    const NO_MORE: (&str, &str) = ("20200101000000Z", "20210101000000Z");
    const NOT_YET: (&str, &str) = ("20980101000000Z", "20990101000000Z");

    fn pcr0() -> Pcr {
        Pcr::of_data(b"the image")
    }

    /// The signature of [`pcr0`] with a certificate that is valid at these times, and the measurements with it.
    fn signed(valid: (&str, &str)) -> (ImageSignature, Measurements) {
        let always = TestSigner::valid(Curve::P384, ALWAYS.0, ALWAYS.1);
        let signer = Signer::new(always.certificate_pem, &always.key_pem, SystemTime::now()).unwrap();
        // The key is that of the other certificate too.
        let certificate = TestSigner::valid(Curve::P384, valid.0, valid.1).certificate_der;
        let measurements = Measurements {
            hash_algorithm: Measurements::HASH_ALGORITHM.to_owned(),
            pcr0: pcr0().to_string(),
            pcr1: Pcr::ZERO.to_string(),
            pcr2: Pcr::ZERO.to_string(),
            pcr8: Some(Pcr::of_data(&certificate).to_string()),
        };
        let cose_sign1 = signer.sign(&pcr0()).unwrap().cose_sign1;
        let signature = ImageSignature {
            certificate,
            cose_sign1,
        };
        (signature, measurements)
    }

    fn refused(signature: &ImageSignature, measurements: &Measurements) -> String {
        match check(Some(signature), measurements, SystemTime::now()) {
            Err(End::Failed(failure)) => {
                assert_eq!(failure.code, ErrorCode::EIFSignatureChecker);
                failure.message
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_good_signature_and_an_unsigned_image_pass() {
        let (signature, measurements) = signed(ALWAYS);
        let unsigned = Measurements {
            pcr8: None,
            ..measurements.clone()
        };

        assert!(check(Some(&signature), &measurements, SystemTime::now()).is_ok());
        assert!(check(None, &unsigned, SystemTime::now()).is_ok());
    }

    #[test]
    fn a_certificate_outside_of_its_time_is_e59() {
        for (valid, words) in [(NO_MORE, "has expired"), (NOT_YET, "is not valid before")] {
            let (signature, measurements) = signed(valid);
            let message = refused(&signature, &measurements);
            assert!(message.contains(words), "{message}");
        }
    }

    #[test]
    fn a_signature_of_another_image_is_e59() {
        let (signature, measurements) = signed(ALWAYS);
        let other = Measurements {
            pcr0: Pcr::of_data(b"another").to_string(),
            ..measurements
        };

        let message = refused(&signature, &other);

        assert!(message.contains("for another image"), "{message}");
    }

    #[test]
    fn a_signature_by_another_key_or_none_at_all_is_e59() {
        let (signature, measurements) = signed(ALWAYS);
        let mut changed = signature.clone();
        *changed.cose_sign1.last_mut().unwrap() ^= 1;
        let message = refused(&changed, &measurements);
        assert!(
            message.contains("not made with the certificate's key"),
            "{message}"
        );

        changed.cose_sign1.clear();
        let message = refused(&changed, &measurements);
        assert!(message.contains("malformed signature"), "{message}");
    }

    #[test]
    fn a_certificate_that_is_none_is_e59() {
        let (signature, measurements) = signed(ALWAYS);
        let certificate = vec![0x30, 0];
        let measurements = Measurements {
            pcr8: Some(Pcr::of_data(&certificate).to_string()),
            ..measurements
        };
        let changed = ImageSignature {
            certificate,
            ..signature
        };

        let message = refused(&changed, &measurements);

        assert!(message.contains("malformed certificate"), "{message}");
    }

    #[test]
    fn what_does_not_go_together_breaks_the_protocol() {
        let (signature, measurements) = signed(ALWAYS);
        let with_pcr8 = |pcr8: Option<Pcr>| Measurements {
            pcr8: pcr8.map(|pcr8| pcr8.to_string()),
            ..measurements.clone()
        };

        for (signature, measurements) in [
            (None, measurements.clone()),
            (Some(&signature), with_pcr8(None)),
            (Some(&signature), with_pcr8(Some(Pcr::ZERO))),
        ] {
            let checked = check(signature, &measurements, SystemTime::now());
            assert!(matches!(checked, Err(End::Nonsense(_))), "{checked:?}");
        }
    }
}
