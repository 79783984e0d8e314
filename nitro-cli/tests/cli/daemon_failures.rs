//! A daemon that is not there, not for this user, or not well: always E39, always with what to do.

use std::net::Shutdown;
use std::os::unix::net::UnixListener;

use api::{ErrorCode, Failure, Reply, frame};

use crate::fake_daemon::{FakeDaemon, Scene, send};
use crate::program::{Finished, Program};

const COMMANDS: [&[&str]; 5] = [
    &[
        "run-enclave",
        "--eif-path",
        "/dev/../etc/passwd",
        "--memory",
        "64",
        "--cpu-count",
        "2",
    ],
    &["describe-enclaves"],
    &["terminate-enclave", "--all"],
    &["terminate-enclave", "--enclave-id", "i-1"],
    &["console", "--enclave-name", "web"],
];

#[test]
fn a_daemon_that_is_not_running_is_said_with_how_to_start_it() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing.sock");
    let dead = directory.path().join("dead.sock");
    drop(UnixListener::bind(&dead).unwrap());

    for socket in [missing, dead] {
        for command in COMMANDS {
            let finished = Program::new(command).env("ENCLAVED_SOCKET", &socket).run();

            finished.assert_failed(39, &["E39"]);
            finished.assert_says(&[
                "The enclaved daemon is not running: nothing listens on `",
                socket.to_str().unwrap(),
                "`sudo enclaved`",
                "`sudo systemctl start enclaved`",
            ]);
        }
    }
}

#[test]
fn an_empty_variable_means_the_default_socket() {
    let finished = Program::new(["describe-enclaves"])
        .env("ENCLAVED_SOCKET", "")
        .run();

    // On a machine where a daemon runs, it answers.
    if finished.code != 0 {
        finished.assert_failed(39, &["E39"]);
        finished.assert_says(&["`/run/enclaved/enclaved.sock`"]);
    }
}

#[test]
fn a_path_that_no_socket_can_have_is_an_error_of_its_own() {
    let finished = Program::new(["describe-enclaves"])
        .env("ENCLAVED_SOCKET", "/x".repeat(100))
        .run();

    finished.assert_failed(39, &["E39"]);
    finished.assert_says(&["Cannot connect to the enclaved daemon on `/x/x"]);
}

fn describe(scene: Scene) -> Finished {
    let daemon = FakeDaemon::start(vec![scene]);
    let finished = Program::new(["describe-enclaves"]).daemon(&daemon).run();
    daemon.finish();
    finished
}

#[test]
fn a_daemon_that_dies_before_or_amid_its_answer_is_noticed() {
    let answer = frame::encode(&Reply::Enclaves(vec![])).unwrap();
    for sent in 0..answer.len() {
        let finished = describe(Scene::bytes(answer[..sent].to_vec()));

        finished.assert_failed(39, &["E39"]);
        finished.assert_says(&[
            "ended the connection before it had answered",
            "`enclaved.log` beside its socket",
            "`journalctl -u enclaved`",
        ]);
    }
    let after_progress = describe(Scene::replies(vec![Reply::Progress("Working...".into())]));
    after_progress.assert_failed(39, &["E39"]);
    after_progress.assert_says(&["Working...\n", "ended the connection"]);
}

#[test]
fn an_answer_that_is_no_answer_is_refused() {
    let frame_of = |body: &[u8]| [&u32::try_from(body.len()).unwrap().to_be_bytes(), body].concat();
    let garbage = [
        frame_of(b""),
        frame_of(b"not JSON"),
        frame_of(b"{\"reply\":\"unheard_of\"}"),
        frame_of(b"{\"reply\":\"enclaves\",\"value\":[{}]}"),
        frame_of(b"\xff\xfe\x00"),
    ];
    for bytes in garbage {
        let finished = describe(Scene::bytes(bytes));

        finished.assert_failed(39, &["E39"]);
        finished.assert_says(&[
            "The answer of the enclaved daemon cannot be read: malformed message",
            "same version",
        ]);
    }
}

#[test]
fn an_oversized_answer_is_refused_by_its_length_alone() {
    let length = u32::try_from(frame::MAX_REPLY + 1).unwrap();

    let finished = describe(Scene::bytes(length.to_be_bytes().to_vec()));

    finished.assert_failed(39, &["E39"]);
    finished.assert_says(&["message of 16777217 bytes exceeds the limit of 16777216"]);
}

#[test]
fn the_answer_to_another_request_is_refused() {
    for command in COMMANDS {
        let reply = match command {
            ["describe-enclaves"] => Reply::Terminated(vec![]),
            _ => Reply::Enclaves(vec![]),
        };
        let daemon = FakeDaemon::replying(vec![reply]);

        let finished = Program::new(command).daemon(&daemon).run();

        finished.assert_failed(39, &["E39"]);
        finished.assert_says(&["the answer to another request", "same version"]);
        daemon.finish();
    }
}

#[test]
fn terminating_one_enclave_wants_word_of_one() {
    let daemon = FakeDaemon::replying(vec![Reply::Terminated(vec![])]);

    let finished = Program::new(["terminate-enclave", "--enclave-id", "i-1"])
        .daemon(&daemon)
        .run();

    finished.assert_failed(39, &["E39"]);
    daemon.finish();
}

#[test]
fn a_refusal_is_read_even_if_the_daemon_never_read_the_request() {
    let finished = describe(Scene::connected(|mut stream| {
        stream.shutdown(Shutdown::Read).unwrap();
        let failure = Failure::new(ErrorCode::SocketError, "Too many clients");
        send(&mut stream, &Reply::Error(failure));
    }));

    finished.assert_failed(11, &["E11"]);
    finished.assert_says(&["Too many clients"]);
}
