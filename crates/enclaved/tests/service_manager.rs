//! The daemon under a service manager, which the tests play: a socket that was passed, and what the daemon says.
#![expect(clippy::unwrap_used, reason = "a failed test panics")]

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use api::{Reply, Request, frame};
use rustix::process::{Pid, Signal};

/// What a broken test waits for before it fails; no working test comes near.
const PATIENCE: Duration = Duration::from_secs(20);

/// Moves standard input to the first descriptors that a service manager passes, and becomes the daemon.
const PASS_SOCKETS: &str = r#"
    n=$1; shift
    exec 3<&0 </dev/null
    [ "$n" -eq 1 ] || exec 4<&3
    LISTEN_PID=$$ LISTEN_FDS=$n exec "$@"
"#;

/// The daemon with `socket` passed to it `count` times.
fn daemon_with(socket: OwnedFd, count: usize, run_directory: &Path) -> Command {
    let mut command = Command::new("sh");
    command.args([
        "-c",
        PASS_SOCKETS,
        "sh",
        &count.to_string(),
        env!("CARGO_BIN_EXE_enclaved"),
    ]);
    command.args([
        "--foreground",
        "--vmm",
        "/bin/true",
        "--no-audit-log",
        "--run-directory",
    ]);
    command.arg(run_directory);
    command
        .env_remove("RUST_LOG")
        .stdin(Stdio::from(socket))
        .stderr(Stdio::piped());
    command
}

fn refusal(socket: OwnedFd, count: usize) -> String {
    let run = tempfile::tempdir().unwrap();
    let Output { status, stderr, .. } = daemon_with(socket, count, run.path()).output().unwrap();
    assert_eq!(status.code(), Some(1));
    String::from_utf8(stderr).unwrap()
}

fn terminate(daemon: &Child) {
    let pid = Pid::from_raw(i32::try_from(daemon.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, Signal::TERM).unwrap();
}

/// Where the daemon's messages arrive.
fn notify_socket(directory: &Path) -> UnixDatagram {
    let socket = UnixDatagram::bind(directory.join("notify")).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

fn message(socket: &UnixDatagram) -> String {
    let mut bytes = [0; 1024];
    let length = socket.recv(&mut bytes).unwrap();
    String::from_utf8(bytes[..length].to_vec()).unwrap()
}

#[test]
fn a_passed_socket_serves_those_who_came_before_the_daemon_and_outlives_it() {
    let directory = tempfile::tempdir().unwrap();
    let (run, socket) = (directory.path().join("run"), directory.path().join("passed.sock"));
    let listener = UnixListener::bind(&socket).unwrap();
    let mut early = UnixStream::connect(&socket).unwrap();
    early.set_read_timeout(Some(PATIENCE)).unwrap();
    early
        .write_all(&frame::encode(&Request::DescribeEnclaves).unwrap())
        .unwrap();
    early.shutdown(Shutdown::Write).unwrap();

    let mut daemon = daemon_with(listener.into(), 1, &run).spawn().unwrap();

    let mut bytes = Vec::new();
    early.read_to_end(&mut bytes).unwrap();
    let reply: Reply = frame::decode(&bytes[frame::HEADER_LEN..]).unwrap();
    assert_eq!(reply, Reply::Enclaves(vec![]));
    assert!(
        !run.join("enclaved.sock").exists(),
        "it needs no socket of its own"
    );
    terminate(&daemon);
    assert!(daemon.wait().unwrap().success());
    assert!(socket.exists());
}

#[test]
fn a_socket_at_the_usual_path_stays_if_it_was_passed() {
    let run = tempfile::tempdir().unwrap();
    let socket = run.path().join("enclaved.sock");
    let notified = notify_socket(run.path());
    let listener = UnixListener::bind(&socket).unwrap();
    let mut command = daemon_with(listener.into(), 1, run.path());
    let mut daemon = command
        .env("NOTIFY_SOCKET", run.path().join("notify"))
        .spawn()
        .unwrap();
    assert_eq!(message(&notified), "READY=1\n");

    terminate(&daemon);

    assert!(daemon.wait().unwrap().success());
    assert!(socket.exists());
}

#[test]
fn what_cannot_be_the_client_socket_is_refused() {
    let (pipe, _) = rustix::pipe::pipe().unwrap();
    let (datagram, _) = UnixDatagram::pair().unwrap();
    for wrong in [pipe, datagram.into()] {
        let told = refusal(wrong, 1);
        assert!(told.contains("cannot be the client socket"), "{told}");
    }
    let (connected, _) = UnixStream::pair().unwrap();
    let told = refusal(connected.into(), 1);
    assert!(told.contains("does not listen"), "{told}");

    let directory = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(directory.path().join("socket")).unwrap();
    let told = refusal(listener.into(), 2);
    assert!(told.contains("passed 2 sockets"), "{told}");
}

#[test]
fn the_manager_hears_of_readiness_of_life_and_of_the_end() {
    let run = tempfile::tempdir().unwrap();
    let notified = notify_socket(run.path());
    let mut daemon = Command::new(env!("CARGO_BIN_EXE_enclaved"))
        .args([
            "--foreground",
            "--vmm",
            "/bin/true",
            "--no-audit-log",
            "--run-directory",
        ])
        .arg(run.path())
        .env("NOTIFY_SOCKET", run.path().join("notify"))
        .env("WATCHDOG_USEC", "200000")
        .stderr(Stdio::null())
        .spawn()
        .unwrap();

    assert_eq!(message(&notified), "READY=1\n");
    UnixStream::connect(run.path().join("enclaved.sock")).unwrap();
    for _ in 0..5 {
        assert_eq!(message(&notified), "WATCHDOG=1\nSTATUS=no enclave runs\n");
    }

    terminate(&daemon);
    assert!(daemon.wait().unwrap().success());
    let mut last = String::new();
    while !last.contains("STOPPING") {
        last = message(&notified);
    }
    assert_eq!(last, "STOPPING=1\n");
}
