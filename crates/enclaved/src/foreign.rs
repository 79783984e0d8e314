//! Closing what clients pass.
//!
//! Closing a descriptor takes as long as whoever made it likes: a socket can linger (`SO_LINGER`), a file can lie on a
//! file system that the client's own process serves. So nothing that came from a client is closed on a thread that serves
//! clients. That includes a client's connection, which may hold descriptors that were passed and never received.
//!
//! Threads that may wait are not without end either. All that came with a request is closed by one of them, and what is not closed
//! yet holds on to its client's place, so that a user has no more of them than places. Clients that get no place share a few
//! threads of their own ([`Refused`]).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

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

/// Closes the connections of clients that get no place, and what they have passed. If all of its threads wait, the rest stays open
/// until one of them does not: that costs a descriptor for each, but no client that has a place anything.
#[derive(Debug, Clone)]
pub struct Refused {
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
    /// Drops it on one of the threads, now or later. To be called on a Tokio runtime.
    pub(crate) fn close(&self, what: impl Send + 'static) {
        let threads = Arc::clone(&self.threads);
        tokio::spawn(async move {
            // Nobody closes the semaphore.
            let thread = threads.acquire_owned().await;
            tokio::task::spawn_blocking(move || drop((what, thread)));
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

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
    fn refused_clients_leave_others_their_threads() {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(REFUSED_THREADS + 1)
            .build()
            .unwrap();
        let (closing, closings) = channel();
        let mut ends = Vec::new();
        let served = runtime.block_on(async {
            let refused = Refused::default();
            for _ in 0..2 * REFUSED_THREADS {
                let (end, may_end) = channel();
                ends.push(end);
                let closing = closing.clone();
                refused.close(Lingering { closing, may_end });
            }
            tokio::task::spawn_blocking(move || closings.iter().take(REFUSED_THREADS).count())
                .await
                .unwrap()
        });
        assert_eq!(served, REFUSED_THREADS);
        // Now all close, also those that had to wait.
        drop(ends);
    }
}
