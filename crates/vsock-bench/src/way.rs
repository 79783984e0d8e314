//! The parent's way to and from a guest: `AF_VSOCK`, or Unix sockets in the convention of the Unix backend.
//!
//! Streams have the type of Unix ones in either case: nothing is asked of them but bytes, ends and time limits.

use std::{
    fs,
    io::{self, Read, Write},
    os::{
        fd::AsFd,
        unix::net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use vsock::{VMADDR_CID_ANY, VsockListener, VsockStream};

/// How programs of the parent reach the guest.
#[derive(Debug, Clone)]
pub(crate) enum Kind {
    /// `AF_VSOCK`, the guest's CID.
    Vsock(u32),
    /// The directory with `vsock.sock`.
    Unix(PathBuf),
}

/// The way to one guest.
#[derive(Debug, Clone)]
pub(crate) struct Way {
    pub(crate) kind: Kind,
    /// How long one read, write or accept may take: a hang becomes an error.
    pub(crate) limit: Duration,
}

/// Where the guest's connections to one port arrive.
#[derive(Debug)]
pub(crate) enum Listener {
    Vsock(VsockListener),
    Unix(UnixListener),
}

impl Way {
    /// Connects to a port of the guest.
    pub(crate) fn connect(&self, port: u32) -> io::Result<UnixStream> {
        match &self.kind {
            Kind::Vsock(cid) => self.limited(VsockStream::connect_with_cid_port(*cid, port)?),
            Kind::Unix(directory) => {
                let mut stream = self.limited(UnixStream::connect(directory.join("vsock.sock"))?)?;
                stream.write_all(format!("CONNECT {port}\n").as_bytes())?;
                acknowledged(&mut stream)?;
                Ok(stream)
            }
        }
    }

    /// Listens at a port of the parent.
    pub(crate) fn listen(&self, port: u32) -> io::Result<Listener> {
        let listener = match &self.kind {
            Kind::Vsock(_) => Listener::Vsock(VsockListener::bind_with_cid_port(VMADDR_CID_ANY, port)?),
            Kind::Unix(directory) => {
                Listener::Unix(listen_anew(&directory.join(format!("vsock.sock_{port}")))?)
            }
        };
        let socket = match &listener {
            Listener::Vsock(listener) => listener.as_fd(),
            Listener::Unix(listener) => listener.as_fd(),
        };
        set_socket_timeout(socket, Timeout::Recv, Some(self.limit))?;
        Ok(listener)
    }

    /// The next connection.
    pub(crate) fn accept(&self, listener: &Listener) -> io::Result<UnixStream> {
        match listener {
            Listener::Vsock(listener) => self.limited(listener.accept()?.0),
            Listener::Unix(listener) => self.limited(listener.accept()?.0),
        }
    }

    fn limited(&self, stream: impl AsFd) -> io::Result<UnixStream> {
        let stream = UnixStream::from(stream.as_fd().try_clone_to_owned()?);
        stream.set_read_timeout(Some(self.limit))?;
        stream.set_write_timeout(Some(self.limit))?;
        Ok(stream)
    }
}

/// The name may be left from the guest before this one.
fn listen_anew(path: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => UnixListener::bind(path),
    }
}

/// Reads the line `OK <port>`, which comes as a whole.
fn acknowledged(stream: &mut UnixStream) -> io::Result<()> {
    let mut line = [0; 32];
    let length = stream.read(&mut line)?;
    match line.get(..length).unwrap_or_default() {
        [b'O', b'K', b' ', .., b'\n'] => Ok(()),
        _ => Err(io::ErrorKind::ConnectionReset.into()),
    }
}
