// parent: --cpus 8 --threads 2 --nodes 2 --memory 4G --no-daemon -- --test-threads 1
//! `nitro-enclaves-allocator`: reserving on two nodes, giving back, and every refusal with the state it leaves.
//!
//! The parent has two nodes with two cores of two threads each: CPUs 0 to 3 and 4 to 7. CPUs 0 and 1 stay with it.

#![forbid(unsafe_code)]
#![expect(clippy::expect_used, reason = "a suite fails on the spot")]

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use end_to_end_tests::{Finished, World, new_run_directory, run};
use rustix::fs::FallocateFlags;
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::thread::CpuSet;
use serde_json::{Value, json};

/// Sizes of hugepages, as sysfs names them.
const SIZES_KB: [u64; 2] = [1_048_576, 2048];

/// Pages of 1 GiB and of 2 MiB on each node.
type Counts = [[u64; 2]; 2];

/// The allocator with files of its own. Dropping it puts the hugepages back that the parent was started with.
struct Allocator {
    before: Counts,
    directory: PathBuf,
}

impl Allocator {
    fn new() -> Self {
        let directory = new_run_directory();
        fs::create_dir(&directory).expect("a directory");
        Self {
            before: counts(),
            directory,
        }
    }

    fn run_directory(&self) -> PathBuf {
        self.directory.join("run")
    }

    /// Reserves what `configuration` says.
    fn reserve(&self, configuration: &str) -> Finished {
        self.reserve_bytes(configuration.as_bytes())
    }

    fn reserve_bytes(&self, configuration: &[u8]) -> Finished {
        let file = self.directory.join("allocator.yaml");
        fs::write(&file, configuration).expect("write the configuration");
        run(self.command().arg("--config").arg(file))
    }

    fn release(&self) -> Finished {
        run(self.command().arg("--release"))
    }

    fn command(&self) -> Command {
        let mut command = Command::new("nitro-enclaves-allocator");
        command
            .env("NITRO_CLI_INSTALL_DIR", &self.directory)
            .arg("--run-directory")
            .arg(self.run_directory());
        command
    }

    /// What the daemon would read.
    fn pool(&self) -> Option<Value> {
        let text = fs::read_to_string(self.run_directory().join("pool.json")).ok()?;
        Some(serde_json::from_str(&text).expect("JSON"))
    }

    /// Fails with these words while pool and hugepages stay what they are.
    #[track_caller]
    fn refuses(&self, configuration: &[u8], words: &[&str]) {
        let state = (counts(), self.pool());
        refused(&self.reserve_bytes(configuration), words);
        let shown = String::from_utf8_lossy(configuration);
        assert_eq!((counts(), self.pool()), state, "after {shown:.100}");
    }
}

impl Drop for Allocator {
    fn drop(&mut self) {
        for (node, sizes) in self.before.iter().enumerate() {
            for (size, pages) in SIZES_KB.into_iter().zip(sizes) {
                // A parent without pages of 1 GiB has no such file.
                let _ = fs::write(count_file(node, size), pages.to_string());
            }
        }
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn count_file(node: usize, size_kb: u64) -> PathBuf {
    format!("/sys/devices/system/node/node{node}/hugepages/hugepages-{size_kb}kB/nr_hugepages").into()
}

fn counts() -> Counts {
    let count = |node, size| {
        let text = fs::read_to_string(count_file(node, size)).unwrap_or_default();
        text.trim().parse().unwrap_or(0)
    };
    [0, 1].map(|node| SIZES_KB.map(|size| count(node, size)))
}

/// The allocator failed as AWS's does: exit code 1, one line of error.
#[track_caller]
fn refused(finished: &Finished, words: &[&str]) {
    assert_eq!(finished.code(), Some(1), "{finished:#?}");
    assert_eq!(finished.stdout, "", "{finished:#?}");
    assert!(finished.stderr.starts_with("Error: "), "{finished:#?}");
    assert_eq!(finished.stderr.lines().count(), 1, "{finished:#?}");
    for word in words {
        assert!(
            finished.stderr.contains(word),
            "{word:?} is not said: {finished:#?}"
        );
    }
}

/// A CPU that is taken offline until this is dropped.
struct Offline(PathBuf);

impl Offline {
    fn take(cpu: u32) -> Self {
        let file = PathBuf::from(format!("/sys/devices/system/cpu/cpu{cpu}/online"));
        fs::write(&file, "0").expect("take the CPU offline");
        Self(file)
    }
}

impl Drop for Offline {
    fn drop(&mut self) {
        fs::write(&self.0, "1").expect("bring the CPU back");
    }
}

/// What stands for an enclave: a directory named like one, and a process that it notes.
struct StandIn {
    process: Child,
}

impl StandIn {
    fn start(run_directory: &Path) -> Self {
        let process = Command::new("sleep").arg("10000").spawn().expect("sleep");
        let stat = fs::read_to_string(format!("/proc/{}/stat", process.id())).expect("/proc");
        let (_, fields) = stat.rsplit_once(')').expect("a command name");
        let start = fields.split_ascii_whitespace().nth(19).expect("a start time");
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("/proc");
        let note = format!(
            r#"{{"format":2,"enclave":{{"id":"i-0000000000000000-enc1","name":"stand-in","cid":16,"cpu_ids":[2],
                "memory_mib":64,"debug_mode":false,"vsock":"unix","created":0}},"vmm":{{"process_id":{},"start_time":{start},
                "boot_id":"{}"}},"measurements":null}}"#,
            process.id(),
            boot.trim()
        );
        let directory = run_directory.join("i-0000000000000000-enc1");
        fs::create_dir(&directory).expect("an enclave's directory");
        fs::write(directory.join("enclave.json"), note).expect("a note");
        Self { process }
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Memory of a node that the kernel can neither give nor move: a file in a file system that is nothing but memory.
struct Occupied(PathBuf);

impl Occupied {
    /// The kernel takes pages from the node whose CPU writes, as long as that has any.
    fn on_node_of(cpu: usize, mib: usize) -> Self {
        let directory = new_run_directory();
        fs::create_dir(&directory).expect("a mount point");
        rustix::mount::mount("ramfs", &directory, "ramfs", MountFlags::empty(), None).expect("mount ramfs");
        let occupied = Self(directory);
        let everywhere = rustix::thread::sched_getaffinity(None).expect("the CPUs of this thread");
        let mut here = CpuSet::new();
        here.set(cpu);
        rustix::thread::sched_setaffinity(None, &here).expect("move to the node");
        let mut file = File::create(occupied.0.join("file")).expect("a file of memory");
        let mebibyte = vec![0xa5; 1 << 20];
        for _ in 0..mib {
            file.write_all(&mebibyte).expect("fill memory");
        }
        rustix::thread::sched_setaffinity(None, &everywhere).expect("move back");
        occupied
    }
}

impl Drop for Occupied {
    fn drop(&mut self) {
        rustix::mount::unmount(&self.0, UnmountFlags::empty()).expect("unmount");
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn two_nodes_are_reserved_read_back_reserved_anew_and_released() {
    let _world = World::enter();
    let allocator = Allocator::new();

    let both = allocator
        .reserve("---\n- memory_mib: 300\n  cpu_count: 2\n- memory_mib: 513\n  cpu_pool: 4,5-7\n")
        .succeeded();

    assert_eq!(
        both.stdout,
        "Reserved CPUs 2,3 and 300 MiB (150 pages of 2 MiB) on NUMA node 0.\n\
         Reserved CPUs 4,5,6,7 and 514 MiB (257 pages of 2 MiB) on NUMA node 1.\n"
    );
    assert_eq!(both.stderr, "");
    assert_eq!(counts(), [[0, 150], [0, 257]]);
    let entries = json!([
        {"node": 0, "cpus": [2, 3], "pages_1g": 0, "pages_2m": 150},
        {"node": 1, "cpus": [4, 5, 6, 7], "pages_1g": 0, "pages_2m": 257},
    ]);
    assert_eq!(allocator.pool(), Some(json!({"version": 1, "entries": entries})));

    // Four CPUs are on node 1 only; what node 0 had goes back.
    let one = allocator.reserve("memory_mib: 64\ncpu_count: 4\n").succeeded();
    assert_eq!(
        one.stdout,
        "Reserved CPUs 4,5,6,7 and 64 MiB (32 pages of 2 MiB) on NUMA node 1.\n"
    );
    assert_eq!(counts(), [[0, 0], [0, 32]]);

    let released = allocator.release().succeeded();
    assert_eq!(released.stdout, "Gave back 64 MiB of hugepages.\n");
    assert_eq!((counts(), allocator.pool()), ([[0, 0], [0, 0]], None));
}

#[test]
fn without_a_configuration_the_default_is_reserved_and_said() {
    let _world = World::enter();
    let allocator = Allocator::new();

    let reserved = run(&mut allocator.command()).succeeded();

    assert_eq!(
        reserved.stdout,
        "Reserved CPUs 2,3 and 512 MiB (256 pages of 2 MiB) on NUMA node 0.\n"
    );
    assert!(
        reserved
            .stderr
            .contains("etc/nitro_enclaves/allocator.yaml does not exist; reserving the default"),
        "{reserved:#?}"
    );
    assert_eq!(counts()[0], [0, 256]);
}

#[test]
fn every_kind_of_malformed_file_is_told_with_its_remedy_and_changes_nothing() {
    let _world = World::enter();
    let allocator = Allocator::new();
    let _ = allocator.reserve("memory_mib: 64\ncpu_count: 2\n").succeeded();
    let large = [b"memory_mib: 512\ncpu_count: 2\n#".to_vec(), vec![b'x'; 64 << 10]].concat();
    let bomb = "a: &a [1,1]\nb: &b [*a,*a]\nc: &c [*b,*b]\n";
    let cases: &[(&[u8], &[&str])] = &[
        (b"", &["reserves nothing", "`memory_mib: 512`"]),
        (b"memory_mib 512\n", &["found \"memory_mib 512\""]),
        (b"memory_mib: 512\n", &["cpu_count or cpu_pool is missing"]),
        (b"cpu_count: 2\n", &["memory_mib is missing"]),
        (
            b"memory_mib: 512\ncpu_count: 2\ncpu_pool: 2,3\n",
            &["exclude each other; remove one"],
        ),
        (
            b"memory_mib: 512\ncpus: 2\n",
            &["unknown key \"cpus\"", "the keys are memory_mib"],
        ),
        (b"memory_mib:\ncpu_count: 2\n", &["memory_mib has no value"]),
        (b"memory_mib: 0\ncpu_count: 2\n", &["memory_mib is 0"]),
        (
            b"memory_mib: 512\ncpu_count: two\n",
            &["cpu_count is \"two\"", "`cpu_count: 2`"],
        ),
        (b"memory_mib: -5\ncpu_count: 2\n", &["memory_mib is -5"]),
        (
            b"memory_mib: 512\ncpu_pool: 2-\n",
            &["cpu_pool is \"2-\"", "`cpu_pool: 2,3,6-9`"],
        ),
        (b"memory_mib: 512\n cpu_count: 2\n", &["is no YAML", "line 2"]),
        (b"memory_mib: 1\nmemory_mib: 2\n", &["a key comes twice"]),
        (b"---\nmemory_mib: 1\n---\na: 1\n", &["several documents"]),
        (b"- memory_mib: 512\n  cpu_count: 2\n- 7\n", &["entry 2: found 7"]),
        (b"\xff\xfe\xfd", &["is no YAML"]),
        (bomb.as_bytes(), &["aliases (*)", "write the values out"]),
        (&large, &["more than 65536 bytes"]),
    ];

    for (configuration, words) in cases {
        allocator.refuses(configuration, &[words, &["allocator.yaml: "][..]].concat());
    }
}

#[test]
fn more_than_the_machine_has_is_refused_with_what_it_has_and_changes_nothing() {
    let _world = World::enter();
    let allocator = Allocator::new();
    let _ = allocator.reserve("memory_mib: 64\ncpu_count: 2\n").succeeded();

    for (configuration, words) in [
        (
            "memory_mib: 64\ncpu_count: 6\n",
            &[
                "cpu_count is 6",
                "node 0 has 2 left, node 1 has 4 left",
                "Write a smaller cpu_count",
            ][..],
        ),
        (
            "memory_mib: 64\ncpu_count: 3\n",
            &["would split a core; write a multiple of 2"],
        ),
        (
            "memory_mib: 4096\ncpu_count: 2\n",
            &[
                "memory_mib is 4096, but there is not so much",
                "Write a smaller memory_mib",
            ],
        ),
        (
            "memory_mib: 18446744073709551615\ncpu_pool: 2,3\n",
            &["there is not so much where the CPUs are: node 0 has"],
        ),
        (
            "memory_mib: 64\ncpu_pool: 8\n",
            &["CPU 8, which this machine does not have"],
        ),
        (
            "memory_mib: 64\ncpu_pool: 1-3\n",
            &["CPU 1, but CPU 0's core (0,1) stays"],
        ),
        ("memory_mib: 64\ncpu_pool: 2,4,5\n", &["CPU 2 without CPU 3"]),
        (
            "memory_mib: 64\ncpu_pool: 2-5\n",
            &["CPU 2 of NUMA node 0 and CPU 4 of node 1"],
        ),
        (
            "- memory_mib: 64\n  cpu_pool: 4,5\n- memory_mib: 64\n  cpu_pool: 4-7\n",
            &["entry 2: cpu_pool names CPU 4, which an earlier entry names"],
        ),
    ] {
        allocator.refuses(configuration.as_bytes(), words);
    }
}

#[test]
fn offline_cpus_are_not_reserved_and_neither_is_the_other_half_of_their_core() {
    let _world = World::enter();
    let allocator = Allocator::new();
    let offline = Offline::take(3);

    allocator.refuses(
        b"memory_mib: 64\ncpu_pool: 2,3\n",
        &["CPU 2, whose core has a CPU that is offline (3"],
    );
    allocator.refuses(
        b"memory_mib: 64\ncpu_pool: 3\n",
        &[
            "CPU 3, which is offline",
            "echo 1 > /sys/devices/system/cpu/cpu3/online",
        ],
    );
    let elsewhere = allocator.reserve("memory_mib: 64\ncpu_count: 2\n").succeeded();
    assert!(
        elsewhere.stdout.starts_with("Reserved CPUs 4,5 and"),
        "{elsewhere:#?}"
    );

    drop(offline);
    let here = allocator.reserve("memory_mib: 64\ncpu_pool: 2,3\n").succeeded();
    assert!(here.stdout.starts_with("Reserved CPUs 2,3 and"), "{here:#?}");
}

#[test]
fn while_an_enclave_runs_the_pool_is_neither_changed_nor_released() {
    let _world = World::enter();
    let allocator = Allocator::new();
    let _ = allocator.reserve("memory_mib: 64\ncpu_count: 2\n").succeeded();
    let enclave = StandIn::start(&allocator.run_directory());
    let words = [
        "an enclave is still running (i-0000000000000000-enc1)",
        "nitro-cli terminate-enclave --all",
    ];

    allocator.refuses(b"memory_mib: 128\ncpu_count: 2\n", &words);
    let state = (counts(), allocator.pool());
    refused(&allocator.release(), &words);
    assert_eq!((counts(), allocator.pool()), state);

    drop(enclave);
    let _ = allocator.reserve("memory_mib: 128\ncpu_count: 2\n").succeeded();
    assert_eq!(counts()[0], [0, 64]);
}

#[test]
fn pages_that_another_program_uses_stay_its_own() {
    const PAGES: u64 = 10;
    let _world = World::enter();
    let allocator = Allocator::new();
    let path = "/dev/hugepages/another-program";
    let file = File::create(path).expect("a file of hugepages");
    rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, PAGES << 21).expect("use hugepages");
    let all = || counts().iter().map(|sizes| sizes[1]).sum::<u64>();

    let _ = allocator
        .reserve("- memory_mib: 64\n  cpu_pool: 2,3\n- memory_mib: 64\n  cpu_pool: 4,5\n")
        .succeeded();
    assert_eq!(all(), PAGES + 64);

    let released = allocator.release().succeeded();
    assert_eq!(
        released.stdout,
        "Gave back 128 MiB of hugepages. 20 MiB stay: other programs use them.\n"
    );
    assert_eq!(all(), PAGES);

    drop(file);
    fs::remove_file(path).expect("remove the file");
}

/// A node has 2 GiB. 1400 MiB of node 0 are a file that looks as if it could be dropped, so that the plan is made and the
/// kernel then gives less.
#[test]
fn memory_that_the_kernel_cannot_free_is_told_with_counts_or_taken_from_the_next_node() {
    let _world = World::enter();
    let allocator = Allocator::new();
    let _ = allocator.reserve("memory_mib: 64\ncpu_pool: 2,3\n").succeeded();
    let _occupied = Occupied::on_node_of(2, 1400);

    allocator.refuses(
        b"memory_mib: 1022\ncpu_pool: 2,3\n",
        &[
            "of 511 pages of 2 MiB on NUMA node 0 the kernel gave ",
            "All previous counts are back",
            "early at boot",
            "fewer MiB",
            "echo 1 > /proc/sys/vm/compact_memory",
            "hugepagesz=2M hugepages=1022",
        ],
    );

    let elsewhere = allocator.reserve("memory_mib: 1022\ncpu_count: 2\n").succeeded();
    assert_eq!(
        elsewhere.stdout,
        "Reserved CPUs 4,5 and 1022 MiB (511 pages of 2 MiB) on NUMA node 1.\n"
    );
    assert_eq!(counts(), [[0, 0], [0, 511]]);
}
