//! The 16550 at COM1 and where its output goes.
//!
//! The registers are vm-superio's. Output of a debug-mode enclave goes to a pipe that the daemon drains; of any other
//! it is dropped, but the port is there, because a guest with `console=ttyS0` waits for it. The pipe never blocks the
//! guest: what does not fit is lost, as on a real line that nobody reads.
//!
//! Linux writes the console byte by byte. [`Console`] collects a line before it makes a system call; the device thread
//! calls [`Console::flush`] for what stays behind, a prompt for instance.

use std::{
    fs::File,
    io::{self, Write},
    sync::{Arc, Mutex, PoisonError},
};

use vm_superio::{Trigger, serial::NoEvents};
use vmm_sys_util::eventfd::EventFd;

use crate::bus::ExclusiveDevice;

/// Bytes collected before they are written even without an end of line.
const LINE: usize = 512;

/// A console that collects lines. Clones share one buffer.
#[derive(Debug, Clone)]
pub struct Console(Arc<Mutex<ConsoleOutput>>);

/// The destination and what waits for it.
#[derive(Debug)]
pub struct ConsoleOutput {
    pipe: Option<File>,
    pending: Vec<u8>,
    lost: u64,
}

impl Console {
    /// A console that writes to the non-blocking `pipe`, or drops everything.
    pub fn new(pipe: Option<File>) -> Self {
        Self(Arc::new(Mutex::new(ConsoleOutput {
            pipe,
            pending: Vec::new(),
            lost: 0,
        })))
    }

    /// Writes what has been collected.
    pub fn flush(&self) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .write_pending();
    }

    /// Bytes that the pipe did not take.
    pub fn lost(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).lost
    }
}

impl ConsoleOutput {
    fn take(&mut self, bytes: &[u8]) {
        if self.pipe.is_none() {
            return;
        }
        self.pending.extend_from_slice(bytes);
        if self.pending.len() >= LINE || self.pending.last() == Some(&b'\n') {
            self.write_pending();
        }
    }

    fn write_pending(&mut self) {
        if let Some(pipe) = &mut self.pipe
            && !self.pending.is_empty()
        {
            let written = pipe.write(&self.pending).unwrap_or(0);
            self.lost += (self.pending.len() - written) as u64;
            self.pending.clear();
        }
    }
}

impl Write for Console {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take(bytes);
        Ok(bytes.len())
    }

    /// The device calls this after every byte; the point of collecting is not to.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

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
    use std::{io::Read, os::fd::OwnedFd};

    use rustix::pipe::{PipeFlags, pipe_with};

    use super::*;

    fn pipe() -> (File, File) {
        let (reader, writer): (OwnedFd, OwnedFd) =
            pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC).unwrap();
        (reader.into(), writer.into())
    }

    fn print(serial: &mut Serial, text: &[u8]) {
        for byte in text {
            serial.write(0, &[*byte]);
        }
    }

    #[test]
    fn a_line_arrives_whole_and_a_prompt_after_a_flush() {
        let (mut reader, writer) = pipe();
        let console = Console::new(Some(writer));
        let mut serial = Serial::new(EventFd::new(0).unwrap(), console.clone());
        let mut text = [0; 64];

        print(&mut serial, b"hello\n# ");
        let length = reader.read(&mut text).unwrap();
        assert_eq!(&text[..length], b"hello\n");

        console.flush();
        let length = reader.read(&mut text).unwrap();
        assert_eq!(&text[..length], b"# ");
    }

    #[test]
    fn a_full_pipe_loses_bytes_and_never_blocks() {
        let (_reader, writer) = pipe();
        let console = Console::new(Some(writer));
        let mut serial = Serial::new(EventFd::new(0).unwrap(), console.clone());

        for _ in 0..100_000 {
            print(&mut serial, b"0123456789\n");
        }

        assert!(console.lost() > 0);
    }

    #[test]
    fn the_transmitter_is_always_ready_even_when_output_is_dropped() {
        let mut serial = Serial::new(EventFd::new(0).unwrap(), Console::new(None));
        let mut status = [0];

        print(&mut serial, b"dropped\n");
        serial.read(5, &mut status);

        assert_eq!(status[0] & 0x60, 0x60);
    }
}
