// parent: --cpus 8 --threads 2 --nodes 2 --memory 4G --hugepages-2m 1024 --no-daemon -- --test-threads 1 --nocapture
//! What is an enclave's is nobody else's: CPUs that the rest of the parent does not run on, memory of the node they are on,
//! and all of it back at the end.
//!
//! The parent has two nodes of two cores of two threads, with 512 hugepages each. CPU 0's core, CPUs 0 and 1, is not for
//! enclaves.

#![forbid(unsafe_code)]
#![expect(clippy::expect_used, reason = "a suite fails on the spot")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use end_to_end_tests::guest::port;
use end_to_end_tests::vsock_socket::connect;
use end_to_end_tests::{Enclave, Launch, OwnDaemon, World, eifs, parent, poll};
use rustix::process::Signal;

/// How long load is measured.
const MEASURED: Duration = Duration::from_secs(3);

fn hello() -> Launch {
    Launch::of(parent::hello_eif()).with_memory(128)
}

/// Threads that do nothing but compute, more than there are CPUs, until this is dropped. Being nice makes their time a
/// column of its own.
struct Load(Arc<AtomicBool>);

impl Load {
    fn start() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        for _ in 0..12 {
            let stop = Arc::clone(&stop);
            thread::spawn(move || {
                // In Linux it is the thread that becomes nice.
                rustix::process::nice(5).expect("anybody may be nice");
                while !stop.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        Self(stop)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What nice programs have run on each CPU so far, in ticks (`proc_stat(5)`); guests of nice threads do not count.
fn nice_ticks() -> BTreeMap<u32, u64> {
    let stat = fs::read_to_string("/proc/stat").expect("/proc/stat");
    stat.lines()
        .filter_map(|line| {
            let (cpu, fields) = line.strip_prefix("cpu")?.split_once(' ')?;
            let fields: Vec<u64> = fields.split(' ').filter_map(|field| field.parse().ok()).collect();
            Some((cpu.parse().ok()?, fields.get(1)? - fields.get(9)?))
        })
        .collect()
}

/// What the load runs on each CPU in [`MEASURED`].
fn load_by_cpu(when: &str) -> BTreeMap<u32, u64> {
    let before = nice_ticks();
    thread::sleep(MEASURED);
    let after = nice_ticks();
    let ran = after
        .into_iter()
        .map(|(cpu, ticks)| (cpu, ticks - before[&cpu]))
        .collect();
    println!(
        "load in {} s, in ticks by CPU, {when}: {ran:?}",
        MEASURED.as_secs()
    );
    ran
}

fn cpus_of(enclave: &Enclave) -> BTreeSet<u32> {
    let ids = enclave.info["CPUIDs"].as_array().expect("CPUIDs").iter();
    ids.map(|id| u32::try_from(id.as_u64().expect("a number")).expect("a CPU"))
        .collect()
}

/// The CPUs on which each thread of a process may run, by the thread's name.
fn affinities(process_id: u32) -> Vec<(String, String)> {
    let threads = fs::read_dir(format!("/proc/{process_id}/task")).expect("threads");
    threads
        .map(|thread| {
            let thread = thread.expect("a thread").path();
            let status = fs::read_to_string(thread.join("status")).expect("a status");
            let field = |name: &str| {
                let line = status.lines().find_map(|line| line.strip_prefix(name));
                line.expect("a field").trim().to_owned()
            };
            (field("Name:"), field("Cpus_allowed_list:"))
        })
        .collect()
}

#[test]
fn the_parents_load_does_not_run_on_the_cpus_of_an_enclave_while_it_lives() {
    let _world = World::enter();
    let daemon = OwnDaemon::start(&[]);
    let _load = Load::start();
    let all: BTreeSet<u32> = (0..8).collect();
    let busy = |ran: &BTreeMap<u32, u64>| -> BTreeSet<u32> {
        ran.iter()
            .filter(|(_, ticks)| **ticks > 0)
            .map(|(cpu, _)| *cpu)
            .collect()
    };
    assert_eq!(busy(&load_by_cpu("before")), all);

    let enclave = hello().run(daemon.host());
    let taken = cpus_of(&enclave);
    assert_eq!(
        taken,
        [2, 3].into(),
        "the smallest free block is node 0's one core"
    );
    let rest: BTreeSet<u32> = all.difference(&taken).copied().collect();
    assert_eq!(busy(&load_by_cpu("while an enclave has CPUs 2 and 3")), rest);
    // A worker of KVM's own belongs to the first vCPU, which has started it; it sleeps for an hour at a time.
    let threads = affinities(enclave.process_id()).into_iter();
    for (thread, cpus) in threads.filter(|(thread, _)| !thread.starts_with("kvm-")) {
        let expected = match thread.as_str() {
            "vcpu0" => "2",
            "vcpu1" => "3",
            _ => "0-1,4-7",
        };
        assert_eq!(cpus, expected, "{thread}");
    }

    enclave.terminate();
    assert_eq!(busy(&load_by_cpu("after terminate-enclave")), all);
}

#[test]
fn exclusive_cpus_stay_so_when_the_daemon_is_killed_and_come_back_when_the_enclave_then_ends() {
    let _world = World::enter();
    let mut daemon = OwnDaemon::start(&[]);
    let enclave = hello().run(daemon.host());
    let isolated = || {
        let text = fs::read_to_string("/sys/fs/cgroup/cpuset.cpus.isolated").expect("cpuset");
        text.trim().to_owned()
    };
    assert_eq!(isolated(), "2-3");

    daemon.end_with(Signal::KILL);
    assert_eq!(isolated(), "2-3");
    daemon.start_next(&[]);
    assert_eq!(isolated(), "2-3");
    let second = hello().run(daemon.host());
    assert_eq!(cpus_of(&second), [4, 5].into());
    assert_eq!(isolated(), "2-5");

    enclave.terminate();
    assert_eq!(isolated(), "4-5");
    // An enclave that goes while there is no daemon keeps its CPUs until the next one comes.
    daemon.end_with(Signal::KILL);
    end_to_end_tests::send_signal(second.process_id(), Signal::KILL);
    daemon.start_next(&[]);
    poll::until("the CPUs to come back", || isolated().is_empty().then_some(()));
}

#[test]
fn interrupts_leave_the_cpus_of_an_enclave_and_come_back() {
    let _world = World::enter();
    let daemon = OwnDaemon::start(&[]);
    let affinities = || -> Vec<String> {
        let interrupts = fs::read_dir("/proc/irq").expect("/proc/irq").flatten();
        let files = interrupts.map(|interrupt| interrupt.path().join("smp_affinity_list"));
        let mut all: Vec<String> = files
            .filter_map(|file| {
                Some(format!(
                    "{} {}",
                    file.display(),
                    fs::read_to_string(&file).ok()?.trim()
                ))
            })
            .collect();
        all.sort_unstable();
        all
    };
    let before = affinities();
    let anywhere = before.iter().filter(|line| line.ends_with(" 0-7")).count();
    assert!(anywhere > 0, "{before:?}");

    let enclave = hello().run(daemon.host());
    let during = affinities();
    println!("of {anywhere} interrupts that may be handled anywhere:");
    let away = during.iter().filter(|line| line.ends_with(" 0-1,4-7")).count();
    println!("{away} keep off the enclave's CPUs");
    assert!(away > 0, "{during:?}");

    enclave.terminate();
    assert_eq!(affinities(), before);
}

#[test]
fn memory_lies_on_the_node_of_the_cpus_and_all_of_it_is_taken_at_once() {
    let _world = World::enter();
    let daemon = OwnDaemon::start(&[]);
    let launches = [("N0", &["2", "3"][..]), ("N1", &["4", "5"]), ("N1", &["6", "7"])];

    let enclaves = launches.map(|(node, cpus)| (node, hello().with_cpu_ids(cpus).run(daemon.host())));

    for (node, enclave) in enclaves {
        let pages = enclave.guest_pages_by_node();
        println!("CPUs {:?}: pages of 2 MiB by node {pages:?}", cpus_of(&enclave));
        assert_eq!(pages, [(node.to_owned(), 64)].into());
        enclave.terminate();
    }
}

#[test]
fn an_enclave_goes_to_the_node_that_has_both_and_a_full_node_is_named() {
    let _world = World::enter();
    let daemon = OwnDaemon::start(&[]);

    // Node 0 has the smallest block of CPUs, but its 1 GiB is not enough for what it already has to give.
    let first = hello().with_memory(768).run(daemon.host());
    assert_eq!(cpus_of(&first), [2, 3].into());
    first.terminate();
    let second = hello().with_memory(1024).with_cpu_count(4).run(daemon.host());
    assert_eq!(cpus_of(&second), [4, 5, 6, 7].into());
    let failed = hello().with_memory(1026).attempt(daemon.host());
    failed.failed_to_run("E27", &["on NUMA node 0, where its CPUs are", "node0/hugepages"]);
    second.terminate();
}

/// The memory files of an enclave, opened beside its VMM so that their pages stay when it is gone.
fn memory_files(enclave: &Enclave) -> Vec<File> {
    let descriptors = fs::read_dir(format!("/proc/{}/fd", enclave.process_id())).expect("descriptors");
    let paths = descriptors.map(|descriptor| descriptor.expect("a descriptor").path());
    let is_memory = |path: &PathBuf| {
        fs::read_link(path).is_ok_and(|target| target.to_string_lossy().contains("enclave-memory"))
    };
    let files: Vec<File> = paths
        .filter(is_memory)
        .map(|path| File::open(path).expect("a memory file"))
        .collect();
    assert!(!files.is_empty());
    files
}

/// How many blocks of 4 KiB of all files are not zero.
fn blocks_with_content(files: &[File]) -> usize {
    let count = |file: &File| {
        let mut page = vec![0; 2 << 20];
        let mut offset = 0;
        let mut found = 0;
        while file.read_at(&mut page, offset).expect("read memory") == page.len() {
            found += page
                .chunks(4096)
                .filter(|block| block.iter().any(|byte| *byte != 0))
                .count();
            offset += page.len() as u64;
        }
        found
    };
    files.iter().map(count).sum()
}

#[test]
fn what_an_enclave_knew_is_cleared_before_its_memory_goes_back() {
    let _world = World::enter();
    let mut daemon = OwnDaemon::start(&[]);
    let [terminated, killed, inherited] = [(); 3].map(|()| hello().run(daemon.host()));
    let files = [&terminated, &killed, &inherited].map(memory_files);
    let before = files.each_ref().map(|files| blocks_with_content(files));
    assert!(before.iter().all(|blocks| *blocks > 1000), "{before:?}");

    let start = Instant::now();
    terminated.terminate();
    let took = start.elapsed();
    end_to_end_tests::send_signal(killed.process_id(), Signal::KILL);
    killed.wait_until_gone();
    // A core is free again.
    let starved = hello().run(daemon.host());
    let of_starved = memory_files(&starved);
    let starved_before = blocks_with_content(&of_starved);
    assert!(starved_before > 1000, "{starved_before}");
    starve(&starved, &daemon);
    daemon.end_with(Signal::KILL);
    daemon.start_next(&[]);
    inherited.terminate();

    let after = files.each_ref().map(|files| blocks_with_content(files));
    println!(
        "blocks of 4 KiB that are not zero: {before:?}, and afterwards {after:?}; terminate-enclave took {took:?}"
    );
    assert_eq!(after, [0; 3]);
    assert_eq!(
        blocks_with_content(&of_starved),
        0,
        "of a VMM that was killed for want of memory"
    );
}

/// Where core files of programs that may have some are left: in a place that is looked at.
const CORE_PATTERN: &str = "/proc/sys/kernel/core_pattern";

/// Files that a secret might be in: what is stored, what lies in memory, what is logged.
const PLACES: [&str; 6] = ["/dev/shm", "/etc", "/root", "/run", "/tmp", "/var"];

/// Something that no program and no image has in it.
fn new_secret() -> Vec<u8> {
    let mut secret = vec![0; 32];
    let random = File::open("/dev/urandom").and_then(|mut random| random.read_exact(&mut secret));
    random.expect("random bytes");
    secret
}

/// The enclave has the secret in its memory many times over: it is sent that, and sends it back.
fn tell(enclave: &Enclave, secret: &[u8]) {
    let secrets = secret.repeat(1 << 15);
    let mut connection = connect(enclave, port::ECHO).expect("connect");
    let mut sending = connection.try_clone().expect("a second handle");
    thread::scope(|scope| {
        scope.spawn(|| sending.write_all(&secrets).expect("send"));
        let mut back = vec![0; secrets.len()];
        connection.read_exact(&mut back).expect("receive");
        assert!(back == secrets);
    });
}

fn contains(file: &File, secret: &[u8]) -> bool {
    let mut part = vec![0; 1 << 20];
    let overlap = secret.len() - 1;
    let mut offset = 0;
    loop {
        let length = file.read_at(&mut part, offset).unwrap_or(0);
        let read = part.get(..length).unwrap_or_default();
        if memchr::memmem::find(read, secret).is_some() {
            return true;
        }
        if length <= overlap {
            return false;
        }
        offset += (length - overlap) as u64;
    }
}

/// The files below `directory` that have the secret in them, links not followed.
fn files_with(secret: &[u8], directory: &Path, found: &mut Vec<PathBuf>) -> u32 {
    let mut looked_at = 0;
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let (path, kind) = (entry.path(), entry.file_type().expect("a type"));
        if kind.is_dir() {
            looked_at += files_with(secret, &path, found);
        } else if kind.is_file() {
            looked_at += 1;
            if File::open(&path).is_ok_and(|file| contains(&file, secret)) {
                found.push(path);
            }
        }
    }
    looked_at
}

#[test]
fn what_an_enclave_knew_is_in_no_file_however_it_ended() {
    let _world = World::enter();
    let daemon = OwnDaemon::start(&[]);
    let pattern = fs::read(CORE_PATTERN).expect("a pattern");
    fs::write(CORE_PATTERN, "/tmp/core-%p").expect("set the pattern");
    let echoing = || {
        Launch::of(eifs::of_application("vsock-echo", &[]))
            .in_debug_mode()
            .run(daemon.host())
    };
    let secret = new_secret();
    let control = Path::new("/tmp/secret-of-the-partition-suite");
    fs::write(control, [b"before", &secret[..], b"behind"].concat()).expect("write");

    for end in [None, Some(Signal::KILL), Some(Signal::QUIT), Some(Signal::ABORT)] {
        let enclave = echoing();
        enclave.console().wait_for("vsock-echo: ready");
        let memory = memory_files(&enclave);
        tell(&enclave, &secret);
        assert!(memory.iter().any(|file| contains(file, &secret)), "in its memory");
        if let Some(signal) = end {
            end_to_end_tests::send_signal(enclave.process_id(), signal);
            enclave.wait_until_gone();
        } else {
            enclave.terminate();
        }
        assert!(
            !memory.iter().any(|file| contains(file, &secret)),
            "after {end:?}"
        );
    }

    let mut found = Vec::new();
    let looked_at: u32 = PLACES
        .iter()
        .map(|place| files_with(&secret, Path::new(place), &mut found))
        .sum();
    println!("{looked_at} files were looked at");
    fs::write(CORE_PATTERN, pattern).expect("set the pattern back");
    fs::remove_file(control).expect("remove");
    // The one that shows that it would have been found.
    assert_eq!(found, [control]);
    assert!(
        !daemon
            .log()
            .as_bytes()
            .windows(secret.len())
            .any(|window| window == secret)
    );
}

/// Has the kernel kill the enclave's VMM for want of memory.
fn starve(enclave: &Enclave, daemon: &OwnDaemon) {
    let run_directory = daemon.host().run_directory().to_string_lossy().replace('/', "-");
    let limit = format!("/sys/fs/cgroup/enclaved{run_directory}/{}/memory.max", enclave.id);
    fs::write(limit, "0").expect("limit the memory of the group");
    enclave.wait_until_gone();
}

#[test]
fn a_vmm_that_the_kernel_kills_for_want_of_memory_is_told_as_such() {
    let _world = World::enter();
    let daemon = OwnDaemon::start(&[]);
    let enclave = hello().run(daemon.host());

    starve(&enclave, &daemon);

    let ended = daemon
        .host()
        .cli(&["describe-enclaves", "--ended"])
        .succeeded()
        .json();
    let reason = ended[0]["Reason"].as_str().expect("a reason");
    assert!(reason.contains("OOM killer"), "{reason}");
}
