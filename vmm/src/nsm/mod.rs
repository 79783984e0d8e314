//! virtio-nsm: the enclave's way to its Nitro Security Module, which is in the daemon.
//!
//! # What the guest's driver does
//!
//! The device has id 33, one queue, no features of its own and no configuration space. For each call the driver makes two
//! chains available, one after the other, and rings the doorbell: the request, which the device reads, and room for the
//! response, which it writes (`drivers/misc/nsm.c` in Linux). The driver takes both back at the first interrupt, so that both
//! must be there by then, in this order. How much room there is differs: drivers up to Linux 4.14 offer what their caller does.
//!
//! # What the device does
//!
//! ```text
//!   doorbell ─► exchange: takes a pair of chains ─► channel: sends the request, with a number ─► daemon
//!   interrupt ◄─ exchange: fills the response, returns the pair ◄─ channel: receives ◄──────────── daemon
//! ```
//!
//! No byte of either is looked at. There is one exchange at a time, however many pairs there are. The channel survives the
//! daemon: a request that nobody has answered waits for the next connection and is sent again (see [`api::nsm`]).
//!
//! # Two halves
//!
//! [`Nsm`] is activated and reset on vCPU threads and [`NsmWorker`] works on the device thread; what
//! they share is locked for moments, and nobody waits while holding the lock.

mod channel;
mod exchange;

#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};
use virtio::{ActivateError, Activation, Interrupt, QueueError, VirtioDevice};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent};

use self::channel::Channel;
use self::exchange::Exchanges;
use crate::log;

/// The device type (`include/uapi/linux/virtio_ids.h`, "VIRTIO_ID_NITRO_SEC_MOD").
const VIRTIO_ID_NSM: u32 = 33;

/// A pair of chains takes two descriptors, and the driver makes one call at a time.
const QUEUE_SIZES: [u16; 1] = [16];

/// Lines about faults of the guest that one device writes to the log.
const MOST_COMPLAINTS: u32 = 16;

/// Events taken at once; there are no more sources than this.
const BATCH: usize = 4;

/// The device half: what the transport activates and resets.
#[derive(Debug)]
pub struct Nsm(Arc<Shared>);

/// The worker half: what the device thread's event loop runs.
#[derive(Debug)]
pub struct NsmWorker {
    shared: Arc<Shared>,
    complaints: log::Limited,
}

/// Proof that the device is active: made by activation, spent by reset.
#[derive(Debug)]
pub struct Running(());

#[derive(Debug)]
struct Shared {
    /// Wakes the worker; edge-triggered, so that nothing has to be read only to be quiet again.
    poller: Epoll,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    active: Option<Active>,
    channel: Channel,
}

#[derive(Debug)]
struct Active {
    exchanges: Exchanges,
    interrupt: Interrupt,
}

/// Opens the device, inactive, whose daemon connects to `listener`, a listening `SOCK_SEQPACKET` socket. Made non-blocking.
///
/// # Errors
/// If there is no epoll instance to be had, or the listener is no socket.
pub fn open(listener: OwnedFd) -> io::Result<(Nsm, NsmWorker)> {
    let poller = Epoll::new()?;
    watch(&poller, &listener)?;
    let shared = Arc::new(Shared {
        poller,
        state: Mutex::new(State {
            active: None,
            channel: Channel::new(listener)?,
        }),
    });
    let worker = NsmWorker {
        shared: Arc::clone(&shared),
        complaints: log::Limited::new(MOST_COMPLAINTS),
    };
    Ok((Nsm(shared), worker))
}

fn watch(poller: &Epoll, descriptor: &impl AsRawFd) -> io::Result<()> {
    let events = EpollEvent::new(EventSet::IN | EventSet::EDGE_TRIGGERED, 0);
    poller.ctl(ControlOperation::Add, descriptor.as_raw_fd(), events)
}

impl VirtioDevice for Nsm {
    type Running = Running;

    fn device_id(&self) -> u32 {
        VIRTIO_ID_NSM
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn read_config(&self, _offset: u64, _data: &mut [u8]) {}

    fn activate(&mut self, activation: Activation) -> Result<Running, ActivateError> {
        let Activation {
            memory,
            queues,
            interrupt,
            ..
        } = activation;
        let queue = queues
            .into_iter()
            .next()
            .ok_or(ActivateError::Queue { index: 0 })?;
        let mut state = self.0.lock();
        match watch(&self.0.poller, queue.doorbell()) {
            // It is the same doorbell after a reset.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            watched => watched?,
        }
        // Rung for what the driver may have made available before it was watched.
        queue.doorbell().write(1)?;
        let exchanges = Exchanges::new(queue, memory);
        state.active = Some(Active { exchanges, interrupt });
        Ok(Running(()))
    }

    fn reset(&mut self, _running: Running) {
        self.0.lock().active = None;
    }
}

impl Shared {
    /// A thread that panicked leaves a device that is no worse than one whose guest misbehaves.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Does what can be done without waiting.
    fn turn(&mut self, poller: &Epoll) -> Result<(), QueueError> {
        // Also without a guest: what is late is thrown away.
        while let Some((number, response)) = self.channel.receive() {
            if let Some(active) = &mut self.active {
                active.exchanges.finish(number, &response)?;
            }
        }
        // After that, because receiving shows whether the daemon is still there.
        if let Some(connection) = self.channel.accept() {
            // One that cannot be watched is as good as none; the next daemon makes another.
            let _ = watch(poller, connection);
            if let Some(active) = &mut self.active {
                active.exchanges.ask_again();
            }
        }
        match &mut self.active {
            Some(active) => active.exchanges.advance(&mut self.channel),
            None => Ok(()),
        }
    }
}

impl MutEventSubscriber for NsmWorker {
    fn process(&mut self, _events: Events, _ops: &mut EventOps<'_>) {
        let mut state = self.shared.lock();
        // Which of them it is does not matter.
        let _ = self.shared.poller.wait(0, &mut [EpollEvent::default(); BATCH]);
        if let Err(error) = state.turn(&self.shared.poller)
            && let Some(active) = state.active.take()
        {
            self.complaints
                .line(format_args!("nsm: {error}; the device stops until it is reset"));
            active.interrupt.fail_device();
        }
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        let events = Events::new_raw(self.shared.poller.as_raw_fd(), EventSet::IN);
        if let Err(error) = ops.add(events) {
            self.complaints
                .line(format_args!("nsm: cannot be watched: {error}"));
        }
    }
}
