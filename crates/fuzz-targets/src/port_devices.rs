//! A guest that does anything to the ports of serial port and keyboard controller, and to those of nobody:
//!
//! ```text
//! 0 port length        reads so many bytes
//! 1 port bytes…        writes one byte
//! 2 port length bytes… writes so many at once
//! 3                    the interrupt after data is looked after, long after
//! ```

use std::fs::File;
use std::io::Read;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use enclave_vmm::arch::layout::{I8042_PORTS, SERIAL_PORTS};
use enclave_vmm::bus::Bus;
use enclave_vmm::devices::{Console, I8042, Serial};
use rustix::pipe::{PipeFlags, pipe_with};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::virtio_driver::Steps;

/// Registers of the serial port, from its first port on, and of the keyboard controller.
const DATA: u64 = 0;
const INTERRUPT_ENABLE: u64 = 1;
const LINE_CONTROL: u64 = 3;
const MODEM_CONTROL: u64 = 4;
const COMMAND: u64 = 4;
const RESET: u8 = 0xfe;

/// Longer than any interrupt waits.
const LONG: Duration = Duration::from_secs(1);

/// The machine is reset exactly when the keyboard controller is told to, what nobody has reads as ones, an interrupt after data does not
/// wait for ever, and a driver that sets the serial port up prints.
pub(crate) fn check(input: &[u8]) {
    let machine = Machine::new();
    let mut resets = 0;
    Steps::each(input, |kind, steps| {
        let port = port_of(steps.byte()?);
        match kind % 4 {
            0 => machine.read(port, usize::from(steps.byte()? % 9)),
            1 => {
                resets += machine.write(port, &[steps.byte()?]);
            }
            2 => {
                let length = usize::from(steps.byte()? % 9);
                resets += machine.write(port, steps.bytes(length)?);
            }
            _ => {
                let late = Instant::now() + LONG;
                assert_eq!(machine.serial().raise_when_due(late), None);
            }
        }
        Some(())
    });
    assert_eq!(machine.resets.load(Ordering::Relaxed), resets);
    machine.prints();
}

struct Machine {
    ports: Bus,
    serial: Arc<Mutex<Serial>>,
    console: Console,
    output: File,
    resets: Arc<AtomicUsize>,
}

impl Machine {
    fn new() -> Self {
        let (output, pipe) = pipe_with(PipeFlags::NONBLOCK).expect("a pipe");
        let console = Console::new(Some(pipe.into()));
        let line = EventFd::new(EFD_NONBLOCK).expect("an eventfd");
        let serial = Serial::new(line, console.clone()).expect("an eventfd");
        let serial = Arc::new(Mutex::new(serial));
        let resets = Arc::new(AtomicUsize::new(0));
        let told = Arc::clone(&resets);
        let keyboard = I8042::new(move || {
            told.fetch_add(1, Ordering::Relaxed);
        });
        let mut ports = Bus::new("port");
        ports.attach(SERIAL_PORTS, Arc::<Mutex<Serial>>::clone(&serial));
        ports.attach(I8042_PORTS, Arc::new(Mutex::new(keyboard)));
        Self {
            ports,
            serial,
            console,
            output: output.into(),
            resets,
        }
    }

    fn serial(&self) -> std::sync::MutexGuard<'_, Serial> {
        self.serial.lock().expect("nothing panics with it")
    }

    fn read(&self, port: u64, length: usize) {
        let mut data = vec![0x5a; length];
        self.ports.read(port, &mut data);
        let is_somebodys = SERIAL_PORTS.contains(&port) || I8042_PORTS.contains(&port);
        assert!(is_somebodys || data.iter().all(|byte| *byte == 0xff));
    }

    /// How many resets this is.
    fn write(&self, port: u64, data: &[u8]) -> usize {
        self.ports.write(port, data);
        usize::from(port == I8042_PORTS.start + COMMAND && data.first() == Some(&RESET))
    }

    fn prints(mut self) {
        self.console.flush();
        let mut before = Vec::new();
        // Until it is empty, which is an error of a pipe that does not block.
        let _ = self.output.read_to_end(&mut before);
        for (register, value) in [
            (LINE_CONTROL, 3),
            (INTERRUPT_ENABLE, 0),
            (MODEM_CONTROL, 0),
            (DATA, b'o'),
            (DATA, b'k'),
            (DATA, b'\n'),
        ] {
            self.write(SERIAL_PORTS.start + register, &[value]);
        }
        self.console.flush();
        let mut printed = Vec::new();
        let _ = self.output.read_to_end(&mut printed);
        assert!(printed.ends_with(b"ok\n"), "{printed:?}");
    }
}

/// One of the serial port's, the keyboard controller's, or beside them.
fn port_of(choice: u8) -> u64 {
    let near = u64::from(choice & 0xf);
    match choice >> 4 & 3 {
        0 | 1 => SERIAL_PORTS.start + near,
        2 => I8042_PORTS.start + near,
        _ => u64::from(choice) << 4,
    }
}
