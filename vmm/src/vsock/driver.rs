//! The virtqueue half of a guest: rings in guest memory, registers, and what Linux's virtio_transport.c does with them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use event_manager::{EventManager, SubscriberOps};
use virtio::{GuestMemory, MmioTransport};
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};
use vsock_device::{HEADER_SIZE, Header};

use super::halves::{Backend, Vsock, VsockWorker};

pub(in crate::vsock) const RX: u32 = 0;
pub(in crate::vsock) const TX: u32 = 1;

/// Descriptors in each queue.
const SIZE: u16 = 256;
const QUEUES: u64 = 0x1000;
const QUEUE_STRIDE: u64 = 0x4000;
const AVAILABLE: u64 = 0x1000;
const USED: u64 = 0x2000;

/// What Linux gives to the device for one packet.
const RX_BUFFER: u32 = 4096;
const RX_BUFFERS: u64 = 0x10_0000;

/// One packet of the guest. Its data is cut into descriptors within this space.
const TX_SPACE: u64 = 0x2_0000;
const TX_PACKETS: u16 = 16;
const TX_BUFFERS: u64 = 0x20_0000;

const NEXT: u16 = 1;
pub(in crate::vsock) const WRITE: u16 = 2;
const EVENT_IDX: u64 = 1 << 29;
const VERSION_1: u64 = 1 << 32;

/// [`HEADER_SIZE`], as descriptors count.
const HEADER: u32 = 44;

/// One entry of a descriptor table.
#[derive(Clone, Copy, Debug)]
pub(in crate::vsock) struct Descriptor {
    pub(in crate::vsock) address: u64,
    pub(in crate::vsock) length: u32,
    pub(in crate::vsock) flags: u16,
    pub(in crate::vsock) next: u16,
}

/// How the bytes of a transmitted packet, header first, are cut into descriptors: lengths; the rest is the last one.
pub(in crate::vsock) type Cuts<'a> = &'a [u32];

/// How Linux before 6.17 sends a packet: header, data.
pub(in crate::vsock) const HEADER_THEN_DATA: Cuts<'static> = &[HEADER];

pub(in crate::vsock) struct Driver<B: Backend> {
    pub(in crate::vsock) memory: Arc<GuestMemory>,
    pub(in crate::vsock) transport: MmioTransport<Vsock<B>>,
    pub(in crate::vsock) events: EventManager<VsockWorker<B>>,
    pub(in crate::vsock) irqfd: EventFd,
    /// Cut a receive buffer into header and data instead of one descriptor for both.
    pub(in crate::vsock) split_receive_buffers: bool,
    features: u64,
    available: [u16; 2],
    used_seen: [u16; 2],
    free_tx: VecDeque<u16>,
}

/// The memory of such a guest, in bytes.
const MEMORY: usize = 0x50_0000;

/// The memory that such a guest has.
pub(in crate::vsock) fn guest_memory() -> Arc<GuestMemory> {
    Arc::new(GuestMemory::from_ranges(&[(GuestAddress(0), MEMORY)]).unwrap())
}

impl<B: Backend> Driver<B> {
    /// The driver of a device in a guest with this memory, not yet initialised.
    pub(in crate::vsock) fn new(
        memory: Arc<GuestMemory>,
        (device, worker): (Vsock<B>, VsockWorker<B>),
    ) -> Self {
        let irqfd = EventFd::new(EFD_NONBLOCK).unwrap();
        let transport = MmioTransport::new(device, Arc::clone(&memory), irqfd.try_clone().unwrap()).unwrap();
        let mut events = EventManager::new().unwrap();
        events.add_subscriber(worker);
        Self {
            memory,
            transport,
            events,
            irqfd,
            split_receive_buffers: false,
            features: VERSION_1 | EVENT_IDX,
            available: [0; 2],
            used_seen: [0; 2],
            free_tx: (0..TX_PACKETS).collect(),
        }
    }

    pub(in crate::vsock) fn without_event_idx(mut self) -> Self {
        self.features = VERSION_1;
        self
    }

    pub(in crate::vsock) fn read(&self, offset: u64) -> u32 {
        let mut data = [0; 4];
        self.transport.read(offset, &mut data);
        u32::from_le_bytes(data)
    }

    pub(in crate::vsock) fn write(&self, offset: u64, value: u32) {
        self.transport.write(offset, &value.to_le_bytes());
    }

    pub(in crate::vsock) fn status(&self) -> u32 {
        self.read(0x70)
    }

    /// Resets the device and initialises it, with empty rings.
    pub(in crate::vsock) fn initialise(&mut self) {
        self.reset();
        self.memory
            .write_slice(&vec![0; 0xc000], GuestAddress(QUEUES))
            .unwrap();
        for status in [1, 3] {
            self.write(0x70, status);
        }
        for (select, half) in [(0, self.features & 0xffff_ffff), (1, self.features >> 32)] {
            self.write(0x24, select);
            self.write(0x20, u32::try_from(half).unwrap());
        }
        self.write(0x70, 0xb);
        assert_eq!(self.status(), 0xb);
        for queue in 0..3 {
            self.write(0x30, queue);
            assert_eq!(self.read(0x34), u32::from(SIZE));
            self.write(0x38, u32::from(SIZE));
            let base = ring(queue, 0).0;
            for (register, offset) in [(0x80, 0), (0x90, AVAILABLE), (0xa0, USED)] {
                self.write(register, u32::try_from(base + offset).unwrap());
                self.write(register + 4, 0);
            }
            self.write(0x44, 1);
        }
        self.write(0x70, 0xf);
        assert_eq!(self.status(), 0xf);
    }

    /// Resets the device. Buffers that it held are the driver's again.
    pub(in crate::vsock) fn reset(&mut self) {
        self.write(0x70, 0);
        assert_eq!(self.status(), 0);
        (self.available, self.used_seen) = ([0; 2], [0; 2]);
        self.free_tx = (0..TX_PACKETS).collect();
    }

    /// Offers receive buffers `first` to `last`, which must not be offered already.
    pub(in crate::vsock) fn offer_buffers(&mut self, buffers: std::ops::Range<u16>) {
        for buffer in buffers {
            self.offer_buffer(buffer);
        }
        self.kick(RX);
    }

    /// A split buffer takes two descriptors, so there are half as many.
    fn offer_buffer(&mut self, buffer: u16) {
        let address = RX_BUFFERS + u64::from(buffer) * u64::from(RX_BUFFER);
        let whole = Descriptor {
            address,
            length: RX_BUFFER,
            flags: WRITE,
            next: 0,
        };
        if self.split_receive_buffers {
            let (header, data) = (buffer * 2, buffer * 2 + 1);
            self.describe(
                RX,
                header,
                Descriptor {
                    length: HEADER,
                    flags: NEXT | WRITE,
                    next: data,
                    ..whole
                },
            );
            let (address, length) = (address + u64::from(HEADER), RX_BUFFER - HEADER);
            self.describe(
                RX,
                data,
                Descriptor {
                    address,
                    length,
                    ..whole
                },
            );
            self.make_available(RX, header);
        } else {
            self.describe(RX, buffer, whole);
            self.make_available(RX, buffer);
        }
    }

    /// The most receive buffers there can be.
    pub(in crate::vsock) fn buffers(&self) -> u16 {
        if self.split_receive_buffers {
            SIZE / 2
        } else {
            SIZE
        }
    }

    /// Takes one received packet, and offers its buffer again if `refill`.
    pub(in crate::vsock) fn receive(&mut self, refill: bool) -> Option<(Header, Vec<u8>)> {
        let (head, written) = self.take_used(RX)?;
        let buffer = if self.split_receive_buffers {
            head / 2
        } else {
            head
        };
        let address = RX_BUFFERS + u64::from(buffer) * u64::from(RX_BUFFER);
        let mut packet = vec![0; written as usize];
        self.memory
            .read_slice(&mut packet, GuestAddress(address))
            .unwrap();
        let header = Header::decode(packet[..HEADER_SIZE].try_into().unwrap());
        let payload = packet.split_off(HEADER_SIZE);
        assert_eq!(
            header.len as usize,
            payload.len(),
            "the header disagrees with the used length"
        );
        if refill {
            self.offer_buffer(buffer);
            self.kick(RX);
        }
        Some((header, payload))
    }

    /// Puts a packet on the transmit queue, if there is room for one.
    pub(in crate::vsock) fn transmit(&mut self, header: &Header, payload: &[u8], cuts: Cuts<'_>) -> bool {
        let mut packet = header.encode().to_vec();
        packet.extend(payload);
        self.transmit_bytes(&packet, cuts)
    }

    /// The same for bytes that need not be a packet.
    pub(in crate::vsock) fn transmit_bytes(&mut self, packet: &[u8], cuts: Cuts<'_>) -> bool {
        while let Some((head, written)) = self.take_used(TX) {
            assert_eq!(written, 0);
            self.free_tx.push_back(head / (SIZE / TX_PACKETS));
        }
        let Some(slot) = self.free_tx.pop_front() else {
            return false;
        };
        let start = TX_BUFFERS + u64::from(slot) * TX_SPACE;
        self.memory.write_slice(packet, GuestAddress(start)).unwrap();
        let (mut address, mut left) = (start, u32::try_from(packet.len()).unwrap());
        let mut lengths: Vec<u32> = Vec::new();
        for cut in cuts {
            lengths.push((*cut).min(left));
            left -= (*cut).min(left);
        }
        if left > 0 {
            lengths.push(left);
        }
        let first = slot * (SIZE / TX_PACKETS);
        for (index, length) in (first..).zip(&lengths) {
            let last = usize::from(index - first) + 1 == lengths.len();
            let flags = if last { 0 } else { NEXT };
            self.describe(
                TX,
                index,
                Descriptor {
                    address,
                    length: *length,
                    flags,
                    next: index + 1,
                },
            );
            address += u64::from(*length);
        }
        self.make_available(TX, first);
        self.kick(TX);
        true
    }

    pub(in crate::vsock) fn describe(&self, queue: u32, index: u16, entry: Descriptor) {
        let Descriptor {
            address,
            length,
            flags,
            next,
        } = entry;
        let mut descriptor = [0; 16];
        descriptor[..8].copy_from_slice(&address.to_le_bytes());
        descriptor[8..12].copy_from_slice(&length.to_le_bytes());
        descriptor[12..14].copy_from_slice(&flags.to_le_bytes());
        descriptor[14..].copy_from_slice(&next.to_le_bytes());
        self.memory
            .write_slice(&descriptor, ring(queue, u64::from(index) * 16))
            .unwrap();
    }

    pub(in crate::vsock) fn make_available(&mut self, queue: u32, head: u16) {
        let index = self.available[queue as usize];
        let entry = AVAILABLE + 4 + u64::from(index % SIZE) * 2;
        self.memory.write_obj(head, ring(queue, entry)).unwrap();
        fence(Ordering::SeqCst);
        self.set_available_index(queue, index.wrapping_add(1));
    }

    pub(in crate::vsock) fn set_available_index(&mut self, queue: u32, index: u16) {
        self.available[queue as usize] = index;
        self.memory
            .store(index, ring(queue, AVAILABLE + 2), Ordering::Release)
            .unwrap();
    }

    /// Rings the doorbell if the device wants it.
    pub(in crate::vsock) fn kick(&self, queue: u32) {
        fence(Ordering::SeqCst);
        let wanted = if self.features & EVENT_IDX == 0 {
            let flags: u16 = self.memory.load(ring(queue, USED), Ordering::SeqCst).unwrap();
            flags & 1 == 0
        } else {
            // Linux rings if the index the device named lies among the entries just added; here one is added at a time, or
            // a batch at the start.
            let event: u16 = self
                .memory
                .load(ring(queue, USED + 4 + u64::from(SIZE) * 8), Ordering::SeqCst)
                .unwrap();
            let index = self.available[queue as usize];
            index.wrapping_sub(event).wrapping_sub(1) < SIZE
        };
        if wanted {
            self.write(0x50, queue);
        }
    }

    /// The chain that the device has returned, and the bytes it has written.
    pub(in crate::vsock) fn take_used(&mut self, queue: u32) -> Option<(u16, u32)> {
        let index: u16 = self
            .memory
            .load(ring(queue, USED + 2), Ordering::Acquire)
            .unwrap();
        let seen = &mut self.used_seen[queue as usize];
        if index == *seen {
            return None;
        }
        let entry = USED + 4 + u64::from(*seen % SIZE) * 8;
        *seen = seen.wrapping_add(1);
        let seen = *seen;
        let head: u32 = self.memory.read_obj(ring(queue, entry)).unwrap();
        let written = self.memory.read_obj(ring(queue, entry + 4)).unwrap();
        // used_event: an interrupt for the next one, please.
        let event = ring(queue, AVAILABLE + 4 + u64::from(SIZE) * 2);
        self.memory.store(seen, event, Ordering::SeqCst).unwrap();
        Some((u16::try_from(head).unwrap(), written))
    }

    /// Lets the device thread run one batch of events, waiting for one at most this long. How many there were.
    pub(in crate::vsock) fn turn(&mut self, milliseconds: i32) -> usize {
        self.events.run_with_timeout(milliseconds).unwrap()
    }
}

fn ring(queue: u32, offset: u64) -> GuestAddress {
    GuestAddress(QUEUES + u64::from(queue) * QUEUE_STRIDE + offset)
}
