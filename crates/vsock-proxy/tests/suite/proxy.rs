//! A proxy of a test's own, and what it is between.

use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::time::timeout;

/// How long a test may take, and how long it waits for a line of the proxy's. Only what hangs takes as long.
pub(crate) const LIMIT: Duration = Duration::from_mins(2);

/// Runs a test, and fails if it hangs.
pub(crate) fn limited(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let tested = runtime.unwrap().block_on(async { timeout(LIMIT, test).await });
    assert!(tested.is_ok(), "the test hangs");
}

/// The program, without a log unless something fails.
pub(crate) fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vsock-proxy"));
    command.env_remove("RUST_LOG");
    command
}

/// A running proxy, ended when this is dropped.
pub(crate) struct Proxy {
    process: Child,
    /// Lines.
    stderr: Receiver<String>,
    directory: TempDir,
}

impl Proxy {
    /// With this as its configuration, in which `DIR` stands for a directory of its own. It listens when this returns.
    pub(crate) fn start(configuration: &str, arguments: &[&str]) -> Self {
        Self::start_as(program(), configuration, arguments)
    }

    /// The same, and it cannot have more descriptors.
    pub(crate) fn start_with_descriptors(limit: u32, configuration: &str, arguments: &[&str]) -> Self {
        let mut limited = Command::new("sh");
        let script = format!("ulimit -n {limit} && exec \"$0\" \"$@\"");
        limited.args(["-c", &script]).arg(program().get_program());
        Self::start_as(limited, configuration, arguments)
    }

    fn start_as(program: Command, configuration: &str, arguments: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (process, stderr) = spawn(program, configuration, arguments, directory.path());
        Self {
            process,
            stderr,
            directory,
        }
        .when_listening()
        .0
    }

    /// The same, and the port of 127.0.0.1 that its first target listens at.
    pub(crate) fn start_inbound(configuration: &str) -> (Self, u16) {
        let directory = tempfile::tempdir().unwrap();
        let (process, stderr) = spawn(program(), configuration, &[], directory.path());
        let (proxy, said) = Self {
            process,
            stderr,
            directory,
        }
        .when_listening();
        let port = said
            .split("127.0.0.1:")
            .nth(1)
            .and_then(|rest| rest.split(' ').next());
        (proxy, port.unwrap().parse().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) async fn connect(&self, socket: &str) -> UnixStream {
        UnixStream::connect(self.path(socket)).await.unwrap()
    }

    /// The lines of its counters, one for each target, of which there are `targets`.
    pub(crate) fn counters(&mut self, targets: usize) -> Vec<String> {
        let process = rustix::process::Pid::from_child(&self.process);
        rustix::process::kill_process(process, rustix::process::Signal::USR1).unwrap();
        // The log is in between, and may have counters too, behind the time.
        let directory = self.directory.path().to_str().unwrap();
        let lines = std::iter::from_fn(|| self.next_line());
        lines
            .filter(|line| line.starts_with(directory))
            .take(targets)
            .collect()
    }

    /// Kills it without a chance to clean up, and starts another one in its place.
    pub(crate) fn replaced(mut self, configuration: &str, socket: &str) -> Self {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        assert!(BlockingStream::connect(self.path(socket)).is_err());
        (self.process, self.stderr) = spawn(program(), configuration, &[], self.directory.path());
        self.when_listening().0
    }

    /// All targets listen before the log says so of the first one.
    fn when_listening(self) -> (Self, String) {
        let mut said = String::new();
        loop {
            let line = self.next_line();
            let line = line.unwrap_or_else(|| panic!("it has ended: {said}"));
            said += &line;
            if line.contains("listening") {
                return (self, said);
            }
        }
    }

    /// What it says next; `None` if it has ended.
    pub(crate) fn next_line(&self) -> Option<String> {
        match self.stderr.recv_timeout(LIMIT) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("it says nothing"),
        }
    }

    /// Whether it still runs.
    pub(crate) fn runs(&mut self) -> bool {
        self.process.try_wait().unwrap().is_none()
    }

    /// Ends it, and returns what it has written to standard error since it listened.
    pub(crate) fn said(mut self) -> String {
        self.process.kill().unwrap();
        std::iter::from_fn(|| self.next_line()).collect()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn spawn(
    mut command: Command,
    configuration: &str,
    arguments: &[&str],
    directory: &Path,
) -> (Child, Receiver<String>) {
    let file = directory.join("proxy.yaml");
    std::fs::write(&file, configuration.replace("DIR", directory.to_str().unwrap())).unwrap();
    command.arg("--config").arg(&file).arg("--targets").arg(&file);
    command.env("RUST_LOG", "info");
    let mut process = command.args(arguments).stderr(Stdio::piped()).spawn().unwrap();
    let stderr = BufReader::new(process.stderr.take().unwrap());
    let (lines, received) = mpsc::channel();
    thread::spawn(move || {
        for line in stderr.lines() {
            let _ = lines.send(line.unwrap());
        }
    });
    (process, received)
}

/// A configuration with one target from `socket` to a server.
pub(crate) fn outbound(address: &str, port: u16) -> String {
    format!(
        "allowlist: [{{address: '{address}', port: {port}}}]\n\
         targets: [{{local_socket: DIR/socket, remote_addr: '{address}', remote_port: {port}}}]\n"
    )
}

/// A server's listener, and its port.
pub(crate) async fn server(address: &str) -> (TcpListener, u16) {
    let listener = TcpListener::bind((address, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

/// A server that sends back what it gets, and ends when its clients do. Its port.
pub(crate) async fn echo_server(address: &str) -> u16 {
    let (listener, port) = server(address).await;
    tokio::spawn(echo(listener));
    port
}

pub(crate) async fn echo(listener: TcpListener) {
    while let Ok((mut stream, _)) = listener.accept().await {
        tokio::spawn(async move {
            let (mut from, mut to) = stream.split();
            let _ = tokio::io::copy(&mut from, &mut to).await;
            let _ = to.shutdown().await;
        });
    }
}

/// A port that nobody listens at. The address must be no other test's, so that it stays so.
pub(crate) async fn unused_port(address: &str) -> u16 {
    server(address).await.1
}

/// Both are passed on, and nothing else.
pub(crate) async fn assert_echoes(mut stream: UnixStream, message: &[u8]) {
    stream.write_all(message).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, message);
}

/// The proxy has closed it, and has sent nothing.
pub(crate) async fn assert_closed(mut stream: UnixStream) {
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, b"");
}

/// `length` bytes in which each place can be told from others.
pub(crate) fn pattern(length: usize, seed: u32) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    (0..length).map(|_| next()).collect()
}

/// Reads until the end.
pub(crate) async fn read_all(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    bytes
}
