//! The seam between the supervisor and the process that runs a guest.
//!
//! A [`Launcher`] turns a specification and descriptors into a running [`Instance`]: a stream of events, a way to kill
//! it and a way to wait for its end. [`crate::vmm_process`] is the real one; tests script their own, so that the
//! supervisor is tested without KVM.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use api::Failure;
use api::vmm::{Event, LaunchSpec};

use crate::foreign::ForeignDescriptor;
use crate::process_identity::ProcessIdentity;
use crate::vmm_user::VmmUser;

/// Everything one launch needs.
#[derive(Debug)]
pub struct Launch {
    /// What the VMM is told.
    pub spec: LaunchSpec,
    /// What it is given. The launcher closes its copies.
    pub descriptors: Descriptors,
    /// The enclave's part of the run directory, in which the VMM is to stay.
    pub directory: PathBuf,
    /// The user that the VMM is to be; `None` for the daemon's own.
    pub user: Option<VmmUser>,
    /// The list of processes of the control group that the VMM belongs to, open for writing, if the machine has one.
    pub process_list: Option<OwnedFd>,
}

/// The descriptors of [`LaunchSpec`], by name.
#[derive(Debug)]
pub struct Descriptors {
    /// `/dev/kvm`.
    pub kvm: OwnedFd,
    /// The enclave image.
    pub eif: ForeignDescriptor,
    /// The listening socket behind `vsock.sock`, or `/dev/vhost-vsock`.
    pub vsock: OwnedFd,
    /// The listening socket to which the daemon connects for the NSM.
    pub nsm: OwnedFd,
    /// The file for the VMM's last event.
    pub outcome: OwnedFd,
    /// What becomes the VMM's standard error.
    pub log: OwnedFd,
    /// One memory file per element of [`LaunchSpec::memory`].
    pub memory: Vec<OwnedFd>,
    /// The console pipe, in debug mode.
    pub console: Option<OwnedFd>,
    /// The list of threads of the control group that has the enclave's CPUs, if they are isolated.
    pub vcpu_group: Option<OwnedFd>,
}

impl Descriptors {
    /// The order in which [`LaunchSpec`] documents them. The log is not among them.
    pub fn in_order(&self) -> Vec<BorrowedFd<'_>> {
        let fixed = [
            self.kvm.as_fd(),
            self.eif.as_fd(),
            self.vsock.as_fd(),
            self.nsm.as_fd(),
            self.outcome.as_fd(),
        ];
        let memory = self.memory.iter().map(AsFd::as_fd);
        let console = self.console.iter().map(AsFd::as_fd);
        let vcpu_group = self.vcpu_group.iter().map(AsFd::as_fd);
        fixed
            .into_iter()
            .chain(memory)
            .chain(console)
            .chain(vcpu_group)
            .collect()
    }
}

/// Starts instances.
pub trait Launcher: Send + Sync + 'static {
    /// What it starts.
    type Instance: Instance;

    /// Starts one instance and tells it its specification.
    ///
    /// # Errors
    /// E04, E05 or E11: no socket pair, no process, or it does not take its specification.
    fn launch(&self, launch: Launch) -> Result<Self::Instance, Failure>;

    /// Takes over an instance that an earlier daemon has launched, whose enclave has booted and has this `directory`. If it
    /// does not `live` any more, its last event is all that comes from it.
    ///
    /// # Errors
    /// If it cannot be watched.
    fn take_over(&self, vmm: &ProcessIdentity, directory: &Path, lives: bool) -> io::Result<Self::Instance>;
}

/// One running VMM. Dropping it kills the process, without waiting.
pub trait Instance: Send + 'static {
    /// The process on the parent.
    fn identity(&self) -> &ProcessIdentity;

    /// The next thing the VMM says. May be dropped half-way and called again without losing an event.
    fn next_event(&mut self) -> impl Future<Output = Said> + Send;

    /// Tells a VMM that waits with a signed image that the signature holds.
    fn accept(&mut self);

    /// Tells the VMM that its enclave has booted and goes on when the daemon goes.
    fn outlive(&mut self);

    /// Ends the process at once. Harmless if it has ended.
    fn kill(&mut self);

    /// Lets go of the process, which goes on.
    fn leave(self);

    /// Returns when the process is gone and reaped: the kernel has freed what it held. May be called again.
    fn wait(&mut self) -> impl Future<Output = ProcessEnd> + Send;
}

/// What came from a VMM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// An event.
    Event(Event),
    /// Something that is no event; the text says what. The VMM is not to be trusted any further.
    Nonsense(String),
    /// The VMM has closed its end: it is ending or dead.
    Closed,
}

/// How a process ended, in words such as `signal: 9 (SIGKILL)` or `exit status: 1`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessEnd(pub String);

impl fmt::Display for ProcessEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
