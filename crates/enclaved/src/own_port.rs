//! A vsock port of the parent on which the daemon itself listens, for one enclave: a socket in the enclave's directory, or calls
//! of its CID over the kernel's vsock.

use std::io;
use std::path::PathBuf;

use tokio::net::{UnixListener, UnixStream};

use crate::parent_vsock::{Calls, ParentVsock, PortTaken};
use crate::run_directory::{EnclaveDirectory, RunDirectoryError};

/// How an enclave reaches its parent.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Way<'a> {
    /// By sockets in its directory.
    Directory(&'a EnclaveDirectory),
    /// By the kernel's vsock, with this CID.
    Kernel(&'a ParentVsock, u32),
}

/// Why the daemon cannot listen.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ListenError {
    /// In the enclave's directory.
    #[error(transparent)]
    Directory(#[from] RunDirectoryError),
    /// On the machine's vsock.
    #[error(transparent)]
    Vsock(#[from] PortTaken),
}

/// The listener. Dropping it lets go of the port.
#[derive(Debug)]
pub(crate) struct OwnPort(Kind);

#[derive(Debug)]
enum Kind {
    Socket { listener: UnixListener, path: PathBuf },
    Calls(Calls),
    Nobody,
}

impl OwnPort {
    /// Listens on `port`. Must be called on a Tokio runtime.
    ///
    /// # Errors
    /// [`ListenError`].
    pub(crate) fn listen(way: Way<'_>, port: u32) -> Result<Self, ListenError> {
        let kind = match way {
            Way::Directory(directory) => {
                let path = directory.port_path(port);
                let listener = directory.bind_port(port)?;
                let watched = listener
                    .set_nonblocking(true)
                    .and_then(|()| UnixListener::from_std(listener));
                let failed = |source| RunDirectoryError::Io {
                    action: "listen on",
                    path: path.clone(),
                    source,
                };
                let listener = watched.map_err(failed)?;
                Kind::Socket { listener, path }
            }
            Way::Kernel(parent, cid) => Kind::Calls(parent.expect(cid, port)?),
        };
        Ok(Self(kind))
    }

    /// One to which no connection ever comes.
    pub(crate) fn of_nobody() -> Self {
        Self(Kind::Nobody)
    }

    /// The next connection of the enclave. May be dropped half-way and called again without losing one.
    ///
    /// # Errors
    /// What accepting one says.
    pub(crate) async fn accept(&mut self) -> io::Result<UnixStream> {
        match &mut self.0 {
            Kind::Socket { listener, .. } => Ok(listener.accept().await?.0),
            Kind::Calls(calls) => calls.next().await,
            Kind::Nobody => std::future::pending().await,
        }
    }
}

impl Drop for OwnPort {
    fn drop(&mut self) {
        if let Kind::Socket { path, .. } = &self.0 {
            // The whole directory may be gone already.
            let _ = std::fs::remove_file(path);
        }
    }
}
