//! A name server for one name, as far as a client needs it (RFC 1035): one question, and one address that may change.

use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// Bytes of a message before its question.
const HEADER: usize = 12;

/// Bytes of a question after its name: type and class.
const TYPE_AND_CLASS: usize = 4;

/// Asked for an IPv4 address.
const A: [u8; 2] = [0, 1];

/// The name server of this machine, at port 53 of 127.0.0.1. It answers every question for an IPv4 address.
#[derive(Debug)]
pub(crate) struct NameServer(Arc<Mutex<Ipv4Addr>>);

impl NameServer {
    /// It answers when this returns, and from then on.
    pub(crate) fn start(address: Ipv4Addr) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:53").expect("port 53");
        let current = Arc::new(Mutex::new(address));
        let server = Self(Arc::clone(&current));
        thread::spawn(move || answer_all(&socket, &current));
        server
    }

    /// Changes the address that it answers.
    pub(crate) fn moves_to(&self, address: Ipv4Addr) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = address;
    }
}

fn answer_all(socket: &UdpSocket, current: &Mutex<Ipv4Addr>) -> io::Result<()> {
    let mut message = [0; 512];
    loop {
        let (length, client) = socket.recv_from(&mut message)?;
        let address = *current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(answer) = answer(&message[..length], address) {
            socket.send_to(&answer, client)?;
        }
    }
}

/// The answer to a question, which may be used at once and never again.
fn answer(query: &[u8], address: Ipv4Addr) -> Option<Vec<u8>> {
    let name = query.get(HEADER..)?.iter().position(|byte| *byte == 0)? + 1;
    let question = query.get(HEADER..HEADER + name + TYPE_AND_CLASS)?;
    let answers = u8::from(question[name..].starts_with(&A));
    let mut answer = query[..2].to_vec();
    // A response, recursion desired and available; one question, none or one answer, nothing else.
    answer.extend([0x81, 0x80, 0, 1, 0, answers, 0, 0, 0, 0]);
    answer.extend(question);
    if answers == 1 {
        // The name of the question, type, class, a time to live of 0, four bytes.
        answer.extend([0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4]);
        answer.extend(address.octets());
    }
    Some(answer)
}
