//! Every program and command of `docs/vsock.md`, run as it stands there.
//!
//! Under each heading there, the first block connects to port 5000 of the enclave, and the second listens on port 8000 of the
//! parent. Blocks in Rust are sources of this package, whose programs are run.

use std::os::unix::net::UnixStream;
use std::process::Command;

use end_to_end_tests::vsock_socket::{PortListener, connect};
use end_to_end_tests::{Enclave, Running, World, parent, poll, run, stream};
use rustix::process::Signal;

use super::{Backend, CID, InEnclave, toolbox};

const MIB: u64 = 1 << 20;

const PAGE: &str = include_str!("../../../docs/vsock.md");

const CLIENT: &str = include_str!("../../src/bin/vsock-client.rs");
const SERVER: &str = include_str!("../../src/bin/vsock-server.rs");
const TOKIO_CLIENT: &str = include_str!("../../src/bin/tokio-vsock-client.rs");
const TOKIO_SERVER: &str = include_str!("../../src/bin/tokio-vsock-server.rs");

/// Headings with blocks, in the order of the page.
const HEADINGS: [&str; 6] = [
    "socat",
    "Python",
    "Rust, with the crate `vsock`",
    "Rust, with the crate `tokio-vsock`",
    "socat over Unix sockets",
    "Python over Unix sockets",
];

#[test]
fn no_block_of_the_page_is_left_out() {
    let blocks = blocks();
    let headings: Vec<_> = blocks.iter().map(|block| block.heading).collect();
    assert_eq!(headings, HEADINGS.map(|heading| [heading, heading]).concat());
}

#[test]
fn socat_and_python_as_on_the_page_over_the_kernel() {
    with_an_enclave(Backend::Kernel, |enclave| {
        socat(enclave, "socat");
        python(enclave, "Python");
    });
}

#[test]
fn socat_and_python_as_on_the_page_over_unix_sockets() {
    with_an_enclave(Backend::Unix, |enclave| {
        socat(enclave, "socat over Unix sockets");
        python(enclave, "Python over Unix sockets");
    });
}

#[test]
fn programs_with_the_crates_as_on_the_page_on_the_parent() {
    for (heading, sources) in [
        ("Rust, with the crate `vsock`", [CLIENT, SERVER]),
        ("Rust, with the crate `tokio-vsock`", [TOKIO_CLIENT, TOKIO_SERVER]),
    ] {
        assert_eq!(under(heading), sources, "under {heading}");
    }
    with_an_enclave(Backend::Kernel, |enclave| {
        for prefix in ["", "tokio-"] {
            let program = |name| Command::new(parent::guest_application(&format!("{prefix}vsock-{name}")));
            let client = run(program("client").args([CID, "5000", "hello"]));
            assert_eq!(client.succeeded().stdout, "hello\n");

            let mut server = Running::start(program("server").arg("8000"));
            server.wait_for("listening");
            assert_eq!(echoed(enclave, "vsock-client"), ECHOED);
            server.wait_for(&format!("CID {CID} has connected"));
        }
    });
}

#[test]
fn programs_with_the_crates_as_on_the_page_in_the_enclave() {
    for backend in [Backend::Kernel, Backend::Unix] {
        with_an_enclave(backend, |enclave| {
            for (prefix, port) in [("", 5001), ("tokio-", 5002)] {
                let listener = PortListener::bind(enclave, 8000).expect("listen for the enclave");
                listener.echo_in_background(1).expect("echo");
                assert_eq!(echoed(enclave, &format!("{prefix}vsock-client")), ECHOED);
                drop(listener);

                let _server =
                    InEnclave::start(enclave, &[&format!("{prefix}vsock-server"), &port.to_string()]);
                stream::exchange(connected(enclave, port), 1, MIB).expect("the same back");
            }
        });
    }
}

/// Runs a test with an enclave that echoes on port 5000.
fn with_an_enclave(backend: Backend, test: impl FnOnce(&Enclave)) {
    let _world = World::enter();
    let enclave = toolbox(backend);
    let _server = InEnclave::start(&enclave, &["vsock-server", "5000"]);
    drop(connected(&enclave, 5000));
    test(&enclave);
    enclave.terminate();
}

/// A connection to a port of the enclave, once somebody listens.
fn connected(enclave: &Enclave, port: u32) -> UnixStream {
    poll::until("a program in the enclave to listen", || {
        connect(enclave, port).ok()
    })
}

/// What a client of the page prints in the enclave if what it sends to port 8000 of the parent comes back.
const ECHOED: &str = "hello\nexit status: 0\n";

fn echoed(enclave: &Enclave, client: &str) -> String {
    InEnclave::start(enclave, &[client, "3", "8000", "hello"])
        .finish()
        .0
}

/// Fails unless what is run listens on port 8000 of the parent, sooner or later, and echoes. Then it is ended.
fn assert_echoes(enclave: &Enclave, mut listener: Running) {
    poll::until("an echo on port 8000 of the parent", || {
        assert!(!listener.has_ended(), "it has ended: {}", listener.stderr());
        (echoed(enclave, "vsock-client") == ECHOED).then_some(())
    });
    listener.signal(Signal::TERM);
}

fn socat(enclave: &Enclave, heading: &str) {
    let [connecting, listening] = under(heading);
    let (command, output) = console(connecting);
    let client = run(&mut shell(enclave, &command)).succeeded();
    assert_eq!(without_port(&client.stdout), without_port(&output), "{command}");

    let (command, _) = console(listening);
    assert_echoes(
        enclave,
        Running::start(&mut shell(enclave, &format!("exec {command}"))),
    );
}

fn python(enclave: &Enclave, heading: &str) {
    let interpreter = |script: &str| {
        let mut command = Command::new("python3");
        command.args(["-c", script]).current_dir(enclave.directory());
        command
    };
    let [connecting, listening] = under(heading);
    assert_eq!(run(&mut interpreter(connecting)).succeeded().stdout, "hello\n");
    assert_echoes(enclave, Running::start(&mut interpreter(listening)));
}

/// A command of the page, in the enclave's directory.
fn shell(enclave: &Enclave, command: &str) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", command]).current_dir(enclave.directory());
    shell
}

/// The command of a block for a terminal, and what it prints.
fn console(block: &str) -> (String, String) {
    let (prompt, output) = block.split_once('\n').expect("a line");
    let command = prompt.strip_prefix("$ ").expect("a prompt");
    (command.to_owned(), output.to_owned())
}

/// The port of the caller differs from call to call.
fn without_port(output: &str) -> Vec<&str> {
    let lines = output.lines();
    lines
        .map(|line| if line.starts_with("OK ") { "OK" } else { line })
        .collect()
}

/// What is between two fences.
struct Block {
    heading: &'static str,
    text: &'static str,
}

/// The two blocks under a heading.
fn under(heading: &str) -> [&'static str; 2] {
    let blocks = blocks().into_iter().filter(|block| block.heading == heading);
    let texts: Vec<_> = blocks.map(|block| block.text).collect();
    texts.try_into().expect("two blocks")
}

fn blocks() -> Vec<Block> {
    let mut blocks = Vec::new();
    // Before each fence that opens is text, behind it a block.
    let mut parts = PAGE.split("```");
    let mut heading = "";
    while let (Some(text), Some(block)) = (parts.next(), parts.next()) {
        let mut headings = text.lines().filter_map(|line| line.strip_prefix("### "));
        heading = headings.next_back().unwrap_or(heading);
        let (_language, text) = block.split_once('\n').expect("a line with the language");
        blocks.push(Block { heading, text });
    }
    blocks
}
