use std::fmt::Write;
use std::fs;
use std::process::{Child, Command};

use super::command::explained;
use super::testing::{FakeKernel, FakeMachine, Gigabyte, TwoMegabytes};
use super::*;
use crate::note::{Facts, Note};
use crate::process_identity::ProcessIdentity;
use proptest::prelude::*;

fn configuration(text: &str) -> Configuration {
    Configuration::parse(text.as_bytes()).unwrap()
}

fn default_kernel() -> FakeKernel {
    FakeKernel::default()
}

/// The run directory of `fake` with an enclave whose VMM is a process of ours.
fn enclave(fake: &FakeMachine) -> Child {
    let directory = fake.run_directory().join("i-0-enc1");
    fs::create_dir_all(&directory).unwrap();
    let vmm = Command::new("sleep").arg("1000").spawn().unwrap();
    let facts = Facts {
        id: "i-0-enc1".parse().unwrap(),
        name: "hello".into(),
        cid: 16,
        cpu_ids: vec![2, 3],
        memory_mib: 64,
        debug_mode: false,
        vsock: api::vmm::VsockBackend::Unix,
        created: 0,
        owner: None,
    };
    let note = Note::new(facts, ProcessIdentity::of(vmm.id()).unwrap(), None);
    note.write(&directory).unwrap();
    vmm
}

#[test]
fn the_default_is_reserved_published_and_reserved_again() {
    let fake = FakeMachine::with_two_nodes();
    let allocator = fake.allocator(default_kernel());

    for _ in 0..2 {
        let pool = allocator.allocate(&Configuration::default()).unwrap();

        assert_eq!(
            pool.entries[0].to_string(),
            "CPUs 2,3 and 512 MiB (256 pages of 2 MiB) on NUMA node 0"
        );
        assert_eq!(fake.pool(), Some(pool));
        assert_eq!(fake.counts(), [[0, 256], [0, 0]]);
    }
}

#[test]
fn another_configuration_replaces_the_previous_one_on_its_nodes() {
    let fake = FakeMachine::with_two_nodes();
    let allocator = fake.allocator(default_kernel());
    let both = configuration("- {memory_mib: 1026, cpu_pool: '4-5'}\n- {memory_mib: 64, cpu_count: 2}\n");
    allocator.allocate(&both).unwrap();
    assert_eq!(fake.counts(), [[0, 32], [1, 1]]);

    allocator
        .allocate(&configuration("memory_mib: 100\ncpu_pool: 4-7\n"))
        .unwrap();

    assert_eq!(fake.counts(), [[0, 0], [0, 50]]);
}

#[test]
fn a_machine_without_nodes_is_served_from_the_pool_of_all() {
    let fake = FakeMachine::new(&[&[&[0], &[1], &[2]]]).without_nodes();
    let allocator = fake.allocator(default_kernel());

    allocator.allocate(&Configuration::default()).unwrap();

    let counts = Machine::read(&fake.sysfs()).unwrap().nodes[&0]
        .two_megabytes
        .unwrap();
    assert_eq!(counts.total, 256);
}

#[test]
fn large_pages_that_cannot_be_had_come_as_small_ones_on_the_same_node() {
    let fake = FakeMachine::with_two_nodes();
    let allocator = fake.allocator(FakeKernel::giving([(fake.count_file(0, Gigabyte), 1)]));

    allocator
        .allocate(&configuration("memory_mib: 2050\ncpu_count: 2\n"))
        .unwrap();

    assert_eq!(fake.counts(), [[1, 513], [0, 0]]);
}

#[test]
fn a_node_that_gives_too_little_is_left_as_it_was_and_the_next_one_taken() {
    let fake = FakeMachine::with_two_nodes();
    fake.has_pages(0, TwoMegabytes, 3, 0);
    let allocator = fake.allocator(FakeKernel::giving([
        (fake.count_file(0, Gigabyte), 0),
        (fake.count_file(0, TwoMegabytes), 511),
    ]));

    let pool = allocator
        .allocate(&configuration("memory_mib: 1024\ncpu_count: 2\n"))
        .unwrap();

    assert_eq!((pool.entries[0].node, pool.entries[0].pages_1g), (1, 1));
    assert_eq!(fake.counts(), [[0, 3], [1, 0]]);
}

#[test]
fn fragmented_memory_is_told_with_numbers_and_remedies_and_changes_nothing() {
    let fake = FakeMachine::with_two_nodes();
    fake.has_pages(0, TwoMegabytes, 7, 0);
    fake.has_pages(0, Gigabyte, 1, 0);
    let none = [0, 1].into_iter().flat_map(|node| {
        [
            (fake.count_file(node, Gigabyte), 0),
            (fake.count_file(node, TwoMegabytes), 100),
        ]
    });
    let previous = fake.allocator(default_kernel());
    previous
        .allocate(&configuration("memory_mib: 14\ncpu_count: 2\n"))
        .unwrap();
    let (pool, counts) = (fake.pool(), fake.counts());
    let allocator = fake.allocator(FakeKernel::giving(none));

    let error = allocator
        .allocate(&configuration("memory_mib: 2048\ncpu_count: 2\n"))
        .unwrap_err();

    let text = error.to_string();
    for words in [
        "of 2 pages of 1 GiB on NUMA node 0 the kernel gave 0; ",
        "of 1024 pages of 2 MiB on NUMA node 0 the kernel gave 100; ",
        "of 2 pages of 1 GiB on NUMA node 1 the kernel gave 0; ",
        "of 1024 pages of 2 MiB on NUMA node 1 the kernel gave 100. ",
        "All previous counts are back",
        "early at boot",
        "fewer MiB",
        "echo 1 > /proc/sys/vm/compact_memory",
        "hugepagesz=1G hugepages=4 or hugepagesz=2M hugepages=2048",
    ] {
        assert!(text.contains(words), "{words:?} is not in {text:?}");
    }
    assert_eq!((fake.pool(), fake.counts()), (pool, counts));
}

#[test]
fn more_than_the_machine_has_is_refused_before_the_kernel_is_asked() {
    let fake = FakeMachine::with_two_nodes();
    fake.has_free_memory(0, 100);
    fake.has_free_memory(1, 200);
    let allocator = fake.allocator(default_kernel());

    let error = allocator.allocate(&Configuration::default()).unwrap_err();

    let expected = "memory_mib is 512, but there is not so much where the CPUs are: node 0 has 100 MiB left, node 1 \
                    has 200 MiB left. Write a smaller memory_mib, or free memory. Nothing was changed";
    assert_eq!(error.to_string(), expected);
    assert!(allocator.kernel.asked.borrow().is_empty());
    assert_eq!(fake.pool(), None);
}

#[test]
fn while_an_enclave_runs_nothing_is_changed_and_its_id_is_told() {
    let fake = FakeMachine::with_two_nodes();
    let allocator = fake.allocator(default_kernel());
    allocator.allocate(&Configuration::default()).unwrap();
    let (pool, counts) = (fake.pool(), fake.counts());
    let mut vmm = enclave(&fake);

    let errors = [
        allocator
            .allocate(&configuration("memory_mib: 64\ncpu_count: 2\n"))
            .unwrap_err(),
        allocator.release().unwrap_err(),
    ];

    for error in errors {
        let text = error.to_string();
        assert!(
            text.contains("an enclave is still running (i-0-enc1). Terminate"),
            "{text}"
        );
    }
    assert_eq!((fake.pool(), fake.counts()), (pool, counts));
    vmm.kill().unwrap();
    vmm.wait().unwrap();
    assert!(allocator.release().is_ok(), "its directory alone is no enclave");
}

#[test]
fn release_gives_back_what_nobody_uses_and_says_what_stays() {
    let fake = FakeMachine::with_two_nodes();
    fake.has_pages(0, TwoMegabytes, 10, 10);
    fake.has_pages(1, Gigabyte, 1, 0);
    let allocator = fake.allocator(default_kernel());
    allocator.allocate(&Configuration::default()).unwrap();
    assert_eq!(fake.counts(), [[0, 266], [1, 0]]);

    let released = allocator.release().unwrap();

    assert_eq!(
        released.to_string(),
        "Gave back 1536 MiB of hugepages. 20 MiB stay: other programs use them."
    );
    assert_eq!((fake.counts(), fake.pool()), (vec![[0, 10], [0, 0]], None));
    let nothing = Released { mib: 0, kept_mib: 20 };
    assert_eq!(allocator.release().unwrap(), nothing);
}

#[test]
fn a_damaged_pool_is_replaced() {
    let fake = FakeMachine::with_two_nodes();
    fs::create_dir(fake.run_directory()).unwrap();
    fs::write(fake.run_directory().join(pool::POOL_FILE), "{").unwrap();

    let pool = fake
        .allocator(default_kernel())
        .allocate(&Configuration::default())
        .unwrap();

    assert_eq!(fake.pool(), Some(pool));
}

#[test]
fn without_a_place_for_the_pool_the_pages_go_back() {
    let fake = FakeMachine::with_two_nodes();
    // A directory cannot be replaced by a file.
    fs::create_dir_all(fake.run_directory().join("pool.json.new")).unwrap();

    let error = fake
        .allocator(default_kernel())
        .allocate(&Configuration::default())
        .unwrap_err();

    assert!(
        explained(&error).contains("pool.json: Is a directory"),
        "{error:?}"
    );
    assert_eq!(fake.counts(), [[0, 0], [0, 0]]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever the kernel gives: all of it, or everything as it was.
    #[test]
    fn a_reservation_is_whole_or_leaves_no_trace(
        before in prop::collection::vec((0..3_u64, 0..600_u64, 0..50_u64), 2),
        most in prop::collection::vec((0..3_u64, 0..1500_u64), 2),
        requests in prop::collection::vec((1..2500_u64, 1..3_u32), 1..3),
    ) {
        let fake = FakeMachine::with_two_nodes();
        let mut kernel = FakeKernel::default();
        for (node, ((large, small, used), (most_large, most_small))) in before.into_iter().zip(most).enumerate() {
            fake.has_pages(node, Gigabyte, large, 0);
            fake.has_pages(node, TwoMegabytes, small, used.min(small));
            // What the kernel has given once it gives again.
            kernel.most.insert(fake.count_file(node, Gigabyte), most_large.max(large));
            kernel.most.insert(fake.count_file(node, TwoMegabytes), most_small.max(small));
        }
        let mut text = String::new();
        for (mib, cores) in &requests {
            writeln!(text, "- memory_mib: {mib}\n  cpu_count: {}", cores * 2).unwrap();
        }
        let machine = Machine::read(&fake.sysfs()).unwrap();
        let counts = fake.counts();

        let result = fake.allocator(kernel).allocate(&configuration(&text));

        match result {
            Ok(pool) => {
                for (node, after) in (0..).zip(fake.counts()) {
                    for (size, count) in PageSize::ALL.into_iter().zip(after) {
                        let held = machine.pages(node, size).unwrap().held();
                        let before = machine.pages(node, size).unwrap().total;
                        let touched = pool.nodes().contains(&node);
                        prop_assert_eq!(count, if touched { held + pool.pages(node, size) } else { before });
                    }
                }
                prop_assert_eq!(fake.pool(), Some(pool));
            }
            Err(error) => {
                prop_assert!(
                    matches!(error, AllocatorError::Plan(_) | AllocatorError::Fragmented { .. }),
                    "{}", error
                );
                prop_assert_eq!(fake.counts(), counts);
                prop_assert_eq!(fake.pool(), None);
            }
        }
    }
}
