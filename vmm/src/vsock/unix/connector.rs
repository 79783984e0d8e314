//! Sockets for connections that the guest opens: port P of the parent is whoever listens at `vsock.sock_P`.
//!
//! Connecting to a Unix socket succeeds or fails at once, with two exceptions:
//!
//! - If the listener's backlog is full, the answer is EAGAIN, and nothing ever says that there is room again.
//! - The VMM is a user of its own, and a new listener is somebody else's until the daemon has given it to the VMM
//!   (`crates/enclaved/src/port_listeners.rs`). Until then the answer is EACCES.
//!
//! Such connections are tried again at short intervals, for as long as a Linux guest waits by default, and then refused.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use vsock_device::ConnectionId;

/// Between two attempts.
const INTERVAL: Duration = Duration::from_millis(5);
/// VSOCK_DEFAULT_CONNECT_TIMEOUT of Linux.
const GIVE_UP_AFTER: Duration = Duration::from_secs(2);
/// Attempts in one go.
const ROUND: usize = 64;
/// Connections that may wait for another attempt. More are refused.
const MOST_WAITING: usize = 4096;

#[derive(Debug)]
pub(super) struct Connector {
    prefix: OsString,
    waiting: VecDeque<Attempt>,
    next_round: Option<Instant>,
}

/// A connection whose listener was busy, or not yet ours.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attempt {
    pub(super) id: ConnectionId,
    pub(super) port: u32,
    give_up_at: Instant,
}

/// What came of an attempt.
#[derive(Debug)]
pub(super) enum Outcome {
    Connected(OwnedFd),
    /// It will be tried again.
    Waiting,
    Refused,
}

impl Connector {
    /// Connects to sockets whose path is `prefix` with the port number at its end.
    pub(super) fn new(prefix: &Path) -> Self {
        Self {
            prefix: prefix.as_os_str().to_owned(),
            waiting: VecDeque::new(),
            next_round: None,
        }
    }

    /// Tries to connect `id` to `port` for the first time.
    pub(super) fn connect(&mut self, id: ConnectionId, port: u32, now: Instant) -> Outcome {
        self.attempt(
            Attempt {
                id,
                port,
                give_up_at: now + GIVE_UP_AFTER,
            },
            now,
        )
    }

    /// Tries once more. [`due`](Self::due) says whom.
    pub(super) fn attempt(&mut self, attempt: Attempt, now: Instant) -> Outcome {
        match self.open(attempt.port) {
            Ok(socket) => Outcome::Connected(socket),
            Err(Errno::AGAIN | Errno::ACCESS | Errno::INTR)
                if now < attempt.give_up_at && self.waiting.len() < MOST_WAITING =>
            {
                self.waiting.push_back(attempt);
                self.next_round.get_or_insert(now + INTERVAL);
                Outcome::Waiting
            }
            Err(_) => Outcome::Refused,
        }
    }

    /// Those to be tried now, oldest first.
    pub(super) fn due(&mut self, now: Instant) -> Vec<Attempt> {
        if self.next_round.is_none_or(|round| round > now) {
            return Vec::new();
        }
        let due: Vec<_> = self.waiting.drain(..self.waiting.len().min(ROUND)).collect();
        self.next_round = (!self.waiting.is_empty()).then_some(now + INTERVAL);
        due
    }

    /// When [`due`](Self::due) will have something.
    pub(super) fn next_round(&self) -> Option<Instant> {
        self.next_round
    }

    fn open(&self, port: u32) -> Result<OwnedFd, Errno> {
        let mut path = self.prefix.clone();
        path.push(port.to_string());
        let address = SocketAddrUnix::new(path)?;
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        connect(&socket, &address)?;
        Ok(socket)
    }
}
