//! Admission: may this enclave run, and with what?
//!
//! Two steps, so that the user sees progress between them and errors come in AWS's order:
//!
//! 1. [`check`] looks at the request, the image and the whole pools: E35, E20 to E22, E26, E19. It takes nothing.
//! 2. [`choose`] takes memory and picks CPUs, CID and name from what is free: E27, E29. It runs under the registry's
//!    lock, so that two requests never pick the same thing.

pub mod cids;
pub mod cpus;
pub mod hugepages;
pub mod memory;
pub mod names;
pub mod topology;

use std::fmt;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use api::{ErrorCode, Failure, RunEnclave};
use rustix::fs::{FileType, OFlags};

use crate::allocator::pool::{Pool, PoolError, PoolLock};
use crate::cpu_partition::{self, CpuPartitions};
use crate::foreign::ForeignDescriptor;
use crate::guest_memory;
use crate::ids::{EnclaveId, InstanceId};
use cpus::{CpuGrant, CpuPool};
use hugepages::Hugepages;
use memory::{GuestMemory, MemorySource};
use topology::TopologyError;

/// What the parent machine has to give.
pub struct Machine {
    /// Prefix of every enclave id.
    pub instance: InstanceId,
    /// The cores that enclaves may have, unless the allocator has set fewer apart.
    pub cpus: CpuPool,
    /// Where guest memory comes from.
    pub memory: Box<dyn MemorySource>,
    /// How CPUs become exclusive.
    pub partitions: CpuPartitions,
    /// The device of KVM.
    pub kvm: PathBuf,
    /// The vhost-vsock device, if it is there.
    pub vhost_vsock: PathBuf,
}

impl Machine {
    /// The machine this process runs on, for the daemon of this run directory.
    ///
    /// # Errors
    /// If the CPUs cannot be read from sysfs.
    pub fn this_one(run_directory: &Path) -> Result<Self, TopologyError> {
        let cores = topology::read_cores(Path::new(topology::SYSFS))?;
        let cpus = CpuPool::without_cpu_0(cores);
        guest_memory::warn_if_not_cleared();
        Ok(Self {
            instance: InstanceId::read(Path::new(crate::ids::BOARD_ASSET_TAG)),
            partitions: CpuPartitions::open(
                Path::new(cpu_partition::CGROUP_ROOT),
                run_directory,
                &cpus.cpus(),
            ),
            cpus,
            memory: Box::new(Hugepages::new(Path::new(hugepages::SYSFS))),
            kvm: PathBuf::from("/dev/kvm"),
            vhost_vsock: PathBuf::from("/dev/vhost-vsock"),
        })
    }
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Machine")
            .field("instance", &self.instance)
            .field("cpus", &self.cpus)
            .field("kvm", &self.kvm)
            .finish_non_exhaustive()
    }
}

/// An enclave image as a client passed it.
#[derive(Debug)]
pub struct Image {
    /// Opened for reading by the client, with the client's rights.
    pub file: ForeignDescriptor,
    /// Its size in bytes when it was admitted; the VMM measures what it reads.
    pub size: u64,
}

impl Image {
    /// Accepts a descriptor that is a regular file, open for reading.
    ///
    /// # Errors
    /// E35.
    pub fn accept(file: ForeignDescriptor) -> Result<Self, Failure> {
        let unreadable = |why: &str| Failure::new(ErrorCode::EifParsing, format!("The enclave image {why}."));
        let unusable = |error: rustix::io::Errno| {
            Failure::caused_by(ErrorCode::EifParsing, "The enclave image is unusable", &error)
        };
        let flags = rustix::fs::fcntl_getfl(&file).map_err(unusable)?;
        if flags.contains(OFlags::PATH) || flags & OFlags::RWMODE == OFlags::WRONLY {
            return Err(unreadable("is not open for reading"));
        }
        let metadata = rustix::fs::fstat(&file).map_err(unusable)?;
        if !FileType::from_raw_mode(metadata.st_mode).is_file() {
            return Err(unreadable("is not a regular file"));
        }
        Ok(Self {
            size: u64::try_from(metadata.st_size).unwrap_or_default(),
            file,
        })
    }
}

/// The CPUs that enclaves may have now.
#[derive(Debug)]
pub struct CurrentPool {
    /// What the allocator has set apart, or the default.
    pub cpus: CpuPool,
    /// Keeps the allocator from changing the pool.
    pub lock: PoolLock,
}

impl CurrentPool {
    /// Reads the pool that the allocator has left in `run_directory`; without one it is all of `cores`.
    ///
    /// # Errors
    /// E29 while the allocator is at work, E19 if the pool cannot be read.
    pub fn take(cores: &CpuPool, run_directory: &Path) -> Result<Self, Failure> {
        let refused = |error: PoolError| {
            let code = match error {
                PoolError::BeingChanged { .. } | PoolError::InUse { .. } => ErrorCode::IoctlFailure,
                _ => ErrorCode::FileOperation,
            };
            Failure::caused_by(code, "The pool of enclaves cannot be used", &error)
        };
        let lock = PoolLock::shared(run_directory).map_err(refused)?;
        let cpus = match Pool::read(run_directory).map_err(refused)? {
            Some(pool) => {
                cores.restricted_to(&pool.entries.iter().flat_map(|entry| entry.cpus.clone()).collect())
            }
            None => cores.clone(),
        };
        Ok(Self { cpus, lock })
    }
}

/// Checks a request against the image and the whole pools, and opens KVM.
///
/// # Errors
/// E03, E20, E21, E22, E26, E19, in this order.
pub fn check(
    request: &RunEnclave,
    image: &Image,
    machine: &Machine,
    pool: &CpuPool,
) -> Result<OwnedFd, Failure> {
    names::check(&request.enclave_name)?;
    pool.check(&request.cpus)?;
    memory::check_against_image(request.memory_mib, image.size)?;
    open_kvm(&machine.kvm)
}

fn open_kvm(path: &Path) -> Result<OwnedFd, Failure> {
    let open = File::options().read(true).write(true).open(path);
    open.map(OwnedFd::from).map_err(|error| {
        let remedy = match error.kind() {
            std::io::ErrorKind::NotFound => {
                "Turn on virtualisation in the firmware (or nested virtualisation in the cloud) and load kvm_amd or \
                 kvm_intel."
            }
            std::io::ErrorKind::PermissionDenied => "Run the daemon as root.",
            _ => "Look into the kernel's log (dmesg) for lines about kvm.",
        };
        let path = path.display();
        let message = format!("KVM is needed to run enclaves, but opening {path} failed: {error}. {remedy}");
        Failure::new(ErrorCode::FileOperation, message)
    })
}

/// What the enclaves that exist hold; the registry answers.
pub trait Holdings {
    /// The CPUs of all enclaves.
    fn cpus(&self) -> std::collections::BTreeSet<u32>;
    /// Whether an enclave has this CID.
    fn has_cid(&self, cid: u32) -> bool;
    /// Whether an enclave has this name.
    fn has_name(&self, name: &str) -> bool;
    /// Whether an enclave has this id.
    fn has_id(&self, id: &EnclaveId) -> bool;
}

/// What one enclave is given.
#[derive(Debug)]
pub struct Grant {
    /// Its id.
    pub id: EnclaveId,
    /// Its name.
    pub name: String,
    /// Its vsock address.
    pub cid: u32,
    /// Its CPUs.
    pub cpus: CpuGrant,
    /// Its memory, reserved.
    pub memory: Vec<GuestMemory>,
}

impl Grant {
    /// The memory's size in MiB.
    pub fn memory_mib(&self) -> u64 {
        let bytes: u64 = self.memory.iter().map(|memory| memory.layout.size).sum();
        bytes >> 20
    }
}

/// Takes memory and picks CPUs, CID, name and id for a request that passed [`check`].
///
/// # Errors
/// E27 or E29. Nothing stays taken then.
pub fn choose(
    request: &RunEnclave,
    machine: &Machine,
    pool: &CpuPool,
    held: &impl Holdings,
    cids: &mut cids::CidSequence,
) -> Result<Grant, Failure> {
    memory::check_least(request.memory_mib)?;
    let fits = |node| machine.memory.fits(request.memory_mib, node);
    // Memory lies where the CPUs are, so these are chosen first; but a lack of memory is told first, as on AWS.
    let cpus = pool.choose(&request.cpus, &held.cpus(), fits);
    let node = cpus.as_ref().ok().and_then(|cpus| cpus.node);
    let memory = machine.memory.allocate(request.memory_mib, node)?;
    let cpus = cpus?;
    let cid = cids.choose(request.enclave_cid, |cid| held.has_cid(cid))?;
    let mut id = EnclaveId::generate(&machine.instance);
    while held.has_id(&id) {
        id = id.following();
    }
    Ok(Grant {
        id,
        name: names::choose(&request.enclave_name, |name| held.has_name(name)),
        cid,
        cpus,
        memory,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::CpuSelection;
    use std::collections::BTreeSet;
    use std::os::unix::net::UnixStream;

    struct Nothing;

    impl Holdings for Nothing {
        fn cpus(&self) -> BTreeSet<u32> {
            BTreeSet::new()
        }
        fn has_cid(&self, _: u32) -> bool {
            false
        }
        fn has_name(&self, _: &str) -> bool {
            false
        }
        fn has_id(&self, _: &EnclaveId) -> bool {
            false
        }
    }

    struct NoMemory;

    impl MemorySource for NoMemory {
        fn allocate(&self, _: u64, _: Option<u32>) -> Result<Vec<GuestMemory>, Failure> {
            Err(Failure::new(ErrorCode::InsufficientMemoryAvailable, "none"))
        }
        fn pools(&self) -> Vec<api::PoolHugepages> {
            Vec::new()
        }

        fn fits(&self, _: u64, _: u32) -> bool {
            false
        }
    }

    fn machine(kvm: &str) -> Machine {
        let cores = [[0, 2], [1, 3]].map(|cpus| topology::Core {
            node: 0,
            cpus: cpus.to_vec(),
        });
        Machine {
            instance: InstanceId::read(Path::new("/nonexistent")),
            cpus: CpuPool::without_cpu_0(cores.to_vec()),
            memory: Box::new(NoMemory),
            partitions: CpuPartitions::none(),
            kvm: kvm.into(),
            vhost_vsock: "/nonexistent".into(),
        }
    }

    fn request(memory_mib: u64, count: u32) -> RunEnclave {
        RunEnclave {
            memory_mib,
            cpus: CpuSelection::Count(count),
            enclave_cid: None,
            enclave_name: "hello".into(),
            debug_mode: false,
            image_metadata: None,
            vsock: None,
        }
    }

    fn image(size: u64) -> Image {
        let file = tempfile::tempfile().unwrap();
        file.set_len(size).unwrap();
        Image::accept(OwnedFd::from(file).into()).unwrap()
    }

    #[test]
    fn errors_come_in_the_order_of_aws() {
        let image = image(100 << 20);
        let no_kvm = machine("/nonexistent/kvm");
        let check = |request: &RunEnclave| check(request, &image, &no_kvm, &no_kvm.cpus).unwrap_err().code;

        assert_eq!(check(&request(1, 3)), ErrorCode::InsufficientCpus);
        assert_eq!(check(&request(1, 2)), ErrorCode::InsufficientMemoryRequested);
        assert_eq!(check(&request(400, 2)), ErrorCode::FileOperation);
        let failure = choose(
            &request(400, 1),
            &no_kvm,
            &no_kvm.cpus,
            &Nothing,
            &mut cids::CidSequence::default(),
        )
        .unwrap_err();
        assert_eq!(failure.code, ErrorCode::InsufficientMemoryAvailable);
        let failure = choose(
            &request(63, 2),
            &no_kvm,
            &no_kvm.cpus,
            &Nothing,
            &mut cids::CidSequence::default(),
        )
        .unwrap_err();
        assert_eq!(failure.code, ErrorCode::IoctlFailure);
    }

    #[test]
    fn a_missing_kvm_is_named_with_its_remedy() {
        let machine = machine("/nonexistent/kvm");
        let failure = check(&request(64, 2), &image(1), &machine, &machine.cpus).unwrap_err();

        assert!(
            failure.message.contains("opening /nonexistent/kvm failed"),
            "{}",
            failure.message
        );
        assert!(failure.message.contains("kvm_amd"), "{}", failure.message);
    }

    #[test]
    fn only_a_regular_file_open_for_reading_is_an_image() {
        let (socket, _other) = UnixStream::pair().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let write_only = File::create(directory.path().join("image")).unwrap();
        let path_only = rustix::fs::open(directory.path(), OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
        let device = File::open("/dev/zero").unwrap();

        for descriptor in [socket.into(), write_only.into(), path_only, device.into()] {
            assert_eq!(
                Image::accept(OwnedFd::into(descriptor)).unwrap_err().code,
                ErrorCode::EifParsing
            );
        }
        assert_eq!(image(77).size, 77);
    }
}
