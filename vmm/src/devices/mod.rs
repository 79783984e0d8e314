//! The devices of the machine besides virtio: a serial port, the reset line of a keyboard controller, and ports of devices
//! that a PC has and this machine has not.

mod absent;
mod console;
mod i8042;
mod serial;
mod serial_interrupts;

pub use absent::Absent;
pub use console::{Console, ConsoleOutput};
pub use i8042::I8042;
pub use serial::Serial;
pub use serial_interrupts::SerialInterrupts;
