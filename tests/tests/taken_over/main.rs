// parent: --cpus 8 --threads 2 --memory 3G --hugepages-2m 768 --no-daemon -- --test-threads 1 --nocapture
//! The VMM that is shipped, in a running enclave, with code of an attacker's in it.
//!
//! Root of the parent makes a thread of each class execute system calls (`end_to_end_tests::injection`): a special build of the VMM would
//! be another program than the one that users have, and its code would run where its authors have put it. What a thread's filter
//! forbids ends the VMM, so that each such attempt is one enclave. What the attempts get where no filter is in the way, a VMM shows
//! whose filters let everything through (`enclave-vmm --log-forbidden-calls`). The table in `docs/threat-model.md` has the results.

#![forbid(unsafe_code)]
#![expect(clippy::expect_used, reason = "a suite fails on the spot")]

mod attempts;

use std::fs::{self, Permissions};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};

use api::nsm::RequestPacket;
use attempts::{Attempt, Otherwise, Own, Targets, attempts};
use end_to_end_tests::hostile_vmm::{FINDINGS, ORDERS, attestation};
use end_to_end_tests::injection::{Argument, Hijacked, Outcome};
use end_to_end_tests::{
    Enclave, Launch, OwnDaemon, Running, World, eifs, parent, poll, processes_named, send_signal,
};
use nix::libc;
use rustix::io::Errno;
use rustix::process::Signal;

const MIB: u64 = 1 << 20;

/// Threads of a VMM, by the filter that they have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    /// The only thread, which has read nothing yet.
    Boot,
    Vcpu,
    /// With the kernel's vsock.
    Vsock,
    /// With Unix sockets.
    VsockUnix,
    Devices,
}

impl Class {
    const ALL: [Self; 5] = [
        Self::Boot,
        Self::Vcpu,
        Self::Vsock,
        Self::VsockUnix,
        Self::Devices,
    ];

    /// Those of a VMM with the kernel's vsock whose guest runs.
    const RUNNING: [Self; 3] = [Self::Vcpu, Self::Vsock, Self::Devices];

    fn vsock(self) -> &'static str {
        match self {
            Self::VsockUnix => "unix",
            _ => "kernel",
        }
    }

    /// Its thread of this VMM, once it has its filter.
    fn thread(self, process: u32) -> Option<u32> {
        let name = match self {
            Self::Boot | Self::Devices => "enclave-vmm",
            Self::Vcpu => "vcpu0",
            Self::Vsock | Self::VsockUnix => "vsock",
        };
        let tasks = fs::read_dir(format!("/proc/{process}/task")).ok()?.flatten();
        let mut threads = tasks.filter_map(|task| task.file_name().to_str()?.parse().ok());
        threads.find(|thread| {
            let status = fs::read_to_string(format!("/proc/{process}/task/{thread}/status"));
            let status = status.unwrap_or_default();
            let has = |line: &str| status.lines().any(|present| present == line);
            // That of boot, and its own.
            has(&format!("Name:\t{name}")) && has("Seccomp_filters:\t2")
        })
    }
}

fn hello(class: Class) -> Launch {
    launch(&parent::hello_eif(), class)
}

fn launch(eif: &Path, class: Class) -> Launch {
    Launch::of(eif).with_memory(128).with(&["--vsock", class.vsock()])
}

/// `jmp` to itself: a guest that runs, as many do in one test, without having to be booted.
const ENDLESS_LOOP: [u8; 2] = [0xeb, 0xfe];

/// A daemon whose VMMs are started as these orders say (`start-vmm`).
fn daemon(orders: &str) -> OwnDaemon {
    give_orders(orders);
    let vmm = parent::guest_application("start-vmm");
    OwnDaemon::start(&["--vmm", vmm.to_str().expect("a path")])
}

fn give_orders(orders: &str) {
    fs::write(FINDINGS, "").expect("make a file for the findings");
    fs::write(ORDERS, orders).expect("write the orders");
}

/// Stops the thread of this class of an enclave that runs.
fn hijacked(enclave: &Enclave, class: Class) -> Hijacked {
    let process = enclave.process_id();
    Hijacked::stop(process, class.thread(process).expect("a thread of this class"))
}

/// Descriptors of this VMM, by what they lead to.
fn descriptors(process: u32) -> Vec<(u32, PathBuf)> {
    let directory = format!("/proc/{process}/fd");
    let entries = fs::read_dir(&directory).expect("descriptors").flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers
        .filter_map(|number: u32| Some((number, fs::read_link(format!("{directory}/{number}")).ok()?)))
        .collect()
}

/// One that has been received already; boot has none of them.
fn own_descriptors(process: u32) -> Own {
    let all = descriptors(process);
    let find = |end: &str| {
        let mut matching = all.iter().filter(|(_, target)| target.ends_with(end));
        matching.next().map(|(number, _)| *number)
    };
    Own {
        kvm: find("kvm").unwrap_or_default(),
        machine: find("anon_inode:kvm-vm").unwrap_or_default(),
        vhost: find("vhost-vsock"),
        outcome: find("outcome").unwrap_or_default(),
    }
}

fn targets(daemon: &OwnDaemon, victim: &Enclave, vmm: u32) -> Targets {
    let keys = fs::read_dir("/var/lib/enclaved/attestation")
        .expect("keys")
        .flatten();
    let key = keys.map(|key| key.path()).next().expect("a key");
    let name = |path: &Path| path.to_str().expect("a path").to_owned();
    Targets {
        key: name(&key),
        daemon: daemon.process_id(),
        victim: victim.process_id(),
        victims_directory: name(&victim.directory()),
        victims_cid: victim.cid(),
        own: own_descriptors(vmm),
    }
}

/// A VMM that was just started, and what has started it.
struct Starting {
    command: Running,
    process: u32,
    thread: Hijacked,
}

/// The one that this command has had started, and that was ordered to stop itself.
fn stopped_process(command: &mut Running) -> u32 {
    poll::until("a VMM that has stopped itself", || {
        assert!(!command.has_ended(), "{}", command.stderr());
        let process = fs::read_to_string(FINDINGS).ok()?.parse().ok()?;
        let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
        status.contains("State:\tT").then_some(process)
    })
}

/// Starts an enclave and stops the thread of this class as soon as it has its filter.
fn starting(daemon: &OwnDaemon, class: Class) -> Starting {
    let others = processes_named("enclave-vmm");
    give_orders(if class == Class::Boot { "stop" } else { "" });
    let eif = eifs::with_code("endless", &ENDLESS_LOOP);
    let mut command = launch(&eif, class).start(daemon.host());
    if class == Class::Boot {
        let process = stopped_process(&mut command);
        let thread = Hijacked::after_call(process, libc::SYS_seccomp);
        return Starting {
            command,
            process,
            thread,
        };
    }
    let (process, thread) = poll::until("a thread with its filter", || {
        assert!(!command.has_ended(), "{}", command.stderr());
        let mut started = processes_named("enclave-vmm").into_iter();
        let process = started.find(|process| !others.contains(process))?;
        Some((process, class.thread(process)?))
    });
    Starting {
        command,
        process,
        thread: Hijacked::stop(process, thread),
    }
}

/// What this class does with an attempt; the end of that VMM.
fn outcome_with_filters(
    daemon: &OwnDaemon,
    victim: &Enclave,
    class: Class,
    pick: impl Fn(&Attempt) -> bool,
) -> Outcome {
    let Starting {
        command,
        process,
        mut thread,
    } = starting(daemon, class);
    let mut targets = targets(daemon, victim, process);
    targets.own.vhost.get_or_insert_default();
    let attempt = attempts(&targets).into_iter().find(pick).expect("the attempt");
    let outcome = thread.call(attempt.call, &attempt.arguments);
    drop(thread);
    if matches!(outcome, Outcome::Ended(_)) {
        let finished = command.finish();
        assert_ne!(finished.code(), Some(0), "{finished:?}");
    }
    outcome
}

#[test]
fn the_first_call_that_is_not_its_threads_work_ends_a_vmm_that_was_taken_over() {
    let _world = World::enter();
    let daemon = daemon("");
    let victim = hello(Class::Vsock).run(daemon.host());
    let mut nowhere = targets(&daemon, &victim, victim.process_id());
    nowhere.own.vhost.get_or_insert_default();
    let mut wrong = Vec::new();
    let mut classes = Class::ALL.into_iter().cycle();
    for Attempt { what, is_of_boot, .. } in attempts(&nowhere) {
        let class = classes.find(|class| !(is_of_boot && *class == Class::Boot));
        let class = class.expect("a class");
        let outcome = outcome_with_filters(&daemon, &victim, class, |attempt| attempt.what == what);
        println!("{what}: {class:?}: {outcome:?}");
        if outcome != Outcome::Ended(libc::SIGSYS) {
            wrong.push(format!("{what}: {class:?}: {outcome:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    victim.terminate();
}

#[test]
fn the_other_layers_hold_a_vmm_that_was_taken_over_where_no_filter_does() {
    let _world = World::enter();
    let daemon = daemon("");
    let victim = hello(Class::Vsock).run(daemon.host());
    give_orders("log");
    let enclave = hello(Class::Vsock).run(daemon.host());
    let targets = targets(&daemon, &victim, enclave.process_id());
    let mut wrong = Vec::new();
    for class in Class::RUNNING {
        let mut thread = hijacked(&enclave, class);
        for Attempt {
            what,
            call,
            arguments,
            otherwise,
            ..
        } in attempts(&targets)
        {
            if let Otherwise::Untried(_) = otherwise {
                continue;
            }
            let outcome = thread.call(call, &arguments);
            println!("{what}: {class:?}: {outcome:?}");
            if !otherwise.is(outcome) {
                wrong.push(format!("{what}: {class:?}: {outcome:?} instead of {otherwise:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    enclave.terminate();
    assert!(victim.description().is_some());
    victim.terminate();
}

#[test]
fn what_a_careless_daemon_leaves_open_is_closed_in_its_vmms() {
    let _world = World::enter();
    let daemon = daemon("leak stop");
    let leaked = |process| {
        let mut open = descriptors(process);
        open.retain(|(_, target)| ["/", "/etc/passwd"].map(Path::new).contains(&target.as_path()));
        open
    };

    let mut command = hello(Class::Vsock).start(daemon.host());
    let process = stopped_process(&mut command);
    assert_eq!(leaked(process).len(), 2);
    send_signal(process, Signal::CONT);
    let enclave = Enclave::started_by(command.finish().succeeded(), daemon.host());

    assert_eq!(enclave.process_id(), process);
    assert_eq!(leaked(process), []);
    enclave.terminate();
}

/// The socket to the daemon, and standard error.
const DAEMON: u32 = 0;
const LOG: u32 = 2;

/// What a call with these arguments has been made how often before it was refused, or ended the process.
fn repeated(thread: &mut Hijacked, call: i64, arguments: &[Argument], most: u64) -> (u64, Outcome) {
    let mut times = 0;
    loop {
        match thread.call(call, arguments) {
            Outcome::Made(_) if times < most => times += 1,
            outcome => return (times, outcome),
        }
    }
}

#[test]
fn what_its_threads_may_do_makes_a_vmm_that_was_taken_over_nobody_else() {
    let _world = World::enter();
    let daemon = daemon("");
    let victim = hello(Class::Vsock).run(daemon.host());
    let enclave = hello(Class::Vsock).run(daemon.host());
    let mut thread = hijacked(&enclave, Class::Devices);
    let request = RequestPacket {
        number: 1 << 40,
        room: 0x3000,
        request: &attestation(),
    }
    .encode();
    let documents: Vec<_> = descriptors(enclave.process_id())
        .into_iter()
        .filter(|(number, target)| *number > LOG && target.to_string_lossy().starts_with("socket:"))
        .filter_map(|(number, _)| document(&mut thread, number, &request))
        .collect();
    let [document] = &documents[..] else {
        panic!("{} documents", documents.len());
    };
    let names = |enclave: &Enclave| {
        let (instance, slot) = enclave.id.split_once("-enc").expect("an enclave's id");
        let module = format!("{instance}-enc{slot:0>16}");
        memchr::memmem::find(document, module.as_bytes()).is_some()
    };
    assert!(names(&enclave) && !names(&victim));

    let measured = measurements();
    let length = measured.len() as u64;
    let arguments = [
        DAEMON.into(),
        Argument::Bytes(measured),
        length.into(),
        libc::MSG_NOSIGNAL.into(),
    ];
    // The daemon may have ended the VMM before its tracer sees that the call was made.
    let told = thread.call(libc::SYS_sendto, &arguments);
    let expected = [Outcome::Made(length), Outcome::Ended(libc::SIGKILL)];
    assert!(expected.contains(&told), "{told:?}");
    drop(thread);
    enclave.wait_until_gone();
    daemon.wait_until_logged("measurements out of turn");
    victim.terminate();
}

/// For one document, in bytes.
const ROOM: usize = 8 << 10;

/// What the NSM answers, if this is its channel.
fn document(thread: &mut Hijacked, channel: u32, request: &[u8]) -> Option<Vec<u8>> {
    let length = request.len() as u64;
    let flags = Argument::from(libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT);
    let arguments = [
        channel.into(),
        Argument::Bytes(request.to_vec()),
        length.into(),
        flags.clone(),
    ];
    let Outcome::Made(_) = thread.call(libc::SYS_sendto, &arguments) else {
        return None;
    };
    let arguments = [
        channel.into(),
        Argument::Bytes(vec![0; ROOM]),
        (ROOM as u64).into(),
        flags,
    ];
    let length = poll::until("an answer", || {
        match thread.call(libc::SYS_recvfrom, &arguments) {
            Outcome::Refused(Errno::AGAIN) => None,
            outcome => Some(outcome.made()),
        }
    });
    Some(thread.first_bytes(usize::try_from(length).expect("a length")))
}

/// The message by which a VMM says what it has measured, with other PCRs.
fn measurements() -> Vec<u8> {
    let pcr = "02".repeat(48);
    let measurements = api::Measurements {
        hash_algorithm: String::new(),
        pcr0: pcr.clone(),
        pcr1: pcr.clone(),
        pcr2: pcr,
        pcr8: None,
    };
    serde_json::to_vec(&api::vmm::Event::Measured(measurements)).expect("a message")
}

/// Where a Unix socket is (`sockaddr_un`); one in no file system begins with a zero.
fn address(name: &[u8]) -> Argument {
    let family = u16::try_from(libc::AF_UNIX).expect("a family").to_le_bytes();
    Argument::Bytes([&family, name].concat())
}

#[test]
fn a_thread_that_may_connect_to_unix_sockets_finds_none_but_its_enclaves() {
    let _world = World::enter();
    let daemon = daemon("");
    let victim = hello(Class::VsockUnix).run(daemon.host());
    let enclave = hello(Class::VsockUnix).run(daemon.host());
    let name = "taken-over-suite";
    let abstract_address = SocketAddr::from_abstract_name(name).expect("a name");
    let _listener = UnixListener::bind_addr(&abstract_address).expect("listen without a file");
    let own = UnixListener::bind(enclave.directory().join("vsock.sock_5005")).expect("listen for an enclave");
    let path = enclave.directory().join("vsock.sock_5005");
    fs::set_permissions(&path, Permissions::from_mode(0o666)).expect("let its VMM connect");

    let mut thread = hijacked(&enclave, Class::VsockUnix);
    let unix = [
        libc::AF_UNIX.into(),
        (libc::SOCK_STREAM | libc::SOCK_NONBLOCK).into(),
        0.into(),
    ];
    let mut connect = |name: &[u8]| {
        let socket = thread.call(libc::SYS_socket, &unix).made();
        let length = name.len() as u64 + 2;
        let arguments = [socket.into(), address(name), length.into()];
        let outcome = thread.call(libc::SYS_connect, &arguments);
        println!("connect to {}: {outcome:?}", name.escape_ascii());
        outcome
    };

    for path in [
        daemon.host().socket(),
        victim.directory().join("vsock.sock"),
        victim.directory().join("nsm.sock"),
    ] {
        let path = path.to_str().expect("a path");
        for path in [path.to_owned(), format!("/../../..{path}")] {
            assert_eq!(connect(path.as_bytes()), Outcome::Refused(Errno::NOENT));
        }
    }
    assert_eq!(connect(b"/nsm.sock"), Outcome::Refused(Errno::ACCESS));
    let abstract_name = [b"\0", name.as_bytes()].concat();
    assert_eq!(connect(&abstract_name), Outcome::Refused(Errno::CONNREFUSED));
    // What it has to reach, it reaches.
    assert_eq!(connect(b"/vsock.sock_5005"), Outcome::Made(0));

    drop(thread);
    drop(own);
    enclave.terminate();
    victim.terminate();
}

#[test]
fn what_its_threads_may_do_takes_a_vmm_that_was_taken_over_no_more_than_its_share() {
    let _world = World::enter();
    let daemon = daemon("");
    let enclave = hello(Class::Vsock).run(daemon.host());
    let outcome = own_descriptors(enclave.process_id()).outcome;

    let mut vcpu = hijacked(&enclave, Class::Vcpu);
    let (descriptors, end) = repeated(&mut vcpu, libc::SYS_eventfd2, &[0.into(), 0.into()], 1 << 20);
    println!("descriptors {descriptors} {end:?}");
    assert_eq!(end, Outcome::Refused(Errno::MFILE));
    assert!(descriptors < 8192);
    let piece = [
        0.into(),
        (16 * MIB).into(),
        (libc::PROT_READ | libc::PROT_WRITE).into(),
        (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS).into(),
        (-1).into(),
        0.into(),
    ];
    let (pieces, end) = repeated(&mut vcpu, libc::SYS_mmap, &piece, 1 << 20);
    println!("MiB {} {end:?}", pieces * 16);
    assert_eq!(end, Outcome::Refused(Errno::NOMEM));
    assert!(pieces * 16 <= 1024);
    drop(vcpu);

    let mut devices = hijacked(&enclave, Class::Devices);
    let line = [&[b'x'; 4095][..], b"\n"].concat();
    let write = |to: u32| {
        [
            to.into(),
            Argument::Bytes(line.clone()),
            (line.len() as u64).into(),
        ]
    };
    // What the daemon does not take at once is lost.
    let written = (0..16 * MIB / 4096)
        .filter(|_| matches!(devices.call(libc::SYS_write, &write(LOG)), Outcome::Made(_)))
        .count();
    println!("log: {written} of 4096 lines of 4 KiB are written");
    let (pieces, end) = repeated(&mut devices, libc::SYS_write, &write(outcome), 1 << 20);
    println!("file: {pieces} times 4 KiB {end:?}");
    assert_eq!((pieces * 4096, end), (MIB, Outcome::Refused(Errno::FBIG)));
    // The signal that comes with this error ends it when it goes on.
    drop(devices);

    enclave.wait_until_gone();
    let ended = daemon.host().cli(&["describe-enclaves", "--ended"]).succeeded();
    println!("{}", ended.stdout);
    let logged = daemon.log().len() as u64;
    println!("{logged} bytes are in the log");
    assert!(logged < MIB);
    hello(Class::Vsock).run(daemon.host()).terminate();
}
