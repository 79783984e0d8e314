//! `.ci/run` with a cargo that only pretends: whatever happens, the last line has the totals, and the exit status is kept.

#![forbid(unsafe_code)]
#![expect(clippy::expect_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

const RUN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../.ci/run");

/// What is said when nothing else can be.
const FAILED: &str = "0 passed, 1 failed, 0 skipped";

/// Programs of the script, and no others: whether there is a `cc` is the test's to say.
const TOOLS: [&str; 11] = [
    "bash", "dirname", "grep", "kill", "mktemp", "rm", "setsid", "sleep", "tail", "tee", "timeout",
];

struct Machine(tempfile::TempDir);

impl Machine {
    fn new(cargo: &str) -> Self {
        let machine = Self(tempfile::tempdir().expect("directory"));
        for tool in TOOLS {
            let program = ["/bin", "/usr/bin"].map(|directory| Path::new(directory).join(tool));
            let program = program.iter().find(|program| program.exists()).expect("a tool");
            symlink(program, machine.0.path().join(tool)).expect("link");
        }
        machine.with("cargo", cargo)
    }

    fn with(self, program: &str, script: &str) -> Self {
        let path = self.0.path().join(program);
        fs::write(&path, format!("#!/bin/bash\n{script}\n")).expect("write");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("change the mode");
        self
    }

    /// The last line and the exit status.
    fn run(&self) -> (String, Option<i32>) {
        let output = Command::new("/bin/bash")
            .arg(RUN)
            .env("PATH", self.0.path())
            .env("CARGO_HOME", self.0.path())
            .env("TIME_LIMIT", "1s")
            .output()
            .expect("bash");
        let text = String::from_utf8_lossy(&output.stdout);
        let last = text.lines().last().unwrap_or_default().to_owned();
        (last, output.status.code())
    }
}

#[test]
fn totals_and_status_of_the_tests_are_passed_on() {
    let totals = "[ \"$*\" = 'xtask test' ] || exit 9; echo log; echo '7 passed, 2 failed, 1 skipped'";
    let machine = Machine::new(&format!("{totals}; exit 1")).with("cc", "");
    assert_eq!(machine.run(), ("7 passed, 2 failed, 1 skipped".into(), Some(1)));
    let machine = Machine::new(totals).with("cc", "");
    assert_eq!(machine.run(), ("7 passed, 2 failed, 1 skipped".into(), Some(0)));
}

#[test]
fn what_does_not_compile_is_one_failure() {
    let machine = Machine::new("echo 'error: could not compile' >&2; exit 101").with("cc", "");
    assert_eq!(machine.run(), (FAILED.into(), Some(101)));
}

#[test]
fn a_run_that_hangs_is_one_failure_even_if_something_outlives_it() {
    let machine = Machine::new("echo begun; setsid sleep 60 2>/dev/null & sleep 60").with("cc", "");
    let started = Instant::now();
    assert_eq!(machine.run(), (FAILED.into(), Some(124)));
    assert!(started.elapsed() < Duration::from_secs(30));
}

#[test]
fn a_machine_without_a_linker_gets_one_or_says_that_it_cannot() {
    let totals = "echo '1 passed, 0 failed, 0 skipped'";
    let apt = "echo \"$*\" >>\"$CARGO_HOME/apt\"";
    let machine = Machine::new(totals).with("apt-get", apt);
    assert_eq!(machine.run(), ("1 passed, 0 failed, 0 skipped".into(), Some(0)));
    let asked = fs::read_to_string(machine.0.path().join("apt")).expect("apt was asked");
    assert!(asked.ends_with("gcc libc6-dev\n"), "{asked}");

    let machine = Machine::new(totals).with("apt-get", "exit 100");
    assert_eq!(machine.run(), (FAILED.into(), Some(100)));
}
