//! The caller's terminal as the machine's console.

use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

/// What a terminal sends for Ctrl-D, the end of input.
const END_OF_INPUT: u8 = 0x04;

/// Size of a terminal in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) rows: u16,
    pub(crate) columns: u16,
}

impl Size {
    /// Of the terminal that is standard output; 24 × 80 if it is none.
    pub(crate) fn of_terminal() -> Self {
        match tcgetwinsize(io::stdout()) {
            Ok(size) if size.ws_row > 0 && size.ws_col > 0 => Self {
                rows: size.ws_row,
                columns: size.ws_col,
            },
            _ => Self {
                rows: 24,
                columns: 80,
            },
        }
    }
}

/// Joins standard input and output with `console` until the machine closes it. If standard input is a terminal, every
/// key goes to the machine, Ctrl-C too.
pub(crate) fn attach(console: &UnixStream) -> io::Result<()> {
    let stdin = io::stdin();
    let _raw = stdin
        .is_terminal()
        .then(|| RawMode::enter(stdin.as_fd()))
        .transpose()?;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Without input the console still shows what the machine prints.
            let _ = forward_input(stdin.as_fd(), console);
        });
        copy_output(console)
    })
}

fn copy_output(mut console: &UnixStream) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    let mut buffer = [0; 4096];
    loop {
        match console.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(()),
            Err(error) => return Err(error),
            Ok(count) => {
                stdout.write_all(&buffer[..count])?;
                stdout.flush()?;
            }
        }
    }
}

/// Waits for input and for the end of the console at the same time, so that no read outlives the machine.
fn forward_input(stdin: BorrowedFd<'_>, mut console: &UnixStream) -> io::Result<()> {
    let mut buffer = [0; 1024];
    loop {
        let mut events = [
            PollFd::new(&stdin, PollFlags::IN),
            PollFd::new(console, PollFlags::RDHUP),
        ];
        poll(&mut events, None)?;
        if !events[1].revents().is_empty() {
            return Ok(());
        }
        let count = rustix::io::read(stdin, &mut buffer)?;
        if count == 0 {
            return console.write_all(&[END_OF_INPUT]);
        }
        console.write_all(&buffer[..count])?;
    }
}

/// A terminal that passes every key on, until dropped.
struct RawMode<'a> {
    terminal: BorrowedFd<'a>,
    before: Termios,
}

impl<'a> RawMode<'a> {
    fn enter(terminal: BorrowedFd<'a>) -> io::Result<Self> {
        let before = tcgetattr(terminal)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(terminal, OptionalActions::Now, &raw)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for RawMode<'_> {
    fn drop(&mut self) {
        // The terminal may be gone; then there is nothing to restore.
        let _ = tcsetattr(self.terminal, OptionalActions::Flush, &self.before);
    }
}
