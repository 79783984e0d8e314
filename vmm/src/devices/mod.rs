//! The devices of the machine besides virtio: a serial port and the reset line of a keyboard controller.

mod absent;
mod i8042;
mod serial;

pub use absent::Absent;
pub use i8042::I8042;
pub use serial::{Console, ConsoleOutput, Serial};
