//! Where the bytes of a file are until they are written into a ramdisk.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::Arc;

use crate::tar::{Data, Layout};

/// The contents of a regular file: a size, and a place to read them from.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    /// In a layer: an archive's own file, or the file that a compressed layer was unpacked into. Positions in `data` count
    /// from `base`.
    Layer { file: Arc<File>, base: u64, data: Data },
    /// In a file of a root file system directory, opened when it is written.
    File(Box<FileOnDisk>),
}

/// A file as it was when its directory was read.
#[derive(Clone, Debug)]
pub(crate) struct FileOnDisk {
    pub(crate) path: PathBuf,
    pub(crate) size: u64,
    /// Device and inode number.
    pub(crate) identity: (u64, u64),
}

impl Content {
    pub(crate) fn size(&self) -> u64 {
        match self {
            Self::Layer { data, .. } => data.size,
            Self::File(file) => file.size,
        }
    }

    /// Bytes of memory that the description takes beyond its own size.
    pub(crate) fn cost(&self) -> usize {
        match self {
            Self::Layer {
                data:
                    Data {
                        layout: Layout::Sparse(extents),
                        ..
                    },
                ..
            } => size_of_val(&**extents),
            Self::Layer { .. } => 0,
            Self::File(file) => size_of_val(&**file) + file.path.as_os_str().len(),
        }
    }

    /// Writes exactly [`Self::size`] bytes, in pieces of the size of `buffer`, which must not be empty.
    pub(crate) fn copy_to(&self, output: &mut impl Write, buffer: &mut [u8]) -> Result<(), CopyError> {
        match self {
            Self::Layer { file, base, data } => match &data.layout {
                Layout::Contiguous(offset) => copy(file, base + offset, data.size, output, buffer),
                Layout::Sparse(extents) => {
                    let mut position = 0;
                    for extent in extents {
                        zeros(extent.at - position, output, buffer)?;
                        copy(file, base + extent.offset, extent.length, output, buffer)?;
                        position = extent.at + extent.length;
                    }
                    zeros(data.size - position, output, buffer)
                }
            },
            Self::File(file) => copy(
                &file.open().map_err(CopyError::Read)?,
                0,
                file.size,
                output,
                buffer,
            ),
        }
    }
}

impl FileOnDisk {
    /// Opens the file, unless it is not the one that was seen before.
    fn open(&self) -> io::Result<File> {
        let flags = (rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK)
            .bits()
            .cast_signed();
        let file = File::options().read(true).custom_flags(flags).open(&self.path)?;
        let metadata = file.metadata()?;
        if (metadata.dev(), metadata.ino()) != self.identity || metadata.len() != self.size {
            return Err(io::Error::other("the file was changed while the image was built"));
        }
        Ok(file)
    }
}

/// Which side of a copy failed.
#[derive(Debug)]
pub(crate) enum CopyError {
    Read(io::Error),
    Write(io::Error),
}

fn copy(
    file: &File,
    mut offset: u64,
    mut left: u64,
    output: &mut impl Write,
    buffer: &mut [u8],
) -> Result<(), CopyError> {
    while left > 0 {
        let wanted = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let count = match file.read_at(&mut buffer[..wanted], offset) {
            Ok(0) => {
                let error = io::Error::new(io::ErrorKind::UnexpectedEof, "the file has become shorter");
                return Err(CopyError::Read(error));
            }
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(CopyError::Read(error)),
        };
        output.write_all(&buffer[..count]).map_err(CopyError::Write)?;
        offset += count as u64;
        left -= count as u64;
    }
    Ok(())
}

fn zeros(mut left: u64, output: &mut impl Write, buffer: &mut [u8]) -> Result<(), CopyError> {
    let length = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
    buffer[..length].fill(0);
    while left > 0 {
        let count = length.min(usize::try_from(left).unwrap_or(usize::MAX));
        output.write_all(&buffer[..count]).map_err(CopyError::Write)?;
        left -= count as u64;
    }
    Ok(())
}
