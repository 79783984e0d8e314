//! The device while its driver is ready: queues, host streams, and the turns in which it moves bytes between them.

use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{fmt, io};

use virtio::{Activation, ActiveQueue, GuestMemory, Interrupt, QueueError};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};
use vmm_sys_util::timerfd::TimerFd;

use super::Endpoints;
use super::host::Host;
use super::poller::{Token, decode};
use super::receive::Receiver;
use super::transmit::Transmitter;
use crate::vsock::halves::{News, Turn, TurnError};
use crate::vsock::put_off::PutOff;

/// An active device.
pub struct Active {
    memory: Arc<GuestMemory>,
    interrupt: Interrupt,
    receiver: Receiver,
    transmitter: Transmitter,
    /// Nothing is ever sent on the event queue: the CID does not change while a guest runs. Its buffers stay there.
    _events: ActiveQueue,
    host: Host,
    endpoints: Arc<Endpoints>,
    /// The interrupt for packets that the guest has sent.
    put_off: PutOff,
    timer: TimerFd,
    /// What the timer is set to.
    timer_set: Option<Instant>,
    /// Written when a turn leaves work behind, so that others get theirs before the next.
    again: EventFd,
}

impl Active {
    /// Takes over the queues and watches what can wake the device.
    pub(super) fn new(activation: Activation, endpoints: Arc<Endpoints>) -> io::Result<Self> {
        let [receive, transmit, events] = <[ActiveQueue; 3]>::try_from(activation.queues)
            .map_err(|queues| io::Error::other(format!("vsock has three queues, not {}", queues.len())))?;
        let active = Self {
            memory: activation.memory,
            interrupt: activation.interrupt,
            receiver: Receiver::new(receive),
            transmitter: Transmitter::new(transmit),
            _events: events,
            host: Host::new(Arc::clone(&endpoints)),
            put_off: PutOff::new()?,
            timer: TimerFd::new()?,
            timer_set: None,
            again: EventFd::new(EFD_NONBLOCK)?,
            endpoints,
        };
        active.watch()
    }

    /// If anything cannot be watched, dropping `self` undoes the rest.
    fn watch(mut self) -> io::Result<Self> {
        let poller = &self.endpoints.poller;
        poller.watch(self.receiver.queue().doorbell(), Token::ReceiveDoorbell)?;
        poller.watch(self.transmitter.queue().doorbell(), Token::TransmitDoorbell)?;
        poller.watch(&self.endpoints.listener, Token::Listener)?;
        poller.watch(&self.timer, Token::Timer)?;
        poller.watch(self.put_off.timer(), Token::PutOff)?;
        poller.watch(&self.again, Token::Again)?;
        // The first turn looks at queues and listener, whatever happened before.
        self.again.write(1)?;
        Ok(self)
    }

    fn take_turn(&mut self, news: News<'_>) -> Result<(), QueueError> {
        let now = Instant::now();
        self.host.set_time(now);
        self.take_events(news);
        if self.host.next_deadline().is_some_and(|deadline| deadline <= now) {
            self.host.expire();
        }
        self.host.accept();
        let more_to_transmit = self.transmitter.run(&self.memory, &mut self.host)?;
        let more_to_receive = self.receiver.run(&self.memory, &mut self.host)?;
        self.interrupt_driver()?;
        // Asked last: what this turn has ended makes room for those who wait.
        let more_to_accept = self.host.has_more_to_accept();
        if more_to_accept || more_to_transmit || more_to_receive {
            // Refused only when the counter is full, and then the event is pending.
            let _ = self.again.write(1);
        }
        self.set_timer(now);
        Ok(())
    }

    /// Streams and clients are watched in turns only, so those of news that may be old are.
    fn take_events(&mut self, news: News<'_>) {
        for (token, what) in news.events.iter().filter_map(decode) {
            match token {
                Token::Listener => self.host.listener_event(),
                Token::ReceiveDoorbell => self.receiver.wake(),
                Token::TransmitDoorbell => self.transmitter.wake(),
                Token::Timer => self.timer_set = None,
                Token::PutOff => self.put_off.time_is_up(),
                Token::Again => {}
                Token::Client(_) | Token::Stream(_) if news.may_be_old => {}
                Token::Client(number) => self.host.client_event(number),
                Token::Stream(tag) => self.host.stream_event(tag, what),
            }
        }
    }

    /// Both queues share one line: one interrupt for the whole turn.
    fn interrupt_driver(&mut self) -> Result<(), QueueError> {
        self.put_off.add(self.transmitter.take_count());
        let (receive, transmit) = (self.receiver.queue(), self.transmitter.queue());
        if self.put_off.is_interrupt_wanted(receive, transmit)? {
            self.interrupt.signal_used();
        }
        if let Err(error) = self.put_off.end_turn(false) {
            self.endpoints
                .complaints
                .line(format_args!("vsock: cannot set a timer: {error}"));
        }
        Ok(())
    }

    /// The timer is only ever set to something earlier: one that goes off too early costs a turn, setting it costs a system
    /// call for every connection.
    fn set_timer(&mut self, now: Instant) {
        let Some(deadline) = self.host.next_deadline() else {
            return;
        };
        if self.timer_set.is_some_and(|set| set <= deadline) {
            return;
        }
        let wait = deadline
            .saturating_duration_since(now)
            .max(Duration::from_millis(1));
        match self.timer.reset(wait, None) {
            Ok(()) => self.timer_set = Some(deadline),
            Err(error) => self
                .endpoints
                .complaints
                .line(format_args!("vsock: cannot set a timer: {error}")),
        }
    }
}

impl Turn for Active {
    /// Takes a batch of events, then moves packets both ways.
    fn run(&mut self, news: News<'_>) -> Result<(), TurnError> {
        Ok(self.take_turn(news)?)
    }
}

/// Closing a descriptor ends its being watched; those that outlive the active device have to be forgotten.
impl Drop for Active {
    fn drop(&mut self) {
        let poller = &self.endpoints.poller;
        poller.forget(self.receiver.queue().doorbell());
        poller.forget(self.transmitter.queue().doorbell());
        poller.forget(&self.endpoints.listener);
    }
}

impl fmt::Debug for Active {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Active")
            .field("host", &self.host)
            .finish_non_exhaustive()
    }
}
