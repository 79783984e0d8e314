//! Signals from the device to its driver.
//!
//! virtio-mmio has one interrupt line and a status register that says why it was raised (virtio 1.2, 4.2.2). The order
//! matters: the status bit is set before the line is raised, so that a driver that runs at once finds the reason.
//!
//! The driver reads InterruptStatus and writes InterruptACK on every interrupt. Both are single atomic operations here, so
//! that a vCPU never waits for the device's thread, however busy that is.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use virtio_bindings::virtio_mmio::{VIRTIO_MMIO_INT_CONFIG, VIRTIO_MMIO_INT_VRING};
use vmm_sys_util::eventfd::EventFd;

/// An edge-triggered interrupt line of the guest.
pub trait InterruptLine: Send + Sync + 'static {
    /// Raises the line and lowers it again.
    fn pulse(&self);
}

/// An eventfd that somebody raises a line for.
impl InterruptLine for EventFd {
    fn pulse(&self) {
        // Refused only when its counter is full, and then the interrupt is pending anyway.
        let _ = self.write(1);
    }
}

/// The interrupt of one device. Clones share the line and the status.
#[derive(Clone, Debug)]
pub struct Interrupt {
    shared: Arc<Shared>,
}

struct Shared {
    /// The InterruptStatus register.
    status: AtomicU32,
    /// The device has met something it cannot recover from (bit DEVICE_NEEDS_RESET of the status register).
    needs_reset: AtomicBool,
    /// The ConfigGeneration register.
    config_generation: AtomicU32,
    line: Box<dyn InterruptLine>,
}

impl Interrupt {
    /// An interrupt that is told by `line`.
    pub fn new(line: impl InterruptLine) -> Self {
        let shared = Shared {
            status: AtomicU32::new(0),
            needs_reset: AtomicBool::new(false),
            config_generation: AtomicU32::new(0),
            line: Box::new(line),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Tells the driver that buffers have been used. Whether it wants to know is for
    /// [`ActiveQueue::notify`](crate::ActiveQueue::notify) to find out.
    pub fn signal_used(&self) {
        self.raise(VIRTIO_MMIO_INT_VRING);
    }

    /// Tells the driver that the configuration space or the device status has changed.
    pub fn signal_config(&self) {
        self.shared.config_generation.fetch_add(1, Ordering::SeqCst);
        self.raise(VIRTIO_MMIO_INT_CONFIG);
    }

    /// Sets DEVICE_NEEDS_RESET and tells the driver (virtio 1.2, 2.1.2). The device must not touch its queues any more.
    pub fn fail_device(&self) {
        self.shared.needs_reset.store(true, Ordering::SeqCst);
        self.signal_config();
    }

    /// Whether DEVICE_NEEDS_RESET is set.
    pub fn device_failed(&self) -> bool {
        self.shared.needs_reset.load(Ordering::SeqCst)
    }

    /// The InterruptStatus register.
    pub(crate) fn status(&self) -> u32 {
        self.shared.status.load(Ordering::SeqCst)
    }

    /// A write to the InterruptACK register: the driver has seen the events in `bits`.
    pub(crate) fn acknowledge(&self, bits: u32) {
        self.shared.status.fetch_and(!bits, Ordering::SeqCst);
    }

    /// The ConfigGeneration register.
    pub(crate) fn config_generation(&self) -> u32 {
        self.shared.config_generation.load(Ordering::SeqCst)
    }

    /// Device reset: no event is pending and nothing has failed.
    pub(crate) fn reset(&self) {
        self.shared.needs_reset.store(false, Ordering::SeqCst);
        self.shared.status.store(0, Ordering::SeqCst);
    }

    /// The line is raised even if the bit is already set: the line is an edge, and an edge that came while the guest had
    /// the interrupt masked is lost. Sparing the event would then leave the driver without one for ever.
    fn raise(&self, bit: u32) {
        self.shared.status.fetch_or(bit, Ordering::SeqCst);
        self.shared.line.pulse();
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("status", &self.status)
            .field("needs_reset", &self.needs_reset)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmm_sys_util::eventfd::EFD_NONBLOCK;

    #[test]
    fn status_is_set_before_the_line_and_cleared_by_acknowledge() {
        let irqfd = EventFd::new(EFD_NONBLOCK).unwrap();
        let interrupt = Interrupt::new(irqfd.try_clone().unwrap());

        interrupt.signal_used();
        interrupt.signal_config();

        assert_eq!(irqfd.read().unwrap(), 2);
        assert_eq!(interrupt.status(), VIRTIO_MMIO_INT_VRING | VIRTIO_MMIO_INT_CONFIG);
        interrupt.acknowledge(VIRTIO_MMIO_INT_VRING);
        assert_eq!(interrupt.status(), VIRTIO_MMIO_INT_CONFIG);
    }

    #[test]
    fn failure_is_announced_once_and_cleared_by_reset() {
        let irqfd = EventFd::new(EFD_NONBLOCK).unwrap();
        let interrupt = Interrupt::new(irqfd.try_clone().unwrap());
        let before = interrupt.config_generation();

        interrupt.clone().fail_device();

        assert!(interrupt.device_failed());
        assert_ne!(interrupt.config_generation(), before);
        assert_eq!(irqfd.read().unwrap(), 1);
        interrupt.reset();
        assert!(!interrupt.device_failed());
        assert_eq!(interrupt.status(), 0);
    }
}
