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
//! The device takes *turns* on the VMM's device thread. An event wakes it: a doorbell, a socket, a deadline. A turn takes
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
//!
//! # Two halves
//!
//! [`UnixVsock`] is activated and reset by its transport on vCPU threads, [`UnixVsockWorker`] takes the turns. Between them is
//! the active device in a mutex. A turn holds it for some megabytes of copying at most; a vCPU takes it to activate or to reset
//! the device and for nothing else. No thread waits for another while it holds it. A reset therefore is complete when it
//! returns: queues, host streams and all that was buffered are gone, and the worker finds nothing to do.

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
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};
use virtio::{ActivateError, Activation, Interrupt, VirtioDevice};
use vmm_sys_util::epoll::EpollEvent;

use self::active::Active;
use self::poller::{BATCH, Poller};
use super::{ConfigSpace, QUEUE_SIZES, VIRTIO_ID_VSOCK};
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

/// The device half: what the transport activates and resets.
#[derive(Debug)]
pub struct UnixVsock {
    config_space: ConfigSpace,
    shared: Arc<Shared>,
}

/// The worker half: what the device thread's event loop runs.
#[derive(Debug)]
pub struct UnixVsockWorker {
    shared: Arc<Shared>,
}

/// Proof that the device is active: made by activation, spent by reset.
#[derive(Debug)]
pub struct Running(());

#[derive(Debug)]
struct Shared {
    endpoints: Arc<Endpoints>,
    active: Mutex<Option<ActiveDevice>>,
}

#[derive(Debug)]
struct ActiveDevice {
    device: Active,
    interrupt: Interrupt,
}

/// What outlives a reset.
#[derive(Debug)]
struct Endpoints {
    guest_cid: u32,
    listener: UnixListener,
    port_socket_prefix: PathBuf,
    poller: Poller,
    complaints: log::Limited,
}

impl UnixVsock {
    /// Opens the device: both halves, inactive.
    ///
    /// # Errors
    ///
    /// If there is no epoll instance to be had, or the listener is no socket.
    pub fn open(config: UnixVsockConfig) -> io::Result<(Self, UnixVsockWorker)> {
        config.listener.set_nonblocking(true)?;
        let endpoints = Arc::new(Endpoints {
            guest_cid: config.guest_cid,
            listener: config.listener,
            port_socket_prefix: config.port_socket_prefix,
            poller: Poller::new()?,
            complaints: log::Limited::new(MOST_COMPLAINTS),
        });
        let shared = Arc::new(Shared {
            endpoints,
            active: Mutex::new(None),
        });
        let device = Self {
            config_space: ConfigSpace::new(config.guest_cid),
            shared: Arc::clone(&shared),
        };
        Ok((device, UnixVsockWorker { shared }))
    }
}

impl VirtioDevice for UnixVsock {
    type Running = Running;

    fn device_id(&self) -> u32 {
        VIRTIO_ID_VSOCK
    }

    /// Streams are what there is without any feature bit (virtio 1.2, 5.10.3).
    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        self.config_space.read(offset, data);
    }

    fn activate(&mut self, activation: Activation) -> Result<Running, ActivateError> {
        let interrupt = activation.interrupt.clone();
        // Under the lock from the first watched descriptor on: the worker throws away events of a device that is not there.
        let mut active = self.shared.lock();
        let device = Active::new(activation, Arc::clone(&self.shared.endpoints))?;
        *active = Some(ActiveDevice { device, interrupt });
        Ok(Running(()))
    }

    fn reset(&mut self, _running: Running) {
        // Dropped outside the lock: closing thousands of sockets takes a while.
        let active = self.shared.lock().take();
        drop(active);
    }
}

impl Shared {
    /// A thread that panicked in a turn leaves a device that is no worse than one whose guest misbehaves.
    fn lock(&self) -> MutexGuard<'_, Option<ActiveDevice>> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MutEventSubscriber for UnixVsockWorker {
    fn process(&mut self, _events: Events, _ops: &mut EventOps<'_>) {
        let mut active = self.shared.lock();
        let Some(running) = active.as_mut() else {
            // Events of a device that has just been reset.
            let _ = self
                .shared
                .endpoints
                .poller
                .take(&mut [EpollEvent::default(); BATCH]);
            return;
        };
        if let Err(error) = running.device.run() {
            self.shared
                .endpoints
                .complaints
                .line(format_args!("vsock: {error}; the device stops until it is reset"));
            let interrupt = running.interrupt.clone();
            *active = None;
            interrupt.fail_device();
        }
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        let poller = &self.shared.endpoints.poller;
        let events = Events::new_raw(poller.as_raw_fd(), EventSet::IN);
        if let Err(error) = ops.add(events) {
            self.shared
                .endpoints
                .complaints
                .line(format_args!("vsock: cannot be watched: {error}"));
        }
    }
}
