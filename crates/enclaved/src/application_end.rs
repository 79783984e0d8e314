//! How an enclave's application ended, as its init says it.
//!
//! Before init reboots, it connects to its parent's vsock port 9001, writes one line, `exited <code>` or
//! `killed <signal>`, and waits a moment for the line feed that answers it. So the line is here before the VMM says that the
//! guest has reset itself. AWS's init says nothing. What a guest says is a claim: it is shown, and nothing depends on it.

use std::io;
use std::time::Duration;

use api::{APPLICATION_END_PORT, ApplicationEnd};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::own_port::{ListenError, OwnPort, Way};

/// The longest line, with its end, in bytes.
const LONGEST_LINE: usize = 24;

/// How long a connection may take to say something.
const LINE_WITHIN: Duration = Duration::from_secs(2);

/// Pause after accepting failed, which means that descriptors or memory are short.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// One enclave's listener. Dropping it lets go of the port.
#[derive(Debug)]
pub(crate) struct ApplicationEndListener(OwnPort);

impl ApplicationEndListener {
    /// Listens where the enclave calls its parent. Must be called on a Tokio runtime.
    ///
    /// # Errors
    /// [`ListenError`].
    pub(crate) fn listen(way: Way<'_>) -> Result<Self, ListenError> {
        OwnPort::listen(way, APPLICATION_END_PORT).map(Self)
    }

    /// One that never hears anything.
    pub(crate) fn deaf() -> Self {
        Self(OwnPort::of_nobody())
    }

    /// Returns when the enclave has said how its application ended. A connection that says anything else does not count,
    /// and none is waited for longer than a moment.
    pub(crate) async fn heard(&mut self) -> ApplicationEnd {
        loop {
            let Ok(stream) = self.0.accept().await else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            if let Ok(Ok(Some(end))) = tokio::time::timeout(LINE_WITHIN, hear(stream)).await {
                return end;
            }
        }
    }
}

async fn hear(mut stream: UnixStream) -> io::Result<Option<ApplicationEnd>> {
    let mut line = Vec::new();
    while line.len() < LONGEST_LINE && line.last() != Some(&b'\n') {
        let byte = stream.read_u8().await?;
        line.push(byte);
    }
    let end = parse(&line);
    if end.is_some() {
        // Without an answer init waits a moment longer, and nothing else.
        let _ = stream.write_all(b"\n").await;
    }
    Ok(end)
}

fn parse(line: &[u8]) -> Option<ApplicationEnd> {
    let (kind, number) = std::str::from_utf8(line)
        .ok()?
        .strip_suffix('\n')?
        .split_once(' ')?;
    let number: u8 = number.parse().ok()?;
    match kind {
        "exited" => Some(ApplicationEnd::Exited(number)),
        "killed" => Some(ApplicationEnd::Killed(number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lines() {
        assert_eq!(parse(b"exited 3\n"), Some(ApplicationEnd::Exited(3)));
        assert_eq!(parse(b"killed 9\n"), Some(ApplicationEnd::Killed(9)));
        for other in [
            "",
            "\n",
            "exited\n",
            "exited 256\n",
            "exited -1\n",
            "exited 3",
            "left 3\n",
            "exited  3\n",
        ] {
            assert_eq!(parse(other.as_bytes()), None, "{other:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_or_refused(bytes: Vec<u8>) {
            let _ = parse(&bytes);
        }
    }

    #[tokio::test]
    async fn silent_and_talkative_connections_hold_nobody_up() {
        let parent = tempfile::tempdir().unwrap();
        let run_directory = crate::run_directory::RunDirectory::open(parent.path(), None).unwrap();
        let directory = run_directory
            .create_enclave(&"i-0-enc1".parse().unwrap(), None)
            .unwrap();
        let mut listener = ApplicationEndListener::listen(Way::Directory(&directory)).unwrap();
        let path = directory.port_path(APPLICATION_END_PORT);
        let guest = tokio::spawn(async move {
            let _silent = UnixStream::connect(&path).await.unwrap();
            let mut talkative = UnixStream::connect(&path).await.unwrap();
            talkative.write_all(&[b'x'; 1000]).await.unwrap();
            let mut init = UnixStream::connect(&path).await.unwrap();
            init.write_all(b"exited 42\n").await.unwrap();
            init.read_u8().await.unwrap()
        });

        assert_eq!(listener.heard().await, ApplicationEnd::Exited(42));
        assert_eq!(guest.await.unwrap(), b'\n');
    }
}
