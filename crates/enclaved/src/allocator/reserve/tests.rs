use std::io::ErrorKind;

use super::super::pool::PoolEntry;
use super::super::testing::{FakeKernel, FakeMachine, Gigabyte, TwoMegabytes};
use super::*;

fn pool(entries: &[(u32, u64, u64)]) -> Pool {
    let entries = entries.iter().map(|(node, pages_1g, pages_2m)| PoolEntry {
        node: *node,
        cpus: Vec::new(),
        pages_1g: *pages_1g,
        pages_2m: *pages_2m,
    });
    Pool::new(entries.collect())
}

fn reserve(
    fake: &FakeMachine,
    kernel: &FakeKernel,
    wanted: &Pool,
    previous: Option<&Pool>,
) -> Result<(), ReserveError> {
    let machine = Machine::read(&fake.sysfs()).unwrap();
    let targets = targets(&machine, wanted, previous);
    Reservation::new(&fake.sysfs(), kernel, &targets).make()
}

#[test]
fn pages_that_others_use_or_were_promised_are_kept_beside_the_pool() {
    let fake = FakeMachine::with_two_nodes();
    fake.has_pages(0, TwoMegabytes, 100, 30);
    fake.has_pages(1, TwoMegabytes, 50, 0);
    fake.promised(TwoMegabytes, 5);

    reserve(&fake, &FakeKernel::default(), &pool(&[(0, 1, 10)]), None).unwrap();

    assert_eq!(fake.counts(), [[1, 45], [0, 50]]);
}

#[test]
fn the_previous_pools_pages_go_back_on_nodes_that_the_next_one_leaves() {
    let fake = FakeMachine::with_two_nodes();
    fake.has_pages(0, TwoMegabytes, 300, 0);
    fake.has_pages(1, TwoMegabytes, 7, 7);
    let previous = pool(&[(0, 0, 256), (1, 0, 20)]);

    reserve(
        &fake,
        &FakeKernel::default(),
        &pool(&[(1, 2, 0)]),
        Some(&previous),
    )
    .unwrap();

    assert_eq!(fake.counts(), [[0, 44], [2, 7]], "44 were somebody else's before");
}

#[test]
fn memory_moves_between_sizes_because_giving_back_comes_first() {
    let fake = FakeMachine::with_two_nodes();
    fake.has_pages(0, TwoMegabytes, 512, 0);
    let kernel = FakeKernel::default();

    reserve(&fake, &kernel, &pool(&[(0, 1, 0)]), None).unwrap();

    let asked = kernel.asked.borrow();
    let expected = [
        (fake.count_file(0, TwoMegabytes), 0),
        (fake.count_file(0, Gigabyte), 1),
    ];
    assert_eq!(*asked, expected);
}

#[test]
fn nothing_is_written_where_nothing_changes() {
    let fake = FakeMachine::with_two_nodes();
    fake.has_pages(0, TwoMegabytes, 10, 0);
    let kernel = FakeKernel::default();

    reserve(&fake, &kernel, &pool(&[(0, 0, 10)]), None).unwrap();

    assert!(kernel.asked.borrow().is_empty());
}

#[test]
fn too_few_pages_are_counted_without_those_of_others_and_everything_is_put_back() {
    let fake = FakeMachine::with_two_nodes();
    fake.has_pages(0, Gigabyte, 3, 0);
    fake.has_pages(0, TwoMegabytes, 100, 30);
    let kernel = FakeKernel::giving([(fake.count_file(0, TwoMegabytes), 130)]);

    let error = reserve(&fake, &kernel, &pool(&[(0, 1, 256)]), None).unwrap_err();

    assert!(
        matches!(
            error,
            ReserveError::Short(Shortage {
                node: 0,
                size: TwoMegabytes,
                wanted: 256,
                got: 100
            })
        ),
        "{error:?}"
    );
    assert_eq!(
        error.to_string(),
        "of 256 pages of 2 MiB on NUMA node 0 the kernel gave 100"
    );
    assert_eq!(fake.counts(), [[3, 100], [0, 0]]);
}

#[test]
fn a_kernel_that_cannot_make_large_pages_has_none_to_give() {
    let fake = FakeMachine::with_two_nodes();
    let kernel = FakeKernel::refusing(fake.count_file(0, Gigabyte), ErrorKind::InvalidInput);

    let error = reserve(&fake, &kernel, &pool(&[(0, 1, 0)]), None).unwrap_err();

    assert!(
        matches!(
            error,
            ReserveError::Short(Shortage {
                size: Gigabyte,
                wanted: 1,
                got: 0,
                ..
            })
        ),
        "{error:?}"
    );
}

#[test]
fn a_refused_write_is_named_and_everything_is_put_back() {
    let fake = FakeMachine::with_two_nodes();
    fake.has_pages(0, TwoMegabytes, 5, 0);
    let kernel = FakeKernel::refusing(fake.count_file(1, Gigabyte), ErrorKind::PermissionDenied);

    let error = reserve(&fake, &kernel, &pool(&[(0, 0, 9), (1, 1, 0)]), None).unwrap_err();

    assert!(
        error.to_string().starts_with("cannot write 1 to ")
            && error
                .to_string()
                .ends_with("node1/hugepages/hugepages-1048576kB/nr_hugepages"),
        "{error}"
    );
    assert_eq!(fake.counts(), [[0, 5], [0, 0]]);
}

/// The kernel takes pages back and will not give them again.
#[test]
fn counts_that_cannot_be_put_back_are_told_beside_the_cause() {
    let fake = FakeMachine::with_two_nodes();
    fake.has_pages(0, Gigabyte, 3, 0);
    let kernel = FakeKernel::giving([
        (fake.count_file(0, Gigabyte), 1),
        (fake.count_file(0, TwoMegabytes), 0),
    ]);

    let error = reserve(&fake, &kernel, &pool(&[(0, 0, 256)]), None)
        .unwrap_err()
        .to_string();

    assert!(
        error.contains("of 256 pages of 2 MiB on NUMA node 0 the kernel gave 0; and"),
        "{error}"
    );
    assert!(error.contains("has 1 instead of 3. Write 3 to it"), "{error}");
}

#[test]
fn surplus_pages_are_not_counted_as_asked_for() {
    let counts = Counts {
        total: 10,
        free: 2,
        surplus: 3,
        promised: 9,
    };
    assert_eq!((counts.held(), counts.asked_for()), (10, 7));
    assert_eq!(
        lowered(&counts, 0),
        7,
        "a count is never raised to give pages back"
    );
}
