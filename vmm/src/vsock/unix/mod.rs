//! The backend over Unix sockets: needs nothing of the parent but a directory.
//!
//! # Who talks to whom
//!
//! ```text
//!   client ──► vsock.sock      "CONNECT 5000\n"  ──►  guest listens on port 5000
//!                              "OK 1073741824\n" ◄──  (accepted; from here on the guest's bytes)
//!   server ◄── vsock.sock_9000                   ◄──  guest connects to CID 3, port 9000
//! ```
//!
//! The convention is Firecracker's, so its clients work. One connection of the guest is one Unix stream: its two directions
//! end separately, and what one side does not read stops the other.
//!
//! # How bytes move
//!
//! The device takes *turns* on a thread of its own. An event wakes it: a doorbell, a socket, a deadline. A turn takes
//! what the guest has sent, fills what buffers the guest offers, raises at most one interrupt, and never waits. Payload goes
//! from guest memory to a socket and back in one system call per packet or run of packets. Only what a full socket refuses is
//! copied, up to the connection's receive window ([`vsock_device::Limits`]).
//!
//! [`vsock_device`] decides what may be sent; here is only what moves it:
//!
//! ```text
//!   transmit ─► host ─► stream (one per connection), connector, client
//!   receive  ◄─ host ◄─ guest_io
//!   active: the turn, timers     poller: what wakes it
//! ```

mod active;
mod client;
mod connector;
mod guest_io;
mod host;
mod parts;
mod poller;
mod receive;
mod stream;
mod transmit;

#[cfg(test)]
mod tests;

use std::io;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;

use virtio::Activation;
use vmm_sys_util::epoll::Epoll;

use self::active::Active;
use self::poller::Poller;
use super::halves::{Backend, Vsock, VsockWorker};
use crate::log;

/// Lines about faults of the guest or the host that one device writes to the log.
const MOST_COMPLAINTS: u32 = 16;

/// What the device is made from.
#[derive(Debug)]
pub struct UnixVsockConfig {
    /// The guest's CID, 16 or above.
    pub guest_cid: u32,
    /// Where clients on the parent connect to reach the guest (`vsock.sock`). Made non-blocking.
    pub listener: UnixListener,
    /// The path of the sockets that the guest reaches, without the port number at its end. Relative to the working directory
    /// of the process: `vsock.sock_`.
    pub port_socket_prefix: PathBuf,
}

/// What outlives a reset.
#[derive(Debug)]
pub struct Endpoints {
    guest_cid: u32,
    listener: UnixListener,
    port_socket_prefix: PathBuf,
    poller: Poller,
    complaints: log::Limited,
}

/// Opens the device: both halves, inactive.
///
/// # Errors
///
/// If there is no epoll instance to be had, or the listener is no socket.
pub fn open(config: UnixVsockConfig) -> io::Result<(Vsock<Endpoints>, VsockWorker<Endpoints>)> {
    config.listener.set_nonblocking(true)?;
    let endpoints = Endpoints {
        guest_cid: config.guest_cid,
        listener: config.listener,
        port_socket_prefix: config.port_socket_prefix,
        poller: Poller::new()?,
        complaints: log::Limited::new(MOST_COMPLAINTS),
    };
    Ok(Vsock::new(config.guest_cid, endpoints))
}

impl Backend for Endpoints {
    type Active = Active;

    fn activate(self: &Arc<Self>, activation: Activation) -> io::Result<Active> {
        Active::new(activation, Arc::clone(self))
    }

    fn epoll(&self) -> &Epoll {
        self.poller.epoll()
    }

    fn complaints(&self) -> &log::Limited {
        &self.complaints
    }
}
