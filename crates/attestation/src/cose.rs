//! The frame of a document: COSE_Sign1 (RFC 9052, 4.2) with ES384.
//!
//! # Which bytes nobody signed
//!
//! The signature covers the protected header and the payload. The bytes that hold them together could be changed by anyone:
//! a tag, the array's head, the unprotected header, the heads of the byte strings, what follows the array. So they are read
//! in one form only, apart from tag 18, which may be there or not.
//!
//! ECDSA itself has two signatures for each that is made: (r, s) and (r, n − s) verify alike, and genuine documents use
//! either. What a document says cannot be changed that way, but its bytes can: they do not identify it. Use the nonce, not a
//! hash of the document, to tell whether it was seen before.

use crate::SIGNATURE_LEN;
use crate::cbor::{Reader, Unexpected, Writer};

/// `{1: -35}`: the algorithm is ES384.
pub(crate) const PROTECTED: [u8; 4] = [0xa1, 0x01, 0x38, 0x22];

/// COSE_Sign1.
const TAG: u64 = 18;

/// Protected header, unprotected header, payload, signature.
const ELEMENTS: usize = 4;

/// The parts of a frame that vary.
pub(crate) struct Frame<'a> {
    pub(crate) payload: &'a [u8],
    /// Where the payload is in the document.
    pub(crate) payload_offset: usize,
    pub(crate) signature: [u8; SIGNATURE_LEN],
}

impl<'a> Frame<'a> {
    pub(crate) fn read(document: &'a [u8]) -> Result<Self, Unexpected> {
        let mut reader = Reader::new(document);
        reader.optional_tag(TAG)?;
        require(&mut reader, "an array of 4", |reader, expected| {
            Ok(reader.array(expected)? == ELEMENTS as u64)
        })?;
        require(
            &mut reader,
            "the protected header {1: -35}, ES384",
            |reader, expected| Ok(reader.bytes(expected)? == PROTECTED),
        )?;
        require(&mut reader, "an empty unprotected header", |reader, expected| {
            Ok(reader.map(expected)? == 0)
        })?;
        let payload = reader.bytes("the payload, a byte string")?;
        let payload_offset = reader.offset() - payload.len();
        let offset = reader.offset();
        let expected = "a signature of 96 bytes";
        let signature = reader
            .bytes(expected)?
            .try_into()
            .map_err(|_| Unexpected { expected, offset })?;
        reader.finish()?;
        Ok(Self {
            payload,
            payload_offset,
            signature,
        })
    }
}

/// Reads an item whose value is known.
fn require<'a>(
    reader: &mut Reader<'a>,
    expected: &'static str,
    is_it: impl FnOnce(&mut Reader<'a>, &'static str) -> Result<bool, Unexpected>,
) -> Result<(), Unexpected> {
    let offset = reader.offset();
    if is_it(reader, expected)? {
        Ok(())
    } else {
        Err(Unexpected { expected, offset })
    }
}

/// The document of `payload` and its signature, without a tag.
pub(crate) fn frame(payload: &[u8], signature: &[u8; SIGNATURE_LEN]) -> Vec<u8> {
    let mut writer = Writer::with_capacity(payload.len() + SIGNATURE_LEN + 16);
    writer.array(ELEMENTS);
    writer.bytes(&PROTECTED);
    writer.map(0);
    writer.bytes(payload);
    writer.bytes(signature);
    writer.into_bytes()
}

/// What is signed: the Sig_structure of RFC 9052, 4.4, without external data.
pub(crate) fn signed_bytes(payload: &[u8]) -> Vec<u8> {
    let mut writer = Writer::with_capacity(payload.len() + 24);
    writer.array(ELEMENTS);
    writer.text("Signature1");
    writer.bytes(&PROTECTED);
    writer.bytes(&[]);
    writer.bytes(payload);
    writer.into_bytes()
}
