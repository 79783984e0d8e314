// parent: --cpus 4 --memory 2G --hugepages-2m 192 --package socat --package python3-minimal -- --test-threads 1 --nocapture
//! Programs that others have written for vsock, on a parent and in an enclave, with each of the two backends.
//!
//! Each test starts an enclave with the backend it is about, whose application is `toolbox`: it runs the other programs of its
//! image when the parent says so. They are the Linux kernel's own tests of vsock ([`kernel_tests`]), and those of
//! the page for users, `docs/vsock.md` ([`page`]).

#![forbid(unsafe_code)]
#![expect(clippy::expect_used, reason = "a suite fails on the spot")]

mod kernel_tests;
mod page;

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};

use end_to_end_tests::guest::port;
use end_to_end_tests::vsock_socket::connect;
use end_to_end_tests::{ContainerImage, Enclave, Host, Launch, eifs, parent};

/// The CID that the page for users has.
const CID: &str = "16";

/// The programs of the page that are in the enclave as well.
const PROGRAMS: [&str; 4] = [
    "vsock-client",
    "vsock-server",
    "tokio-vsock-client",
    "tokio-vsock-server",
];

/// What carries an enclave's vsock on its parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Backend {
    Kernel,
    Unix,
}

impl Backend {
    /// As `--vsock` has it.
    fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Unix => "unix",
        }
    }
}

/// An enclave with the application `toolbox`.
fn toolbox(backend: Backend) -> Enclave {
    let enclave = Launch::of(eif_with_tools())
        .with(&["--vsock", backend.name(), "--enclave-cid", CID])
        .in_debug_mode()
        .run(&Host::of_the_parent());
    enclave.console().wait_for("toolbox: ready");
    enclave
}

fn eif_with_tools() -> PathBuf {
    let eif = eifs::path("toolbox.eif");
    if !eif.exists() {
        let mut image =
            ContainerImage::of_application("toolbox", &[]).with_program("busybox", Path::new("/bin/busybox"));
        for name in ["vsock_test", "vsock_perf"] {
            image = image.with_program(name, &parent::vsock_tool(name));
        }
        for name in PROGRAMS {
            image = image.with_program(name, &parent::guest_application(name));
        }
        image.build(&eif);
    }
    eif
}

/// A program that runs in the enclave.
struct InEnclave(JoinHandle<String>);

impl InEnclave {
    fn start(enclave: &Enclave, words: &[&str]) -> Self {
        let mut stream = connect(enclave, port::RUN).expect("connect to the toolbox");
        writeln!(stream, "{}", words.join(" ")).expect("name a program");
        Self(thread::spawn(move || {
            let mut output = String::new();
            stream.read_to_string(&mut output).expect("what it prints");
            output
        }))
    }

    /// Waits for its end. All it has printed, and whether it succeeded.
    fn finish(self) -> (String, bool) {
        let output = self.0.join().expect("no panic");
        let succeeded = output.ends_with("exit status: 0\n");
        (output, succeeded)
    }
}
