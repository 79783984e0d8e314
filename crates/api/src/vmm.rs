//! The conversation of the daemon and one VMM process, over the socket pair that is the VMM's standard input.
//!
//! ```text
//! daemon                                   VMM
//!   LaunchSpec + descriptors  ───────────►
//!                             ◄───────────  Signed        only of a signed image: its certificate and signature
//!                             ◄───────────  Measured      every byte is in guest memory and in the hashes
//!   Accept                    ───────────►                only of a signed image: the signature is good
//!                             ◄───────────  Started       vCPUs are about to run for the first time
//!   Outlive                   ───────────►                the enclave has booted: the daemon may go from here on
//!                             ◄───────────  Exited        the last message; then the process ends
//!                             ◄───────────  Failed        instead of any of these; the process ends
//! ```
//!
//! A VMM does not verify signatures; it waits with a signed image until the daemon has. What it sends was read in the same
//! pass as everything else, so what is checked is what runs, whatever happens to the file.
//!
//! The daemon ends an enclave by killing the process: a VMM holds nothing that needs an orderly end.
//! A VMM that disappears without `Exited` or `Failed` was killed or crashed.
//!
//! Until it is told to outlive the daemon, a VMM ends when the daemon's end of the socket closes: an enclave that boots
//! belongs to a client, and both go with the daemon. Afterwards there may be no daemon when the guest ends, so the VMM
//! writes its last event to the *outcome* file as well, where the next daemon finds it.

use serde::{Deserialize, Serialize};

use crate::{Failure, Measurements};

/// The longest message of this conversation, in bytes. That is [`Event::Signed`]: a signature section has at most 32 KiB, and
/// JSON has at most three digits and a comma for a byte that takes one or two there.
pub const MAX_MESSAGE: usize = 128 * 1024;

/// Everything a VMM is told, beside its arguments, which say who it is to be ([`crate::sandbox`]), and its working directory, in
/// which `vsock.sock_<port>` listeners are found.
///
/// Its descriptors come with the same message, in this order: `/dev/kvm`; the EIF; the listening socket behind `vsock.sock`, or
/// `/dev/vhost-vsock` with [`VsockBackend::Kernel`]; the one to which the daemon connects for the NSM ([`crate::nsm`]); the outcome
/// file, empty and open for writing; one memfd per element of `memory`; in debug mode the console pipe, open in a way that writing to
/// it neither blocks nor fails while nobody reads; and with `isolated` the `cgroup.threads` file of the control group that has the
/// enclave's CPUs, open for writing. None is of a directory, which would lead out of the VMM's root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LaunchSpec {
    /// For messages only.
    pub enclave_id: String,
    /// The guest's vsock address.
    pub guest_cid: u32,
    /// The parent's CPU for each vCPU; vCPU threads are pinned one to one.
    pub cpu_ids: Vec<u32>,
    /// Hardware threads per core that the guest is told of: `cpu_ids` holds whole cores, siblings side by side.
    pub threads_per_core: u8,
    /// The memory files, in guest-physical order.
    pub memory: Vec<MemoryFile>,
    /// What carries the guest's vsock.
    pub vsock: VsockBackend,
    /// Whether a console descriptor is present.
    pub debug_mode: bool,
    /// Whether the CPUs belong to a control group that vCPU threads must move to, by writing `0` to its list of threads.
    pub isolated: bool,
}

/// What carries an enclave's vsock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VsockBackend {
    /// Unix sockets in the enclave's directory.
    #[default]
    Unix,
    /// The parent's own kernel, with vhost-vsock: programs on the parent use `AF_VSOCK`.
    Kernel,
}

/// One hugetlb memfd that backs guest memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemoryFile {
    /// Bytes, a multiple of `page_size`.
    pub size: u64,
    /// Bytes per hugepage: 2 MiB or 1 GiB.
    pub page_size: u64,
    /// The NUMA node from which the VMM takes all pages at once, before it loads the image; on a parent with one node, none,
    /// and each page is taken when it is first touched.
    pub node: Option<u32>,
}

/// What the daemon tells a VMM after the launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "instruction", rename_all = "snake_case")]
pub enum Instruction {
    /// The signature of the image is good: the guest may start. Comes once, after `Signed` and `Measured`.
    Accept,
    /// The enclave has booted; it goes on when the daemon goes.
    Outlive,
}

/// What a VMM tells the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", content = "value", rename_all = "snake_case")]
pub enum Event {
    /// The EIF is signed, and this is how. Comes before `Measured`, with a PCR8; the guest does not start before `Accept`.
    Signed(ImageSignature),
    /// The EIF is loaded; these are the measurements of exactly the bytes that are in guest memory.
    Measured(Measurements),
    /// The vCPU threads exist and enter the guest now.
    Started,
    /// The guest has ended.
    Exited(ExitReason),
    /// The enclave could not be started, or the VMM met an error it cannot go on from.
    Failed(Failure),
}

/// Who signed an image, and the signature; neither is checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageSignature {
    /// The certificate that PCR8 measures, in DER form.
    pub certificate: Vec<u8>,
    /// A `COSE_Sign1` structure over PCR0.
    pub cose_sign1: Vec<u8>,
}

/// How a guest ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitReason {
    /// The guest asked for a reset through the keyboard controller (`reboot=k`): its application ended, or its
    /// kernel panicked and waited out `panic=`.
    Reset,
    /// A vCPU met a triple fault.
    TripleFault,
    /// Every vCPU halted with interrupts off: nothing can wake the guest.
    Halted,
    /// KVM could not go on with a vCPU; the text names the KVM exit.
    Crashed(String),
    /// The daemon has closed its end of the socket. Nobody is left to be told but the VMM's log.
    Abandoned,
}

impl std::fmt::Display for ExitReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Reset => {
                f.write_str("the guest reset itself (its application ended or its kernel panicked)")
            }
            Self::TripleFault => f.write_str("triple fault"),
            Self::Halted => f.write_str("every vCPU halted with interrupts off"),
            Self::Crashed(what) => write!(f, "KVM cannot run the guest: {what}"),
            Self::Abandoned => f.write_str("the daemon is gone"),
        }
    }
}
