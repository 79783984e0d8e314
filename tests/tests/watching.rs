// parent: --cpus 6 --threads 2 --memory 3G --hugepages-2m 768 -- --test-threads 1
//! What nitro-cli has beyond AWS's to stay with an enclave: `run-enclave --wait`, `logs`, `events`, `doctor`.
//!
//! The parent has three cores of two threads: CPUs 0 and 1 stay with it, 2 to 5 are for enclaves.

#![forbid(unsafe_code)]
#![expect(clippy::indexing_slicing, reason = "a suite fails on the spot")]

use end_to_end_tests::{ContainerImage, Host, Launch, World, eifs, parent};
use rustix::process::Signal;
use serde_json::Value;

const HELLO: &str = "Hello from the enclave side!";

fn hello() -> Launch {
    Launch::of(parent::hello_eif())
}

/// An application that exits with this code.
fn exiting(code: u8) -> Launch {
    let name = format!("exit-{code}.eif");
    let eif = eifs::path(&name);
    if !eif.exists() {
        let image = ContainerImage::of_application("exit-at-once", &[&code.to_string()]);
        image.build(&eif);
    }
    Launch::of(eif)
}

#[test]
fn a_run_that_waits_ends_with_the_applications_code() {
    let world = World::enter();
    let host = Host::of_the_parent();

    let ended = exiting(7).with(&["--wait"]).attempt(&host);

    assert_eq!(ended.code(), Some(7), "{ended:#?}");
    assert!(
        ended.stderr.contains("its application ended with exit code 7"),
        "{ended:#?}"
    );
    assert_eq!(ended.json()["NumberOfCPUs"], 2);
    world.assert_unchanged();
}

#[test]
fn a_signal_to_a_run_that_waits_ends_the_enclave_first() {
    let world = World::enter();
    let host = Host::of_the_parent();
    for (signal, code) in [(Signal::TERM, 0), (Signal::INT, 130)] {
        let mut waiting = hello().with(&["--wait"]).start(&host);
        waiting.wait_for("MemoryMiB");
        assert_eq!(host.describe().len(), 1);

        waiting.signal(signal);
        let ended = waiting.finish();

        assert_eq!(ended.code(), Some(code), "{ended:#?}");
        assert_eq!(host.describe(), Vec::<Value>::new());
        world.assert_unchanged();
    }
}

#[test]
fn a_log_outlives_its_enclave() {
    let _world = World::enter();
    let host = Host::of_the_parent();
    let enclave = hello().named("logged").in_debug_mode().run(&host);
    enclave.console().wait_for(HELLO);
    let logs = |more: &[&str]| host.cli(&[&["logs", "--enclave-name", "logged"], more].concat());

    let running = logs(&[]).succeeded();
    assert!(running.stdout.contains(HELLO), "{running:#?}");
    let mut following = host.start_cli(&["logs", "--enclave-id", &enclave.id, "--follow"]);
    following.wait_for(HELLO);
    enclave.terminate();
    assert_eq!(following.finish().code(), Some(0), "it ends with the enclave");

    let ended = logs(&["--follow"]).succeeded();
    assert!(ended.stdout.starts_with(&running.stdout), "nothing is missing");
}

#[test]
fn events_tell_the_life_of_an_enclave() {
    let _world = World::enter();
    let host = Host::of_the_parent();
    let first = hello().named("first").run(&host);
    let mut events = host.start_cli(&["events"]);
    events.wait_for("\"PRESENT\"");

    let second = hello().named("second").run(&host);
    let id = second.id.clone();
    second.terminate();
    events.wait_for("\"ENDED\"");
    events.signal(Signal::KILL);

    let told: Vec<Value> = events
        .finish()
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).expect("a line of JSON"))
        .collect();
    let of = |id: &str| -> Vec<&str> {
        let events = told.iter().filter(|event| event["EnclaveID"] == id);
        events.filter_map(|event| event["Event"].as_str()).collect()
    };
    assert_eq!(of(&first.id), ["PRESENT"]);
    assert_eq!(of(&id), ["STARTING", "RUNNING", "TERMINATING", "ENDED"]);
    assert_eq!(told[told.len() - 1]["Reason"], "it was terminated by request");
}

#[test]
fn the_doctor_finds_nothing_that_keeps_enclaves_from_running_where_they_run() {
    let _world = World::enter();
    let host = Host::of_the_parent();

    let findings = host.cli(&["doctor", "--json"]).succeeded().json();

    for finding in findings.as_array().expect("an array") {
        assert_ne!(finding["Status"], "failed", "{finding}");
    }
    assert_eq!(findings[0]["Check"], "kvm");
    assert_eq!(findings[0]["Status"], "ok", "a test guest runs: {findings}");
}
