//! Closing what clients pass.
//!
//! Closing a descriptor takes as long as whoever made it likes: a socket can linger (`SO_LINGER`), a file can lie on a
//! file system that the client's own process serves. So nothing that came from a client is closed on a thread that serves
//! clients. That includes a client's connection, which may hold descriptors that were passed and never received.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use tokio::runtime::Handle;

/// A descriptor that came from a client. Dropping it closes it on a thread that may wait.
#[derive(Debug)]
pub struct ForeignDescriptor(Option<OwnedFd>);

impl From<OwnedFd> for ForeignDescriptor {
    fn from(descriptor: OwnedFd) -> Self {
        Self(Some(descriptor))
    }
}

impl AsFd for ForeignDescriptor {
    #[expect(clippy::expect_used, reason = "only `drop` takes the descriptor out")]
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_ref().expect("not dropped").as_fd()
    }
}

impl Drop for ForeignDescriptor {
    fn drop(&mut self) {
        close(self.0.take());
    }
}

/// Drops what came from a client on a thread that may wait, and does not wait for it.
pub(crate) fn close(what: impl Send + 'static) {
    // Without a runtime there is no thread that serves clients, and it is dropped here.
    if let Ok(runtime) = Handle::try_current() {
        runtime.spawn_blocking(move || drop(what));
    }
}
