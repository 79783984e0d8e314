//! Clients at `vsock.sock` that have not yet said what they want.
//!
//! A client writes `CONNECT <port>\n`, is answered with `OK <port of its side>\n` once the guest has accepted, and from then
//! on is connected to the guest. What it writes after its line belongs to the guest, so exactly the line is read here.
//! A client that writes anything else, too much, or nothing for too long is disconnected.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

/// Longest line, with its end. `CONNECT 4294967295` and a few blanks.
const LONGEST_LINE: usize = 32;

/// How long a client may take to write its line.
const LINE_WITHIN: Duration = Duration::from_secs(5);

/// Clients that may be writing their lines at the same time. More wait to be accepted.
const MOST_CLIENTS: usize = 256;

/// The clients, numbered in the order in which they came, which is also the order of their deadlines.
#[derive(Debug, Default)]
pub(super) struct Clients {
    waiting: BTreeMap<u64, Client>,
    next_number: u64,
}

#[derive(Debug)]
struct Client {
    socket: OwnedFd,
    line: [u8; LONGEST_LINE],
    length: usize,
    deadline: Instant,
}

/// What a client has said so far.
#[derive(Debug)]
pub(super) enum Line {
    /// Not all of its line.
    Partial,
    /// That it wants to be connected to this port.
    Port(u32),
    /// Something else, or it has gone.
    Bad,
}

impl Clients {
    pub(super) fn is_full(&self) -> bool {
        self.waiting.len() >= MOST_CLIENTS
    }

    /// Takes in a client, and gives it a number.
    pub(super) fn add(&mut self, socket: OwnedFd, now: Instant) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        let client = Client {
            socket,
            line: [0; LONGEST_LINE],
            length: 0,
            deadline: now + LINE_WITHIN,
        };
        self.waiting.insert(number, client);
        number
    }

    /// The socket of a client.
    pub(super) fn socket(&self, number: u64) -> Option<&OwnedFd> {
        self.waiting.get(&number).map(|client| &client.socket)
    }

    /// Reads what a client has written. `None` if there is no client of that number.
    pub(super) fn read(&mut self, number: u64) -> Option<Line> {
        self.waiting.get_mut(&number).map(Client::read_line)
    }

    /// Lets go of a client.
    pub(super) fn remove(&mut self, number: u64) -> Option<OwnedFd> {
        self.waiting.remove(&number).map(|client| client.socket)
    }

    /// Disconnects the clients whose time is over.
    pub(super) fn expire(&mut self, now: Instant) {
        while self.next_deadline().is_some_and(|deadline| deadline <= now) {
            self.waiting.pop_first();
        }
    }

    /// When [`expire`](Self::expire) has something to do.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.waiting.first_key_value().map(|(_, client)| client.deadline)
    }
}

impl Client {
    fn read_line(&mut self) -> Line {
        loop {
            let Some(room) = self.line.get_mut(self.length..).filter(|room| !room.is_empty()) else {
                return Line::Bad;
            };
            let seen = match recv(&self.socket, &mut *room, RecvFlags::PEEK | RecvFlags::DONTWAIT) {
                Ok((0, _)) => return Line::Bad,
                Ok((seen, _)) => seen,
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => return Line::Partial,
                Err(_) => return Line::Bad,
            };
            let end = room.iter().take(seen).position(|byte| *byte == b'\n');
            let take = end.map_or(seen, |end| end + 1);
            let Some(line) = room.get_mut(..take) else {
                return Line::Bad;
            };
            // They are there: they were just seen, and nobody else reads this socket.
            if !matches!(recv(&self.socket, line, RecvFlags::DONTWAIT), Ok((taken, _)) if taken == take) {
                return Line::Bad;
            }
            self.length += take;
            if end.is_some() {
                let line = self.line.get(..self.length).unwrap_or_default();
                return parse(line).map_or(Line::Bad, Line::Port);
            }
        }
    }
}

/// The port in `CONNECT <port>`.
fn parse(line: &[u8]) -> Option<u32> {
    let mut words = std::str::from_utf8(line).ok()?.split_ascii_whitespace();
    let (command, port) = (words.next()?, words.next()?);
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    (command.eq_ignore_ascii_case("CONNECT") && digits && words.next().is_none()).then_some(())?;
    port.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        for (line, port) in [
            ("CONNECT 5\n", Some(5)),
            ("connect 4294967295\n", Some(u32::MAX)),
            ("CONNECT 4294967296\n", None),
            ("CONNECT  7 \r\n", Some(7)),
            ("CONNECT +7\n", None),
            ("CONNECT 7 8\n", None),
            ("CONNECT\n", None),
            ("7\n", None),
            ("\n", None),
        ] {
            assert_eq!(parse(line.as_bytes()), port, "{line:?}");
        }
        assert_eq!(parse(b"CONNECT \xff\n"), None);
    }
}
