//! `AF_VSOCK` ports of this machine on which the daemon itself listens, for all enclaves that use the kernel's vsock.
//!
//! Such an enclave's heartbeat comes to port 9000 of the parent, like everybody's: there is one listener per port, and whose
//! connection it is tells the caller's CID, which the parent's kernel has checked. Each connection is handed to whoever expects
//! one from that CID at that port; others are closed.
//!
//! The ports are taken when a daemon starts whose enclaves are to use them, else when the first enclave expects a call, and kept
//! as long as the daemon runs. They are anybody's to take, as on EC2: whoever has them when no daemon does keeps enclaves from
//! booting, but not those that have booted from going on. One listener for all also means that they share its backlog; how
//! often one guest may call is bounded by its VMM (`vmm/src/vsock/kernel/parent.rs`).

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use api::{APPLICATION_END_PORT, HEARTBEAT_PORT};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use vsock::{VMADDR_CID_ANY, VsockListener};

/// The ports that enclaves call.
const PORTS: [u32; 2] = [HEARTBEAT_PORT, APPLICATION_END_PORT];

/// Calls of one enclave that may wait to be answered. More are closed.
const MOST_WAITING: usize = 8;

/// Pause after accepting failed, which means that descriptors or memory are short.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// The CID of an enclave, and the port that it calls.
type Key = (u32, u32);

/// Who expects calls. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct ParentVsock(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    expected: HashMap<Key, mpsc::Sender<UnixStream>>,
    /// One per port, once the ports are taken.
    accepting: JoinSet<()>,
}

/// Why a port cannot be had.
#[derive(Debug, thiserror::Error)]
#[error(
    "the daemon cannot listen on vsock port {port} of this machine; if another program or daemon has it, stop that or use \
     --vsock unix"
)]
pub(crate) struct PortTaken {
    port: u32,
    source: io::Error,
}

/// Calls of one enclave at one port. Dropping it closes later ones.
#[derive(Debug)]
pub(crate) struct Calls {
    parent: ParentVsock,
    key: Key,
    waiting: mpsc::Receiver<UnixStream>,
}

impl ParentVsock {
    /// Calls of the enclave `cid` at `port`, which is one of the daemon's ports. Whoever expected them before does no longer.
    /// Must be called on a Tokio runtime.
    ///
    /// # Errors
    /// If a port cannot be had, for example because another program has it.
    pub(crate) fn expect(&self, cid: u32, port: u32) -> Result<Calls, PortTaken> {
        self.take_ports()?;
        let (sender, waiting) = mpsc::channel(MOST_WAITING);
        self.lock().expected.insert((cid, port), sender);
        Ok(Calls {
            parent: self.clone(),
            key: (cid, port),
            waiting,
        })
    }

    /// Takes the ports unless they are taken. Must be called on a Tokio runtime.
    ///
    /// # Errors
    /// As [`expect`](Self::expect).
    pub(crate) fn take_ports(&self) -> Result<(), PortTaken> {
        let mut inner = self.lock();
        if inner.accepting.is_empty() {
            // All or none: of two daemons, one has both.
            let [first, second] = PORTS.map(|port| listen(port).map_err(|source| PortTaken { port, source }));
            for (listener, port) in [first?, second?].into_iter().zip(PORTS) {
                let parent = self.clone();
                inner
                    .accepting
                    .spawn(async move { parent.accept(listener, port).await });
            }
        }
        Ok(())
    }

    /// Never returns.
    async fn accept(self, listener: Listener, port: u32) {
        loop {
            match listener.accept().await {
                Ok((stream, cid)) => self.hand_over(stream, (cid, port)),
                Err(error) => {
                    tracing::warn!(%error, port, "accepting a vsock connection failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn hand_over(&self, stream: UnixStream, key: Key) {
        let expected = self.lock().expected.get(&key).cloned();
        let handed_over = expected.is_some_and(|calls| calls.try_send(stream).is_ok());
        if !handed_over {
            let (cid, port) = key;
            tracing::debug!(cid, port, "a vsock connection that nobody expects");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Calls {
    /// The next call. May be dropped half-way and called again without losing one.
    pub(crate) async fn next(&mut self) -> io::Result<UnixStream> {
        self.waiting
            .recv()
            .await
            .ok_or_else(|| io::Error::other("somebody else expects the enclave's calls"))
    }
}

impl Drop for Calls {
    fn drop(&mut self) {
        let mut inner = self.parent.lock();
        // It may be expected by somebody else by now.
        let ours = |sender: &mpsc::Sender<UnixStream>| sender.is_closed();
        self.waiting.close();
        if inner.expected.get(&self.key).is_some_and(ours) {
            inner.expected.remove(&self.key);
        }
    }
}

/// A vsock listener, watched by the runtime.
#[derive(Debug)]
struct Listener {
    listener: VsockListener,
    /// The same socket. The type is that of a stream, but nothing is asked of it but when there is something to accept.
    readiness: UnixStream,
}

fn listen(port: u32) -> io::Result<Listener> {
    let listener = VsockListener::bind_with_cid_port(VMADDR_CID_ANY, port)?;
    let readiness = watched(&listener)?;
    Ok(Listener { listener, readiness })
}

impl Listener {
    /// A connection, and the CID of the other end.
    async fn accept(&self) -> io::Result<(UnixStream, u32)> {
        let accept = || self.listener.accept();
        let (stream, address) = self.readiness.async_io(Interest::READABLE, accept).await?;
        // Likewise: what is read and written are bytes, whatever the family.
        Ok((watched(&stream)?, address.cid()))
    }
}

fn watched(socket: &impl AsFd) -> io::Result<UnixStream> {
    let socket: OwnedFd = socket.as_fd().try_clone_to_owned()?;
    rustix::io::ioctl_fionbio(&socket, true)?;
    UnixStream::from_std(socket.into())
}
