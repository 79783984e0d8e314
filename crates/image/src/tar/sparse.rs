//! Maps of sparse files: which parts of a file are stored, the rest being zeros.

use super::TarError;
use super::header::{BLOCK, parse_number};
use super::pax::decimal;

/// Most parts a sparse file may have. A file of 4 GiB, the most a ramdisk takes, cut into 16 KiB pieces has as many.
pub(super) const EXTENT_LIMIT: usize = 1 << 18;

/// A stored part of a sparse file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Where in the file it belongs.
    pub(crate) at: u64,
    /// Where in the archive it is.
    pub(crate) offset: u64,
    /// Its length in bytes, never 0.
    pub(crate) length: u64,
}

/// Turns parts (place in the file, length) whose bytes follow one another at `offset` into extents. `None` when they
/// overlap, leave the file, or do not take exactly the `stored` bytes.
pub(super) fn place(parts: &[(u64, u64)], offset: u64, stored: u64, size: u64) -> Option<Box<[Extent]>> {
    let mut extents = Vec::with_capacity(parts.len());
    let (mut end_in_file, mut used) = (0_u64, 0_u64);
    for &(at, length) in parts {
        if at < end_in_file {
            return None;
        }
        end_in_file = at.checked_add(length)?;
        if length > 0 {
            extents.push(Extent {
                at,
                offset: offset.checked_add(used)?,
                length,
            });
        }
        used = used.checked_add(length)?;
    }
    (end_in_file <= size && used == stored).then(|| extents.into())
}

/// The map of an old GNU sparse file (`S`): four parts in the header, 21 more in each block that follows it.
#[derive(Debug, Default)]
pub(super) struct HeaderMap {
    pub(super) parts: Vec<(u64, u64)>,
    /// Length of the file.
    pub(super) size: u64,
    /// Whether another block of the map follows.
    pub(super) continues: bool,
}

impl HeaderMap {
    pub(super) fn add_block(&mut self, block: &[u8; BLOCK], offset: u64) -> Result<(), TarError> {
        self.add_parts(&block[..504], block[504], offset)
    }

    /// Adds records of 12 + 12 bytes; one that begins with a NUL ends the list.
    pub(super) fn add_parts(&mut self, records: &[u8], continues: u8, offset: u64) -> Result<(), TarError> {
        let number = |field| {
            let number = parse_number(field).and_then(|number| u64::try_from(number).ok());
            number.ok_or(TarError::Sparse(offset))
        };
        for record in records.chunks_exact(24).take_while(|record| record[0] != 0) {
            self.parts.push((number(&record[..12])?, number(&record[12..])?));
        }
        if self.parts.len() > EXTENT_LIMIT {
            return Err(TarError::Sparse(offset));
        }
        self.continues = continues != 0;
        Ok(())
    }
}

/// What pax records say about a sparse file, in any of GNU tar's three versions.
#[derive(Debug, Default)]
pub(super) struct PaxSparse {
    pub(super) major: u64,
    pub(super) minor: u64,
    /// The file's name; `path` holds a made-up one.
    pub(super) name: Option<Vec<u8>>,
    /// Length of the file.
    pub(super) size: Option<u64>,
    /// The map of versions 0.0 and 0.1.
    pub(super) parts: Vec<(u64, u64)>,
    /// Version 0.0: an offset whose length is still to come.
    offset: Option<u64>,
}

impl PaxSparse {
    /// Version 1.0 has its map before the data.
    pub(super) fn is_in_data(&self) -> bool {
        (self.major, self.minor) == (1, 0)
    }

    /// Versions 0.0 and 0.1 have it in the records.
    pub(super) fn is_in_record(&self) -> bool {
        !self.parts.is_empty() || self.size.is_some()
    }

    /// Version 0.1: `offset,length,offset,length…`.
    pub(super) fn set_map(&mut self, value: &[u8]) -> Option<()> {
        let numbers: Vec<u64> = value
            .split(|byte| *byte == b',')
            .map(decimal)
            .collect::<Option<_>>()?;
        self.parts = pairs(&numbers)?;
        Some(())
    }

    /// Version 0.0: first of a pair of records.
    pub(super) fn add_offset(&mut self, offset: u64) -> Option<()> {
        self.offset.replace(offset).is_none().then_some(())
    }

    /// Version 0.0: second of a pair of records.
    pub(super) fn add_length(&mut self, length: u64) -> Option<()> {
        self.parts.push((self.offset.take()?, length));
        (self.parts.len() <= EXTENT_LIMIT).then_some(())
    }
}

/// The map of pax version 1.0, in lines: the number of parts, then offset and length of each.
#[derive(Debug, Default)]
pub(super) struct TextMap {
    numbers: Vec<u64>,
    line: Vec<u8>,
}

impl TextMap {
    /// How many numbers the map has, once its first line is known.
    fn expected(&self) -> Option<u64> {
        self.numbers
            .first()
            .map(|count| count.saturating_mul(2).saturating_add(1))
    }

    pub(super) fn is_complete(&self) -> bool {
        self.expected() == Some(self.numbers.len() as u64)
    }

    /// Takes the next block; what follows the map within it is padding.
    pub(super) fn add(&mut self, block: &[u8]) -> Option<()> {
        for byte in block {
            if self.is_complete() {
                break;
            }
            if *byte == b'\n' {
                self.numbers.push(decimal(&self.line)?);
                self.line.clear();
            } else {
                self.line.push(*byte);
            }
            if self.line.len() > 20 || self.expected() > Some(2 * EXTENT_LIMIT as u64) {
                return None;
            }
        }
        Some(())
    }

    pub(super) fn into_parts(self) -> Option<Vec<(u64, u64)>> {
        pairs(self.numbers.get(1..)?)
    }
}

fn pairs(numbers: &[u64]) -> Option<Vec<(u64, u64)>> {
    let (pairs, rest) = numbers.as_chunks::<2>();
    rest.is_empty()
        .then(|| pairs.iter().map(|[at, length]| (*at, *length)).collect())
}
