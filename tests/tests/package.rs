// parent: --systemd --cpus 4 --memory 2G --hugepages-2m 256 -- --test-threads 1
//! The Debian package on a host that systemd runs: installed, restarted, upgraded, removed, purged.
//!
//! Every test begins on a host without the package and with [`Installed::now`], and leaves it so.

#![forbid(unsafe_code)]
#![expect(clippy::expect_used, reason = "a suite fails on the spot")]

use std::fs;
use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use end_to_end_tests::{
    Enclave, Finished, Host, Launch, Running, parent, poll, processes_named, run, send_signal,
};
use rustix::process::Signal;
use vsock::{VMADDR_CID_ANY, VsockListener};

const SERVICE: &str = "enclaved.service";
const SOCKET: &str = "enclaved.socket";
const ALLOCATOR_YAML: &str = "/etc/nitro_enclaves/allocator.yaml";

/// The control groups of the daemon and of its enclaves.
const ENCLAVES: &str = "/sys/fs/cgroup/enclaved-run-enclaved";
const CONTROL_GROUP: &str = "/sys/fs/cgroup/system.slice/enclaved.service";

/// Made by installing or using the package; gone when it is removed, the last three when it is purged.
const PATHS: [&str; 19] = [
    "/usr/share/man/man1/nitro-cli.1.gz",
    "/usr/share/man/man1/nitro-cli-run-enclave.1.gz",
    "/usr/share/bash-completion/completions/nitro-cli",
    "/usr/bin/nitro-enclaves-allocator",
    "/lib/systemd/system/nitro-enclaves-allocator.service",
    "/usr/bin/vsock-proxy",
    "/lib/systemd/system/nitro-enclaves-vsock-proxy.service",
    "/sys/fs/cgroup/enclaved-run-enclaved",
    "/usr/bin/enclaved",
    "/usr/bin/enclave-vmm",
    "/usr/bin/nitro-cli",
    "/usr/share/nitro_enclaves",
    "/lib/systemd/system/enclaved.service",
    "/run/enclaved",
    "/run/nitro_enclaves",
    "/etc/nitro_enclaves",
    "/var/log/nitro_enclaves",
    "/var/log/enclaved",
    "/var/lib/enclaved",
];
const GONE_AFTER_REMOVAL: usize = 15;

/// The package, installed until this is dropped.
struct Installed;

impl Installed {
    /// Installs the older version, which starts the daemon.
    #[track_caller]
    fn now() -> Self {
        parent::require();
        let _ = dpkg(&["--purge", "enclaved"]);
        assert_eq!(there(&PATHS), Vec::<&str>::new(), "something stayed behind");
        install(&parent::packages()[0]);
        Self
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("the journal:\n{}", journal());
            for vmm in processes_named("enclave-vmm") {
                send_signal(vmm, Signal::KILL);
            }
        }
        let _ = dpkg(&["--purge", "enclaved"]);
    }
}

fn dpkg(arguments: &[&str]) -> Finished {
    run(Command::new("dpkg").args(arguments))
}

#[track_caller]
fn install(package: &Path) {
    let _ = run(Command::new("dpkg").arg("--install").arg(package)).succeeded();
}

#[track_caller]
fn remove() {
    let _ = dpkg(&["--remove", "enclaved"]).succeeded();
}

fn systemctl(arguments: &[&str]) -> Finished {
    run(Command::new("systemctl").args(arguments))
}

fn journal() -> String {
    run(Command::new("journalctl").args(["--no-pager", "--lines", "60", "--unit", SERVICE])).stdout
}

/// `active`, `inactive`, `failed`.
fn state(unit: &str) -> String {
    systemctl(&["is-active", unit]).stdout.trim_end().to_owned()
}

/// A property of the daemon's unit, as `systemctl show` has it.
fn property(name: &str) -> String {
    let shown = systemctl(&["show", "--value", "--property", name, SERVICE]).succeeded();
    shown.stdout.trim_end().to_owned()
}

fn daemon() -> u32 {
    property("MainPID").parse().expect("a process id")
}

fn version() -> String {
    let query = ["--showformat", "${Version}", "--show", "enclaved"];
    run(Command::new("dpkg-query").args(query)).succeeded().stdout
}

/// Those of `paths` that exist.
fn there<'a>(paths: &[&'a str]) -> Vec<&'a str> {
    let paths = paths.iter().copied();
    paths.filter(|path| Path::new(path).exists()).collect()
}

/// 128 MiB, of which two fit.
fn hello() -> Launch {
    Launch::of(parent::hello_eif()).with_memory(128)
}

/// How many hugepages are taken.
fn hugepages_in_use() -> u64 {
    let count = |name: &str| -> u64 {
        let path = PathBuf::from("/sys/kernel/mm/hugepages/hugepages-2048kB").join(name);
        let text = fs::read_to_string(path).expect("a counter");
        text.trim_end().parse().expect("a number")
    };
    count("nr_hugepages") - count("free_hugepages") + count("resv_hugepages")
}

/// Neither a process nor what it held is left, apart from files.
#[track_caller]
fn assert_nothing_runs() {
    for name in ["enclaved", "enclave-vmm", "nitro-cli"] {
        poll::until(&format!("the end of every {name}"), || {
            processes_named(name).is_empty().then_some(())
        });
    }
    poll::until("all hugepages to be free", || {
        (hugepages_in_use() == 0).then_some(())
    });
    let sockets = fs::read_to_string("/proc/net/unix").expect("the sockets");
    assert!(!sockets.contains("/run/enclaved"), "{sockets}");
    poll::until("the end of the control group", || {
        (!Path::new(CONTROL_GROUP).exists()).then_some(())
    });
}

/// It runs in the same process, its console is readable, and it can be ended.
#[track_caller]
fn assert_undisturbed(enclave: Enclave) {
    let description = enclave.description().expect("the enclave is still there");
    assert_eq!(description["ProcessID"], enclave.process_id());
    assert_eq!(description["State"], "RUNNING");
    enclave.console().wait_for("Hello from the enclave side!");
    enclave.terminate();
    assert_eq!(hugepages_in_use(), 0);
}

#[test]
fn installing_starts_the_daemon_for_the_group_ne() {
    let _installed = Installed::now();

    assert_eq!([SERVICE, SOCKET].map(state), ["active", "active"]);
    let groups = fs::read_to_string("/etc/group").expect("the groups");
    let group = groups.lines().find_map(|line| line.strip_prefix("ne:x:"));
    let group = group
        .and_then(|rest| rest.split(':').next())
        .expect("the group ne");
    let socket = fs::metadata("/run/enclaved/enclaved.sock").expect("the socket");
    assert!(socket.file_type().is_socket());
    assert_eq!(
        (socket.gid().to_string().as_str(), socket.mode() & 0o7777),
        (group, 0o660)
    );

    let host = Host::of_the_parent();
    let enclave = hello().in_debug_mode().run(&host);
    enclave.console().wait_for("Hello from the enclave side!");
    assert_eq!(property("NotifyAccess"), "main");
    poll::until("the unit's status to count the enclave", || {
        (property("StatusText") == "1 enclave runs").then_some(())
    });
    enclave.terminate();
}

#[test]
fn removing_ends_enclaves_and_leaves_nothing_but_configuration_and_purging_not_even_that() {
    let _installed = Installed::now();
    fs::create_dir_all("/etc/nitro_enclaves").expect("create a directory");
    fs::write(
        "/etc/nitro_enclaves/allocator.yaml",
        "---\nmemory_mib: 256\ncpu_count: 2\n",
    )
    .expect("configure");
    let enclave = hello().run(&Host::of_the_parent());
    assert_eq!(hugepages_in_use(), 64);
    // Stands for a VMM that the daemon cannot end.
    let mut stray = Running::start(Command::new("sleep").arg("100000"));
    fs::write(format!("{CONTROL_GROUP}/cgroup.procs"), stray.id().to_string()).expect("move a process");

    remove();

    assert_nothing_runs();
    assert!(stray.has_ended());
    assert_eq!(there(&PATHS), PATHS[GONE_AFTER_REMOVAL..]);
    assert_eq!([SERVICE, SOCKET].map(state), ["inactive", "inactive"]);
    assert!(!enclave.directory().exists());

    let _ = dpkg(&["--purge", "enclaved"]).succeeded();

    assert_eq!(there(&PATHS), Vec::<&str>::new());
    let failed = systemctl(&["--failed", "--no-legend"]).succeeded().stdout;
    assert_eq!(failed, "");
}

#[test]
fn what_was_removed_can_be_installed_again() {
    let _installed = Installed::now();
    remove();
    install(&parent::packages()[0]);
    assert_eq!([SERVICE, SOCKET].map(state), ["active", "active"]);
    hello().run(&Host::of_the_parent()).terminate();
}

#[test]
fn a_daemon_that_was_disabled_is_not_started_by_an_upgrade() {
    let _installed = Installed::now();
    let _ = systemctl(&["disable", "--now", SERVICE, SOCKET]).succeeded();

    install(&parent::packages()[1]);

    assert!(version().ends_with("-2"), "{}", version());
    assert_eq!([SERVICE, SOCKET].map(state), ["inactive", "inactive"]);
}

#[test]
fn a_client_of_a_stopped_daemon_starts_it_through_the_socket() {
    let _installed = Installed::now();
    let _ = systemctl(&["stop", SERVICE]).succeeded();
    assert_eq!([SERVICE, SOCKET].map(state), ["inactive", "active"]);

    hello().run(&Host::of_the_parent()).terminate();

    assert_eq!(state(SERVICE), "active");
    let _ = systemctl(&["stop", SERVICE, SOCKET]).succeeded();
    assert_nothing_runs();
}

#[test]
fn clients_that_come_while_the_daemon_restarts_wait_for_it() {
    let _installed = Installed::now();
    let host = Host::of_the_parent();
    let restarts = thread::spawn(|| {
        for _ in 0..5 {
            let _ = systemctl(&["restart", SERVICE]).succeeded();
        }
    });
    // A client whose request the old daemon has taken but not answered fails; all others are answered.
    let (mut answered, mut failed) = (0, 0);
    while !restarts.is_finished() {
        let client = host.cli(&["describe-enclaves"]);
        if client.code() == Some(0) {
            answered += 1;
        } else {
            assert!(!client.stderr.contains("not running"), "{client:#?}");
            failed += 1;
        }
    }
    restarts.join().expect("the restarts");
    assert!(answered > failed, "{answered} answered, {failed} failed");
}

#[test]
fn a_killed_daemon_is_started_again() {
    let _installed = Installed::now();
    let killed = daemon();

    let _ = systemctl(&["kill", "--kill-whom", "main", "--signal", "KILL", SERVICE]).succeeded();

    poll::until("another daemon", || {
        (state(SERVICE) == "active" && daemon() != killed).then_some(())
    });
    hello().run(&Host::of_the_parent()).terminate();
}

#[test]
fn a_daemon_that_hangs_is_replaced_by_the_watchdog() {
    let _installed = Installed::now();
    let hanging = daemon();

    send_signal(hanging, Signal::STOP);

    poll::until("another daemon", || {
        (state(SERVICE) == "active" && daemon() != hanging).then_some(())
    });
    assert!(journal().contains("Watchdog timeout"), "{}", journal());
    hello().run(&Host::of_the_parent()).terminate();
}

/// Without the unit's `Delegate=`, each reload takes the controllers, and with them every partition of CPUs and every limit, away.
#[test]
fn a_reload_of_systemd_leaves_an_enclaves_cpus_exclusive_and_its_vmm_limited() {
    let _installed = Installed::now();
    let enclave = hello().run(&Host::of_the_parent());
    let group = format!("{ENCLAVES}/{}", enclave.id);
    for command in [
        &["daemon-reload"][..],
        &["restart", SERVICE],
        &["stop", SERVICE],
        &["daemon-reload"],
    ] {
        let _ = systemctl(command).succeeded();
        let said = |file: &str| fs::read_to_string(format!("{group}/{file}")).expect("a file of the group");
        assert_eq!(
            said("vcpus/cpuset.cpus.partition").trim_end(),
            "isolated",
            "after {command:?}"
        );
        for limit in ["pids.max", "memory.max"] {
            assert_ne!(said(limit).trim_end(), "max", "{limit} after {command:?}");
        }
    }
    enclave.terminate();
}

#[test]
fn removing_gives_back_what_the_allocator_has_set_apart() {
    let _installed = Installed::now();
    let reserved = || {
        let path = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";
        fs::read_to_string(path).expect("a counter").trim_end().to_owned()
    };
    let configuration = "---\nmemory_mib: 128\ncpu_count: 2\n";
    fs::write(ALLOCATOR_YAML, configuration).expect("configure");
    let _ = systemctl(&["start", "nitro-enclaves-allocator.service"]).succeeded();
    assert_eq!(reserved(), "64");
    let enclave = hello().run(&Host::of_the_parent());
    assert_eq!(enclave.info["NumberOfCPUs"], 2);

    remove();

    assert_nothing_runs();
    let left = reserved();
    fs::write("/proc/sys/vm/nr_hugepages", "256").expect("reserve what the other tests use");
    assert_eq!(left, "0");
    let kept = fs::read_to_string(ALLOCATOR_YAML).expect("the configuration stays");
    assert_eq!(kept, configuration);
}

#[test]
fn the_proxys_service_has_in_its_sandbox_what_it_needs() {
    const PROXY: &str = "nitro-enclaves-vsock-proxy.service";
    let _installed = Installed::now();
    assert_eq!(state(PROXY), "inactive");
    let targets = "targets:\n\
        - {local_port: 800, remote_addr: kms.us-east-1.amazonaws.com, remote_port: 443}\n\
        - {inbound: '127.0.0.1:843', enclave_cid: 16, enclave_port: 443}\n";
    fs::write("/etc/nitro_enclaves/vsock-proxy-targets.yaml", targets).expect("configure");

    let _ = systemctl(&["start", PROXY]).succeeded();

    let mut client = poll::until("the proxy to listen", || TcpStream::connect("127.0.0.1:843").ok());
    client.set_read_timeout(Some(poll::LIMIT)).expect("a limit");
    // There is no such enclave.
    assert_eq!(client.read(&mut [0]).expect("an end"), 0);
    let taken = VsockListener::bind_with_cid_port(VMADDR_CID_ANY, 800).expect_err("the proxy has the port");
    assert_eq!(taken.kind(), ErrorKind::AddrInUse);
    let _ = systemctl(&["kill", "--kill-whom", "main", "--signal", "USR1", PROXY]).succeeded();
    poll::until("counters in the journal", || {
        let journal = run(Command::new("journalctl").args(["--no-pager", "--unit", PROXY])).stdout;
        journal.contains("accepted=1 open=0 failed=1").then_some(())
    });
    assert_eq!(state(PROXY), "active");
    remove();
    assert_eq!(state(PROXY), "inactive");
}

#[test]
fn an_upgrade_leaves_enclaves_running() {
    let _installed = Installed::now();
    let before = daemon();
    let enclave = hello().in_debug_mode().run(&Host::of_the_parent());

    install(&parent::packages()[1]);

    assert!(version().ends_with("-2"), "{}", version());
    assert_ne!(daemon(), before, "the new daemon runs");
    assert_undisturbed(enclave);
}

#[test]
fn a_restart_of_the_daemon_leaves_enclaves_running() {
    let _installed = Installed::now();
    let enclave = hello().in_debug_mode().run(&Host::of_the_parent());

    let _ = systemctl(&["restart", SERVICE]).succeeded();

    assert_undisturbed(enclave);
}

#[test]
fn a_daemon_that_is_killed_leaves_enclaves_running() {
    let _installed = Installed::now();
    let enclave = hello().in_debug_mode().run(&Host::of_the_parent());
    let killed = daemon();

    send_signal(killed, Signal::KILL);

    poll::until("another daemon", || {
        (state(SERVICE) == "active" && daemon() != killed).then_some(())
    });
    assert_undisturbed(enclave);
}

#[test]
fn removing_ends_enclaves_whose_daemon_was_stopped() {
    let _installed = Installed::now();
    let enclave = hello().run(&Host::of_the_parent());
    let _ = systemctl(&["stop", SERVICE, SOCKET]).succeeded();
    assert_eq!(processes_named("enclave-vmm"), [enclave.process_id()]);

    remove();

    assert_nothing_runs();
    assert!(!Path::new("/run/enclaved").exists());
}

/// The script that [`docs/ci.md`](../../docs/ci.md) has runners call.
fn boot_image(image: &Path, line: &str) -> Finished {
    let script = "/usr/share/doc/enclaved/examples/boot-image.sh";
    run(Command::new("sh")
        .arg(script)
        .arg(image)
        .arg(line)
        .envs([("MEMORY", "128"), ("LIMIT", "20")]))
}

#[test]
fn the_example_for_ci_builds_and_boots_an_image_and_leaves_nothing() {
    let _installed = Installed::now();
    let image = Path::new("/tmp/ci-image");
    let bin = image.join("rootfs/bin");
    fs::create_dir_all(&bin).expect("make the image");
    fs::copy("/bin/busybox", bin.join("busybox")).expect("copy busybox");
    fs::write(image.join("env"), "").expect("write the environment");
    // One that goes on, and one that is gone before anybody can look.
    for then in ["exec /bin/busybox sleep 1000", "exit 3"] {
        let command = format!("/bin/busybox\nsh\n-c\necho it boots; {then}\n");
        fs::write(image.join("cmd"), command).expect("write the command");

        let passed = boot_image(image, "it boots").succeeded();
        // The console has ends of lines of its own.
        assert!(
            passed.stdout.trim_end().ends_with("it boots"),
            "{}",
            passed.stdout
        );
    }

    let failed = boot_image(image, "something else");
    assert_eq!(failed.code(), Some(1));
    assert!(failed.stdout.contains("it boots"), "{}", failed.stdout);
    assert!(
        failed.stderr.contains("did not print: something else"),
        "{}",
        failed.stderr
    );
    assert_eq!(Host::of_the_parent().describe().len(), 0);
    fs::remove_dir_all(image).expect("remove the image");
}
