//! The 16550, which is the console of an enclave in debug mode.

use core::fmt::{self, Write};

use crate::processor::{port_read, port_write};

const DATA: u16 = 0x3f8;
const INTERRUPT_ENABLE: u16 = 0x3f9;
const LINE_CONTROL: u16 = 0x3fb;
const MODEM_CONTROL: u16 = 0x3fc;
const LINE_STATUS: u16 = 0x3fd;
const TRANSMITTER_EMPTY: u8 = 1 << 5;
const EIGHT_BITS: u8 = 3;

/// Prints a line on the console, whatever has been done to the port before.
pub(crate) fn line(text: fmt::Arguments<'_>) {
    port_write(LINE_CONTROL, EIGHT_BITS);
    port_write(INTERRUPT_ENABLE, 0_u8);
    port_write(MODEM_CONTROL, 0_u8);
    // Never fails: see below.
    let _ = writeln!(Serial, "hostile-guest: {text}\r");
}

struct Serial;

impl Write for Serial {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            while port_read::<u8>(LINE_STATUS) & TRANSMITTER_EMPTY == 0 {}
            port_write(DATA, byte);
        }
        Ok(())
    }
}
