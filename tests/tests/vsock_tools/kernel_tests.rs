//! `vsock_test` and `vsock_perf`, with which the kernel's developers test vsock between a host and its guests: built from the
//! kernel's sources as they are, one in the enclave and one on the parent. Of `vsock_test`, one is the client and the other the
//! server, and each case is two functions that check what their end sees.
//!
//! They keep in step over a TCP connection. The enclave's end of it is carried over vsock: by `toolbox` inside, and by
//! [`Control`] here.
//!
//! On a parent with Unix sockets the programs have these in the place of `AF_VSOCK`; `oracles/vsock-tools/unix-backend.c` says
//! how.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::Command;
use std::thread;

use end_to_end_tests::guest::port;
use end_to_end_tests::vsock_socket::{PortListener, connect};
use end_to_end_tests::{Enclave, Running, World, parent, poll, run, stream};

use super::{Backend, CID, InEnclave, toolbox};

/// The parent, as the enclave addresses it on AWS.
const PARENT: &str = "3";

/// Which end connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Client {
    Enclave,
    Parent,
}

/// Cases that are not run, by the beginnings of their names.
struct Unfit {
    cases: &'static str,
    reason: &'static str,
    with: fn(Backend, Client) -> bool,
}

const UNFIT: [Unfit; 6] = [
    Unfit {
        cases: "SOCK_SEQPACKET ",
        reason: "the device has streams alone",
        with: |_, _| true,
    },
    Unfit {
        cases: "SOCK_STREAM poll() + SO_RCVLOWAT",
        reason: "poll does not look at SO_RCVLOWAT of the Unix socket that the client has",
        with: |backend, client| backend == Backend::Unix && client == Client::Parent,
    },
    Unfit {
        cases: "SOCK_STREAM MSG_ZEROCOPY",
        reason: "the Unix socket that the client has knows no MSG_ZEROCOPY",
        with: |backend, client| backend == Backend::Unix && client == Client::Parent,
    },
    Unfit {
        cases: "SOCK_STREAM double bind connect",
        reason: "the Unix socket that the client has cannot choose its port",
        with: |backend, client| backend == Backend::Unix && client == Client::Parent,
    },
    Unfit {
        cases: "SOCK_STREAM SHUT_RD",
        reason: "SHUT_RD of the Unix socket that the server has is not told to the other end before that writes",
        with: |backend, client| backend == Backend::Unix && client == Client::Enclave,
    },
    Unfit {
        cases: "SOCK_STREAM virtio credit update",
        reason: "the Unix socket that the server has gives no credit",
        with: |backend, client| backend == Backend::Unix && client == Client::Enclave,
    },
];

#[test]
fn the_kernels_tests_pass_over_af_vsock_when_the_enclave_connects() {
    vsock_test(Backend::Kernel, Client::Enclave);
}

#[test]
fn the_kernels_tests_pass_over_af_vsock_when_the_parent_connects() {
    vsock_test(Backend::Kernel, Client::Parent);
}

#[test]
fn the_kernels_tests_pass_over_unix_sockets_when_the_enclave_connects() {
    vsock_test(Backend::Unix, Client::Enclave);
}

#[test]
fn the_kernels_tests_pass_over_unix_sockets_when_the_parent_connects() {
    vsock_test(Backend::Unix, Client::Parent);
}

#[test]
fn vsock_perf_moves_all_it_is_told_to_over_af_vsock_in_both_directions() {
    vsock_perf(Backend::Kernel);
}

#[test]
fn vsock_perf_moves_all_it_is_told_to_over_unix_sockets_in_both_directions() {
    vsock_perf(Backend::Unix);
}

/// One of the programs on the parent.
fn on_parent(backend: Backend, name: &str, enclave: &Enclave) -> Command {
    let suffix = if backend == Backend::Unix { "-unix" } else { "" };
    let mut command = Command::new(parent::vsock_tool(&format!("{name}{suffix}")));
    command.env("VSOCK_SOCKET", enclave.directory().join("vsock.sock"));
    command
}

fn vsock_test(backend: Backend, client: Client) {
    let _world = World::enter();
    let enclave = toolbox(backend);
    let plan = Plan::of(backend, client);

    let mut ours = on_parent(backend, "vsock_test", &enclave);
    ours.args(["--peer-cid", CID]).args(plan.options());
    let (ours, (theirs, they_succeeded)) = match client {
        Client::Enclave => {
            let control_port = port::TCP_TO_PARENT.to_string();
            ours.args(["--mode", "server", "--control-host", "127.0.0.1"]);
            let mut ours = Running::start(ours.args(["--control-port", &control_port]));
            ours.wait_for("Control socket listening");
            let control = Control::from_enclave(&enclave);
            let theirs = InEnclave::start(&enclave, &in_enclave("client", &control_port)).finish();
            let ours = ours.finish();
            control.end();
            (ours, theirs)
        }
        Client::Parent => {
            let control_port = port::TCP_INTO_ENCLAVE.to_string();
            let theirs = InEnclave::start(&enclave, &in_enclave("server", &control_port));
            let control = Control::into_enclave(&enclave);
            ours.args(["--mode", "client", "--control-host", "127.0.0.1"]);
            let ours = run(ours.args(["--control-port", &control_port]));
            let theirs = theirs.finish();
            control.end();
            (ours, theirs)
        }
    };

    assert!(
        ours.status.success() && they_succeeded,
        "on the parent: {ours:#?}\nin the enclave:\n{theirs}"
    );
    plan.compare(&ours.stdout);
    enclave.terminate();
}

/// The words that run it in the enclave.
fn in_enclave<'a>(mode: &'a str, control_port: &'a str) -> [&'a str; 9] {
    let host = "127.0.0.1";
    [
        "vsock_test",
        "--mode",
        mode,
        "--peer-cid",
        PARENT,
        "--control-host",
        host,
        "--control-port",
        control_port,
    ]
}

/// Which cases there are, and which of them are not run.
struct Plan {
    title: String,
    /// Numbers, names, and why not.
    cases: Vec<(String, String, Option<&'static str>)>,
}

impl Plan {
    fn of(backend: Backend, client: Client) -> Self {
        // It says what it has, and ends with an error.
        let list = run(Command::new(parent::vsock_tool("vsock_test")).arg("--list")).stdout;
        let cases = list.lines().skip(1).map(|line| {
            let (number, name) = line.split_once('\t').expect("a number and a name");
            let unfit = UNFIT
                .iter()
                .find(|unfit| (unfit.with)(backend, client) && name.starts_with(unfit.cases));
            (
                number.to_owned(),
                name.to_owned(),
                unfit.map(|unfit| unfit.reason),
            )
        });
        Self {
            title: format!("vsock_test, {} backend, client: {client:?}", backend.name()),
            cases: cases.collect(),
        }
    }

    /// Skips what is not run. It suffices to tell one end.
    fn options(&self) -> Vec<String> {
        let skipped = self.cases.iter().filter(|(_, _, reason)| reason.is_some());
        skipped.map(|(number, _, _)| format!("--skip={number}")).collect()
    }

    /// Prints what became of each case.
    ///
    /// # Panics
    /// Unless exactly those that were to be run have been.
    fn compare(&self, output: &str) {
        let mut passed = 0;
        println!("{}:", self.title);
        for (number, name, reason) in &self.cases {
            let result = if reason.is_some() { "skipped" } else { "ok" };
            let line = format!("{number} - {name}...{result}");
            assert!(
                output.lines().any(|said| said == line),
                "{line:?} was not said:\n{output}"
            );
            match reason {
                Some(reason) => println!("  skipped  {name}: {reason}"),
                None => println!("  passed   {name}"),
            }
            passed += u32::from(reason.is_none());
        }
        println!(
            "{}: {passed} passed, {} skipped",
            self.title,
            self.cases.len() - passed as usize
        );
        assert!(passed > 0, "nothing was run");
    }
}

/// Carries the one TCP connection over which the two ends keep in step.
struct Control(thread::JoinHandle<()>);

impl Control {
    /// To the server on the parent.
    fn from_enclave(enclave: &Enclave) -> Self {
        let listener =
            PortListener::bind(enclave, port::TCP_TO_PARENT.into()).expect("listen for the enclave");
        Self(thread::spawn(move || {
            let vsock = listener.accept().expect("accept");
            let tcp = TcpStream::connect((Ipv4Addr::LOCALHOST, port::TCP_TO_PARENT)).expect("connect");
            // One end may be gone before it has read everything; what its program says is what counts.
            let _ = stream::relay(vsock, tcp);
        }))
    }

    /// To the server in the enclave.
    fn into_enclave(enclave: &Enclave) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port::TCP_INTO_ENCLAVE)).expect("listen");
        let vsock = connect(enclave, port::TCP_INTO_ENCLAVE.into()).expect("connect to the toolbox");
        Self(thread::spawn(move || {
            let (tcp, _) = listener.accept().expect("accept");
            let _ = stream::relay(tcp, vsock);
        }))
    }

    fn end(self) {
        self.0.join().expect("no panic");
    }
}

/// How much is sent, in the form of vsock_perf and in bytes.
const AMOUNT: &str = "32M";
const BYTES: u64 = 32 << 20;

/// The port of both receivers.
const PERF_PORT: &str = "4040";

/// A receiver stops reading when it has heard of the end, after one more read: that has to take all that is still there.
const RECEIVER: [&str; 6] = ["--port", PERF_PORT, "--buf-size", "1M", "--vsk-size", "256K"];

fn vsock_perf(backend: Backend) {
    let _world = World::enter();
    let enclave = toolbox(backend);
    let sender = |to| ["--sender", to, "--port", PERF_PORT, "--bytes", AMOUNT];

    let receiver = Running::start(on_parent(backend, "vsock_perf", &enclave).args(RECEIVER));
    let sent = once_it_listens(|| {
        let words = [&["vsock_perf"], &sender(PARENT)[..]].concat();
        InEnclave::start(&enclave, &words).finish()
    });
    let received = receiver.finish().succeeded().stdout;
    report("enclave to parent", backend, &sent, &received);

    let receiver = InEnclave::start(&enclave, &[&["vsock_perf"], &RECEIVER[..]].concat());
    let sent = once_it_listens(|| {
        let finished = run(on_parent(backend, "vsock_perf", &enclave).args(sender(CID)));
        let succeeded = finished.status.success();
        (finished.stdout + &finished.stderr, succeeded)
    });
    let (received, succeeded) = receiver.finish();
    assert!(succeeded, "{received}");
    report("parent to enclave", backend, &sent, &received);
    enclave.terminate();
}

/// What a sender prints. A receiver does not say when it listens; until then nobody can connect to it.
fn once_it_listens(mut sender: impl FnMut() -> (String, bool)) -> String {
    poll::until("the receiver to listen", || {
        let (output, succeeded) = sender();
        let refused = output.contains("connect: ");
        assert!(succeeded || refused, "{output}");
        succeeded.then_some(output)
    })
}

fn report(direction: &str, backend: Backend, sent: &str, received: &str) {
    assert!(sent.contains(&format!("total bytes sent: {BYTES}\n")), "{sent}");
    assert!(
        received.contains(&format!("total bytes received: {BYTES}\n")),
        "{sent}\n{received}"
    );
    println!(
        "vsock_perf, {} backend, {direction}: {AMOUNT} received",
        backend.name()
    );
}
