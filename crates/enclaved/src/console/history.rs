//! The kept history of one console in a file, so that it survives the daemon.
//!
//! ```text
//!   0            8                                   8 + CAPACITY
//!   ├ bytes ever ┼ byte n of the stream lies at n mod CAPACITY ┤
//! ```
//!
//! The count is written after the bytes. A daemon that is killed in between leaves bytes that do not count yet; they can only
//! lie over bytes older than the history, because the file has room for one chunk more.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::{CHUNK, HISTORY};

/// Bytes of the stream that the file has room for.
const CAPACITY: usize = HISTORY + CHUNK;

/// Bytes of the count.
const HEADER: u64 = 8;

/// The file.
#[derive(Debug)]
pub(super) struct HistoryFile(File);

impl HistoryFile {
    /// The history in `file`, which is empty or was written by an earlier one of these.
    pub(super) fn new(file: File) -> Self {
        Self(file)
    }

    /// Writes the newest `bytes`, at most a chunk, of a stream that is then `written` bytes long.
    pub(super) fn append(&self, bytes: &[u8], written: u64) -> io::Result<()> {
        let start = position(written - to_u64(bytes.len()));
        let (first, rest) = bytes.split_at(bytes.len().min(CAPACITY - start));
        self.0.write_all_at(first, HEADER + to_u64(start))?;
        if !rest.is_empty() {
            self.0.write_all_at(rest, HEADER)?;
        }
        self.0.write_all_at(&written.to_le_bytes(), 0)
    }

    /// The end of the stream, as far as it is kept, and how long the stream was.
    pub(super) fn load(&self) -> io::Result<(Vec<u8>, u64)> {
        let mut count = [0; 8];
        match self.0.read_exact_at(&mut count, 0) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok((Vec::new(), 0)),
            Err(error) => return Err(error),
        }
        let written = u64::from_le_bytes(count);
        let kept = usize::try_from(written).unwrap_or(usize::MAX).min(HISTORY);
        let start = position(written - to_u64(kept));
        let mut bytes = vec![0; kept];
        let (first, rest) = bytes.split_at_mut(kept.min(CAPACITY - start));
        self.0.read_exact_at(first, HEADER + to_u64(start))?;
        self.0.read_exact_at(rest, HEADER)?;
        Ok((bytes, written))
    }
}

/// Where byte `number` of the stream lies behind the header.
fn position(number: u64) -> usize {
    usize::try_from(number % to_u64(CAPACITY)).unwrap_or(0)
}

fn to_u64(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_history_is_the_end_of_the_stream_across_the_end_of_the_file() {
        let file = tempfile::tempfile().unwrap();
        let history = HistoryFile::new(file.try_clone().unwrap());
        assert_eq!(history.load().unwrap(), (Vec::new(), 0));
        let mut stream = Vec::new();
        // A length that divides nothing, often enough to go round the file twice.
        for number in 0..60 {
            let chunk: Vec<u8> = (number..=250).cycle().take(CHUNK - 4321).collect();
            stream.extend_from_slice(&chunk);
            history.append(&chunk, to_u64(stream.len())).unwrap();

            let kept = &stream[stream.len().saturating_sub(HISTORY)..];
            let (bytes, written) = history.load().unwrap();
            assert!(bytes == kept && written == to_u64(stream.len()), "after {number}");
        }
        assert!(file.metadata().unwrap().len() <= HEADER + to_u64(CAPACITY));
    }

    #[test]
    fn bytes_that_do_not_count_yet_change_nothing() {
        let file = tempfile::tempfile().unwrap();
        let history = HistoryFile::new(file.try_clone().unwrap());
        let chunk = vec![b'a'; CHUNK];
        let mut written = 0;
        while written < to_u64(2 * HISTORY) {
            written += to_u64(CHUNK);
            history.append(&chunk, written).unwrap();
        }
        let before = history.load().unwrap();

        let start = position(written);
        let length = CHUNK.min(CAPACITY - start);
        file.write_all_at(&vec![b'x'; length], HEADER + to_u64(start))
            .unwrap();
        file.write_all_at(&vec![b'x'; CHUNK - length], HEADER).unwrap();

        assert!(history.load().unwrap() == before);
    }
}
