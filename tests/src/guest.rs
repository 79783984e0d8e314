//! What the applications in `src/bin` and the suites have agreed on.

use std::fmt;
use std::io::{self, Write};
use std::thread;
use std::time::Duration;

use crate::hex;

/// vsock ports of the application `vsock-echo`.
pub mod port {
    /// Sends back what comes.
    pub const ECHO: u32 = 7000;
    /// Takes one [`Order`](super::Order) as a line, carries it out and answers with one line.
    pub const ORDERS: u32 = 7001;
    /// Takes one line `SEED BYTES` and sends that much of that pattern.
    pub const SOURCE: u32 = 7002;
    /// Receives nothing until a second connection to this port is made; then receives all of the first and answers on
    /// it with the sum, as text.
    pub const LATE: u32 = 7003;
    /// Of the application `nsm-client`: takes lines of words, each a request to `/dev/nsm`, and answers each with a line.
    pub const NSM: u32 = 7004;
    /// Of the application `toolbox`: takes a line of words, runs them as a program of the image, and answers with what it
    /// prints and a last line that says how it ended.
    pub const RUN: u32 = 7005;
    /// Of the application `toolbox`: what the parent sends here goes to the TCP port of this number inside the enclave.
    pub const TCP_INTO_ENCLAVE: u16 = 7006;
    /// Of the application `toolbox`: what is sent to the TCP port of this number inside the enclave goes to this port of the
    /// parent.
    pub const TCP_TO_PARENT: u16 = 7007;
    /// Of the application `tls-client`: takes one [`TlsOrder`](super::TlsOrder) as a line, carries it out and answers with one line.
    pub const TLS: u32 = 7008;
}

/// What the parent can have `vsock-echo` do. Its text form is the line that is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Connect this often at once and exchange a pattern over each connection; the answer is `exchanged` or an error.
    Exchange {
        /// Whom to connect to.
        to: Address,
        /// How often.
        connections: u64,
        /// Over each connection, in each direction.
        bytes: u64,
    },
    /// Connect, end sending at once, receive all; the answer is the [`Sum`](crate::stream::Sum) as text.
    HalfClose {
        /// Whom to connect to.
        to: Address,
    },
    /// Connect; the answer is `connected` or the kind of the error.
    Connect {
        /// Whom to connect to.
        to: Address,
    },
}

/// A vsock address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// Context identifier.
    pub cid: u32,
    /// Port.
    pub port: u32,
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exchange {
                to: Address { cid, port },
                connections,
                bytes,
            } => write!(f, "exchange {cid} {port} {connections} {bytes}"),
            Self::HalfClose {
                to: Address { cid, port },
            } => write!(f, "half-close {cid} {port}"),
            Self::Connect {
                to: Address { cid, port },
            } => write!(f, "connect {cid} {port}"),
        }
    }
}

impl Order {
    /// The order on a line; `None` if it is none.
    pub fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_ascii_whitespace();
        let kind = words.next()?;
        let mut number = || words.next()?.parse::<u64>().ok();
        let to = Address {
            cid: u32::try_from(number()?).ok()?,
            port: u32::try_from(number()?).ok()?,
        };
        match kind {
            "exchange" => Some(Self::Exchange {
                to,
                connections: number()?,
                bytes: number()?,
            }),
            "half-close" => Some(Self::HalfClose { to }),
            "connect" => Some(Self::Connect { to }),
            _ => None,
        }
    }
}

/// What the parent can have `tls-client` do: connect by TLS to a server beyond a vsock port of the parent, send a pattern over
/// each connection, end sending, and receive until the server has ended too. The server sends back what came. Its text form is
/// the line that is sent; the answer is `exchanged` or an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsOrder {
    /// At CID 3.
    pub port: u32,
    /// The name that the server's certificate has to have.
    pub name: String,
    /// The one certificate that is trusted, in DER.
    pub root: Vec<u8>,
    /// How many connections at once.
    pub connections: u64,
    /// Over each connection, in each direction.
    pub bytes: u64,
}

impl fmt::Display for TlsOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let root = hex::encode(&self.root);
        write!(f, "{} {} {} ", self.port, self.connections, self.bytes)?;
        write!(f, "{} {root}", self.name)
    }
}

impl TlsOrder {
    /// The order on a line; `None` if it is none.
    pub fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_ascii_whitespace();
        Some(Self {
            port: words.next()?.parse().ok()?,
            connections: words.next()?.parse().ok()?,
            bytes: words.next()?.parse().ok()?,
            name: words.next()?.to_owned(),
            root: hex::decode(words.next()?)?,
        })
    }
}

/// The directory whose files the application `circumstances` tells of.
pub const FILES: &str = "/files";

/// The first words of each line of [`flood_console`]; a number follows.
pub const FLOOD: &str = "flood line ";

/// Writes numbered lines to standard output for ever, as fast as it takes them.
pub fn flood_console() -> ! {
    let mut number = 0_u64;
    loop {
        // The console takes everything; if it does not, there is nobody to tell.
        let _ = writeln!(io::stdout(), "{FLOOD}{number} {}", "~".repeat(60));
        number += 1;
    }
}

/// Does nothing, for ever.
pub fn idle() -> ! {
    loop {
        thread::sleep(Duration::from_hours(1));
    }
}
