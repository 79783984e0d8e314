//! The signature section of an image, and each of its parts by itself.

use std::time::{Duration, SystemTime};

use eif::{CoseSign1, Pcr, Section, SectionKind, SignatureSection, pem};
use eif_signature::{Certificate, Signer};

/// In 2020.
const TIME: Duration = Duration::from_secs(1_600_000_000);

const CERTIFICATE: &[u8] = include_bytes!("../corpus/eif-signature/certificate-p384.pem");

/// What is accepted is the same when it is written and read again.
pub(crate) fn check(input: &[u8]) {
    section(input);
    cose(input);
    certificate(input);
    let _ = pem::der(input, "PRIVATE KEY");
    if let Ok(signer) = Signer::new(CERTIFICATE.to_vec(), input, SystemTime::UNIX_EPOCH + TIME) {
        let signed = signer.sign(&Pcr::ZERO).expect("the certificate's key");
        assert!(
            signer
                .certificate()
                .check_signature(&signed.cose_sign1, &Pcr::ZERO)
                .is_ok()
        );
    }
}

fn section(input: &[u8]) {
    let section = Section {
        kind: SectionKind::Signature,
        offset: 560,
        size: input.len() as u64,
    };
    match SignatureSection::parse(&section, input) {
        Err(error) => assert!(
            (560..=560 + input.len() as u64).contains(&error.offset()),
            "{error}"
        ),
        Ok(signature) => {
            let written = signature.encode();
            let again = SignatureSection::parse(&section, &written).expect("a signature section");
            assert_eq!(again, signature);
            cose(&signature.cose_sign1);
            if let Ok(certificate) = Certificate::from_pem(&signature.certificate_pem) {
                assert_eq!(signature.pcr8(&section).ok(), Some(certificate.pcr8()));
                let _ = certificate.check_signature(&signature.cose_sign1, &Pcr::ZERO);
            }
        }
    }
}

fn cose(input: &[u8]) {
    if let Ok(cose) = CoseSign1::parse(input) {
        assert_eq!(CoseSign1::parse(&cose.encode()).ok(), Some(cose.clone()));
        if let Ok(pcr0) = cose.payload_pcr0() {
            let canonical = CoseSign1::unsigned(cose.algorithm, &pcr0);
            assert_eq!(canonical.payload_pcr0().ok(), Some(pcr0));
        }
        let _ = cose.to_be_signed();
    }
}

fn certificate(input: &[u8]) {
    let parsed = [Certificate::from_der(input), Certificate::from_pem(input)];
    for certificate in parsed.into_iter().flatten() {
        let _ = certificate.check_dates(SystemTime::UNIX_EPOCH + TIME);
        let _ = (certificate.issuer(), certificate.algorithm());
        let _ = (
            certificate.not_before().to_string(),
            certificate.not_after().to_string(),
        );
    }
}
