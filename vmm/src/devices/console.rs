//! Where the console output of a debug-mode enclave goes: a pipe that the daemon drains. Of any other enclave it is dropped.
//!
//! The pipe never blocks the guest: what does not fit is lost, as on a real line that nobody reads. But it is not lost in
//! silence. As soon as the pipe takes bytes again it gets a line that says how many are missing:
//!
//! ```text
//! [... 1376 bytes of console output lost ...]
//! ```
//!
//! Linux writes the console byte by byte. [`Console`] collects a line before it makes a system call; the device thread
//! calls [`Console::flush`] for what stays behind, a prompt for instance.

use std::{
    fs::File,
    io::{self, Write},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Bytes collected before they are written even without an end of line. With the line about lost bytes they are fewer
/// than `PIPE_BUF`, so that a pipe takes all of them or none.
const LINE: usize = 512;

/// A console that collects lines. Clones share one buffer.
#[derive(Debug, Clone)]
pub struct Console(Arc<Mutex<ConsoleOutput>>);

/// The destination and what waits for it.
#[derive(Debug)]
pub struct ConsoleOutput {
    pipe: Option<File>,
    pending: Vec<u8>,
    /// Bytes that the pipe did not take.
    lost: u64,
    /// Those of them that no line in the output tells of yet.
    untold: u64,
    /// The last byte that the pipe took ended a line.
    at_line_start: bool,
}

impl Console {
    /// A console that writes to the non-blocking `pipe`, or drops everything.
    pub fn new(pipe: Option<File>) -> Self {
        Self(Arc::new(Mutex::new(ConsoleOutput {
            pipe,
            pending: Vec::new(),
            lost: 0,
            untold: 0,
            at_line_start: true,
        })))
    }

    /// Writes what has been collected, and what is to be said of lost bytes.
    pub fn flush(&self) {
        self.lock().write_pending();
    }

    /// Bytes that the pipe did not take.
    pub fn lost(&self) -> u64 {
        self.lock().lost
    }

    fn lock(&self) -> MutexGuard<'_, ConsoleOutput> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
        let Some(pipe) = &mut self.pipe else {
            return;
        };
        let mark = match self.untold {
            0 => String::new(),
            lost => {
                let start = if self.at_line_start { "" } else { "\n" };
                format!("{start}[... {lost} bytes of console output lost ...]\n")
            }
        };
        let output = [mark.as_bytes(), &self.pending].concat();
        if output.is_empty() {
            return;
        }
        let written = pipe.write(&output).unwrap_or(0);
        if written >= mark.len() {
            self.untold = 0;
        }
        if let Some(last) = output.get(..written).and_then(<[u8]>::last) {
            self.at_line_start = *last == b'\n';
        }
        let lost = (output.len() - written.max(mark.len())) as u64;
        self.lost += lost;
        self.untold += lost;
        self.pending.clear();
    }
}

impl Write for Console {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.lock().take(bytes);
        Ok(bytes.len())
    }

    /// The device calls this after every byte; the point of collecting is not to.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Read, os::fd::OwnedFd};

    use proptest::prelude::*;
    use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};

    use super::*;

    /// Reader and writer of a pipe that is full after a page.
    fn pipe() -> (File, File) {
        let (reader, writer): (OwnedFd, OwnedFd) =
            pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC).unwrap();
        fcntl_setpipe_size(&writer, 4096).unwrap();
        (reader.into(), writer.into())
    }

    fn print(console: &mut Console, text: &[u8]) {
        for byte in text {
            console.write_all(&[*byte]).unwrap();
        }
    }

    fn drain(reader: &mut File) -> String {
        let mut text = vec![0; 1 << 16];
        let length = reader.read(&mut text).unwrap_or(0);
        String::from_utf8(text[..length].to_vec()).unwrap()
    }

    #[test]
    fn a_line_arrives_whole_and_a_prompt_after_a_flush() {
        let (mut reader, writer) = pipe();
        let mut console = Console::new(Some(writer));

        print(&mut console, b"hello\n# ");
        assert_eq!(drain(&mut reader), "hello\n");

        console.flush();
        assert_eq!(drain(&mut reader), "# ");
    }

    #[test]
    fn what_a_full_pipe_has_lost_is_said_on_a_line_of_its_own_before_what_follows() {
        let (mut reader, writer) = pipe();
        let mut console = Console::new(Some(writer));
        print(&mut console, b"prompt> ");
        console.flush();
        for _ in 0..32 {
            print(&mut console, &[b'x'; LINE]);
        }
        let taken = drain(&mut reader);
        assert!(!taken.ends_with('\n'));
        let lost = console.lost();
        assert!(lost > 0);

        print(&mut console, b"afterwards\n");

        let mark = format!("\n[... {lost} bytes of console output lost ...]\n");
        assert_eq!(drain(&mut reader), mark + "afterwards\n");
        assert_eq!(console.lost(), lost);
    }

    #[test]
    fn a_guest_that_falls_silent_after_a_loss_does_not_keep_it_a_secret() {
        let (mut reader, writer) = pipe();
        let mut console = Console::new(Some(writer));
        for _ in 0..1000 {
            print(&mut console, b"0123456789\n");
        }
        console.flush();
        drain(&mut reader);

        console.flush();
        console.flush();

        let mark = format!("[... {} bytes of console output lost ...]\n", console.lost());
        assert_eq!(drain(&mut reader), mark);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        /// The reader may come at any time: lines that arrive are whole, in order, and the marks add up to what is missing.
        #[test]
        fn marks_and_lines_account_for_every_byte(reads in prop::collection::vec(0_usize..300, 1..20)) {
            let (mut reader, writer) = pipe();
            let mut console = Console::new(Some(writer));
            let mut output = String::new();
            let mut printed = 0;
            for lines in reads {
                for _ in 0..lines {
                    let line = format!("line {printed:06} {}\n", "~".repeat(30));
                    print(&mut console, line.as_bytes());
                    printed += 1;
                }
                output += &drain(&mut reader);
            }
            console.flush();
            output += &drain(&mut reader);

            let length = "line 000000 \n".len() + 30;
            let mut next = 0;
            for line in output.lines() {
                if let Some(rest) = line.strip_prefix("[... ") {
                    let lost: usize = rest.split_once(' ').unwrap().0.parse().unwrap();
                    prop_assert_eq!(lost % length, 0);
                    next += lost / length;
                } else {
                    prop_assert_eq!(&line[..12], format!("line {next:06} "));
                    next += 1;
                }
            }
            prop_assert_eq!(next, printed);
        }
    }
}
