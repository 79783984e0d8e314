use super::super::testing::{FakeMachine, Gigabyte, TwoMegabytes};
use super::*;
use std::fs;

#[test]
fn cores_pages_and_memory_are_read_node_by_node() {
    let fake = FakeMachine::with_two_nodes();
    fake.has_pages(0, TwoMegabytes, 100, 30);
    fake.has_pages(1, Gigabyte, 2, 0);
    fake.promised(TwoMegabytes, 10);
    fake.has_free_memory(0, 50);

    let machine = Machine::read(&fake.sysfs()).unwrap();

    assert_eq!(machine.cores.len(), 4);
    assert!(machine.offline.is_empty());
    assert_eq!(machine.pages(0, TwoMegabytes).unwrap().held(), 40);
    // 60 pages that nobody holds, and 50 MiB that are free.
    assert_eq!(machine.nodes[&0].room.bytes, ((60 * 2) + 50) << 20);
    assert_eq!(machine.nodes[&1].room.bytes, (2 << 30) + (1 << 40));
    let cores: Vec<_> = machine.cores_for_enclaves(0).map(|core| &core.cpus).collect();
    assert_eq!(cores, [&[2, 3]]);
}

#[test]
fn a_machine_without_nodes_has_node_0() {
    let fake = FakeMachine::new(&[&[&[0], &[1], &[2]]]).without_nodes();

    let machine = Machine::read(&fake.sysfs()).unwrap();

    assert_eq!(machine.nodes.keys().collect::<Vec<_>>(), [&0]);
    assert_eq!(machine.pages(0, TwoMegabytes).unwrap().total, 0);
    assert_eq!(
        machine.nodes[&0].room,
        Room::default(),
        "nothing says how much there is"
    );
    assert_eq!(machine.cores_for_enclaves(0).count(), 2);
}

#[test]
fn a_core_is_whole_unless_a_cpu_is_offline_and_it_has_fewer_than_others() {
    let mixed = FakeMachine::new(&[&[&[0, 1], &[2, 3], &[4], &[5]]]);
    let usable = |fake: &FakeMachine| {
        let machine = Machine::read(&fake.sysfs()).unwrap();
        let cores = machine.cores_for_enclaves(0);
        cores.map(|core| core.cpus.clone()).collect::<Vec<_>>()
    };
    assert_eq!(usable(&mixed), [vec![2, 3], vec![4], vec![5]]);

    let halved = FakeMachine::with_two_nodes();
    halved.take_offline(3);
    assert!(usable(&halved).is_empty());

    let without_threads = FakeMachine::new(&[&[&[0, 1], &[2, 3]]]);
    without_threads.take_offline(1);
    without_threads.take_offline(3);
    assert_eq!(usable(&without_threads), [[2]]);
}

#[test]
fn a_size_that_the_kernel_lacks_gives_no_room() {
    let fake = FakeMachine::with_two_nodes();
    fake.lacks(Gigabyte);
    let room = Machine::read(&fake.sysfs()).unwrap().nodes[&0].room;
    assert_eq!((room.gigabyte_pages, room.has_small_pages), (0, true));

    fake.lacks(TwoMegabytes);
    let room = Machine::read(&fake.sysfs()).unwrap().nodes[&0].room;
    assert!(!room.has_small_pages);
}

#[test]
fn a_damaged_count_is_named() {
    let fake = FakeMachine::with_two_nodes();
    fs::write(fake.count_file(1, Gigabyte), "many\n").unwrap();

    let error = Machine::read(&fake.sysfs()).unwrap_err().to_string();

    let expected = "node1/hugepages/hugepages-1048576kB/nr_hugepages holds \"many\"";
    assert!(error.contains(expected), "{error}");
}

#[test]
fn this_machine_is_read() {
    let machine = Machine::read(&Sysfs::of_this_machine()).unwrap();
    assert!(machine.core_of(0).is_some());
    assert!(machine.nodes.contains_key(&0));
}
