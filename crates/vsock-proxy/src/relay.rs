//! Two connections made one: what comes from either goes to the other, and so does its end.
//!
//! Each direction has one buffer and its own pace: nothing is read before the last is written, so that the slower end
//! decides, and memory does not grow. The end of one direction closes that direction alone. A connection that breaks
//! closes the other one; a TCP client is told that by a reset, so as not to take what it has for everything. `AF_VSOCK` has no
//! reset that one could send. It has one that is received, but in a form of its own: see [`Source`].

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream, tcp, unix};

use crate::counters::Counters;

/// A TCP peer that has vanished without a word is asked this often, after as long a silence, whether it is there, ...
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);

/// ... and is given up after as many questions without an answer. An enclave that vanishes is told of by the kernel.
const KEEPALIVE_QUESTIONS: u32 = 4;

/// Bytes on their way in one direction.
const BUFFER: usize = 32 << 10;

/// Where the bytes of one direction come from.
trait Source: AsyncRead + Unpin {
    /// Why the end that was read is none. When an enclave is gone, `AF_VSOCK` has its connections end like those that were ended
    /// in order, and leaves the error to whoever asks for it.
    fn take_error(&self) -> io::Result<Option<io::Error>>;
}

impl Source for unix::ReadHalf<'_> {
    fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.as_ref().take_error()
    }
}

impl Source for tcp::ReadHalf<'_> {
    fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.as_ref().take_error()
    }
}

/// Passes on until both directions have ended, or one connection breaks.
pub(crate) async fn relay(
    mut enclave: UnixStream,
    mut tcp: TcpStream,
    counters: &Counters,
) -> io::Result<()> {
    // Without: small messages wait for the answer to the last one.
    tcp.set_nodelay(true)?;
    SockRef::from(&tcp).set_tcp_keepalive(&keepalive())?;
    let relayed = {
        let (mut from_enclave, mut to_enclave) = enclave.split();
        let (mut from_tcp, mut to_tcp) = tcp.split();
        tokio::try_join!(
            pass_on(&mut from_enclave, &mut to_tcp, &counters.from_enclaves),
            pass_on(&mut from_tcp, &mut to_enclave, &counters.to_enclaves),
        )
    };
    if relayed.is_err() {
        tcp.set_zero_linger()?;
    }
    relayed.map(|_| ())
}

fn keepalive() -> TcpKeepalive {
    TcpKeepalive::new()
        .with_time(KEEPALIVE_INTERVAL)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_QUESTIONS)
}

async fn pass_on(
    from: &mut impl Source,
    to: &mut (impl AsyncWrite + Unpin),
    passed_on: &AtomicU64,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            return match from.take_error()? {
                Some(error) => Err(error),
                None => end(to).await,
            };
        }
        to.write_all(&buffer[..length]).await?;
        passed_on.fetch_add(length as u64, Ordering::Relaxed);
    }
}

/// The other end may have closed both directions already, which is no reason to drop what it has sent before.
async fn end(to: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
    match to.shutdown().await {
        Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
        ended => ended,
    }
}
