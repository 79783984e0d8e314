//! The little CBOR (RFC 8949) that a document is made of.
//!
//! Reading is strict: what has more than one encoding is taken in the shortest one only, and lengths come first. So a byte
//! that no signature covers cannot be changed without notice.

use minicbor::Decoder;
use minicbor::data::Type;

/// Major types, in the upper three bits of an item's first byte.
const UINT: u8 = 0 << 5;
const BYTES: u8 = 2 << 5;
const TEXT: u8 = 3 << 5;
const ARRAY: u8 = 4 << 5;
const MAP: u8 = 5 << 5;

const NULL: u8 = 0xf6;
const UINT64: u8 = 0x1b;
const INDEFINITE_MAP: u8 = 0xbf;
const BREAK: u8 = 0xff;

/// Appends items to a byte vector.
#[derive(Default)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        Self(Vec::with_capacity(capacity))
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    pub(crate) fn uint(&mut self, value: u64) {
        self.head(UINT, value);
    }

    /// In the form of eight bytes, whatever the value.
    pub(crate) fn uint64(&mut self, value: u64) {
        self.0.push(UINT64);
        self.0.extend(value.to_be_bytes());
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.head(BYTES, bytes.len() as u64);
        self.0.extend(bytes);
    }

    pub(crate) fn bytes_or_null(&mut self, bytes: Option<&[u8]>) {
        match bytes {
            Some(bytes) => self.bytes(bytes),
            None => self.0.push(NULL),
        }
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.head(TEXT, text.len() as u64);
        self.0.extend(text.as_bytes());
    }

    pub(crate) fn array(&mut self, len: usize) {
        self.head(ARRAY, len as u64);
    }

    pub(crate) fn map(&mut self, len: usize) {
        self.head(MAP, len as u64);
    }

    pub(crate) fn begin_map(&mut self) {
        self.0.push(INDEFINITE_MAP);
    }

    pub(crate) fn end(&mut self) {
        self.0.push(BREAK);
    }

    /// The first bytes of an item, the shortest that hold `value`.
    fn head(&mut self, major: u8, value: u64) {
        let [.., b3, b2, b1, b0] = value.to_be_bytes();
        match value {
            0..=0x17 => self.0.push(major | b0),
            0x18..=0xff => self.0.extend([major | 0x18, b0]),
            0x100..=0xffff => self.0.extend([major | 0x19, b1, b0]),
            0x1_0000..=0xffff_ffff => self.0.extend([major | 0x1a, b3, b2, b1, b0]),
            _ => {
                self.0.push(major | 0x1b);
                self.0.extend(value.to_be_bytes());
            }
        }
    }
}

/// How many bytes the shortest head of `value` has.
fn head_len(value: u64) -> usize {
    match value {
        0..=0x17 => 1,
        0x18..=0xff => 2,
        0x100..=0xffff => 3,
        0x1_0000..=0xffff_ffff => 5,
        _ => 9,
    }
}

/// What was expected and where it was not. The offset counts from the start of what was read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected} at offset {offset:#x}")]
pub(crate) struct Unexpected {
    pub(crate) expected: &'static str,
    pub(crate) offset: usize,
}

/// Reads items one after the other; never goes back.
pub(crate) struct Reader<'a>(Decoder<'a>);

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(Decoder::new(bytes))
    }

    pub(crate) fn offset(&self) -> usize {
        self.0.position()
    }

    /// Nothing follows.
    pub(crate) fn finish(&self) -> Result<(), Unexpected> {
        if self.offset() == self.0.input().len() {
            Ok(())
        } else {
            Err(Unexpected {
                expected: "the end",
                offset: self.offset(),
            })
        }
    }

    /// `tag` if it comes next; nothing is taken otherwise.
    pub(crate) fn optional_tag(&mut self, tag: u64) -> Result<(), Unexpected> {
        if !matches!(self.0.datatype(), Ok(Type::Tag)) {
            return Ok(());
        }
        self.item("tag 18 or none", |decoder| {
            let found = decoder.tag().ok()?.as_u64();
            (found == tag).then(|| ((), head_len(tag)))
        })
    }

    pub(crate) fn uint(&mut self, expected: &'static str) -> Result<u64, Unexpected> {
        self.item(expected, |decoder| {
            let value = decoder.u64().ok()?;
            Some((value, head_len(value)))
        })
    }

    /// In whatever form: the one place where documents have eight bytes although fewer may do.
    pub(crate) fn uint_of_any_width(&mut self, expected: &'static str) -> Result<u64, Unexpected> {
        let offset = self.offset();
        self.0.u64().map_err(|_| Unexpected { expected, offset })
    }

    pub(crate) fn bytes(&mut self, expected: &'static str) -> Result<&'a [u8], Unexpected> {
        self.item(expected, |decoder| {
            let bytes = decoder.bytes().ok()?;
            Some((bytes, head_len(bytes.len() as u64) + bytes.len()))
        })
    }

    pub(crate) fn bytes_or_null(&mut self, expected: &'static str) -> Result<Option<&'a [u8]>, Unexpected> {
        if matches!(self.0.datatype(), Ok(Type::Null)) {
            return self.item(expected, |decoder| {
                decoder.null().ok()?;
                Some((None, 1))
            });
        }
        self.bytes(expected).map(Some)
    }

    pub(crate) fn text(&mut self, expected: &'static str) -> Result<&'a str, Unexpected> {
        self.item(expected, |decoder| {
            let text = decoder.str().ok()?;
            Some((text, head_len(text.len() as u64) + text.len()))
        })
    }

    /// The number of elements of an array that states it.
    pub(crate) fn array(&mut self, expected: &'static str) -> Result<u64, Unexpected> {
        self.item(expected, |decoder| {
            let len = decoder.array().ok()??;
            Some((len, head_len(len)))
        })
    }

    /// The number of entries of a map that states it.
    pub(crate) fn map(&mut self, expected: &'static str) -> Result<u64, Unexpected> {
        self.item(expected, |decoder| {
            let len = decoder.map().ok()??;
            Some((len, head_len(len)))
        })
    }

    /// Whether a map without a stated number of entries begins here; its first byte is taken if so.
    pub(crate) fn begins_indefinite_map(&mut self) -> bool {
        self.take(INDEFINITE_MAP)
    }

    /// The end of such a map.
    pub(crate) fn end_of_map(&mut self) -> Result<(), Unexpected> {
        let offset = self.offset();
        if self.take(BREAK) {
            Ok(())
        } else {
            Err(Unexpected {
                expected: "the end of the map",
                offset,
            })
        }
    }

    fn take(&mut self, byte: u8) -> bool {
        let offset = self.offset();
        let there = self.0.input().get(offset) == Some(&byte);
        if there {
            self.0.set_position(offset + 1);
        }
        there
    }

    /// One item, which `read` gives with the length of its shortest encoding.
    fn item<T>(
        &mut self,
        expected: &'static str,
        read: impl FnOnce(&mut Decoder<'a>) -> Option<(T, usize)>,
    ) -> Result<T, Unexpected> {
        let offset = self.offset();
        match read(&mut self.0) {
            Some((item, shortest)) if self.offset() - offset == shortest => Ok(item),
            _ => Err(Unexpected { expected, offset }),
        }
    }
}
