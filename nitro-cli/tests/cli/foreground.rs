//! `run-enclave --wait`: the process ends as the enclave does, and the other way round.

use std::fs;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::process::Child;
use std::sync::mpsc;

use api::{EnclaveFlags, EnclaveTermination, EndedEnclave, ErrorCode, Failure, Reply, Request, Selector};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::enclaves::run_info;
use crate::fake_daemon::{FakeDaemon, Scene, send};
use crate::program::{Finished, Program};

pub(crate) fn ended(exit_code: Option<u16>) -> EndedEnclave {
    EndedEnclave {
        run: run_info(),
        flags: EnclaveFlags::None,
        reason: "this is why".into(),
        exit_code,
        started_at: 0,
        ended_at: 1,
        console: vec![],
    }
}

fn terminated() -> Reply {
    Reply::Terminated(vec![EnclaveTermination {
        enclave_name: "hello".into(),
        enclave_id: run_info().enclave_id,
        terminated: true,
    }])
}

fn started() -> Scene {
    Scene::replies(vec![Reply::EnclaveStarted(run_info())])
}

fn end(exit_code: Option<u16>) -> Scene {
    Scene::replies(vec![Reply::EnclaveEnded(ended(exit_code))])
}

/// With an image that lives as long as the test.
fn run(daemon: &FakeDaemon, more: &[&str]) -> (TempDir, Child) {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("hello.eif"), "an image").unwrap();
    let line = "run-enclave --eif-path hello.eif --memory 64 --cpu-count 2 --wait";
    let child = Program::new(line.split_whitespace().chain(more.iter().copied()))
        .directory(directory.path())
        .daemon(daemon)
        .spawn();
    (directory, child)
}

fn signal(child: &Child, signal: Signal) {
    let process = Pid::from_raw(child.id().try_into().unwrap()).unwrap();
    kill_process(process, signal).unwrap();
}

#[test]
fn it_ends_with_the_code_of_the_application() {
    for code in [0, 3, 255] {
        let daemon = FakeDaemon::start(vec![started(), end(Some(code))]);

        let (_directory, child) = run(&daemon, &[]);
        let finished = Finished::wait_for(child);

        assert_eq!(finished.code, i32::from(code), "{finished:#?}");
        assert_eq!(finished.json()["EnclaveName"], "hello");
        let id = run_info().enclave_id;
        assert_eq!(finished.stderr, format!("Enclave {id} has ended: this is why.\n"));
        let [_, waited] = daemon.finish().try_into().ok().expect("two requests");
        assert_eq!(waited.request, Request::AwaitEnd(Selector::Id(id)));
    }
}

#[test]
fn an_end_without_a_code_is_e39_with_the_reason() {
    let daemon = FakeDaemon::start(vec![started(), end(None)]);

    let (_directory, child) = run(&daemon, &[]);
    let finished = Finished::wait_for(child);

    assert_eq!(
        (finished.code, finished.blocks()),
        (39, vec!["E39"]),
        "{finished:#?}"
    );
    finished.assert_says(&["exit code is not known: this is why."]);
    daemon.finish();
}

#[test]
fn an_enclave_that_does_not_start_fails_as_without_the_option() {
    let failure = Failure::new(ErrorCode::InsufficientMemoryAvailable, "No hugepages");
    let daemon = FakeDaemon::replying(vec![Reply::Error(failure)]);

    let (_directory, child) = run(&daemon, &[]);

    Finished::wait_for(child).assert_failed(39, &["E27", "E39"]);
    daemon.finish();
}

#[test]
fn the_console_comes_first_if_it_is_wanted() {
    let console = [
        api::frame::encode(&Reply::ConsoleAttached { enclave_cid: 16 }).unwrap(),
        b"last words\n".to_vec(),
    ];
    let daemon = FakeDaemon::start(vec![started(), Scene::bytes(console.concat()), end(Some(4))]);

    let (_directory, child) = run(&daemon, &["--attach-console"]);
    let finished = Finished::wait_for(child);

    assert_eq!(finished.code, 4);
    assert!(finished.stdout.ends_with("\nlast words\n"), "{finished:#?}");
    daemon.finish();
}

#[test]
fn it_waits_for_the_next_daemon_if_one_goes() {
    // The first of the two answers is none.
    let daemon = FakeDaemon::start(vec![started(), Scene::asked(drop), end(Some(5))]);

    let (_directory, child) = run(&daemon, &[]);
    let finished = Finished::wait_for(child);

    assert_eq!(finished.code, 5, "{finished:#?}");
    daemon.finish();
}

#[test]
fn a_signal_terminates_the_enclave_and_its_end_is_waited_for() {
    for (sent, code) in [(Signal::TERM, 0), (Signal::HUP, 0), (Signal::INT, 130)] {
        let (waiting, waits) = mpsc::channel();
        let (held, to_hold) = mpsc::channel::<UnixStream>();
        let daemon = FakeDaemon::start(vec![
            started(),
            Scene::asked(move |stream| {
                held.send(stream).unwrap();
                waiting.send(()).unwrap();
            }),
            Scene::asked(move |mut stream| {
                send(&mut stream, &terminated());
                // Only now the enclave has ended.
                let mut waits_for_the_end = to_hold.recv().unwrap();
                send(&mut waits_for_the_end, &Reply::EnclaveEnded(ended(None)));
            }),
        ]);

        let (_directory, child) = run(&daemon, &[]);
        waits.recv().unwrap();
        signal(&child, sent);
        let finished = Finished::wait_for(child);

        assert_eq!(finished.code, code, "{sent:?}: {finished:#?}");
        finished.assert_says(&["Ending the enclave...\n", "has ended: this is why.\n"]);
        let asked = daemon.finish();
        let id = Selector::Id(run_info().enclave_id);
        assert_eq!(asked[2].request, Request::TerminateEnclave(id));
    }
}

#[test]
fn a_signal_before_the_enclave_runs_closes_the_connection_so_that_it_never_does() {
    let (asking, asked) = mpsc::channel();
    let daemon = FakeDaemon::start(vec![Scene::asked(move |mut stream| {
        asking.send(()).unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap(), 0, "the client leaves");
    })]);

    let (_directory, child) = run(&daemon, &[]);
    asked.recv().unwrap();
    signal(&child, Signal::INT);
    let finished = Finished::wait_for(child);

    assert_eq!(
        (finished.code, finished.stdout.as_str()),
        (130, ""),
        "{finished:#?}"
    );
    assert_eq!(finished.stderr, "Ending the enclave...\n");
    daemon.finish();
}

#[test]
fn a_signal_that_is_ignored_stays_so() {
    let (waiting, waits) = mpsc::channel();
    let (hung_up, was_hung_up) = mpsc::channel::<()>();
    let daemon = FakeDaemon::start(vec![
        started(),
        Scene::asked(move |mut stream| {
            waiting.send(()).unwrap();
            was_hung_up.recv().unwrap();
            send(&mut stream, &Reply::EnclaveEnded(ended(Some(6))));
        }),
    ]);
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("hello.eif"), "an image").unwrap();
    // As nohup does; the shell becomes nitro-cli, so that the signal reaches it.
    let line =
        "trap '' HUP; exec nitro-cli run-enclave --eif-path hello.eif --memory 64 --cpu-count 2 --wait";
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_nitro-cli"))
        .parent()
        .unwrap();
    let child = std::process::Command::new("/bin/sh")
        .args(["-c", line])
        .current_dir(directory.path())
        .env_clear()
        .env("PATH", program)
        .env("ENCLAVED_SOCKET", daemon.socket())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();

    waits.recv().unwrap();
    signal(&child, Signal::HUP);
    hung_up.send(()).unwrap();
    let finished = Finished::wait_for(child);

    assert_eq!(finished.code, 6, "{finished:#?}");
    assert!(!finished.stderr.contains("Ending the enclave"), "{finished:#?}");
    daemon.finish();
}
