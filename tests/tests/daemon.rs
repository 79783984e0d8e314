// parent: --cpus 6 --memory 3G --hugepages-2m 512 -- --test-threads 1
//! The daemon's own life: start, clients of every kind, shutdown.

#![forbid(unsafe_code)]

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::thread;
use std::time::Duration;

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
fn sigint_ends_the_enclaves_and_then_the_daemon() {
    let _world = World::enter();
    let mut daemon = OwnDaemon::start(&[]);
    let enclaves = [(); 2].map(|()| hello().in_debug_mode().run(daemon.host()));
    let mut console = enclaves[0].console();
    console.wait_for("Hello from the enclave side!");
    let vmms = enclaves.each_ref().map(Enclave::process_id);

    let ended = daemon.end_with(Signal::INT).succeeded();

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

/// Stopped by a service manager, stopped by accident, killed: enclaves go on, and the next daemon has them all.
#[test]
fn enclaves_outlive_their_daemon_however_it_ends() {
    let _world = World::enter();
    let mut daemon = OwnDaemon::start(&[]);
    let watched = hello().in_debug_mode().run(daemon.host());
    let other = hello().run(daemon.host());
    watched.console().wait_for("Hello from the enclave side!");
    let listed = daemon.host().describe();
    assert_eq!(listed.len(), 2);

    for signal in [Signal::TERM, Signal::HUP, Signal::KILL] {
        daemon.end_with(signal);
        let running = processes_named("enclave-vmm");
        for enclave in [&watched, &other] {
            assert!(running.contains(&enclave.process_id()), "{signal:?}: {running:?}");
        }
        // Nobody is there to read, and the guest goes on printing.
        thread::sleep(Duration::from_secs(3));

        daemon.start_next(&[]);

        assert_eq!(daemon.host().describe(), listed, "{signal:?}");
    }
    let mut console = watched.console();
    console.wait_for("Hello from the enclave side!");
    assert!(
        console.stdout().contains("Run /init as init process"),
        "the console begins with the boot: {}",
        console.stdout()
    );
    let lines = |text: &str| text.matches("Hello from the enclave side!").count();
    let before = lines(&console.stdout());
    poll::until("the console to go on", || {
        (lines(&console.stdout()) > before).then_some(())
    });
    other.terminate();
    watched.terminate();
    assert_eq!(console.finish().code(), Some(0));
    let _ = daemon.end_with(Signal::INT).succeeded();
}

#[test]
fn ended_enclaves_are_listed_with_why_and_with_their_exit_code() {
    let _world = World::enter();
    let mut daemon = OwnDaemon::start(&[]);
    hello().named("terminated").run(daemon.host()).terminate();
    let dying = Launch::of(eifs::of_application("exit-at-once", &["3"]))
        .in_debug_mode()
        .named("dying")
        .run(daemon.host());
    dying.wait_until_gone();
    let killed = hello().named("killed").run(daemon.host());
    send_signal(killed.process_id(), Signal::KILL);
    poll::until("the end of all", || {
        daemon.host().describe().is_empty().then_some(())
    });
    // The list is the next daemon's as well.
    daemon.end_with(Signal::KILL);
    daemon.start_next(&[]);

    let finished = daemon.host().cli(&["describe-enclaves", "--ended"]).succeeded();

    let ended = finished.json();
    let about = |name: &str| {
        let all = ended.as_array().expect("an array");
        all.iter()
            .find(|enclave| enclave["EnclaveName"] == name)
            .unwrap_or_else(|| panic!("{name} is not listed: {ended:#}"))
    };
    assert_eq!(about("terminated")["Reason"], "it was terminated by request");
    assert_eq!(about("dying")["ExitCode"], 3, "{ended:#}");
    assert_eq!(about("dying")["Reason"], "its application ended with exit code 3");
    let last_words = about("dying")["Console"].as_array().expect("lines");
    assert!(
        last_words
            .iter()
            .any(|line| line.as_str().is_some_and(|line| line.contains("exit code 3"))),
        "{last_words:?}"
    );
    assert!(
        about("killed")["Reason"]
            .as_str()
            .is_some_and(|reason| reason.contains("SIGKILL")),
        "{ended:#}"
    );
}

#[test]
fn an_enclave_that_still_boots_ends_with_its_daemon() {
    let _world = World::enter();
    for (signal, error, words) in [
        (Signal::TERM, "E36", "the daemon is shutting down"),
        (Signal::KILL, "E39", "daemon ended the connection"),
    ] {
        let mut daemon = OwnDaemon::start(&[]);
        let booting = Launch::of(eifs::with_init("idle")).start(daemon.host());
        poll::until("the VMM", || processes_named("enclave-vmm").first().copied());

        daemon.end_with(signal);

        let finished = booting.finish();
        assert_eq!(finished.code(), Some(39), "{finished:#?}");
        assert!(finished.stderr.contains(&format!("[ {error} ]")), "{finished:#?}");
        assert!(finished.stderr.contains(words), "{finished:#?}");
        poll::until("the VMM's end", || {
            processes_named("enclave-vmm").is_empty().then_some(())
        });
        // What a killed one has left is the next one's to clear.
        daemon.start_next(&[]);
        assert_eq!(daemon.host().describe(), Vec::<Value>::new());
    }
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
        poll::until("the enclave's end", || host.all_cpus_are_free().then_some(()));
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
        .arg(&run_directory)
        // The parent's daemon has the ports of the machine's vsock.
        .args(["--vsock", "unix"]))
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
