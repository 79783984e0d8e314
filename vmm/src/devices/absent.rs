//! A device that every PC has and this machine lacks. It answers as an unclaimed address does, but guests are expected to
//! touch it, so it is neither counted nor logged.

use crate::bus::BusDevice;

/// Reads as ones, ignores writes.
#[derive(Debug)]
pub struct Absent;

impl BusDevice for Absent {
    fn read(&self, _: u64, data: &mut [u8]) {
        data.fill(0xff);
    }

    fn write(&self, _: u64, _: &[u8]) {}
}
