use super::*;
use CpuSelection::{Count, Ids};
use proptest::prelude::*;

fn core(node: u32, cpus: &[u32]) -> Core {
    Core {
        node,
        cpus: cpus.to_vec(),
    }
}

/// Eight CPUs, two nodes, two threads per core, numbered as Linux does on such machines.
fn pool() -> CpuPool {
    CpuPool::without_cpu_0(vec![
        core(0, &[0, 4]),
        core(0, &[1, 5]),
        core(1, &[2, 6]),
        core(1, &[3, 7]),
    ])
}

fn refused(result: Result<CpuGrant, Failure>) -> String {
    let failure = result.unwrap_err();
    assert_eq!(failure.code, ErrorCode::IoctlFailure);
    failure.message
}

#[test]
fn cpu_0_and_its_sibling_stay_with_the_parent() {
    assert_eq!(pool().size(), 6);
    let failure = pool().check(&Ids(vec![1, 4])).unwrap_err();
    assert_eq!(failure.code, ErrorCode::NoSuchCpuAvailableInPool);
    assert!(
        failure
            .message
            .starts_with("CPU 4 is not in the CPU pool: CPUs 1, 5, 2, 6"),
        "{}",
        failure.message
    );
}

#[test]
fn the_whole_pool_is_the_measure_of_e20_to_e22() {
    let code = |selection| pool().check(&selection).unwrap_err().code;

    assert_eq!(code(Ids(vec![1, 5, 1])), ErrorCode::InvalidCpuConfiguration);
    assert_eq!(code(Ids(vec![99])), ErrorCode::NoSuchCpuAvailableInPool);
    assert_eq!(code(Count(7)), ErrorCode::InsufficientCpus);
    assert!(pool().check(&Count(6)).is_ok());
}

#[test]
fn a_count_goes_to_the_node_with_the_smallest_block_that_fits_and_has_the_memory() {
    let none = BTreeSet::new();
    let node = |count, held: &BTreeSet<u32>, memory: fn(u32) -> bool| {
        pool().choose(&Count(count), held, memory).unwrap().node
    };

    // Node 0 has one free core, node 1 two: the larger block stays whole as long as possible.
    assert_eq!(node(2, &none, |_| true), Some(0));
    assert_eq!(node(4, &none, |_| true), Some(1));
    assert_eq!(node(2, &[1, 5].into(), |_| true), Some(1));
    // Memory decides before size, and cannot make CPUs unavailable.
    assert_eq!(node(2, &none, |node| node == 1), Some(1));
    assert_eq!(node(2, &none, |_| false), Some(0));
    // Six are on no node alone.
    assert_eq!(node(6, &none, |_| true), None);
}

#[test]
fn a_machine_with_one_node_names_none() {
    let pool = CpuPool::without_cpu_0(vec![core(0, &[0]), core(0, &[1])]);
    assert_eq!(
        pool.choose(&Count(1), &BTreeSet::new(), |_| true).unwrap().node,
        None
    );
}

#[test]
fn a_pool_that_was_set_apart_has_only_whole_cores_of_it() {
    let pool = pool().restricted_to(&[2, 6, 3].into());

    assert_eq!(pool.cpus(), [2, 6].into());
    assert_eq!(
        pool.check(&Ids(vec![3])).unwrap_err().code,
        ErrorCode::NoSuchCpuAvailableInPool
    );
    assert_eq!(
        pool.check(&Count(3)).unwrap_err().code,
        ErrorCode::InsufficientCpus
    );
    let grant = pool.choose(&Count(2), &BTreeSet::new(), |_| true).unwrap();
    assert_eq!(grant.node, Some(1), "the machine still has two nodes");
}

#[test]
fn a_machine_with_one_core_has_an_empty_pool_and_says_so() {
    let pool = CpuPool::without_cpu_0(vec![core(0, &[0])]);

    let failure = pool.check(&Count(1)).unwrap_err();

    assert_eq!(failure.code, ErrorCode::InsufficientCpus);
    assert!(
        failure.message.contains("The CPU pool is empty"),
        "{}",
        failure.message
    );
}

#[test]
fn a_count_takes_the_lowest_cores_of_one_node_with_siblings_side_by_side() {
    let grant = pool().choose(&Count(4), &BTreeSet::new(), |_| true).unwrap();

    assert_eq!(grant.cpu_ids, [2, 6, 3, 7]);
    assert_eq!(grant.threads_per_core, 2);
    assert_eq!(
        pool()
            .choose(&Count(2), &BTreeSet::new(), |_| true)
            .unwrap()
            .cpu_ids,
        [1, 5]
    );
    assert_eq!(
        pool()
            .choose(&Count(2), &[1, 5].into(), |_| true)
            .unwrap()
            .cpu_ids,
        [2, 6]
    );
    assert_eq!(
        pool()
            .choose(&Count(6), &BTreeSet::new(), |_| true)
            .unwrap()
            .cpu_ids,
        [1, 5, 2, 6, 3, 7]
    );
}

#[test]
fn no_cpu_half_a_core_and_busy_cpus_are_refused_in_words() {
    let none = BTreeSet::new();

    assert!(refused(pool().choose(&Count(0), &none, |_| true)).contains("at least one CPU"));
    assert!(refused(pool().choose(&Ids(vec![]), &none, |_| true)).contains("at least one CPU"));
    assert!(refused(pool().choose(&Count(3), &none, |_| true)).contains("multiple of 2"));
    assert!(
        refused(pool().choose(&Count(4), &[2, 6, 1, 5].into(), |_| true))
            .contains("Asked for 4 of the pool's 6 CPUs, but only 2 are free")
    );
    assert!(refused(pool().choose(&Ids(vec![1]), &none, |_| true)).contains("CPU 5 is missing"));
    assert!(refused(pool().choose(&Ids(vec![1, 5]), &[1, 5].into(), |_| true)).contains("CPU 1 is in use"));
}

#[test]
fn named_cpus_keep_the_users_order_and_torn_siblings_are_not_called_siblings() {
    let grant = |ids: &[u32]| {
        pool()
            .choose(&Ids(ids.to_vec()), &BTreeSet::new(), |_| true)
            .unwrap()
    };

    assert_eq!(
        grant(&[5, 1, 2, 6]),
        CpuGrant {
            cpu_ids: vec![5, 1, 2, 6],
            threads_per_core: 2,
            node: None,
        }
    );
    assert_eq!(grant(&[1, 2, 5, 6]).threads_per_core, 1);
    assert_eq!(grant(&[1, 2, 5, 6]).cpu_ids, [1, 2, 5, 6]);
}

#[test]
fn a_machine_of_mixed_cores_gives_any_count() {
    let pool = CpuPool::without_cpu_0(vec![
        core(0, &[0, 1]),
        core(0, &[2]),
        core(0, &[3, 4]),
        core(0, &[5]),
    ]);
    let grant = |count| pool.choose(&Count(count), &BTreeSet::new(), |_| true).unwrap();

    assert_eq!(grant(1).cpu_ids, [2]);
    assert_eq!(grant(2).cpu_ids, [3, 4]);
    assert_eq!(grant(3).cpu_ids, [3, 4, 2]);
    assert_eq!(grant(3).threads_per_core, 1);
}

/// Machines of up to 4 nodes with up to 8 cores of 1, 2 or 4 threads each, CPUs numbered in any way.
fn any_cores() -> impl Strategy<Value = Vec<Core>> {
    prop::collection::vec((0_u32..4, prop::sample::select(vec![1_usize, 2, 4])), 1..32)
        .prop_flat_map(|shapes| {
            let cpus: u32 = shapes
                .iter()
                .map(|(_, threads)| u32::try_from(*threads).unwrap())
                .sum();
            let numbers = Just((0..cpus).collect::<Vec<_>>()).prop_shuffle();
            (Just(shapes), numbers)
        })
        .prop_map(|(shapes, numbers)| {
            let mut rest = numbers.as_slice();
            let mut cores: Vec<Core> = Vec::new();
            for (node, threads) in shapes {
                let (own, others) = rest.split_at(threads);
                rest = others;
                let mut cpus = own.to_vec();
                cpus.sort_unstable();
                cores.push(Core { node, cpus });
            }
            cores.sort_by_key(|core| core.cpus[0]);
            cores
        })
}

#[derive(Debug, Clone)]
enum Step {
    Count(u32),
    Ids(Vec<u32>),
    End(usize),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0_u32..12).prop_map(Step::Count),
        2 => prop::collection::vec(0_u32..40, 0..6).prop_map(Step::Ids),
        3 => any::<usize>().prop_map(Step::End),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    /// On any machine, whatever comes and goes: no CPU has two tenants, tenants hold whole cores of the pool, the
    /// count is exact, the node is that with the smallest free block that fits, a refusal for busy CPUs is true, and when all
    /// have ended the whole pool can be given again.
    #[test]
    fn the_pool_is_never_oversubscribed_and_comes_back_whole(
        cores in any_cores(),
        steps in prop::collection::vec(any_step(), 0..60),
    ) {
        let pool = CpuPool::without_cpu_0(cores.clone());
        let mut tenants: Vec<Vec<u32>> = Vec::new();
        for step in steps {
            let held: BTreeSet<u32> = tenants.iter().flatten().copied().collect();
            let selection = match step {
                Step::End(which) => {
                    if !tenants.is_empty() {
                        tenants.swap_remove(which % tenants.len());
                    }
                    continue;
                }
                Step::Count(count) => Count(count),
                Step::Ids(ids) => Ids(ids),
            };
            if pool.check(&selection).is_err() {
                continue;
            }
            match pool.choose(&selection, &held, |_| true) {
                Ok(grant) => {
                    let given: BTreeSet<u32> = grant.cpu_ids.iter().copied().collect();
                    prop_assert_eq!(given.len(), grant.cpu_ids.len());
                    prop_assert!(given.is_disjoint(&held));
                    prop_assert!(!given.contains(&0));
                    for core in &cores {
                        let inside = core.cpus.iter().filter(|cpu| given.contains(cpu)).count();
                        prop_assert!(inside == 0 || inside == core.cpus.len());
                        prop_assert!(inside == 0 || !core.cpus.contains(&0));
                    }
                    match &selection {
                        Count(count) => prop_assert_eq!(grant.cpu_ids.len(), *count as usize),
                        Ids(ids) => prop_assert_eq!(&grant.cpu_ids, ids),
                    }
                    prop_assert_eq!(&pool.choose(&selection, &held, |_| true).unwrap(), &grant, "the same again");
                    let free_on = |node: u32| -> Vec<usize> {
                        let free = pool.cores.iter().filter(|core| core.node == node);
                        let free = free.filter(|core| core.cpus.iter().all(|cpu| !held.contains(cpu)));
                        free.map(|core| core.cpus.len()).collect()
                    };
                    if let (Count(count), Some(node)) = (&selection, grant.node) {
                        let block: usize = free_on(node).iter().sum();
                        for other in 0..4 {
                            let sizes = free_on(other);
                            let fits = has_subset_of(&sizes, *count as usize);
                            prop_assert!(!fits || sizes.iter().sum::<usize>() >= block);
                        }
                    }
                    let threads = usize::from(grant.threads_per_core);
                    prop_assert_eq!(grant.cpu_ids.len() % threads, 0);
                    for siblings in grant.cpu_ids.chunks(threads) {
                        prop_assert!(cores.iter().any(|core| siblings.iter().all(|cpu| core.cpus.contains(cpu))));
                    }
                    tenants.push(grant.cpu_ids);
                }
                Err(failure) => {
                    prop_assert_eq!(failure.code, ErrorCode::IoctlFailure);
                    if let Count(count) = selection {
                        let sizes: Vec<usize> = pool.cores.iter()
                            .filter(|core| core.cpus.iter().all(|cpu| !held.contains(cpu)))
                            .map(|core| core.cpus.len())
                            .collect();
                        prop_assert!(count == 0 || !has_subset_of(&sizes, count as usize));
                    }
                }
            }
        }
        let everything = u32::try_from(pool.size()).unwrap();
        if everything > 0 {
            let grant = pool.choose(&Count(everything), &BTreeSet::new(), |_| true).unwrap();
            prop_assert_eq!(grant.cpu_ids.len(), pool.size());
        }
    }
}

/// Whether some of `sizes` add up to `sum`, found the slow and sure way.
fn has_subset_of(sizes: &[usize], sum: usize) -> bool {
    let mut reachable = BTreeSet::from([0]);
    for size in sizes {
        let more: Vec<usize> = reachable.iter().map(|total| total + size).collect();
        reachable.extend(more);
    }
    reachable.contains(&sum)
}
