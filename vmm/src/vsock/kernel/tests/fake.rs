//! A vhost in this process: takes packets from the shadow ring and puts packets into it, when a test says so. Like the real one
//! it does not look at a ring that it has found empty before it is kicked. It is one that behaves; `crates/fuzz-targets` has one that does not.

use std::io;
use std::sync::{Arc, Mutex};

use virtio::GuestMemory;
use virtio_queue::{DescriptorChain, Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend as _};
use vmm_sys_util::eventfd::EventFd;
use vsock_device::{HEADER_SIZE, Header};

use super::super::vhost::{Ring, Vhost};

/// Which ring.
pub(super) const TO_GUEST: usize = 0;
pub(super) const TO_KERNEL: usize = 1;

/// Shared by a device and its test.
#[derive(Clone, Debug)]
pub(super) struct FakeVhost {
    /// As vhost sees it, shadow memory included.
    pub(super) memory: Arc<GuestMemory>,
    /// Without shadow memory.
    guest_memory: Arc<GuestMemory>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    running: Option<[DeviceRing; 2]>,
    starts: usize,
    stops: usize,
}

#[derive(Debug)]
struct DeviceRing {
    queue: Queue,
    kick: EventFd,
    call: EventFd,
    asleep: bool,
}

impl DeviceRing {
    fn next<'m>(&mut self, memory: &'m GuestMemory) -> Option<DescriptorChain<&'m GuestMemory>> {
        if self.asleep && self.kick.read().is_err() {
            return None;
        }
        self.asleep = false;
        loop {
            let next = self.queue.iter(memory).unwrap().next();
            if next.is_some() || !self.queue.enable_notification(memory).unwrap() {
                self.asleep = next.is_none();
                return next;
            }
        }
    }
}

impl FakeVhost {
    pub(super) fn new(memory: Arc<GuestMemory>, guest_memory: Arc<GuestMemory>) -> Self {
        Self {
            memory,
            guest_memory,
            state: Arc::default(),
        }
    }

    pub(super) fn starts_and_stops(&self) -> (usize, usize) {
        let state = self.state.lock().unwrap();
        (state.starts, state.stops)
    }

    /// Takes the next packet of the guest.
    ///
    /// # Panics
    /// If the ring points at anything but a header slot and guest memory.
    pub(super) fn take(&self) -> Option<(Header, Vec<u8>)> {
        let mut state = self.state.lock().unwrap();
        let ring = &mut state.running.as_mut()?[TO_KERNEL];
        let chain = ring.next(&self.memory)?;
        let head = chain.head_index();
        let mut packet = Vec::new();
        for (index, descriptor) in chain.enumerate() {
            assert!(!descriptor.is_write_only());
            if index == 0 {
                assert_eq!(descriptor.len() as usize, HEADER_SIZE);
                assert!(descriptor.addr() >= super::super::SHADOW);
            } else {
                self.check(descriptor.addr(), descriptor.len());
            }
            let start = packet.len();
            packet.resize(start + descriptor.len() as usize, 0);
            self.memory
                .read_slice(&mut packet[start..], descriptor.addr())
                .unwrap();
        }
        self.give_back(ring, head, 0);
        let payload = packet.split_off(HEADER_SIZE);
        Some((Header::decode(packet[..].try_into().unwrap()), payload))
    }

    /// Writes a packet for the guest, if there is a buffer. Payload that does not fit is cut off.
    pub(super) fn put(&self, mut header: Header, payload: &[u8]) -> bool {
        let mut state = self.state.lock().unwrap();
        let Some(rings) = state.running.as_mut() else {
            return false;
        };
        let ring = &mut rings[TO_GUEST];
        let Some(chain) = ring.next(&self.memory) else {
            return false;
        };
        let head = chain.head_index();
        let descriptors: Vec<_> = chain.collect();
        let room: usize = descriptors
            .iter()
            .map(|descriptor| descriptor.len() as usize)
            .sum();
        if room < HEADER_SIZE {
            // As the kernel does with buffers that a driver has made smaller meanwhile.
            self.give_back(ring, head, 0);
            return true;
        }
        let payload = &payload[..payload.len().min(room - HEADER_SIZE)];
        header.len = payload.len().try_into().unwrap();
        let mut packet = header.encode().to_vec();
        packet.extend(payload);
        let mut rest = &packet[..];
        for descriptor in &descriptors {
            assert!(descriptor.is_write_only());
            self.check(descriptor.addr(), descriptor.len());
            let (piece, more) = rest.split_at(rest.len().min(descriptor.len() as usize));
            self.memory.write_slice(piece, descriptor.addr()).unwrap();
            rest = more;
        }
        self.give_back(ring, head, packet.len().try_into().unwrap());
        true
    }

    /// Returns a chain that it does not have.
    pub(super) fn return_nonsense(&self, ring: usize, head: u32) {
        let mut state = self.state.lock().unwrap();
        let ring = &mut state.running.as_mut().unwrap()[ring];
        let used = GuestAddress(ring.queue.used_ring());
        self.memory.write_obj(head, GuestAddress(used.0 + 4)).unwrap();
        self.memory.write_obj(1_u16, GuestAddress(used.0 + 2)).unwrap();
        ring.call.write(1).unwrap();
    }

    fn check(&self, address: GuestAddress, length: u32) {
        let inside = self.guest_memory.check_range(address, length as usize)
            && self.guest_memory.find_region(address).is_some();
        assert!(inside, "{address:?} + {length:#x} is not in guest memory");
    }

    fn give_back(&self, ring: &mut DeviceRing, head: u16, written: u32) {
        ring.queue.add_used(&*self.memory, head, written).unwrap();
        if ring.queue.needs_notification(&*self.memory).unwrap() {
            ring.call.write(1).unwrap();
        }
    }
}

impl Vhost for FakeVhost {
    fn start(&self, rings: [Ring<'_>; 2]) -> io::Result<()> {
        let rings = rings.map(|ring| {
            let mut queue = Queue::new(ring.size).unwrap();
            queue.set_size(ring.size);
            queue
                .try_set_desc_table_address(ring.descriptors)
                .and_then(|()| queue.try_set_avail_ring_address(ring.available))
                .and_then(|()| queue.try_set_used_ring_address(ring.used))
                .unwrap();
            queue.set_event_idx(true);
            queue.set_ready(true);
            assert!(queue.is_valid(&*self.memory));
            DeviceRing {
                queue,
                kick: ring.kick.try_clone().unwrap(),
                call: ring.call.try_clone().unwrap(),
                asleep: false,
            }
        });
        assert!(self.memory.num_regions() > self.guest_memory.num_regions());
        let mut state = self.state.lock().unwrap();
        assert!(state.running.is_none(), "it is started only once");
        state.running = Some(rings);
        state.starts += 1;
        Ok(())
    }

    fn stop(&self) {
        let mut state = self.state.lock().unwrap();
        state.running = None;
        state.stops += 1;
    }
}
