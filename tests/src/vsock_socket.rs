//! The parent's side of an enclave's vsock: Unix sockets in the enclave's directory, or `AF_VSOCK` if the kernel carries it.
//!
//! To connect to the enclave's port P by Unix sockets, connect to `vsock.sock`, send `CONNECT P\n` and read `OK <local port>\n`.
//! The enclave's connections to port P of its parent arrive at whoever listens on `vsock.sock_P`. An enclave without a
//! `vsock.sock` is reached by its CID, and reaches whoever listens on port P of the machine.
//!
//! Streams have the type of Unix ones in either case: nothing is asked of them but bytes, ends and time limits.

use std::fmt::Display;
use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use vsock::{VMADDR_CID_ANY, VsockListener, VsockStream};

use crate::guest::{Order, TlsOrder, port};
use crate::{Enclave, poll, stream};

/// The longest line that is read: the answer to an order may carry an error's text.
const LINE_LIMIT: usize = 4096;

/// Connects to a port of the enclave.
///
/// # Errors
/// [`io::ErrorKind::ConnectionReset`] if nobody listens there; others of the socket, and of a listener that does not keep
/// to the convention.
pub fn connect(enclave: &Enclave, port: u32) -> io::Result<UnixStream> {
    let socket = enclave.directory().join("vsock.sock");
    if !socket.exists() {
        return limited(retyped(&patiently(enclave.cid(), port)?)?);
    }
    let mut stream = limited(UnixStream::connect(socket)?)?;
    stream.write_all(format!("CONNECT {port}\n").as_bytes())?;
    let line = read_line(&mut stream)?;
    match line.strip_prefix("OK ").map(str::parse::<u32>) {
        Some(Ok(_)) => Ok(stream),
        _ if line.is_empty() => Err(io::ErrorKind::ConnectionReset.into()),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("the answer to CONNECT is {line:?}"),
        )),
    }
}

/// The kernel gives an enclave two seconds to answer, which is little for one on a busy emulated machine.
fn patiently(cid: u32, port: u32) -> io::Result<VsockStream> {
    let attempt = || match VsockStream::connect_with_cid_port(cid, port) {
        Err(error) if error.kind() == io::ErrorKind::TimedOut => None,
        result => Some(result),
    };
    poll::within(poll::LIMIT, attempt).unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))
}

fn retyped(stream: &impl AsFd) -> io::Result<UnixStream> {
    stream.as_fd().try_clone_to_owned().map(UnixStream::from)
}

/// A hang becomes an error of the one read or write that hangs.
fn limited(stream: UnixStream) -> io::Result<UnixStream> {
    stream.set_read_timeout(Some(poll::LIMIT))?;
    stream.set_write_timeout(Some(poll::LIMIT))?;
    Ok(stream)
}

/// Has the application `vsock-echo` of the enclave carry out an order; its answer.
///
/// # Errors
/// Of the connection.
pub fn order(enclave: &Enclave, order: Order) -> io::Result<String> {
    answer(enclave, port::ORDERS, &order)
}

/// Likewise, the application `tls-client`.
///
/// # Errors
/// Of the connection.
pub fn tls_order(enclave: &Enclave, order: &TlsOrder) -> io::Result<String> {
    answer(enclave, port::TLS, order)
}

fn answer(enclave: &Enclave, port: u32, order: &impl Display) -> io::Result<String> {
    let mut stream = connect(enclave, port)?;
    stream.write_all(format!("{order}\n").as_bytes())?;
    read_line(&mut stream)
}

/// Reads up to a line feed, byte by byte because what follows is not ours to take. At the end of the stream the line is
/// what was there.
///
/// # Errors
/// Of the stream, but a reset counts as its end; and for a line that is too long or no text.
pub fn read_line(stream: &mut impl Read) -> io::Result<String> {
    let mut line = Vec::new();
    let mut byte = [0];
    while line.len() < LINE_LIMIT {
        match stream.read(&mut byte) {
            Ok(0) => break,
            Ok(_) if byte == *b"\n" => break,
            Ok(_) => line.extend_from_slice(&byte),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => break,
            Err(error) => return Err(error),
        }
    }
    String::from_utf8(line).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// Listens for the enclave on a port of its parent. Dropping it ends that.
#[derive(Debug)]
pub struct PortListener(Listener);

#[derive(Debug)]
enum Listener {
    Unix { listener: UnixListener, path: PathBuf },
    Vsock(VsockListener),
}

impl PortListener {
    /// Begins to listen.
    ///
    /// # Errors
    /// If somebody else does.
    pub fn bind(enclave: &Enclave, port: u32) -> io::Result<Self> {
        if !enclave.directory().join("vsock.sock").exists() {
            let listener = VsockListener::bind_with_cid_port(VMADDR_CID_ANY, port)?;
            return Ok(Self(Listener::Vsock(listener)));
        }
        let path = enclave.directory().join(format!("vsock.sock_{port}"));
        let listener = UnixListener::bind(&path)?;
        Ok(Self(Listener::Unix { listener, path }))
    }

    /// The next connection.
    ///
    /// # Errors
    /// Of the socket.
    pub fn accept(&self) -> io::Result<UnixStream> {
        limited(self.accept_without_limit()?)
    }

    /// Whether a connection has come within this time.
    ///
    /// # Errors
    /// Of the socket.
    pub fn wait(&self, limit: Duration) -> io::Result<bool> {
        let listener = match &self.0 {
            Listener::Unix { listener, .. } => listener.as_fd(),
            Listener::Vsock(listener) => listener.as_fd(),
        };
        let limit = Timespec::try_from(limit).map_err(io::Error::other)?;
        let ready = rustix::event::poll(
            &mut [PollFd::from_borrowed_fd(listener, PollFlags::IN)],
            Some(&limit),
        );
        Ok(ready? > 0)
    }

    fn accept_without_limit(&self) -> io::Result<UnixStream> {
        match &self.0 {
            Listener::Unix { listener, .. } => Ok(listener.accept()?.0),
            Listener::Vsock(listener) => retyped(&listener.accept()?.0),
        }
    }

    /// Echoes on each of the next `connections` connections, in the background. An echo that fails is seen by the other
    /// end.
    ///
    /// # Errors
    /// Of the socket.
    pub fn echo_in_background(&self, connections: u64) -> io::Result<()> {
        let listener = Self(match &self.0 {
            // Its name is taken away once.
            Listener::Unix { listener, .. } => Listener::Unix {
                listener: listener.try_clone()?,
                path: PathBuf::new(),
            },
            Listener::Vsock(listener) => Listener::Vsock(listener.try_clone()?),
        });
        thread::spawn(move || {
            for _ in 0..connections {
                let Ok(connection) = listener.accept_without_limit() else {
                    return;
                };
                thread::spawn(move || stream::echo(connection));
            }
        });
        Ok(())
    }
}

impl Drop for PortListener {
    fn drop(&mut self) {
        if let Listener::Unix { path, .. } = &self.0 {
            // The enclave's directory may be gone already.
            let _ = fs::remove_file(path);
        }
    }
}
