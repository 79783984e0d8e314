use super::*;
use std::path::Path;

use api::CpuSelection;
use api::vmm::MemoryFile;

use crate::admission::cpus::CpuPool;
use crate::admission::memory::{GuestMemory, MemorySource};
use crate::admission::topology::Core;
use crate::ids::InstanceId;

/// The user that starts enclaves.
const OWNER: u32 = 1000;

fn client(user: u32) -> Peer {
    Peer {
        user,
        group: 900,
        process: None,
    }
}

/// Ordinary files as memory.
struct Files;

impl MemorySource for Files {
    fn pools(&self) -> Vec<api::PoolHugepages> {
        Vec::new()
    }

    fn fits(&self, _: u64, _: u32) -> bool {
        true
    }

    fn allocate(&self, mib: u64, node: Option<u32>) -> Result<Vec<GuestMemory>, Failure> {
        Ok(vec![GuestMemory {
            file: tempfile::tempfile().unwrap().into(),
            layout: MemoryFile {
                size: mib << 20,
                page_size: 2 << 20,
                node,
            },
        }])
    }
}

/// A machine with `cores` cores of two threads; core n has the CPUs 2n and 2n + 1.
fn machine(cores: u32) -> Machine {
    let cores = (0..cores).map(|core| Core {
        node: 0,
        cpus: vec![2 * core, 2 * core + 1],
    });
    Machine {
        instance: InstanceId::read(Path::new("/nonexistent")),
        cpus: CpuPool::without_cpu_0(cores.collect()),
        memory: Box::new(Files),
        partitions: crate::cpu_partition::CpuPartitions::none(),
        kvm: "/dev/null".into(),
        vhost_vsock: "/nonexistent".into(),
    }
}

fn request(cpus: u32) -> RunEnclave {
    RunEnclave {
        memory_mib: 64,
        cpus: CpuSelection::Count(cpus),
        enclave_cid: None,
        enclave_name: "name".into(),
        debug_mode: false,
        image_metadata: None,
        vsock: None,
    }
}

#[test]
fn a_dropped_lease_gives_back_cpus_cid_and_name() {
    let registry = Registry::default();
    let machine = machine(2);
    let wanted = RunEnclave {
        enclave_cid: Some(50),
        ..request(2)
    };

    let (lease, first) = registry
        .admit(&wanted, &machine, &machine.cpus, VsockBackend::Unix, OWNER)
        .unwrap();
    assert!(
        registry
            .admit(&request(2), &machine, &machine.cpus, VsockBackend::Unix, OWNER)
            .is_err()
    );
    drop(lease);
    let (_lease, second) = registry
        .admit(&wanted, &machine, &machine.cpus, VsockBackend::Unix, OWNER)
        .unwrap();

    assert_eq!(
        (first.name, first.cid, &first.cpus),
        (second.name, second.cid, &second.cpus)
    );
    assert_ne!(first.id, second.id);
}

#[test]
fn a_refused_request_takes_nothing() {
    let registry = Registry::default();
    let machine = machine(2);

    assert!(
        registry
            .admit(&request(1), &machine, &machine.cpus, VsockBackend::Unix, OWNER)
            .is_err()
    );

    let (_lease, grant) = registry
        .admit(&request(2), &machine, &machine.cpus, VsockBackend::Unix, OWNER)
        .unwrap();
    assert_eq!((grant.name.as_str(), grant.cid), ("name", 16));
}

#[test]
fn requests_from_many_threads_never_share_anything() {
    let registry = Registry::default();
    let machine = machine(33);
    let grants: Vec<(Lease, Grant)> = std::thread::scope(|scope| {
        let admit = || {
            registry
                .admit(&request(2), &machine, &machine.cpus, VsockBackend::Unix, OWNER)
                .unwrap()
        };
        let threads: Vec<_> = (0..32).map(|_| scope.spawn(admit)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });

    let cpus: BTreeSet<u32> = grants
        .iter()
        .flat_map(|(_, grant)| grant.cpus.cpu_ids.clone())
        .collect();
    let cids: BTreeSet<u32> = grants.iter().map(|(_, grant)| grant.cid).collect();
    let names: BTreeSet<&str> = grants.iter().map(|(_, grant)| grant.name.as_str()).collect();
    let ids: BTreeSet<String> = grants.iter().map(|(_, grant)| grant.id.to_string()).collect();
    assert_eq!((cpus.len(), cids.len(), names.len(), ids.len()), (64, 32, 32, 32));
    assert_eq!(
        registry
            .admit(&request(2), &machine, &machine.cpus, VsockBackend::Unix, OWNER)
            .unwrap_err()
            .code,
        ErrorCode::IoctlFailure
    );
}

#[test]
fn booting_enclaves_are_not_seen_and_cannot_be_named_but_shut_down_with_the_rest() {
    let registry = Registry::default();
    let machine = machine(3);
    let (booting, _) = registry
        .admit(&request(2), &machine, &machine.cpus, VsockBackend::Unix, OWNER)
        .unwrap();

    assert_eq!(registry.describe(), []);
    assert!(
        registry
            .terminate(&Selector::All, client(OWNER))
            .unwrap()
            .endings
            .is_empty()
    );
    let by_name = Selector::Name("name".into());
    assert_eq!(
        registry.terminate(&by_name, client(OWNER)).unwrap_err().code,
        ErrorCode::EnclaveNaming
    );
    assert_eq!(*booting.end_requests().borrow(), None);

    assert_eq!(registry.shut_down(true).len(), 1);
    assert_eq!(*booting.end_requests().borrow(), Some(EndRequest::Shutdown));
    let late = registry
        .admit(&request(2), &machine, &machine.cpus, VsockBackend::Unix, OWNER)
        .unwrap_err();
    assert_eq!(late.code, ErrorCode::ProcessConnectionFailure);
}

#[tokio::test]
async fn an_ending_is_over_when_the_lease_is_dropped_for_everyone_who_waits() {
    let registry = Registry::default();
    let (lease, grant) = registry
        .admit(
            &request(2),
            &machine(2),
            &machine(2).cpus,
            VsockBackend::Unix,
            OWNER,
        )
        .unwrap();
    lease.set_process(7);
    lease.set_measurements(Measurements {
        hash_algorithm: Measurements::HASH_ALGORITHM.into(),
        pcr0: "0".into(),
        pcr1: "1".into(),
        pcr2: "2".into(),
        pcr8: None,
    });
    lease.set_running().unwrap();
    let by_id = Selector::Id(grant.id.to_string());

    let mut first = registry
        .terminate(&by_id, client(OWNER))
        .unwrap()
        .endings
        .remove(0);
    let mut second = registry
        .terminate(&by_id, client(OWNER))
        .unwrap()
        .endings
        .remove(0);

    assert_eq!(registry.describe()[0].state, EnclaveState::Terminating);
    assert_eq!(*lease.end_requests().borrow(), Some(EndRequest::Terminate));
    tokio::select! {
        biased;
        () = first.gone() => panic!("the enclave still holds everything"),
        () = tokio::task::yield_now() => {}
    }
    drop(lease);
    first.gone().await;
    second.gone().await;
    assert_eq!(registry.describe(), []);
}

#[test]
fn a_client_ends_its_own_enclaves_and_root_ends_all() {
    let registry = Registry::default();
    let machine = machine(4);
    let admit = |owner| {
        let admitted = registry.admit(&request(2), &machine, &machine.cpus, VsockBackend::Unix, owner);
        let (lease, grant) = admitted.unwrap();
        lease.set_running();
        (lease, grant.id.to_string())
    };
    let (_first, own) = admit(OWNER);
    let (_second, other) = admit(OWNER + 1);
    let ids = |all: Terminating| {
        let ended = all.endings.into_iter().map(|ending| ending.termination);
        let told = ended.chain(all.refused);
        told.map(|one| (one.enclave_id, one.terminated))
            .collect::<Vec<_>>()
    };

    let failure = registry
        .terminate(&Selector::Id(other.clone()), client(OWNER))
        .unwrap_err();
    let all = registry.terminate(&Selector::All, client(OWNER)).unwrap();
    let by_root = registry.terminate(&Selector::All, client(0)).unwrap();

    assert_eq!(failure.code, ErrorCode::ProcessConnectionFailure);
    assert_eq!(ids(all), [(own.clone(), true), (other.clone(), false)]);
    assert_eq!(ids(by_root), [(own, true), (other, true)]);
}
