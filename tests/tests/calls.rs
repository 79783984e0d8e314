// parent: --cpus 6 --memory 3G --hugepages-2m 384 --no-daemon -- --test-threads 1
//! No thread of a VMM may make a system call that none of its class ever makes.
//!
//! `enclave-vmm calls` prints what each class may do. The parent's kernel records what threads do while enclaves are put through
//! what they do in their lives: they boot with either kind of vsock, talk both ways, attest, are watched and end in each way. A rule
//! that nothing came under is one too many, unless it is among those below, each with its reason. Calls that come under no rule end
//! the VMM, which every other suite would notice.

#![forbid(unsafe_code)]
#![expect(clippy::expect_used, reason = "a suite fails on the spot")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::Path;

use end_to_end_tests::guest::{Address, Order, port};
use end_to_end_tests::vsock_socket::{PortListener, connect, order, read_line};
use end_to_end_tests::{Enclave, Host, Launch, OwnDaemon, World, eifs, poll, stream};

/// Where Linux mounts its tracing.
const TRACING: &str = "/sys/kernel/tracing";

/// KiB for each CPU: nothing may be lost.
const BUFFER_KIB: u32 = 64 << 10;

const MIB: u64 = 1 << 20;

/// `seccomp`, by its number on x86-64.
const SECCOMP: u64 = 317;

/// `cli`, then `hlt` again and again.
const HALT_FOR_EVER: [u8; 4] = [0xfa, 0xf4, 0xeb, 0xfd];

/// Rules for what does not happen here, by part and call, as `enclave-vmm calls` prints them, and when it does.
const SELDOM: &[(&str, &str, &str)] = &[
    (
        "every",
        "SYS_fcntl",
        "the standard library checks descriptors, in debug builds",
    ),
    ("every", "SYS_mremap", "a large table becomes larger"),
    (
        "every",
        "SYS_clock_gettime",
        "a clock of the parent's that only its kernel can read",
    ),
    (
        "every",
        "SYS_restart_syscall",
        "the process is stopped and goes on",
    ),
    ("every", "SYS_sched_yield", "two threads meet at the same lock"),
    ("every", "SYS_rt_sigaction", "a fault or an abort"),
    ("vcpu", "KVM_IRQ_LINE", "a device that cannot be activated"),
    (
        "vsock",
        "VHOST_VSOCK_SET_RUNNING",
        "a guest that breaks its rings: suite hostile_guests",
    ),
    ("boot", "SYS_mbind", "memory of a node: suite partition"),
    ("boot", "SYS_clone", "a kernel without clone3"),
];

/// A rule, as it is printed: `PART CALL NUMBER CONDITION`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rule {
    part: String,
    call: String,
    number: u64,
    condition: String,
}

impl Rule {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace();
        let mut word = || words.next().map(str::to_owned);
        let (part, call, number) = (word()?, word()?, word()?.parse().ok()?);
        Some(Self {
            part,
            call,
            number,
            condition: word()?,
        })
    }

    fn allows(&self, number: u64, arguments: &[u64]) -> bool {
        let holds = |argument: &str, value: &str, test: fn(u64, u64) -> bool| {
            let argument = argument
                .parse::<usize>()
                .ok()
                .and_then(|index| arguments.get(index));
            let value = u64::from_str_radix(value.trim_start_matches("0x"), 16).ok();
            argument
                .zip(value)
                .is_some_and(|(argument, value)| test(argument & 0xffff_ffff, value))
        };
        self.number == number
            && match self.condition.split_once('=') {
                // Of another process's thread the kernel has not recorded which process it is of.
                _ if ["any", "own-process"].contains(&self.condition.as_str()) => true,
                Some((argument, value)) => holds(argument, value, |argument, value| argument == value),
                None => self.condition.split_once('!').is_some_and(|(argument, bits)| {
                    holds(argument, bits, |argument, bits| argument & bits == 0)
                }),
            }
    }
}

/// The rules, and the parts of each class.
struct Table {
    rules: Vec<Rule>,
    parts: BTreeMap<String, BTreeSet<String>>,
}

impl Table {
    /// Asks the VMM.
    fn read() -> Self {
        let printed = end_to_end_tests::run(std::process::Command::new("enclave-vmm").arg("calls"));
        let printed = printed.succeeded();
        let mut table = Self {
            rules: Vec::new(),
            parts: BTreeMap::new(),
        };
        for line in printed.stdout.lines() {
            if let Some(class) = line.strip_prefix("class ") {
                let mut words = class.split_whitespace().map(str::to_owned);
                let name = words.next().expect("a class has a name");
                table.parts.insert(name, words.collect());
            } else {
                table.rules.push(Rule::parse(line).expect(line));
            }
        }
        table
    }
}

/// A call of a thread, with the thread's class.
struct Call {
    class: &'static str,
    number: u64,
    arguments: Vec<u64>,
}

/// Starts to record the calls of VMMs.
fn record() {
    let write = |file: &str, text: &str| fs::write(Path::new(TRACING).join(file), text).expect(file);
    write("tracing_on", "0");
    write("buffer_size_kb", &BUFFER_KIB.to_string());
    write("trace", "");
    write(
        "events/raw_syscalls/sys_enter/filter",
        r#"common_pid > 0 && (COMM == "enclave-vmm" || COMM ~ "vcpu*" || COMM == "vsock")"#,
    );
    write("events/raw_syscalls/sys_enter/enable", "1");
    write("tracing_on", "1");
}

/// What was recorded, as far as a filter was in force. The main thread installs first that of Boot, which other threads inherit, and
/// then that of its own class; each other thread installs that of its class.
fn recorded(unix_sockets: bool) -> Vec<Call> {
    fs::write(Path::new(TRACING).join("tracing_on"), "0").expect("tracing_on");
    let trace = fs::read_to_string(Path::new(TRACING).join("trace")).expect("trace");
    assert!(nothing_is_lost(&trace), "the buffer is too small");
    let mut filters: BTreeMap<&str, u32> = BTreeMap::new();
    let mut calls = Vec::new();
    for (thread, name, number, arguments) in trace.lines().filter_map(parse) {
        let is_main = name == "enclave-vmm";
        let own_filter = if is_main { 2 } else { 1 };
        let installed = filters.entry(thread).or_default();
        let class = match name {
            _ if *installed < own_filter => (!is_main || *installed > 0).then_some("boot"),
            "vsock" => Some(if unix_sockets { "vsock-unix" } else { "vsock" }),
            "enclave-vmm" => Some("devices"),
            _ => Some("vcpu"),
        };
        if number == SECCOMP {
            *installed += 1;
        }
        calls.extend(class.map(|class| Call {
            class,
            number,
            arguments,
        }));
    }
    calls
}

/// `# entries-in-buffer/entries-written: 5/5   #P:4`
fn nothing_is_lost(trace: &str) -> bool {
    let (_, entries) = trace
        .split_once("entries-written: ")
        .expect("the head of a trace");
    let (kept, written) = entries.split_once('/').expect("two numbers");
    written.split_whitespace().next() == Some(kept)
}

/// `NAME-THREAD [CPU] FLAGS TIME: sys_enter: NR NUMBER (a, b, c, d, e, f)`
fn parse(line: &str) -> Option<(&str, &str, u64, Vec<u64>)> {
    let (thread, rest) = line.trim_start().split_once(" [")?;
    let (name, _) = thread.trim_end().rsplit_once('-')?;
    let (_, call) = rest.split_once("sys_enter: NR ")?;
    let (number, arguments) = call.split_once(" (")?;
    let arguments = arguments.trim_end_matches(')').split(", ");
    let arguments = arguments.filter_map(|word| u64::from_str_radix(word, 16).ok());
    Some((thread.trim_end(), name, number.parse().ok()?, arguments.collect()))
}

/// What happens in the lives of enclaves.
fn live(host: &Host) {
    let debugged = Launch::of(eifs::of_application("vsock-echo", &[]))
        .in_debug_mode()
        .run(host);
    debugged.console().wait_for("vsock-echo: ready");
    talk(&debugged);
    let _ = debugged.terminate();

    let attesting = Launch::of(eifs::of_application("nsm-client", &[]))
        .with_cpu_count(2)
        .run(host);
    let mut nsm = poll::until("the application", || connect(&attesting, port::NSM).ok());
    nsm.write_all(b"GetRandom\n").expect("ask");
    assert!(!read_line(&mut nsm).expect("an answer").is_empty());
    let _ = attesting.terminate();

    let ends = Launch::of(eifs::of_application("heartbeat-then-exit", &[])).run(host);
    ends.wait_until_gone();
    let halts = Launch::of(eifs::with_code("halts", &HALT_FOR_EVER)).attempt(host);
    assert_ne!(halts.code(), Some(0), "{halts:?}");
}

/// Connections both ways, many at once, that end in each way; some that are refused; a reader that is slow.
fn talk(enclave: &Enclave) {
    const PORT: u32 = 5005;
    for _ in 0..3 {
        let connection = connect(enclave, port::ECHO).expect("connect");
        stream::exchange(connection, 1, 4 * MIB).expect("the same back");
    }
    drop(connect(enclave, port::ECHO));
    let listener = PortListener::bind(enclave, PORT).expect("listen");
    listener.echo_in_background(20).expect("echo");
    let exchange = Order::Exchange {
        to: Address { cid: 3, port: PORT },
        connections: 20,
        bytes: MIB,
    };
    assert_eq!(order(enclave, exchange).expect("an answer"), "exchanged");
}

#[test]
fn each_rule_is_needed() {
    let table = Table::read();
    let mut used = BTreeSet::new();
    for backend in ["kernel", "unix"] {
        let _world = World::enter();
        record();
        let daemon = OwnDaemon::start(&["--vsock", backend]);
        live(daemon.host());
        drop(daemon);
        for call in recorded(backend == "unix") {
            let parts = &table.parts[call.class];
            used.extend(table.rules.iter().filter(|rule| {
                // What only others need is in the list of Boot because filters add up.
                let counts = call.class != "boot" || ["boot", "every"].contains(&rule.part.as_str());
                counts && parts.contains(&rule.part) && rule.allows(call.number, &call.arguments)
            }));
        }
    }
    let seldom = |rule: &Rule| {
        SELDOM
            .iter()
            .any(|(part, call, _)| *part == rule.part && *call == rule.call)
    };
    let unused: Vec<_> = table
        .rules
        .iter()
        .filter(|rule| !used.contains(rule) && !seldom(rule))
        .map(|rule| format!("{} {} {}", rule.part, rule.call, rule.condition))
        .collect();
    assert!(
        unused.is_empty(),
        "rules that nothing came under:\n{}",
        unused.join("\n")
    );
    let stale: Vec<_> = SELDOM
        .iter()
        .filter(|(part, call, _)| {
            !table
                .rules
                .iter()
                .any(|rule| rule.part == *part && rule.call == *call)
        })
        .collect();
    assert!(stale.is_empty(), "there are no such rules: {stale:?}");
}
