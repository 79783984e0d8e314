//! The kept history of one console: a byte ring that drops its oldest bytes and never blocks its writer.
//!
//! Every byte ever written has a position, counted from 0. The ring holds the last `capacity` of them. A reader keeps
//! its own position and asks for what follows; if the ring has moved past it, the reader is told how many bytes it
//! missed. So a reader costs the writer nothing, however slow it is.

use std::collections::VecDeque;

/// The last bytes of a stream.
#[derive(Debug)]
pub struct Ring {
    kept: VecDeque<u8>,
    capacity: usize,
    /// Position of the byte that will be written next.
    written: u64,
}

/// What a reader gets.
#[derive(Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Bytes between the reader's position and `bytes` that the ring no longer holds.
    pub lost: u64,
    /// The oldest kept bytes from there on.
    pub bytes: Vec<u8>,
    /// The reader's next position.
    pub next: u64,
}

impl Ring {
    /// An empty ring that will keep `capacity` bytes. Memory grows as it fills.
    pub fn new(capacity: usize) -> Self {
        Self {
            kept: VecDeque::new(),
            capacity,
            written: 0,
        }
    }

    /// A ring as it was when `written` bytes had been written, of which `kept` are the last.
    pub fn resume(capacity: usize, kept: &[u8], written: u64) -> Self {
        let mut ring = Self::new(capacity);
        ring.push(kept);
        ring.written = written;
        ring
    }

    /// Appends `bytes`; the oldest bytes beyond the capacity are dropped.
    pub fn push(&mut self, bytes: &[u8]) {
        self.written += to_u64(bytes.len());
        let newest = &bytes[bytes.len().saturating_sub(self.capacity)..];
        let surplus = (self.kept.len() + newest.len()).saturating_sub(self.capacity);
        self.kept.drain(..surplus.min(self.kept.len()));
        self.kept.extend(newest);
    }

    /// How many bytes were ever written: the position after the newest byte.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// At most `limit` bytes from `position` on. Nothing is there to read if `position` is [`Self::written`].
    pub fn read(&self, position: u64, limit: usize) -> Chunk {
        let oldest = self.written - to_u64(self.kept.len());
        let start = position.clamp(oldest, self.written);
        let skip = usize::try_from(start - oldest).unwrap_or(usize::MAX);
        let end = skip.saturating_add(limit).min(self.kept.len());
        let bytes: Vec<u8> = self.kept.range(skip.min(end)..end).copied().collect();
        Chunk {
            lost: start.saturating_sub(position),
            next: start + to_u64(bytes.len()),
            bytes,
        }
    }

    /// The newest bytes, at most `limit`.
    pub fn tail(&self, limit: usize) -> Vec<u8> {
        let start = self.kept.len().saturating_sub(limit);
        self.kept.range(start..).copied().collect()
    }
}

fn to_u64(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_late_reader_gets_the_history_and_then_what_follows() {
        let mut ring = Ring::new(16);
        ring.push(b"boot ");

        let history = ring.read(0, 100);
        ring.push(b"login");
        let rest = ring.read(history.next, 100);

        assert_eq!(history.bytes, b"boot ");
        assert_eq!(rest.bytes, b"login");
        assert_eq!(ring.read(rest.next, 100).bytes, b"");
    }

    #[test]
    fn a_reader_that_fell_behind_is_told_how_much_it_missed() {
        let mut ring = Ring::new(4);
        ring.push(b"0123");
        ring.push(b"456789");

        assert_eq!(
            ring.read(2, 100),
            Chunk {
                lost: 4,
                bytes: b"6789".to_vec(),
                next: 10
            }
        );
        assert_eq!(ring.tail(2), b"89");
    }

    proptest! {
        /// Whatever is written and read in whatever order: lost plus delivered bytes are the stream, in order, and the
        /// ring never keeps more than its capacity.
        #[test]
        fn a_reader_sees_the_stream_with_only_announced_gaps(
            capacity in 0_usize..64,
            steps in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..100), 0_usize..80), 0..40),
        ) {
            let mut ring = Ring::new(capacity);
            let mut stream = Vec::new();
            let mut position = 0;
            for (bytes, limit) in steps {
                ring.push(&bytes);
                stream.extend(bytes);
                prop_assert!(ring.kept.len() <= capacity);
                prop_assert_eq!(ring.written(), stream.len() as u64);
                prop_assert!(stream.ends_with(&ring.tail(capacity)));
                prop_assert_eq!(ring.tail(capacity).len(), stream.len().min(capacity));

                let chunk = ring.read(position, limit);
                let start = usize::try_from(position + chunk.lost).unwrap();
                prop_assert!(chunk.bytes.len() <= limit);
                prop_assert_eq!(&stream[start..start + chunk.bytes.len()], &chunk.bytes[..]);
                prop_assert_eq!(chunk.next, (start + chunk.bytes.len()) as u64);
                prop_assert!(chunk.lost == 0 || start + capacity == stream.len());
                position = chunk.next;
            }
        }

        /// A position from nowhere, even beyond the end, is answered without a panic.
        #[test]
        fn any_position_is_answered(bytes: Vec<u8>, position: u64, limit: usize) {
            let mut ring = Ring::new(8);
            ring.push(&bytes);
            let chunk = ring.read(position, limit);
            prop_assert!(chunk.next <= ring.written());
        }
    }
}
