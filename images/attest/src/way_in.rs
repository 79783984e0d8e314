//! The parent's way into an enclave: `AF_VSOCK`, as on AWS, or a Unix socket.
//!
//! With `AF_VSOCK`, the enclave's address is its CID. Otherwise it is the socket `vsock.sock` in the enclave's directory: to
//! connect to the enclave's port P, connect to that, write `CONNECT P` and a line feed, and read `OK` and a number on a line; the
//! stream is then the enclave's. If nobody listens on the port, the connection ends instead.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use vsock::VsockStream;

/// The longest line that is read as an answer.
const LINE_LIMIT: usize = 64;
/// How often an application that starts is asked whether it listens by now.
const INTERVAL: Duration = Duration::from_millis(100);

/// Where an enclave is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Enclave {
    /// At this CID.
    Cid(u32),
    /// At this socket.
    Socket(PathBuf),
}

impl fmt::Display for Enclave {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cid(cid) => write!(f, "CID {cid}"),
            Self::Socket(path) => path.display().fmt(f),
        }
    }
}

/// Connects to a port of the enclave. An application that has not begun to listen is waited for up to `patience`: a booted
/// enclave is one whose init has started. `limit` is how long each read and write may take from then on.
pub fn connect(
    enclave: &Enclave,
    port: u32,
    patience: Duration,
    limit: Duration,
) -> Result<UnixStream, ConnectError> {
    let start = Instant::now();
    loop {
        let attempt = match enclave {
            Enclave::Cid(cid) => by_cid(*cid, port, limit),
            Enclave::Socket(path) => by_socket(path, port, limit),
        };
        match attempt {
            Err(ConnectError::NobodyListens(_)) if start.elapsed() < patience => thread::sleep(INTERVAL),
            result => return result,
        }
    }
}

fn by_cid(cid: u32, port: u32, limit: Duration) -> Result<UnixStream, ConnectError> {
    let stream = VsockStream::connect_with_cid_port(cid, port).map_err(|error| match error.kind() {
        ErrorKind::ConnectionReset => ConnectError::NobodyListens(port),
        _ => error.into(),
    })?;
    // What is read and written are bytes, whatever the family.
    let stream = UnixStream::from(stream.as_fd().try_clone_to_owned()?);
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    Ok(stream)
}

fn by_socket(socket: &Path, port: u32, limit: Duration) -> Result<UnixStream, ConnectError> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    let answer = stream
        .write_all(format!("CONNECT {port}\n").as_bytes())
        .and_then(|()| read_line(&mut stream));
    let line = match answer {
        Err(error) if [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe].contains(&error.kind()) => {
            String::new()
        }
        answer => answer?,
    };
    match line.strip_prefix("OK ").map(str::parse::<u32>) {
        Some(Ok(_)) => Ok(stream),
        _ if line.is_empty() => Err(ConnectError::NobodyListens(port)),
        _ => Err(ConnectError::Answer(line)),
    }
}

/// Reads up to a line feed, the end of the stream or [`LINE_LIMIT`]; byte by byte, because what follows is the enclave's.
fn read_line(stream: &mut impl Read) -> io::Result<String> {
    let mut line = Vec::new();
    let mut byte = [0];
    while line.len() < LINE_LIMIT && stream.read(&mut byte)? == 1 && byte != *b"\n" {
        line.extend_from_slice(&byte);
    }
    Ok(String::from_utf8_lossy(&line).into_owned())
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Of the socket: there is no such enclave, or it may not be used.
    #[error(transparent)]
    Socket(#[from] io::Error),
    /// The enclave is there, and nothing in it listens on the port.
    #[error("nothing in the enclave listens on vsock port {0}")]
    NobodyListens(u32),
    /// Whoever listens at the socket is no enclave.
    #[error("the answer to CONNECT is {0:?}")]
    Answer(String),
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    const LIMIT: Duration = Duration::from_mins(1);

    /// Connects to a listener that gives these answers, one for each connection.
    fn outcome(answers: &[&str], patience: Duration) -> Result<String, ConnectError> {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("vsock.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let serve = || {
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                assert_eq!(read_line(&mut stream).unwrap(), "CONNECT 5000");
                stream.write_all(answer.as_bytes()).unwrap();
            }
        };
        thread::scope(|scope| {
            scope.spawn(serve);
            let mut stream = connect(&Enclave::Socket(socket), 5000, patience, LIMIT)?;
            let mut rest = String::new();
            stream.read_to_string(&mut rest).unwrap();
            Ok(rest)
        })
    }

    #[test]
    fn the_stream_begins_after_the_line() {
        assert_eq!(outcome(&["OK 1024\nrest\n"], Duration::ZERO).unwrap(), "rest\n");
    }

    #[test]
    fn an_application_that_starts_is_waited_for() {
        assert_eq!(outcome(&["", "", "OK 7\nhello"], LIMIT).unwrap(), "hello");
        let error = outcome(&[""], Duration::ZERO).unwrap_err();
        assert!(matches!(error, ConnectError::NobodyListens(5000)), "{error}");
    }

    #[test]
    fn other_answers_are_refused_at_once() {
        const LONG: &str = "OK 1111111111111111111111111111111111111111111111111111111111111111111111";
        for answers in [&["NO\n"], &["OK\n"], &["OK x\n"], &["OK 99999999999\n"], &[LONG]] {
            let error = outcome(answers, LIMIT).unwrap_err();
            assert!(matches!(error, ConnectError::Answer(_)), "{answers:?}: {error}");
        }
    }

    #[test]
    fn no_socket_is_an_error_at_once() {
        let error = connect(&Enclave::Socket("/nowhere/vsock.sock".into()), 5000, LIMIT, LIMIT).unwrap_err();
        assert!(matches!(error, ConnectError::Socket(error) if error.kind() == ErrorKind::NotFound));
    }
}
