//! The heartbeat by which an enclave says that it has booted.
//!
//! The enclave's init connects to its parent's vsock port 9000, sends the byte 0xB7 and expects it back
//! (aws-nitro-enclaves-sdk-bootstrap, `init.c`). Each enclave's is listened for apart, by a socket of its own or by
//! its CID (`own_port`), so that enclaves can boot at the same time and none answers for another.

use std::io;
use std::time::Duration;

use api::{HEARTBEAT_BYTE, HEARTBEAT_PORT};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::own_port::{ListenError, OwnPort, Way};

const GIB: u128 = 1 << 30;

/// Why a heartbeat is not one.
#[derive(Debug, thiserror::Error)]
pub enum HeartbeatError {
    /// The enclave sent something else.
    #[error("the enclave's first byte was {0:#04x} instead of {HEARTBEAT_BYTE:#04x}")]
    WrongByte(u8),
    /// The connection failed.
    #[error("the heartbeat connection failed")]
    Io(#[from] io::Error),
}

/// One enclave's heartbeat listener. Dropping it lets go of the port.
#[derive(Debug)]
pub(crate) struct Heartbeat(OwnPort);

impl Heartbeat {
    /// Listens where the enclave calls its parent. Must be called on a Tokio runtime.
    ///
    /// # Errors
    /// [`ListenError`].
    pub(crate) fn listen(way: Way<'_>) -> Result<Self, ListenError> {
        OwnPort::listen(way, HEARTBEAT_PORT).map(Self)
    }

    /// Returns when the enclave has sent its heartbeat and got it back. A connection that closes without a word
    /// does not count.
    ///
    /// # Errors
    /// [`HeartbeatError`].
    pub(crate) async fn heard(&mut self) -> Result<(), HeartbeatError> {
        loop {
            let mut stream = self.0.accept().await?;
            let mut byte = [0];
            if stream.read(&mut byte).await? == 0 {
                continue;
            }
            if byte != [HEARTBEAT_BYTE] {
                return Err(HeartbeatError::WrongByte(byte[0]));
            }
            stream.write_all(&byte).await?;
            return Ok(());
        }
    }
}

/// How long AWS's nitro-cli waits for the heartbeat: 90 s for every 6 GiB of image begun and 90 s for every 100 GiB of
/// memory begun, so never less than 180 s.
pub fn time_limit(image_bytes: u64, memory_bytes: u64) -> Duration {
    let begun = |bytes: u64, unit: u128| 1 + u128::from(bytes.saturating_sub(1)) / unit;
    let seconds = 90 * (begun(image_bytes, 6 * GIB) + begun(memory_bytes, 100 * GIB));
    Duration::from_secs(u64::try_from(seconds).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_limit_grows_with_image_and_memory_as_on_aws() {
        let gib = 1_u64 << 30;
        for (image, memory, seconds) in [
            (0, 0, 180),
            (1, 64 << 20, 180),
            (6 * gib, 100 * gib, 180),
            (6 * gib + 1, gib, 270),
            (1, 100 * gib + 1, 270),
            (13 * gib, 250 * gib, 540),
        ] {
            assert_eq!(time_limit(image, memory).as_secs(), seconds, "{image} {memory}");
        }
        assert!(time_limit(u64::MAX, u64::MAX).as_secs() > 180);
    }
}
