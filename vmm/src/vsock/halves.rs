//! The two halves of a vsock device, whatever backend is behind it.
//!
//! [`Vsock`] is activated and reset by its transport on vCPU threads, [`VsockWorker`] takes the *turns* on a thread of its own:
//! something that the backend waits for wakes it, and it does what there is to do, within bounds and without waiting. So however
//! much comes and goes, the security module and the serial port are served, and a packet waits for nothing but packets.
//! Between the two is the active device in a mutex. A turn holds it for some megabytes of copying at most, or to close all sockets; a vCPU takes it to
//! activate or to reset the device and for nothing else. No thread waits for another while it holds it. When a reset returns, guest
//! memory is not touched any more and the worker finds nothing to do. What was buffered of the guest's connections is gone with
//! the Unix backend; the kernel keeps its sockets until the guest, asked about them, says that it does not know them.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};
use virtio::{ActivateError, Activation, Interrupt, VirtioDevice};
use virtio_bindings::virtio_ids::VIRTIO_ID_VSOCK;
use vmm_sys_util::epoll::{Epoll, EpollEvent};

use super::{ConfigSpace, QUEUE_SIZES};
use crate::log;

/// What carries a guest's packets, and outlives a reset.
pub trait Backend: Send + Sync + 'static {
    /// The backend while the guest's driver is ready. Dropping it is the reset: when that returns, nothing touches guest memory
    /// any more.
    type Active: Turn + Send;

    /// Takes over the queues, and has the first turn taken soon.
    ///
    /// # Errors
    /// If something cannot be made or watched. Nothing stays then.
    fn activate(self: &Arc<Self>, activation: Activation) -> io::Result<Self::Active>;

    /// What is waited for. All interests are edge-triggered.
    fn epoll(&self) -> &Epoll;

    /// Where faults of the guest or the host are told.
    fn complaints(&self) -> &log::Limited;
}

/// What an active backend does when it is woken.
pub trait Turn {
    /// Moves packets both ways.
    ///
    /// # Errors
    /// If it cannot go on before it is reset.
    fn run(&mut self, news: News<'_>) -> Result<(), TurnError>;
}

/// What has woken a device.
#[derive(Clone, Copy, Debug)]
pub struct News<'a> {
    /// What has happened, of the backend's epoll instance.
    pub events: &'a [EpollEvent],
    /// The device was reset while they were waited for: some may be about what it had before.
    pub may_be_old: bool,
}

/// Events taken at once. What is not taken stays with epoll.
const BATCH: usize = 64;

/// Why an active device stops.
#[derive(Debug, thiserror::Error)]
pub enum TurnError {
    /// The guest's queues are unusable.
    #[error(transparent)]
    Queue(#[from] virtio::QueueError),
    /// The guest has offered a buffer again that it has not got back.
    #[error("the driver has broken its virtqueue: it offers a buffer twice")]
    OfferedTwice,
    /// The parent's kernel has answered with something that cannot be.
    #[error("vhost-vsock has broken its virtqueue")]
    Vhost,
    /// Does not happen: shadow rings are as large as they have to be.
    #[error("the VMM has made a mistake with its own rings: {0}")]
    Shadow(#[from] virtio::OutsideOfRing),
}

/// The device half: what the transport activates and resets.
#[derive(Debug)]
pub struct Vsock<B: Backend> {
    config_space: ConfigSpace,
    shared: Arc<Shared<B>>,
}

/// The worker half: what the device's thread runs.
#[derive(Debug)]
pub struct VsockWorker<B: Backend> {
    shared: Arc<Shared<B>>,
}

/// Proof that the device is active: made by activation, spent by reset.
#[derive(Debug)]
pub struct Running(());

struct Shared<B: Backend> {
    backend: Arc<B>,
    /// How often the device was activated.
    activations: AtomicU64,
    active: Mutex<Option<ActiveDevice<B::Active>>>,
}

struct ActiveDevice<A> {
    device: A,
    interrupt: Interrupt,
}

impl<B: Backend> Vsock<B> {
    /// Both halves of an inactive device.
    pub(super) fn new(guest_cid: u32, backend: B) -> (Self, VsockWorker<B>) {
        let shared = Arc::new(Shared {
            backend: Arc::new(backend),
            activations: AtomicU64::new(0),
            active: Mutex::new(None),
        });
        let device = Self {
            config_space: ConfigSpace::new(guest_cid),
            shared: Arc::clone(&shared),
        };
        (device, VsockWorker { shared })
    }

    /// What carries its packets.
    #[cfg(test)]
    pub(super) fn backend(&self) -> &B {
        &self.shared.backend
    }
}

impl<B: Backend> VirtioDevice for Vsock<B> {
    type Running = Running;

    fn device_id(&self) -> u32 {
        VIRTIO_ID_VSOCK
    }

    /// Streams are what there is without any feature bit (virtio 1.2, 5.10.3).
    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        self.config_space.read(offset, data);
    }

    fn activate(&mut self, activation: Activation) -> Result<Running, ActivateError> {
        let interrupt = activation.interrupt.clone();
        // Under the lock from the first watched descriptor on: the worker throws away events of a device that is not there.
        let mut active = self.shared.lock();
        self.shared.activations.fetch_add(1, Ordering::SeqCst);
        let device = self.shared.backend.activate(activation)?;
        *active = Some(ActiveDevice { device, interrupt });
        Ok(Running(()))
    }

    fn reset(&mut self, _running: Running) {
        // Dropped outside the lock: closing thousands of sockets takes a while.
        let active = self.shared.lock().take();
        drop(active);
    }
}

impl<B: Backend> Shared<B> {
    /// A thread that panicked in a turn leaves a device that is no worse than one whose guest misbehaves.
    fn lock(&self) -> MutexGuard<'_, Option<ActiveDevice<B::Active>>> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<B: Backend> std::fmt::Debug for Shared<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl<B: Backend> VsockWorker<B> {
    /// Serves the device.
    ///
    /// # Errors
    /// If waiting fails; it does not return otherwise.
    pub fn serve(&self) -> io::Error {
        loop {
            if let Err(error) = self.turn(-1) {
                return error;
            }
        }
    }

    /// Waits until there is something to do, or for so many milliseconds, and does it.
    fn turn(&self, timeout: i32) -> io::Result<()> {
        let activations = self.shared.activations.load(Ordering::SeqCst);
        let mut events = [EpollEvent::default(); BATCH];
        let taken = match self.shared.backend.epoll().wait(timeout, &mut events) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            taken => taken?,
        };
        let mut active = self.shared.lock();
        // Else these were events of a device that has just been reset.
        if let Some(running) = active.as_mut() {
            let news = News {
                events: events.get(..taken).unwrap_or_default(),
                may_be_old: activations != self.shared.activations.load(Ordering::SeqCst),
            };
            if let Err(error) = running.device.run(news) {
                self.stop(&mut active, &error);
            }
        }
        Ok(())
    }

    fn stop(&self, active: &mut Option<ActiveDevice<B::Active>>, error: &TurnError) {
        let complaints = self.shared.backend.complaints();
        complaints.line(format_args!("vsock: {error}; the device stops until it is reset"));
        if let Some(stopped) = active.take() {
            drop(stopped.device);
            stopped.interrupt.fail_device();
        }
    }
}

/// Where no thread is to be spared for it, such as in tests: a turn whenever there is something to do.
impl<B: Backend> MutEventSubscriber for VsockWorker<B> {
    fn process(&mut self, _events: Events, _ops: &mut EventOps<'_>) {
        if let Err(error) = self.turn(0) {
            let complaints = self.shared.backend.complaints();
            complaints.line(format_args!("vsock: cannot be waited for: {error}"));
        }
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        let events = Events::new_raw(self.shared.backend.epoll().as_raw_fd(), EventSet::IN);
        if let Err(error) = ops.add(events) {
            let complaints = self.shared.backend.complaints();
            complaints.line(format_args!("vsock: cannot be watched: {error}"));
        }
    }
}
