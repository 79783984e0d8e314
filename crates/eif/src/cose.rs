//! The signature itself: a `COSE_Sign1` structure (RFC 9052, section 4.2) over PCR0. Nothing here computes or verifies one.
//!
//! ```text
//! array(4)                      untagged as AWS's tools write it; tag 18 in front is read too
//!   bytes   protected header    a1 01 26, a1 01 38 22 or a1 01 38 23: the algorithm
//!   map     other header        empty
//!   bytes   payload             map { "register_index": 0, "register_value": array of 48 integers }
//!   bytes   signature           r ‖ s, each as long as the curve's numbers
//! ```
//!
//! What is signed is not this structure but another one that is made of it, [`CoseSign1::to_be_signed`].

use minicbor::data::{Tag, Type};
use minicbor::decode::{Decoder, Error as CborError};

use crate::Pcr;
use crate::cbor::{self, Items};

/// The tag of a `COSE_Sign1` structure.
const TAG: Tag = Tag::new(18);

const REGISTER_INDEX: &str = "register_index";
const REGISTER_VALUE: &str = "register_value";

/// The register that an image's signature is over.
const SIGNED_REGISTER: u64 = 0;

/// How an image is signed: ECDSA, by the curve of the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CoseAlgorithm {
    /// P-256 with SHA-256.
    Es256,
    /// P-384 with SHA-384.
    Es384,
    /// P-521 with SHA-512.
    Es512,
}

impl CoseAlgorithm {
    const ALL: [Self; 3] = [Self::Es256, Self::Es384, Self::Es512];

    /// The protected header `{1: -7}`, `{1: -35}` or `{1: -36}`.
    fn protected_header(self) -> &'static [u8] {
        match self {
            Self::Es256 => &[0xa1, 0x01, 0x26],
            Self::Es384 => &[0xa1, 0x01, 0x38, 0x22],
            Self::Es512 => &[0xa1, 0x01, 0x38, 0x23],
        }
    }
}

impl std::fmt::Display for CoseAlgorithm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Es256 => "ES256 (P-256)",
            Self::Es384 => "ES384 (P-384)",
            Self::Es512 => "ES512 (P-521)",
        })
    }
}

/// A `COSE_Sign1` structure. Having one means that it is well-formed, not that it is valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CoseSign1 {
    /// By its protected header.
    pub algorithm: CoseAlgorithm,
    /// What is signed; [`payload_pcr0`](Self::payload_pcr0) reads it.
    pub payload: Vec<u8>,
    /// r ‖ s, of any length.
    pub signature: Vec<u8>,
}

/// What is wrong with a `COSE_Sign1` structure. Positions are offsets in it, or in its payload, in bytes.
#[derive(Debug, thiserror::Error)]
pub enum CoseError {
    /// Not the CBOR that is expected.
    #[error("unexpected CBOR at byte {position}")]
    Cbor {
        /// Where.
        position: usize,
        /// What was found.
        source: CborError,
    },
    /// Not an array of four, or under another tag.
    #[error("not a COSE_Sign1 structure")]
    NotSign1,
    /// A protected header that names none of the algorithms, or more than an algorithm.
    #[error("the protected header is {found:02x?}; ES256, ES384 and ES512 are supported")]
    UnsupportedHeader {
        /// The header.
        found: Vec<u8>,
    },
    /// There is a header that nothing protects.
    #[error("the unprotected header is not empty")]
    UnprotectedHeader,
    /// Something follows.
    #[error("bytes after the end, from byte {position} on")]
    TrailingBytes {
        /// Where.
        position: usize,
    },
    /// The payload lacks a key, or has one twice or one that is unknown.
    #[error(
        "the payload does not have each of \"{REGISTER_INDEX}\" and \"{REGISTER_VALUE}\" once and nothing else"
    )]
    PayloadKeys,
    /// The signature is over another register.
    #[error("the signature is over PCR{found}, not over PCR{SIGNED_REGISTER}")]
    OtherRegister {
        /// Which.
        found: u64,
    },
    /// The register has another size.
    #[error("the signed register has {found} bytes, not 48")]
    RegisterSize {
        /// Bytes.
        found: usize,
    },
}

impl CoseSign1 {
    /// A structure over `pcr0` that is still to be signed.
    pub fn unsigned(algorithm: CoseAlgorithm, pcr0: &Pcr) -> Self {
        let mut writer = cbor::Writer::default();
        writer.map(2);
        writer.text(REGISTER_INDEX);
        writer.unsigned(SIGNED_REGISTER);
        writer.text(REGISTER_VALUE);
        writer.byte_array(pcr0.as_bytes());
        Self {
            algorithm,
            payload: writer.finish(),
            signature: Vec::new(),
        }
    }

    /// Parses one. Allocates no more than `data` is long.
    ///
    /// # Errors
    /// See [`CoseError`]; those about the payload come from [`payload_pcr0`](Self::payload_pcr0).
    pub fn parse(data: &[u8]) -> Result<Self, CoseError> {
        let mut decoder = Decoder::new(data);
        let decoder = &mut decoder;
        if at(decoder, |decoder| decoder.datatype())? == Type::Tag && at(decoder, Decoder::tag)? != TAG {
            return Err(CoseError::NotSign1);
        }
        if at(decoder, Decoder::array)? != Some(4) {
            return Err(CoseError::NotSign1);
        }
        let protected = at(decoder, Decoder::bytes)?;
        let algorithm = CoseAlgorithm::ALL
            .into_iter()
            .find(|algorithm| algorithm.protected_header() == protected)
            .ok_or_else(|| CoseError::UnsupportedHeader {
                found: protected.to_vec(),
            })?;
        if at(decoder, Decoder::map)? != Some(0) {
            return Err(CoseError::UnprotectedHeader);
        }
        let payload = at(decoder, Decoder::bytes)?.to_vec();
        let signature = at(decoder, Decoder::bytes)?.to_vec();
        check_end(decoder)?;
        Ok(Self {
            algorithm,
            payload,
            signature,
        })
    }

    /// The structure, untagged.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = cbor::Writer::default();
        writer.array(4);
        writer.bytes(self.algorithm.protected_header());
        writer.map(0);
        writer.bytes(&self.payload);
        writer.bytes(&self.signature);
        writer.finish()
    }

    /// The bytes that the signature is over: `Sig_structure` (RFC 9052, section 4.4), without external data.
    pub fn to_be_signed(&self) -> Vec<u8> {
        let mut writer = cbor::Writer::default();
        writer.array(4);
        writer.text("Signature1");
        writer.bytes(self.algorithm.protected_header());
        writer.bytes(&[]);
        writer.bytes(&self.payload);
        writer.finish()
    }

    /// The value of PCR0 that the payload holds.
    ///
    /// # Errors
    /// See [`CoseError`].
    pub fn payload_pcr0(&self) -> Result<Pcr, CoseError> {
        let mut decoder = Decoder::new(&self.payload);
        let decoder = &mut decoder;
        let mut items = at(decoder, |decoder| decoder.map().map(Items::of))?;
        let (mut index, mut value) = (None, None);
        while at(decoder, |decoder| items.another(decoder))? {
            let is_new = match at(decoder, Decoder::str)? {
                REGISTER_INDEX => index.replace(at(decoder, Decoder::u64)?).is_none(),
                REGISTER_VALUE => value.replace(at(decoder, cbor::read_byte_array)?).is_none(),
                _ => false,
            };
            if !is_new {
                return Err(CoseError::PayloadKeys);
            }
        }
        check_end(decoder)?;
        let (Some(index), Some(value)) = (index, value) else {
            return Err(CoseError::PayloadKeys);
        };
        if index != SIGNED_REGISTER {
            return Err(CoseError::OtherRegister { found: index });
        }
        let found = value.len();
        let value = value.try_into().map_err(|_| CoseError::RegisterSize { found })?;
        Ok(Pcr::from_bytes(value))
    }
}

/// What `read` reads, or where it could not.
fn at<'b, T>(
    decoder: &mut Decoder<'b>,
    read: impl FnOnce(&mut Decoder<'b>) -> Result<T, CborError>,
) -> Result<T, CoseError> {
    read(decoder).map_err(|source| CoseError::Cbor {
        position: source.position().unwrap_or(decoder.position()),
        source,
    })
}

fn check_end(decoder: &Decoder<'_>) -> Result<(), CoseError> {
    if decoder.position() < decoder.input().len() {
        return Err(CoseError::TrailingBytes {
            position: decoder.position(),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[expect(clippy::format_collect, reason = "of a few bytes")]
    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn register() -> Pcr {
        Pcr::from_bytes(std::array::from_fn(|index| u8::try_from(index).unwrap()))
    }

    fn signed() -> CoseSign1 {
        CoseSign1 {
            signature: vec![7; 96],
            ..CoseSign1::unsigned(CoseAlgorithm::Es384, &register())
        }
    }

    /// The payload of `map`, each key with a number.
    fn payload(map: &[(&str, u64)]) -> CoseSign1 {
        let mut writer = cbor::Writer::default();
        writer.map(map.len() as u64);
        for (key, value) in map {
            writer.text(key);
            writer.unsigned(*value);
        }
        CoseSign1 {
            payload: writer.finish(),
            ..signed()
        }
    }

    #[test]
    fn the_payload_that_aws_documents_is_written_and_read() {
        let known = concat!(
            "a26e72656769737465725f696e646578006e72656769737465725f76616c7565983000010203040506070",
            "8090a0b0c0d0e0f101112131415161718181819181a181b181c181d181e181f1820182118221823182418",
            "251826182718281829182a182b182c182d182e182f",
        );

        let unsigned = CoseSign1::unsigned(CoseAlgorithm::Es384, &register());

        assert_eq!(hex(&unsigned.payload), known);
        assert_eq!(unsigned.payload_pcr0().unwrap(), register());
    }

    #[test]
    fn each_algorithm_has_its_header_in_the_structure_and_in_what_is_signed() {
        for (algorithm, header) in [
            (CoseAlgorithm::Es256, "43a10126"),
            (CoseAlgorithm::Es384, "44a1013822"),
            (CoseAlgorithm::Es512, "44a1013823"),
        ] {
            let cose = CoseSign1 {
                algorithm,
                payload: vec![1, 2],
                signature: vec![3],
            };

            assert_eq!(hex(&cose.encode()), format!("84{header}a04201024103"));
            assert_eq!(
                hex(&cose.to_be_signed()),
                format!("846a5369676e617475726531{header}40420102")
            );
            assert_eq!(CoseSign1::parse(&cose.encode()).unwrap(), cose);
        }
    }

    #[test]
    fn tag_18_is_read_and_no_other() {
        let tagged = |tag: u8| CoseSign1::parse(&[&[tag][..], &signed().encode()].concat());

        assert_eq!(tagged(0xd2).unwrap(), signed());
        assert!(matches!(tagged(0xd1), Err(CoseError::NotSign1)));
        assert!(CoseSign1::parse(&[&[0xd2, 0xd2][..], &signed().encode()].concat()).is_err());
    }

    #[test]
    fn what_is_no_signature_is_refused_by_its_kind() {
        let parse = |bytes: &[u8]| CoseSign1::parse(bytes).unwrap_err();
        let whole = signed().encode();

        assert!(matches!(parse(b""), CoseError::Cbor { position: 0, .. }));
        assert!(matches!(
            parse(&[0x83, 0x43, 0xa1, 1, 0x26, 0xa0, 0x40]),
            CoseError::NotSign1
        ));
        assert!(matches!(
            parse(&[0x84, 0x43, 0xa1, 1, 0x27, 0xa0, 0x40, 0x40]),
            CoseError::UnsupportedHeader { found } if found == [0xa1, 1, 0x27]
        ));
        assert!(matches!(
            parse(&[0x84, 0x43, 0xa1, 1, 0x26, 0xa1, 4, 0x40, 0x40, 0x40]),
            CoseError::UnprotectedHeader
        ));
        assert!(matches!(
            parse(&[&whole[..], &[0]].concat()),
            CoseError::TrailingBytes { position } if position == whole.len()
        ));
        for length in 0..whole.len() {
            assert!(
                matches!(parse(&whole[..length]), CoseError::Cbor { .. }),
                "{length}"
            );
        }
    }

    #[test]
    fn a_payload_is_one_register_0_of_48_bytes() {
        let error = |cose: CoseSign1| cose.payload_pcr0().unwrap_err();

        for keys in [
            &[][..],
            &[(REGISTER_INDEX, 0)],
            &[(REGISTER_INDEX, 0), (REGISTER_INDEX, 0)],
            &[("other", 0)],
        ] {
            assert!(matches!(error(payload(keys)), CoseError::PayloadKeys), "{keys:?}");
        }
        let mut writer = cbor::Writer::default();
        writer.map(2);
        writer.text(REGISTER_VALUE);
        writer.byte_array(&[0; 48]);
        writer.text(REGISTER_INDEX);
        let before_index = writer.finish();
        let with_index = |index: &[u8]| CoseSign1 {
            payload: [&before_index, index].concat(),
            ..signed()
        };
        assert_eq!(with_index(&[0]).payload_pcr0().unwrap(), Pcr::ZERO);
        assert!(matches!(
            error(with_index(&[8])),
            CoseError::OtherRegister { found: 8 }
        ));
        assert!(matches!(
            error(with_index(&[0, 0])),
            CoseError::TrailingBytes { .. }
        ));
        for length in [0, 47, 49] {
            let mut writer = cbor::Writer::default();
            writer.map(2);
            writer.text(REGISTER_INDEX);
            writer.unsigned(0);
            writer.text(REGISTER_VALUE);
            writer.byte_array(&vec![0; length]);
            let cose = CoseSign1 {
                payload: writer.finish(),
                ..signed()
            };
            assert!(matches!(error(cose), CoseError::RegisterSize { found } if found == length));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_or_refused(bytes: Vec<u8>) {
            if let Ok(cose) = CoseSign1::parse(&bytes) {
                prop_assert_eq!(CoseSign1::parse(&cose.encode()).unwrap(), cose);
            }
            let _ = CoseSign1 { payload: bytes, ..signed() }.payload_pcr0();
        }

        #[test]
        fn damaged_structures_are_parsed_or_refused(position: prop::sample::Index, byte: u8) {
            let mut bytes = signed().encode();
            let position = position.index(bytes.len());
            bytes[position] = byte;
            if let Ok(cose) = CoseSign1::parse(&bytes) {
                let _ = cose.payload_pcr0();
            }
        }
    }
}
