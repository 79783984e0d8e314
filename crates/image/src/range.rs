//! Random access to a part of an open file: how blobs inside an archive, and files inside a layer, are read without
//! being unpacked.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

/// `length` bytes of a file from `offset` on. Reading does not move the file's own position, so that many ranges can
/// share one descriptor.
#[derive(Clone, Debug)]
pub(crate) struct FileRange {
    file: Arc<File>,
    offset: u64,
    length: u64,
}

impl FileRange {
    /// The whole of the regular file at `path`. Anything else (a directory, a FIFO) is refused instead of waited for.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        let file = File::options().read(true).custom_flags(nonblocking).open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        Ok(Self::new(Arc::new(file), 0, metadata.len()))
    }

    pub(crate) fn new(file: Arc<File>, offset: u64, length: u64) -> Self {
        Self { file, offset, length }
    }

    pub(crate) fn len(&self) -> u64 {
        self.length
    }

    pub(crate) fn file(&self) -> &Arc<File> {
        &self.file
    }

    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// A part of this range. What lies beyond its end is cut off.
    pub(crate) fn slice(&self, offset: u64, length: u64) -> Self {
        let offset = offset.min(self.length);
        let length = length.min(self.length - offset);
        Self::new(Arc::clone(&self.file), self.offset + offset, length)
    }

    /// Reads from the beginning of the range.
    pub(crate) fn reader(&self) -> RangeReader {
        RangeReader {
            range: self.clone(),
            position: 0,
        }
    }

    /// The first bytes of the range, fewer than asked for only when the range is shorter.
    pub(crate) fn prefix<const N: usize>(&self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(N);
        self.reader().take(N as u64).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

/// Reads a [`FileRange`] in order. A file that has become shorter than the range is an `UnexpectedEof`.
#[derive(Debug)]
pub(crate) struct RangeReader {
    range: FileRange,
    position: u64,
}

impl RangeReader {
    /// Goes forward without reading, at most to the end of the range. Returns how far it went.
    pub(crate) fn advance(&mut self, bytes: u64) -> u64 {
        let step = bytes.min(self.range.length - self.position);
        self.position += step;
        step
    }
}

impl Read for RangeReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.range.length - self.position;
        let wanted = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        if wanted == 0 {
            return Ok(0);
        }
        let count = self
            .range
            .file
            .read_at(&mut buffer[..wanted], self.range.offset + self.position)?;
        if count == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the file has become shorter",
            ));
        }
        self.position += count as u64;
        Ok(count)
    }
}
