//! When the driver is interrupted for packets of its own that were taken.
//!
//! As a rule nobody waits for that: the driver frees their memory. But an interrupt costs more than the packet did, since the
//! driver leaves the guest twice to read and to write the device's interrupt registers. So it is put off until there is one for
//! received packets, which the driver looks through all its queues for; until as much has come together as would keep a driver from
//! sending that has no room left; and at most for [`LONGEST`].

use std::io;
use std::time::Duration;

use virtio::{ActiveQueue, QueueError};
use vmm_sys_util::timerfd::TimerFd;

/// How long an interrupt is put off.
const LONGEST: Duration = Duration::from_millis(4);

/// How long something is waited for that does not come.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// Descriptors of packets that were taken and that the driver has not been told of, from which on it is told. A packet of Linux has
/// two, or some twenty if its bytes are not copied.
const ENOUGH: usize = 32;

/// An interrupt that may wait.
#[derive(Debug)]
pub(super) struct PutOff {
    descriptors: usize,
    timer: TimerFd,
    /// What the timer is set to, while it runs.
    timer_runs: Option<Duration>,
    time_is_up: bool,
    wait: Duration,
}

impl PutOff {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            descriptors: 0,
            timer: TimerFd::new()?,
            timer_runs: None,
            time_is_up: false,
            wait: LONGEST,
        })
    }

    /// What wakes the device for it.
    pub(super) fn timer(&self) -> &TimerFd {
        &self.timer
    }

    /// The timer has gone off.
    pub(super) fn time_is_up(&mut self) {
        self.timer_runs = None;
        self.time_is_up = true;
    }

    /// Packets with so many descriptors were taken.
    pub(super) fn add(&mut self, descriptors: usize) {
        self.descriptors += descriptors;
        if descriptors > 0 {
            self.wait = LONGEST;
        }
    }

    /// Whether the driver is to be interrupted now, for what it has received or for what was taken of it, whose interrupt
    /// this is.
    ///
    /// # Errors
    /// If a queue is unusable.
    pub(super) fn is_interrupt_wanted(
        &mut self,
        receive: &mut ActiveQueue,
        transmit: &mut ActiveQueue,
    ) -> Result<bool, QueueError> {
        let for_received = receive.needs_interrupt()?;
        if !for_received && !self.is_due() {
            return Ok(false);
        }
        self.descriptors = 0;
        Ok(transmit.needs_interrupt()? || for_received)
    }

    /// Whether the driver is to be told now.
    fn is_due(&self) -> bool {
        self.descriptors >= ENOUGH || (self.time_is_up && self.descriptors > 0)
    }

    /// The turn is over. Something is put off if the driver has not been told of all that was taken, or if some is `under_way`.
    ///
    /// # Errors
    /// If the timer cannot be set.
    pub(super) fn end_turn(&mut self, under_way: bool) -> io::Result<()> {
        if self.time_is_up {
            // What did not come in this time takes longer.
            self.wait = (self.wait * 2).min(LONGEST_WAIT);
            self.time_is_up = false;
        }
        let set_early_enough = self.timer_runs.is_some_and(|set| set <= self.wait);
        if set_early_enough || (self.descriptors == 0 && !under_way) {
            return Ok(());
        }
        self.timer.reset(self.wait, None)?;
        self.timer_runs = Some(self.wait);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_due_when_there_is_enough_or_the_time_is_up() {
        let mut interrupt = PutOff::new().unwrap();
        interrupt.add(ENOUGH - 1);
        assert!(!interrupt.is_due());
        interrupt.add(1);
        assert!(interrupt.is_due());
        interrupt.descriptors = 0;
        assert!(!interrupt.is_due());

        interrupt.add(1);
        interrupt.end_turn(false).unwrap();
        assert!(interrupt.timer.is_armed().unwrap());
        assert!(!interrupt.is_due());
        interrupt.time_is_up();
        assert!(interrupt.is_due());
    }

    #[test]
    fn without_anything_to_wait_for_no_timer_runs() {
        let mut interrupt = PutOff::new().unwrap();
        interrupt.end_turn(false).unwrap();
        assert!(!interrupt.timer.is_armed().unwrap());
    }

    #[test]
    fn what_does_not_come_is_looked_for_less_and_less_often() {
        let mut interrupt = PutOff::new().unwrap();
        for _ in 0..20 {
            interrupt.end_turn(true).unwrap();
            interrupt.time_is_up();
        }
        interrupt.end_turn(true).unwrap();
        assert_eq!(interrupt.timer_runs, Some(LONGEST_WAIT));
        interrupt.add(2);
        interrupt.end_turn(true).unwrap();
        assert_eq!(interrupt.timer_runs, Some(LONGEST));
    }
}
