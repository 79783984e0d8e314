//! From a grant to everything a launch needs: directory, sockets, console pipe, specification.

use std::os::fd::OwnedFd;
use std::time::Duration;

use api::vmm::{LaunchSpec, VsockBackend};
use api::{ErrorCode, Failure};

use crate::admission::{Grant, Image};
use crate::allocator::pool::PoolLock;
use crate::application_end::ApplicationEndListener;
use crate::console::Console;
use crate::cpu_partition::{CpuPartitions, Partition, PartitionError};
use crate::guest_memory::HeldMemory;
use crate::heartbeat::{self, Heartbeat};
use crate::ids::EnclaveId;
use crate::launcher::{Descriptors, Launch};
use crate::own_port::{ListenError, Way};
use crate::parent_vsock::ParentVsock;
use crate::port_listeners::PortListeners;
use crate::registry::Lease;
use crate::run_directory::{EnclaveDirectory, RunDirectory, RunDirectoryError};
use crate::vmm_log;
use crate::vmm_user::{VmmUser, VmmUsers};
use crate::vsock_carrier::VsockCarrier;

/// An admitted enclave, ready to be launched. Dropping it gives everything back.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// The registry's record of it.
    pub(crate) lease: Lease,
    /// What the launcher needs.
    pub(crate) launch: Launch,
    /// Where it will announce that it has booted.
    pub(crate) heartbeat: Heartbeat,
    /// Where it will say how its application ended.
    pub(crate) application_end: ApplicationEndListener,
    /// Its console, in debug mode.
    pub(crate) console: Option<Console>,
    /// What gives the VMM the parent's listeners, if it has a user of its own.
    pub(crate) port_listeners: Option<PortListeners>,
    /// Its memory, to be cleared at its end.
    pub(crate) memory: HeldMemory,
    /// How long it may take to boot.
    pub(crate) time_limit: Duration,
    /// Keeps the pool as it is until the enclave's VMM is noted down.
    pub(crate) pool_lock: PoolLock,
}

/// What a client and the daemon decide about one enclave beyond its grant.
#[derive(Debug)]
pub(crate) struct Order {
    /// The image to boot.
    pub(crate) image: Image,
    /// `/dev/kvm`, open.
    pub(crate) kvm: OwnedFd,
    /// What the image says of itself, if it does.
    pub(crate) image_metadata: Option<String>,
    /// Whether its console can be watched.
    pub(crate) debug_mode: bool,
    /// How long it may take to boot; `None` for AWS's limit.
    pub(crate) time_limit: Option<Duration>,
    /// Among them is the VMM's user.
    pub(crate) users: VmmUsers,
    /// What carries its vsock.
    pub(crate) vsock: VsockCarrier,
    /// Where it calls if that is the kernel.
    pub(crate) parent_vsock: ParentVsock,
    /// Keeps the pool as it is.
    pub(crate) pool_lock: PoolLock,
}

/// Makes the directory, sockets and console of an admitted enclave. Must be called on a Tokio runtime.
///
/// # Errors
/// E19 if something cannot be made, E29 if the CPUs cannot be isolated although others could. Nothing stays then.
pub(crate) fn prepare(
    lease: Lease,
    grant: Grant,
    order: Order,
    run_directory: &RunDirectory,
    partitions: &CpuPartitions,
) -> Result<Prepared, Failure> {
    let time_limit = order
        .time_limit
        .unwrap_or_else(|| heartbeat::time_limit(order.image.size, grant.memory_mib() << 20));
    let user = order.users.of(&grant.cpus.cpu_ids);
    let directory = directory(run_directory, &grant.id, user, order.image_metadata.as_deref())
        .map_err(|error| cannot_make(&error))?;
    let vsock = order.vsock.backend();
    let way = match vsock {
        VsockBackend::Unix => Way::Directory(&directory),
        VsockBackend::Kernel => Way::Kernel(&order.parent_vsock, grant.cid),
    };
    let sockets = Sockets::make(&directory, way, order.vsock)?;
    let port_listeners = user.map(|user| watch_ports(&directory, user)).transpose()?;
    let outcome = directory.create_outcome().map_err(|error| cannot_make(&error))?;
    let log = vmm_log::start(&directory, grant.id.to_string()).map_err(|error| cannot_make(&error))?;
    let (console, console_pipe) = if order.debug_mode {
        let (console, pipe) = Console::create(&directory).map_err(|error| {
            Failure::caused_by(ErrorCode::FileOperation, "No pipe for the console", &error)
        })?;
        (Some(console), Some(pipe))
    } else {
        (None, None)
    };
    let isolated = Isolated::cpus(&grant, &directory, partitions).map_err(|error| {
        let context = "The enclave's CPUs cannot be made exclusive";
        Failure::caused_by(ErrorCode::IoctlFailure, context, &error)
    })?;
    let memory = HeldMemory::of(&grant.memory).map_err(|error| {
        Failure::caused_by(
            ErrorCode::FileOperation,
            "The enclave's memory cannot be held",
            &error,
        )
    })?;
    let (memory_files, layouts) = grant
        .memory
        .into_iter()
        .map(|memory| (memory.file, memory.layout))
        .unzip();
    let launch = Launch {
        spec: LaunchSpec {
            enclave_id: grant.id.to_string(),
            guest_cid: grant.cid,
            cpu_ids: grant.cpus.cpu_ids,
            threads_per_core: grant.cpus.threads_per_core,
            memory: layouts,
            vsock,
            debug_mode: order.debug_mode,
            isolated: isolated.thread_list.is_some(),
        },
        descriptors: Descriptors {
            kvm: order.kvm,
            eif: order.image.file,
            vsock: sockets.vsock,
            nsm: sockets.nsm,
            outcome,
            log,
            memory: memory_files,
            console: console_pipe,
            vcpu_group: isolated.thread_list,
        },
        directory: directory.path().to_owned(),
        user,
        process_list: isolated.process_list,
    };
    lease.attach(directory, isolated.partition, console.clone());
    Ok(Prepared {
        lease,
        launch,
        heartbeat: sockets.heartbeat,
        application_end: sockets.application_end,
        console,
        port_listeners,
        memory,
        time_limit,
        pool_lock: order.pool_lock,
    })
}

/// What is listened on in an enclave's directory.
struct Sockets {
    heartbeat: Heartbeat,
    application_end: ApplicationEndListener,
    vsock: OwnedFd,
    nsm: OwnedFd,
}

impl Sockets {
    fn make(directory: &EnclaveDirectory, way: Way<'_>, carrier: VsockCarrier) -> Result<Self, Failure> {
        let cannot_make = |error: RunDirectoryError| cannot_make(&error);
        Ok(Self {
            heartbeat: Heartbeat::listen(way).map_err(|error| cannot_listen(&error))?,
            application_end: ApplicationEndListener::listen(way).map_err(|error| cannot_listen(&error))?,
            vsock: match carrier {
                VsockCarrier::Unix => directory.bind_vsock().map_err(cannot_make)?.into(),
                VsockCarrier::Kernel(device) => device,
            },
            nsm: directory.bind_nsm().map_err(cannot_make)?,
        })
    }
}

/// On AWS too, an enclave whose heartbeat cannot be listened for does not boot.
fn cannot_listen(error: &ListenError) -> Failure {
    let context = "The enclave's heartbeat cannot be heard";
    Failure::caused_by(ErrorCode::EnclaveBootFailure, context, error)
}

/// CPUs that nothing else runs on, where the machine can do that.
struct Isolated {
    partition: Option<Partition>,
    process_list: Option<OwnedFd>,
    thread_list: Option<OwnedFd>,
}

impl Isolated {
    fn cpus(
        grant: &Grant,
        directory: &EnclaveDirectory,
        partitions: &CpuPartitions,
    ) -> Result<Self, PartitionError> {
        let partition = partitions.isolate(&grant.id, &grant.cpus.cpu_ids, directory.path())?;
        let process_list = partition.as_ref().map(Partition::process_list).transpose()?;
        let thread_list = partition.as_ref().map(Partition::thread_list).transpose()?;
        Ok(Self {
            partition,
            process_list,
            thread_list,
        })
    }
}

fn watch_ports(directory: &EnclaveDirectory, user: VmmUser) -> Result<PortListeners, Failure> {
    PortListeners::watch(directory, user).map_err(|error| {
        let context = "The VMM cannot be given the listeners of the parent";
        Failure::caused_by(ErrorCode::FileOperation, context, &error)
    })
}

/// A new directory, with what the image says of itself.
fn directory(
    run_directory: &RunDirectory,
    id: &EnclaveId,
    user: Option<VmmUser>,
    image_metadata: Option<&str>,
) -> Result<EnclaveDirectory, RunDirectoryError> {
    let directory = run_directory.create_enclave(id, user)?;
    if let Some(text) = image_metadata {
        directory.write_image_metadata(text)?;
    }
    Ok(directory)
}

fn cannot_make(error: &RunDirectoryError) -> Failure {
    let context = "The enclave's sockets cannot be made";
    Failure::caused_by(ErrorCode::FileOperation, context, error)
}
