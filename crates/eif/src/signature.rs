//! The signature section: who signed an image, and the signature. Reading it verifies nothing.
//!
//! It is CBOR (RFC 8949), made of arrays where byte strings would do, because that is how AWS's tools serialise bytes:
//!
//! ```text
//! array                                          one entry for each signed PCR; only the first, for PCR0, is used
//!   map
//!     "signing_certificate": array of uint       a certificate as PEM text, one integer for each byte
//!     "signature":           array of uint       a COSE_Sign1 structure, likewise; see [`crate::CoseSign1`]
//! ```
//!
//! The signature is over PCR0, so the section itself is not measured; the certificate becomes PCR8.

use minicbor::decode::{Decoder, Error as CborError};

use crate::cbor::{self, Items};
use crate::pem::{self, PemError};
use crate::{EifError, Pcr, Section};

/// The most bytes that a signature section may have.
pub const MAX_SIGNATURE: u64 = 32768;

/// The entry for PCR0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignatureSection {
    /// The signer's certificate, PEM text, unchecked.
    pub certificate_pem: Vec<u8>,
    /// A `COSE_Sign1` structure over PCR0, unchecked.
    pub cose_sign1: Vec<u8>,
}

/// What is wrong with a signature section.
#[derive(Debug, thiserror::Error)]
pub enum SignatureError {
    /// Not the CBOR that is expected.
    #[error("unexpected CBOR at byte {position} of the section")]
    Cbor {
        /// Offset in the section, in bytes.
        position: usize,
        /// What was found.
        source: CborError,
    },
    /// An entry lacks a key.
    #[error("no \"{key}\" in the entry that ends at byte {position} of the section")]
    MissingKey {
        /// Offset in the section, in bytes.
        position: usize,
        /// The key.
        key: &'static str,
    },
    /// An entry has a key twice.
    #[error("a second \"{key}\" at byte {position} of the section")]
    DuplicateKey {
        /// Offset in the section, in bytes.
        position: usize,
        /// The key.
        key: &'static str,
    },
    /// The list has no entry.
    #[error("the list of signatures is empty")]
    Empty,
    /// Something follows the list.
    #[error("bytes after the list of signatures, from byte {position} of the section on")]
    TrailingBytes {
        /// Offset in the section, in bytes.
        position: usize,
    },
    /// The certificate is not one.
    #[error("malformed certificate")]
    Certificate(#[from] PemError),
}

impl SignatureError {
    /// The error of a file whose signature section is `section`.
    fn in_section(self, section: &Section) -> EifError {
        EifError::Signature {
            offset: section.offset.saturating_add(self.position() as u64),
            source: self,
        }
    }

    /// Where in the section the problem is, in bytes; 0 if it is about the whole.
    fn position(&self) -> usize {
        match self {
            Self::Cbor { position, .. }
            | Self::MissingKey { position, .. }
            | Self::DuplicateKey { position, .. }
            | Self::TrailingBytes { position } => *position,
            Self::Empty | Self::Certificate(_) => 0,
        }
    }
}

const CERTIFICATE: &str = "signing_certificate";
const SIGNATURE: &str = "signature";

impl SignatureSection {
    /// Parses the data of `section`. Allocates no more than `data` is long.
    ///
    /// # Errors
    /// [`EifError::Signature`] for anything but the form above. Keys may come in any order, and unknown ones are ignored.
    pub fn parse(section: &Section, data: &[u8]) -> Result<Self, EifError> {
        parse_list(data).map_err(|error| error.in_section(section))
    }

    /// The data of a section with this entry, as AWS's tools write it.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = cbor::Writer::default();
        writer.array(1);
        writer.map(2);
        writer.text(CERTIFICATE);
        writer.byte_array(&self.certificate_pem);
        writer.text(SIGNATURE);
        writer.byte_array(&self.cose_sign1);
        writer.finish()
    }

    /// The certificate's DER form. `section` is where this was read.
    ///
    /// # Errors
    /// [`EifError::Signature`] if there is no certificate in the PEM text.
    pub fn certificate_der(&self, section: &Section) -> Result<Vec<u8>, EifError> {
        pem::certificate_der(&self.certificate_pem)
            .map_err(|error| SignatureError::from(error).in_section(section))
    }

    /// PCR8: the measurement of the certificate's DER form. `section` is where this was read.
    ///
    /// # Errors
    /// [`EifError::Signature`] if there is no certificate in the PEM text.
    pub fn pcr8(&self, section: &Section) -> Result<Pcr, EifError> {
        Ok(Pcr::of_data(&self.certificate_der(section)?))
    }
}

/// Reads every entry, so that what follows the first is well-formed too, and keeps the first.
fn parse_list(data: &[u8]) -> Result<SignatureSection, SignatureError> {
    let mut decoder = Decoder::new(data);
    let decoder = &mut decoder;
    let mut items = at(decoder, |decoder| decoder.array().map(Items::of))?;
    let mut first = None;
    while at(decoder, |decoder| items.another(decoder))? {
        let entry = parse_entry(decoder)?;
        first.get_or_insert(entry);
    }
    if decoder.position() < data.len() {
        return Err(SignatureError::TrailingBytes {
            position: decoder.position(),
        });
    }
    first.ok_or(SignatureError::Empty)
}

fn parse_entry(decoder: &mut Decoder<'_>) -> Result<SignatureSection, SignatureError> {
    let mut items = at(decoder, |decoder| decoder.map().map(Items::of))?;
    let mut certificate = None;
    let mut signature = None;
    while at(decoder, |decoder| items.another(decoder))? {
        let position = decoder.position();
        let (key, slot) = match at(decoder, Decoder::str)? {
            CERTIFICATE => (CERTIFICATE, &mut certificate),
            SIGNATURE => (SIGNATURE, &mut signature),
            _ => {
                at(decoder, Decoder::skip)?;
                continue;
            }
        };
        if slot.replace(at(decoder, cbor::read_byte_array)?).is_some() {
            return Err(SignatureError::DuplicateKey { position, key });
        }
    }
    let missing = |key| SignatureError::MissingKey {
        position: decoder.position(),
        key,
    };
    Ok(SignatureSection {
        certificate_pem: certificate.ok_or_else(|| missing(CERTIFICATE))?,
        cose_sign1: signature.ok_or_else(|| missing(SIGNATURE))?,
    })
}

/// What `read` reads, or where it could not.
fn at<'b, T>(
    decoder: &mut Decoder<'b>,
    read: impl FnOnce(&mut Decoder<'b>) -> Result<T, CborError>,
) -> Result<T, SignatureError> {
    read(decoder).map_err(|source| SignatureError::Cbor {
        position: source.position().unwrap_or(decoder.position()),
        source,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::SectionKind;

    fn section_of(data: &[u8]) -> Section {
        Section {
            kind: SectionKind::Signature,
            offset: 0,
            size: data.len() as u64,
        }
    }

    #[test]
    #[expect(clippy::format_collect, reason = "of a few bytes")]
    fn the_section_that_aws_documents_is_written_and_read() {
        let known = concat!(
            "81a2737369676e696e675f6365727469666963617465983b182d182d182d182d182d18421845184718491",
            "84e182018431845185218541849184618491843184118541845182d182d182d182d182d0a184d18491849",
            "18420a182d182d182d182d182d1845184e18441820184318451852185418491846184918431841185418",
            "45182d182d182d182d182d0a697369676e61747572658a18d21884184418a1011838182218a018401840",
        );
        let section = SignatureSection {
            certificate_pem: b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n".to_vec(),
            cose_sign1: vec![0xd2, 0x84, 0x44, 0xa1, 0x01, 0x38, 0x22, 0xa0, 0x40, 0x40],
        };

        let data = section.encode();

        let hex: String = data.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, known);
        assert_eq!(
            SignatureSection::parse(&section_of(&data), &data).unwrap(),
            section
        );
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(certificate_pem: Vec<u8>, cose_sign1: Vec<u8>) {
            let section = SignatureSection { certificate_pem, cose_sign1 };
            let data = section.encode();

            prop_assert_eq!(SignatureSection::parse(&section_of(&data), &data).unwrap(), section);
        }
    }
}
