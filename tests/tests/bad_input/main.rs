// parent: --cpus 4 --memory 2G --hugepages-2m 256 -- --test-threads 1
//! What bad input gets: a clear error with AWS's number, a non-zero exit code, and nothing left behind.
//!
//! Every test begins with [`World::enter`], which is what shows that no process, hugepage, socket, file or control group
//! stays. The parent has CPUs 1 to 3 and 512 MiB for enclaves.

#![forbid(unsafe_code)]
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a suite fails on the spot"
)]

mod images;

use std::fs;
use std::path::PathBuf;

use end_to_end_tests::hostile_vmm::ORDERS;
use end_to_end_tests::{
    Finished, Host, Launch, OwnDaemon, World, eifs, parent, poll, processes_named, send_signal,
};
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use rustix::process::Signal;

fn hello() -> Launch {
    Launch::of(parent::hello_eif())
}

#[test]
fn too_little_memory_is_e26_or_e29_and_the_least_is_said() {
    let _world = World::enter();
    let host = Host::of_the_parent();
    let size = fs::metadata(parent::hello_eif()).expect("hello.eif").len();
    let four_times = (4 * size).div_ceil(1 << 20);
    assert!((2..63).contains(&four_times), "hello.eif is small: {size} bytes");

    for below in [0, 1, four_times - 1] {
        hello()
            .with_memory(below)
            .attempt(&host)
            .failed_to_run("E26", &["4 times", "64 MiB"]);
    }
    for below in [four_times, 63] {
        hello()
            .with_memory(below)
            .attempt(&host)
            .failed_to_run("E29", &["at least 64 MiB"]);
    }
}

#[test]
fn memory_that_is_no_size_is_e03() {
    let _world = World::enter();
    let host = Host::of_the_parent();
    for nonsense in ["VVV", "256mb", "1.5G", ""] {
        let finished = hello().with_memory_option(nonsense).attempt(&host);
        finished.failed_with(3, "E03", &[nonsense]);
    }
    let negative = hello().with_memory_option("-10").attempt(&host);
    assert_eq!(
        (negative.code(), negative.stdout.as_str()),
        (Some(2), ""),
        "{negative:#?}"
    );
    assert!(negative.stderr.starts_with("error:"), "{negative:#?}");
}

#[test]
fn more_memory_than_there_are_hugepages_is_e27_and_says_how_to_get_more() {
    let world = World::enter();
    let host = Host::of_the_parent();
    let words = [
        "hugepages",
        "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages",
    ];

    hello()
        .with_memory(514)
        .attempt(&host)
        .failed_to_run("E27", &words);
    hello()
        .with_memory_option("1T")
        .attempt(&host)
        .failed_to_run("E27", &words);
    world.assert_unchanged();

    let first = hello().with_memory(400).with_cpu_count(1).run(&host);
    hello()
        .with_memory(128)
        .with_cpu_count(1)
        .attempt(&host)
        .failed_to_run("E27", &words);
    first.terminate();
    hello().with_memory(512).with_cpu_count(1).run(&host).terminate();
}

#[test]
fn zero_or_too_many_cpus_are_refused() {
    let _world = World::enter();
    let host = Host::of_the_parent();

    hello()
        .with_cpu_count(0)
        .attempt(&host)
        .failed_to_run("E29", &["at least one CPU"]);
    hello()
        .with_cpu_count(4)
        .attempt(&host)
        .failed_to_run("E22", &["4 CPUs", "the pool has 3"]);
    let _first = hello().with_cpu_count(2).run(&host);
    hello()
        .with_cpu_count(2)
        .attempt(&host)
        .failed_to_run("E29", &["other enclaves hold"]);
    hello()
        .with_cpu_ids(&["9"])
        .attempt(&host)
        .failed_to_run("E21", &["CPU 9"]);
    hello()
        .with_cpu_ids(&["1,3"])
        .attempt(&host)
        .failed_with(3, "E03", &["1,3"]);
}

#[test]
fn reserved_cids_are_e03() {
    let _world = World::enter();
    let host = Host::of_the_parent();
    for cid in ["1", "2", "3", "4294967295", "4294967296", "u"] {
        let finished = hello().with(&["--enclave-cid", cid]).attempt(&host);
        finished.failed_with(3, "E03", &[cid]);
    }
}

#[test]
fn an_unknown_enclave_is_e11_by_id_and_e58_by_name() {
    let _world = World::enter();
    let host = Host::of_the_parent();
    let enclave = hello().run(&host);
    for command in ["terminate-enclave", "console"] {
        for unknown in ["i-0000000000000000-enc0", "nonsense", ""] {
            host.cli(&[command, "--enclave-id", unknown])
                .failed_with(11, "E11", &[unknown]);
        }
        host.cli(&[command, "--enclave-name", "nobody"])
            .failed_with(58, "E58", &["nobody"]);
        let none = host.cli(&[command]);
        assert_eq!((none.code(), none.stdout.as_str()), (Some(2), ""), "{none:#?}");
    }
    // Only what follows the last `-enc` of an id counts, as on AWS.
    let (_, slot) = enclave.id.rsplit_once("-enc").expect("a slot");
    let _ = host.cli(&["terminate-enclave", "--enclave-id", slot]).succeeded();
}

#[test]
fn the_console_of_a_production_enclave_is_e44() {
    let _world = World::enter();
    let host = Host::of_the_parent();
    let enclave = hello().run(&host);

    let refused = host.cli(&["console", "--enclave-id", &enclave.id]);

    refused.failed_with(44, "E44", &["--debug-mode"]);
}

/// Something else in the place of `/dev/kvm` for a while.
struct KvmReplaced;

impl KvmReplaced {
    const DEVICE: &str = "/dev/kvm";
    const AWAY: &str = "/dev/kvm.away";

    fn by_nothing() -> Self {
        fs::rename(Self::DEVICE, Self::AWAY).expect("move /dev/kvm away");
        Self
    }

    /// By a character device of these numbers.
    fn by_device(major: u32, minor: u32) -> Self {
        let replaced = Self::by_nothing();
        let mode = Mode::RUSR | Mode::WUSR;
        mknodat(
            CWD,
            Self::DEVICE,
            FileType::CharacterDevice,
            mode,
            makedev(major, minor),
        )
        .expect("make a node");
        replaced
    }
}

impl Drop for KvmReplaced {
    fn drop(&mut self) {
        // There may be nothing in its place.
        let _ = fs::remove_file(Self::DEVICE);
        fs::rename(Self::AWAY, Self::DEVICE).expect("move /dev/kvm back");
    }
}

fn probe() -> Finished {
    end_to_end_tests::run(std::process::Command::new("enclave-vmm").arg("probe"))
}

#[test]
fn a_machine_without_kvm_is_e19_with_what_to_do_about_it() {
    let _world = World::enter();
    let host = Host::of_the_parent();
    assert_eq!(probe().succeeded().stdout, "/dev/kvm runs guests\n");
    {
        let _replaced = KvmReplaced::by_nothing();
        hello()
            .attempt(&host)
            .failed_to_run("E19", &["/dev/kvm", "kvm_amd"]);
        let said = probe();
        assert_eq!(said.code(), Some(1));
        assert!(said.stderr.contains("/dev/kvm cannot be opened"), "{said:#?}");
    }
    hello().run(&host).terminate();
}

#[test]
fn a_device_that_is_not_kvm_is_told_from_kvm() {
    // /dev/null and /dev/zero answer no ioctl.
    for minor in [3, 5] {
        let _world = World::enter();
        let _replaced = KvmReplaced::by_device(1, minor);
        hello()
            .attempt(&Host::of_the_parent())
            .failed_to_run("E29", &["KVM_CREATE_VM"]);
        assert_eq!(probe().code(), Some(1));
    }
}

/// How a KVM that cannot run guests shows itself: `KVM_EXIT_INTERNAL_ERROR` in the middle of the guest. Real KVM does it
/// too, when a guest executes what is not memory.
#[test]
fn a_guest_that_kvm_gives_up_on_is_e36_and_the_reason_is_named() {
    let _world = World::enter();
    // Maps the second GiB as well (entry 3 of the PDPT, one page of 1 GiB), then jumps to 0xd100_0000: no memory, no device.
    let code = [
        &[
            0x48, 0xc7, 0x04, 0x25, 0x18, 0xa0, 0x00, 0x00, 0x83, 0x00, 0x00, 0xc0,
        ][..], // movq $-0x3fffff7d, 0xa018
        &[0xc7, 0x04, 0x25, 0x1c, 0xa0, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00], // movl $0, 0xa01c
        &[0xb8, 0x00, 0x00, 0x00, 0xd1],                                     // mov $0xd1000000, %eax
        &[0xff, 0xe0],                                                       // jmp *%rax
    ]
    .concat();
    let eif = eifs::with_code("nowhere.eif", &code);

    Launch::of(&eif)
        .attempt(&Host::of_the_parent())
        .failed_to_run("E36", &["KVM cannot run the guest"]);
}

#[test]
fn a_guest_that_triple_faults_is_e36_and_says_so() {
    let _world = World::enter();
    let eif = eifs::with_code("ud2.eif", &[0x0f, 0x0b]);

    Launch::of(&eif)
        .attempt(&Host::of_the_parent())
        .failed_to_run("E36", &["triple fault"]);
}

#[test]
fn a_guest_that_never_sends_its_heartbeat_is_killed_after_the_time_limit() {
    let _world = World::enter();
    let daemon = OwnDaemon::start(&["--heartbeat-timeout", "5"]);
    let silent = Launch::of(eifs::with_init("idle"));

    let production = silent.attempt(daemon.host());
    production.failed_to_run("E36", &["no heartbeat within 5 s", "--debug-mode"]);
    assert_eq!(daemon.host().describe().len(), 0);

    silent
        .in_debug_mode()
        .attempt(daemon.host())
        .failed_to_run("E36", &["no heartbeat within 5 s", "console"]);
}

#[test]
fn a_guest_that_halts_for_ever_is_killed_after_the_time_limit_too() {
    let _world = World::enter();
    let daemon = OwnDaemon::start(&["--heartbeat-timeout", "5"]);
    // cli; hlt
    let eif = eifs::with_code("hlt.eif", &[0xfa, 0xf4]);

    Launch::of(&eif)
        .attempt(daemon.host())
        .failed_to_run("E36", &["did not boot"]);
}

#[test]
fn a_guest_that_panics_while_it_boots_is_e36_with_the_end_of_its_console() {
    let _world = World::enter();
    let host = Host::of_the_parent();
    let panicking = Launch::of(eifs::with_init("exit-at-once"));

    panicking
        .attempt(&host)
        .failed_to_run("E36", &["the guest reset itself", "--debug-mode"]);

    let in_debug_mode = panicking.in_debug_mode().attempt(&host);
    in_debug_mode.failed_to_run("E36", &["the guest reset itself", "Rebooting in 1 seconds"]);
}

#[test]
fn a_guest_that_panics_later_disappears() {
    let _world = World::enter();
    let host = Host::of_the_parent();

    let enclave = Launch::of(eifs::with_init("heartbeat-then-exit")).run(&host);

    enclave.wait_until_gone();
    poll::until("its directory to go", || {
        (!enclave.directory().exists()).then_some(())
    });
}

#[test]
fn a_vmm_that_is_killed_takes_its_enclave_along_and_nothing_else() {
    let _world = World::enter();
    let host = Host::of_the_parent();
    let victim = hello()
        .with_memory(128)
        .with_cpu_count(1)
        .in_debug_mode()
        .run(&host);
    let neighbour = hello()
        .with_memory(128)
        .with_cpu_count(1)
        .in_debug_mode()
        .run(&host);
    let mut console = victim.console();
    console.wait_for("Hello from the enclave side!");

    send_signal(victim.process_id(), Signal::KILL);

    victim.wait_until_gone();
    assert_eq!(console.finish().code(), Some(0), "its console ends");
    assert!(neighbour.description().is_some());
    neighbour.console().wait_for("Hello from the enclave side!");
    host.cli(&["terminate-enclave", "--enclave-id", &victim.id])
        .failed_with(11, "E11", &[&victim.id]);
}

#[test]
fn a_vmm_that_is_killed_while_its_guest_boots_is_e36() {
    let _world = World::enter();
    let host = Host::of_the_parent();
    let started = Launch::of(eifs::with_init("idle")).start(&host);
    let vmm = poll::until("a VMM with a vCPU", || {
        processes_named("enclave-vmm")
            .into_iter()
            .find(|process| has_vcpu(*process))
    });

    send_signal(vmm, Signal::KILL);

    started.finish().failed_to_run("E36", &["SIGKILL"]);
}

/// Whether a VMM is past its preparations. Before, it can die of other things, too.
fn has_vcpu(process_id: u32) -> bool {
    let descriptors = fs::read_dir(format!("/proc/{process_id}/fd"));
    let files = descriptors.into_iter().flatten().flatten();
    let mut targets = files.filter_map(|file| fs::read_link(file.path()).ok());
    targets.any(|target| target.to_string_lossy().contains("kvm-vcpu"))
}

#[test]
fn a_vmm_that_is_not_there_any_more_is_e05() {
    let _world = World::enter();
    let copy = PathBuf::from("/tmp/vmm-of-this-test");
    fs::copy("/usr/bin/enclave-vmm", &copy).expect("copy the VMM");
    let daemon = OwnDaemon::start(&["--vmm", &copy.to_string_lossy()]);
    hello().run(daemon.host()).terminate();

    fs::remove_file(&copy).expect("remove the VMM");

    hello()
        .attempt(daemon.host())
        .failed_to_run("E05", &["/tmp/vmm-of-this-test"]);
}

#[test]
fn a_vmm_that_talks_nonsense_or_says_nothing_harms_nobody() {
    let _world = World::enter();
    let vmm = parent::guest_application("hostile-vmm");
    // Of one that has left before it was looked at nobody knows how.
    for (order, what) in [("leave", "VMM"), ("talk-nonsense", "its VMM broke the protocol")] {
        fs::write(ORDERS, order).expect("write the order");
        let daemon = OwnDaemon::start(&["--vmm", &vmm.to_string_lossy()]);

        let failed = hello().attempt(daemon.host());
        let outcome = (failed.code(), failed.stdout.as_str());
        assert_eq!(outcome, (Some(39), ""), "{failed:#?}");
        assert!(failed.stderr.contains(what), "{failed:#?}");
        assert_eq!(daemon.host().describe().len(), 0);
    }
    fs::remove_file(ORDERS).expect("remove the order");
}
