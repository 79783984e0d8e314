use super::*;
use std::fs;
use std::path::Path;

use api::{CpuSelection, ErrorCode, RunEnclave};
use serde_json::Value;

const CLIENT: Peer = Peer {
    user: 1000,
    group: 900,
    process: Some(7),
};

fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// What is in the log after `work`.
fn written(work: impl FnOnce(&Arc<Audit>)) -> Vec<Value> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.jsonl");
    let audit = Arc::new(Audit::start(Some(path.clone())));
    work(&audit);
    audit.close();
    lines(&path)
}

fn run(name: &str) -> Request {
    Request::RunEnclave(RunEnclave {
        memory_mib: 64,
        cpus: CpuSelection::Count(2),
        enclave_cid: None,
        enclave_name: name.into(),
        debug_mode: true,
        image_metadata: None,
        vsock: None,
    })
}

#[test]
fn a_line_says_who_has_asked_for_what_and_what_came_of_it() {
    let lines = written(|audit| {
        let mut trail = audit.trail(CLIENT);
        trail.asked("run-enclave", &run("hello"));
        trail.about("i-0-enc1", "hello_1");
        trail.measured("ab".into());
        trail.granted();
        let mut trail = audit.trail(CLIENT);
        trail.asked("terminate-enclave", &Request::TerminateEnclave(Selector::All));
        trail.failed(&Failure::new(ErrorCode::EnclaveNaming, "no\nsecond line"));
        // What is written down is not changed any more.
        trail.granted();
    });

    assert_eq!(lines.len(), 2);
    let mut line = lines[0].clone();
    let time = line["time"].take();
    assert!(time.as_str().unwrap().ends_with('Z'), "{time}");
    assert_eq!(
        line,
        serde_json::json!({
            "time": null, "user": 1000, "group": 900, "process": 7,
            "command": "run-enclave", "selected": {"name": "hello"}, "debug_mode": true,
            "enclaves": [{"id": "i-0-enc1", "name": "hello_1"}], "pcr0": "ab", "result": "ok",
        })
    );
    assert_eq!(lines[1]["selected"], "all");
    assert_eq!(lines[1]["result"], "E58");
    assert_eq!(lines[1]["reason"], "no");
}

#[test]
fn a_name_can_be_anything_and_stays_one_text_of_bounded_length() {
    let forged = "x\n{\"user\":0}\r\u{1b}[2J\0\u{9b}2J";
    let lines = written(|audit| {
        for name in [forged, &"y".repeat(100_000)] {
            let mut trail = audit.trail(CLIENT);
            trail.asked("run-enclave", &run(name));
            trail.failed(&Failure::new(ErrorCode::EnclaveNaming, name));
        }
    });

    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0]["selected"]["name"], forged.replace('\u{9b}', "\u{fffd}"));
    assert_eq!(
        lines[1]["selected"]["name"].as_str().map(str::len),
        Some(LONGEST_NAME)
    );
    assert_eq!(lines[1]["reason"].as_str().map(str::len), Some(LONGEST_NAME));
}

#[test]
fn a_flood_is_counted_and_enclaves_that_are_started_meanwhile_are_written_down() {
    let lines = written(|audit| {
        for _ in 0..700 {
            let mut trail = audit.trail(CLIENT);
            trail.asked("describe-enclaves", &Request::DescribeEnclaves);
            trail.granted();
        }
        let mut trail = audit.trail(CLIENT);
        trail.asked("run-enclave", &run("hello"));
        trail.about("i-0-enc1", "hello");
        trail.granted();
    });

    let of = |command: &str| lines.iter().filter(|line| line["command"] == command).count();
    assert_eq!(of("run-enclave"), 1);
    let left_out: Vec<_> = lines.iter().filter(|line| line["left_out"].is_u64()).collect();
    assert_eq!(left_out.len(), 1, "{left_out:?}");
    assert_eq!(left_out[0]["user"], 1000);
    let described = u64::try_from(of("describe-enclaves")).unwrap();
    assert_eq!(described + left_out[0]["left_out"].as_u64().unwrap(), 700);
    assert!(described < 200);
}

#[test]
fn without_a_path_there_is_no_log_and_nothing_to_wait_for() {
    let audit = Arc::new(Audit::start(None));
    audit.trail(CLIENT).granted();
    audit.close();
}
