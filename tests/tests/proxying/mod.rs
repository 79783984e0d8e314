//! What the suite `vsock_proxy` puts around an enclave: the built `vsock-proxy`, and servers that it connects to.

pub(crate) mod name_server;
pub(crate) mod tls_server;

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::{self, JoinHandle};

use end_to_end_tests::{Finished, Running, poll};
use rustix::process::Signal;

/// A running `vsock-proxy`. Dropping it ends it.
pub(crate) struct Proxy(Running);

impl Proxy {
    /// One that serves the targets of a file which is its allowlist, too. It listens when this returns.
    pub(crate) fn start(configuration: &str) -> Self {
        Self::listening(&mut command(configuration))
    }

    /// One that `command` starts.
    pub(crate) fn listening(command: &mut Command) -> Self {
        let mut process = Running::start(command.env("RUST_LOG", "vsock_proxy=info"));
        process.wait_for_stderr("listening");
        Self(process)
    }

    /// Has it print its counters until they have `text`.
    pub(crate) fn counts(&self, text: &str) {
        poll::until(text, || {
            self.0.signal(Signal::USR1);
            self.0.stderr().contains(text).then_some(())
        });
    }

    /// Its log says this, and it still runs.
    pub(crate) fn goes_on_and_has_said(mut self, text: &str) {
        self.0.wait_for_stderr(text);
        assert!(!self.0.has_ended());
    }
}

/// What `vsock-proxy` with such a configuration says when it cannot start.
pub(crate) fn refused(configuration: &str) -> Finished {
    end_to_end_tests::run(&mut command(configuration))
}

fn command(configuration: &str) -> Command {
    let file = file(configuration);
    let mut command = Command::new("vsock-proxy");
    command.args(["--config", &file, "--targets", &file]);
    command
}

/// The path of a new file with this text.
pub(crate) fn file(text: &str) -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let path = format!("/tmp/vsock-proxy-{}.yaml", NUMBER.fetch_add(1, Ordering::Relaxed));
    fs::write(&path, text).expect("write a configuration");
    path
}

/// An entry of the allowlist for a server, and a target at a vsock port for it.
pub(crate) fn outbound(local_port: u32, server: SocketAddr) -> String {
    let (address, port) = (server.ip(), server.port());
    format!(
        "allowlist: [{{address: '{address}', port: {port}}}]\n\
         targets: [{{local_port: {local_port}, remote_addr: '{address}', remote_port: {port}}}]\n"
    )
}

/// A server for the next `connections` connections, which then listens no more: that is when the thread ends. What goes wrong
/// with a connection is seen by its other end.
pub(crate) fn serve(
    address: impl Into<SocketAddr>,
    connections: usize,
    service: impl Fn(TcpStream) -> io::Result<()> + Clone + Send + 'static,
) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind(address.into()).expect("listen");
    let address = listener.local_addr().expect("an address");
    let serving = thread::spawn(move || {
        for _ in 0..connections {
            let (stream, _) = listener.accept().expect("accept");
            let service = service.clone();
            thread::spawn(move || service(stream));
        }
    });
    (address, serving)
}
