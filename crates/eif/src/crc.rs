//! The file's CRC-32: damage shows, intent does not. Only the measurements tell one image from another.

use crate::HEADER_LEN;
use crate::header::CRC_OFFSET;

/// The CRC-32 of zlib and gzip over the header without its CRC field, then each section header and its data in file order.
///
/// Bytes after the last section are not part of it.
#[derive(Debug, Clone)]
pub struct FileCrc(crc32fast::Hasher);

impl FileCrc {
    /// Begins with the file header; [`crate::Header::as_bytes`] has it.
    pub fn new(header: &[u8; HEADER_LEN]) -> Self {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&header[..CRC_OFFSET]);
        Self(hasher)
    }

    /// Takes the next bytes of the file: for each section its [`crate::Section::header_bytes`], then its data.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Takes a run of the file's next bytes whose CRC was computed apart.
    pub(crate) fn append(&mut self, run: &crc32fast::Hasher) {
        self.0.combine(run);
    }

    /// The CRC of everything taken.
    pub fn finish(self) -> u32 {
        self.0.finalize()
    }
}
