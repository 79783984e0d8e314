//! The backend over Unix sockets.

use std::io;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use event_manager::{EventOps, Events, MutEventSubscriber};
use virtio::{ActivateError, Activation, VirtioDevice};

use super::{ConfigSpace, QUEUE_SIZES, VIRTIO_ID_VSOCK};

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
}

/// The worker half: what the device thread's event loop runs.
#[derive(Debug)]
pub struct UnixVsockWorker {}

impl UnixVsock {
    /// Opens the device: both halves, inactive.
    ///
    /// # Errors
    ///
    /// If an epoll instance, an eventfd or a timer cannot be had.
    pub fn open(config: UnixVsockConfig) -> io::Result<(Self, UnixVsockWorker)> {
        Ok((
            Self {
                config_space: ConfigSpace::new(config.guest_cid),
            },
            UnixVsockWorker {},
        ))
    }
}

impl VirtioDevice for UnixVsock {
    type Running = ();

    fn device_id(&self) -> u32 {
        VIRTIO_ID_VSOCK
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        self.config_space.read(offset, data);
    }

    fn activate(&mut self, _activation: Activation) -> Result<(), ActivateError> {
        Ok(())
    }

    fn reset(&mut self, (): ()) {}
}

impl MutEventSubscriber for UnixVsockWorker {
    fn process(&mut self, _events: Events, _ops: &mut EventOps<'_>) {}

    fn init(&mut self, _ops: &mut EventOps<'_>) {}
}
