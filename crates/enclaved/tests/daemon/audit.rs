//! What the daemon writes down of its clients.

use std::fs;

use api::{ErrorCode, Failure, Reply, Request, Selector};
use serde_json::Value;

use crate::support::{AUDIT_LOG, Parent, by_name, debug_request, measurements, request};

/// The log of a daemon that has stopped.
async fn log_of(parent: Parent) -> Vec<Value> {
    let directory = parent.stop().await;
    let text = fs::read_to_string(directory.path().join(AUDIT_LOG)).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[tokio::test]
async fn each_request_leaves_one_line_with_who_what_and_the_result() {
    let mut parent = Parent::start();
    let (mut guest, info) = parent.boot(debug_request("hello")).await;
    let pcr0 = measurements().pcr0;
    parent.describe().await;
    let mut watcher = parent.client();
    watcher.send(&Request::Console(by_name("hello")));
    assert!(matches!(watcher.reply().await, Reply::ConsoleAttached { .. }));
    parent
        .ask(Request::TerminateEnclave(Selector::Name("another".into())))
        .await;
    let mut terminating = parent.client();
    terminating.send(&Request::TerminateEnclave(Selector::All));
    guest.killed().await;
    terminating.last_reply().await;
    let garbage = parent.client();
    let mut garbage = garbage;
    garbage.send_with(b"\0\0\0\x02{}", &[]);
    garbage.failure().await;

    let lines = log_of(parent).await;

    let results: Vec<_> = lines
        .iter()
        .map(|line| (line["command"].as_str(), line["result"].as_str().unwrap()))
        .collect();
    assert_eq!(
        results,
        [
            (Some("run-enclave"), "ok"),
            (Some("describe-enclaves"), "ok"),
            (Some("console"), "ok"),
            (Some("terminate-enclave"), "E58"),
            (Some("terminate-enclave"), "ok"),
            (None, "E14"),
        ]
    );
    assert_eq!(lines[0]["pcr0"], pcr0);
    for about in [0, 2, 4] {
        let enclave = &lines[about]["enclaves"][0];
        assert_eq!(enclave["id"], info.enclave_id.as_str(), "{}", lines[about]);
        assert_eq!(enclave["name"], "hello");
    }
    for line in &lines {
        assert_eq!(line["user"], rustix::process::geteuid().as_raw());
        assert_eq!(line["process"], std::process::id());
    }
}

#[tokio::test]
async fn an_enclave_that_does_not_boot_is_written_down_with_its_error() {
    let mut parent = Parent::start();
    let mut client = parent.client();
    client.run(request("broken", 2));
    let guest = parent.guest().await;
    guest.say(api::vmm::Event::Failed(Failure::new(
        ErrorCode::EifParsing,
        "no image",
    )));
    client.failure().await;
    let mut leaving = parent.client();
    leaving.run(request("left", 2));
    let mut guest = parent.guest().await;
    drop(leaving);
    guest.killed().await;

    let lines = log_of(parent).await;

    let results: Vec<_> = lines.iter().map(|line| line["result"].as_str()).collect();
    assert_eq!(results, [Some("E35"), Some("E39")], "{lines:?}");
    assert_eq!(lines[1]["enclaves"][0]["name"], "left");
}

#[tokio::test]
async fn a_log_that_cannot_be_written_fails_no_request() {
    let mut parent = Parent::start_with(|config| {
        config.audit_log = Some("/proc/nowhere/audit.jsonl".into());
    });

    let (_guest, info) = parent.boot(request("hello", 2)).await;

    assert_eq!(parent.describe().await[0].run.enclave_id, info.enclave_id);
}
