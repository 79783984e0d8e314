//! The daemon's process: readiness, signals, the one-daemon rule, the background. The VMM is never run.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a failed test panics")]

mod common;

use std::io::{BufRead, BufReader, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use api::{Reply, Request, frame};
use common::lingering;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use rustix::process::{Pid, Signal};

fn enclaved(run_directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_enclaved"));
    command
        .args(["--vmm", "/bin/true", "--no-audit-log", "--run-directory"])
        .arg(run_directory);
    command.env_remove("RUST_LOG");
    command
}

/// A daemon in the foreground, once its log says that it is ready.
fn foreground(run_directory: &Path) -> (Child, BufReader<impl Read>) {
    let mut command = enclaved(run_directory);
    let mut child = command
        .arg("--foreground")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("ready") {
        line.clear();
        assert_ne!(log.read_line(&mut line).unwrap(), 0, "the daemon ended early");
    }
    (child, log)
}

fn describe(run_directory: &Path) -> Reply {
    let mut stream = UnixStream::connect(run_directory.join("enclaved.sock")).unwrap();
    stream
        .write_all(&frame::encode(&Request::DescribeEnclaves).unwrap())
        .unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    frame::decode(&bytes[frame::HEADER_LEN..]).unwrap()
}

/// For a process that is not our child, so that its end cannot be waited for.
fn eventually(mut condition: impl FnMut() -> bool) {
    for _ in 0..2000 {
        if condition() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("it never happened");
}

fn signal(process: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(process).unwrap()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

#[test]
fn a_signal_ends_the_daemon_with_status_0_and_without_its_socket() {
    for stop in [Signal::TERM, Signal::INT] {
        let run = tempfile::tempdir().unwrap();
        let (mut daemon, mut log) = foreground(run.path());
        assert_eq!(describe(run.path()), Reply::Enclaves(vec![]));

        signal(daemon.id(), stop);

        assert!(daemon.wait().unwrap().success());
        assert!(!run.path().join("enclaved.sock").exists());
        let mut rest = String::new();
        log.read_to_string(&mut rest).unwrap();
        assert!(rest.contains("stopped"), "{rest}");
    }
}

#[test]
fn a_second_daemon_is_refused_and_the_first_goes_on_and_a_killed_one_is_succeeded() {
    let run = tempfile::tempdir().unwrap();
    let (mut first, _log) = foreground(run.path());

    let second = enclaved(run.path()).arg("--foreground").output().unwrap();

    assert_eq!(second.status.code(), Some(1));
    let told = String::from_utf8(second.stderr).unwrap();
    assert!(
        told.contains(&format!("another enclaved (process {})", first.id())),
        "{told}"
    );
    assert_eq!(describe(run.path()), Reply::Enclaves(vec![]));

    signal(first.id(), Signal::KILL);
    first.wait().unwrap();
    let (mut next, _log) = foreground(run.path());
    assert_eq!(describe(run.path()), Reply::Enclaves(vec![]));
    signal(next.id(), Signal::TERM);
    assert!(next.wait().unwrap().success());
}

#[test]
fn without_foreground_it_returns_when_clients_can_connect_and_adds_to_its_log_file() {
    let run = tempfile::tempdir().unwrap();

    let returned = enclaved(run.path()).output().unwrap();

    assert!(returned.status.success(), "{returned:?}");
    assert!(returned.stdout.is_empty());
    assert_eq!(describe(run.path()), Reply::Enclaves(vec![]));
    let again = enclaved(run.path()).output().unwrap();
    assert_eq!(again.status.code(), Some(1));
    let told = String::from_utf8(again.stderr).unwrap();
    assert!(told.contains("another enclaved (process"), "{told}");

    stop_in_background(run.path(), 1);
    assert!(!run.path().join("enclaved.sock").exists());
    // The first has said that it stopped; its lock goes with its process, a moment later.
    eventually(|| enclaved(run.path()).output().unwrap().status.success());
    stop_in_background(run.path(), 2);
}

/// Stops the daemon of `run_directory`, whose log then tells of this many stops.
fn stop_in_background(run_directory: &Path, stops: usize) {
    let lock = std::fs::read_to_string(run_directory.join("enclaved.lock")).unwrap();
    signal(lock.trim().parse().unwrap(), Signal::TERM);
    let log = run_directory.join("enclaved.log");
    let told = || std::fs::read_to_string(&log).unwrap().matches("stopped").count();
    eventually(|| told() == stops);
}

#[test]
fn a_descriptor_that_does_not_close_does_not_keep_the_daemon_from_stopping() {
    let run = tempfile::tempdir().unwrap();
    let (mut daemon, _log) = foreground(run.path());
    let (slow, _never_reads) = lingering();
    let mut client = UnixStream::connect(run.path().join("enclaved.sock")).unwrap();
    let descriptors = [slow.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    assert!(ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)));
    let request = frame::encode(&Request::DescribeEnclaves).unwrap();
    let (first, rest) = request.split_at(1);
    let first = [IoSlice::new(first)];
    rustix::net::sendmsg(&client, &first, &mut ancillary, SendFlags::empty()).unwrap();
    // Before the request is complete, so that the last copy is the daemon's.
    drop(slow);
    client.write_all(rest).unwrap();
    client.read_exact(&mut [0; frame::HEADER_LEN]).unwrap();

    signal(daemon.id(), Signal::TERM);

    let mut status = None;
    eventually(|| {
        status = daemon.try_wait().unwrap();
        status.is_some()
    });
    assert!(status.unwrap().success());
}

#[test]
fn a_missing_vmm_is_named() {
    let run = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_enclaved"));
    command
        .args(["--foreground", "--vmm", "/nonexistent/vmm", "--run-directory"])
        .arg(run.path());

    let output = command.output().unwrap();

    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("there is no VMM at /nonexistent/vmm"), "{told}");
}

#[test]
fn the_log_can_be_json() {
    let run = tempfile::tempdir().unwrap();
    let mut command = enclaved(run.path());
    command
        .args(["--foreground", "--log-format", "json"])
        .stderr(Stdio::piped());
    let mut daemon = command.spawn().unwrap();
    let mut log = BufReader::new(daemon.stderr.take().unwrap());
    let mut lines = Vec::new();
    while lines.iter().all(|line: &String| !line.contains("ready")) {
        let mut line = String::new();
        assert_ne!(log.read_line(&mut line).unwrap(), 0);
        lines.push(line);
    }
    signal(daemon.id(), Signal::TERM);
    daemon.wait().unwrap();

    for line in lines {
        let record: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert!(record["fields"]["message"].is_string(), "{line}");
    }
}
