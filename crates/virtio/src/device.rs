//! The contract between a transport and the device behind it.

use std::sync::Arc;

use crate::queue::ActiveQueue;
use crate::{GuestMemory, Interrupt};

/// A virtio device, seen from its transport.
///
/// # Threads
///
/// The transport calls every method from whichever vCPU thread wrote the register, one call at a time. The work of a
/// running device is done elsewhere, on a thread of the device's, which [`activate`](Self::activate) hands the queues to.
/// No method may wait for input or output: a vCPU that waits is a guest that stands still.
///
/// # Life
///
/// ```text
///   inactive: Self ── activate(queues, memory) ──► Self::Running
///        ▲                                              │
///        └───────────────── reset(running) ─────────────┘
/// ```
///
/// The transport calls `activate` only when it holds no `Running`, and `reset` with the one it holds. So a device is never
/// active twice, and after `reset` has returned the queues of the previous life are gone.
pub trait VirtioDevice: Send {
    /// The active device, or the handle to it if it lives on a thread of the device's.
    type Running: Send;

    /// The device type (virtio 1.2, chapter 5). Constant for the life of the device.
    fn device_id(&self) -> u32;

    /// Feature bits of this device type. VERSION_1 and EVENT_IDX belong to the transport, which adds them. Constant.
    fn features(&self) -> u64;

    /// The largest size of each queue, in descriptors: a power of two of at most 32768. The length is the number of queues.
    /// Constant.
    fn queue_sizes(&self) -> &[u16];

    /// Fills `data` with the bytes of the configuration space from `offset`, counted from its start. The transport has
    /// zeroed `data`; bytes beyond the end of the space stay zero. Any width and offset may come.
    fn read_config(&self, offset: u64, data: &mut [u8]);

    /// The driver writes `data` to the configuration space. Devices whose space is read-only ignore it, as does this default.
    fn write_config(&mut self, _offset: u64, _data: &[u8]) {}

    /// The driver is ready (DRIVER_OK): the device takes its queues and starts to work.
    ///
    /// The transport has already checked sizes and addresses of all queues against guest memory. On an error it sets
    /// DEVICE_NEEDS_RESET; the device then is as inactive as it was before.
    fn activate(&mut self, activation: Activation) -> Result<Self::Running, ActivateError>;

    /// The driver resets the device: it stops and lets go of its queues, of guest memory and of whatever belonged to the
    /// guest's connections. When this returns, no thread touches guest memory for this device any more; only then does the
    /// status register read 0 (virtio 1.2, 2.4.1). It is ready to be activated again.
    fn reset(&mut self, running: Self::Running);
}

/// What a device is given when its driver is ready.
#[derive(Debug)]
pub struct Activation {
    /// Guest memory.
    pub memory: Arc<GuestMemory>,
    /// The queues, in the order and number of [`VirtioDevice::queue_sizes`].
    pub queues: Vec<ActiveQueue>,
    /// The interrupt of the device, also held by each queue.
    pub interrupt: Interrupt,
    /// The feature bits that driver and device agreed on.
    pub features: u64,
}

/// Why a device could not be activated.
#[derive(Debug, thiserror::Error)]
pub enum ActivateError {
    /// The driver has set up a queue that cannot be used.
    #[error("queue {index} is not ready, has an invalid size, or is not inside guest memory")]
    Queue {
        /// Index of the queue.
        index: usize,
    },
    /// The device lacks something it needs from the operating system.
    #[error("the device cannot start")]
    Device(#[from] std::io::Error),
}
