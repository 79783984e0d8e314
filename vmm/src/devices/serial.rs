//! The 16550 at COM1: vm-superio's registers in front of a [`Console`].
//!
//! Also of an enclave whose output is dropped the port is there, because a guest with `console=ttyS0` waits for it.

use std::io;

use vm_superio::{Trigger, serial::NoEvents};
use vmm_sys_util::eventfd::EventFd;

use super::Console;
use crate::bus::ExclusiveDevice;

/// An interrupt line of KVM, raised through an irqfd.
#[derive(Debug)]
struct InterruptLine(EventFd);

impl Trigger for InterruptLine {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        self.0.write(1)
    }
}

/// The port.
#[derive(Debug)]
pub struct Serial(vm_superio::Serial<InterruptLine, NoEvents, Console>);

impl Serial {
    /// A port that raises `interrupt` and writes to `console`.
    pub fn new(interrupt: EventFd, console: Console) -> Self {
        Self(vm_superio::Serial::new(InterruptLine(interrupt), console))
    }
}

impl ExclusiveDevice for Serial {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if let (Some(first), Ok(offset)) = (data.first_mut(), u8::try_from(offset)) {
            *first = self.0.read(offset);
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        if let (Some(first), Ok(offset)) = (data.first(), u8::try_from(offset)) {
            // The only error is that of raising the interrupt; a guest that misses one polls or stalls by itself.
            drop(self.0.write(offset, *first));
        }
    }
}

#[cfg(test)]
mod tests {
    use vmm_sys_util::eventfd::EFD_NONBLOCK;

    use super::*;

    /// Registers: interrupt enable; interrupt identification when read; line status.
    const IER: u64 = 1;
    const IIR: u64 = 2;
    const LSR: u64 = 5;

    /// "The transmitter is empty", as an interrupt to enable and as an interrupt that is pending.
    const ENABLE_TRANSMITTER: u8 = 2;
    const TRANSMITTER_EMPTY: u8 = 2;

    fn port() -> (Serial, EventFd) {
        let interrupt = EventFd::new(EFD_NONBLOCK).unwrap();
        let line = interrupt.try_clone().unwrap();
        (Serial::new(interrupt, Console::new(None)), line)
    }

    fn read(serial: &mut Serial, register: u64) -> u8 {
        let mut value = [0xff];
        serial.read(register, &mut value);
        value[0]
    }

    /// How often the line was raised since the last call.
    fn raised(line: &EventFd) -> u64 {
        line.read().unwrap_or(0)
    }

    #[test]
    fn the_transmitter_is_always_ready_even_when_output_is_dropped() {
        let (mut serial, _) = port();

        serial.write(0, b"x");

        assert_eq!(read(&mut serial, LSR) & 0x60, 0x60);
    }

    /// Linux sends its next bytes from the interrupt handler, so without these interrupts a console stops.
    #[test]
    fn each_byte_raises_the_interrupt_that_the_driver_has_enabled() {
        let (mut serial, line) = port();
        serial.write(0, b"x");
        assert_eq!(raised(&line), 0, "nothing is enabled yet");

        serial.write(IER, &[ENABLE_TRANSMITTER]);
        assert_eq!(raised(&line), 1, "the transmitter is empty already");
        assert_eq!(read(&mut serial, IIR) & 0xf, TRANSMITTER_EMPTY);
        assert_eq!(read(&mut serial, IIR) & 1, 1, "reading has acknowledged it");

        for _ in 0..3 {
            serial.write(0, b"x");
            assert_eq!(raised(&line), 1);
            assert_eq!(read(&mut serial, IIR) & 0xf, TRANSMITTER_EMPTY);
        }

        serial.write(IER, &[0]);
        serial.write(0, b"x");
        assert_eq!(raised(&line), 0, "not enabled any more");
    }
}
