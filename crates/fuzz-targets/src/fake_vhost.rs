//! A vhost in this process, which takes packets from the shadow rings and puts packets into them when it is told to, in any order, and
//! also says what cannot be. Like the kernel's it does not look at a ring that it has found empty before it is kicked.
//!
//! What it checks is all that the kernel relies on: each address in a shadow ring is one that it may reach, and no chain is given to it
//! again that it has not returned.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use enclave_vmm::fuzzing::{Ring, SHADOW, Vhost};
use virtio::{DESCRIPTOR_SIZE, GuestMemory, has_passed};
use vm_memory::{ByteValued, Bytes, GuestAddress, GuestMemoryBackend};
use vmm_sys_util::eventfd::EventFd;
use vsock_device::{HEADER_SIZE, Header, PARENT_CID};

/// Which ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    ToGuest,
    ToKernel,
}

/// Shared by a device and its target.
#[derive(Clone, Debug)]
pub(crate) struct FakeVhost(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    /// As vhost sees it, shadow memory included.
    memory: Arc<GuestMemory>,
    /// Without shadow memory.
    guest_memory: Arc<GuestMemory>,
    running: Option<[DeviceRing; 2]>,
    /// Whether it is not to be started.
    refuses: bool,
}

#[derive(Debug)]
struct DeviceRing {
    way: Way,
    size: u16,
    descriptors: u64,
    available: u64,
    used: u64,
    kick: EventFd,
    call: EventFd,
    /// Chains taken and returned so far, modulo 2¹⁶.
    taken: u16,
    returned: u16,
    /// Whether it was found empty.
    is_asleep: bool,
    /// The chains that were taken and not returned.
    held: Vec<u16>,
}

/// A descriptor of a shadow ring.
#[derive(Clone, Copy, Debug)]
struct Piece {
    address: u64,
    length: u32,
    flags: u16,
    next: u16,
}

impl Piece {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "each field is some bits of the word"
    )]
    fn decode(bytes: [u8; DESCRIPTOR_SIZE]) -> Self {
        let word = u128::from_le_bytes(bytes);
        Self {
            address: word as u64,
            length: (word >> 64) as u32,
            flags: (word >> 96) as u16,
            next: (word >> 112) as u16,
        }
    }
}

/// The flags of a descriptor.
const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

impl FakeVhost {
    pub(crate) fn new(memory: Arc<GuestMemory>, guest_memory: Arc<GuestMemory>) -> Self {
        Self(Arc::new(Mutex::new(State {
            memory,
            guest_memory,
            running: None,
            refuses: false,
        })))
    }

    /// Whether it starts when it is told to from now on.
    pub(crate) fn refuse(&self, refuses: bool) {
        self.lock().refuses = refuses;
    }

    /// Takes the next chain of a ring, if there is one, and keeps it. Of a packet the header and the length of the payload.
    pub(crate) fn take(&self, way: Way) -> Option<(Header, usize)> {
        self.lock().with(way, |ring, memory| {
            let chain = ring.take(memory)?;
            Some((way == Way::ToKernel).then(|| packet(memory, &chain)))
        })?
    }

    /// Returns a packet of those that it holds.
    pub(crate) fn give_back(&self, which: usize) {
        self.lock().with(Way::ToKernel, |ring, memory| {
            let which = which.checked_rem(ring.held.len())?;
            let head = ring.held.swap_remove(which);
            ring.push(memory, head.into(), 0);
            Some(())
        });
    }

    /// Writes a packet into a buffer that it holds, or into the next one, and returns it; `too_much` is added to what it says to have
    /// written. Whether there was a buffer. Payload that does not fit is cut off.
    pub(crate) fn put(&self, header: Header, payload: &[u8], which: usize, too_much: u32) -> bool {
        let put = self.lock().with(Way::ToGuest, |ring, memory| {
            if ring.held.is_empty() {
                ring.take(memory)?;
            }
            let head = ring.held.swap_remove(which % ring.held.len());
            let written = ring.fill(memory, head, header, payload);
            ring.push(memory, head.into(), written.saturating_add(too_much));
            Some(())
        });
        put.is_some()
    }

    /// Returns anything, also what it does not have.
    pub(crate) fn lie(&self, way: Way, head: u32, written: u32) {
        self.lock().with(way, |ring, memory| {
            ring.held.retain(|held| u32::from(*held) != head);
            ring.push(memory, head, written);
            Some(())
        });
    }

    /// Calls although it has done nothing.
    pub(crate) fn call(&self, way: Way) {
        self.lock().with(way, |ring, _| {
            let _ = ring.call.write(1);
            Some(())
        });
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Does something with a ring, if there is one.
    fn with<T>(
        &mut self,
        way: Way,
        action: impl FnOnce(&mut DeviceRing, &Memories<'_>) -> Option<T>,
    ) -> Option<T> {
        let memories = Memories {
            all: &self.memory,
            guest: &self.guest_memory,
        };
        let rings = self.running.as_mut()?;
        action(&mut rings[way as usize], &memories)
    }
}

/// What vhost reaches, and what of it is the guest's.
struct Memories<'a> {
    all: &'a GuestMemory,
    guest: &'a GuestMemory,
}

impl Memories<'_> {
    fn get<T: ByteValued>(&self, address: u64) -> T {
        self.all.read_obj(GuestAddress(address)).expect("it is there")
    }

    fn set<T: ByteValued>(&self, address: u64, value: T) {
        self.all
            .write_obj(value, GuestAddress(address))
            .expect("it is there");
    }
}

impl DeviceRing {
    fn new(way: Way, ring: &Ring<'_>) -> Self {
        let clone = |event: &EventFd| event.try_clone().expect("an eventfd");
        Self {
            way,
            size: ring.size,
            descriptors: ring.descriptors.0,
            available: ring.available.0,
            used: ring.used.0,
            kick: clone(ring.kick),
            call: clone(ring.call),
            taken: 0,
            returned: 0,
            is_asleep: false,
            held: Vec::new(),
        }
    }

    /// The next chain, checked.
    fn take(&mut self, memory: &Memories<'_>) -> Option<Vec<Piece>> {
        if self.is_asleep && self.kick.read().is_err() {
            return None;
        }
        self.is_asleep = false;
        let index = self.available + 2;
        if memory.get::<u16>(index) == self.taken {
            // It wants to be kicked for the next one.
            memory.set(self.used + 4 + 8 * u64::from(self.size), self.taken);
            self.is_asleep = true;
            return None;
        }
        let waiting = memory.get::<u16>(index).wrapping_sub(self.taken);
        assert!(
            waiting <= self.size,
            "{waiting} chains in a ring of {}",
            self.size
        );
        let head: u16 = memory.get(self.available + 4 + 2 * u64::from(self.taken % self.size));
        self.taken = self.taken.wrapping_add(1);
        assert!(!self.held.contains(&head), "chain {head} is offered twice");
        self.held.push(head);
        let chain = self.chain(memory, head);
        for (position, piece) in chain.iter().enumerate() {
            self.check(memory, *piece, position == 0);
        }
        Some(chain)
    }

    /// A driver that uses descriptors twice may have made a circle: it ends where it has as many pieces as there are.
    fn chain(&self, memory: &Memories<'_>, head: u16) -> Vec<Piece> {
        let mut chain = Vec::new();
        let mut next = Some(head);
        while let Some(index) = next.filter(|_| chain.len() < usize::from(self.size)) {
            let piece = self.piece(memory, index);
            next = (piece.flags & NEXT != 0).then_some(piece.next);
            chain.push(piece);
        }
        if self.way == Way::ToKernel {
            assert_eq!(next, None, "a packet is a circle");
        }
        chain
    }

    fn piece(&self, memory: &Memories<'_>, index: u16) -> Piece {
        assert!(index < self.size, "descriptor {index} of {}", self.size);
        let mut bytes = [0; DESCRIPTOR_SIZE];
        let at = self.descriptors + u64::from(index) * DESCRIPTOR_SIZE as u64;
        memory
            .all
            .read_slice(&mut bytes, GuestAddress(at))
            .expect("it is there");
        Piece::decode(bytes)
    }

    /// A packet begins in a header slot; all the rest is the guest's.
    fn check(&self, memory: &Memories<'_>, piece: Piece, is_first: bool) {
        let is_written = piece.flags & WRITE != 0;
        assert_eq!(is_written, self.way == Way::ToGuest, "{piece:?}");
        assert_eq!(piece.flags & INDIRECT, 0, "{piece:?}");
        if self.way == Way::ToKernel && is_first {
            // Slots of 64 bytes, one for each descriptor, come after the ring.
            let slot = (piece.address - self.header_slots()) / 64;
            assert_eq!(piece.address, self.header_slots() + slot * 64, "{piece:?}");
            assert!(slot < self.size.into(), "{piece:?}");
            assert_eq!(piece.length as usize, HEADER_SIZE);
        } else {
            self.check_guest(memory, piece);
        }
    }

    fn check_guest(&self, memory: &Memories<'_>, piece: Piece) {
        let start = GuestAddress(piece.address);
        let inside = memory.guest.find_region(start).is_some()
            && memory.guest.check_range(start, piece.length as usize);
        assert!(inside && start < SHADOW, "{:?} {piece:?}", self.way);
    }

    fn header_slots(&self) -> u64 {
        (self.used + 4 + 8 * u64::from(self.size) + 2).next_multiple_of(64)
    }

    /// All that is in the table, also what no chain leads to.
    fn check_table(&self, memory: &Memories<'_>) {
        let mut table = vec![0; usize::from(self.size) * DESCRIPTOR_SIZE];
        memory
            .all
            .read_slice(&mut table, GuestAddress(self.descriptors))
            .expect("it is there");
        for bytes in table.as_chunks().0 {
            let piece = Piece::decode(*bytes);
            let is_header = self.way == Way::ToKernel && piece.address >= self.header_slots();
            if piece.length > 0 {
                self.check(memory, piece, is_header);
            }
        }
    }

    /// Writes a packet to a chain. A driver may have made it shorter than a header meanwhile: then nothing, as the kernel does.
    fn fill(&self, memory: &Memories<'_>, head: u16, mut header: Header, payload: &[u8]) -> u32 {
        let chain = self.chain(memory, head);
        let lengths = chain.iter().map(|piece| piece.length as usize);
        let Some(room) = lengths.fold(0, usize::saturating_add).checked_sub(HEADER_SIZE) else {
            return 0;
        };
        let payload = &payload[..payload.len().min(room)];
        header.len = u32::try_from(payload.len()).expect("it is small");
        let packet = [&header.encode()[..], payload].concat();
        let mut rest = &packet[..];
        for piece in chain {
            self.check(memory, piece, false);
            let (here, more) = rest.split_at(rest.len().min(piece.length as usize));
            memory
                .all
                .write_slice(here, GuestAddress(piece.address))
                .expect("it was checked");
            rest = more;
        }
        u32::try_from(packet.len()).expect("it is small")
    }

    /// Returns a chain, and calls if the device wants to know of it.
    fn push(&mut self, memory: &Memories<'_>, head: u32, written: u32) {
        let entry = self.used + 4 + 8 * u64::from(self.returned % self.size);
        memory.set(entry, head);
        memory.set(entry + 4, written);
        let before = self.returned;
        self.returned = before.wrapping_add(1);
        memory.set(self.used + 2, self.returned);
        let call_at: u16 = memory.get(self.available + 4 + 2 * u64::from(self.size));
        if has_passed(call_at, before, self.returned) {
            let _ = self.call.write(1);
        }
    }
}

/// What the guest has sent, as the kernel is to see it.
fn packet(memory: &Memories<'_>, chain: &[Piece]) -> (Header, usize) {
    let (first, rest) = chain.split_first().expect("a chain has a piece");
    let mut header = [0; HEADER_SIZE];
    memory
        .all
        .read_slice(&mut header, GuestAddress(first.address))
        .expect("it was checked");
    let header = Header::decode(&header);
    assert_ne!(header.dst_cid, PARENT_CID, "the kernel has no such CID");
    (header, rest.iter().map(|piece| piece.length as usize).sum())
}

impl Vhost for FakeVhost {
    fn start(&self, [to_guest, to_kernel]: [Ring<'_>; 2]) -> io::Result<()> {
        let mut state = self.lock();
        assert!(state.running.is_none(), "it is started only once");
        if state.refuses {
            return Err(io::Error::other("it does not start"));
        }
        for ring in [&to_guest, &to_kernel] {
            assert!(ring.size.is_power_of_two() && ring.descriptors >= SHADOW);
        }
        state.running = Some([
            DeviceRing::new(Way::ToGuest, &to_guest),
            DeviceRing::new(Way::ToKernel, &to_kernel),
        ]);
        Ok(())
    }

    fn stop(&self) {
        let mut state = self.lock();
        for way in [Way::ToGuest, Way::ToKernel] {
            state.with(way, |ring, memory| {
                ring.check_table(memory);
                Some(())
            });
        }
        state.running = None;
    }
}
