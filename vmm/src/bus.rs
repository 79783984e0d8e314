//! Port I/O and MMIO: which device answers at an address.
//!
//! A guest may access any address. One that no device claims reads as all ones, as on a real bus, and is counted; the
//! first few are logged so that a developer sees them and a hostile guest cannot fill the log.

use std::{
    fmt,
    ops::Range,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::log;

/// A device behind a range of addresses, accessed by all vCPUs at once. `offset` counts from the start of the range that
/// the access hit; `data` begins, but need not end, within it. It is one access of 1 to 8 bytes, or up to a page of
/// accesses to one port by a string instruction, of which the devices here serve the first: no driver of theirs uses one.
pub trait BusDevice: Send + Sync {
    /// The guest reads; `data` must be filled.
    fn read(&self, offset: u64, data: &mut [u8]);
    /// The guest writes.
    fn write(&self, offset: u64, data: &[u8]);
}

/// A device that serves one access at a time. In a [`Mutex`] it is a [`BusDevice`].
pub trait ExclusiveDevice: Send {
    /// As [`BusDevice::read`].
    fn read(&mut self, offset: u64, data: &mut [u8]);
    /// As [`BusDevice::write`].
    fn write(&mut self, offset: u64, data: &[u8]);
}

impl<D: ExclusiveDevice> BusDevice for Mutex<D> {
    fn read(&self, offset: u64, data: &mut [u8]) {
        self.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .read(offset, data);
    }

    fn write(&self, offset: u64, data: &[u8]) {
        self.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .write(offset, data);
    }
}

/// How many unclaimed accesses are logged before a bus falls silent.
const LOGGED_UNCLAIMED: u64 = 8;

/// One address space, fixed once the machine runs.
pub struct Bus {
    name: &'static str,
    devices: Vec<(Range<u64>, Arc<dyn BusDevice>)>,
    unclaimed: AtomicU64,
}

impl Bus {
    /// An empty bus; `name` is for the log.
    pub fn new(name: &'static str) -> Self {
        Self {
            name,
            devices: Vec::new(),
            unclaimed: AtomicU64::new(0),
        }
    }

    /// Adds a device. An address in two ranges belongs to the device added first.
    pub fn attach(&mut self, range: Range<u64>, device: Arc<dyn BusDevice>) {
        self.devices.push((range, device));
    }

    /// The guest reads `data.len()` bytes at `address`.
    pub fn read(&self, address: u64, data: &mut [u8]) {
        if let Some((offset, device)) = self.find(address) {
            device.read(offset, data);
        } else {
            data.fill(0xff);
            self.note_unclaimed("read", address, data.len());
        }
    }

    /// The guest writes `data` at `address`.
    pub fn write(&self, address: u64, data: &[u8]) {
        match self.find(address) {
            Some((offset, device)) => device.write(offset, data),
            None => self.note_unclaimed("write", address, data.len()),
        }
    }

    /// Accesses so far that no device claimed.
    pub fn unclaimed(&self) -> u64 {
        self.unclaimed.load(Ordering::Relaxed)
    }

    fn find(&self, address: u64) -> Option<(u64, &dyn BusDevice)> {
        let (range, device) = self.devices.iter().find(|(range, _)| range.contains(&address))?;
        Some((address - range.start, device.as_ref()))
    }

    fn note_unclaimed(&self, what: &str, address: u64, length: usize) {
        let before = self.unclaimed.fetch_add(1, Ordering::Relaxed);
        if before < LOGGED_UNCLAIMED {
            let name = self.name;
            log::line(format_args!(
                "unclaimed {name} {what} of {length} bytes at {address:#x}"
            ));
        }
    }
}

impl fmt::Debug for Bus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ranges = self.devices.iter().map(|(range, _)| range);
        f.debug_struct("Bus")
            .field("name", &self.name)
            .field("ranges", &ranges.collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads as the offset, remembers the last write.
    #[derive(Default)]
    struct Echo {
        written: Option<(u64, Vec<u8>)>,
    }

    impl ExclusiveDevice for Echo {
        fn read(&mut self, offset: u64, data: &mut [u8]) {
            data.fill(u8::try_from(offset).unwrap());
        }

        fn write(&mut self, offset: u64, data: &[u8]) {
            self.written = Some((offset, data.to_vec()));
        }
    }

    #[test]
    fn an_access_reaches_the_device_with_its_offset() {
        let device = Arc::new(Mutex::new(Echo::default()));
        let mut bus = Bus::new("test");
        bus.attach(0x10..0x20, device.clone());
        let mut data = [0; 2];

        bus.read(0x13, &mut data);
        bus.write(0x1f, &[7]);

        assert_eq!(data, [3, 3]);
        assert_eq!(device.lock().unwrap().written, Some((0xf, vec![7])));
        assert_eq!(bus.unclaimed(), 0);
    }

    #[test]
    fn an_unclaimed_read_gives_all_ones_and_is_counted() {
        let bus = Bus::new("test");
        let mut data = [0; 8];

        bus.read(u64::MAX, &mut data);
        bus.write(0, &data);

        assert_eq!(data, [0xff; 8]);
        assert_eq!(bus.unclaimed(), 2);
    }
}
