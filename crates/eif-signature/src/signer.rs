//! Who signs images: a certificate, and the key that belongs to it.

use std::time::SystemTime;

use eif::{CoseSign1, Pcr, SignatureSection};

use crate::certificate::{Certificate, CertificateError};
use crate::key::{KeyError, PrivateKey};

/// A certificate and its key.
#[derive(Clone, Debug)]
pub struct Signer {
    certificate: Certificate,
    certificate_pem: Vec<u8>,
    key: PrivateKey,
}

/// Why nothing can be signed.
#[derive(Debug, thiserror::Error)]
pub enum SignerError {
    /// For the certificate's sake.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// For the key's sake.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The key gives no signature; no sound key does that.
    #[error("the private key cannot sign this image")]
    Unsignable,
    /// A signature that was made elsewhere is not over this image, or by another key.
    #[error("the signature is not one over this image by the certificate's key")]
    OtherSignature,
}

impl Signer {
    /// A certificate, valid at `time`, and its key, both in PEM. The key is PKCS #8 or SEC 1 and not encrypted.
    ///
    /// The certificate's text becomes part of signed images as it is; of several certificates in it, the first counts.
    ///
    /// # Errors
    /// [`SignerError::Certificate`], [`SignerError::Key`].
    pub fn new(
        certificate_pem: Vec<u8>,
        private_key_pem: &[u8],
        time: SystemTime,
    ) -> Result<Self, SignerError> {
        let certificate = Certificate::from_pem(&certificate_pem)?;
        certificate.check_dates(time)?;
        let key = PrivateKey::from_pem(private_key_pem, certificate.public_key().algorithm())?;
        if key.public_key() != *certificate.public_key() {
            return Err(KeyError::OtherKey.into());
        }
        Ok(Self {
            certificate,
            certificate_pem,
            key,
        })
    }

    /// The certificate.
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// The signature of an image with this PCR0, to be added to it.
    ///
    /// # Errors
    /// [`SignerError::Unsignable`].
    pub fn sign(&self, pcr0: &Pcr) -> Result<SignatureSection, SignerError> {
        let mut cose = CoseSign1::unsigned(self.certificate.public_key().algorithm(), pcr0);
        cose.signature = self
            .key
            .sign(&cose.to_be_signed())
            .ok_or(SignerError::Unsignable)?;
        Ok(SignatureSection {
            certificate_pem: self.certificate_pem.clone(),
            cose_sign1: cose.encode(),
        })
    }
}

#[cfg(test)]
mod tests {
    use eif::CoseError;
    use test_signer::{Curve, TestSigner};

    use super::*;
    use crate::SignatureCheckError;

    #[test]
    fn a_good_signature_over_something_else_than_pcr0_is_refused() {
        let test = TestSigner::new(Curve::P256);
        let signer = Signer::new(test.certificate_pem, &test.key_pem, SystemTime::now()).unwrap();
        let refusal = |change: &dyn Fn(&mut CoseSign1)| {
            let algorithm = signer.certificate.public_key().algorithm();
            let mut cose = CoseSign1::unsigned(algorithm, &Pcr::ZERO);
            change(&mut cose);
            cose.signature = signer.key.sign(&cose.to_be_signed()).unwrap();
            signer.certificate.check_signature(&cose.encode(), &Pcr::ZERO)
        };

        assert!(refusal(&|_| {}).is_ok());
        assert!(matches!(
            refusal(&|cose| cose.payload = vec![0xa0]),
            Err(SignatureCheckError::Cose(CoseError::PayloadKeys))
        ));
        let index = 1 + 1 + "register_index".len();
        assert!(matches!(
            refusal(&|cose| cose.payload[index] = 8),
            Err(SignatureCheckError::Cose(CoseError::OtherRegister { found: 8 }))
        ));
    }
}
