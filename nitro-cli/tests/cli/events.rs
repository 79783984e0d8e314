//! `events`: one JSON object a line.

use std::io::{Read, pipe};
use std::thread;

use api::{EnclaveEvent, EventKind, Reply, Request};

use crate::fake_daemon::{FakeDaemon, Scene, send};
use crate::program::{Finished, Program};

pub(crate) fn event(kind: EventKind) -> EnclaveEvent {
    EnclaveEvent {
        time: 1_700_000_000_123,
        kind,
        enclave_name: "hello".into(),
        enclave_id: "i-0-enc1".into(),
        enclave_cid: 16,
        reason: None,
        exit_code: None,
    }
}

#[test]
fn each_event_is_a_line_and_the_daemons_end_is_e39() {
    let daemon = FakeDaemon::replying(vec![
        Reply::Event(event(EventKind::Present)),
        Reply::EventsLost(7),
        Reply::Event(EnclaveEvent {
            reason: Some("its application ended with exit code 3".into()),
            exit_code: Some(3),
            ..event(EventKind::Ended)
        }),
    ]);

    let finished = Program::new(["events"]).daemon(&daemon).run();

    let lines: Vec<&str> = finished.stdout.lines().collect();
    assert_eq!(
        lines[0],
        r#"{"Time":"2023-11-14T22:13:20.123Z","Event":"PRESENT","EnclaveName":"hello","EnclaveID":"i-0-enc1","EnclaveCID":16}"#
    );
    assert!(
        lines[1].ends_with(r#","Event":"LOST","Count":7}"#),
        "{}",
        lines[1]
    );
    assert!(
        lines[2]
            .ends_with(r#""EnclaveCID":16,"Reason":"its application ended with exit code 3","ExitCode":3}"#),
        "{}",
        lines[2]
    );
    assert_eq!((lines.len(), finished.code), (3, 39), "{finished:#?}");
    assert_eq!(finished.blocks(), ["E39"]);
    assert_eq!(daemon.finish_one().request, Request::Events);
}

#[test]
fn a_refusal_has_its_own_number_and_another_answer_is_e39() {
    let failure = api::Failure::new(api::ErrorCode::ConsoleConnection, "Too many");
    for (reply, code) in [(Reply::Error(failure), 44), (Reply::Enclaves(vec![]), 39)] {
        let daemon = FakeDaemon::replying(vec![reply]);
        assert_eq!(Program::new(["events"]).daemon(&daemon).run().code, code);
        daemon.finish();
    }
}

#[test]
fn it_ends_when_its_reader_goes_even_if_nothing_happens() {
    let daemon = FakeDaemon::start(vec![Scene::asked(|mut stream| {
        send(&mut stream, &Reply::Event(event(EventKind::Present)));
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    })]);
    let (mut reader, writer) = pipe().unwrap();

    let child = Program::new(["events"]).daemon(&daemon).stdout(writer).spawn();
    let mut first = [0; 20];
    reader.read_exact(&mut first).unwrap();
    thread::spawn(move || drop(reader)).join().unwrap();
    let finished = Finished::wait_for(child);

    assert_eq!((finished.code, finished.stderr.as_str()), (0, ""));
    daemon.finish();
}
