//! The cpio "newc" archive, which is what the Linux kernel unpacks as its initramfs.
//!
//! # Format
//!
//! An archive is a sequence of entries that ends with an entry named `TRAILER!!!`. An entry is
//!
//! ```text
//! header   110 bytes: "070701", then 13 fields of 8 hexadecimal digits
//! name     with its NUL, padded with zeros so that header + name is a multiple of 4
//! body     file contents or the target of a symbolic link, padded to a multiple of 4
//! ```
//!
//! Every archive that [`Writer`] makes is therefore a multiple of 4 bytes long, and archives may be concatenated.
//!
//! # What the kernel makes of it (`init/initramfs.c`)
//!
//! * Parents must come before their children; an entry whose parent is missing is dropped without a word.
//! * Numbers are 32 bits wide: a file is at most 4 GiB − 1, a name with its NUL at most `PATH_MAX`.
//! * Names of one file (hard links) are entries with the same inode number and a link count of at least 2. The
//!   contents may be with any of them; like the kernel's own `usr/gen_init_cpio.c` this writer puts them with the last.
//! * Symbolic links cannot be hard links of one another.
//! * There is no field for extended attributes, and the kernel sets none.
//!
//! Whatever the kernel would drop silently is an [`Error`] here.
//!
//! # Example
//!
//! ```
//! use image::cpio::{Attributes, Device, Writer};
//!
//! # fn main() -> Result<(), image::cpio::Error> {
//! let mut archive = Writer::new(Vec::new());
//! archive.directory("dev", Attributes::new(0o755))?;
//! archive.device("dev/console", Attributes::new(0o600), Device::Character { major: 5, minor: 1 })?;
//! archive.file("init", Attributes::new(0o755), b"#!/bin/sh\n")?;
//! archive.symlink("linuxrc", "init")?;
//! let bytes = archive.finish()?;
//! assert_eq!(bytes.len() % 4, 0);
//! # Ok(())
//! # }
//! ```

mod header;
#[cfg(test)]
mod tests;

use std::io::{self, Read, Write};

pub use header::{Attributes, Device, Entry, Kind, MAX_FILE_SIZE, padding_after, trailer};

/// Why an entry cannot be put into an archive that the kernel unpacks faithfully.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The name is empty, absolute, contains a NUL, or is the reserved `TRAILER!!!`.
    #[error(
        "`{0}` cannot be the name of an initramfs entry: it must be relative, not empty, without NUL, and not `TRAILER!!!`"
    )]
    Name(String),
    /// The whole name with its NUL exceeds `PATH_MAX` (4096 bytes), or one component `NAME_MAX` (255 bytes).
    #[error("the name `{0}` is too long: Linux allows 4095 bytes, and 255 between two slashes")]
    NameTooLong(String),
    /// A file is larger than the format's 32-bit size field.
    #[error("`{name}` is {size} bytes long; an initramfs holds files of at most 4294967295 bytes")]
    FileTooLarge {
        /// Name of the entry.
        name: String,
        /// Its length in bytes.
        size: u64,
    },
    /// The target of a symbolic link is empty, longer than 4095 bytes or contains a NUL.
    #[error(
        "the symbolic link `{0}` has a target that Linux does not accept: empty, over 4095 bytes, or with a NUL"
    )]
    LinkTarget(String),
    /// A device number exceeds what Linux has: 12 bits of major number and 20 of minor.
    #[error("`{0}` has a device number that Linux does not have (major over 4095 or minor over 1048575)")]
    DeviceNumber(String),
    /// More entries than inode numbers.
    #[error("more than 4294967295 entries")]
    TooManyEntries,
    /// The contents ended early.
    #[error("the contents of `{0}` ended before its announced size")]
    Truncated(String),
    /// Reading contents or writing the archive failed.
    #[error("writing an initramfs entry failed")]
    Io(#[from] io::Error),
}

/// Writes an archive, entry by entry, in the order of the calls. Inode numbers count up from 1.
///
/// Names are bytes, relative to the root of the initramfs, without a leading slash. The caller writes a directory before
/// what is in it. The writer does not buffer: give it a [`io::BufWriter`] when the target is a file.
#[derive(Debug)]
pub struct Writer<W> {
    output: W,
    next_inode: u32,
}

impl<W: Write> Writer<W> {
    /// Starts an archive at the current position of `output`.
    pub fn new(output: W) -> Self {
        Self {
            output,
            next_inode: 1,
        }
    }

    /// Adds a directory.
    pub fn directory(&mut self, name: impl AsRef<[u8]>, attributes: Attributes) -> Result<(), Error> {
        self.single(name.as_ref(), attributes, Kind::Directory)
    }

    /// Adds a regular file with the given contents.
    pub fn file(
        &mut self,
        name: impl AsRef<[u8]>,
        attributes: Attributes,
        contents: impl AsRef<[u8]>,
    ) -> Result<(), Error> {
        let contents = contents.as_ref();
        self.file_from(name, attributes, contents.len() as u64, contents)
    }

    /// Adds a regular file whose `size` bytes are read from `contents`. Bytes beyond `size` are left unread.
    pub fn file_from(
        &mut self,
        name: impl AsRef<[u8]>,
        attributes: Attributes,
        size: u64,
        contents: impl Read,
    ) -> Result<(), Error> {
        self.hard_links(&[name], attributes, size, contents)
    }

    /// Adds one regular file under several names. Without any name, nothing is written.
    pub fn hard_links(
        &mut self,
        names: &[impl AsRef<[u8]>],
        attributes: Attributes,
        size: u64,
        contents: impl Read,
    ) -> Result<(), Error> {
        let Some((last, others)) = names.split_last() else {
            return Ok(());
        };
        let inode = self.take_inode()?;
        let links = u32::try_from(names.len()).map_err(|_| Error::TooManyEntries)?;
        let entry = |name, size| Entry {
            name,
            inode,
            links,
            attributes,
            kind: Kind::File { size },
        };
        for name in others {
            self.output.write_all(&entry(name.as_ref(), 0).encode()?)?;
        }
        let last = entry(last.as_ref(), size);
        self.output.write_all(&last.encode()?)?;
        if io::copy(&mut contents.take(size), &mut self.output)? != size {
            return Err(Error::Truncated(display(last.name)));
        }
        self.output.write_all(padding_after(size))?;
        Ok(())
    }

    /// Adds a symbolic link owned by root. Linux ignores the mode of a symbolic link.
    pub fn symlink(&mut self, name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Result<(), Error> {
        self.single(
            name.as_ref(),
            Attributes::new(0o777),
            Kind::Symlink {
                target: target.as_ref(),
            },
        )
    }

    /// Adds a device node, FIFO or socket.
    pub fn device(
        &mut self,
        name: impl AsRef<[u8]>,
        attributes: Attributes,
        device: Device,
    ) -> Result<(), Error> {
        self.single(name.as_ref(), attributes, Kind::Device(device))
    }

    /// Writes the trailer and returns the output, not flushed.
    pub fn finish(mut self) -> Result<W, Error> {
        self.output.write_all(&trailer())?;
        Ok(self.output)
    }

    /// Writes an entry that has one name and all its bytes in its encoding.
    fn single(&mut self, name: &[u8], attributes: Attributes, kind: Kind<'_>) -> Result<(), Error> {
        let entry = Entry {
            name,
            inode: self.take_inode()?,
            links: 1,
            attributes,
            kind,
        };
        self.output.write_all(&entry.encode()?)?;
        Ok(())
    }

    fn take_inode(&mut self) -> Result<u32, Error> {
        let inode = self.next_inode;
        self.next_inode = inode.checked_add(1).ok_or(Error::TooManyEntries)?;
        Ok(inode)
    }
}

/// A name for an error message; bytes that are not UTF-8 are shown as escapes.
fn display(name: &[u8]) -> String {
    name.escape_ascii().to_string()
}
