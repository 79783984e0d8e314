//! The heartbeat: the one sign by which the parent instance knows that the enclave has booted.
//!
//! The enclave connects to the parent, vsock CID 3 port 9000, writes one byte and must read the same byte back.

use std::fs::File;
use std::io::{self, Read, Write};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use crate::error::Error;
use crate::sys::connect_vsock;

/// The parent instance, as an enclave names it (`VMADDR_CID_PARENT`).
pub(crate) const PARENT_CID: u32 = 3;
/// Where the parent listens for heartbeats.
const PORT: u32 = 9000;
/// What is sent and must come back.
pub(crate) const BYTE: u8 = 0xb7;
/// How long the parent may take to accept the connection.
const CONNECT_SECONDS: i64 = 60;

/// Sends the heartbeat and waits for its answer.
pub(crate) fn exchange() -> Result<(), Error> {
    let failed = |action| {
        move |source: io::Error| Error::Heartbeat {
            action,
            cid: PARENT_CID,
            port: PORT,
            source,
        }
    };

    let socket = socket_with(
        AddressFamily::VSOCK,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )
    .map_err(io::Error::from)
    .map_err(failed("create a vsock socket"))?;
    connect_vsock(&socket, PARENT_CID, PORT, CONNECT_SECONDS).map_err(failed("connect"))?;

    let answer = echo(&mut File::from(socket)).map_err(failed("exchange the heartbeat byte"))?;
    if answer == BYTE {
        Ok(())
    } else {
        Err(Error::HeartbeatAnswer(answer))
    }
}

/// Writes the heartbeat byte and reads the answer.
fn echo(stream: &mut (impl Read + Write)) -> io::Result<u8> {
    stream.write_all(&[BYTE])?;
    let mut answer = [0];
    stream.read_exact(&mut answer)?;
    Ok(answer[0])
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn the_byte_goes_out_and_the_answer_comes_back() {
        let (mut enclave, mut parent) = UnixStream::pair().unwrap();
        parent.write_all(&[0x42]).unwrap();
        assert_eq!(echo(&mut enclave).unwrap(), 0x42);
        let mut sent = [0; 1];
        parent.read_exact(&mut sent).unwrap();
        assert_eq!(sent, [BYTE]);
    }

    #[test]
    fn a_parent_that_hangs_up_is_an_error() {
        let (mut enclave, parent) = UnixStream::pair().unwrap();
        parent.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(
            echo(&mut enclave).unwrap_err().kind(),
            io::ErrorKind::UnexpectedEof
        );
    }
}
