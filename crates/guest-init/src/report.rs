//! Telling the parent how the application ended, before the enclave is gone.
//!
//! One line to the parent's vsock port 9001, `exited <code>` or `killed <signal>`, and a moment's wait for the byte that
//! answers it, so that the parent has it before it sees the reset. Nobody has to listen: AWS's parent does not.

use std::fs::File;
use std::io::{self, Read, Write};
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use crate::heartbeat::PARENT_CID;
use crate::reap::Ended;
use crate::sys::connect_vsock;

/// Where the parent listens for the end of applications.
const PORT: u32 = 9001;
/// How long the parent may take to accept the connection. A parent that does not listen refuses at once.
const CONNECT_SECONDS: i64 = 2;
/// How long it may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// Says how the application ended. Whether anybody hears it changes nothing.
pub(crate) fn tell_parent(ended: Ended) {
    // Nothing is said of a failure: the console has the same news already.
    let _ = send(ended);
}

fn send(ended: Ended) -> io::Result<()> {
    let socket = socket_with(
        AddressFamily::VSOCK,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    connect_vsock(&socket, PARENT_CID, PORT, CONNECT_SECONDS)?;
    set_socket_timeout(&socket, Timeout::Recv, Some(ANSWER_WITHIN))?;
    exchange(&mut File::from(socket), ended)
}

fn exchange(stream: &mut (impl Read + Write), ended: Ended) -> io::Result<()> {
    stream.write_all(line(ended).as_bytes())?;
    stream.read_exact(&mut [0])
}

fn line(ended: Ended) -> String {
    match ended {
        Ended::Exited(code) => format!("exited {code}\n"),
        Ended::Killed(signal) => format!("killed {signal}\n"),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn the_line_is_what_the_parent_expects_and_its_answer_is_waited_for() {
        for (ended, said) in [
            (Ended::Exited(0), "exited 0\n"),
            (Ended::Exited(255), "exited 255\n"),
            (Ended::Killed(9), "killed 9\n"),
        ] {
            let (mut enclave, mut parent) = UnixStream::pair().unwrap();
            parent.write_all(b"\n").unwrap();
            exchange(&mut enclave, ended).unwrap();
            drop(enclave);
            let mut line = String::new();
            parent.read_to_string(&mut line).unwrap();
            assert_eq!(line, said);
        }
    }

    #[test]
    fn a_parent_that_hangs_up_is_no_obstacle() {
        let (mut enclave, parent) = UnixStream::pair().unwrap();
        drop(parent);
        assert!(exchange(&mut enclave, Ended::Exited(1)).is_err());
    }
}
