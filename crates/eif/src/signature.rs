//! The signature section: who signed an image, and the signature. Reading it verifies nothing.
//!
//! It is CBOR (RFC 8949), made of arrays where byte strings would do, because that is how AWS's tools serialise bytes:
//!
//! ```text
//! array                                          one entry for each signed PCR; only the first, for PCR0, is used
//!   map
//!     "signing_certificate": array of uint       a certificate as PEM text, one integer for each byte
//!     "signature":           array of uint       a COSE_Sign1 structure, likewise
//! ```
//!
//! The signature is over PCR0, so the section itself is not measured; the certificate becomes PCR8.

use minicbor::data::Type;
use minicbor::decode::{Decoder, Error as CborError};

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

    /// PCR8: the measurement of the certificate's DER form. `section` is where this was read.
    ///
    /// # Errors
    /// [`EifError::Signature`] if there is no certificate in the PEM text.
    pub fn pcr8(&self, section: &Section) -> Result<Pcr, EifError> {
        let der = pem::certificate_der(&self.certificate_pem);
        let der = der.map_err(|error| SignatureError::from(error).in_section(section))?;
        Ok(Pcr::of_data(&der))
    }
}

/// Reads every entry, so that what follows the first is well-formed too, and keeps the first.
fn parse_list(data: &[u8]) -> Result<SignatureSection, SignatureError> {
    let mut decoder = Decoder::new(data);
    let mut items = Items::of(decoder.array(), &decoder)?;
    let mut first = None;
    while items.another(&mut decoder)? {
        let entry = parse_entry(&mut decoder)?;
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
    let mut items = Items::of(decoder.map(), decoder)?;
    let mut certificate = None;
    let mut signature = None;
    while items.another(decoder)? {
        let position = decoder.position();
        let (key, slot) = match decoder.str().map_err(|source| unexpected(decoder, source))? {
            CERTIFICATE => (CERTIFICATE, &mut certificate),
            SIGNATURE => (SIGNATURE, &mut signature),
            _ => {
                decoder.skip().map_err(|source| unexpected(decoder, source))?;
                continue;
            }
        };
        if slot.replace(parse_bytes(decoder)?).is_some() {
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

/// An array of integers below 256. It grows as they come: the length it claims is not trusted.
fn parse_bytes(decoder: &mut Decoder<'_>) -> Result<Vec<u8>, SignatureError> {
    let mut items = Items::of(decoder.array(), decoder)?;
    let mut bytes = Vec::new();
    while items.another(decoder)? {
        bytes.push(decoder.u8().map_err(|source| unexpected(decoder, source))?);
    }
    Ok(bytes)
}

/// How many items of an array, or pairs of a map, are still to come.
enum Items {
    Definite(u64),
    UntilBreak,
}

impl Items {
    /// From the header that `decoder` has just read.
    fn of(header: Result<Option<u64>, CborError>, decoder: &Decoder<'_>) -> Result<Self, SignatureError> {
        match header {
            Ok(Some(count)) => Ok(Self::Definite(count)),
            Ok(None) => Ok(Self::UntilBreak),
            Err(source) => Err(unexpected(decoder, source)),
        }
    }

    /// Whether there is another one, which the caller then reads. Takes the mark at the end.
    fn another(&mut self, decoder: &mut Decoder<'_>) -> Result<bool, SignatureError> {
        match self {
            Self::Definite(0) => Ok(false),
            Self::Definite(left) => {
                *left -= 1;
                Ok(true)
            }
            Self::UntilBreak => match decoder.datatype() {
                Ok(Type::Break) => {
                    decoder.skip().map_err(|source| unexpected(decoder, source))?;
                    Ok(false)
                }
                Ok(_) => Ok(true),
                Err(source) => Err(unexpected(decoder, source)),
            },
        }
    }
}

/// `source`, where it happened.
fn unexpected(decoder: &Decoder<'_>, source: CborError) -> SignatureError {
    SignatureError::Cbor {
        position: source.position().unwrap_or(decoder.position()),
        source,
    }
}
