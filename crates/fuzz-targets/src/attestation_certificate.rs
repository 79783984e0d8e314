//! What an operator gives the daemon or the verifier: certificates, chains, keys, roots.

use attestation::chain::certificates_from_bytes;
use attestation::{Certificate, MAX_CERTIFICATE, SoftwareKey, TrustAnchor};

/// What is accepted comes out as it went in.
pub(crate) fn check(input: &[u8]) {
    if let Ok(certificate) = Certificate::from_der(input) {
        assert_eq!(certificate.as_der(), input);
        assert!(input.len() <= MAX_CERTIFICATE);
        let pem = certificate.to_pem().expect("PEM");
        let again = certificates_from_bytes(pem.as_bytes()).expect("the certificate");
        assert_eq!(again, std::slice::from_ref(&certificate));
        let _ = (certificate.subject(), certificate.issuer(), certificate.serial());
        let _ = (
            certificate.not_before().to_string(),
            certificate.not_after().to_string(),
        );
    }
    if let Ok(certificates) = certificates_from_bytes(input) {
        for certificate in certificates {
            assert_eq!(
                Certificate::from_der(certificate.as_der()).as_ref().ok(),
                Some(&certificate)
            );
        }
    }
    if let Ok(root) = TrustAnchor::from_bytes(input) {
        assert!(root.certificate().is_self_issued());
    }
    if let Ok(key) = SoftwareKey::from_pkcs8(input) {
        let der = key.to_pkcs8_der().expect("a key");
        assert!(SoftwareKey::from_pkcs8(&der).is_ok());
    }
}
