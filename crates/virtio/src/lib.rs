//! A virtio device behind memory-mapped registers: the transport, and the contract of the device behind it.
//!
//! # The model
//!
//! A virtio device and its driver in the guest talk through three things (virtio 1.2, chapter 2 and section 4.2):
//!
//! ```text
//!   guest (vCPU threads)                              device (one thread of the VMM)
//!   ───────────────────────                           ──────────────────────────────
//!   registers, one 4 KiB window  ──►  MmioTransport   owns features, status, queue addresses
//!   QueueNotify, an ioeventfd    ──►  doorbell        wakes the device's thread, no vCPU exit to the VMM
//!   queues, in guest memory      ◄─►  ActiveQueue     owned by the running device, nobody else
//!   interrupt line               ◄──  Interrupt       status bit first, then the line
//! ```
//!
//! [`MmioTransport`] is what a vCPU thread reads and writes. It walks the driver through the status machine (ACKNOWLEDGE,
//! DRIVER, FEATURES_OK, DRIVER_OK), checks everything the driver has set up when it writes DRIVER_OK, and only then makes
//! queues and hands them to the device. Before that the device sees no guest memory; after a reset it sees none again.
//!
//! [`VirtioDevice`] is what a device implements. An inactive device is the value itself; an active one is its associated
//! type [`VirtioDevice::Running`], which exists only between `activate` and `reset`. A device that is running therefore
//! cannot be activated twice, and a device that is not running has no queue to touch.
//!
//! # What is trusted
//!
//! Nothing that comes from the guest. Registers may be read and written in any width, at any offset, in any order, by any
//! vCPU at once; queue addresses may point anywhere; descriptor chains may loop. None of this panics, none of it costs more
//! than a bounded amount of time and memory. What the device cannot make sense of ends in DEVICE_NEEDS_RESET.

#![deny(unsafe_code)]

mod device;
mod interrupt;
mod mmio;
mod queue;

pub use device::{ActivateError, Activation, VirtioDevice};
pub use interrupt::{Interrupt, InterruptLine};
pub use mmio::{MmioTransport, TransportError};
pub use queue::{
    Access, ActiveQueue, Chain, DESCRIPTOR_SIZE, Descriptor, Descriptors, MalformedChain, OutsideOfRing,
    QueueError, RingMemory, has_passed, slice_in_one_region,
};

/// Guest memory as every device sees it: mapped regions without a dirty bitmap.
pub type GuestMemory = vm_memory::GuestMemoryMmap<()>;

/// A piece of guest memory that a descriptor points at. The guest may change it while it is being read.
pub type GuestSlice<'m> = vm_memory::VolatileSlice<'m, ()>;

/// Size in bytes of the register window of one device: registers at 0, configuration space from 0x100.
pub const MMIO_WINDOW_SIZE: u64 = 0x1000;

/// Offset of the QueueNotify register in the window. A write of queue index `n` rings doorbell `n`
/// (see [`MmioTransport::doorbells`]).
pub const QUEUE_NOTIFY_OFFSET: u64 = 0x50;
