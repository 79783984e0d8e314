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
        // Without a runtime there is no thread that serves clients.
        if let Ok(runtime) = Handle::try_current() {
            let descriptor = self.0.take();
            runtime.spawn_blocking(move || drop(descriptor));
        }
    }
}

/// Closes a client's connection; returns when it is closed.
pub(crate) async fn close(connection: impl Send + 'static) {
    // Fails only if closing panics or the runtime ends, which closes it too.
    let _ = tokio::task::spawn_blocking(move || drop(connection)).await;
}
