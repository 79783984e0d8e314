// parent: --cpus 8 --threads 2 --memory 3G --hugepages-2m 768 --no-daemon -- --test-threads 1 --nocapture
//! What holds a VMM, seen from outside, and tried from inside by one that was taken over and that no filter of system calls stops.
//! What the filters stop is in `vmm/tests/sandbox.rs`; what its user alone stops is in the suite `nsm`.

#![forbid(unsafe_code)]
#![expect(clippy::expect_used, clippy::panic, reason = "a suite fails on the spot")]

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};

use end_to_end_tests::hostile_vmm::{FINDINGS, ORDERS};
use end_to_end_tests::{Enclave, Launch, OwnDaemon, World, parent, poll};

/// Those that a VMM has of its own.
const NAMESPACES: [&str; 4] = ["net", "mnt", "ipc", "uts"];

const MIB: u64 = 1 << 20;

/// How many namespaces of networks there may be.
const MOST_NETWORKS: &str = "/proc/sys/user/max_net_namespaces";

/// Of vsock, on which neither the parent nor an enclave listens.
const PORT_OF_NOBODY: u32 = 5005;

/// What nothing but filters of system calls keeps a VMM from: vsock belongs to no namespace of networks, and whoever may make a namespace
/// of users is root in it, over nothing that others have. All of it is tried once more from there, with the same result.
const HELD_BY_FILTERS_ALONE: [&str; 3] = [
    "listen port 5005",
    "make a namespace of users",
    "listen port 5005",
];

/// The VMM of those daemons: a link to the one that is to be started next.
const VMM: &str = "/tmp/vmm-of-the-sandbox-suite";

fn use_vmm(vmm: &Path) {
    let _ = fs::remove_file(VMM);
    symlink(vmm, VMM).expect("link the VMM");
}

fn hello() -> Launch {
    Launch::of(parent::hello_eif()).with_memory(128)
}

fn of_process(process: u32, what: &str) -> PathBuf {
    Path::new("/proc").join(process.to_string()).join(what)
}

fn read(process: u32, what: &str) -> String {
    let path = of_process(process, what);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn namespace(process: u32, name: &str) -> PathBuf {
    fs::read_link(of_process(process, "ns").join(name)).expect("a namespace")
}

fn names_in(directory: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(directory).expect("list a directory").flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

/// The user of every thread of an enclave's VMM, which is nobody else's and may do nothing.
fn user_without_rights(enclave: &Enclave) -> String {
    let process = enclave.process_id();
    let mut users = BTreeSet::new();
    for thread in names_in(&of_process(process, "task")) {
        let status = read(process, &format!("task/{thread}/status"));
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_else(|| panic!("{name} in {status}"))
                .trim()
                .to_owned()
        };
        for name in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
            assert_eq!(field(name), "0000000000000000", "{name}");
        }
        assert_eq!(field("NoNewPrivs:"), "1");
        assert_eq!(field("Seccomp:"), "2", "{status}");
        assert_eq!(field("Groups:"), "");
        assert_eq!(field("Uid:"), field("Gid:"));
        users.insert(field("Uid:"));
    }
    assert_eq!(users.len(), 1, "{users:?}");
    let ids = users.pop_first().expect("a user");
    let (real, others) = ids.split_once('\t').expect("four ids");
    assert!(others.split('\t').all(|id| id == real), "{ids}");
    assert!(real.parse::<u32>().expect("a number") > 0x7000_0000, "{real}");
    real.to_owned()
}

fn sees_its_own_directory_alone(enclave: &Enclave) {
    let process = enclave.process_id();
    assert_eq!(
        names_in(&of_process(process, "root")),
        names_in(&enclave.directory())
    );
    let mounts = read(process, "mountinfo");
    println!("mounts of the VMM: {mounts}");
    let [mount] = mounts.lines().collect::<Vec<_>>()[..] else {
        panic!("{mounts}");
    };
    let fields: Vec<&str> = mount.split(' ').collect();
    let (place, options) = (fields.get(4).expect("a place"), fields.get(5).expect("options"));
    assert_eq!(*place, "/");
    for option in ["ro", "nosuid", "nodev", "noexec"] {
        assert!(options.split(',').any(|given| given == option), "{options}");
    }
    assert_eq!(
        fs::read_link(of_process(process, "cwd")).expect("a directory"),
        fs::read_link(of_process(process, "root")).expect("a directory")
    );
}

fn has_no_way_out_by_a_descriptor(enclave: &Enclave) {
    let descriptors = of_process(enclave.process_id(), "fd");
    for name in names_in(&descriptors) {
        let is_directory = fs::metadata(descriptors.join(&name)).is_ok_and(|file| file.is_dir());
        let target = fs::read_link(descriptors.join(&name)).unwrap_or_default();
        assert!(!is_directory, "{name} is {}", target.display());
    }
}

fn has_no_network(enclave: &Enclave) {
    let devices = read(enclave.process_id(), "net/dev");
    let interfaces: Vec<&str> = devices
        .lines()
        .skip(2)
        .filter_map(|line| line.split(':').next())
        .map(str::trim)
        .collect();
    assert_eq!(interfaces, ["lo"]);
    // An interface that is up has addresses, and those have routes.
    let routes = read(enclave.process_id(), "net/fib_trie");
    assert!(!routes.contains("127.0.0.1"), "{routes}");
}

fn takes_no_more_than_it_needs(enclave: &Enclave) {
    let process = enclave.process_id();
    let limits = read(process, "limits");
    let limit = |name: &str| -> u64 {
        let line = limits.lines().find_map(|line| line.strip_prefix(name));
        let mut values = line.expect("a limit").split_ascii_whitespace();
        let (soft, hard) = (values.next().expect("a limit"), values.next());
        assert_eq!(Some(soft), hard, "{name} in {limits}");
        soft.parse().unwrap_or_else(|_| panic!("{name} in {limits}"))
    };
    assert_eq!(limit("Max core file size"), 0);
    assert!(limit("Max processes") < 32);
    assert!(limit("Max open files") <= 8192);
    assert!(limit("Max file size") <= 1 << 20);
    // Guest memory, 128 MiB, and what the VMM takes itself.
    assert!(limit("Max address space") < (128 << 20) + (2 << 30));
    // Of a process that may be dumped and traced, these are its own user's.
    assert_eq!(
        fs::metadata(of_process(process, "mem"))
            .expect("its memory")
            .uid(),
        0
    );
    let status = read(process, "status");
    let locked = status.lines().find_map(|line| line.strip_prefix("VmLck:"));
    assert_ne!(locked.expect("a size").trim(), "0 kB");
}

/// In the control group of an enclave, with a daemon that has this run directory.
fn group_limit(daemon: &OwnDaemon, enclave: &Enclave, name: &str) -> u64 {
    let run_directory = daemon.host().run_directory().to_string_lossy().replace('/', "-");
    let group = Path::new("/sys/fs/cgroup").join(format!("enclaved{run_directory}"));
    let limit = fs::read_to_string(group.join(&enclave.id).join(name)).expect("a limit");
    limit
        .trim()
        .parse()
        .unwrap_or_else(|_| panic!("{name} is {limit}"))
}

#[test]
fn a_vmm_is_alone_in_an_empty_place_with_either_vsock() {
    let _world = World::enter();
    let daemon = OwnDaemon::start(&[]);
    let enclaves =
        [&["--vsock", "kernel"], &["--vsock", "unix"]].map(|vsock| hello().with(vsock).run(daemon.host()));

    for enclave in &enclaves {
        sees_its_own_directory_alone(enclave);
        has_no_way_out_by_a_descriptor(enclave);
        has_no_network(enclave);
        takes_no_more_than_it_needs(enclave);
        assert!(group_limit(&daemon, enclave, "pids.max") < 32);
        assert!(group_limit(&daemon, enclave, "memory.max") <= 4 << 30);
    }
    let users: BTreeSet<_> = enclaves.iter().map(user_without_rights).collect();
    assert_eq!(users.len(), enclaves.len(), "{users:?}");
    for name in NAMESPACES {
        let processes = enclaves
            .iter()
            .map(Enclave::process_id)
            .chain([daemon.process_id()]);
        let different: BTreeSet<_> = processes.map(|process| namespace(process, name)).collect();
        assert_eq!(different.len(), enclaves.len() + 1, "{different:?}");
    }
    for enclave in enclaves {
        enclave.terminate();
    }
}

/// Puts back what it was when this is dropped.
struct FewerNetworks(String);

impl FewerNetworks {
    fn none() -> Self {
        let before = fs::read_to_string(MOST_NETWORKS).expect("a number of networks");
        fs::write(MOST_NETWORKS, "0").expect("allow no network");
        Self(before)
    }
}

impl Drop for FewerNetworks {
    fn drop(&mut self) {
        let _ = fs::write(MOST_NETWORKS, &self.0);
    }
}

#[test]
fn a_layer_that_cannot_be_had_is_named_and_only_missing_where_that_is_allowed() {
    let _world = World::enter();
    let _networks = FewerNetworks::none();
    let daemon = OwnDaemon::start(&["--allow-missing", "uts-namespace,own-user"]);
    hello().attempt(daemon.host()).failed_to_run(
        "E36",
        &[
            "sandbox lacks network-namespace (",
            "--allow-missing network-namespace",
        ],
    );
    drop(daemon);

    let daemon = OwnDaemon::start(&["--allow-missing", "network-namespace"]);
    let enclave = hello().run(daemon.host());

    let is_shared =
        |name: &str| namespace(enclave.process_id(), name) == namespace(daemon.process_id(), name);
    assert_eq!(NAMESPACES.map(is_shared), [true, false, false, false]);
    sees_its_own_directory_alone(&enclave);
    user_without_rights(&enclave);
    daemon.wait_until_logged("lacks network-namespace (");
    enclave.terminate();
}

/// The next VMM is one that was taken over, and does this.
fn give_orders(orders: &str) {
    fs::write(FINDINGS, "").expect("make a file for the findings");
    fs::set_permissions(FINDINGS, Permissions::from_mode(0o666)).expect("let others write there");
    fs::write(ORDERS, orders).expect("write the orders");
    use_vmm(&parent::guest_application("hostile-vmm"));
}

/// `WORD NUMBER` among what was found.
fn number_found(findings: &str, word: &str) -> u64 {
    let found = findings.lines().find_map(|line| line.strip_prefix(word));
    let number = found.and_then(|number| number.trim().parse().ok());
    number.unwrap_or_else(|| panic!("no {word} in {findings}"))
}

#[test]
fn a_vmm_that_was_taken_over_takes_no_more_of_the_machine_than_its_share() {
    let _world = World::enter();
    use_vmm(Path::new("/usr/bin/enclave-vmm"));
    let daemon = OwnDaemon::start(&["--vsock", "unix", "--vmm", VMM]);
    let victim = hello().run(daemon.host());
    give_orders("exhaust");

    let enclave = hello().run(daemon.host());
    let outcome = enclave.directory().join("outcome");
    let mut largest = 0;
    poll::until("the end of what it takes", || {
        largest = largest.max(fs::metadata(&outcome).map_or(0, |outcome| outcome.len()));
        enclave.description().is_none().then_some(())
    });

    let findings = fs::read_to_string(FINDINGS).expect("findings");
    println!("{findings}its file had {largest} bytes at most");
    assert!(number_found(&findings, "descriptors ") < 8192);
    assert!(number_found(&findings, "threads ") < 24);
    assert!(number_found(&findings, "MiB ") < 1024 + 128 + 64);
    assert!(findings.ends_with("file\n"), "{findings}");
    assert!(largest <= MIB, "{largest}");
    let ended = daemon
        .host()
        .cli(&["describe-enclaves", "--ended"])
        .succeeded()
        .stdout;
    println!("{ended}");
    // It has printed 16.
    assert!((daemon.log().len() as u64) < MIB, "{}", daemon.log().len());
    use_vmm(Path::new("/usr/bin/enclave-vmm"));
    hello().run(daemon.host()).terminate();
    victim.terminate();
}

#[test]
fn a_vmm_that_was_taken_over_reaches_nothing_outside_even_without_filters() {
    let _world = World::enter();
    use_vmm(Path::new("/usr/bin/enclave-vmm"));
    let daemon = OwnDaemon::start(&["--vsock", "unix", "--vmm", VMM]);
    let victim = hello().run(daemon.host());
    let reachable = hello().with(&["--vsock", "kernel"]).run(daemon.host());
    let name = "sandbox-suite";
    let address = SocketAddr::from_abstract_name(name).expect("a name");
    let _abstract = UnixListener::bind_addr(&address).expect("listen without a file");
    let tcp = TcpListener::bind("127.0.0.1:0").expect("listen for TCP");
    let key = names_in(Path::new("/var/lib/enclaved/attestation"));
    let key = key.first().expect("a key");
    let orders = [
        "break-out-of-jail".to_owned(),
        "file /etc/shadow".to_owned(),
        "file /proc/self/mem".to_owned(),
        "file /dev/kvm".to_owned(),
        "file /bin/sh".to_owned(),
        format!("file /var/lib/enclaved/attestation/{key}"),
        format!("file {}", daemon.host().socket().display()),
        format!("file {}", victim.directory().join("vsock.sock").display()),
        format!("file {}", victim.directory().display()),
        format!("process {}", daemon.process_id()),
        format!("process {}", victim.process_id()),
        format!("abstract {name}"),
        format!("tcp {}", tcp.local_addr().expect("an address")),
        format!("vsock {} {PORT_OF_NOBODY}", reachable.cid()),
        format!("port {PORT_OF_NOBODY}"),
    ];
    give_orders(&orders.join("\n"));

    let enclave = hello().run(daemon.host());

    let findings = poll::until("the end of what it tries", || {
        let findings = fs::read_to_string(FINDINGS).unwrap_or_default();
        findings.contains("that was all").then_some(findings)
    });
    println!("{findings}");
    let attempts: Vec<&str> = findings
        .lines()
        .filter_map(|line| line.strip_prefix("tried "))
        .collect();
    assert!(attempts.len() > 70, "{}", attempts.len());
    let done: Vec<_> = attempts
        .iter()
        .filter_map(|attempt| attempt.strip_suffix(": done"))
        .collect();
    assert_eq!(done, HELD_BY_FILTERS_ALONE);
    // The enclave has answered that nobody is there.
    let reached = format!(
        "tried connect vsock {} {PORT_OF_NOBODY}: ConnectionReset",
        reachable.cid()
    );
    assert!(findings.contains(&reached), "{findings}");
    // What was tried could be had, and had it been had it would show.
    assert!(std::os::unix::net::UnixStream::connect_addr(&address).is_ok());
    assert!(std::net::TcpStream::connect(tcp.local_addr().expect("an address")).is_ok());
    assert!(enclave.directory().join("vsock.sock").exists());
    assert!(!enclave.directory().join("file").exists());
    sees_its_own_directory_alone(&enclave);
    enclave.terminate();
    reachable.terminate();
    victim.terminate();
}
