//! The 512-byte header block.

use super::TarError;
use super::sparse::HeaderMap;

/// Size of a block; headers and data begin at multiples of it.
pub(super) const BLOCK: usize = 512;

/// A header whose checksum is right. Fields are decoded when asked for.
#[derive(Debug)]
pub(super) struct Header<'a> {
    block: &'a [u8; BLOCK],
    offset: u64,
    /// Type of the entry.
    pub(super) flag: u8,
    /// Bytes of data that follow; 0 for types without data, whatever the field says.
    pub(super) size: u64,
}

impl<'a> Header<'a> {
    pub(super) fn parse(block: &'a [u8; BLOCK], offset: u64) -> Result<Self, TarError> {
        // The sum of all bytes with the checksum field taken as spaces. Some old writers summed signed bytes.
        let others = || block[..148].iter().chain(&block[156..]);
        let unsigned = others().map(|byte| i64::from(*byte)).sum::<i64>() + 8 * 32;
        let signed = others().map(|byte| i64::from(byte.cast_signed())).sum::<i64>() + 8 * 32;
        let expected = parse_number(&block[148..156]).ok_or(TarError::Checksum(offset))?;
        if expected != unsigned && expected != signed {
            return Err(TarError::Checksum(offset));
        }
        let flag = block[156];
        let mut header = Self {
            block,
            offset,
            flag,
            size: 0,
        };
        if !matches!(flag, b'1'..=b'6') {
            header.size = header.number(124..136, "size")?;
        }
        Ok(header)
    }

    /// The name, put together with the prefix that ustar has.
    pub(super) fn name(&self) -> Vec<u8> {
        let name = text(&self.block[..100]);
        let prefix = text(&self.block[345..500]);
        // GNU's magic is "ustar  \0"; it uses the place of the prefix for other things.
        if &self.block[257..263] != b"ustar\0" || prefix.is_empty() {
            return name.to_vec();
        }
        [prefix, b"/", name].concat()
    }

    pub(super) fn link_name(&self) -> Vec<u8> {
        text(&self.block[157..257]).to_vec()
    }

    /// Permissions with set-user-ID, set-group-ID and sticky bit.
    pub(super) fn mode(&self) -> Result<u16, TarError> {
        let mode = self.number(100..108, "mode")? & 0o7777;
        u16::try_from(mode).map_err(|_| self.invalid("mode"))
    }

    pub(super) fn uid(&self) -> Result<u64, TarError> {
        self.number(108..116, "owner")
    }

    pub(super) fn gid(&self) -> Result<u64, TarError> {
        self.number(116..124, "group")
    }

    /// Seconds since 1970; may be negative.
    pub(super) fn mtime(&self) -> Result<i64, TarError> {
        parse_number(&self.block[136..148]).ok_or_else(|| self.invalid("modification time"))
    }

    pub(super) fn major(&self) -> Result<u32, TarError> {
        self.device_number(329..337)
    }

    pub(super) fn minor(&self) -> Result<u32, TarError> {
        self.device_number(337..345)
    }

    /// The first part of the map of an old GNU sparse file.
    pub(super) fn sparse_map(&self) -> Result<HeaderMap, TarError> {
        let mut map = HeaderMap {
            size: self.number(483..495, "size")?,
            ..HeaderMap::default()
        };
        map.add_parts(&self.block[386..482], self.block[482], self.offset)?;
        Ok(map)
    }

    fn device_number(&self, field: std::ops::Range<usize>) -> Result<u32, TarError> {
        let number = self.number(field, "device number")?;
        u32::try_from(number).map_err(|_| self.invalid("device number"))
    }

    fn number(&self, field: std::ops::Range<usize>, name: &'static str) -> Result<u64, TarError> {
        parse_number(&self.block[field])
            .and_then(|number| u64::try_from(number).ok())
            .ok_or_else(|| self.invalid(name))
    }

    fn invalid(&self, field: &'static str) -> TarError {
        TarError::Number {
            offset: self.offset,
            field,
        }
    }
}

/// A numeric field: octal digits with spaces or NULs around them, or GNU's big-endian two's complement, whose first bit
/// is set. An empty field is 0.
pub(super) fn parse_number(field: &[u8]) -> Option<i64> {
    let (first, rest) = field.split_first()?;
    if first & 0x80 != 0 {
        let is_negative = first & 0x40 != 0;
        let start = if is_negative {
            i64::from(*first) - 0x100
        } else {
            i64::from(first & 0x7f)
        };
        return rest.iter().try_fold(start, |value, byte| {
            value.checked_mul(256)?.checked_add(i64::from(*byte))
        });
    }
    let digits = field.trim_ascii_start();
    let end = digits
        .iter()
        .position(|byte| matches!(byte, 0 | b' '))
        .unwrap_or(digits.len());
    digits[..end].iter().try_fold(0_i64, |value, byte| {
        let digit = matches!(byte, b'0'..=b'7').then(|| i64::from(byte - b'0'))?;
        value.checked_mul(8)?.checked_add(digit)
    })
}

pub(super) fn length_until_nul(bytes: &[u8]) -> usize {
    bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len())
}

fn text(field: &[u8]) -> &[u8] {
    &field[..length_until_nul(field)]
}
