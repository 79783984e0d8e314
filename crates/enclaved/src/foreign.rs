//! Closing what clients pass.
//!
//! Closing a descriptor takes as long as whoever made it likes: a socket can linger (`SO_LINGER`), a file can lie on a
//! file system that the client's own process serves. So nothing that came from a client is closed on a thread that serves
//! clients. That includes a client's connection, which may hold descriptors that were passed and never received.
//!
//! Threads that may wait are not without end either. All that came with a request is closed by one of them, and what is not closed
//! yet holds on to its client's place, so that a user has no more of them than places.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use tokio::runtime::Handle;

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
