//! Reads the CBOR (RFC 8949) that requests are made of.
//!
//! What a client may vary is settled here, so that the requests above it read like their specification: integers of any
//! width, definite and indefinite lengths, three ways to write bytes. The rules are those of AWS's own client types under
//! serde and serde_cbor, or narrower: whatever is accepted here means the same there.
//!
//! Time is linear in the input: every item takes a byte at least, whatever number of items an array or a map claims.
//! Memory is bounded by the input: bytes are borrowed from it where they lie in it in one piece, and are otherwise copied
//! into a buffer of what is left of it. Recursion ends at [`MAX_DEPTH`].

use std::borrow::Cow;

use minicbor::data::Type;
use minicbor::decode::{Decoder, Error as CborError};

use crate::RequestError;

/// How deep arrays, maps and tags may lie within each other in a value that nobody asked for.
const MAX_DEPTH: usize = 16;

/// The first byte of a map with one pair.
const MAP_OF_ONE: u8 = 0xa1;

/// A position in a request.
#[derive(Debug)]
pub(crate) struct Reader<'a>(Decoder<'a>);

impl<'a> Reader<'a> {
    /// At the beginning of `bytes`.
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(Decoder::new(bytes))
    }

    /// Takes the head of a map with one pair if it comes next; it does nothing otherwise.
    ///
    /// Only the one-byte form will do: serde_cbor does not take another one for the head of a variant either.
    pub(crate) fn takes_map_of_one(&mut self) -> bool {
        let position = self.0.position();
        let takes = self.0.input().get(position) == Some(&MAP_OF_ONE);
        if takes {
            self.0.set_position(position + 1);
        }
        takes
    }

    /// An integer of any width whose value fits.
    pub(crate) fn u16(&mut self) -> Result<u16, RequestError> {
        self.0.u16().map_err(|error| self.malformed(&error))
    }

    /// Text.
    pub(crate) fn text(&mut self) -> Result<Cow<'a, str>, RequestError> {
        if self.next()? == Type::StringIndef {
            return self.pieces_of_text().map(Cow::Owned);
        }
        self.0
            .str()
            .map(Cow::Borrowed)
            .map_err(|error| self.malformed(&error))
    }

    /// Bytes: a byte string, an array of integers up to 255 (serde's form of a plain `Vec<u8>`), or text.
    pub(crate) fn bytes(&mut self) -> Result<Cow<'a, [u8]>, RequestError> {
        match self.next()? {
            Type::BytesIndef => self.pieces_of_bytes().map(Cow::Owned),
            Type::Array | Type::ArrayIndef => self.array_of_bytes().map(Cow::Owned),
            Type::String | Type::StringIndef => Ok(match self.text()? {
                Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
                Cow::Owned(text) => Cow::Owned(text.into_bytes()),
            }),
            _ => self
                .0
                .bytes()
                .map(Cow::Borrowed)
                .map_err(|error| self.malformed(&error)),
        }
    }

    /// Bytes, or null for none.
    pub(crate) fn optional_bytes(&mut self) -> Result<Option<Cow<'a, [u8]>>, RequestError> {
        if self.next()? == Type::Null {
            return self.skip_scalar().map(|()| None);
        }
        self.bytes().map(Some)
    }

    /// Null or undefined: what stands where nothing is needed.
    pub(crate) fn nothing(&mut self) -> Result<(), RequestError> {
        match self.next()? {
            Type::Null | Type::Undefined => self.skip_scalar(),
            _ => self.0.null().map_err(|error| self.malformed(&error)),
        }
    }

    /// A map from names to whatever `field` reads: it is given each name in turn and must take the value that follows.
    pub(crate) fn fields(
        &mut self,
        mut field: impl FnMut(&mut Self, &str) -> Result<(), RequestError>,
    ) -> Result<(), RequestError> {
        let mut pairs = self.map()?;
        while self.another(&mut pairs)? {
            let name = self.text()?;
            field(self, &name)?;
        }
        Ok(())
    }

    /// Takes a value of any form.
    pub(crate) fn skip(&mut self) -> Result<(), RequestError> {
        self.skip_within(MAX_DEPTH)
    }

    /// Requires that nothing follows.
    pub(crate) fn end(&self) -> Result<(), RequestError> {
        let position = self.0.position();
        if position < self.0.input().len() {
            return Err(RequestError::TrailingBytes { position });
        }
        Ok(())
    }

    /// What comes next.
    fn next(&self) -> Result<Type, RequestError> {
        self.0.datatype().map_err(|error| self.malformed(&error))
    }

    /// Bytes that are left.
    fn left(&self) -> usize {
        self.0.input().len().saturating_sub(self.0.position())
    }

    fn pieces_of_text(&mut self) -> Result<String, RequestError> {
        let mut text = String::with_capacity(self.left());
        let position = self.0.position();
        let pieces = self.0.str_iter().map_err(|error| malformed(position, &error))?;
        for piece in pieces {
            text.push_str(piece.map_err(|error| malformed(position, &error))?);
        }
        Ok(text)
    }

    fn pieces_of_bytes(&mut self) -> Result<Vec<u8>, RequestError> {
        let mut bytes = Vec::with_capacity(self.left());
        let position = self.0.position();
        let pieces = self.0.bytes_iter().map_err(|error| malformed(position, &error))?;
        for piece in pieces {
            bytes.extend_from_slice(piece.map_err(|error| malformed(position, &error))?);
        }
        Ok(bytes)
    }

    fn array_of_bytes(&mut self) -> Result<Vec<u8>, RequestError> {
        let mut items = self.array()?;
        let mut bytes = Vec::with_capacity(self.left());
        while self.another(&mut items)? {
            bytes.push(self.0.u8().map_err(|error| self.malformed(&error))?);
        }
        Ok(bytes)
    }

    /// Takes a value with at most `depth` levels of values inside.
    fn skip_within(&mut self, depth: usize) -> Result<(), RequestError> {
        let position = self.0.position();
        let (mut groups, values_per_group) = match self.next()? {
            Type::Array | Type::ArrayIndef => (self.array()?, 1),
            Type::Map | Type::MapIndef => (self.map()?, 2),
            Type::Tag => (self.tag()?, 1),
            Type::String | Type::StringIndef => return self.text().map(drop),
            // Simple values without a meaning; an end of something that has not begun; reserved.
            Type::Simple | Type::Break | Type::Unknown(_) => {
                return Err(RequestError::Malformed { position });
            }
            _ => return self.skip_scalar(),
        };
        let depth = depth.checked_sub(1).ok_or(RequestError::TooDeep { position })?;
        while self.another(&mut groups)? {
            for _ in 0..values_per_group {
                self.skip_within(depth)?;
            }
        }
        Ok(())
    }

    /// Takes a value without values inside.
    fn skip_scalar(&mut self) -> Result<(), RequestError> {
        self.0.skip().map_err(|error| self.malformed(&error))
    }

    /// The head of an array.
    fn array(&mut self) -> Result<Count, RequestError> {
        self.0
            .array()
            .map(Count::of)
            .map_err(|error| self.malformed(&error))
    }

    /// The head of a map.
    fn map(&mut self) -> Result<Count, RequestError> {
        self.0
            .map()
            .map(Count::of)
            .map_err(|error| self.malformed(&error))
    }

    /// The head of a tag. Its content is one item.
    fn tag(&mut self) -> Result<Count, RequestError> {
        self.0
            .tag()
            .map(|_| Count::Definite(1))
            .map_err(|error| self.malformed(&error))
    }

    /// Whether there is another item, which the caller then reads. Takes the mark at the end of an indefinite length.
    fn another(&mut self, count: &mut Count) -> Result<bool, RequestError> {
        match count {
            Count::Definite(left) => {
                let another = *left > 0;
                *left = left.saturating_sub(1);
                Ok(another)
            }
            Count::UntilBreak => {
                let ends = self.next()? == Type::Break;
                if ends {
                    self.0.set_position(self.0.position() + 1);
                }
                Ok(!ends)
            }
        }
    }

    fn malformed(&self, error: &CborError) -> RequestError {
        malformed(self.0.position(), error)
    }
}

/// How many items of an array, or pairs of a map, are still to come.
#[derive(Debug)]
enum Count {
    Definite(u64),
    UntilBreak,
}

impl Count {
    fn of(length: Option<u64>) -> Self {
        length.map_or(Self::UntilBreak, Self::Definite)
    }
}

/// Something else was expected, at `position` unless the decoder knows better.
fn malformed(position: usize, error: &CborError) -> RequestError {
    RequestError::Malformed {
        position: error.position().unwrap_or(position),
    }
}
