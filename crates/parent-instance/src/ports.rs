//! The caller's side of a machine's ports: each is served by a thread that turns what arrives into events.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::Sender;

use crate::status::Status;
use crate::{Error, terminal};

/// The longest status line, in bytes. `failed` lines quote logs.
const MAX_STATUS_LINE: u64 = 16 * 1024;

/// One of the two output streams of a command.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

/// What the threads that serve a machine's ports see.
#[derive(Debug)]
pub(crate) enum Event {
    Status(Status),
    /// So many more bytes of a stream have been passed on.
    Copied(Stream, u64),
    /// Output could not be passed on.
    Failed(Error),
    /// The status port was closed: QEMU has ended.
    Ended,
}

/// Sends an event for each line. The receiver may be gone already: then nobody wants to know.
pub(crate) fn read_status(socket: UnixStream, events: &Sender<Event>) {
    let mut reader = BufReader::new(socket);
    let mut line = String::new();
    loop {
        line.clear();
        match (&mut reader).take(MAX_STATUS_LINE).read_line(&mut line) {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
        if let Some(status) = Status::parse(line.trim_end_matches('\n')) {
            let _ = events.send(Event::Status(status));
        }
    }
    let _ = events.send(Event::Ended);
}

/// Passes a stream on as it comes.
pub(crate) fn copy(mut socket: UnixStream, mut writer: impl Write, stream: Stream, events: &Sender<Event>) {
    let action = match stream {
        Stream::Stdout => "write the command's standard output",
        Stream::Stderr => "write the command's standard error",
    };
    let mut buffer = vec![0; 64 * 1024];
    // An error of the socket is the end of QEMU, which the status port reports.
    while let Ok(count @ 1..) = socket.read(&mut buffer) {
        let event = match writer.write_all(&buffer[..count]).and_then(|()| writer.flush()) {
            Ok(()) => Event::Copied(stream, count as u64),
            Err(source) => Event::Failed(Error::Stream { action, source }),
        };
        let failed = matches!(event, Event::Failed(_));
        if events.send(event).is_err() || failed {
            return;
        }
    }
}

/// Joins the caller's terminal with the machine's console.
pub(crate) fn use_terminal(console: &UnixStream, events: &Sender<Event>) {
    if let Err(source) = terminal::attach(console) {
        let _ = events.send(Event::Failed(Error::Stream {
            action: "use the terminal",
            source,
        }));
    }
}
