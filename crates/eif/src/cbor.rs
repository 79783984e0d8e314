//! The parts of CBOR (RFC 8949) that signatures are made of.
//!
//! AWS's tools write bytes as an array of integers, one for each byte, where CBOR has a type for strings of bytes.

use minicbor::data::Type;
use minicbor::decode::{Decoder, Error};

/// The major types that are written.
const UNSIGNED: u8 = 0;
const BYTES: u8 = 2;
const TEXT: u8 = 3;
const ARRAY: u8 = 4;
const MAP: u8 = 5;

/// CBOR being written: every length definite, every number in its shortest form.
#[derive(Debug, Default)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    pub(crate) fn finish(self) -> Vec<u8> {
        self.0
    }

    pub(crate) fn unsigned(&mut self, value: u64) {
        self.head(UNSIGNED, value);
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.head(BYTES, bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.head(TEXT, text.len() as u64);
        self.0.extend_from_slice(text.as_bytes());
    }

    /// The head of an array; its items are written next.
    pub(crate) fn array(&mut self, items: u64) {
        self.head(ARRAY, items);
    }

    /// The head of a map; keys and values are written next, in turn.
    pub(crate) fn map(&mut self, pairs: u64) {
        self.head(MAP, pairs);
    }

    /// `bytes` as an array of integers.
    pub(crate) fn byte_array(&mut self, bytes: &[u8]) {
        self.array(bytes.len() as u64);
        for byte in bytes {
            self.unsigned(u64::from(*byte));
        }
    }

    /// Major type and argument.
    fn head(&mut self, major: u8, argument: u64) {
        let major = major << 5;
        let [.., b4, b5, b6, b7] = argument.to_be_bytes();
        match argument {
            0..=23 => self.0.push(major | b7),
            24..=0xff => self.0.extend([major | 0x18, b7]),
            0x100..=0xffff => self.0.extend([major | 0x19, b6, b7]),
            0x1_0000..=0xffff_ffff => self.0.extend([major | 0x1a, b4, b5, b6, b7]),
            _ => {
                self.0.push(major | 0x1b);
                self.0.extend(argument.to_be_bytes());
            }
        }
    }
}

/// How many items of an array, or pairs of a map, are still to come.
pub(crate) enum Items {
    Definite(u64),
    UntilBreak,
}

impl Items {
    /// From the head that was just read.
    pub(crate) fn of(head: Option<u64>) -> Self {
        head.map_or(Self::UntilBreak, Self::Definite)
    }

    /// Whether there is another one, which the caller then reads. Takes the mark at the end.
    pub(crate) fn another(&mut self, decoder: &mut Decoder<'_>) -> Result<bool, Error> {
        match self {
            Self::Definite(0) => Ok(false),
            Self::Definite(left) => {
                *left -= 1;
                Ok(true)
            }
            Self::UntilBreak if decoder.datatype()? == Type::Break => {
                decoder.skip()?;
                Ok(false)
            }
            Self::UntilBreak => Ok(true),
        }
    }
}

/// An array of integers below 256. It grows as they come: the length it claims is not trusted.
pub(crate) fn read_byte_array(decoder: &mut Decoder<'_>) -> Result<Vec<u8>, Error> {
    let mut items = Items::of(decoder.array()?);
    let mut bytes = Vec::new();
    while items.another(decoder)? {
        bytes.push(decoder.u8()?);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_width_of_an_argument_is_the_shortest() {
        let cases: [(u64, &[u8]); 9] = [
            (0, &[0x80]),
            (23, &[0x97]),
            (24, &[0x98, 24]),
            (0xff, &[0x98, 0xff]),
            (0x100, &[0x99, 1, 0]),
            (0xffff, &[0x99, 0xff, 0xff]),
            (0x1_0000, &[0x9a, 0, 1, 0, 0]),
            (0xffff_ffff, &[0x9a, 0xff, 0xff, 0xff, 0xff]),
            (0x1_0000_0000, &[0x9b, 0, 0, 0, 1, 0, 0, 0, 0]),
        ];
        for (items, expected) in cases {
            let mut writer = Writer::default();
            writer.array(items);
            assert_eq!(writer.finish(), expected);
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(number: u64, bytes: Vec<u8>, text: String) {
            let mut writer = Writer::default();
            writer.unsigned(number);
            writer.bytes(&bytes);
            writer.text(&text);
            writer.byte_array(&bytes);
            let written = writer.finish();

            let mut decoder = Decoder::new(&written);
            prop_assert_eq!(decoder.u64().unwrap(), number);
            prop_assert_eq!(decoder.bytes().unwrap(), &bytes);
            prop_assert_eq!(decoder.str().unwrap(), text);
            prop_assert_eq!(read_byte_array(&mut decoder).unwrap(), bytes);
            prop_assert_eq!(decoder.position(), written.len());
        }
    }
}
