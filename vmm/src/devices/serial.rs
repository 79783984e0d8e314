//! The 16550 at COM1: vm-superio's registers in front of a [`Console`].
//!
//! Also of an enclave whose output is dropped the port is there, because a guest with `console=ttyS0` waits for it.
//!
//! # A line that is never busy would be too fast
//!
//! An interrupt handler that sends what a program prints writes 16 bytes and waits for the interrupt that says that they are
//! sent. A real line takes its time over them. If this one were done at once, the handler would find the next interrupt
//! before it has returned from the first, and go on: a program that prints without end on one processor would keep another
//! one inside the handler for seconds, with interrupts off, and whatever should run there would not. So the interrupt
//! after data waits as long as the guest has taken to write the data: printing takes half of a processor at most. What a
//! guest prints without interrupts, as its kernel does, is not slowed at all.

use std::{
    convert::Infallible,
    io,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use vm_superio::{Trigger, serial::NoEvents};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::Console;
use crate::bus::ExclusiveDevice;

/// Registers by their offset.
const DATA: u8 = 0;
const INTERRUPT_IDENTIFICATION: u8 = 2;

/// The interrupt identification of a port with a FIFO that has no interrupt to tell of.
const NO_INTERRUPT: u8 = 0xc1;

/// The least and the most that an interrupt after data waits.
const SHORTEST_PAUSE: Duration = Duration::from_micros(50);
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

/// What the port's registers use as interrupt line: notes that they want to raise it. [`Serial`] decides when.
#[derive(Debug, Default)]
struct InterruptRequest(AtomicBool);

impl Trigger for InterruptRequest {
    type E = Infallible;

    fn trigger(&self) -> Result<(), Infallible> {
        // Only ever used under the lock of the port.
        self.0.store(true, Ordering::Relaxed);
        Ok(())
    }
}

/// The port.
#[derive(Debug)]
pub struct Serial {
    registers: vm_superio::Serial<InterruptRequest, NoEvents, Console>,
    /// Raises the line.
    line: EventFd,
    /// Written when a burst begins, for the thread that calls [`Serial::raise_when_due`].
    burst_begins: EventFd,
    burst: Option<Burst>,
}

/// Data that the guest has written since its last "transmitter empty" interrupt. The next one waits.
#[derive(Debug, Clone, Copy)]
struct Burst {
    first_byte: Instant,
    last_byte: Instant,
}

impl Serial {
    /// A port that raises `line` and writes to `console`.
    ///
    /// # Errors
    /// There is no eventfd to be had.
    pub fn new(line: EventFd, console: Console) -> io::Result<Self> {
        Ok(Self {
            registers: vm_superio::Serial::new(InterruptRequest::default(), console),
            line,
            burst_begins: EventFd::new(EFD_NONBLOCK)?,
            burst: None,
        })
    }

    /// Readable when a burst has begun.
    ///
    /// # Errors
    /// There is no descriptor to be had.
    pub fn burst_begins(&self) -> io::Result<EventFd> {
        self.burst_begins.try_clone()
    }

    /// Raises the interrupt that follows a burst, or says how much longer it has to wait: as long as the burst itself has
    /// taken since it began.
    pub fn raise_when_due(&mut self, now: Instant) -> Option<Duration> {
        let burst = self.burst?;
        let took = burst.last_byte.saturating_duration_since(burst.first_byte);
        let due = burst.last_byte + took.clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
        let left = due.saturating_duration_since(now);
        if !left.is_zero() {
            return Some(left);
        }
        self.burst = None;
        self.raise();
        None
    }

    fn raise(&self) {
        // Refused only when the counter is full, and then the interrupt is pending.
        let _ = self.line.write(1);
    }

    /// An interrupt that a byte has asked for begins a burst; any other is raised at once, unless it is one with that.
    fn serve_request(&mut self, for_data: bool) {
        if self.burst.is_some() || !self.registers.interrupt_evt().0.swap(false, Ordering::Relaxed) {
            return;
        }
        if !for_data {
            return self.raise();
        }
        let now = Instant::now();
        self.burst = Some(Burst {
            first_byte: now,
            last_byte: now,
        });
        let _ = self.burst_begins.write(1);
    }
}

impl ExclusiveDevice for Serial {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if let (Some(first), Ok(offset)) = (data.first_mut(), u8::try_from(offset)) {
            *first = if self.burst.is_some() && offset == INTERRUPT_IDENTIFICATION {
                NO_INTERRUPT
            } else {
                self.registers.read(offset)
            };
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        if let (Some(first), Ok(offset)) = (data.first(), u8::try_from(offset)) {
            if let Some(burst) = self.burst.as_mut().filter(|_| offset == DATA) {
                burst.last_byte = Instant::now();
            }
            // Neither the console nor the interrupt request fails.
            drop(self.registers.write(offset, *first));
            self.serve_request(offset == DATA);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn print(serial: &mut Serial, text: &[u8]) {
        for byte in text {
            serial.write(0, &[*byte]);
        }
    }

    #[test]
    fn the_transmitter_is_always_ready_even_when_output_is_dropped() {
        let line = EventFd::new(EFD_NONBLOCK).unwrap();
        let mut serial = Serial::new(line.try_clone().unwrap(), Console::new(None)).unwrap();
        let mut status = [0];

        print(&mut serial, b"dropped\n");
        serial.read(5, &mut status);

        assert_eq!(status[0] & 0x60, 0x60);
        assert!(line.read().is_err(), "no interrupt is enabled");
    }

    const INTERRUPT_ENABLE: u64 = 1;
    const TRANSMITTER_EMPTY: u8 = 0xc2;

    fn identification(serial: &mut Serial) -> u8 {
        let mut value = [0];
        serial.read(INTERRUPT_IDENTIFICATION.into(), &mut value);
        value[0]
    }

    /// A port whose driver has enabled the "transmitter empty" interrupt and served the first one.
    fn enabled() -> (Serial, EventFd) {
        let line = EventFd::new(EFD_NONBLOCK).unwrap();
        let mut serial = Serial::new(line.try_clone().unwrap(), Console::new(None)).unwrap();
        serial.write(INTERRUPT_ENABLE, &[2]);
        assert_eq!(line.read().unwrap(), 1, "at once: there is nothing to send");
        assert_eq!(identification(&mut serial), TRANSMITTER_EMPTY);
        assert_eq!(identification(&mut serial), NO_INTERRUPT);
        (serial, line)
    }

    #[test]
    fn the_interrupt_after_data_comes_once_and_only_when_it_is_due() {
        let (mut serial, line) = enabled();

        print(&mut serial, &[b'x'; 16]);

        assert!(line.read().is_err(), "not yet");
        assert_eq!(identification(&mut serial), NO_INTERRUPT);
        assert_eq!(
            serial.burst_begins().unwrap().read().unwrap(),
            1,
            "once for all bytes"
        );
        // Longer than the burst took and than the longest pause: it is due.
        assert_eq!(serial.raise_when_due(Instant::now() + LONGEST_PAUSE), None);
        assert_eq!(line.read().unwrap(), 1);
        assert_eq!(identification(&mut serial), TRANSMITTER_EMPTY);
        assert_eq!(serial.raise_when_due(Instant::now()), None);
        assert!(line.read().is_err(), "nothing was written since");
    }

    #[test]
    fn the_interrupt_waits_as_long_as_the_burst_took_within_limits() {
        let (mut serial, _line) = enabled();
        print(&mut serial, b"x");
        let start = serial.burst.unwrap().first_byte;
        let wait_after = |serial: &mut Serial, took: Duration| {
            let last_byte = start + took;
            serial.burst = Some(Burst {
                first_byte: start,
                last_byte,
            });
            serial.raise_when_due(last_byte)
        };

        assert_eq!(wait_after(&mut serial, Duration::ZERO), Some(SHORTEST_PAUSE));
        let some = Duration::from_millis(3);
        assert_eq!(wait_after(&mut serial, some), Some(some));
        assert_eq!(
            wait_after(&mut serial, Duration::from_secs(9)),
            Some(LONGEST_PAUSE)
        );
    }

    #[test]
    fn enabling_the_interrupt_while_data_is_under_way_raises_none_of_its_own() {
        let (mut serial, line) = enabled();
        print(&mut serial, b"data");

        serial.write(INTERRUPT_ENABLE, &[0]);
        serial.write(INTERRUPT_ENABLE, &[2]);

        assert!(line.read().is_err());
        assert_eq!(serial.raise_when_due(Instant::now() + LONGEST_PAUSE), None);
        assert_eq!(line.read().unwrap(), 1);
    }
}
