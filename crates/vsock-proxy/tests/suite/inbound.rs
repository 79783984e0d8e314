//! From clients to enclaves. A listener that answers `CONNECT` stands for the VMM.

use std::io::ErrorKind;
use std::path::Path;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpStream, UnixListener, UnixStream};

use super::proxy::{Proxy, limited, pattern, read_all};

/// A proxy from a TCP port of this machine, which is returned, to port 5000 of an enclave whose sockets are in a directory.
fn started(directory: &Path) -> (Proxy, u16) {
    let socket = directory.join("vsock.sock");
    Proxy::start_inbound(&format!(
        "targets: [{{inbound: '127.0.0.1:0', enclave_socket: {}, enclave_port: 5000}}]\n",
        socket.display()
    ))
}

/// The next connection to the enclave, with the line it begins with.
async fn accepted(vmm: &UnixListener) -> (UnixStream, String) {
    let (mut stream, _) = vmm.accept().await.unwrap();
    let mut line = String::new();
    // Nothing follows the line before it is answered.
    BufReader::new(&mut stream).read_line(&mut line).await.unwrap();
    (stream, line)
}

#[test]
fn clients_reach_an_enclave_and_both_ends_are_passed_on() {
    limited(async {
        let directory = tempfile::tempdir().unwrap();
        let (_proxy, port) = started(directory.path());
        let vmm = UnixListener::bind(directory.path().join("vsock.sock")).unwrap();
        let mut client = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        client
            .write_all(b"sent before the enclave has accepted")
            .await
            .unwrap();
        client.shutdown().await.unwrap();

        let (mut enclave, line) = accepted(&vmm).await;
        assert_eq!(line, "CONNECT 5000\n");
        // The enclave may speak first, in the same packet.
        enclave.write_all(b"OK 1073741824\nhello ").await.unwrap();
        let mut question = Vec::new();
        enclave.read_to_end(&mut question).await.unwrap();
        assert_eq!(question, b"sent before the enclave has accepted");
        let answer = pattern(1 << 20, 1);
        enclave.write_all(&answer).await.unwrap();
        drop(enclave);

        let got = read_all(&mut client).await;
        assert!(got[..6] == *b"hello " && got[6..] == answer);
    });
}

#[test]
fn an_enclave_that_is_not_there_or_does_not_accept_closes_the_client_and_is_found_when_it_is() {
    limited(async {
        let directory = tempfile::tempdir().unwrap();
        let (mut proxy, port) = started(directory.path());
        let mut client = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        assert_eq!(read_all(&mut client).await, b"");

        let vmm = UnixListener::bind(directory.path().join("vsock.sock")).unwrap();
        for answer in [
            "",
            "NO\n",
            "something that is much longer than any answer of an enclave's",
        ] {
            let mut client = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            let (mut enclave, _) = accepted(&vmm).await;
            enclave.write_all(answer.as_bytes()).await.unwrap();
            drop(enclave);
            assert_eq!(read_all(&mut client).await, b"", "{answer}");
        }

        let mut client = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let (mut enclave, _) = accepted(&vmm).await;
        enclave.write_all(b"OK 1\nhere").await.unwrap();
        drop(enclave);
        assert_eq!(read_all(&mut client).await, b"here");
        assert!(proxy.runs());
    });
}

#[test]
fn an_enclave_whose_connection_breaks_is_no_orderly_end_for_its_client() {
    limited(async {
        let directory = tempfile::tempdir().unwrap();
        let (_proxy, port) = started(directory.path());
        let vmm = UnixListener::bind(directory.path().join("vsock.sock")).unwrap();
        let mut client = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let (mut enclave, _) = accepted(&vmm).await;
        enclave.write_all(b"OK 1\nhalf of ").await.unwrap();
        let mut got = [0; 8];
        client.read_exact(&mut got).await.unwrap();
        client.write_all(b"never read").await.unwrap();
        enclave.readable().await.unwrap();
        // With bytes that were not read, which breaks it.
        drop(enclave);

        let broken = client.read_to_end(&mut Vec::new()).await.unwrap_err();
        assert_eq!(broken.kind(), ErrorKind::ConnectionReset);
    });
}
