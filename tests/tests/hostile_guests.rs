// parent: --cpus 6 --memory 2G --hugepages-2m 384 --no-daemon -- --test-threads 1
//! Guests whose kernel attacks the machine: whatever they do, their VMM works on or ends as is told, holds no more of the parent
//! than before, and disturbs nobody.
//!
//! The kernel is the crate `hostile-guest`. Beside it runs an enclave that behaves, on which data are exchanged all the time.

#![forbid(unsafe_code)]
#![expect(clippy::expect_used, clippy::panic, reason = "a suite fails on the spot")]

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use end_to_end_tests::guest::port;
use end_to_end_tests::vsock_socket::{PortListener, connect};
use end_to_end_tests::{Enclave, Holdings, Host, Launch, OwnDaemon, World, eifs, kernel_log, poll, stream};

/// What is exchanged with the well-behaved enclave again and again, each way.
const EXCHANGED: u64 = 256 << 10;

/// Echoes that the suite has at once for the hostile guest, and how long one of them waits for data: half of what it opens is
/// never used.
const MOST_ECHOES: usize = 64;
const ECHO_WAITS: Duration = Duration::from_secs(3);

/// What a VMM may hold more of during an attack than before it. Streams of the Unix backend cost up to 96 MiB and a descriptor
/// each for 4096 of them (`vsock_device::Limits`).
const MORE_KIB: u64 = 112 << 10;
const MORE_DESCRIPTORS: u64 = 4200;
/// And after it, when the device has been reset.
const MORE_KIB_AFTER: u64 = 16 << 10;
const MORE_DESCRIPTORS_AFTER: u64 = 8;

/// How long a storm of interrupts is watched.
const STORM: Duration = Duration::from_secs(20);

/// An attack, how many rounds of it, and whether a second processor disturbs meanwhile.
#[derive(Clone, Copy)]
struct Attack {
    name: &'static str,
    rounds: u32,
    companion: bool,
    /// This long after it has said that interrupts have come it is enough, whether it gets to its end or not.
    enough: Option<Duration>,
}

const fn attack(name: &'static str, rounds: u32) -> Attack {
    Attack {
        name,
        rounds,
        companion: false,
        enough: None,
    }
}

const fn with_companion(attack: Attack) -> Attack {
    Attack {
        companion: true,
        ..attack
    }
}

/// Runs the attack; the hostile guest must survive it, which it says when its devices work again, or go on until it is enough.
fn is_withstood(backend: &str, attack: &Attack) {
    let _world = World::enter();
    let daemon = OwnDaemon::start(&["--vsock", backend]);
    let host = daemon.host();
    let good = good_enclave(host);

    let hostile = hostile_guest(host, attack);
    let stop = AtomicBool::new(false);
    let listener = PortListener::bind(&hostile.enclave, hostile.echo).expect("listen");
    thread::scope(|scope| {
        let _stop = StopsAtEnd(&stop);
        scope.spawn(|| echo_until(&stop, &listener));
        watch(host, &good, &hostile, attack.enough);
    });

    drop(listener);

    assert_eq!(host.describe().len(), 2);
    exchange(&good);
    assert_eq!(kernel_log::complaints(), Vec::<String>::new());
    hostile.enclave.terminate();
    exchange(&good);
    good.terminate();
}

fn good_enclave(host: &Host) -> Enclave {
    let good = Launch::of(eifs::of_application("vsock-echo", &[]))
        .in_debug_mode()
        .run(host);
    good.console().wait_for("vsock-echo: ready");
    good
}

struct Hostile {
    enclave: Enclave,
    echo: u32,
}

fn hostile_guest(host: &Host, attack: &Attack) -> Hostile {
    // With the kernel's vsock all enclaves share the parent's ports.
    static PORT: AtomicU32 = AtomicU32::new(7100);
    let echo = PORT.fetch_add(1, Ordering::Relaxed);
    let Attack {
        name,
        rounds,
        companion,
        ..
    } = attack;
    let companion = if *companion { "yes" } else { "no" };
    let orders = format!("attack={name} seed=1 rounds={rounds} companion={companion} echo={echo}");
    let enclave = Launch::of(eifs::of_hostile_guest(name, &orders))
        .in_debug_mode()
        .run(host);
    Hostile { enclave, echo }
}

/// Exchanges data with the good enclave for as long as the attack goes on, and looks at what the hostile one's VMM holds.
fn watch(host: &Host, good: &Enclave, hostile: &Hostile, enough: Option<Duration>) {
    let vmm = hostile.enclave.process_id();
    let mut console = hostile.enclave.console();
    console.wait_for("hostile-guest: ready for");
    let before = Holdings::of(vmm).expect("the VMM runs");
    let mut most = before;
    let mut exchanges = 0;
    let mut end = None;
    poll::until("the end of the attack", || {
        let said = console.stdout();
        let now = Holdings::of(vmm);
        if now.is_none() || hostile.enclave.description().is_none() {
            let ended = host.cli(&["describe-enclaves", "--ended"]);
            panic!("the VMM has ended:\n{said}\n{}", ended.stdout);
        }
        most = now.map_or(most, |now| most.most(now));
        exchange(good);
        exchanges += 1;
        let is_over =
            said.contains("hostile-guest: survived") || end.is_some_and(|end| Instant::now() >= end);
        if said.contains("interrupts have come") {
            end = end.or_else(|| Some(Instant::now() + enough?));
        }
        is_over.then_some(())
    });
    let after = Holdings::of(vmm).expect("the VMM runs");
    println!("{exchanges} exchanges meanwhile; before {before:?}, most {most:?}, after {after:?}");
    assert_eq!(most.threads, before.threads, "threads");
    for (what, held, more) in [
        ("KiB", most.private_kib - before.private_kib, MORE_KIB),
        (
            "descriptors",
            most.descriptors - before.descriptors,
            MORE_DESCRIPTORS,
        ),
        (
            "KiB after it",
            after.private_kib.saturating_sub(before.private_kib),
            MORE_KIB_AFTER,
        ),
        (
            "descriptors after it",
            after.descriptors.saturating_sub(before.descriptors),
            MORE_DESCRIPTORS_AFTER,
        ),
    ] {
        assert!(
            held <= more,
            "{held} more {what}: before {before:?}, most {most:?}, after {after:?}"
        );
    }
}

fn exchange(good: &Enclave) {
    let connection = connect(good, port::ECHO).expect("connect to the good enclave");
    stream::exchange(connection, 1, EXCHANGED).expect("the same back");
}

/// Sets a flag when it is dropped, also by a panic.
struct StopsAtEnd<'a>(&'a AtomicBool);

impl Drop for StopsAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Echoes for the hostile guest; what is too much is closed.
fn echo_until(stop: &AtomicBool, listener: &PortListener) {
    let echoes = AtomicUsize::new(0);
    thread::scope(|scope| {
        while !stop.load(Ordering::Relaxed) {
            if !listener.wait(Duration::from_millis(50)).expect("wait") {
                continue;
            }
            let Ok(connection) = listener.accept() else {
                continue;
            };
            if echoes.load(Ordering::Relaxed) < MOST_ECHOES {
                echoes.fetch_add(1, Ordering::Relaxed);
                scope.spawn(|| {
                    // A hostile guest's stream may end in any way.
                    let _ = echo(connection);
                    echoes.fetch_sub(1, Ordering::Relaxed);
                });
            }
        }
    });
}

fn echo(connection: UnixStream) -> io::Result<()> {
    connection.set_read_timeout(Some(ECHO_WAITS))?;
    connection.set_write_timeout(Some(ECHO_WAITS))?;
    stream::echo(connection)
}

const NONE: Attack = attack("none", 0);
const RINGS: Attack = attack("rings", 400);
const PACKETS: Attack = attack("packets", 100);
const CREDIT: Attack = attack("credit", 40);
const FLOODS: Attack = attack("floods", 8);
const RESETS: Attack = with_companion(attack("resets", 200));
const CONFIG: Attack = with_companion(attack("config", 100));

macro_rules! vsock_attacks {
    ($backend:ident, $name:literal) => {
        /// Attacks on vsock over this backend.
        mod $backend {
            use super::*;

            #[test]
            fn a_kernel_of_our_own_boots_and_exchanges_data() {
                is_withstood($name, &NONE);
            }

            #[test]
            fn malformed_rings_are_withstood() {
                is_withstood($name, &RINGS);
            }

            #[test]
            fn malformed_packets_are_withstood() {
                is_withstood($name, &PACKETS);
            }

            #[test]
            fn lies_about_credit_are_withstood() {
                is_withstood($name, &CREDIT);
            }

            #[test]
            fn floods_of_packets_are_withstood() {
                is_withstood($name, &FLOODS);
            }

            #[test]
            fn resets_with_data_under_way_are_withstood() {
                is_withstood($name, &RESETS);
            }

            #[test]
            fn accesses_all_over_the_registers_are_withstood() {
                is_withstood($name, &CONFIG);
            }
        }
    };
}

vsock_attacks!(kernel, "kernel");
vsock_attacks!(unix, "unix");

/// Attacks on the rest of the machine, which is the same whatever carries vsock.
mod machine {
    use super::*;

    const BACKEND: &str = "kernel";

    #[test]
    fn malformed_requests_to_the_security_module_are_withstood() {
        is_withstood(BACKEND, &attack("nsm", 300));
    }

    #[test]
    fn accesses_to_any_port_are_withstood() {
        is_withstood(BACKEND, &with_companion(attack("ports", 100)));
    }

    #[test]
    fn accesses_to_any_register_are_withstood() {
        is_withstood(BACKEND, &with_companion(attack("registers", 200)));
    }

    #[test]
    fn reads_and_writes_of_any_msr_are_withstood() {
        is_withstood(BACKEND, &with_companion(attack("msrs", 400)));
    }

    #[test]
    fn what_the_machine_does_not_show_is_not_there() {
        is_withstood(BACKEND, &attack("withheld", 1));
    }

    #[test]
    fn all_hypercalls_are_withstood() {
        is_withstood(BACKEND, &with_companion(attack("hypercalls", 100)));
    }

    #[test]
    fn page_tables_that_change_are_withstood() {
        is_withstood(BACKEND, &with_companion(attack("page-tables", 200)));
    }

    /// On a slow machine the next interrupt is there before the one before it is handled, and the guest gets no further.
    #[test]
    fn storms_of_interrupts_and_halts_that_race_with_them_are_withstood() {
        let storm = Attack {
            enough: Some(STORM),
            ..with_companion(attack("interrupts", 20))
        };
        is_withstood(BACKEND, &storm);
    }

    #[test]
    fn code_where_registers_are_ends_the_enclave() {
        ends_the_enclave("run-registers");
    }

    #[test]
    fn a_processor_that_starts_itself_anew_ends_the_enclave() {
        ends_the_enclave("start-anew");
    }

    #[test]
    fn system_management_mode_ends_the_enclave() {
        ends_the_enclave("system-management");
    }

    #[test]
    fn a_triple_fault_ends_the_enclave() {
        ends_the_enclave("triple-fault");
    }

    /// The enclave ends by itself, with a reason; the one beside it goes on.
    fn ends_the_enclave(name: &'static str) {
        let _world = World::enter();
        let daemon = OwnDaemon::start(&["--vsock", BACKEND]);
        let host = daemon.host();
        let good = good_enclave(host);

        let hostile = hostile_guest(host, &attack(name, 1));
        let id = hostile.enclave.id.clone();
        let stop = AtomicBool::new(false);
        let listener = PortListener::bind(&hostile.enclave, hostile.echo).expect("listen");
        thread::scope(|scope| {
            let _stop = StopsAtEnd(&stop);
            scope.spawn(|| echo_until(&stop, &listener));
            hostile.enclave.wait_until_gone();
        });

        let ended = host.cli(&["describe-enclaves", "--ended"]).succeeded().json();
        let ended = ended.as_array().expect("an array");
        let ours = ended.iter().find(|ended| ended["EnclaveID"] == id.as_str());
        let ours = ours.expect("it is listed");
        let reason = ours["Reason"].as_str().unwrap_or_default();
        assert!(!reason.is_empty() && !reason.contains("or was killed"), "{ours}");
        exchange(&good);
        assert_eq!(kernel_log::complaints(), Vec::<String>::new());
        good.terminate();
    }
}
