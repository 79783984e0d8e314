//! Writes the CBOR (RFC 8949) that responses are made of: definite lengths, every length and integer in its shortest form.
//!
//! Unlike a general encoder it cannot fail, so that there is always an answer.

/// Major types (RFC 8949, section 3.1), in the upper three bits of an item's first byte.
const UNSIGNED: u8 = 0 << 5;
const BYTES: u8 = 2 << 5;
const TEXT: u8 = 3 << 5;
const ARRAY: u8 = 4 << 5;
const MAP: u8 = 5 << 5;

const FALSE: u8 = 0xf4;
const TRUE: u8 = 0xf5;

/// Items written one after the other. What belongs into an array or a map follows its head.
#[derive(Debug, Default)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    /// Everything written.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// The head of a map; `pairs` keys and values follow.
    pub(crate) fn map(&mut self, pairs: usize) -> &mut Self {
        self.head(MAP, pairs as u64)
    }

    /// The head of an array; `items` items follow.
    pub(crate) fn array(&mut self, items: usize) -> &mut Self {
        self.head(ARRAY, items as u64)
    }

    /// A text string.
    pub(crate) fn text(&mut self, text: &str) -> &mut Self {
        self.string(TEXT, text.as_bytes())
    }

    /// A byte string.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.string(BYTES, bytes)
    }

    /// An unsigned integer.
    pub(crate) fn unsigned(&mut self, value: u64) -> &mut Self {
        self.head(UNSIGNED, value)
    }

    /// A truth value.
    pub(crate) fn boolean(&mut self, value: bool) -> &mut Self {
        self.0.push(if value { TRUE } else { FALSE });
        self
    }

    fn string(&mut self, major: u8, content: &[u8]) -> &mut Self {
        self.head(major, content.len() as u64);
        self.0.extend_from_slice(content);
        self
    }

    /// An item's first byte and argument: a small one lies in the byte, a larger one follows in 1, 2, 4 or 8 bytes.
    fn head(&mut self, major: u8, argument: u64) -> &mut Self {
        let wide = argument.to_be_bytes();
        let [.., byte_3, byte_2, byte_1, byte_0] = wide;
        match argument {
            0..=23 => self.0.push(major | byte_0),
            24..=0xff => self.0.extend([major | 0x18, byte_0]),
            0x100..=0xffff => self.0.extend([major | 0x19, byte_1, byte_0]),
            0x1_0000..=0xffff_ffff => self.0.extend([major | 0x1a, byte_3, byte_2, byte_1, byte_0]),
            _ => {
                self.0.push(major | 0x1b);
                self.0.extend(wide);
            }
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of RFC 8949, appendix A, and each boundary between two widths.
    #[test]
    fn integers_have_their_shortest_form() {
        let known: [(u64, &[u8]); 12] = [
            (0, &[0x00]),
            (23, &[0x17]),
            (24, &[0x18, 24]),
            (100, &[0x18, 100]),
            (255, &[0x18, 0xff]),
            (256, &[0x19, 1, 0]),
            (1000, &[0x19, 0x03, 0xe8]),
            (65535, &[0x19, 0xff, 0xff]),
            (65536, &[0x1a, 0, 1, 0, 0]),
            (u64::from(u32::MAX), &[0x1a, 0xff, 0xff, 0xff, 0xff]),
            (1 << 32, &[0x1b, 0, 0, 0, 1, 0, 0, 0, 0]),
            (u64::MAX, &[0x1b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
        ];
        for (value, expected) in known {
            let mut writer = Writer::default();
            writer.unsigned(value);
            assert_eq!(writer.into_bytes(), expected, "{value}");
        }
    }

    #[test]
    fn other_items_are_as_in_the_standard() {
        let mut writer = Writer::default();
        writer
            .map(1)
            .text("a")
            .array(3)
            .bytes(&[1, 2])
            .boolean(true)
            .boolean(false);
        assert_eq!(
            writer.into_bytes(),
            [0xa1, 0x61, b'a', 0x83, 0x42, 1, 2, 0xf5, 0xf4]
        );
    }
}
