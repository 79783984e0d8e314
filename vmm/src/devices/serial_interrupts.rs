//! The part of the serial port that runs on the device thread: raises the interrupts that wait (see [`Serial`]).

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};
use vmm_sys_util::{eventfd::EventFd, timerfd::TimerFd};

use super::Serial;
use crate::log;

/// Waits for bursts to begin and for their interrupts to be due.
#[derive(Debug)]
pub struct SerialInterrupts {
    serial: Arc<Mutex<Serial>>,
    burst_begins: EventFd,
    timer: TimerFd,
}

impl SerialInterrupts {
    /// For `serial`.
    ///
    /// # Errors
    /// There is no descriptor to be had.
    pub fn new(serial: Arc<Mutex<Serial>>) -> io::Result<Self> {
        let burst_begins = serial
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .burst_begins()?;
        Ok(Self {
            serial,
            burst_begins,
            timer: TimerFd::new()?,
        })
    }

    fn wait(&mut self, time: Duration) {
        if let Err(error) = self.timer.reset(time, None) {
            // A guest whose interrupt does not come polls; its console is slow.
            log::line(format_args!("the serial port's timer cannot be set: {error}"));
        }
    }
}

impl MutEventSubscriber for SerialInterrupts {
    fn process(&mut self, _: Events, _: &mut EventOps<'_>) {
        // Both are edge-triggered and need not be read.
        let due = self
            .serial
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .raise_when_due(Instant::now());
        if let Some(time) = due {
            self.wait(time);
        }
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        let events = EventSet::IN | EventSet::EDGE_TRIGGERED;
        for watched in [
            ops.add(Events::new(&self.burst_begins, events)),
            ops.add(Events::new(&self.timer, events)),
        ] {
            if let Err(error) = watched {
                log::line(format_args!("the serial port is not watched: {error}"));
            }
        }
    }
}
