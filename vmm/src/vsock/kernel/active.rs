//! The device while its driver is ready: shadow rings, and the turns in which they are kept in step with the guest's queues.

use std::fmt;
use std::io;
use std::sync::Arc;

use virtio::{Activation, ActiveQueue, GuestMemory, Interrupt};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::parent::Parent;
use super::receive::Receiver;
use super::transmit::Transmitter;
use super::vhost::Vhost;
use super::{BUFFERS, Endpoints, PACKETS, is_timer};
use crate::vsock::halves::{Backend, News, Turn, TurnError};
use crate::vsock::put_off::PutOff;

/// An active device. vhost runs for as long as it lives.
pub struct Active<V: Vhost> {
    memory: Arc<GuestMemory>,
    interrupt: Interrupt,
    receiver: Receiver,
    transmitter: Transmitter,
    parent: Parent,
    /// Nothing is ever sent on the event queue: the CID does not change while a guest runs. Its buffers stay there.
    _events: ActiveQueue,
    endpoints: Arc<Endpoints<V>>,
    /// The interrupt for packets that the guest has sent.
    put_off: PutOff,
    /// Written when a turn leaves work behind, so that others get theirs before the next.
    again: EventFd,
}

impl<V: Vhost> Active<V> {
    /// Takes over the queues, watches what can wake the device, and starts vhost.
    pub(super) fn new(activation: Activation, endpoints: Arc<Endpoints<V>>) -> io::Result<Self> {
        let [receive, transmit, events] = <[ActiveQueue; 3]>::try_from(activation.queues)
            .map_err(|queues| io::Error::other(format!("vsock has three queues, not {}", queues.len())))?;
        let active = Self {
            memory: activation.memory,
            interrupt: activation.interrupt,
            receiver: Receiver::new(receive, &endpoints.memory, BUFFERS)?,
            transmitter: Transmitter::new(transmit, &endpoints.memory, PACKETS)?,
            parent: Parent::default(),
            _events: events,
            put_off: PutOff::new()?,
            again: EventFd::new(EFD_NONBLOCK)?,
            endpoints,
        };
        active.start()
    }

    /// If anything fails, dropping `self` undoes the rest.
    fn start(mut self) -> io::Result<Self> {
        let endpoints = Arc::clone(&self.endpoints);
        endpoints.watch(self.receiver.queue().doorbell())?;
        endpoints.watch(self.transmitter.queue().doorbell())?;
        endpoints.watch(self.receiver.ring().call())?;
        endpoints.watch(self.transmitter.ring().call())?;
        endpoints.watch(&self.again)?;
        endpoints.watch_timer(self.put_off.timer())?;
        let rings = [
            self.receiver.ring().for_vhost(),
            self.transmitter.ring().for_vhost(),
        ];
        endpoints.vhost.start(rings)?;
        // The first turn looks at the queues, whatever happened before.
        self.again.write(1)?;
        Ok(self)
    }

    /// Both queues share one line: one interrupt for the whole turn.
    fn interrupt_driver(&mut self) -> Result<(), TurnError> {
        self.put_off.add(self.transmitter.take_count());
        let (receive, transmit) = (self.receiver.queue(), self.transmitter.queue());
        if self.put_off.is_interrupt_wanted(receive, transmit)? {
            self.interrupt.signal_used();
        }
        let under_way = self.transmitter.has_outstanding();
        if let Err(error) = self.put_off.end_turn(under_way) {
            let complaints = self.endpoints.complaints();
            complaints.line(format_args!("vsock: cannot set a timer: {error}"));
        }
        Ok(())
    }
}

impl<V: Vhost> Turn for Active<V> {
    /// What has woken the device does not matter, but for the timer: there are four rings to look at, and looking costs less than
    /// asking.
    fn run(&mut self, news: News<'_>) -> Result<(), TurnError> {
        if news.events.iter().any(is_timer) {
            self.put_off.time_is_up();
        }
        let complaints = self.endpoints.complaints();
        let may_call = |port| self.endpoints.may_call(port);
        let more_to_transmit = self
            .transmitter
            .run(&self.memory, &mut self.parent, may_call, complaints)?;
        let more_to_receive = self.receiver.run(&self.memory, &mut self.parent, complaints)?;
        self.interrupt_driver()?;
        if more_to_transmit || more_to_receive {
            // Refused only when the counter is full, and then the event is pending.
            let _ = self.again.write(1);
        }
        Ok(())
    }
}

/// Closing a descriptor ends its being watched; those that outlive the active device have to be forgotten.
impl<V: Vhost> Drop for Active<V> {
    fn drop(&mut self) {
        self.endpoints.vhost.stop();
        self.endpoints.forget(self.receiver.queue().doorbell());
        self.endpoints.forget(self.transmitter.queue().doorbell());
    }
}

impl<V: Vhost> fmt::Debug for Active<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Active")
            .field("receiver", &self.receiver)
            .finish_non_exhaustive()
    }
}
