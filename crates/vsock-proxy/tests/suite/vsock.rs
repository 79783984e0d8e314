//! The kernel's own vsock, on machines that have it. `cargo xtask test` counts these as skipped.

use std::io::{Read, Write};
use std::process::{Child, Stdio};
use std::thread;
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};

use super::proxy::{echo_server, program};

/// This machine, by way of `vsock_loopback`.
const LOCAL_CID: u32 = 1;

/// The proxy at a vsock port.
fn started(local: u32, remote: u16, directory: &tempfile::TempDir) -> Child {
    let file = directory.path().join("allowlist.yaml");
    std::fs::write(
        &file,
        format!("allowlist: [{{address: 127.0.0.1, port: {remote}}}]"),
    )
    .unwrap();
    let mut command = program();
    command.arg("--config").arg(&file);
    command.args([&local.to_string(), "127.0.0.1", &remote.to_string()]);
    command.stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
#[ignore = "needs AF_VSOCK: a kernel with any vsock transport"]
fn a_vsock_port_that_somebody_else_has_is_exit_code_1() {
    let directory = tempfile::tempdir().unwrap();
    let taken = Socket::new(Domain::VSOCK, Type::STREAM, None).unwrap();
    taken.bind(&SockAddr::vsock(u32::MAX, 18_000)).unwrap();
    taken.listen(1).unwrap();

    let output = started(18_000, 9000, &directory).wait_with_output().unwrap();

    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    let expected = "Error: \"Could not listen for connections: Could not bind to vsock port 18000: Address already in use";
    assert!(said.starts_with(expected), "{said}");
}

#[tokio::test]
#[ignore = "needs the module vsock_loopback"]
async fn a_vsock_client_reaches_a_server_and_each_end_is_passed_on() {
    let directory = tempfile::tempdir().unwrap();
    let mut proxy = started(18_001, echo_server("127.0.0.1").await, &directory);

    let echoed = tokio::task::spawn_blocking(|| {
        let connect = || -> std::io::Result<Socket> {
            let client = Socket::new(Domain::VSOCK, Type::STREAM, None)?;
            client.connect(&SockAddr::vsock(LOCAL_CID, 18_001))?;
            Ok(client)
        };
        let mut client = loop {
            match connect() {
                Ok(client) => break client,
                Err(_) => thread::sleep(Duration::from_millis(20)),
            }
        };
        client.write_all(&[7; 100_000]).unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        let mut echoed = Vec::new();
        client.read_to_end(&mut echoed).unwrap();
        echoed
    });
    assert!(echoed.await.unwrap() == [7; 100_000]);
    proxy.kill().unwrap();
    proxy.wait().unwrap();
}
