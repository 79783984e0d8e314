//! Data through stream sockets, the same code on both sides of the vsock: patterns, checks, echoes.
//!
//! A pattern depends on its seed alone, so each end knows what the other sends. Both ends compare SHA-256 digests and
//! lengths.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::thread;

use sha2::{Digest, Sha256};
use vsock::VsockStream;

use crate::poll;

/// Bytes moved at a time; a multiple of a pattern's word.
const CHUNK: usize = 64 << 10;

/// A connected stream socket of any family.
pub trait Stream: Read + Write + Send + Sized {
    /// Another handle of the same connection.
    ///
    /// # Errors
    /// If descriptors are short.
    fn another(&self) -> io::Result<Self>;

    /// Says that no more bytes will be sent; receiving goes on.
    ///
    /// # Errors
    /// If the connection is gone.
    fn end_sending(&self) -> io::Result<()>;
}

impl Stream for UnixStream {
    fn another(&self) -> io::Result<Self> {
        self.try_clone()
    }

    fn end_sending(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

impl Stream for VsockStream {
    fn another(&self) -> io::Result<Self> {
        self.try_clone()
    }

    fn end_sending(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

impl Stream for TcpStream {
    fn another(&self) -> io::Result<Self> {
        self.try_clone()
    }

    fn end_sending(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

/// What went through a connection in one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sum {
    /// How many bytes.
    pub bytes: u64,
    /// SHA-256 of all of them.
    pub sha256: [u8; 32],
}

impl Sum {
    /// The sum of `bytes` bytes of the pattern, without sending them.
    ///
    /// # Panics
    /// Never: writing to nowhere cannot fail.
    pub fn of_pattern(seed: u64, bytes: u64) -> Self {
        send(&mut io::sink(), seed, bytes).expect("a sink takes everything")
    }
}

impl std::fmt::Display for Sum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes, SHA-256 ", self.bytes)?;
        self.sha256.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Sends `bytes` bytes of the pattern of `seed`.
///
/// # Errors
/// Of the stream.
pub fn send(stream: &mut impl Write, seed: u64, bytes: u64) -> io::Result<Sum> {
    let mut pattern = Pattern::new(seed);
    let mut hash = Sha256::new();
    let mut chunk = vec![0; CHUNK];
    let mut left = bytes;
    while left > 0 {
        pattern.fill(&mut chunk);
        let length = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
        let (part, _) = chunk.split_at(length);
        stream.write_all(part)?;
        hash.update(part);
        left -= length as u64;
    }
    Ok(Sum {
        bytes,
        sha256: hash.finalize().into(),
    })
}

/// Receives until the other end has ended sending.
///
/// # Errors
/// Of the stream.
pub fn receive(stream: &mut impl Read) -> io::Result<Sum> {
    let mut hash = Sha256::new();
    let mut chunk = vec![0; CHUNK];
    let mut bytes = 0;
    loop {
        let length = match stream.read(&mut chunk) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let (part, _) = chunk.split_at(length);
        hash.update(part);
        bytes += length as u64;
    }
    Ok(Sum {
        bytes,
        sha256: hash.finalize().into(),
    })
}

/// Sends a pattern, ends sending, and meanwhile receives until the other end has ended sending too. The other end echoes,
/// so the same must come back.
///
/// # Errors
/// Of the stream; [`io::ErrorKind::InvalidData`] if something else comes back.
pub fn exchange(mut stream: impl Stream, seed: u64, bytes: u64) -> io::Result<Sum> {
    let mut sending = stream.another()?;
    let (sent, received) = thread::scope(|scope| {
        let sender = scope.spawn(move || {
            let sum = send(&mut sending, seed, bytes)?;
            sending.end_sending()?;
            io::Result::Ok(sum)
        });
        let received = receive(&mut stream);
        (sender.join(), received)
    });
    let sent = sent.map_err(|_| io::Error::other("the sending thread panicked"))??;
    let received = received?;
    if sent == received {
        return Ok(received);
    }
    let text = format!("sent {sent}, but received {received}");
    Err(io::Error::new(io::ErrorKind::InvalidData, text))
}

/// As many connections as asked for, none of them used yet.
///
/// # Errors
/// Of the first that fails.
pub fn open<S>(connections: u64, connect: impl Fn() -> io::Result<S>) -> io::Result<Vec<S>> {
    (0..connections).map(|_| connect()).collect()
}

/// As many connections as asked for, to a listener whose backlog may be full at times: it then refuses, and takes the next. One that is
/// slow to answer is asked again.
///
/// # Errors
/// Of the first that fails otherwise, or for too long.
pub fn open_past_a_full_backlog<S>(
    connections: u64,
    connect: impl Fn() -> io::Result<S>,
) -> io::Result<Vec<S>> {
    let refused =
        |error: &io::Error| [io::ErrorKind::ConnectionReset, io::ErrorKind::TimedOut].contains(&error.kind());
    open(connections, || {
        let patient = poll::within(poll::LIMIT, || match connect() {
            Err(error) if refused(&error) => None,
            result => Some(result),
        });
        patient.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))
    })
}

/// An exchange over each of these connections, all at the same time, with seeds from `first_seed` on.
///
/// # Errors
/// Of the first connection that fails, with its seed.
pub fn exchange_at_once<S: Stream>(streams: Vec<S>, first_seed: u64, bytes: u64) -> io::Result<()> {
    thread::scope(|scope| {
        let exchanges: Vec<_> = (first_seed..)
            .zip(streams)
            .map(|(seed, stream)| (seed, scope.spawn(move || exchange(stream, seed, bytes))))
            .collect();
        for (seed, exchange) in exchanges {
            let result = exchange
                .join()
                .map_err(|_| io::Error::other("an exchange panicked"))?;
            result.map_err(|error| io::Error::new(error.kind(), format!("seed {seed}: {error}")))?;
        }
        Ok(())
    })
}

/// Sends back what comes until the other end has ended sending, then ends sending too.
///
/// # Errors
/// Of the stream.
pub fn echo(mut stream: impl Stream) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    loop {
        let length = stream.read(&mut chunk)?;
        if length == 0 {
            return stream.end_sending();
        }
        let (part, _) = chunk.split_at(length);
        stream.write_all(part)?;
    }
}

/// Sends on what comes from either stream to the other, until both have ended sending.
///
/// # Errors
/// Of the streams.
pub fn relay(one: impl Stream, other: impl Stream) -> io::Result<()> {
    let (from_other, to_one) = (other.another()?, one.another()?);
    thread::scope(|scope| {
        let backwards = scope.spawn(move || relay_one_way(from_other, to_one));
        relay_one_way(one, other)?;
        let panicked = |_| io::Error::other("a relay panicked");
        backwards.join().map_err(panicked)?
    })
}

fn relay_one_way(mut from: impl Stream, mut to: impl Stream) -> io::Result<()> {
    io::copy(&mut from, &mut to)?;
    to.end_sending()
}

/// An endless sequence of bytes that depends on its seed alone (xorshift64).
#[derive(Debug)]
struct Pattern(u64);

impl Pattern {
    fn new(seed: u64) -> Self {
        // Zero would stay zero.
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        for word in bytes.chunks_exact_mut(size_of::<u64>()) {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            word.copy_from_slice(&self.0.to_le_bytes());
        }
    }
}
