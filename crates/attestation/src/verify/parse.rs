//! From bytes to an unverified document.
//!
//! The keys come in the order in which genuine documents have them, so nothing is looked up, nothing is there twice, and
//! nothing is nested deeper than the format. Certificates stay bytes until the pinned root has been compared.

use std::collections::BTreeMap;

use crate::cbor::{Reader, Unexpected};
use crate::content::{ContentFault, DIGEST};
use crate::cose::Frame;
use crate::document::KEYS;
use crate::{
    AttestationContent, MAX_CABUNDLE, MAX_CERTIFICATE, MAX_DOCUMENT, PCR_COUNT, PCR_LEN, SIGNATURE_LEN,
    Timestamp,
};

/// A document that is well-formed. Nothing that it says has been verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnverifiedDocument<'a> {
    pub(super) content: AttestationContent,
    pub(super) leaf: &'a [u8],
    pub(super) cabundle: Vec<&'a [u8]>,
    pub(super) payload: &'a [u8],
    pub(super) signature: [u8; SIGNATURE_LEN],
}

impl<'a> UnverifiedDocument<'a> {
    /// Parses a document of [`MAX_DOCUMENT`] bytes at most.
    pub fn parse(document: &'a [u8]) -> Result<Self, DocumentError> {
        if document.len() > MAX_DOCUMENT {
            return Err(DocumentError::Size(document.len()));
        }
        let frame = Frame::read(document)?;
        let mut reader = PayloadReader::new(frame.payload, frame.payload_offset);
        let indefinite = reader.map_head()?;
        let module_id = reader.module_id()?;
        reader.digest()?;
        let timestamp = reader.timestamp()?;
        let pcrs = reader.pcrs()?;
        let leaf = reader.certificate()?;
        let cabundle = reader.cabundle()?;
        let content = AttestationContent {
            module_id,
            timestamp,
            pcrs,
            public_key: reader.optional_bytes("the key public_key", "public_key: a byte string or null")?,
            user_data: reader.optional_bytes("the key user_data", "user_data: a byte string or null")?,
            nonce: reader.optional_bytes("the key nonce", "nonce: a byte string or null")?,
        };
        reader.finish(indefinite)?;
        if let Some(fault) = content.fault() {
            return Err(DocumentError::Content(fault));
        }
        Ok(Self {
            content,
            leaf,
            cabundle,
            payload: frame.payload,
            signature: frame.signature,
        })
    }

    /// What it claims. Anyone can write a document that claims anything.
    pub fn claimed(&self) -> &AttestationContent {
        &self.content
    }
}

/// Reads the payload; one function for each entry, in their order.
struct PayloadReader<'a> {
    reader: Reader<'a>,
    /// Where the payload begins in the document, so that errors name places there.
    base: usize,
}

impl<'a> PayloadReader<'a> {
    fn new(payload: &'a [u8], base: usize) -> Self {
        Self {
            reader: Reader::new(payload),
            base,
        }
    }

    /// Whether the map is of the indefinite form.
    fn map_head(&mut self) -> Result<bool, DocumentError> {
        if self.reader.begins_indefinite_map() {
            return Ok(true);
        }
        self.check("a map of nine entries", |reader, expected| {
            let len = reader.map(expected)?;
            Ok((len == KEYS as u64).then_some(false))
        })
    }

    fn module_id(&mut self) -> Result<String, DocumentError> {
        self.key("module_id", "the key module_id")?;
        self.check("module_id: text", |reader, expected| {
            reader.text(expected).map(|id| Some(id.to_owned()))
        })
    }

    fn digest(&mut self) -> Result<(), DocumentError> {
        self.key("digest", "the key digest")?;
        self.check("digest: the text SHA384", |reader, expected| {
            Ok((reader.text(expected)? == DIGEST).then_some(()))
        })
    }

    fn timestamp(&mut self) -> Result<Timestamp, DocumentError> {
        self.key("timestamp", "the key timestamp")?;
        self.check("timestamp: an unsigned integer", |reader, expected| {
            let millis = reader.uint_of_any_width(expected)?;
            Ok(Some(Timestamp::from_millis(millis)))
        })
    }

    fn pcrs(&mut self) -> Result<BTreeMap<u8, [u8; PCR_LEN]>, DocumentError> {
        self.key("pcrs", "the key pcrs")?;
        let count = self.check("pcrs: a map of 1 to 32 registers", |reader, expected| {
            let count = reader.map(expected)?;
            Ok((1..=u64::from(PCR_COUNT)).contains(&count).then_some(count))
        })?;
        let mut pcrs = BTreeMap::new();
        for _ in 0..count {
            let last = pcrs.last_key_value().map(|(index, _)| *index);
            let index = self.check(
                "a PCR's index, 0 to 31, in ascending order",
                |reader, expected| {
                    let index = u8::try_from(reader.uint(expected)?).ok();
                    Ok(index.filter(|index| *index < PCR_COUNT && last.is_none_or(|last| last < *index)))
                },
            )?;
            let value = self.check("a PCR's value: a byte string of 48", |reader, expected| {
                Ok(reader.bytes(expected)?.try_into().ok())
            })?;
            pcrs.insert(index, value);
        }
        Ok(pcrs)
    }

    fn certificate(&mut self) -> Result<&'a [u8], DocumentError> {
        self.key("certificate", "the key certificate")?;
        self.check("certificate: a byte string of 1 to 1024", certificate_bytes)
    }

    fn cabundle(&mut self) -> Result<Vec<&'a [u8]>, DocumentError> {
        self.key("cabundle", "the key cabundle")?;
        let count = self.check("cabundle: an array of 1 to 6 certificates", |reader, expected| {
            let count = usize::try_from(reader.array(expected)?).ok();
            Ok(count.filter(|count| (1..=MAX_CABUNDLE).contains(count)))
        })?;
        (0..count)
            .map(|_| {
                self.check(
                    "a certificate of cabundle: a byte string of 1 to 1024",
                    certificate_bytes,
                )
            })
            .collect()
    }

    fn optional_bytes(
        &mut self,
        key: &'static str,
        value: &'static str,
    ) -> Result<Option<Vec<u8>>, DocumentError> {
        let name = key.strip_prefix("the key ").unwrap_or(key);
        self.key(name, key)?;
        self.check(value, |reader, expected| {
            let bytes = reader.bytes_or_null(expected)?;
            Ok(Some(bytes.map(<[u8]>::to_vec)))
        })
    }

    fn finish(&mut self, indefinite: bool) -> Result<(), DocumentError> {
        if indefinite {
            self.check("the end of the map after nine entries", |reader, _| {
                reader.end_of_map().map(Some)
            })?;
        }
        self.check("nothing after the map", |reader, _| reader.finish().map(Some))
    }

    fn key(&mut self, name: &str, expected: &'static str) -> Result<(), DocumentError> {
        self.check(expected, |reader, expected| {
            Ok((reader.text(expected)? == name).then_some(()))
        })
    }

    /// Reads an item and takes it if `read` gives something for it.
    fn check<T>(
        &mut self,
        expected: &'static str,
        read: impl FnOnce(&mut Reader<'a>, &'static str) -> Result<Option<T>, Unexpected>,
    ) -> Result<T, DocumentError> {
        let offset = self.reader.offset() + self.base;
        match read(&mut self.reader, expected) {
            Ok(Some(item)) => Ok(item),
            _ => Err(DocumentError::Expected { expected, offset }),
        }
    }
}

fn certificate_bytes<'a>(
    reader: &mut Reader<'a>,
    expected: &'static str,
) -> Result<Option<&'a [u8]>, Unexpected> {
    let der = reader.bytes(expected)?;
    Ok((1..=MAX_CERTIFICATE).contains(&der.len()).then_some(der))
}

/// Why bytes are not a document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// Too long.
    #[error("{0} bytes, and a document has {MAX_DOCUMENT} at most")]
    Size(usize),
    /// Something else than what belongs there.
    #[error("expected {expected} at offset {offset:#x}")]
    Expected {
        /// What belongs there.
        expected: &'static str,
        /// Where: an offset in the document.
        offset: usize,
    },
    /// It says what no document may.
    #[error(transparent)]
    Content(ContentFault),
}

impl From<Unexpected> for DocumentError {
    fn from(Unexpected { expected, offset }: Unexpected) -> Self {
        Self::Expected { expected, offset }
    }
}
