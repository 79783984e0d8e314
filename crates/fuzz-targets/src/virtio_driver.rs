//! A guest's driver that does anything to a virtio device: what the targets of all devices have in common.
//!
//! Each input is a list of steps, a byte that says which one and then what it needs. These are every device's; a target has more,
//! from [`STEPS`] on:
//!
//! ```text
//! 0 queue index address length flags next   a descriptor
//! 1 queue head                              offers a chain
//! 2 queue low high                          the number of chains offered
//! 3 queue                                   rings the doorbell
//! 4                                         the device has its turns
//! 5 low high bytes…                         a register or configuration space is written, four bytes
//! 6 low high width                          and read
//! 7                                         the device is reset and initialised
//! 8 low high bytes…                         four bytes of memory
//! ```
//!
//! A chain that was offered comes back at most once. That is checked after each turn for as long as the driver has kept to the
//! protocol so far that it can be said what comes back: see [`Ledger`].

use std::sync::Arc;

use event_manager::{EventManager, MutEventSubscriber, SubscriberOps};
use virtio::{GuestMemory, MmioTransport, VirtioDevice};
use virtio_queue::desc::split::Descriptor;
use vm_memory::{ByteValued, Bytes, GuestAddress};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Guest memory, and where its queues are: 16 KiB each, of which there are three at most.
pub(crate) const MEMORY: usize = 1 << 18;
const QUEUE_BYTES: u64 = 0x4000;
const AVAILABLE: u64 = 0x1000;
const USED: u64 = 0x2000;
/// Then 64 places of 2 KiB for packets and buffers.
const PLACES: u64 = 0x1_0000;
const PLACE_BYTES: u64 = 0x800;

/// The flag of a descriptor for the device to write to.
pub(crate) const WRITE: u16 = 2;

/// How many kinds of steps there are here.
pub(crate) const STEPS: u8 = 9;

/// Steps of one input.
const MOST_STEPS: usize = 512;
/// Turns that the device is given at once; it always says that there is more while a guest keeps it busy.
const MOST_TURNS: usize = 64;

/// What is left of the input.
pub(crate) struct Steps<'a>(&'a [u8]);

impl<'a> Steps<'a> {
    /// Does steps until one is not whole: `step` is told the first byte of each.
    pub(crate) fn each(input: &'a [u8], mut step: impl FnMut(u8, &mut Self) -> Option<()>) {
        let mut steps = Self(input);
        for _ in 0..MOST_STEPS {
            let done = steps.byte().and_then(|kind| step(kind, &mut steps));
            if done.is_none() {
                break;
            }
        }
    }

    pub(crate) fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }

    pub(crate) fn short(&mut self) -> Option<u16> {
        Some(u16::from_le_bytes([self.byte()?, self.byte()?]))
    }

    pub(crate) fn word(&mut self) -> Option<u32> {
        Some(u32::from(self.short()?) | u32::from(self.short()?) << 16)
    }

    /// So many bytes.
    pub(crate) fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(bytes)
    }
}

/// A machine of which nothing but the device is there.
pub(crate) struct Driver<D: VirtioDevice> {
    pub(crate) memory: Arc<GuestMemory>,
    transport: MmioTransport<D>,
    events: EventManager<Box<dyn MutEventSubscriber>>,
    /// Descriptors of each queue.
    sizes: Vec<u16>,
    ledgers: Vec<Ledger>,
}

/// What of one queue's chains the device has.
struct Ledger {
    /// By the first descriptor, how often it was offered and has not come back.
    outstanding: [u16; 256],
    /// Of the used ring, how far it was looked at.
    seen: u16,
    /// Whether all of the above is so. It is not known what the device has once the driver, or a packet that it has had put there, has
    /// changed rings or registers, or has offered more than there is room for.
    is_known: bool,
}

impl<D: VirtioDevice> Driver<D> {
    /// With an inactive device, made for [`memory`].
    pub(crate) fn new(
        memory: Arc<GuestMemory>,
        device: D,
        worker: impl MutEventSubscriber + 'static,
    ) -> Self {
        let sizes = device.queue_sizes().to_vec();
        let line = EventFd::new(EFD_NONBLOCK).expect("an eventfd");
        let transport = MmioTransport::new(device, Arc::clone(&memory), line).expect("a transport");
        let mut events: EventManager<Box<dyn MutEventSubscriber>> =
            EventManager::new().expect("an event loop");
        events.add_subscriber(Box::new(worker));
        Self {
            memory,
            transport,
            events,
            ledgers: sizes.iter().map(|_| Ledger::new()).collect(),
            sizes,
        }
    }

    /// One of the steps above.
    pub(crate) fn step(&mut self, kind: u8, steps: &mut Steps<'_>) -> Option<()> {
        match kind % STEPS {
            0 => self.describe_anything(steps)?,
            1 => {
                let queue = self.queue(steps.byte()?);
                self.offer(queue, steps.byte()?.into());
            }
            2 => {
                let queue = self.queue(steps.byte()?);
                self.put(ring(queue) + AVAILABLE + 2, &steps.short()?.to_le_bytes());
            }
            3 => self.notify(steps.byte()?.into()),
            4 => self.turns(),
            5 => {
                self.distrust();
                self.register(u64::from(steps.short()? % 0x200), steps.word()?);
            }
            6 => {
                let mut data = [0; 8];
                let offset = u64::from(steps.short()? % 0x200);
                let width = usize::from(steps.byte()? % 9);
                self.transport.read(offset, &mut data[..width]);
            }
            7 => self.initialise(),
            _ => {
                let address = u64::from(steps.short()?) * 4;
                self.put(address, &steps.word()?.to_le_bytes());
            }
        }
        Some(())
    }

    /// Addresses are places for packets, queues, the ends of memory, or far away; lengths are what fits or does not.
    fn describe_anything(&mut self, steps: &mut Steps<'_>) -> Option<()> {
        let queue = self.queue(steps.byte()?);
        let index = steps.byte()?;
        let address = match steps.byte()? {
            place @ 0..64 => self::place(place),
            near @ 64..128 => u64::from(near) * 0x100,
            end @ 128..192 => MEMORY as u64 - 160 + u64::from(end),
            far => (u64::MAX << (far - 192)).wrapping_add(0x20),
        };
        let length = match steps.byte()? {
            length @ 0..128 => u32::from(length),
            length @ 128..250 => u32::from(length - 127) * 64,
            length => u32::MAX << (u32::from(length) - 250),
        };
        let (flags, next) = (steps.byte()?.into(), steps.byte()?.into());
        if address < PLACES {
            // The device may be made to write to its own rings.
            self.distrust();
        }
        self.describe(queue, index.into(), Descriptor::new(address, length, flags, next));
        Some(())
    }

    /// Resets the device and makes it work, with empty rings.
    ///
    /// # Panics
    /// If it does not.
    pub(crate) fn initialise(&mut self) {
        assert!(self.is_initialised(), "the device does not start");
        self.turns();
    }

    /// The same; whether the device works.
    pub(crate) fn is_initialised(&mut self) -> bool {
        self.register(0x70, 0);
        let queues = self.sizes.len() as u64;
        self.put(
            0,
            &vec![0; usize::try_from(queues * QUEUE_BYTES).expect("it is small")],
        );
        self.ledgers.fill_with(Ledger::new);
        for (register, value) in [(0x70, 3), (0x24, 0), (0x20, 0), (0x24, 1), (0x20, 1), (0x70, 0xb)] {
            self.register(register, value);
        }
        for (index, size) in (0..).zip(self.sizes.clone()) {
            let base = u32::try_from(ring(index)).expect("it is small");
            let registers = [
                (0x30, u32::try_from(index).expect("it is small")),
                (0x38, size.into()),
                (0x80, base),
                (0x90, base + u32::try_from(AVAILABLE).expect("it is small")),
                (0xa0, base + u32::try_from(USED).expect("it is small")),
                (0x44, 1),
            ];
            for (register, value) in registers {
                self.register(register, value);
            }
        }
        self.register(0x70, 0xf);
        let mut status = [0; 4];
        self.transport.read(0x70, &mut status);
        status == [0xf, 0, 0, 0]
    }

    /// The device does what it can, and returns nothing that it does not have.
    pub(crate) fn turns(&mut self) {
        for _ in 0..MOST_TURNS {
            if self.events.run_with_timeout(0).expect("an event loop") == 0 {
                break;
            }
        }
        for queue in 0..self.sizes.len() {
            self.check_returned(queue);
        }
    }

    fn check_returned(&mut self, queue: usize) {
        let at = ring(queue) + USED;
        let used: u16 = self.get(at + 2);
        let size = self.sizes[queue];
        let Some(ledger) = self.ledgers.get_mut(queue).filter(|ledger| ledger.is_known) else {
            return;
        };
        while ledger.seen != used {
            let entry = at + 4 + 8 * u64::from(ledger.seen % size);
            let head: u32 = self.memory.read_obj(GuestAddress(entry)).expect("it is there");
            let outstanding = usize::try_from(head)
                .ok()
                .and_then(|head| ledger.outstanding.get_mut(head));
            let outstanding = outstanding.filter(|times| **times > 0);
            *outstanding.unwrap_or_else(|| panic!("queue {queue} returns {head}, which is not there")) -= 1;
            ledger.seen = ledger.seen.wrapping_add(1);
        }
    }

    /// The number of chains that came back on a queue since it was initialised.
    pub(crate) fn returned(&self, queue: usize) -> u16 {
        self.get(ring(queue) + USED + 2)
    }

    pub(crate) fn describe(&self, queue: usize, index: u64, entry: Descriptor) {
        self.memory
            .write_obj(entry, GuestAddress(ring(queue) + index * 16))
            .expect("it is there");
    }

    pub(crate) fn offer(&mut self, queue: usize, head: u16) {
        let size = self.sizes[queue];
        let at = ring(queue) + AVAILABLE + 2;
        let index: u16 = self.get(at);
        let slot = at + 2 + u64::from(index % size) * 2;
        for (address, value) in [(slot, head), (at, index.wrapping_add(1))] {
            self.memory
                .write_obj(value, GuestAddress(address))
                .expect("it is there");
        }
        self.ledgers[queue].add(head, size);
    }

    /// Rings a doorbell.
    pub(crate) fn notify(&self, queue: u32) {
        self.register(0x50, queue);
    }

    /// Changes memory, as far as there is any.
    pub(crate) fn put(&mut self, address: u64, bytes: &[u8]) {
        if address < PLACES {
            self.distrust();
        }
        let _ = self.memory.write_slice(bytes, GuestAddress(address));
    }

    pub(crate) fn get<T: ByteValued>(&self, address: u64) -> T {
        self.memory.read_obj(GuestAddress(address)).expect("it is there")
    }

    pub(crate) fn bytes<const N: usize>(&self, address: u64) -> [u8; N] {
        let mut bytes = [0; N];
        self.memory
            .read_slice(&mut bytes, GuestAddress(address))
            .expect("it is there");
        bytes
    }

    fn register(&self, offset: u64, value: u32) {
        self.transport.write(offset, &value.to_le_bytes());
    }

    fn queue(&self, byte: u8) -> usize {
        usize::from(byte) % self.sizes.len()
    }

    fn distrust(&mut self) {
        for ledger in &mut self.ledgers {
            ledger.is_known = false;
        }
    }
}

impl Ledger {
    fn new() -> Self {
        Self {
            outstanding: [0; 256],
            seen: 0,
            is_known: true,
        }
    }

    fn add(&mut self, head: u16, size: u16) {
        match self.outstanding.get_mut(usize::from(head)) {
            Some(times) => *times = times.saturating_add(1),
            None => self.is_known = false,
        }
        // One more would overwrite what the device may not have looked at.
        let all = self
            .outstanding
            .iter()
            .fold(0_u16, |sum, times| sum.saturating_add(*times));
        self.is_known &= all <= size;
    }
}

/// Guest memory for a device.
pub(crate) fn memory() -> Arc<GuestMemory> {
    Arc::new(GuestMemory::from_ranges(&[(GuestAddress(0), MEMORY)]).expect("memory"))
}

/// Where a queue's descriptors are.
fn ring(queue: usize) -> u64 {
    queue as u64 * QUEUE_BYTES
}

/// Where a packet or a buffer may be.
pub(crate) fn place(byte: u8) -> u64 {
    PLACES + u64::from(byte % 64) * PLACE_BYTES
}
