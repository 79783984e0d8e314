//! Reads tar archives as a stream and tells where the contents of each file lie, so that they can be read later.
//!
//! Container tools write several dialects, often mixed in one archive. All of these are read:
//!
//! * POSIX.1-1988 "ustar" and the older V7 header,
//! * POSIX.1-2001 "pax" extended headers (`path`, `linkpath`, `size`, `uid`, `gid`, `mtime`, `SCHILY.xattr.*`),
//! * GNU long names (`L`, `K`) and base-256 numbers,
//! * sparse files: old GNU (`S`) and the pax variants 0.0, 0.1 and 1.0.
//!
//! Global pax headers (`g`) are skipped, as container engines do. Everything else that cannot be represented is an error
//! that names the position, in bytes from the beginning of the uncompressed archive.
//!
//! Archives are hostile input. Memory is bounded: an extended header may take [`EXTENSION_LIMIT`] bytes, a sparse file
//! have [`sparse::EXTENT_LIMIT`] parts, and nothing else is kept between entries.

mod header;
mod pax;
mod sparse;
#[cfg(test)]
mod tests;

use std::io::{self, Read};

use crate::cpio::{Attributes, Device};
use crate::range::RangeReader;
use header::{BLOCK, Header};
use pax::Extensions;
pub(crate) use sparse::Extent;

/// Most bytes of one extended header or long name; the limit of Go's `archive/tar`, which all engines use.
const EXTENSION_LIMIT: u64 = 1 << 20;

/// Why an archive cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TarError {
    /// The archive ends within an entry.
    #[error("the archive is truncated: it ends within the entry at byte {0}")]
    Truncated(u64),
    /// A header's checksum is wrong: it is damaged, or this is no tar archive.
    #[error("the bytes at {0} are not a tar header (wrong checksum)")]
    Checksum(u64),
    /// A numeric field holds no number, or one out of range.
    #[error("the tar header at byte {offset} has an invalid {field}")]
    Number {
        /// Position of the header.
        offset: u64,
        /// Name of the field.
        field: &'static str,
    },
    /// A pax extended header is malformed.
    #[error("the pax header at byte {0} is malformed")]
    Pax(u64),
    /// The map of a sparse file is malformed.
    #[error("the sparse file at byte {0} has a malformed map")]
    Sparse(u64),
    /// An extended header or long name is unreasonably long.
    #[error("the extended header at byte {0} is longer than 1 MiB")]
    ExtensionTooLong(u64),
    /// An entry of a type that has no meaning in a file system image.
    #[error("the entry at byte {offset} has the unsupported type `{flag}`")]
    Type {
        /// Position of the header.
        offset: u64,
        /// The type flag, escaped.
        flag: String,
    },
    /// Reading failed.
    #[error("reading the archive failed")]
    Io(#[from] io::Error),
}

/// One entry. Names and link targets are the archive's bytes, unchecked.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) name: Vec<u8>,
    pub(crate) attributes: Attributes,
    pub(crate) kind: Kind,
    /// Extended attributes: name and value.
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What an entry is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    File(Data),
    Directory,
    Symlink(Vec<u8>),
    /// Another name for the entry of the given name.
    HardLink(Vec<u8>),
    Device(Device),
}

/// Where in the archive the contents of a file are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Data {
    /// Length of the file.
    pub(crate) size: u64,
    pub(crate) layout: Layout,
}

/// How the contents of a file are stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// In one piece, at this position.
    Contiguous(u64),
    /// In parts, in ascending order; what is between them reads as zeros.
    Sparse(Box<[Extent]>),
}

/// A stream of bytes in which the contents of files may be passed over.
pub(crate) trait Input: Read {
    /// Goes forward by `bytes`, or to the end. Returns how far it went.
    fn skip(&mut self, bytes: u64) -> io::Result<u64>
    where
        Self: Sized,
    {
        io::copy(&mut self.by_ref().take(bytes), &mut io::sink())
    }
}

impl Input for RangeReader {
    fn skip(&mut self, bytes: u64) -> io::Result<u64> {
        Ok(self.advance(bytes))
    }
}

impl<I: Input> Input for &mut I {
    fn skip(&mut self, bytes: u64) -> io::Result<u64> {
        (**self).skip(bytes)
    }
}

/// Reads entries one after the other.
#[derive(Debug)]
pub(crate) struct Reader<I> {
    input: I,
    /// Bytes of the archive read or skipped.
    position: u64,
    /// Bytes of the current entry, with padding, that are still to be skipped.
    unread: u64,
    /// Where the current entry's header is, for error messages.
    header_at: u64,
}

impl<I: Input> Reader<I> {
    pub(crate) fn new(input: I) -> Self {
        Self {
            input,
            position: 0,
            unread: 0,
            header_at: 0,
        }
    }

    /// The next entry, or `None` at the end of the archive: a block of zeros or the end of the stream.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>, TarError> {
        let mut extensions = Extensions::default();
        loop {
            self.skip_rest()?;
            self.header_at = self.position;
            let Some(block) = self.block()? else {
                return if extensions.is_empty() {
                    Ok(None)
                } else {
                    Err(self.truncated())
                };
            };
            if block.iter().all(|byte| *byte == 0) {
                return Ok(None);
            }
            let header = Header::parse(&block, self.header_at)?;
            match header.flag {
                b'x' => extensions.add_pax(&self.extension(&header)?, self.header_at)?,
                b'g' => self.expect_data(header.size)?,
                b'L' => extensions.long_name = Some(until_nul(self.extension(&header)?)),
                b'K' => extensions.long_link = Some(until_nul(self.extension(&header)?)),
                _ => return self.entry(&header, extensions).map(Some),
            }
        }
    }

    /// Completes an entry from its header and the extended headers before it.
    fn entry(&mut self, header: &Header<'_>, extensions: Extensions) -> Result<Entry, TarError> {
        let offset = self.header_at;
        let number = |field| TarError::Number { offset, field };
        let name = match extensions.path {
            Some(path) => path,
            None => extensions.long_name.unwrap_or_else(|| header.name()),
        };
        let link = match extensions.link_path {
            Some(path) => path,
            None => extensions.long_link.unwrap_or_else(|| header.link_name()),
        };
        let is_directory = name.ends_with(b"/");
        let kind = match header.flag {
            b'0' | b'7' | 0 if is_directory => Kind::Directory,
            b'0' | b'7' | 0 | b'S' => {
                let stored = extensions.size.unwrap_or(header.size);
                Kind::File(self.data(header, &extensions.sparse, stored)?)
            }
            b'1' => Kind::HardLink(link),
            b'2' => Kind::Symlink(link),
            b'3' => Kind::Device(Device::Character {
                major: header.major()?,
                minor: header.minor()?,
            }),
            b'4' => Kind::Device(Device::Block {
                major: header.major()?,
                minor: header.minor()?,
            }),
            b'5' => Kind::Directory,
            b'6' => Kind::Device(Device::Fifo),
            flag => {
                return Err(TarError::Type {
                    offset,
                    flag: [flag].escape_ascii().to_string(),
                });
            }
        };
        let uid = extensions.uid.map_or_else(|| header.uid(), Ok)?;
        let gid = extensions.gid.map_or_else(|| header.gid(), Ok)?;
        let mtime = extensions.mtime.map_or_else(|| header.mtime(), Ok)?;
        let attributes = Attributes {
            mode: header.mode()?,
            uid: u32::try_from(uid).map_err(|_| number("owner"))?,
            gid: u32::try_from(gid).map_err(|_| number("group"))?,
            mtime: u32::try_from(mtime.max(0)).unwrap_or(u32::MAX),
        };
        let name = extensions.sparse.name.unwrap_or(name);
        Ok(Entry {
            name,
            attributes,
            kind,
            xattrs: extensions.xattrs,
        })
    }

    /// Finds out where the contents are; reads no more than the map of a sparse file.
    fn data(&mut self, header: &Header<'_>, pax: &sparse::PaxSparse, stored: u64) -> Result<Data, TarError> {
        let at = self.header_at;
        let malformed = || TarError::Sparse(at);
        let map_in_header = if header.flag == b'S' {
            Some(self.sparse_map_in_header(header)?)
        } else {
            None
        };
        self.expect_data(stored)?;
        let end = self.position + stored;
        let (parts, size) = if let Some(map) = map_in_header {
            (map.parts, map.size)
        } else if pax.is_in_data() {
            (self.sparse_map_in_data()?, pax.size.ok_or_else(malformed)?)
        } else if pax.is_in_record() {
            (pax.parts.clone(), pax.size.ok_or_else(malformed)?)
        } else {
            return Ok(Data {
                size: stored,
                layout: Layout::Contiguous(self.position),
            });
        };
        let left = end.checked_sub(self.position).ok_or_else(malformed)?;
        let extents = sparse::place(&parts, self.position, left, size).ok_or_else(malformed)?;
        Ok(Data {
            size,
            layout: Layout::Sparse(extents),
        })
    }

    /// Reads the rest of the map that precedes the data of an old GNU sparse file.
    fn sparse_map_in_header(&mut self, header: &Header<'_>) -> Result<sparse::HeaderMap, TarError> {
        let mut map = header.sparse_map()?;
        while map.continues {
            let block = self.block()?.ok_or_else(|| self.truncated())?;
            map.add_block(&block, self.header_at)?;
        }
        Ok(map)
    }

    /// Reads the map that precedes the data in pax sparse format 1.0.
    fn sparse_map_in_data(&mut self) -> Result<Vec<(u64, u64)>, TarError> {
        let at = self.header_at;
        let mut map = sparse::TextMap::default();
        while !map.is_complete() {
            if self.unread < BLOCK as u64 {
                return Err(TarError::Sparse(at));
            }
            let block = self.block()?.ok_or(TarError::Truncated(at))?;
            self.unread -= BLOCK as u64;
            map.add(&block).ok_or(TarError::Sparse(at))?;
        }
        map.into_parts().ok_or(TarError::Sparse(at))
    }

    /// The data of an extended header.
    fn extension(&mut self, header: &Header<'_>) -> Result<Vec<u8>, TarError> {
        if header.size > EXTENSION_LIMIT {
            return Err(TarError::ExtensionTooLong(self.header_at));
        }
        self.expect_data(header.size)?;
        let mut bytes = Vec::new();
        let count = self.input.by_ref().take(header.size).read_to_end(&mut bytes)? as u64;
        if count != header.size {
            return Err(self.truncated());
        }
        self.position += count;
        self.unread -= count;
        Ok(bytes)
    }

    /// Announces that `size` bytes of data follow.
    fn expect_data(&mut self, size: u64) -> Result<(), TarError> {
        self.unread = size
            .checked_next_multiple_of(BLOCK as u64)
            .ok_or_else(|| self.truncated())?;
        self.position
            .checked_add(self.unread)
            .ok_or_else(|| self.truncated())?;
        Ok(())
    }

    fn skip_rest(&mut self) -> Result<(), TarError> {
        let skipped = self.input.skip(self.unread)?;
        if skipped != self.unread {
            return Err(self.truncated());
        }
        self.position += skipped;
        self.unread = 0;
        Ok(())
    }

    /// One block, or `None` at the end of the stream.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>, TarError> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.input.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(self.truncated()),
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.position += BLOCK as u64;
        Ok(Some(block))
    }

    fn truncated(&self) -> TarError {
        TarError::Truncated(self.header_at)
    }
}

fn until_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.truncate(header::length_until_nul(&bytes));
    bytes
}
