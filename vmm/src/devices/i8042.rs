//! The keyboard controller (Intel 8042), of which a guest needs one thing: `reboot=k` resets the machine by command
//! 0xFE. The few other commands answer as a controller without devices, so that Linux's driver probes it in no time
//! instead of waiting out its time limits (drivers/input/serio/i8042.c).

use crate::bus::ExclusiveDevice;

const DATA: u64 = 0;
const COMMAND: u64 = 4;

const STATUS_OUTPUT_FULL: u8 = 1 << 0;
const STATUS_SYSTEM: u8 = 1 << 2;

const READ_CONTROL: u8 = 0x20;
const WRITE_CONTROL: u8 = 0x60;
const TEST_SECOND_PORT: u8 = 0xa9;
const SELF_TEST: u8 = 0xaa;
const TEST_FIRST_PORT: u8 = 0xab;
const WRITE_OUTPUT_PORT: u8 = 0xd1;
const WRITE_FIRST_OUTPUT: u8 = 0xd2;
const WRITE_SECOND_OUTPUT: u8 = 0xd3;
const WRITE_SECOND_PORT: u8 = 0xd4;
const RESET_CPU: u8 = 0xfe;

const SELF_TEST_PASSED: u8 = 0x55;
const PORT_TEST_PASSED: u8 = 0;

/// The controller; `reset` is called when the guest asks for a reset.
#[derive(Debug)]
pub struct I8042<R> {
    reset: R,
    control: u8,
    /// The one byte waiting at the data port.
    output: Option<u8>,
    /// The command whose operand the next write to the data port is.
    awaiting_operand: Option<u8>,
}

impl<R: FnMut() + Send> I8042<R> {
    /// A controller that has passed its power-on test.
    pub fn new(reset: R) -> Self {
        Self {
            reset,
            control: STATUS_SYSTEM,
            output: None,
            awaiting_operand: None,
        }
    }

    fn command(&mut self, command: u8) {
        self.awaiting_operand = None;
        match command {
            RESET_CPU => (self.reset)(),
            READ_CONTROL => self.output = Some(self.control),
            SELF_TEST => self.output = Some(SELF_TEST_PASSED),
            TEST_FIRST_PORT | TEST_SECOND_PORT => self.output = Some(PORT_TEST_PASSED),
            WRITE_CONTROL | WRITE_OUTPUT_PORT | WRITE_FIRST_OUTPUT | WRITE_SECOND_OUTPUT
            | WRITE_SECOND_PORT => {
                self.awaiting_operand = Some(command);
            }
            _ => {}
        }
    }

    fn data(&mut self, value: u8) {
        match self.awaiting_operand.take() {
            Some(WRITE_CONTROL) => self.control = value,
            Some(WRITE_FIRST_OUTPUT | WRITE_SECOND_OUTPUT) => self.output = Some(value),
            // Bytes for a keyboard or mouse: there is none, and none answers.
            _ => {}
        }
    }
}

impl<R: FnMut() + Send> ExclusiveDevice for I8042<R> {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        let value = match offset {
            DATA => self.output.take().unwrap_or(0),
            COMMAND if self.output.is_some() => STATUS_SYSTEM | STATUS_OUTPUT_FULL,
            COMMAND => STATUS_SYSTEM,
            _ => 0xff,
        };
        if let Some(first) = data.first_mut() {
            *first = value;
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        match (offset, data.first()) {
            (DATA, Some(value)) => self.data(*value),
            (COMMAND, Some(command)) => self.command(*command),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    fn read(device: &mut impl ExclusiveDevice, offset: u64) -> u8 {
        let mut data = [0xee];
        device.read(offset, &mut data);
        data[0]
    }

    #[test]
    fn command_fe_resets_and_nothing_else_does() {
        let resets = AtomicU32::new(0);
        let mut device = I8042::new(|| {
            resets.fetch_add(1, Ordering::Relaxed);
        });

        for command in 0..=0xfd {
            device.write(COMMAND, &[command]);
        }
        device.write(DATA, &[RESET_CPU]);
        device.write(1, &[RESET_CPU]);
        assert_eq!(resets.load(Ordering::Relaxed), 0);

        device.write(COMMAND, &[RESET_CPU]);
        assert_eq!(resets.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn linux_probes_it_without_waiting() {
        let mut device = I8042::new(|| {});

        device.write(COMMAND, &[READ_CONTROL]);
        assert_eq!(
            read(&mut device, COMMAND) & STATUS_OUTPUT_FULL,
            STATUS_OUTPUT_FULL
        );
        let control = read(&mut device, DATA);
        device.write(COMMAND, &[WRITE_CONTROL]);
        device.write(DATA, &[control | 0x10]);
        device.write(COMMAND, &[READ_CONTROL]);
        assert_eq!(read(&mut device, DATA), control | 0x10);
        device.write(COMMAND, &[SELF_TEST]);
        assert_eq!(read(&mut device, DATA), SELF_TEST_PASSED);
        assert_eq!(read(&mut device, COMMAND) & STATUS_OUTPUT_FULL, 0);
    }
}
