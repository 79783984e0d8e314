//! Signing where the key is not: what is to be signed goes out, and the signature comes back.

use std::time::SystemTime;

use eif::{CoseAlgorithm, CoseSign1, Pcr, SignatureSection};

use crate::certificate::Certificate;
use crate::signer::SignerError;

/// A certificate whose key is somewhere else: in a hardware module, or on a machine without a network.
#[derive(Clone, Debug)]
pub struct OfflineSigner {
    certificate: Certificate,
    certificate_pem: Vec<u8>,
}

impl OfflineSigner {
    /// A certificate in PEM, valid at `time`. Its text becomes part of signed images as it is.
    ///
    /// # Errors
    /// [`SignerError::Certificate`].
    pub fn new(certificate_pem: Vec<u8>, time: SystemTime) -> Result<Self, SignerError> {
        let certificate = Certificate::from_pem(&certificate_pem)?;
        certificate.check_dates(time)?;
        Ok(Self {
            certificate,
            certificate_pem,
        })
    }

    /// The certificate.
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// What the key has to sign with: ECDSA with the hash of the certificate's curve.
    pub fn algorithm(&self) -> CoseAlgorithm {
        self.certificate.public_key().algorithm()
    }

    /// The bytes that the key has to sign for an image with this PCR0: COSE's `Sig_structure` (RFC 9052, 4.4). The hash is that of
    /// the certificate's curve: SHA-256, SHA-384 or SHA-512.
    pub fn to_be_signed(&self, pcr0: &Pcr) -> Vec<u8> {
        self.unsigned(pcr0).to_be_signed()
    }

    /// The signature of an image with this PCR0, made elsewhere: r ‖ s, or in DER, as OpenSSL and most modules give it.
    ///
    /// # Errors
    /// [`SignerError::OtherSignature`] if it is not the key's over these bytes.
    pub fn attach(&self, pcr0: &Pcr, signature: &[u8]) -> Result<SignatureSection, SignerError> {
        let mut cose = self.unsigned(pcr0);
        cose.signature = self
            .certificate
            .public_key()
            .fixed_signature(&cose.to_be_signed(), signature)
            .ok_or(SignerError::OtherSignature)?;
        Ok(SignatureSection {
            certificate_pem: self.certificate_pem.clone(),
            cose_sign1: cose.encode(),
        })
    }

    fn unsigned(&self, pcr0: &Pcr) -> CoseSign1 {
        CoseSign1::unsigned(self.algorithm(), pcr0)
    }
}

#[cfg(test)]
mod tests {
    use p256::ecdsa::signature::Signer as _;
    use test_signer::{Curve, TestSigner};

    use super::*;
    use crate::Signer;

    #[test]
    fn a_signature_from_elsewhere_is_as_good_as_one_made_here() {
        for curve in [Curve::P256, Curve::P384, Curve::P521] {
            let test = TestSigner::new(curve);
            let here = Signer::new(test.certificate_pem.clone(), &test.key_pem, SystemTime::now()).unwrap();
            let offline = OfflineSigner::new(test.certificate_pem, SystemTime::now()).unwrap();
            let pcr0 = Pcr::of_data(b"7");
            let section = here.sign(&pcr0).unwrap();
            let signature = CoseSign1::parse(&section.cose_sign1).unwrap().signature;

            assert_eq!(offline.attach(&pcr0, &signature).unwrap(), section);
            for other in [&Pcr::of_data(b"8"), &Pcr::ZERO] {
                let error = offline.attach(other, &signature).unwrap_err();
                assert!(matches!(error, SignerError::OtherSignature), "{error}");
            }
            for junk in [&b""[..], b"0", &signature[1..], &[0; 96]] {
                assert!(offline.attach(&pcr0, junk).is_err());
            }
        }
    }

    #[test]
    fn der_is_taken_too() {
        let test = TestSigner::new(Curve::P384);
        let offline = OfflineSigner::new(test.certificate_pem, SystemTime::now()).unwrap();
        let der = eif::pem::der(&test.key_pem, "PRIVATE KEY").unwrap();
        let key: p384::ecdsa::SigningKey = p384::pkcs8::DecodePrivateKey::from_pkcs8_der(&der).unwrap();
        let signature: p384::ecdsa::Signature = key.sign(&offline.to_be_signed(&Pcr::ZERO));

        let section = offline.attach(&Pcr::ZERO, signature.to_der().as_bytes()).unwrap();
        offline
            .certificate()
            .check_signature(&section.cose_sign1, &Pcr::ZERO)
            .unwrap();
    }
}
