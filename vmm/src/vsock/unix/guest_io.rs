//! System calls that move bytes between a socket and guest memory, without a copy in between.
//!
//! Guest memory may change at any moment, so no Rust slice may ever refer to it; the kernel gets addresses and lengths instead.

#![expect(
    unsafe_code,
    reason = "sendmsg and recvmsg on guest memory take raw addresses"
)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use virtio::GuestSlice;

/// Sends at most `limit` bytes from `parts`, in order, to `socket`, without waiting. Returns how many it has taken.
///
/// # Errors
///
/// [`io::ErrorKind::WouldBlock`] if the socket is full, [`io::ErrorKind::BrokenPipe`] if nobody will read it; whatever else
/// sendmsg says.
pub(super) fn send(socket: BorrowedFd<'_>, parts: &[GuestSlice<'_>], limit: usize) -> io::Result<usize> {
    let mut vectors = vectors(parts, limit);
    let message = message(&mut vectors);
    retry_interrupted(|| {
        // SAFETY: the descriptor is open while it is borrowed; every vector lies in guest memory, which stays mapped while
        // `parts` borrows it, and the kernel only reads from it.
        unsafe {
            libc::sendmsg(
                socket.as_raw_fd(),
                &raw const message,
                libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
            )
        }
    })
}

/// What came out of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Received {
    /// How many bytes. Zero is the end of the stream.
    pub(super) bytes: usize,
    /// The peer has sent descriptors along. They are dropped, but the read ended with them: there may be more to read, and
    /// no event will say so.
    pub(super) cut: bool,
}

/// Receives at most `limit` bytes from `socket` into `parts`, in order, without waiting. Both must have room for one.
///
/// # Errors
///
/// [`io::ErrorKind::WouldBlock`] if there is nothing to receive; whatever else recvmsg says.
pub(super) fn receive(
    socket: BorrowedFd<'_>,
    parts: &[GuestSlice<'_>],
    limit: usize,
) -> io::Result<Received> {
    let mut vectors = vectors(parts, limit);
    let mut message = message(&mut vectors);
    let bytes = retry_interrupted(|| {
        // SAFETY: the descriptor is open while it is borrowed; every vector lies in guest memory, which stays mapped while
        // `parts` borrows it, and which nothing in this process refers to by a Rust reference.
        unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) }
    })?;
    let cut = message.msg_flags & libc::MSG_CTRUNC != 0;
    Ok(Received { bytes, cut })
}

/// Addresses and lengths of the first `limit` bytes of `parts`.
fn vectors(parts: &[GuestSlice<'_>], limit: usize) -> Vec<libc::iovec> {
    let mut left = limit;
    let mut vectors = Vec::with_capacity(parts.len());
    for part in parts {
        if left == 0 {
            break;
        }
        let length = part.len().min(left);
        left -= length;
        vectors.push(libc::iovec {
            iov_base: part.ptr_guard_mut().as_ptr().cast(),
            iov_len: length,
        });
    }
    vectors
}

/// A message without address or control data. It is valid as long as `vectors`.
fn message(vectors: &mut [libc::iovec]) -> libc::msghdr {
    libc::msghdr {
        msg_name: std::ptr::null_mut(),
        msg_namelen: 0,
        msg_iov: vectors.as_mut_ptr(),
        msg_iovlen: vectors.len(),
        msg_control: std::ptr::null_mut(),
        msg_controllen: 0,
        msg_flags: 0,
    }
}

fn retry_interrupted(mut call: impl FnMut() -> isize) -> io::Result<usize> {
    loop {
        if let Ok(moved) = usize::try_from(call()) {
            return Ok(moved);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;
    use virtio::GuestMemory;
    use vm_memory::{Bytes, GuestAddress};

    use super::super::parts::tests::slice;

    #[test]
    fn several_pieces_in_one_call_up_to_the_limit() {
        let memory = GuestMemory::from_ranges(&[(GuestAddress(0), 0x1000)]).unwrap();
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        memory.write_slice(b"abcdef", GuestAddress(0)).unwrap();
        let parts = [slice(&memory, 0, 2), slice(&memory, 4, 2), slice(&memory, 2, 2)];

        assert_eq!(send(ours.as_fd(), &parts, 5).unwrap(), 5);
        let mut received = [0; 5];
        theirs.read_exact(&mut received).unwrap();
        assert_eq!(&received, b"abefc");

        theirs.write_all(b"uvwxyz").unwrap();
        let received = receive(ours.as_fd(), &parts, 3).unwrap();
        assert_eq!(received, Received { bytes: 3, cut: false });
        let mut stored = [0; 6];
        memory.read_slice(&mut stored, GuestAddress(0)).unwrap();
        assert_eq!(&stored, b"uvcdwf");
    }

    #[test]
    fn nothing_to_receive_full_and_closed_sockets_are_told_apart() {
        let memory = GuestMemory::from_ranges(&[(GuestAddress(0), 0x1_0000)]).unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        let parts = [slice(&memory, 0, 0x1_0000)];

        assert_eq!(
            receive(ours.as_fd(), &parts, 1).unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );
        let full = loop {
            if let Err(error) = send(ours.as_fd(), &parts, usize::MAX) {
                break error;
            }
        };
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
        drop(theirs);
        assert_eq!(
            send(ours.as_fd(), &parts, 1).unwrap_err().kind(),
            io::ErrorKind::BrokenPipe
        );
    }
}
