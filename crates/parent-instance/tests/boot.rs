//! Boots real machines. They need QEMU, busybox and the parent kernel, whose path is in `PARENT_KERNEL`.

#![expect(clippy::expect_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use parent_instance::{Config, Error, Exit, ParentInstance, Session};

fn config() -> Config {
    let kernel = std::env::var_os("PARENT_KERNEL").expect("PARENT_KERNEL names the parent kernel's bzImage");
    let cache = std::env::temp_dir().join("parent-instance-tests");
    Config {
        time_limit: Duration::from_mins(3),
        ..Config::new(kernel.into(), "/bin/busybox".into(), cache)
    }
}

fn shell(script: &str) -> Session {
    Session::Command(["sh", "-c", script].map(String::from).to_vec())
}

/// What `session` does in a machine made of `config`: its exit, its standard output, its standard error.
fn run(config: Config, session: &Session) -> (Exit, Vec<u8>, Vec<u8>) {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let instance = ParentInstance::prepare(config).expect("prepared");
    let exit = instance
        .run_with(session, &mut stdout, &mut stderr)
        .expect("the machine runs");
    if let Some(log) = &exit.log {
        fs::remove_dir_all(log.parent().expect("directory")).expect("remove the log");
    }
    (exit, stdout, stderr)
}

fn text(config: Config, script: &str) -> String {
    let (exit, stdout, stderr) = run(config, &shell(script));
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert_eq!(exit.status, 0, "{stdout}{stderr}");
    stdout.trim_end().to_owned()
}

#[test]
#[ignore = "needs QEMU and the parent kernel; `cargo xtask test` runs it"]
fn the_exit_status_is_the_commands() {
    for (script, status) in [("exit 0", 0), ("exit 42", 42), ("kill -KILL $$", 128 + 9)] {
        let (exit, _, _) = run(config(), &shell(script));
        assert_eq!(exit.status, status, "{script}");
        assert_eq!(exit.log.is_some(), status != 0, "{script}");
    }
    let (exit, _, stderr) = run(config(), &Session::Command(vec!["no-such-program".into()]));
    assert_eq!(exit.status, 127);
    assert!(String::from_utf8_lossy(&stderr).contains("no-such-program"));
}

#[test]
#[ignore = "needs QEMU and the parent kernel; `cargo xtask test` runs it"]
fn streams_are_separate_and_byte_exact() {
    let directory = tempfile::tempdir().expect("directory");
    let bytes: Vec<u8> = (0..1_u32 << 18)
        .flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes())
        .collect();
    fs::write(directory.path().join("bytes"), &bytes).expect("write");
    let config = Config {
        share: Some(directory.path().into()),
        ..config()
    };

    let (exit, stdout, stderr) = run(config, &shell("cat /share/bytes; printf 'to\\0stderr' >&2"));
    assert_eq!(exit.status, 0);
    assert!(
        stdout == bytes,
        "{} bytes of {} arrived, or not the same",
        stdout.len(),
        bytes.len()
    );
    assert_eq!(stderr, b"to\0stderr");
}

#[test]
#[ignore = "needs QEMU and the parent kernel; `cargo xtask test` runs it"]
fn arguments_arrive_unchanged() {
    let words = ["printf", "%s|", "two words", "$HOME", "it's", ""];
    let (_, stdout, _) = run(config(), &Session::Command(words.map(String::from).to_vec()));
    assert_eq!(String::from_utf8_lossy(&stdout), "two words|$HOME|it's||");
}

#[test]
#[ignore = "needs QEMU and the parent kernel; `cargo xtask test` runs it"]
fn what_the_command_leaves_running_does_not_hold_the_machine() {
    assert_eq!(
        text(config(), "sleep 1000 & (trap '' TERM; sleep 1000) & echo done"),
        "done"
    );
}

#[test]
#[ignore = "needs QEMU and the parent kernel; `cargo xtask test` runs it"]
fn the_share_is_read_and_written() {
    let directory = tempfile::tempdir().expect("directory");
    fs::write(directory.path().join("question"), "from the host").expect("write");
    let config = Config {
        share: Some(directory.path().into()),
        ..config()
    };
    assert_eq!(
        text(
            config,
            "cat /share/question; echo from the machine >/share/answer"
        ),
        "from the host"
    );
    let answer = fs::read_to_string(directory.path().join("answer")).expect("the machine wrote it");
    assert_eq!(answer, "from the machine\n");
}

#[test]
#[ignore = "needs QEMU and the parent kernel; `cargo xtask test` runs it"]
fn hugepages_threads_and_nodes_are_as_asked() {
    let config = Config {
        cpus: 8,
        threads: 2,
        nodes: 2,
        memory: 5 << 30,
        hugepages_2m: 512,
        hugepages_1g: 2,
        ..config()
    };
    let script = "cd /sys/devices/system; for node in node/node0 node/node1; do
        cat $node/cpulist $node/hugepages/hugepages-*/free_hugepages; done
        cat cpu/cpu4/topology/thread_siblings_list";
    assert_eq!(
        text(config, script)
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" "),
        "0-3 1 256 4-7 1 256 4-5"
    );
}

#[test]
#[ignore = "needs QEMU and the parent kernel; `cargo xtask test` runs it"]
fn the_machine_is_a_host_for_enclaves() {
    let script = "ls /dev/kvm /dev/vhost-vsock /dev/hugepages -d && grep -o -w 'svm\\|cx16' /proc/cpuinfo | sort -u &&
        cat /sys/fs/cgroup/cgroup.controllers | tr ' ' '\\n' | grep -x cpuset && ping -c 1 -q 127.0.0.1 >/dev/null &&
        mkdir -p /tmp/root/old && unshare -m sh -c 'mount -t tmpfs new /tmp/root && mkdir /tmp/root/old &&
        pivot_root /tmp/root /tmp/root/old' && echo pivoted";
    assert_eq!(
        text(config(), script).split('\n').collect::<Vec<_>>(),
        [
            "/dev/hugepages",
            "/dev/kvm",
            "/dev/vhost-vsock",
            "svm",
            "cpuset",
            "pivoted"
        ]
    );
}

#[test]
#[ignore = "needs QEMU, the parent kernel and Debian's archive; `cargo xtask test` runs it"]
fn debian_packages_bring_all_they_depend_on() {
    let config = Config {
        packages: vec!["socat".into()],
        ..config()
    };
    assert!(text(config, "socat -V").contains("socat version"));
}

#[test]
#[ignore = "needs QEMU and the parent kernel; `cargo xtask test` runs it"]
fn the_time_limit_ends_the_machine_and_keeps_its_log() {
    let limit = Duration::from_secs(20);
    let instance = ParentInstance::prepare(Config {
        time_limit: limit,
        ..config()
    })
    .expect("prepared");
    let error = instance
        .run(&shell("sleep 1000"))
        .expect_err("the command takes longer");
    let Error::TimeLimit { log, .. } = error else {
        panic!("{error}")
    };
    assert!(
        fs::read_to_string(&log)
            .expect("the log is kept")
            .contains("Linux version")
    );
    fs::remove_dir_all(log.parent().expect("directory")).expect("remove");
}

#[test]
#[ignore = "needs QEMU and the parent kernel; `cargo xtask test` runs it"]
fn a_machine_that_ends_early_is_an_error_with_a_log() {
    let instance = ParentInstance::prepare(config()).expect("prepared");
    let error = instance.run(&shell("reboot -f")).expect_err("the machine ends");
    let Error::Ended { log } = error else {
        panic!("{error}")
    };
    assert!(log.is_file());
    fs::remove_dir_all(log.parent().expect("directory")).expect("remove");
}

#[test]
#[ignore = "needs QEMU and the parent kernel; `cargo xtask test` runs it"]
fn hugepages_that_do_not_fit_are_named() {
    // The kernel itself is in the first of these GiB, and a half is no page.
    let config = Config {
        memory: 3584 << 20,
        hugepages_1g: 3,
        ..config()
    };
    let instance = ParentInstance::prepare(config).expect("prepared");
    let error = instance.run(&shell("true")).expect_err("the pages do not fit");
    let Error::NotReady { reason, log } = error else {
        panic!("{error}")
    };
    assert!(reason.contains("hugepages of 1048576 KiB, not 3"), "{reason}");
    fs::remove_dir_all(log.parent().expect("directory")).expect("remove");
}

#[test]
#[ignore = "needs QEMU and the parent kernel; `cargo xtask test` runs it"]
fn two_machines_run_side_by_side() {
    thread::scope(|scope| {
        let machines =
            ["one", "two"].map(|word| (word, scope.spawn(move || text(config(), &format!("echo {word}")))));
        for (word, machine) in machines {
            assert_eq!(machine.join().expect("machine"), word);
        }
    });
}

#[test]
#[ignore = "needs QEMU and the parent kernel; `cargo xtask test` runs it"]
fn no_machine_outlives_its_caller() {
    // Another process of this same program runs a machine, and is killed.
    let program = std::env::current_exe().expect("this program");
    let mut caller = Command::new(program)
        .args([
            "--ignored",
            "--exact",
            "the_time_limit_ends_the_machine_and_keeps_its_log",
        ])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("start the caller");
    wait_until(|| machines_of(caller.id()) == 1);
    caller.kill().expect("kill the caller");
    caller.wait().expect("wait for the caller");
    wait_until(|| machines_of(caller.id()) == 0);
    let directory = std::env::temp_dir().join(format!("parent-instance-{}-0", caller.id()));
    fs::remove_dir_all(directory).expect("its logs are kept");
}

/// QEMU processes whose files are in a directory of the process `caller`.
fn machines_of(caller: u32) -> usize {
    let mark = format!("parent-instance-{caller}-");
    let processes = fs::read_dir("/proc").expect("/proc").flatten();
    let is_machine =
        |command: Vec<u8>| command.starts_with(b"qemu") && String::from_utf8_lossy(&command).contains(&mark);
    processes
        .filter(|process| fs::read(process.path().join("cmdline")).is_ok_and(is_machine))
        .count()
}

fn wait_until(condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_mins(1), "it does not happen");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
#[ignore = "needs QEMU and the parent kernel; `cargo xtask test` runs it"]
fn a_machine_that_counts_instructions_runs_commands() {
    assert_eq!(
        text(
            Config {
                icount: true,
                cpus: 1,
                ..config()
            },
            "echo counted"
        ),
        "counted"
    );
}

#[test]
#[ignore = "needs QEMU and the parent kernel; `cargo xtask test` runs it"]
fn a_refused_command_line_is_told_in_qemus_words() {
    let kernel = PathBuf::from("/no/such/kernel");
    let instance = ParentInstance::prepare(Config { kernel, ..config() }).expect("prepared");
    let error = instance
        .run(&shell("true"))
        .expect_err("there is no kernel")
        .to_string();
    assert!(error.contains("/no/such/kernel"), "{error}");
}

/// A machine that systemd runs.
fn with_systemd() -> Config {
    Config {
        systemd: true,
        ..config()
    }
}

#[test]
#[ignore = "needs QEMU, the parent kernel and Debian's archive; `cargo xtask test` runs it"]
fn with_systemd_the_command_runs_once_the_machine_is_up_and_ends_as_ever() {
    let script = "cat /proc/1/comm; systemctl is-system-running; systemctl --failed --no-legend
        dpkg --audit && dpkg-query --list; ls -d /dev/hugepages /dev/kvm; pwd
        sleep 1000 & (trap '' TERM; sleep 1000) & echo to stderr >&2; exit 42";
    let (exit, stdout, stderr) = run(with_systemd(), &shell(script));
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert_eq!(
        stdout, "systemd\nrunning\n/dev/hugepages\n/dev/kvm\n/root\n",
        "{stderr}"
    );
    assert!(stderr.ends_with("to stderr\n"), "{stderr}");
    assert_eq!(exit.status, 42);
}

#[test]
#[ignore = "needs QEMU, the parent kernel and Debian's archive; `cargo xtask test` runs it"]
fn with_systemd_a_package_without_dependencies_can_be_installed() {
    let script = r"mkdir -p /tmp/p/DEBIAN /tmp/p/opt && cd /tmp/p && echo contents >opt/file
        printf 'Package: p\nVersion: 1\nArchitecture: all\nMaintainer: nobody\nDescription: p\n' >DEBIAN/control
        printf '#!/bin/sh\nreadlink /proc/$$/exe\n' >DEBIAN/postinst; chmod 755 DEBIAN/postinst
        dpkg-deb --build . /tmp/p.deb >/dev/null && dpkg --install /tmp/p.deb | tail -n 1 && cat /opt/file";
    assert_eq!(text(with_systemd(), script), "/bin/dash\ncontents");
}
