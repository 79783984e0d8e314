//! The device status register: how far the driver has come (virtio 1.2, 2.1 and 3.1.1).
//!
//! A driver sets one bit after the other, in this order, and never clears one except by writing 0, which resets the device:
//!
//! ```text
//!   ACKNOWLEDGE ─► DRIVER ─► (features) ─► FEATURES_OK ─► (queues) ─► DRIVER_OK
//! ```
//!
//! FAILED may be added at any time. DEVICE_NEEDS_RESET is set by the device alone; it is kept in
//! [`Interrupt`](crate::Interrupt), because the device's thread sets it.

use virtio_bindings::virtio_config::{
    VIRTIO_CONFIG_S_ACKNOWLEDGE, VIRTIO_CONFIG_S_DRIVER, VIRTIO_CONFIG_S_DRIVER_OK, VIRTIO_CONFIG_S_FAILED,
    VIRTIO_CONFIG_S_FEATURES_OK,
};

pub(super) use virtio_bindings::virtio_config::VIRTIO_CONFIG_S_NEEDS_RESET as NEEDS_RESET;

/// The bits the driver sets, in the order in which it must set them.
const STEPS: [u32; 4] = [
    VIRTIO_CONFIG_S_ACKNOWLEDGE,
    VIRTIO_CONFIG_S_DRIVER,
    VIRTIO_CONFIG_S_FEATURES_OK,
    VIRTIO_CONFIG_S_DRIVER_OK,
];

/// The bits of the status register that the driver sets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Status(u32);

/// What a write to the status register asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StatusWrite {
    /// Zero: reset.
    Reset,
    /// The driver gives up, or goes on to `Status`. A driver may take several steps in one write.
    Advance(Status),
    /// A bit is cleared, unknown, or comes before its time. The register keeps its value.
    Invalid,
}

impl Status {
    /// The register's value, without DEVICE_NEEDS_RESET.
    pub(super) fn bits(self) -> u32 {
        self.0
    }

    /// The driver knows the device and may negotiate features.
    pub(super) fn negotiating(self) -> bool {
        self.has(VIRTIO_CONFIG_S_DRIVER) && !self.features_accepted() && !self.failed()
    }

    /// Features are agreed, queues may be set up, and the device is not running yet.
    pub(super) fn configuring_queues(self) -> bool {
        self.features_accepted() && !self.driver_ready() && !self.failed()
    }

    pub(super) fn features_accepted(self) -> bool {
        self.has(VIRTIO_CONFIG_S_FEATURES_OK)
    }

    pub(super) fn driver_ready(self) -> bool {
        self.has(VIRTIO_CONFIG_S_DRIVER_OK)
    }

    fn failed(self) -> bool {
        self.has(VIRTIO_CONFIG_S_FAILED)
    }

    /// The status without FEATURES_OK and what follows it: the device does not agree to the driver's features.
    pub(super) fn refuse_features(self) -> Self {
        Self(self.0 & !(VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_DRIVER_OK))
    }

    /// Judges a write of `value`. DEVICE_NEEDS_RESET, which drivers read and write back, is not theirs and is ignored.
    pub(super) fn write(self, value: u32) -> StatusWrite {
        if value == 0 {
            return StatusWrite::Reset;
        }
        let value = value & !NEEDS_RESET;
        let known = STEPS
            .iter()
            .fold(VIRTIO_CONFIG_S_FAILED, |bits, step| bits | step);
        let cleared = self.0 & !value != 0;
        if cleared || value & !known != 0 || self.failed() {
            return StatusWrite::Invalid;
        }
        let taken = STEPS.iter().take_while(|step| value & **step != 0).count();
        let set = STEPS.iter().filter(|step| value & **step != 0).count();
        if taken != set {
            return StatusWrite::Invalid;
        }
        StatusWrite::Advance(Self(value))
    }

    fn has(self, bit: u32) -> bool {
        self.0 & bit != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn advance(status: Status, value: u32) -> Status {
        match status.write(value) {
            StatusWrite::Advance(next) => next,
            other => panic!("{status:?} does not advance to {value:#x}: {other:?}"),
        }
    }

    #[test]
    fn steps_of_linux() {
        let status = [1, 3, 0xb, 0xf].into_iter().fold(Status::default(), advance);
        assert!(status.driver_ready());
        assert_eq!(status.write(0), StatusWrite::Reset);
    }

    #[test]
    fn several_steps_in_one_write() {
        assert!(advance(Status::default(), 3).negotiating());
        assert!(advance(Status::default(), 0xf).driver_ready());
    }

    #[test]
    fn steps_out_of_order_cleared_or_unknown_bits_change_nothing() {
        for value in [2, 4, 8, 5, 9, 0xd, 0x10, 0x11, 0x101] {
            assert_eq!(Status::default().write(value), StatusWrite::Invalid, "{value:#x}");
        }
        let driver = advance(Status::default(), 3);
        assert_eq!(driver.write(1), StatusWrite::Invalid);
        assert_eq!(driver.write(9), StatusWrite::Invalid);
    }

    #[test]
    fn failed_ends_everything_but_reset() {
        let failed = advance(advance(Status::default(), 3), 0x83);
        assert!(!failed.negotiating());
        assert_eq!(failed.write(0x8b), StatusWrite::Invalid);
        assert_eq!(failed.write(0), StatusWrite::Reset);
    }

    #[test]
    fn needs_reset_may_be_written_back() {
        let driver = advance(Status::default(), 3);
        assert_eq!(driver.write(0x43), StatusWrite::Advance(driver));
    }
}
