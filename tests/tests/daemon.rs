// parent: --cpus 6 --memory 3G --hugepages-2m 512 -- --test-threads 1
//! The daemon's own life: start, clients of every kind, shutdown.

#![forbid(unsafe_code)]

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::thread;

use end_to_end_tests::{
    Enclave, Host, Launch, OwnDaemon, World, eifs, new_run_directory, parent, poll, processes_named, run,
    send_signal,
};
use rustix::process::Signal;
use serde_json::Value;

fn hello() -> Launch {
    Launch::of(parent::hello_eif()).with_memory(128)
}

#[test]
fn a_second_daemon_is_refused_and_told_who_is_first() {
    let _world = World::enter();
    let host = Host::of_the_parent();
    let enclave = hello().run(&host);
    let first = fs::read_to_string(host.run_directory().join("enclaved.lock")).expect("the lock");

    for options in [&["--foreground"][..], &[]] {
        let second = run(Command::new("enclaved").args(options));
        assert_eq!(second.code(), Some(1), "{second:#?}");
        let told = format!("another enclaved (process {}) serves /run/enclaved", first.trim());
        assert!(second.stderr.contains(&told), "{second:#?}");
    }

    assert!(enclave.description().is_some(), "the first goes on");
}

#[test]
fn without_a_daemon_every_command_is_e39_and_says_how_to_start_it() {
    let _world = World::enter();
    let nobody = Host::at("/tmp/no-daemon");
    let words = ["not running", "/tmp/no-daemon/enclaved.sock", "sudo enclaved"];

    for arguments in [
        &["describe-enclaves"][..],
        &["terminate-enclave", "--all"],
        &["terminate-enclave", "--enclave-id", "i-0-enc1"],
        &["console", "--enclave-name", "hello"],
    ] {
        nobody.cli(arguments).failed_with(39, "E39", &words);
    }
    hello().attempt(&nobody).failed_with(39, "E39", &words);
}

#[test]
fn sigterm_ends_the_enclaves_and_then_the_daemon() {
    let _world = World::enter();
    for signal in [Signal::TERM, Signal::INT] {
        let mut daemon = OwnDaemon::start(&[]);
        let enclaves = [(); 2].map(|()| hello().in_debug_mode().run(daemon.host()));
        let mut console = enclaves[0].console();
        console.wait_for("Hello from the enclave side!");
        let vmms = enclaves.each_ref().map(Enclave::process_id);

        let ended = daemon.end_with(signal).succeeded();

        assert!(ended.stderr.contains("shutting down"), "{ended:#?}");
        assert_eq!(
            console.finish().code(),
            Some(0),
            "a console ends with its enclave"
        );
        let left = processes_named("enclave-vmm");
        assert!(vmms.iter().all(|vmm| !left.contains(vmm)), "{left:?}");
        assert!(!daemon.host().socket().exists());
        assert!(enclaves.iter().all(|enclave| !enclave.directory().exists()));
        daemon
            .host()
            .cli(&["describe-enclaves"])
            .failed_with(39, "E39", &["not running"]);
    }
}

#[test]
fn sigterm_also_ends_an_enclave_that_still_boots() {
    let _world = World::enter();
    let mut daemon = OwnDaemon::start(&[]);
    let booting = Launch::of(eifs::with_init("idle")).start(daemon.host());
    poll::until("the VMM", || processes_named("enclave-vmm").first().copied());

    let _ = daemon.end_with(Signal::TERM).succeeded();

    booting
        .finish()
        .failed_to_run("E36", &["the daemon is shutting down"]);
}

#[test]
fn what_a_killed_daemon_leaves_is_gone_once_the_next_has_come_and_gone() {
    let _world = World::enter();
    let run_directory = new_run_directory();
    let mut first = OwnDaemon::start_in(&run_directory, &[]);
    // Forgotten, not dropped: there is no daemon any more that could terminate it.
    std::mem::forget(hello().run(first.host()));

    let killed = first.end_with(Signal::KILL);
    assert_eq!(killed.code(), None);

    let mut second = OwnDaemon::start_in(&run_directory, &[]);
    hello().run(second.host()).terminate();
    let _ = second.end_with(Signal::TERM).succeeded();
}

#[test]
fn a_client_that_leaves_while_its_enclave_boots_takes_it_along_and_others_are_served_meanwhile() {
    let _world = World::enter();
    let host = Host::of_the_parent();
    for signal in [Signal::INT, Signal::KILL] {
        let client = Launch::of(eifs::with_init("idle")).start(&host);
        poll::until("the VMM", || processes_named("enclave-vmm").first().copied());

        assert_eq!(
            host.describe(),
            Vec::<Value>::new(),
            "as on AWS, an enclave that boots is not listed"
        );
        hello().run(&host).terminate();
        client.signal(signal);

        assert_eq!(client.finish().code(), None);
        poll::until("the VMM's end", || {
            processes_named("enclave-vmm").is_empty().then_some(())
        });
    }
}

#[test]
fn a_hundred_clients_at_once_are_all_answered_whatever_others_do() {
    let _world = World::enter();
    let host = Host::of_the_parent();
    let enclave = hello().in_debug_mode().run(&host);
    let silent: Vec<_> = (0..100)
        .map(|_| UnixStream::connect(host.socket()).expect("connect"))
        .collect();
    let watchers: Vec<_> = (0..8).map(|_| enclave.console()).collect();

    thread::scope(|scope| {
        let clients: Vec<_> = (0..100).map(|_| scope.spawn(|| host.describe())).collect();
        for client in clients {
            let listed = client.join().expect("an answer");
            assert_eq!(listed.len(), 1, "{listed:?}");
        }
    });

    drop((silent, watchers));
}

#[test]
fn garbage_from_a_client_is_refused_and_harms_nobody() {
    let _world = World::enter();
    let host = Host::of_the_parent();
    let enclave = hello().run(&host);
    let garbage: [&[u8]; 5] = [
        b"GET / HTTP/1.1\r\n\r\n",
        &[0xff; 4096],
        &[0, 0, 0, 2, b'{', b'}'],
        &[0, 0, 0, 9, b'{'],
        b"\0\0\0\x10{\"request\":\"no\"}",
    ];
    for bytes in garbage {
        let mut stream = UnixStream::connect(host.socket()).expect("connect");
        // The daemon may answer and close before it has read everything.
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let text = String::from_utf8_lossy(&answer);
        assert!(
            answer.is_empty() || text.contains("\"reply\":\"error\""),
            "{text}"
        );
    }
    assert!(enclave.description().is_some());
}

#[test]
fn without_foreground_the_command_returns_once_clients_can_connect() {
    let _world = World::enter();
    let run_directory = new_run_directory();
    let _ = run(Command::new("enclaved")
        .arg("--run-directory")
        .arg(&run_directory))
    .succeeded();
    let host = Host::at(&run_directory);

    assert_eq!(host.describe(), Vec::<Value>::new());
    let enclave = hello().run(&host);
    let id = enclave.id.clone();
    enclave.terminate();

    let process_id = fs::read_to_string(run_directory.join("enclaved.lock")).expect("the lock");
    send_signal(process_id.trim().parse().expect("a process id"), Signal::TERM);
    poll::until("the daemon's end", || (!host.socket().exists()).then_some(()));
    let log = poll::until("the last line of its log", || {
        let log = fs::read_to_string(run_directory.join("enclaved.log")).expect("the log");
        log.contains("stopped").then_some(log)
    });
    assert!(log.contains(&id), "{log}");
    fs::remove_dir_all(run_directory).expect("clean up");
}

#[test]
fn the_log_tells_each_enclaves_life_in_text_and_in_json() {
    let _world = World::enter();
    for format in ["text", "json"] {
        let mut daemon = OwnDaemon::start(&["--log-format", format]);
        let enclave = hello().run(daemon.host());
        let id = enclave.id.clone();
        enclave.terminate();

        let log = daemon.end_with(Signal::TERM).succeeded().stderr;

        for word in ["admitted", "launched", "running", "terminated by request"] {
            let line = log.lines().find(|line| line.contains(word) && line.contains(&id));
            assert!(line.is_some(), "no line says {word:?}: {log}");
        }
        if format == "json" {
            for line in log.lines() {
                serde_json::from_str::<Value>(line).unwrap_or_else(|error| panic!("{error}: {line}"));
            }
        }
    }
}

/// The parent instance has the group `ne`, number 900, and the user `nobody`, who is not in it.
#[test]
fn the_group_ne_may_use_the_daemon_and_others_may_not() {
    let _world = World::enter();
    let host = Host::of_the_parent();
    let as_user = |group: u32| {
        let mut command = host.command(&["describe-enclaves"]);
        run(command.uid(65534).gid(group))
    };

    assert_eq!(as_user(900).succeeded().stdout, "[]\n");
    as_user(65534).failed_with(39, "E39", &["No permission", "the group `ne`"]);
}

#[test]
fn a_user_needs_no_more_rights_on_an_image_than_to_read_it_and_gets_no_others() {
    let _world = World::enter();
    let host = Host::of_the_parent();
    let eif = eifs::path("private.eif");
    fs::copy(parent::hello_eif(), &eif).expect("copy the image");
    let with_mode = |mode: u32| {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
        fs::set_permissions(&eif, mode).expect("change the mode");
        run(Launch::of(&eif).command(&host).uid(65534).gid(900))
    };

    with_mode(0o600).failed_to_run("E19", &["private.eif", "Permission denied"]);
    let started = with_mode(0o644).succeeded();

    Enclave::started_by(started, &host).terminate();
}
