//! Pieces of guest memory, seen as one run of bytes.

use virtio::GuestSlice;

/// Appends the first `at` bytes of `parts` to `front` and the rest to `back`.
pub(super) fn split<'m>(
    parts: &[GuestSlice<'m>],
    at: usize,
    front: &mut Vec<GuestSlice<'m>>,
    back: &mut Vec<GuestSlice<'m>>,
) {
    let mut left = at;
    for part in parts {
        let here = left.min(part.len());
        left -= here;
        let Ok((before, after)) = part.split_at(here) else {
            return;
        };
        front.extend((!before.is_empty()).then_some(before));
        back.extend((!after.is_empty()).then_some(after));
    }
}

/// Fills `bytes` from the start of `parts`. False if they are too short.
pub(super) fn copy_out(parts: &[GuestSlice<'_>], bytes: &mut [u8]) -> bool {
    let mut filled = 0;
    for part in parts {
        let Some(room) = bytes.get_mut(filled..) else {
            break;
        };
        filled += part.copy_to(room);
    }
    filled == bytes.len()
}

/// Writes `bytes` to the start of `parts`, as far as they go.
pub(super) fn copy_in(parts: &[GuestSlice<'_>], bytes: &[u8]) {
    let mut rest = bytes;
    for part in parts {
        let (here, later) = rest.split_at(rest.len().min(part.len()));
        part.copy_from(here);
        rest = later;
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use virtio::GuestMemory;
    use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

    /// `length` bytes of guest memory at `address`.
    pub(in super::super) fn slice(memory: &GuestMemory, address: u64, length: usize) -> GuestSlice<'_> {
        memory.get_slice(GuestAddress(address), length).unwrap()
    }

    #[test]
    fn a_run_may_be_cut_anywhere() {
        let memory = GuestMemory::from_ranges(&[(GuestAddress(0), 0x1000)]).unwrap();
        memory.write_slice(b"abcdefgh", GuestAddress(0)).unwrap();
        let parts = [slice(&memory, 0, 2), slice(&memory, 2, 3), slice(&memory, 5, 3)];
        for at in 0..=8 {
            let (mut front, mut back) = (Vec::new(), Vec::new());
            split(&parts, at, &mut front, &mut back);
            let (mut before, mut after) = (vec![0; at], vec![0; 8 - at]);
            assert!(copy_out(&front, &mut before) && copy_out(&back, &mut after));
            assert_eq!([before, after].concat(), b"abcdefgh");
            assert!(!copy_out(&front, &mut vec![0; at + 1]));
        }
        copy_in(&parts, b"ABCD");
        let mut all = [0; 8];
        memory.read_slice(&mut all, GuestAddress(0)).unwrap();
        assert_eq!(&all, b"ABCDefgh");
    }
}
