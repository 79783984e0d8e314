//! The driver's side of virtio-mmio, version 2 (virtio 1.2, 4.2.2).

use crate::memory;
use crate::queue::Queue;

const QUEUE_SIZE_MAX: u64 = 0x34;
const STATUS: u64 = 0x70;
const NOTIFY: u64 = 0x50;
const CONFIG: u64 = 0x100;

/// Bits of the status register.
const ACKNOWLEDGED: u32 = 1;
const DRIVER: u32 = 2;
const DRIVER_OK: u32 = 4;
const FEATURES_OK: u32 = 8;
const NEEDS_RESET: u32 = 0x40;

/// `VIRTIO_F_VERSION_1`, the one feature that is needed.
pub(crate) const VERSION_1: u64 = 1 << 32;
/// `VIRTIO_F_EVENT_IDX`: both ends say when they want to be told.
pub(crate) const EVENT_IDX: u64 = 1 << 29;

/// A register window.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Transport {
    base: u64,
}

impl Transport {
    /// The window at `base`.
    pub(crate) fn at(base: u64) -> Self {
        Self { base }
    }

    pub(crate) fn base(self) -> u64 {
        self.base
    }

    pub(crate) fn read(self, register: u64) -> u32 {
        memory::read(self.base + register)
    }

    pub(crate) fn write(self, register: u64, value: u32) {
        memory::write(self.base + register, value);
    }

    /// Resets the device.
    pub(crate) fn reset(self) {
        self.write(STATUS, 0);
        while self.read(STATUS) != 0 {}
    }

    /// Whether the device wants to be reset.
    pub(crate) fn needs_reset(self) -> bool {
        self.read(STATUS) & NEEDS_RESET != 0
    }

    /// Resets the device and goes as far as FEATURES_OK, which it may refuse.
    pub(crate) fn negotiate(self, features: u64) -> bool {
        self.reset();
        self.write(STATUS, ACKNOWLEDGED);
        self.write(STATUS, ACKNOWLEDGED | DRIVER);
        for (select, half) in [(0, features & 0xffff_ffff), (1, features >> 32)] {
            self.write(0x24, select);
            self.write(0x20, u32::try_from(half).unwrap_or_default());
        }
        self.write(STATUS, ACKNOWLEDGED | DRIVER | FEATURES_OK);
        self.read(STATUS) & FEATURES_OK != 0
    }

    /// The most descriptors that a queue may have.
    pub(crate) fn queue_size(self, index: u32) -> u16 {
        self.write(0x30, index);
        u16::try_from(self.read(QUEUE_SIZE_MAX)).unwrap_or_default()
    }

    /// Tells the device where a queue is, and that it is ready.
    pub(crate) fn set_queue(self, queue: &Queue) {
        self.write(0x30, queue.index());
        self.write(0x38, u32::from(queue.size()));
        for (register, address) in [0x80, 0x90, 0xa0].into_iter().zip(queue.addresses()) {
            self.write(register, u32::try_from(address & 0xffff_ffff).unwrap_or_default());
            self.write(register + 4, u32::try_from(address >> 32).unwrap_or_default());
        }
        self.write(0x44, 1);
    }

    /// The device begins to work.
    pub(crate) fn go(self) {
        self.write(STATUS, ACKNOWLEDGED | DRIVER | FEATURES_OK | DRIVER_OK);
    }

    /// Rings the doorbell of a queue.
    pub(crate) fn notify(self, queue: u32) {
        self.write(NOTIFY, queue);
    }

    /// A word of the configuration space.
    pub(crate) fn config(self, offset: u64) -> u32 {
        self.read(CONFIG + offset)
    }
}
