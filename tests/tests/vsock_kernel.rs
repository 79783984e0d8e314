// parent: --cpus 6 --memory 2G --hugepages-2m 384 --no-daemon --package socat --package python3-minimal -- --test-threads 1
//! Streams between an enclave and its parent over the parent's own kernel: programs on the parent use `AF_VSOCK`.

#![forbid(unsafe_code)]
#![expect(clippy::expect_used, reason = "a suite fails on the spot")]

mod vsock_cases;

use std::io::{Read, Write};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;

use end_to_end_tests::guest::{Address, Order, port};
use end_to_end_tests::vsock_socket::{PortListener, connect, order};
use end_to_end_tests::{Host, Launch, OwnDaemon, Running, World, eifs, poll, stream};
use rustix::process::Signal;
use vsock::{VMADDR_CID_ANY, VsockListener};
use vsock_cases::{MIB, echoing};

/// What daemons are told. Nothing: the kernel is the default where it has vhost-vsock.
const KERNEL: [&str; 0] = [];

/// What enclaves are started with.
const VSOCK: &[&str] = &[];

/// The daemon of all tests here, which ends with the machine.
fn daemon() -> MutexGuard<'static, OwnDaemon> {
    static DAEMON: OnceLock<Mutex<OwnDaemon>> = OnceLock::new();
    let daemon = DAEMON.get_or_init(|| Mutex::new(OwnDaemon::start(&KERNEL)));
    daemon.lock().unwrap_or_else(PoisonError::into_inner)
}

fn host() -> Host {
    Host::at(daemon().host().run_directory())
}

/// Sends and receives 1 MiB over `AF_VSOCK`, to the CID and port in its arguments.
const PYTHON_CLIENT: &str = r#"
import socket, sys, threading
s = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
s.connect((int(sys.argv[1]), int(sys.argv[2])))
data = bytes(range(256)) * 4096
def send():
    s.sendall(data)
    s.shutdown(socket.SHUT_WR)
threading.Thread(target=send).start()
got = b""
while piece := s.recv(65536):
    got += piece
print("same" if got == data else f"{len(got)} bytes differ")
"#;

/// Echoes on one connection to the port in its argument, and prints the caller's CID.
const PYTHON_SERVER: &str = r#"
import socket, sys
s = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
s.bind((socket.VMADDR_CID_ANY, int(sys.argv[1])))
s.listen()
print("listening", flush=True)
c, (cid, _) = s.accept()
while piece := c.recv(65536):
    c.sendall(piece)
print("from", cid, flush=True)
"#;

fn python(script: &str) -> Command {
    let mut python = Command::new("python3");
    python.args(["-c", script]);
    python
}

fn exchange(to: Address, bytes: u64) -> Order {
    Order::Exchange {
        to,
        connections: 1,
        bytes,
    }
}

#[test]
fn programs_of_the_parent_use_af_vsock_and_the_enclave_uses_cid_3() {
    const PORT: u32 = 5005;
    let host = host();
    let _world = World::enter();
    let enclave = echoing(&host);

    let (cid, echo) = (enclave.cid().to_string(), port::ECHO.to_string());
    let client = end_to_end_tests::run(python(PYTHON_CLIENT).args([&cid, &echo]));
    assert_eq!(client.succeeded().stdout, "same\n");

    for parent in [3, 2] {
        let mut server = Running::start(python(PYTHON_SERVER).arg(PORT.to_string()));
        server.wait_for("listening");
        let to = Address {
            cid: parent,
            port: PORT,
        };
        let answer = order(&enclave, exchange(to, MIB)).expect("an answer");
        assert_eq!(answer, "exchanged", "to CID {parent}");
        server.wait_for(&format!("from {cid}\n"));
        let _ = server.finish().succeeded();
    }
}

#[test]
fn socat_connects_and_listens() {
    const PORT: u32 = 5006;
    let host = host();
    let _world = World::enter();
    let enclave = echoing(&host);

    let script = format!(
        "echo over socat | socat -t 60 - VSOCK-CONNECT:{}:{}",
        enclave.cid(),
        port::ECHO
    );
    let client = end_to_end_tests::run(Command::new("sh").args(["-c", &script]));
    assert_eq!(client.succeeded().stdout, "over socat\n");

    let listen = format!("VSOCK-LISTEN:{PORT}");
    let server = Running::start(Command::new("socat").args([&listen, "EXEC:cat"]));
    let to = Address { cid: 3, port: PORT };
    // It does not say when it listens.
    poll::until("socat to listen", || {
        let answer = order(&enclave, exchange(to, MIB)).expect("an answer");
        (answer == "exchanged").then_some(())
    });
    let _ = server.finish().succeeded();
}

#[test]
fn two_enclaves_boot_at_once_and_each_has_its_own_traffic() {
    let host = host();
    let _world = World::enter();
    let enclaves = thread::scope(|scope| {
        let boot = || {
            Launch::of(eifs::of_application("vsock-echo", &[]))
                .in_debug_mode()
                .run(&host)
        };
        let both = [scope.spawn(boot), scope.spawn(boot)];
        both.map(|booting| booting.join().expect("no panic"))
    });
    assert_ne!(enclaves[0].cid(), enclaves[1].cid());

    thread::scope(|scope| {
        for (enclave, number) in enclaves.iter().zip(0..) {
            enclave.console().wait_for("vsock-echo: ready");
            let listener = PortListener::bind(enclave, 6100 + number).expect("listen");
            listener.echo_in_background(4).expect("echo");
            let to = Address {
                cid: 3,
                port: 6100 + number,
            };
            let out = Order::Exchange {
                to,
                connections: 4,
                bytes: 4 * MIB,
            };
            scope.spawn(move || {
                let into = stream::open(4, || connect(enclave, port::ECHO)).expect("connect");
                stream::exchange_at_once(into, 1 + 10 * u64::from(number), 4 * MIB).expect("the same back");
                assert_eq!(order(enclave, out).expect("an answer"), "exchanged");
                drop(listener);
            });
        }
    });
    for enclave in enclaves {
        enclave.terminate();
    }
}

#[test]
fn streams_outlive_the_daemon_whatever_the_next_one_is_told() {
    let host = host();
    let enclave = echoing(&host);
    let mut open = connect(&enclave, port::ECHO).expect("connect");
    let mut echo = |byte| {
        open.write_all(&[byte]).expect("send");
        let mut answer = [0];
        open.read_exact(&mut answer).expect("receive");
        assert_eq!(answer, [byte]);
    };
    echo(1);

    let mut daemon = daemon();
    daemon.end_with(Signal::KILL);
    echo(2);
    stream::exchange(connect(&enclave, port::ECHO).expect("connect"), 1, MIB).expect("the same back");
    daemon.start_next(&["--vsock", "unix"]);
    echo(3);
    assert_eq!(host.describe().len(), 1);
    daemon.end_with(Signal::TERM);
    // Somebody else has the ports meanwhile: no reason to end an enclave that runs.
    let other = VsockListener::bind_with_cid_port(VMADDR_CID_ANY, 9001).expect("listen");
    daemon.start_next(&KERNEL);
    assert_eq!(host.describe().len(), 1);
    echo(4);
    drop(other);
    daemon.end_with(Signal::TERM);
    daemon.start_next(&KERNEL);
    echo(5);
    enclave.terminate();
}

#[test]
fn a_second_daemon_is_told_that_the_ports_are_taken() {
    let host = host();
    let _world = World::enter();
    let enclave = echoing(&host);
    let second = OwnDaemon::start(&KERNEL);

    Launch::of(eifs::of_application("vsock-echo", &[]))
        .attempt(second.host())
        .failed_to_run("E36", &["vsock port 9000", "--vsock unix"]);

    drop(second);
    enclave.terminate();
}

#[test]
fn how_an_application_ends_is_heard() {
    let host = host();
    let _world = World::enter();
    let enclave = Launch::of(eifs::of_application("exit-at-once", &["3"])).run(&host);
    let id = enclave.id.clone();
    enclave.wait_until_gone();

    let ended = host.cli(&["describe-enclaves", "--ended"]).succeeded().json();
    let ended = ended.as_array().expect("an array");
    let ours = ended
        .iter()
        .find(|ended| ended["EnclaveID"] == id.as_str())
        .expect("it is listed");
    assert_eq!(ours["ExitCode"], 3, "{ours}");
}

/// Another virtual machine of this host: all that counts is who has told the kernel a CID.
const PYTHON_TAKES_CID: &str = r#"
import fcntl, os, struct, sys, time
device = os.open("/dev/vhost-vsock", os.O_RDWR)
fcntl.ioctl(device, 0x4008AF60, struct.pack("Q", int(sys.argv[1])))
print("taken", flush=True)
time.sleep(1000)
"#;

#[test]
fn a_cid_that_another_machine_has_is_refused_by_name() {
    let host = host();
    let _world = World::enter();
    let mut other = Running::start(python(PYTHON_TAKES_CID).arg("77"));
    other.wait_for("taken");

    Launch::of(eifs::of_application("vsock-echo", &[]))
        .with(&["--enclave-cid", "77"])
        .attempt(&host)
        .failed_to_run("E29", &["has the CID 77", "--enclave-cid"]);

    other.signal(Signal::KILL);
    drop(other);
    let enclave = Launch::of(eifs::of_application("vsock-echo", &[]))
        .with(&["--enclave-cid", "77"])
        .run(&host);
    assert_eq!(enclave.cid(), 77);
    enclave.terminate();
}
