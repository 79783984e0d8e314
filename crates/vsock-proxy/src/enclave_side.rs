//! The enclaves' side of a target: `AF_VSOCK`, or the Unix sockets of enclaves that do not use the kernel's vsock.
//!
//! A stream of either is watched as a [`UnixStream`]: what is read and written are bytes, whatever the family. A listener
//! takes any CID of this machine, since which one enclaves know it by is not ours to say: on EC2 it is 3, elsewhere 2.
//!
//! Unix sockets speak the protocol of [Firecracker](https://github.com/firecracker-microvm/firecracker/blob/main/docs/vsock.md):
//! an enclave that connects to port P arrives at a listener on `vsock.sock_P`; whoever connects to `vsock.sock` writes
//! `CONNECT P` and a newline, and reads `OK` with a number and a newline once the enclave has accepted.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

/// `VMADDR_CID_ANY`: every CID of this machine.
const ANY_CID: u32 = u32::MAX;

/// Connections that may wait to be accepted. The kernel lowers it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// How long an enclave may take to accept.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// The longest answer to `CONNECT`, in bytes: `OK`, a number of 32 bits, a newline.
const MAX_ANSWER: usize = 32;

/// Where enclaves connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenAddress {
    /// A vsock port of this machine.
    Vsock(u32),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

/// A port of an enclave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EnclaveAddress {
    /// By way of the kernel.
    Vsock {
        /// The enclave's.
        cid: u32,
        /// In the enclave.
        port: u32,
    },
    /// By way of the Unix socket `vsock.sock` in the enclave's directory.
    Unix {
        /// The path of that socket.
        socket: PathBuf,
        /// In the enclave.
        port: u32,
    },
}

/// Listens for enclaves.
#[derive(Debug)]
pub(crate) enum EnclaveListener {
    Vsock {
        listener: Socket,
        /// The same socket. The type is that of a stream, but nothing is asked of it but when there is something to accept.
        readiness: UnixStream,
    },
    Unix(UnixListener),
}

impl EnclaveListener {
    /// Must be called on a Tokio runtime.
    pub(crate) fn bind(address: &ListenAddress) -> io::Result<Self> {
        match address {
            ListenAddress::Vsock(port) => bind_vsock(*port),
            ListenAddress::Unix(path) => bind_unix(path).map(Self::Unix),
        }
    }

    /// A connection, and who made it.
    pub(crate) async fn accept(&self) -> io::Result<(UnixStream, String)> {
        match self {
            Self::Vsock { listener, readiness } => {
                let accept = || listener.accept();
                let (stream, address) = readiness.async_io(Interest::READABLE, accept).await?;
                let caller = match address.as_vsock_address() {
                    Some((cid, _)) => format!("CID {cid}"),
                    None => "a CID that is not known".into(),
                };
                Ok((watched(stream)?, caller))
            }
            Self::Unix(listener) => Ok((listener.accept().await?.0, "a Unix socket".into())),
        }
    }
}

impl EnclaveAddress {
    /// A connection to it, which the enclave has accepted.
    pub(crate) async fn connect(&self) -> io::Result<UnixStream> {
        let connecting = async {
            match self {
                Self::Vsock { cid, port } => connect_vsock(*cid, *port).await,
                Self::Unix { socket, port } => connect_unix(socket, *port).await,
            }
        };
        timeout(CONNECT_LIMIT, connecting)
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}

fn bind_vsock(port: u32) -> io::Result<EnclaveListener> {
    let listener = Socket::new(Domain::VSOCK, Type::STREAM, None)?;
    listener.bind(&SockAddr::vsock(ANY_CID, port))?;
    listener.listen(BACKLOG)?;
    let readiness = watched(listener.as_fd().try_clone_to_owned()?)?;
    Ok(EnclaveListener::Vsock { listener, readiness })
}

/// A socket that nobody listens at any more, of an earlier process, is replaced.
fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_abandoned(path) => {
            std::fs::remove_file(path)?;
            UnixListener::bind(path)
        }
        bound => bound,
    }
}

fn is_abandoned(path: &Path) -> bool {
    let is_socket = path
        .symlink_metadata()
        .is_ok_and(|metadata| metadata.file_type().is_socket());
    let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    is_socket && std::os::unix::net::UnixStream::connect(path).is_err_and(refused)
}

async fn connect_vsock(cid: u32, port: u32) -> io::Result<UnixStream> {
    let socket = Socket::new(Domain::VSOCK, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    match socket.connect(&SockAddr::vsock(cid, port)) {
        Err(error) if Errno::from_io_error(&error) != Some(Errno::INPROGRESS) => return Err(error),
        _ => {}
    }
    let stream = watched(socket)?;
    stream.writable().await?;
    match stream.take_error()? {
        Some(error) => Err(error),
        None => Ok(stream),
    }
}

async fn connect_unix(socket: &Path, port: u32) -> io::Result<UnixStream> {
    let mut stream = UnixStream::connect(socket).await?;
    stream.write_all(format!("CONNECT {port}\n").as_bytes()).await?;
    // Byte by byte: what follows the line is the enclave's.
    let mut answer = Vec::new();
    while answer.last() != Some(&b'\n') {
        if answer.len() == MAX_ANSWER {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the socket is not an enclave's",
            ));
        }
        match stream.read_u8().await {
            Ok(byte) => answer.push(byte),
            // The VMM closes what the enclave does not accept.
            Err(_) => return Err(io::ErrorKind::ConnectionRefused.into()),
        }
    }
    if answer.starts_with(b"OK ") {
        Ok(stream)
    } else {
        Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the socket is not an enclave's",
        ))
    }
}

fn watched(socket: impl Into<OwnedFd>) -> io::Result<UnixStream> {
    let socket: OwnedFd = socket.into();
    rustix::io::ioctl_fionbio(&socket, true)?;
    UnixStream::from_std(socket.into())
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vsock(port) => write!(f, "vsock port {port}"),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

impl fmt::Display for EnclaveAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vsock { cid, port } => write!(f, "port {port} of CID {cid}"),
            Self::Unix { socket, port } => write!(f, "port {port} behind {}", socket.display()),
        }
    }
}
