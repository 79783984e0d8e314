//! The transport driven as a guest drives it: register by register.

use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;
use virtio_bindings::virtio_ring::{VRING_DESC_F_NEXT, VRING_DESC_F_WRITE};
use virtio_queue::desc::RawDescriptor;
use virtio_queue::desc::split::Descriptor;
use virtio_queue::mock::MockSplitQueue;
use vm_memory::{Bytes, GuestAddress};

use super::*;
use crate::Access;

const MEMORY_SIZE: usize = 0x1_0000;
const DEVICE_FEATURE: u64 = 1 << 3;
const QUEUE_SIZES: [u16; 2] = [16, 8];
const CONFIG: [u8; 6] = [1, 2, 3, 4, 5, 6];

const ACKNOWLEDGE: u32 = 1;
const DRIVER: u32 = 2;
const DRIVER_OK: u32 = 4;
const FEATURES_OK: u32 = 8;

/// How often a device was started and stopped.
#[derive(Debug, Default)]
struct Log {
    activated: AtomicUsize,
    reset: AtomicUsize,
}

impl Log {
    fn running(&self) -> bool {
        let (activated, reset) = (
            self.activated.load(Ordering::SeqCst),
            self.reset.load(Ordering::SeqCst),
        );
        assert!(
            activated == reset || activated == reset + 1,
            "activated {activated}, reset {reset}"
        );
        activated == reset + 1
    }
}

/// A device that does nothing but hold its queues where the test finds them.
struct Recorder {
    log: Arc<Log>,
    active: Arc<Mutex<Option<Activation>>>,
    refuse: bool,
}

impl VirtioDevice for Recorder {
    type Running = Arc<Mutex<Option<Activation>>>;

    fn device_id(&self) -> u32 {
        19
    }

    fn features(&self) -> u64 {
        DEVICE_FEATURE
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let rest = CONFIG.get(usize::try_from(offset).unwrap()..).unwrap_or_default();
        data.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
    }

    fn activate(&mut self, activation: Activation) -> Result<Self::Running, ActivateError> {
        if self.refuse {
            return Err(std::io::Error::other("refused").into());
        }
        self.log.activated.fetch_add(1, Ordering::SeqCst);
        *self.active.lock().unwrap() = Some(activation);
        Ok(Arc::clone(&self.active))
    }

    fn reset(&mut self, running: Self::Running) {
        self.log.reset.fetch_add(1, Ordering::SeqCst);
        assert!(
            running.lock().unwrap().take().is_some(),
            "reset of a device that is not active"
        );
    }
}

/// The driver's side.
struct Driver {
    transport: MmioTransport<Recorder>,
    memory: Arc<GuestMemory>,
    irqfd: EventFd,
    log: Arc<Log>,
    active: Arc<Mutex<Option<Activation>>>,
}

impl Driver {
    fn new() -> Self {
        Self::with_refusal(false)
    }

    fn with_refusal(refuse: bool) -> Self {
        let memory = Arc::new(GuestMemory::from_ranges(&[(GuestAddress(0), MEMORY_SIZE)]).unwrap());
        let irqfd = EventFd::new(EFD_NONBLOCK).unwrap();
        let (log, active) = (Arc::new(Log::default()), Arc::new(Mutex::new(None)));
        let device = Recorder {
            log: Arc::clone(&log),
            active: Arc::clone(&active),
            refuse,
        };
        let transport = MmioTransport::new(device, Arc::clone(&memory), irqfd.try_clone().unwrap()).unwrap();
        Self {
            transport,
            memory,
            irqfd,
            log,
            active,
        }
    }

    fn read(&self, offset: u32) -> u32 {
        let mut data = [0xaa; 4];
        self.transport.read(u64::from(offset), &mut data);
        u32::from_le_bytes(data)
    }

    fn write(&self, offset: u32, value: u32) {
        self.transport.write(u64::from(offset), &value.to_le_bytes());
    }

    fn status(&self) -> u32 {
        self.read(register::VIRTIO_MMIO_STATUS)
    }

    fn set_status(&self, value: u32) {
        self.write(register::VIRTIO_MMIO_STATUS, value);
    }

    fn offered(&self) -> u64 {
        let halves = [0, 1].map(|select| {
            self.write(register::VIRTIO_MMIO_DEVICE_FEATURES_SEL, select);
            u64::from(self.read(register::VIRTIO_MMIO_DEVICE_FEATURES))
        });
        halves[0] | halves[1] << 32
    }

    /// Up to FEATURES_OK; returns whether the device has agreed.
    fn negotiate(&self, features: u64) -> bool {
        self.set_status(ACKNOWLEDGE);
        self.set_status(ACKNOWLEDGE | DRIVER);
        for select in [0, 1] {
            self.write(register::VIRTIO_MMIO_DRIVER_FEATURES_SEL, select);
            self.write(register::VIRTIO_MMIO_DRIVER_FEATURES, half(features, select));
        }
        self.set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK);
        self.status() & FEATURES_OK != 0
    }

    fn set_up_queue(&self, index: u32, size: u32, rings: [u64; 3]) {
        self.write(register::VIRTIO_MMIO_QUEUE_SEL, index);
        assert_eq!(self.read(register::VIRTIO_MMIO_QUEUE_READY), 0);
        self.write(register::VIRTIO_MMIO_QUEUE_NUM, size);
        let offsets = [
            register::VIRTIO_MMIO_QUEUE_DESC_LOW,
            register::VIRTIO_MMIO_QUEUE_AVAIL_LOW,
            register::VIRTIO_MMIO_QUEUE_USED_LOW,
        ];
        for (offset, address) in offsets.into_iter().zip(rings) {
            self.write(offset, half(address, 0));
            self.write(offset + 4, half(address, 1));
        }
        self.write(register::VIRTIO_MMIO_QUEUE_READY, 1);
        assert_eq!(self.read(register::VIRTIO_MMIO_QUEUE_READY), 1);
    }

    fn queue_at(&self, index: u32) -> MockSplitQueue<'_, GuestMemory> {
        let start = GuestAddress(0x1000 * (u64::from(index) + 1));
        MockSplitQueue::create(self.memory.as_ref(), start, QUEUE_SIZES[index as usize])
    }

    fn set_up_both_queues(&self) {
        for index in [0, 1] {
            let queue = self.queue_at(index);
            let rings = [
                queue.desc_table_addr().0,
                queue.avail_addr().0,
                queue.used_addr().0,
            ];
            self.set_up_queue(index, u32::from(QUEUE_SIZES[index as usize]), rings);
        }
    }

    /// A whole, correct initialisation.
    fn start(&self, features: u64) {
        assert!(self.negotiate(features));
        self.set_up_both_queues();
        self.set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
    }
}

#[test]
fn identity() {
    let driver = Driver::new();
    assert_eq!(
        &driver.read(register::VIRTIO_MMIO_MAGIC_VALUE).to_le_bytes(),
        b"virt"
    );
    assert_eq!(driver.read(register::VIRTIO_MMIO_VERSION), 2);
    assert_eq!(driver.read(register::VIRTIO_MMIO_DEVICE_ID), 19);
    assert_eq!(driver.offered(), DEVICE_FEATURE | TRANSPORT_FEATURES);
    driver.write(register::VIRTIO_MMIO_DEVICE_FEATURES_SEL, 2);
    assert_eq!(driver.read(register::VIRTIO_MMIO_DEVICE_FEATURES), 0);
}

#[test]
fn initialisation_activates_once_and_reset_takes_everything_back() {
    let driver = Driver::new();
    for _ in 0..2 {
        driver.start(DEVICE_FEATURE | TRANSPORT_FEATURES);
        assert_eq!(driver.status(), 0xf);
        assert!(driver.log.running());
        driver.set_status(0xf);
        let activation = driver.active.lock().unwrap();
        assert_eq!(activation.as_ref().unwrap().queues.len(), QUEUE_SIZES.len());
        assert_eq!(
            activation.as_ref().unwrap().features,
            DEVICE_FEATURE | TRANSPORT_FEATURES
        );
        drop(activation);

        driver.set_status(0);

        assert_eq!(driver.status(), 0);
        assert!(!driver.log.running());
        assert!(driver.active.lock().unwrap().is_none());
        driver.write(register::VIRTIO_MMIO_QUEUE_SEL, 1);
        assert_eq!(driver.read(register::VIRTIO_MMIO_QUEUE_READY), 0);
    }
    assert_eq!(driver.log.activated.load(Ordering::SeqCst), 2);
}

#[test]
fn features_that_were_not_offered_or_lack_version_1_are_refused() {
    for features in [
        0,
        DEVICE_FEATURE,
        TRANSPORT_FEATURES | 1,
        TRANSPORT_FEATURES | 1 << 63,
    ] {
        let driver = Driver::new();
        assert!(!driver.negotiate(features), "{features:#x}");
        assert_eq!(driver.status(), ACKNOWLEDGE | DRIVER);
        // The driver may think again.
        assert!(driver.negotiate(TRANSPORT_FEATURES));
    }
}

#[test]
fn features_are_fixed_once_accepted() {
    let driver = Driver::new();
    assert!(driver.negotiate(TRANSPORT_FEATURES));
    driver.write(register::VIRTIO_MMIO_DRIVER_FEATURES_SEL, 0);
    driver.write(register::VIRTIO_MMIO_DRIVER_FEATURES, u32::MAX);
    driver.set_up_both_queues();
    driver.set_status(0xf);
    assert_eq!(
        driver.active.lock().unwrap().as_ref().unwrap().features,
        TRANSPORT_FEATURES
    );
}

#[test]
fn unusable_queues_end_in_needs_reset_and_a_reset_makes_good() {
    let good = [0x1000, 0x2000, 0x3000];
    let end = MEMORY_SIZE as u64;
    for (size, rings) in [
        (0, good),
        (3, good),
        (32, good),
        (0x1_0008, good),
        (8, [end - 0x40, 0x2000, 0x3000]),
        (8, [0x1000, end, 0x3000]),
        (8, [0x1000, 0x2000, u64::MAX - 3]),
        (8, [0x1008, 0x2000, 0x3000]),
        (8, [0x1000, 0x2001, 0x3000]),
        (8, [0x1000, 0x2000, 0x3002]),
        (8, [0x1000, 0, 0x3000]),
    ] {
        let driver = Driver::new();
        driver.negotiate(TRANSPORT_FEATURES);
        driver.set_up_queue(0, 8, [0x4000, 0x5000, 0x6000]);
        driver.set_up_queue(1, size, rings);
        driver.set_status(0xf);

        assert_eq!(driver.status(), 0xf | NEEDS_RESET, "{size} {rings:x?}");
        assert_eq!(driver.irqfd.read().unwrap(), 1);
        assert_eq!(
            driver.read(register::VIRTIO_MMIO_INTERRUPT_STATUS),
            register::VIRTIO_MMIO_INT_CONFIG
        );
        assert!(matches!(
            driver.transport.take_activation_error(),
            Some(ActivateError::Queue { index: 1 })
        ));
        assert!(!driver.log.running());
        driver.set_status(0);
        driver.start(TRANSPORT_FEATURES);
        assert_eq!(driver.status(), 0xf);
    }
}

#[test]
fn a_queue_that_was_never_made_ready_is_unusable() {
    let driver = Driver::new();
    driver.negotiate(TRANSPORT_FEATURES);
    driver.set_up_queue(0, 8, [0x4000, 0x5000, 0x6000]);
    driver.set_status(0xf);
    assert_eq!(driver.status() & NEEDS_RESET, NEEDS_RESET);
}

#[test]
fn a_device_that_cannot_start_asks_for_a_reset() {
    let driver = Driver::with_refusal(true);
    driver.start(TRANSPORT_FEATURES);
    assert_eq!(driver.status(), 0xf | NEEDS_RESET);
    assert!(matches!(
        driver.transport.take_activation_error(),
        Some(ActivateError::Device(_))
    ));
    assert!(driver.transport.take_activation_error().is_none());
}

#[test]
fn a_ready_queue_keeps_its_addresses_until_it_is_made_unready() {
    let driver = Driver::new();
    driver.negotiate(TRANSPORT_FEATURES);
    driver.set_up_both_queues();
    driver.write(register::VIRTIO_MMIO_QUEUE_DESC_HIGH, 0xffff_ffff);
    driver.set_status(0xf);
    assert_eq!(driver.status(), 0xf);

    driver.set_status(0);
    driver.negotiate(TRANSPORT_FEATURES);
    driver.set_up_both_queues();
    driver.write(register::VIRTIO_MMIO_QUEUE_READY, 0);
    driver.write(register::VIRTIO_MMIO_QUEUE_DESC_HIGH, 0xffff_ffff);
    driver.write(register::VIRTIO_MMIO_QUEUE_READY, 1);
    driver.set_status(0xf);
    assert_eq!(driver.status(), 0xf | NEEDS_RESET);
}

#[test]
fn notifications_ring_the_doorbell_of_their_queue_only() {
    let driver = Driver::new();
    driver.write(register::VIRTIO_MMIO_QUEUE_NOTIFY, 1);
    driver.write(register::VIRTIO_MMIO_QUEUE_NOTIFY, 1);
    driver.write(register::VIRTIO_MMIO_QUEUE_NOTIFY, 2);
    driver.write(register::VIRTIO_MMIO_QUEUE_NOTIFY, u32::MAX);
    let rung: Vec<_> = driver
        .transport
        .doorbells()
        .map(|(index, doorbell)| (index, doorbell.read().ok()))
        .collect();
    assert_eq!(rung, [(0, None), (1, Some(2))]);
}

#[test]
fn configuration_space_takes_any_width_and_ends_in_zeros() {
    let driver = Driver::new();
    let mut data = [0xaa; 8];
    driver.transport.read(0x100, &mut data);
    assert_eq!(data, [1, 2, 3, 4, 5, 6, 0, 0]);
    let mut byte = [0xaa; 1];
    driver.transport.read(0x105, &mut byte);
    assert_eq!(byte, [6]);
    driver.transport.read(0xfff, &mut data);
    assert_eq!(data, [0; 8]);
}

#[test]
fn odd_accesses_to_registers_read_zeros_and_write_nothing() {
    let driver = Driver::new();
    let mut wide = [0xaa; 8];
    driver.transport.read(0, &mut wide);
    assert_eq!(wide, [0; 8]);
    let mut narrow = [0xaa; 2];
    driver.transport.read(0, &mut narrow);
    assert_eq!(narrow, [0; 2]);
    let status = u64::from(register::VIRTIO_MMIO_STATUS);
    driver.transport.write(status, &[1]);
    driver.transport.write(status, &[1, 0, 0, 0, 0, 0, 0, 0]);
    driver.transport.write(status + 1, &[1, 0, 0, 0]);
    assert_eq!(driver.status(), 0);
}

#[test]
fn shared_memory_regions_do_not_exist() {
    let driver = Driver::new();
    for offset in [0xb0, 0xb4, 0xb8, 0xbc] {
        assert_eq!(driver.read(offset), u32::MAX);
    }
}

/// A request in three pieces and an answer in two, through a running queue, with and without interrupt suppression.
#[test]
fn a_chain_goes_through_the_queue() {
    let driver = Driver::new();
    driver.start(1 << VIRTIO_F_VERSION_1);
    let queue = driver.queue_at(1);
    let descriptors = [
        (0x8000, 3, false),
        (0x8010, 0, false),
        (0x8020, 2, false),
        (0x9000, 4, true),
        (0xa000, 4, true),
    ];
    let descriptors: Vec<_> = (1..)
        .zip(descriptors)
        .map(|(next, (address, length, write))| {
            let flags =
                if next < 5 { VRING_DESC_F_NEXT } else { 0 } | if write { VRING_DESC_F_WRITE } else { 0 };
            RawDescriptor::from(Descriptor::new(
                address,
                length,
                u16::try_from(flags).unwrap(),
                next,
            ))
        })
        .collect();
    driver.memory.write_slice(b"abc", GuestAddress(0x8000)).unwrap();
    driver.memory.write_slice(b"de", GuestAddress(0x8020)).unwrap();
    queue.add_desc_chains(&descriptors, 0).unwrap();

    let mut activation = driver.active.lock().unwrap();
    let device_queue = &mut activation.as_mut().unwrap().queues[1];
    let memory = driver.memory.as_ref();
    let chain = device_queue.pop().unwrap().unwrap();
    device_queue.undo_pop();
    let again = device_queue.pop().unwrap().unwrap();
    assert_eq!(chain.head(), again.head());
    assert!(device_queue.pop().unwrap().is_none());

    let mut parts = Vec::new();
    assert_eq!(
        device_queue.collect_parts(chain, Access::Read, memory, &mut parts),
        Ok(5)
    );
    let mut request = Vec::new();
    for part in &parts {
        let mut bytes = vec![0; part.len()];
        part.copy_to(&mut bytes[..]);
        request.extend(bytes);
    }
    assert_eq!(request, b"abcde");
    parts.clear();
    assert_eq!(
        device_queue.collect_parts(chain, Access::Write, memory, &mut parts),
        Ok(8)
    );
    assert_eq!(parts.len(), 2);

    device_queue.push_used(chain.head(), 8).unwrap();
    device_queue.notify().unwrap();
    device_queue.notify().unwrap();
    assert_eq!(queue.used().idx().load(), 1);
    assert_eq!(driver.irqfd.read().unwrap(), 1, "one interrupt for one batch");
    assert_eq!(
        driver.read(register::VIRTIO_MMIO_INTERRUPT_STATUS),
        register::VIRTIO_MMIO_INT_VRING
    );
    driver.write(
        register::VIRTIO_MMIO_INTERRUPT_ACK,
        register::VIRTIO_MMIO_INT_VRING,
    );
    assert_eq!(driver.read(register::VIRTIO_MMIO_INTERRUPT_STATUS), 0);

    // VIRTQ_AVAIL_F_NO_INTERRUPT: the driver is polling.
    driver.memory.write_obj(1_u16, queue.avail_addr()).unwrap();
    device_queue.push_used(chain.head(), 0).unwrap();
    device_queue.notify().unwrap();
    assert!(driver.irqfd.read().is_err());
}

#[test]
fn chains_outside_memory_or_without_end_are_malformed() {
    let driver = Driver::new();
    driver.start(TRANSPORT_FEATURES);
    let queue = driver.queue_at(0);
    let indirect = 4;
    // An indirect table whose first entry points at itself.
    let looped = Descriptor::new(0x8000, 1, u16::try_from(VRING_DESC_F_NEXT).unwrap(), 0);
    driver
        .memory
        .write_obj(RawDescriptor::from(looped), GuestAddress(0x9000))
        .unwrap();
    let heads = [
        RawDescriptor::from(Descriptor::new(MEMORY_SIZE as u64 - 1, 2, 0, 0)),
        RawDescriptor::from(Descriptor::new(u64::MAX, 2, 0, 0)),
        RawDescriptor::from(Descriptor::new(0x9000, 0x4000, indirect, 0)),
    ];
    queue.add_desc_chains(&heads, 0).unwrap();

    let mut activation = driver.active.lock().unwrap();
    let device_queue = &mut activation.as_mut().unwrap().queues[0];
    let memory = driver.memory.as_ref();
    let mut parts = Vec::new();
    for _ in heads {
        let chain = device_queue.pop().unwrap().unwrap();
        assert_eq!(
            device_queue.collect_parts(chain, Access::Read, memory, &mut parts),
            Err(crate::MalformedChain)
        );
        assert!(parts.is_empty());
    }
}

#[test]
fn an_available_index_that_ran_ahead_breaks_the_queue() {
    let driver = Driver::new();
    driver.start(TRANSPORT_FEATURES);
    let queue = driver.queue_at(0);
    queue.avail().idx().store(QUEUE_SIZES[0] + 1);
    let mut activation = driver.active.lock().unwrap();
    let device_queue = &mut activation.as_mut().unwrap().queues[0];
    assert!(device_queue.pop().is_err());
    assert!(device_queue.push_used(QUEUE_SIZES[0], 0).is_err());
}

/// One access by a guest that knows the registers but not the rules.
#[derive(Clone, Debug)]
enum Access32 {
    Read(u64, usize),
    Write(u64, Vec<u8>),
    Register(u32, u32),
    DeviceFails,
}

fn any_access() -> impl Strategy<Value = Access32> {
    let registers = prop::sample::select(vec![
        register::VIRTIO_MMIO_STATUS,
        register::VIRTIO_MMIO_STATUS,
        register::VIRTIO_MMIO_DRIVER_FEATURES,
        register::VIRTIO_MMIO_DRIVER_FEATURES_SEL,
        register::VIRTIO_MMIO_QUEUE_SEL,
        register::VIRTIO_MMIO_QUEUE_NUM,
        register::VIRTIO_MMIO_QUEUE_READY,
        register::VIRTIO_MMIO_QUEUE_DESC_LOW,
        register::VIRTIO_MMIO_QUEUE_AVAIL_LOW,
        register::VIRTIO_MMIO_QUEUE_USED_LOW,
        register::VIRTIO_MMIO_INTERRUPT_ACK,
    ]);
    let values = prop_oneof![
        prop::sample::select(vec![
            0,
            1,
            2,
            3,
            8,
            0xb,
            0xf,
            0x80,
            0x8f,
            0x1000,
            0x2000,
            0x3000,
            1 << 29
        ]),
        any::<u32>(),
    ];
    prop_oneof![
        8 => (registers, values).prop_map(|(offset, value)| Access32::Register(offset, value)),
        1 => (0_u64..0x1100, prop::sample::select(vec![1, 2, 4, 8])).prop_map(|(offset, width)| Access32::Read(offset, width)),
        1 => (0_u64..0x1100, prop::collection::vec(any::<u8>(), 1..9)).prop_map(|(offset, data)| Access32::Write(offset, data)),
        1 => Just(Access32::DeviceFails),
    ]
}

/// The rules of the status register, told once more: from the present value, what a write leads to. `None`: depends on queues
/// or features, which the caller checks with the invariants alone.
fn predict_status(present: u32, written: u32) -> Option<u32> {
    let present = present & !NEEDS_RESET;
    if written == 0 {
        return Some(0);
    }
    let written = written & !NEEDS_RESET;
    let order = [
        0,
        ACKNOWLEDGE,
        ACKNOWLEDGE | DRIVER,
        ACKNOWLEDGE | DRIVER | FEATURES_OK,
        0xf,
    ];
    let legal = present & 0x80 == 0 && written & present == present && order.contains(&(written & !0x80));
    if !legal {
        return Some(present);
    }
    let asks_for_features = written & !present & FEATURES_OK != 0;
    (!asks_for_features).then_some(written)
}

proptest! {
    #[test]
    fn no_sequence_of_accesses_breaks_the_rules(accesses in prop::collection::vec(any_access(), 1..200)) {
        let driver = Driver::new();
        for access in accesses {
            let before = driver.status();
            match access {
                Access32::Read(offset, width) => driver.transport.read(offset, &mut vec![0xaa; width]),
                Access32::Write(offset, data) => driver.transport.write(offset, &data),
                Access32::DeviceFails => driver.transport.interrupt.fail_device(),
                Access32::Register(offset, value) => {
                    driver.write(offset, value);
                    if offset == register::VIRTIO_MMIO_STATUS
                        && let Some(expected) = predict_status(before, value)
                    {
                        prop_assert_eq!(driver.status() & !NEEDS_RESET, expected, "{:#x} after {:#x}", value, before);
                    }
                }
            }
            let status = driver.status();
            prop_assert_eq!(&driver.read(0).to_le_bytes(), b"virt");
            prop_assert!([0, 1, 3, 0xb, 0xf].contains(&(status & 0xf)), "status {:#x}", status);
            if driver.log.running() {
                prop_assert_eq!(status & 0xf, 0xf);
                let features = driver.active.lock().unwrap().as_ref().unwrap().features;
                prop_assert_eq!(features & !(DEVICE_FEATURE | TRANSPORT_FEATURES), 0);
                prop_assert_ne!(features & 1 << VIRTIO_F_VERSION_1, 0);
            } else {
                prop_assert!(status & DRIVER_OK == 0 || status & NEEDS_RESET != 0, "ready, not running, not failed");
            }
        }
        driver.set_status(0);
        prop_assert!(!driver.log.running());
        driver.start(TRANSPORT_FEATURES);
        prop_assert_eq!(driver.status(), 0xf, "usable after any past");
    }
}
