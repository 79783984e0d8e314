//! `doctor` on whatever machine this is: what it finds there is tested in its own module, here that it tells it all.

use api::{PoolCore, PoolHugepages, Pools, Reply, Request};
use serde_json::Value;

use crate::fake_daemon::FakeDaemon;
use crate::program::{Finished, Program};

const CHECKS: [&str; 10] = [
    "kvm",
    "hugepages",
    "cgroup",
    "vhost-vsock",
    "group",
    "clock",
    "blobs",
    "logs",
    "daemon",
    "pool",
];

/// What the daemon says of a machine with one core and one page of 1 GiB for enclaves.
pub(crate) fn pools() -> Reply {
    Reply::Pools(Pools {
        cores: vec![PoolCore {
            node: 0,
            cpus: vec![2, 3],
            enclave_id: None,
            enclave_name: None,
        }],
        hugepages: vec![PoolHugepages {
            node: 0,
            page_size_mib: 1024,
            total: 1,
            free: 1,
        }],
    })
}

/// The findings, in order; the exit code says whether one of them is a failure.
fn findings(finished: &Finished) -> Vec<Value> {
    let findings = finished.json().as_array().unwrap().clone();
    let failed = findings
        .iter()
        .filter(|finding| finding["Status"] == "failed")
        .count();
    assert_eq!(finished.code, i32::from(failed > 0), "{finished:#?}");
    let last = match failed {
        0 => String::new(),
        1 => "1 thing keeps enclaves from running here.\n".to_owned(),
        _ => format!("{failed} things keep enclaves from running here.\n"),
    };
    assert_eq!(finished.stderr, last);
    findings
}

#[test]
fn everything_is_found_and_what_is_wrong_has_a_remedy() {
    let daemon = FakeDaemon::replying(vec![pools()]);

    let finished = Program::new(["doctor", "--json"]).daemon(&daemon).run();

    let findings = findings(&finished);
    let checks: Vec<&str> = findings
        .iter()
        .map(|finding| finding["Check"].as_str().unwrap())
        .collect();
    assert_eq!(checks, CHECKS);
    for finding in &findings {
        let fine = finding["Status"] == "ok";
        assert_eq!(finding["Remedy"].is_null(), fine, "{finding}");
        assert!(!finding["Detail"].as_str().unwrap().is_empty(), "{finding}");
    }
    assert_eq!(findings[8]["Status"], "ok");
    assert_eq!(
        findings[9]["Detail"],
        "1 of 1 cores and 1024 of 1024 MiB of memory are free for enclaves"
    );
    assert_eq!(daemon.finish_one().request, Request::DescribePools);
}

#[test]
fn a_daemon_that_is_not_there_is_a_failure_with_the_command_that_starts_it() {
    let finished = Program::new(["doctor", "--json"]).run();

    let findings = findings(&finished);
    assert_eq!(findings[8]["Status"], "failed");
    assert!(
        findings[8]["Remedy"]
            .as_str()
            .unwrap()
            .contains("systemctl start enclaved")
    );
    assert_eq!(findings[9]["Status"], "unknown");
}

#[test]
fn people_get_a_line_for_each() {
    let finished = Program::new(["doctor"]).run();

    assert_eq!(finished.code, 1, "{finished:#?}");
    for check in CHECKS {
        assert!(finished.stdout.contains(&format!("  {check}: ")), "{finished:#?}");
    }
    assert!(
        finished
            .stdout
            .contains("\nfailed   daemon: The enclaved daemon is not running"),
        "{finished:#?}"
    );
    assert!(
        finished
            .stdout
            .contains("\n           sudo systemctl start enclaved"),
        "{finished:#?}"
    );
}
