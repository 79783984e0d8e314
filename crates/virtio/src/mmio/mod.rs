//! The register window of a virtio-mmio device, version 2 (virtio 1.2, 4.2.2).
//!
//! Registers are 32 bits wide and aligned; from 0x100 on lies the configuration space of the device, where any width is
//! allowed. An access to a register of another width or alignment reads zeros and writes nothing. So does a read of a
//! write-only register, a write to a read-only one, and any access to an offset that is no register.
//!
//! Writes that come at the wrong time are ignored: features before DRIVER or after FEATURES_OK, queues before FEATURES_OK or
//! after DRIVER_OK. What the driver has set up is judged as a whole when it writes DRIVER_OK.

mod queue_registers;
mod status;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_mmio as register;
use virtio_bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use self::queue_registers::{QueueRegisters, set_high, set_low};
use self::status::{NEEDS_RESET, Status, StatusWrite};
use crate::device::{ActivateError, Activation, VirtioDevice};
use crate::queue::ActiveQueue;
use crate::{GuestMemory, Interrupt, InterruptLine};

/// MagicValue: "virt", little endian.
const MAGIC: u32 = u32::from_le_bytes(*b"virt");
/// Version: the first is the legacy interface, which we do not have.
const VERSION: u32 = 2;
/// VendorID: "encl", little endian. Drivers do not look at it.
const VENDOR: u32 = u32::from_le_bytes(*b"encl");
/// Features of the transport: version 1 is required, EVENT_IDX spares doorbells and interrupts.
const TRANSPORT_FEATURES: u64 = 1 << VIRTIO_F_VERSION_1 | 1 << VIRTIO_RING_F_EVENT_IDX;
/// Length and base of a shared memory region that does not exist (virtio 1.2, 4.2.2.1).
const NO_SHARED_MEMORY: u32 = u32::MAX;

/// The registers of a virtio-mmio device, with the device behind them.
///
/// Every method takes `&self`: vCPU threads may use one transport at the same time. InterruptStatus, InterruptACK and
/// QueueNotify never wait; the other registers take a lock that is held for one access, or for as long as the device takes to
/// [`activate`](VirtioDevice::activate) or [`reset`](VirtioDevice::reset).
pub struct MmioTransport<D: VirtioDevice> {
    device_id: u32,
    offered_features: u64,
    memory: Arc<GuestMemory>,
    interrupt: Interrupt,
    doorbells: Vec<Arc<EventFd>>,
    registers: Mutex<Registers<D>>,
}

/// The host refused something a transport needs.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// No eventfd for the doorbell of a queue.
    #[error("cannot create the doorbell of a virtqueue")]
    Doorbell(#[from] std::io::Error),
    /// The device declares a queue size that is no power of two, or above 32768.
    #[error(
        "a device declares a virtqueue of {size} descriptors; it must be a power of two of at most 32768"
    )]
    QueueSize {
        /// The size it declares.
        size: u16,
    },
}

struct Registers<D: VirtioDevice> {
    device: D,
    /// Present exactly while the device is active.
    running: Option<D::Running>,
    last_error: Option<ActivateError>,
    status: Status,
    driver_features: u64,
    device_features_select: u32,
    driver_features_select: u32,
    queue_select: u32,
    queues: Vec<QueueRegisters>,
}

impl<D: VirtioDevice> MmioTransport<D> {
    /// Puts `device` behind a register window. `memory` is all of guest memory; `line` is the device's interrupt line.
    ///
    /// # Errors
    ///
    /// If no eventfd can be had, or the device's queue sizes are impossible.
    pub fn new(
        device: D,
        memory: Arc<GuestMemory>,
        line: impl InterruptLine,
    ) -> Result<Self, TransportError> {
        let sizes = device.queue_sizes();
        if let Some(&size) = sizes.iter().find(|size| !size.is_power_of_two()) {
            return Err(TransportError::QueueSize { size });
        }
        let queues = sizes.iter().map(|&size| QueueRegisters::new(size)).collect();
        let doorbells = sizes
            .iter()
            .map(|_| EventFd::new(EFD_NONBLOCK).map(Arc::new))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            device_id: device.device_id(),
            offered_features: device.features() | TRANSPORT_FEATURES,
            memory,
            interrupt: Interrupt::new(line),
            doorbells,
            registers: Mutex::new(Registers {
                device,
                running: None,
                last_error: None,
                status: Status::default(),
                driver_features: 0,
                device_features_select: 0,
                driver_features_select: 0,
                queue_select: 0,
                queues,
            }),
        })
    }

    /// The doorbell of each queue with the queue's index. KVM writes to it when the driver writes that index, as four bytes,
    /// to [`QUEUE_NOTIFY_OFFSET`](crate::QUEUE_NOTIFY_OFFSET) (an ioeventfd with a data match), so that the vCPU goes on at
    /// once. A write that reaches [`write`](Self::write) instead rings the same doorbell.
    pub fn doorbells(&self) -> impl Iterator<Item = (u32, &EventFd)> {
        (0..).zip(self.doorbells.iter().map(Arc::as_ref))
    }

    /// Why the device could not be activated the last time its driver asked, if it could not. Asking clears it.
    pub fn take_activation_error(&self) -> Option<ActivateError> {
        self.lock().last_error.take()
    }

    /// A vCPU reads `data.len()` bytes at `offset` of the window.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if let Some(offset) = offset.checked_sub(u64::from(register::VIRTIO_MMIO_CONFIG)) {
            self.lock().device.read_config(offset, data);
        } else if let Some(offset) = register_offset(offset, data.len()) {
            data.copy_from_slice(&self.read_register(offset).to_le_bytes());
        }
    }

    /// A vCPU writes `data` at `offset` of the window.
    pub fn write(&self, offset: u64, data: &[u8]) {
        if let Some(offset) = offset.checked_sub(u64::from(register::VIRTIO_MMIO_CONFIG)) {
            self.lock().device.write_config(offset, data);
        } else if let (Some(offset), Ok(value)) = (register_offset(offset, data.len()), data.try_into()) {
            self.write_register(offset, u32::from_le_bytes(value));
        }
    }

    fn read_register(&self, offset: u32) -> u32 {
        match offset {
            register::VIRTIO_MMIO_MAGIC_VALUE => MAGIC,
            register::VIRTIO_MMIO_VERSION => VERSION,
            register::VIRTIO_MMIO_DEVICE_ID => self.device_id,
            register::VIRTIO_MMIO_VENDOR_ID => VENDOR,
            register::VIRTIO_MMIO_DEVICE_FEATURES => {
                half(self.offered_features, self.lock().device_features_select)
            }
            register::VIRTIO_MMIO_QUEUE_NUM_MAX => {
                self.lock().queue().map_or(0, |queue| u32::from(queue.max_size()))
            }
            register::VIRTIO_MMIO_QUEUE_READY => {
                self.lock().queue().map_or(0, |queue| u32::from(queue.ready))
            }
            register::VIRTIO_MMIO_INTERRUPT_STATUS => self.interrupt.status(),
            register::VIRTIO_MMIO_STATUS => self.read_status(),
            register::VIRTIO_MMIO_SHM_LEN_LOW..=register::VIRTIO_MMIO_SHM_BASE_HIGH => NO_SHARED_MEMORY,
            register::VIRTIO_MMIO_CONFIG_GENERATION => self.interrupt.config_generation(),
            _ => 0,
        }
    }

    fn write_register(&self, offset: u32, value: u32) {
        match offset {
            register::VIRTIO_MMIO_INTERRUPT_ACK => self.interrupt.acknowledge(value),
            register::VIRTIO_MMIO_QUEUE_NOTIFY => self.ring_doorbell(value),
            register::VIRTIO_MMIO_STATUS => self.write_status(value),
            _ => self.lock().write(offset, value),
        }
    }

    fn ring_doorbell(&self, queue: u32) {
        let doorbell = usize::try_from(queue)
            .ok()
            .and_then(|index| self.doorbells.get(index));
        if let Some(doorbell) = doorbell {
            // Refused only when the counter is full: the device is about to look anyway.
            let _ = doorbell.write(1);
        }
    }

    fn read_status(&self) -> u32 {
        let needs_reset = if self.interrupt.device_failed() {
            NEEDS_RESET
        } else {
            0
        };
        self.lock().status.bits() | needs_reset
    }

    fn write_status(&self, value: u32) {
        let mut registers = self.lock();
        match registers.status.write(value) {
            StatusWrite::Invalid => {}
            StatusWrite::Reset => self.reset(&mut registers),
            StatusWrite::Advance(next) => self.advance(&mut registers, next),
        }
    }

    fn advance(&self, registers: &mut Registers<D>, next: Status) {
        let newly_accepted = next.features_accepted() && !registers.status.features_accepted();
        if newly_accepted && !self.agrees_to(registers.driver_features) {
            registers.status = next.refuse_features();
            return;
        }
        let newly_ready = next.driver_ready() && !registers.status.driver_ready();
        registers.status = next;
        if newly_ready && let Err(error) = self.activate(registers) {
            registers.last_error = Some(error);
            self.interrupt.fail_device();
        }
    }

    fn agrees_to(&self, driver_features: u64) -> bool {
        driver_features & !self.offered_features == 0 && driver_features & 1 << VIRTIO_F_VERSION_1 != 0
    }

    fn activate(&self, registers: &mut Registers<D>) -> Result<(), ActivateError> {
        let features = registers.driver_features;
        let event_idx = features & 1 << VIRTIO_RING_F_EVENT_IDX != 0;
        let mut queues = Vec::with_capacity(registers.queues.len());
        for (index, (queue, doorbell)) in registers.queues.iter().zip(&self.doorbells).enumerate() {
            let rings = queue.rings(&self.memory).ok_or(ActivateError::Queue { index })?;
            queues.push(ActiveQueue::new(
                rings,
                event_idx,
                Arc::clone(doorbell),
                self.interrupt.clone(),
            ));
        }
        let activation = Activation {
            memory: Arc::clone(&self.memory),
            queues,
            interrupt: self.interrupt.clone(),
            features,
        };
        registers.running = Some(registers.device.activate(activation)?);
        Ok(())
    }

    /// Ends with the status register at 0: a driver that reads 0 finds a device that has let go of guest memory.
    fn reset(&self, registers: &mut Registers<D>) {
        if let Some(running) = registers.running.take() {
            registers.device.reset(running);
        }
        registers.driver_features = 0;
        registers.device_features_select = 0;
        registers.driver_features_select = 0;
        registers.queue_select = 0;
        registers.queues.iter_mut().for_each(QueueRegisters::reset);
        self.interrupt.reset();
        registers.status = Status::default();
    }

    /// A thread that panicked while it held the registers has left them in a state of their own; each write keeps them valid,
    /// so there is no reason to take the other vCPUs down with it.
    fn lock(&self) -> MutexGuard<'_, Registers<D>> {
        self.registers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<D: VirtioDevice> Registers<D> {
    /// The selected queue, if there is one of that index.
    fn queue(&self) -> Option<&QueueRegisters> {
        self.queues.get(usize::try_from(self.queue_select).ok()?)
    }

    fn write(&mut self, offset: u32, value: u32) {
        match offset {
            register::VIRTIO_MMIO_DEVICE_FEATURES_SEL => self.device_features_select = value,
            register::VIRTIO_MMIO_DRIVER_FEATURES_SEL => self.driver_features_select = value,
            register::VIRTIO_MMIO_DRIVER_FEATURES if self.status.negotiating() => self.write_features(value),
            register::VIRTIO_MMIO_QUEUE_SEL => self.queue_select = value,
            _ if self.status.configuring_queues() => self.write_queue(offset, value),
            _ => {}
        }
    }

    fn write_features(&mut self, value: u32) {
        match self.driver_features_select {
            0 => set_low(&mut self.driver_features, value),
            1 => set_high(&mut self.driver_features, value),
            // Bits from 64 on: none is defined, none is offered.
            _ => {}
        }
    }

    /// A ready queue keeps its size and addresses until it is made unready or the device is reset.
    fn write_queue(&mut self, offset: u32, value: u32) {
        let selected = usize::try_from(self.queue_select).ok();
        let Some(queue) = selected.and_then(|index| self.queues.get_mut(index)) else {
            return;
        };
        if offset == register::VIRTIO_MMIO_QUEUE_READY {
            queue.ready = value == 1;
            return;
        }
        if queue.ready {
            return;
        }
        match offset {
            register::VIRTIO_MMIO_QUEUE_NUM => queue.size = value,
            register::VIRTIO_MMIO_QUEUE_DESC_LOW => set_low(&mut queue.descriptors, value),
            register::VIRTIO_MMIO_QUEUE_DESC_HIGH => set_high(&mut queue.descriptors, value),
            register::VIRTIO_MMIO_QUEUE_AVAIL_LOW => set_low(&mut queue.available, value),
            register::VIRTIO_MMIO_QUEUE_AVAIL_HIGH => set_high(&mut queue.available, value),
            register::VIRTIO_MMIO_QUEUE_USED_LOW => set_low(&mut queue.used, value),
            register::VIRTIO_MMIO_QUEUE_USED_HIGH => set_high(&mut queue.used, value),
            _ => {}
        }
    }
}

impl<D: VirtioDevice> fmt::Debug for MmioTransport<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MmioTransport")
            .field("device_id", &self.device_id)
            .finish_non_exhaustive()
    }
}

/// The offset of a register, if an access of `width` bytes at `offset` is one to a register.
fn register_offset(offset: u64, width: usize) -> Option<u32> {
    (width == 4 && offset.is_multiple_of(4)).then_some(u32::try_from(offset).ok()?)
}

/// The 32 bits of `bits` that a feature select register of value `select` shows.
#[expect(clippy::cast_possible_truncation, reason = "the half that was selected")]
fn half(bits: u64, select: u32) -> u32 {
    match select {
        0 => bits as u32,
        1 => (bits >> 32) as u32,
        _ => 0,
    }
}
