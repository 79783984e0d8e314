//! A driver does what it likes with its rings, and two devices look at them: ours, and that of the crate virtio-queue, each with guest
//! memory of its own. They have to see and to write the same.

use std::num::Wrapping;
use std::sync::Arc;

use proptest::prelude::*;
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::*;

const SIZE: u16 = 8;
const MEMORY: usize = 0x1_0000;
const LAYOUT: Layout = Layout {
    size: SIZE,
    descriptors: 0x1000,
    available: 0x2000,
    used: 0x3000,
};

/// What the driver or the device does next.
#[derive(Clone, Debug)]
enum Step {
    Describe(u16, u64, u32, u16, u16),
    Offer(u16),
    WantInterruptAt(u16),
    Pop,
    UndoPop,
    Return(u32),
    NeedsInterrupt,
    EnableDoorbell,
    DisableDoorbell,
}

fn step() -> impl Strategy<Value = Step> {
    let address = prop_oneof![0_u64..MEMORY as u64, any::<u64>()];
    // Their chains end at 2³² bytes, of which no driver has buffers.
    let length = prop_oneof![0_u32..0x100, 0_u32..u32::MAX / u32::from(SIZE)];
    // NEXT and WRITE; a table of indirect descriptors was agreed on by neither, but the other device follows it all the same.
    prop_oneof![
        8 => (0..SIZE, address, length, 0_u16..4, 0..SIZE)
            .prop_map(|(index, address, length, flags, next)| Step::Describe(index, address, length, flags, next)),
        8 => (0..SIZE).prop_map(Step::Offer),
        2 => any::<u16>().prop_map(Step::WantInterruptAt),
        8 => Just(Step::Pop),
        1 => Just(Step::UndoPop),
        8 => any::<u32>().prop_map(Step::Return),
        4 => Just(Step::NeedsInterrupt),
        2 => Just(Step::EnableDoorbell),
        2 => Just(Step::DisableDoorbell),
    ]
}

/// Both devices, and the driver's side of both memories.
struct Pair {
    ours: ActiveQueue,
    our_memory: Arc<GuestMemory>,
    theirs: Queue,
    their_memory: GuestMemory,
    offered: u16,
    /// Chains taken and not returned.
    taken: Vec<u16>,
}

impl Pair {
    fn new(event_idx: bool) -> Self {
        let memory = || GuestMemory::from_ranges(&[(GuestAddress(0), MEMORY)]).unwrap();
        let our_memory = Arc::new(memory());
        let event = || EventFd::new(EFD_NONBLOCK).unwrap();
        let rings = Rings::new(&our_memory, LAYOUT).unwrap();
        let their_memory = memory();
        let mut theirs = Queue::new(SIZE).unwrap();
        theirs
            .try_set_desc_table_address(GuestAddress(LAYOUT.descriptors))
            .unwrap();
        theirs
            .try_set_avail_ring_address(GuestAddress(LAYOUT.available))
            .unwrap();
        theirs
            .try_set_used_ring_address(GuestAddress(LAYOUT.used))
            .unwrap();
        theirs.set_event_idx(event_idx);
        theirs.set_ready(true);
        Self {
            ours: ActiveQueue::new(rings, event_idx, Arc::new(event()), Interrupt::new(event())),
            our_memory,
            theirs,
            their_memory,
            offered: 0,
            taken: Vec::new(),
        }
    }

    fn write<T: vm_memory::ByteValued>(&self, value: T, address: u64) {
        for memory in [&*self.our_memory, &self.their_memory] {
            memory.write_obj(value, GuestAddress(address)).unwrap();
        }
    }

    fn describe(&self, index: u16, address: u64, length: u32, flags: u16, next: u16) {
        let at = LAYOUT.descriptors + 16 * u64::from(index);
        self.write(address, at);
        self.write(length, at + 8);
        self.write([flags, next], at + 12);
    }

    /// Unless the ring is full, which is for another test.
    fn offer(&mut self, head: u16) {
        if self.offered.wrapping_sub(self.ours.returned) < SIZE {
            self.write(head, LAYOUT.available + 4 + 2 * u64::from(self.offered % SIZE));
            self.offered = self.offered.wrapping_add(1);
            self.write(self.offered, LAYOUT.available + 2);
        }
    }

    /// Both take the same chain, and see the same in it as far as it is well formed.
    fn pop(&mut self) {
        let ours = self.ours.pop().unwrap();
        let theirs = self.theirs.iter(&self.their_memory).unwrap().next();
        assert_eq!(
            ours.map(Chain::head),
            theirs.as_ref().map(virtio_queue::DescriptorChain::head_index)
        );
        let (Some(ours), Some(theirs)) = (ours, theirs) else {
            return;
        };
        self.taken.push(ours.head());
        let mut theirs =
            theirs.map(|descriptor| (descriptor.addr(), descriptor.len(), descriptor.is_write_only()));
        for descriptor in self.ours.descriptors(ours) {
            let Ok((_, ours)) = descriptor else {
                assert_eq!(theirs.next(), None, "a circle");
                return;
            };
            let ours = (ours.address, ours.length, ours.access == Access::Write);
            assert_eq!(Some(ours), theirs.next());
        }
        assert_eq!(theirs.next(), None);
    }

    fn return_chain(&mut self, written: u32) {
        if let Some(head) = self.taken.pop() {
            self.ours.push_used(head, written).unwrap();
            self.theirs.add_used(&self.their_memory, head, written).unwrap();
        }
    }

    /// The other device always interrupts where it has not agreed on event indices.
    fn needs_interrupt(&mut self, event_idx: bool) {
        let anything = self.ours.announced != self.ours.returned;
        let ours = self.ours.needs_interrupt().unwrap();
        if anything || event_idx {
            let theirs = self.theirs.needs_notification(&self.their_memory).unwrap();
            assert_eq!(ours, theirs);
        }
    }

    fn undo_pop(&mut self) {
        if self.taken.pop().is_some() {
            self.ours.undo_pop();
            self.theirs.go_to_previous_position();
        }
    }

    fn used_rings(&self) -> [Vec<u8>; 2] {
        [&*self.our_memory, &self.their_memory].map(|memory| {
            let mut bytes = vec![0; 6 + 8 * usize::from(SIZE)];
            memory.read_slice(&mut bytes, GuestAddress(LAYOUT.used)).unwrap();
            bytes
        })
    }
}

proptest! {
    #[test]
    fn it_sees_and_does_what_the_crate_virtio_queue_does(
        event_idx in any::<bool>(),
        start in any::<u16>(),
        steps in prop::collection::vec(step(), 1..300),
    ) {
        let mut pair = Pair::new(event_idx);
        // Indices pass zero sooner or later.
        pair.offered = start;
        (pair.ours.taken, pair.ours.available) = (start, start);
        (pair.ours.returned, pair.ours.announced) = (start, start);
        pair.theirs.set_next_avail(start);
        pair.theirs.set_next_used(start);
        pair.write(start, LAYOUT.available + 2);
        for step in steps {
            match step {
                Step::Describe(index, address, length, flags, next) => pair.describe(index, address, length, flags, next),
                Step::Offer(head) => pair.offer(head),
                Step::WantInterruptAt(index) => pair.write(index, LAYOUT.available + 4 + 2 * u64::from(SIZE)),
                Step::Pop => pair.pop(),
                Step::UndoPop => pair.undo_pop(),
                Step::Return(written) => pair.return_chain(written),
                Step::NeedsInterrupt => pair.needs_interrupt(event_idx),
                Step::EnableDoorbell => {
                    let theirs = pair.theirs.enable_notification(&pair.their_memory).unwrap();
                    prop_assert_eq!(pair.ours.enable_doorbell().unwrap(), theirs);
                }
                Step::DisableDoorbell => {
                    pair.ours.disable_doorbell().unwrap();
                    pair.theirs.disable_notification(&pair.their_memory).unwrap();
                }
            }
            let [ours, theirs] = pair.used_rings();
            prop_assert_eq!(ours, theirs);
        }
    }

    #[test]
    fn indices_pass_as_the_specification_says(at in any::<u16>(), old in any::<u16>(), count in any::<u16>()) {
        let passed = (0..count).any(|number| old.wrapping_add(number) == at);
        prop_assert_eq!(has_passed(at, old, (Wrapping(old) + Wrapping(count)).0), passed);
    }
}

#[test]
fn heads_outside_of_the_table_break_the_queue() {
    let mut pair = Pair::new(true);
    pair.offer(SIZE);
    assert_eq!(pair.ours.pop(), Err(QueueError::NoDescriptor(SIZE)));
    assert_eq!(
        pair.ours.push_used(u16::MAX, 0),
        Err(QueueError::NoDescriptor(u16::MAX))
    );
}

#[test]
fn chains_end_at_indirect_descriptors_outside_of_the_table_and_in_circles() {
    let mut pair = Pair::new(true);
    for (flags, next) in [(4, 0), (1, SIZE), (1, u16::MAX), (1, 0)] {
        pair.describe(0, 0, 1, flags, next);
        pair.offer(0);
        let chain = pair.ours.pop().unwrap().unwrap();
        let seen: Vec<_> = pair.ours.descriptors(chain).collect();
        assert_eq!(seen.last(), Some(&Err(MalformedChain)));
        assert!(seen.len() <= usize::from(SIZE) + 1);
        let mut parts = Vec::new();
        let collected = pair
            .ours
            .collect_parts(chain, Access::Read, &pair.our_memory, &mut parts);
        assert_eq!((collected, parts.len()), (Err(MalformedChain), 0));
    }
}

#[test]
fn a_buffer_in_two_regions_has_two_parts() {
    let ranges = [(GuestAddress(0), 0x8000), (GuestAddress(0x8000), 0x8000)];
    let mut pair = Pair::new(true);
    let memory = GuestMemory::from_ranges(&ranges).unwrap();
    pair.describe(0, 0x7ffe, 5, 0, 0);
    pair.offer(0);
    let chain = pair.ours.pop().unwrap().unwrap();
    let mut parts = Vec::new();
    assert_eq!(
        pair.ours.collect_parts(chain, Access::Read, &memory, &mut parts),
        Ok(5)
    );
    assert_eq!(parts.iter().map(GuestSlice::len).collect::<Vec<_>>(), [2, 3]);
}
