//! One exchange with the daemon: connect, ask, read replies until the last one.
//!
//! The protocol is that of [`api`]: frames of a length and JSON over a Unix stream socket, one request per
//! connection, one descriptor with it if the request is to run an enclave. Replies are read exactly to their end, so
//! that after [`Reply::ConsoleAttached`] the next byte of the stream is the console's.

use std::io::{self, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use api::{ErrorCode, Failure, Reply, Request, frame};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};

use crate::error::CommandError;
use crate::output;

/// Where a daemon that does not answer has said why.
const REASON_IN_LOG: &str = "Its log says why: `enclaved.log` beside its socket, or `journalctl -u enclaved` where it \
                             is a service";

/// A daemon on a busy machine gets this much time to answer, whatever time there is.
const LEAST_PATIENCE: Duration = Duration::from_secs(1);

/// A connection to the daemon.
#[derive(Debug)]
pub(crate) struct Daemon {
    stream: UnixStream,
}

/// Why a request has no good answer.
#[derive(Debug)]
pub(crate) enum AskError {
    /// The daemon answered that it cannot do it, and why.
    Declined(Failure),
    /// The daemon did not answer, or not in words of the protocol. Always E39.
    NoAnswer(Failure),
}

/// For every command but `run-enclave`, both are failures under their own number.
impl From<AskError> for CommandError {
    fn from(error: AskError) -> Self {
        match error {
            AskError::Declined(failure) | AskError::NoAnswer(failure) => Self::Failed(failure),
        }
    }
}

impl Daemon {
    /// Connects to the daemon that listens on `socket`.
    ///
    /// # Errors
    /// [`AskError::NoAnswer`] with a text that says how to start the daemon, or how to get access to it.
    pub(crate) fn connect(socket: &Path) -> Result<Self, AskError> {
        match UnixStream::connect(socket) {
            Ok(stream) => Ok(Self { stream }),
            Err(error) => Err(no_answer(&why_not_connected(socket, &error))),
        }
    }

    /// Does not wait longer than until `deadline` for the daemon to say something, but for a second at least.
    pub(crate) fn answer_until(&self, deadline: Instant) {
        let left = deadline.saturating_duration_since(Instant::now());
        // No time limit of more than zero is refused.
        let _ = self.stream.set_read_timeout(Some(left.max(LEAST_PATIENCE)));
    }

    /// Sends `request`, with `descriptor` if it has one, and reads the answer. Lines of progress that come before it
    /// go to standard error.
    ///
    /// # Errors
    /// [`AskError::Declined`] if the answer is [`Reply::Error`]; [`AskError::NoAnswer`] if there is none.
    pub(crate) fn ask(
        &mut self,
        request: &Request,
        descriptor: Option<BorrowedFd<'_>>,
    ) -> Result<Reply, AskError> {
        let message = frame::encode(request)
            .map_err(|error| no_answer(&format!("The request cannot be sent: {error}")))?;
        let sent = self.send(&message, descriptor);
        // A daemon that declines before it has read everything closes its end: the reason is in the answer.
        match (sent, self.receive_final()) {
            (Err(error), Err(AskError::NoAnswer(_))) => Err(no_answer(&format!(
                "The enclaved daemon closed the connection before it had read the request: {error}. \
                 {REASON_IN_LOG}"
            ))),
            (_, answer) => answer,
        }
    }

    /// Sends `request` without waiting for the answer.
    ///
    /// # Errors
    /// [`AskError::NoAnswer`].
    pub(crate) fn tell(&mut self, request: &Request) -> Result<(), AskError> {
        let message = frame::encode(request)
            .map_err(|error| no_answer(&format!("The request cannot be sent: {error}")))?;
        self.send(&message, None).map_err(|error| died(&error))
    }

    /// The next reply, whatever it is.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub(crate) fn next_reply(&mut self) -> Result<Reply, AskError> {
        match self.receive()? {
            Reply::Error(failure) => Err(AskError::Declined(failure)),
            Reply::Busy(failure) => Err(AskError::NoAnswer(failure)),
            reply => Ok(reply),
        }
    }

    /// The stream, to wait for it or to end it.
    pub(crate) fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// The stream, for what follows [`Reply::ConsoleAttached`].
    pub(crate) fn into_stream(self) -> UnixStream {
        self.stream
    }

    /// Sends the whole of `message`; the descriptor travels with its first bytes.
    fn send(&mut self, message: &[u8], descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let descriptors: Vec<_> = descriptor.into_iter().collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)) {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        let sent = rustix::io::retry_on_intr(|| {
            rustix::net::sendmsg(
                &self.stream,
                &[IoSlice::new(message)],
                &mut ancillary,
                SendFlags::NOSIGNAL,
            )
        })?;
        self.stream.write_all(message.get(sent..).unwrap_or_default())
    }

    /// Reads replies up to the last one.
    fn receive_final(&mut self) -> Result<Reply, AskError> {
        loop {
            match self.receive()? {
                Reply::Progress(line) => output::notice(line),
                Reply::Error(failure) => return Err(AskError::Declined(failure)),
                answer => return Ok(answer),
            }
        }
    }

    fn receive(&mut self) -> Result<Reply, AskError> {
        let mut header = [0; frame::HEADER_LEN];
        self.stream
            .read_exact(&mut header)
            .map_err(|error| died(&error))?;
        let length = frame::body_len(header, frame::MAX_REPLY).map_err(|error| garbage(&error))?;
        let mut body = Vec::new();
        // Memory grows with what arrives, not with what the header promises.
        let received = (&self.stream)
            .take(length as u64)
            .read_to_end(&mut body)
            .map_err(|error| died(&error))?;
        if received < length {
            return Err(died(&io::ErrorKind::UnexpectedEof.into()));
        }
        frame::decode(&body).map_err(|error| garbage(&error))
    }
}

/// The answer is a good one, but to another request.
pub(crate) fn unexpected_answer() -> AskError {
    no_answer(
        "The enclaved daemon gave the answer to another request. \
         Make sure that nitro-cli and the daemon are of the same version",
    )
}

fn garbage(error: &frame::FrameError) -> AskError {
    let Failure { message, .. } = Failure::caused_by(
        ErrorCode::Unspecified,
        "The answer of the enclaved daemon cannot be read",
        error,
    );
    no_answer(&format!(
        "{message}. Make sure that nitro-cli and the daemon are of the same version"
    ))
}

fn died(error: &io::Error) -> AskError {
    if error.kind() == io::ErrorKind::WouldBlock {
        return no_answer(&format!(
            "The enclaved daemon has not answered in time. {REASON_IN_LOG}"
        ));
    }
    no_answer(&format!(
        "The enclaved daemon ended the connection before it had answered: {error}. \
         {REASON_IN_LOG}; `nitro-cli describe-enclaves` says what runs now"
    ))
}

fn why_not_connected(socket: &Path, error: &io::Error) -> String {
    let socket = socket.display();
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => format!(
            "The enclaved daemon is not running: nothing listens on `{socket}`. \
             Start it with `sudo enclaved`, or with `sudo systemctl start enclaved` where it is a service"
        ),
        io::ErrorKind::PermissionDenied => format!(
            "No permission to connect to the enclaved daemon on `{socket}`: that is for root and the group `ne`. \
             Join it with `sudo usermod -aG ne $USER` and log in again"
        ),
        _ => format!("Cannot connect to the enclaved daemon on `{socket}`: {error}"),
    }
}

fn no_answer(message: &str) -> AskError {
    AskError::NoAnswer(Failure::new(ErrorCode::ProcessConnectionFailure, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Through the program this cannot be seen as root, who passes every permission check.
    #[test]
    fn who_may_not_connect_is_told_of_the_group() {
        let error = io::ErrorKind::PermissionDenied.into();

        let text = why_not_connected(Path::new("/run/enclaved/enclaved.sock"), &error);

        assert!(text.contains("`/run/enclaved/enclaved.sock`"), "{text}");
        assert!(text.contains("the group `ne`"), "{text}");
        assert!(text.contains("`sudo usermod -aG ne $USER`"), "{text}");
    }
}
