//! Closing what clients pass.
//!
//! Closing a descriptor takes as long as whoever made it likes: a socket can linger (`SO_LINGER`), a file can lie on a
//! file system that the client's own process serves. So nothing that came from a client is closed on a thread that serves
//! clients. That includes a client's connection, which may hold descriptors that were passed and never received.
//!
//! Threads that may wait are not without end either. All that came with a request is closed by one of them, and what is not closed
//! yet holds on to its client's place, so that a user has no more of them than places. Clients that get no place share a few
//! threads of their own (`Refused`).

use std::io::IoSliceMut;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::net::{RecvAncillaryBuffer, RecvFlags, ReturnFlags, Shutdown};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use crate::places::Place;

/// A descriptor that came from a client. Dropping it closes it on a thread that may wait.
#[derive(Debug)]
pub struct ForeignDescriptor {
    descriptor: Option<OwnedFd>,
    /// Of the client that has passed it.
    place: Option<Arc<Place>>,
}

impl From<OwnedFd> for ForeignDescriptor {
    fn from(descriptor: OwnedFd) -> Self {
        Self {
            descriptor: Some(descriptor),
            place: None,
        }
    }
}

impl AsFd for ForeignDescriptor {
    #[expect(clippy::expect_used, reason = "only `drop` takes the descriptor out")]
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_ref().expect("not dropped").as_fd()
    }
}

impl Drop for ForeignDescriptor {
    fn drop(&mut self) {
        close((self.descriptor.take(), self.place.take()));
    }
}

/// All descriptors that came with a request. Dropping them closes them on a thread that may wait.
#[derive(Debug)]
pub struct ForeignDescriptors {
    descriptors: Vec<OwnedFd>,
    place: Arc<Place>,
}

impl ForeignDescriptors {
    /// None, of the client that has this place.
    pub fn none(place: &Arc<Place>) -> Self {
        Self {
            descriptors: Vec::new(),
            place: Arc::clone(place),
        }
    }

    /// Adds what came later.
    pub fn extend(&mut self, descriptors: impl IntoIterator<Item = OwnedFd>) {
        self.descriptors.extend(descriptors);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.descriptors.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.descriptors.is_empty()
    }

    /// One of them, if there is any. The others are closed.
    pub fn into_one(mut self) -> Option<ForeignDescriptor> {
        self.descriptors.pop().map(|descriptor| ForeignDescriptor {
            descriptor: Some(descriptor),
            place: Some(Arc::clone(&self.place)),
        })
    }
}

impl Drop for ForeignDescriptors {
    fn drop(&mut self) {
        if !self.descriptors.is_empty() {
            close((std::mem::take(&mut self.descriptors), Arc::clone(&self.place)));
        }
    }
}

/// Drops what came from a client on a thread that may wait, and does not wait for it.
pub(crate) fn close(what: impl Send + 'static) {
    // Without a runtime there is no thread that serves clients, and it is dropped here.
    if let Ok(runtime) = Handle::try_current() {
        runtime.spawn_blocking(move || drop(what));
    }
}

/// Threads that close what came from clients without a place.
pub const REFUSED_THREADS: usize = 32;

/// Closes the connections of clients that get no place. One that has passed nothing is closed at once. What others have passed is closed on a
/// few threads; if all of these wait, the rest stays open until one of them does not. That costs the daemon a descriptor for each, and the
/// client one of those that it may have under way at once, which are as many as it may have open (unix(7), `SCM_RIGHTS`). Clients that have
/// a place do not notice.
#[derive(Debug)]
pub(crate) struct Refused {
    threads: Arc<Semaphore>,
}

impl Default for Refused {
    fn default() -> Self {
        Self {
            threads: Arc::new(Semaphore::new(REFUSED_THREADS)),
        }
    }
}

impl Refused {
    /// Closes the connection, now or later. To be called on a Tokio runtime.
    pub(crate) fn close(&self, connection: OwnedFd) {
        if holds_descriptors(&connection) {
            self.drop_later(connection);
        }
    }

    fn drop_later(&self, what: impl Send + 'static) {
        let threads = Arc::clone(&self.threads);
        tokio::spawn(async move {
            // Nobody closes the semaphore.
            let thread = threads.acquire_owned().await;
            tokio::task::spawn_blocking(move || drop((what, thread)));
        });
    }
}

/// Whether descriptors may have been passed that nobody has received. The peer can send no more then, and what it has sent without any
/// is gone.
fn holds_descriptors(connection: &OwnedFd) -> bool {
    // What has been written to the peer stays there for it to read.
    if rustix::net::shutdown(connection, Shutdown::Both).is_err() {
        return true;
    }
    let mut bytes = [0; 16 << 10];
    loop {
        // Without room for them descriptors are announced, and stay where they are.
        let mut pieces = [IoSliceMut::new(&mut bytes)];
        let peek = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        let seen = rustix::net::recvmsg(connection, &mut pieces, &mut RecvAncillaryBuffer::default(), peek);
        match seen {
            Ok(seen) if seen.flags.contains(ReturnFlags::CTRUNC) => return true,
            Ok(seen) if seen.bytes == 0 => return false,
            // The bytes that were looked at, and no others: descriptors may come with the next.
            Ok(seen) => {
                let looked_at = bytes.get_mut(..seen.bytes).unwrap_or_default();
                if rustix::net::recv(connection, looked_at, RecvFlags::DONTWAIT).is_err() {
                    return true;
                }
            }
            Err(_) => return true,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{IoSlice, Write};
    use std::mem::MaybeUninit;
    use std::os::unix::net::UnixStream;
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::time::Duration;

    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};

    use super::*;

    /// Says when it is being closed, and is not until it may.
    struct Lingering {
        closing: Sender<()>,
        may_end: Receiver<()>,
    }

    impl Drop for Lingering {
        fn drop(&mut self) {
            let _ = self.closing.send(());
            let _ = self.may_end.recv();
        }
    }

    /// With one thread more than those of refused clients, which is what others have here.
    #[test]
    fn refused_clients_leave_others_their_threads_and_are_all_closed_in_the_end() {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(REFUSED_THREADS + 1)
            .enable_time()
            .build()
            .unwrap();
        let (closing, closings) = channel();
        let mut ends = Vec::new();
        let closed = |most: usize| {
            let next = || closings.recv_timeout(Duration::from_secs(10)).ok();
            std::iter::from_fn(next).take(most).count()
        };
        runtime.block_on(async {
            let refused = Refused::default();
            for _ in 0..2 * REFUSED_THREADS {
                let (end, may_end) = channel();
                ends.push(end);
                let closing = closing.clone();
                refused.drop_later(Lingering { closing, may_end });
            }
            assert_eq!(closed(REFUSED_THREADS), REFUSED_THREADS);
            let of_another = tokio::task::spawn_blocking(|| ());
            tokio::time::timeout(Duration::from_secs(10), of_another)
                .await
                .unwrap()
                .unwrap();
            drop(ends);
            assert_eq!(closed(REFUSED_THREADS), REFUSED_THREADS);
        });
    }

    #[test]
    fn descriptors_that_were_passed_are_seen_behind_bytes_and_left_where_they_are() {
        let pair = || {
            let (ours, theirs) = UnixStream::pair().unwrap();
            (OwnedFd::from(ours), theirs)
        };
        let (ours, mut theirs) = pair();
        assert!(!holds_descriptors(&ours));
        assert!(theirs.write(b"more").is_err());

        let (ours, mut theirs) = pair();
        theirs.write_all(&vec![7; 50_000]).unwrap();
        assert!(!holds_descriptors(&ours));

        let (ours, mut theirs) = pair();
        theirs.write_all(&vec![7; 50_000]).unwrap();
        let (passed, mut other_end) = UnixStream::pair().unwrap();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut rights = SendAncillaryBuffer::new(&mut space);
        let passed_one = [passed.as_fd()];
        assert!(rights.push(SendAncillaryMessage::ScmRights(&passed_one)));
        rustix::net::sendmsg(&theirs, &[IoSlice::new(b"8")], &mut rights, SendFlags::empty()).unwrap();
        drop(passed);
        assert!(holds_descriptors(&ours));
        // It is open as long as the connection that it is in.
        assert!(other_end.write(b"here").is_ok());
        drop(ours);
        assert!(other_end.write(b"gone").is_err());
    }
}
