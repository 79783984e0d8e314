// parent: --cpus 12 --threads 2 --nodes 2 --memory 5G --hugepages-2m 1024 --no-daemon -- --test-threads 1 --nocapture
//! Enclaves come and go in any order, and anything may be killed at any moment: nothing is lost, nothing is disturbed.
//!
//! The parent has two nodes of three cores of two threads; five cores are for enclaves.

#![forbid(unsafe_code)]
#![expect(clippy::expect_used, reason = "a suite fails on the spot")]

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use end_to_end_tests::guest::port;
use end_to_end_tests::stream::{self, Stream, Sum};
use end_to_end_tests::vsock_socket::connect;
use end_to_end_tests::{
    Enclave, Host, Launch, OwnDaemon, Running, World, eifs, parent, poll, processes_named, send_signal,
};
use rustix::process::Signal;

const MIB: u64 = 1 << 20;

/// How long things are killed.
const CHAOS: Duration = Duration::from_secs(80);

/// Node 0 has the first ones, node 1 the others.
const CPUS_PER_NODE: u64 = 6;

/// How many enclaves are run and terminated in all.
const CYCLES: usize = 100;

/// A sequence of numbers that looks random and is the same in each run (xorshift64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit as u64).expect("below the limit")
    }
}

fn echoing() -> Launch {
    Launch::of(eifs::of_application("vsock-echo", &[])).with_memory(128)
}

/// A connection to an enclave's echo service, which is up soon after the enclave.
fn echo_of(enclave: &Enclave) -> UnixStream {
    poll::until("the echo service", || connect(enclave, port::ECHO).ok())
}

/// Sends something and gets it back.
fn ping(stream: &mut UnixStream, word: &[u8]) {
    stream.write_all(word).expect("send");
    let mut back = vec![0; word.len()];
    stream.read_exact(&mut back).expect("receive");
    assert_eq!(back, word);
}

fn cpus(enclave: &Enclave) -> Vec<u64> {
    let ids = enclave.info["CPUIDs"].as_array().expect("CPUIDs");
    ids.iter().map(|id| id.as_u64().expect("a number")).collect()
}

/// No two enclaves share a CPU, a CID or a name, and the memory of each is on the node of its CPUs, all of it. Returns the
/// nodes.
fn assert_apart(enclaves: &[Enclave]) -> BTreeSet<u64> {
    let all: Vec<u64> = enclaves.iter().flat_map(cpus).collect();
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len(), "{all:?}");
    for key in ["EnclaveCID", "EnclaveName", "EnclaveID", "ProcessID"] {
        let values: BTreeSet<String> = enclaves
            .iter()
            .map(|enclave| enclave.info[key].to_string())
            .collect();
        assert_eq!(values.len(), enclaves.len(), "{key}: {values:?}");
    }
    let node_of = |enclave: &Enclave| {
        let nodes: BTreeSet<u64> = cpus(enclave).iter().map(|cpu| cpu / CPUS_PER_NODE).collect();
        assert_eq!(nodes.len(), 1, "CPUs of one node");
        let node = nodes.into_iter().next().expect("one node");
        let pages = enclave.info["MemoryMiB"].as_u64().expect("a size") / 2;
        assert_eq!(
            enclave.guest_pages_by_node(),
            [(format!("N{node}"), pages)].into()
        );
        node
    };
    enclaves.iter().map(node_of).collect()
}

#[test]
fn a_hundred_enclaves_in_random_order_and_overlap_leave_the_pools_as_they_were() {
    let _world = World::enter();
    let daemon = OwnDaemon::start(&[]);
    let mut dice = Dice(0x5eed);
    let mut running: Vec<Enclave> = Vec::new();
    let mut most = 0;
    let mut nodes = BTreeSet::new();

    let mut started = 0;
    while started < CYCLES {
        if running.len() == 4 || (!running.is_empty() && dice.below(3) == 0) {
            let at = dice.below(running.len());
            running.swap_remove(at).terminate();
            continue;
        }
        let wanted = 1 + dice.below((4 - running.len()).min(2));
        let memory = [64, 80, 96][dice.below(3)];
        // At the same time, so that their admissions overlap.
        let launches: Vec<Running> = (0..wanted)
            .map(|_| {
                Launch::of(parent::hello_eif())
                    .with_memory(memory)
                    .start(daemon.host())
            })
            .collect();
        for launch in launches {
            running.push(Enclave::started_by(launch.finish().succeeded(), daemon.host()));
        }
        nodes.extend(assert_apart(&running));
        started += wanted;
        most = most.max(running.len());
    }
    for enclave in running {
        enclave.terminate();
    }
    println!("{started} enclaves run and terminated, at most {most} at the same time, on nodes {nodes:?}");
    assert_eq!((most, nodes), (4, [0, 1].into()));
}

#[test]
fn a_gibibyte_flows_on_while_the_daemon_is_killed_and_replaced() {
    const SEED: u64 = 77;
    let _world = World::enter();
    let mut daemon = OwnDaemon::start(&[]);
    let enclave = echoing().run(daemon.host());
    let stream = echo_of(&enclave);
    let mut receiving = stream.another().expect("another handle");
    let sender = thread::spawn(move || {
        let mut sending = stream;
        let sent = stream::send(&mut sending, SEED, 1024 * MIB)?;
        sending.end_sending()?;
        std::io::Result::Ok(sent)
    });
    let receiver = thread::spawn(move || stream::receive(&mut receiving));

    let mut kills = 0;
    while !receiver.is_finished() {
        thread::sleep(Duration::from_secs(2));
        daemon.end_with(Signal::KILL);
        kills += 1;
        thread::sleep(Duration::from_millis(500));
        daemon.start_next(&[]);
    }

    let sent = sender.join().expect("no panic").expect("all is sent");
    let received = receiver.join().expect("no panic").expect("all is received");
    println!("{received} sent and received, the daemon killed {kills} times meanwhile");
    assert!(kills > 1);
    assert_eq!(sent, Sum::of_pattern(SEED, 1024 * MIB));
    assert_eq!(received, sent);
    enclave.terminate();
}

/// What was killed, by kind.
#[derive(Debug, Default)]
struct Kills {
    rounds: u32,
    daemons: u32,
    daemons_asked_to_end: u32,
    vmms: u32,
    clients: u32,
}

/// Enclaves that must never be disturbed, each with a connection that stays.
struct Undisturbed(Vec<(Enclave, UnixStream)>);

impl Undisturbed {
    fn start(host: &Host) -> Self {
        let start = |_| {
            let enclave = echoing().run(host);
            let stream = echo_of(&enclave);
            (enclave, stream)
        };
        Self((0..2).map(start).collect())
    }

    /// They are listed as they were, and their connections still carry what they are given.
    fn check(&mut self, host: &Host) {
        let listed = host.describe();
        for (enclave, stream) in &mut self.0 {
            let description = listed
                .iter()
                .find(|listed| listed["EnclaveID"] == enclave.id.as_str());
            let description = description.expect("it is listed");
            for key in ["ProcessID", "EnclaveCID", "CPUIDs", "MemoryMiB", "EnclaveName"] {
                assert_eq!(description[key], enclave.info[key], "{key}");
            }
            ping(stream, b"still there?");
        }
    }
}

/// The VMM that is none of the `others`, once there is one.
fn victim(others: &Undisturbed) -> Option<u32> {
    let others: Vec<u32> = others.0.iter().map(|(enclave, _)| enclave.process_id()).collect();
    let mut found = None;
    poll::within(Duration::from_secs(5), || {
        found = processes_named("enclave-vmm")
            .into_iter()
            .find(|process| !others.contains(process));
        found
    });
    found
}

/// Starts an enclave, and at some moment of its boot or soon after it ends the daemon, or the client, or the VMM.
fn chaos_round(daemon: &mut OwnDaemon, others: &Undisturbed, dice: &mut Dice, kills: &mut Kills) {
    let mut client = Launch::of(parent::hello_eif())
        .with_memory(128)
        .start(daemon.host());
    let victim = (kills.rounds % 4 == 2).then(|| victim(others)).flatten();
    thread::sleep(Duration::from_millis(50 * dice.below(60) as u64));
    match kills.rounds % 4 {
        0 => {
            daemon.end_with(Signal::KILL);
            kills.daemons += 1;
            daemon.start_next(&[]);
        }
        1 => {
            client.signal_if_running(Signal::KILL);
            kills.clients += 1;
        }
        2 => {
            if let Some(victim) = victim {
                send_signal(victim, Signal::KILL);
                kills.vmms += 1;
            }
        }
        _ => {
            daemon.end_with(Signal::TERM);
            kills.daemons_asked_to_end += 1;
            daemon.start_next(&[]);
        }
    }
    // Whatever became of it: the enclave, if it runs, is listed and can be ended; the client has come to an end of some kind.
    let _ = client.finish();
    let by_name = ["terminate-enclave", "--enclave-name", "hello"];
    poll::until("the victim's end", || {
        let _ = daemon.host().cli(&by_name);
        let listed = daemon.host().describe();
        (listed.len() == 2).then_some(())
    });
    kills.rounds += 1;
}

#[test]
fn whatever_is_killed_whenever_nothing_else_is_disturbed_and_nothing_is_lost() {
    let world = World::enter();
    let mut daemon = OwnDaemon::start(&[]);
    let mut undisturbed = Undisturbed::start(daemon.host());
    let mut dice = Dice(0xc4a05);
    let mut kills = Kills::default();
    let with_two = world.checkpoint(daemon.host().run_directory());

    let start = Instant::now();
    while start.elapsed() < CHAOS {
        chaos_round(&mut daemon, &undisturbed, &mut dice, &mut kills);
        undisturbed.check(daemon.host());
        // Two enclaves' CPUs, pages, groups, sockets and files, and not one more.
        with_two.assert_unchanged();
    }

    println!("{kills:?}, losses: 0");
    assert!(
        kills.daemons > 0 && kills.vmms > 0 && kills.clients > 0,
        "{kills:?}"
    );
    for (enclave, _stream) in undisturbed.0 {
        enclave.terminate();
    }
}
