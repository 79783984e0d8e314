//! A layer's blob as an uncompressed stream that can be read again at random.
//!
//! ```text
//! blob → (hash) → decompress → (hash) → [`Tee`] → tar reader
//!                                         └──► temporary file, when the blob is compressed
//! ```
//!
//! The contents of files are needed later, in the order of the ramdisk and not of the layer. In a blob that is not
//! compressed they can be found where they are. A compressed one is written, unpacked, to a file without a name, which
//! disappears with its last user.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;
use std::sync::Arc;

use flate2::bufread::MultiGzDecoder;

use super::LayerError;
use crate::range::FileRange;
use crate::tar::Input;

/// Size of reads from the blob and of writes to the temporary file.
const BUFFER: usize = 256 << 10;

/// How a blob is compressed. Container engines go by the content as well, not by the media type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    pub(crate) fn detect(blob: &FileRange) -> Result<Self, LayerError> {
        let start = blob.prefix::<6>().map_err(LayerError::Read)?;
        match start.as_slice() {
            [0x1f, 0x8b, ..] => Ok(Self::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Ok(Self::Zstd),
            [b'B', b'Z', b'h', ..] => Err(LayerError::Compression("bzip2")),
            [0xfd, b'7', b'z', b'X', b'Z', 0] => Err(LayerError::Compression("xz")),
            _ => Ok(Self::None),
        }
    }
}

/// Decompresses. [`Self::into_inner`] gives the source back.
pub(crate) enum Decoder<R: Read> {
    None(BufReader<R>),
    Gzip(MultiGzDecoder<BufReader<R>>),
    Zstd(zstd::Decoder<'static, BufReader<R>>),
}

impl<R: Read> Decoder<R> {
    pub(crate) fn new(compression: Compression, source: R) -> io::Result<Self> {
        let source = BufReader::with_capacity(BUFFER, source);
        Ok(match compression {
            Compression::None => Self::None(source),
            Compression::Gzip => Self::Gzip(MultiGzDecoder::new(source)),
            Compression::Zstd => Self::Zstd(zstd::Decoder::with_buffer(source)?),
        })
    }

    /// The source. Bytes that it gave but that were not decompressed are lost.
    pub(crate) fn into_inner(self) -> R {
        match self {
            Self::None(source) => source.into_inner(),
            Self::Gzip(decoder) => decoder.into_inner().into_inner(),
            Self::Zstd(decoder) => decoder.finish().into_inner(),
        }
    }
}

impl<R: Read> Read for Decoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::None(source) => source.read(buffer),
            Self::Gzip(decoder) => decoder.read(buffer),
            Self::Zstd(decoder) => decoder.read(buffer),
        }
    }
}

/// Counts what is read against a limit and keeps a copy in a temporary file if there is one.
pub(crate) struct Tee<'a, R> {
    source: R,
    copy: Option<Arc<File>>,
    buffer: Box<[u8]>,
    /// What of the buffer is filled and not yet consumed.
    filled: std::ops::Range<usize>,
    /// Bytes that may still be read; shared by all layers of an image.
    left: &'a mut u64,
    failure: Option<Failure>,
}

/// Why a [`Tee`] stopped, besides an error of its source.
#[derive(Debug)]
pub(crate) enum Failure {
    /// More was read than the limit.
    Limit,
    /// The temporary file could not be written.
    Copy(io::Error),
}

impl<'a, R: Read> Tee<'a, R> {
    pub(crate) fn new(source: R, copy: Option<Arc<File>>, left: &'a mut u64) -> Self {
        Self {
            source,
            copy,
            buffer: vec![0; BUFFER].into(),
            filled: 0..0,
            left,
            failure: None,
        }
    }

    /// Reads to the end of the source.
    pub(crate) fn drain(&mut self) -> io::Result<()> {
        self.skip(u64::MAX)?;
        Ok(())
    }

    /// The source, and why reading failed if it was not the source's fault.
    pub(crate) fn into_parts(self) -> (R, Option<Failure>) {
        (self.source, self.failure)
    }

    fn fail(&mut self, failure: Failure) -> io::Error {
        self.failure = Some(failure);
        io::Error::other("stopped")
    }
}

impl<R: Read> BufRead for Tee<'_, R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.filled.is_empty() {
            // One byte above the limit tells a stream that ends there from one that goes on.
            let most = usize::try_from(self.left.saturating_add(1)).map_or(BUFFER, |left| left.min(BUFFER));
            let count = self.source.read(&mut self.buffer[..most])?;
            match self.left.checked_sub(count as u64) {
                Some(left) => *self.left = left,
                None => return Err(self.fail(Failure::Limit)),
            }
            if let Some(copy) = &self.copy
                && let Err(error) = (&**copy).write_all(&self.buffer[..count])
            {
                return Err(self.fail(Failure::Copy(error)));
            }
            self.filled = 0..count;
        }
        Ok(&self.buffer[self.filled.clone()])
    }

    fn consume(&mut self, count: usize) {
        self.filled.start = self.filled.end.min(self.filled.start + count);
    }
}

impl<R: Read> Read for Tee<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let count = available.len().min(buffer.len());
        buffer[..count].copy_from_slice(&available[..count]);
        self.consume(count);
        Ok(count)
    }
}

impl<R: Read> Input for Tee<'_, R> {
    fn skip(&mut self, bytes: u64) -> io::Result<u64> {
        let mut left = bytes;
        while left > 0 {
            let available = match self.fill_buf() {
                Ok([]) => break,
                Ok(available) => available.len(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let step = usize::try_from(left).map_or(available, |left| left.min(available));
            self.consume(step);
            left -= step as u64;
        }
        Ok(bytes - left)
    }
}

/// A file without a name in `directory`.
pub(crate) fn temporary_file(directory: &Path) -> Result<File, LayerError> {
    tempfile::tempfile_in(directory).map_err(|source| LayerError::TemporaryFile {
        directory: directory.to_owned(),
        source,
    })
}
