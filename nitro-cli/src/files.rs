//! Opening what the caller names.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;

/// Opens what can be read to its end: a regular file, or what a shell has put in the place of one, such as `<(command)` and
/// `/dev/stdin`. The caller bounds what it reads.
///
/// # Errors
/// What the system says; [`io::ErrorKind::InvalidInput`] for anything else, such as a directory.
pub(crate) fn open_readable(path: &Path) -> io::Result<File> {
    let kind = std::fs::metadata(path)?.file_type();
    if !(kind.is_file() || kind.is_fifo() || kind.is_char_device()) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not a regular file or a pipe",
        ));
    }
    File::open(path)
}

/// Opens a regular file for reading, and says how many bytes it has.
///
/// # Errors
/// What the system says; [`io::ErrorKind::InvalidInput`] for anything but a regular file, at once even for a FIFO that
/// nobody writes to.
pub(crate) fn open_regular(path: &Path) -> io::Result<(File, u64)> {
    // Without NONBLOCK, opening a FIFO would wait for a writer. On a regular file it has no effect.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
        .open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    Ok((file, metadata.len()))
}
