use super::super::machine::NodeMemory;
use super::*;
use proptest::prelude::*;

fn core(node: u32, cpus: &[u32]) -> Core {
    Core {
        node,
        cpus: cpus.to_vec(),
    }
}

fn memory(gigabyte_pages: u64, mib: u64) -> NodeMemory {
    NodeMemory {
        room: Room {
            gigabyte_pages,
            has_small_pages: true,
            bytes: mib << 20,
        },
        ..NodeMemory::default()
    }
}

/// Eight CPUs, two nodes, two threads per core, 4 GiB on each node.
fn machine() -> Machine {
    Machine {
        cores: vec![
            core(0, &[0, 1]),
            core(0, &[2, 3]),
            core(1, &[4, 5]),
            core(1, &[6, 7]),
        ],
        offline: BTreeSet::new(),
        nodes: [(0, memory(u64::MAX, 4096)), (1, memory(u64::MAX, 4096))].into(),
    }
}

fn count(count: u32) -> CpuRequest {
    CpuRequest::Count(count)
}

fn named(cpus: &[u32]) -> CpuRequest {
    CpuRequest::Pool(cpus.iter().copied().collect())
}

fn wanted(requests: &[(u64, CpuRequest)]) -> Configuration {
    let requests = requests.iter().zip(1..);
    Configuration {
        requests: requests
            .map(|((memory_mib, cpus), number)| Request {
                place: Place::Entry(number),
                memory_mib: *memory_mib,
                cpus: cpus.clone(),
            })
            .collect(),
    }
}

/// Node, CPUs, pages of 1 GiB, pages of 2 MiB of each entry.
fn planned(machine: &Machine, requests: &[(u64, CpuRequest)]) -> Vec<(u32, Vec<u32>, u64, u64)> {
    let pool = plan(&wanted(requests), machine).unwrap_or_else(|error| panic!("{error}"));
    let entries = pool.entries.into_iter();
    entries
        .map(|entry| (entry.node, entry.cpus, entry.pages_1g, entry.pages_2m))
        .collect()
}

fn refused(machine: &Machine, requests: &[(u64, CpuRequest)]) -> String {
    plan(&wanted(requests), machine).unwrap_err().to_string()
}

#[test]
fn a_count_takes_the_lowest_cores_of_the_first_node_that_has_cpus_and_memory() {
    assert_eq!(planned(&machine(), &[(512, count(2))]), [(0, vec![2, 3], 0, 256)]);
    assert_eq!(
        planned(&machine(), &[(512, count(4))]),
        [(1, vec![4, 5, 6, 7], 0, 256)],
        "node 0 has but one core beside CPU 0's"
    );
    let mut little = machine();
    little.nodes.insert(0, memory(u64::MAX, 511));
    assert_eq!(planned(&little, &[(512, count(2))]), [(1, vec![4, 5], 0, 256)]);
}

#[test]
fn memory_is_in_the_largest_pages_that_fit_without_waste() {
    let pages = |machine: &Machine, mib| {
        let [(_, _, large, small)] = planned(machine, &[(mib, count(2))])[..] else {
            panic!("one entry");
        };
        (large, small)
    };

    for (mib, expected) in [
        (1, (0, 1)),
        (3, (0, 2)),
        (1022, (0, 511)),
        (1023, (1, 0)),
        (1024, (1, 0)),
        (1025, (1, 1)),
        (3000, (2, 476)),
        (4096, (4, 0)),
    ] {
        assert_eq!(pages(&machine(), mib), expected, "{mib} MiB");
    }
    let mut few = machine();
    few.nodes.insert(0, memory(1, 4096));
    assert_eq!(pages(&few, 3000), (1, 988));
    few.nodes.insert(0, memory(0, 4096));
    assert_eq!(pages(&few, 2048), (0, 1024));
}

#[test]
fn without_small_pages_only_whole_gib_can_be_had() {
    let mut large_only = machine();
    for memory in large_only.nodes.values_mut() {
        memory.room.has_small_pages = false;
    }

    assert_eq!(planned(&large_only, &[(2048, count(2))]), [(0, vec![2, 3], 2, 0)]);
    let told = refused(&large_only, &[(2049, count(2))]);
    assert!(
        told.contains("node 0 has no hugepages of 2 MiB, node 1 has no"),
        "{told}"
    );
}

#[test]
fn named_cpus_come_first_and_entries_stay_in_order() {
    let entries = planned(
        &machine(),
        &[(512, count(2)), (1024, named(&[2, 3])), (64, count(2))],
    );

    assert_eq!(
        entries,
        [
            (1, vec![4, 5], 0, 256),
            (0, vec![2, 3], 1, 0),
            (1, vec![6, 7], 0, 32)
        ]
    );
}

#[test]
fn named_cpus_are_whole_cores_of_one_node_and_each_mistake_is_told() {
    let mut halved = machine();
    halved.offline = [7].into();
    halved.cores[3] = core(1, &[6]);

    for (machine, cpus, words) in [
        (&machine(), &[8][..], "CPU 8, which this machine does not have"),
        (&halved, &[7], "CPU 7, which is offline; bring it back (echo 1 >"),
        (&halved, &[6], "CPU 6, whose core has a CPU that is offline (7"),
        (
            &machine(),
            &[1, 2, 3],
            "CPU 1, but CPU 0's core (0,1) stays with the parent",
        ),
        (&machine(), &[2], "CPU 2 without CPU 3, which shares its core"),
        (
            &machine(),
            &[2, 3, 4, 5],
            "CPU 2 of NUMA node 0 and CPU 4 of node 1",
        ),
    ] {
        let told = refused(machine, &[(64, named(cpus))]);
        assert!(told.starts_with("entry 1: cpu_pool names "), "{told}");
        assert!(told.contains(words), "{words:?} is not in {told:?}");
    }
    let told = refused(&machine(), &[(64, named(&[4, 5])), (64, named(&[4, 5, 6, 7]))]);
    assert!(
        told.starts_with("entry 2: cpu_pool names CPU 4, which an earlier entry names"),
        "{told}"
    );
}

#[test]
fn more_than_the_machine_has_is_told_with_what_it_has() {
    for (requests, words) in [
        (
            &[(64, count(6))][..],
            "entry 1: cpu_count is 6, but no NUMA node has so many CPUs for enclaves: node 0 has 2 left, node 1 has 4",
        ),
        (
            &[(64, count(3))],
            "entry 1: cpu_count is 3, which would split a core; write a multiple of 2",
        ),
        (
            &[(4097, count(2))],
            "memory_mib is 4097, but there is not so much where the CPUs are: node 0 has 4096 MiB left, node 1 has",
        ),
        (
            &[(4097, named(&[2, 3]))],
            "node 0 has 4096 MiB left. Write a smaller",
        ),
        (&[(u64::MAX, count(2))], "memory_mib is 18446744073709551615"),
        (
            &[(64, count(2)), (64, count(4)), (64, count(2))],
            "entry 3: cpu_count is 2, but no NUMA node has so many CPUs",
        ),
        (
            &[(4000, named(&[4, 5])), (97, named(&[6, 7]))],
            "entry 2: memory_mib is 97, but there is not so much where the CPUs are: node 1 has 96 MiB",
        ),
    ] {
        let told = refused(&machine(), requests);
        assert!(told.contains(words), "{words:?} is not in {told:?}");
    }
}

#[test]
fn a_machine_with_one_core_has_no_cpus_for_enclaves() {
    let mut single = machine();
    single.cores.truncate(1);
    let told = refused(&single, &[(64, count(2))]);
    assert!(told.contains("node 0 has 0 left. CPU 0's core"), "{told}");
}

/// Machines of up to four nodes, cores of one to four threads, some CPUs offline, memory here and there.
fn any_machine() -> impl Strategy<Value = Machine> {
    let threads = prop_oneof![Just(1_usize), Just(2), Just(2), Just(4)];
    let cores = prop::collection::vec((0..4_u32, threads, 0..12_u32), 1..10);
    let room = (0..6_u64, any::<bool>(), 0..8192_u64);
    let memory = prop::collection::btree_map(0..4_u32, room, 0..5);
    (cores, memory).prop_map(|(cores, memory)| {
        let mut numbers = 0..;
        let mut offline = BTreeSet::new();
        let mut online = Vec::new();
        for (node, threads, luck) in cores {
            let mut cpus: Vec<u32> = numbers.by_ref().take(threads).collect();
            if luck == 0 && cpus.len() > 1 {
                offline.extend(cpus.pop());
            }
            online.push(Core { node, cpus });
        }
        let nodes = memory
            .into_iter()
            .map(|(node, (gigabyte_pages, has_small_pages, mib))| {
                let room = Room {
                    gigabyte_pages,
                    has_small_pages,
                    bytes: mib << 20,
                };
                let memory = NodeMemory {
                    room,
                    ..NodeMemory::default()
                };
                (node, memory)
            });
        Machine {
            cores: online,
            offline,
            nodes: nodes.collect(),
        }
    })
}

fn any_request() -> impl Strategy<Value = (u64, CpuRequest)> {
    let cpus = prop_oneof![
        3 => (1..9_u32).prop_map(CpuRequest::Count),
        1 => prop::collection::btree_set(0..20_u32, 1..5).prop_map(CpuRequest::Pool),
    ];
    (prop_oneof![1..300_u64, 1000..5000_u64], cpus)
}

/// Likewise, named CPUs being the cores with these indexes.
fn any_request_of(machine: &Machine) -> impl Strategy<Value = (u64, CpuRequest)> + use<> {
    let cores: Vec<BTreeSet<u32>> = machine
        .cores
        .iter()
        .map(|core| core.cpus.iter().copied().collect())
        .collect();
    let pool = prop::sample::select(cores).prop_map(CpuRequest::Pool);
    (
        1..2500_u64,
        prop_oneof![(1..9_u32).prop_map(CpuRequest::Count), pool],
    )
}

fn any_case() -> impl Strategy<Value = (Machine, Vec<(u64, CpuRequest)>)> {
    any_machine().prop_flat_map(|machine| {
        let request = prop_oneof![any_request(), any_request_of(&machine)];
        (Just(machine), prop::collection::vec(request, 1..5))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn every_plan_keeps_every_rule((machine, requests) in any_case()) {
        let Ok(pool) = plan(&wanted(&requests), &machine) else {
            return Ok(());
        };
        prop_assert_eq!(pool.entries.len(), requests.len());
        let mut given = BTreeSet::new();
        for (entry, (memory_mib, cpus)) in pool.entries.iter().zip(&requests) {
            prop_assert!(entry.cpus.is_sorted());
            match cpus {
                CpuRequest::Count(count) => prop_assert_eq!(entry.cpus.len(), usize::try_from(*count).unwrap()),
                CpuRequest::Pool(cpus) => prop_assert!(entry.cpus.iter().eq(cpus)),
            }
            for cpu in &entry.cpus {
                prop_assert!(given.insert(*cpu), "CPU {} is given twice", cpu);
                let core = machine.core_of(*cpu).expect("an online CPU");
                prop_assert_eq!(core.node, entry.node);
                prop_assert!(machine.is_whole(core));
                prop_assert!(!core.cpus.contains(&0));
                prop_assert!(core.cpus.iter().all(|sibling| entry.cpus.contains(sibling)));
            }
            prop_assert!(entry.mib() >= *memory_mib);
            prop_assert!(entry.mib() - memory_mib < 2, "{} for {}", entry.mib(), memory_mib);
        }
        for node in pool.nodes() {
            let room = machine.nodes[&node].room;
            let (large, small) = (pool.pages(node, PageSize::Gigabyte), pool.pages(node, PageSize::TwoMegabytes));
            prop_assert!(large <= room.gigabyte_pages);
            prop_assert!(small == 0 || room.has_small_pages);
            prop_assert!((large << 30) + (small << 21) <= room.bytes);
            prop_assert!(pool.entries.len() > 1 || small < 512 || large == room.gigabyte_pages);
        }
    }

    #[test]
    fn a_single_count_is_refused_only_if_no_node_can_and_else_gets_the_first_that_can(
        machine in any_machine(),
        memory_mib in 1..5000_u64,
        cpus in 1..9_u32,
    ) {
        let able = |node: &u32| {
            let cores: Vec<_> = machine.cores_for_enclaves(*node).collect();
            let mut room = machine.nodes.get(node).map_or(NO_ROOM, |memory| memory.room);
            cpus::fit(&cores, usize::try_from(cpus).unwrap()).is_some() && room.take(memory_mib).is_some()
        };
        let first = machine.cores.iter().map(|core| core.node).collect::<BTreeSet<_>>().into_iter().find(able);

        let pool = plan(&wanted(&[(memory_mib, count(cpus))]), &machine);

        prop_assert_eq!(pool.ok().map(|pool| pool.entries[0].node), first);
    }
}
