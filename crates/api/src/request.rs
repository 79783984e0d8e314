//! Requests of a client and replies of the daemon.

use serde::{Deserialize, Serialize};

use crate::vmm::VsockBackend;
use crate::{
    EnclaveDescription, EnclaveEvent, EnclaveRunInfo, EnclaveTermination, EndedEnclave, Failure, Pools,
    RunningImage,
};

/// What a client asks of the daemon, one per connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    tag = "request",
    content = "arguments",
    rename_all = "snake_case",
    deny_unknown_fields
)]
pub enum Request {
    /// Carve out CPUs and memory and boot the EIF whose descriptor comes with this message.
    RunEnclave(RunEnclave),
    /// List the running enclaves.
    DescribeEnclaves,
    /// List the running enclaves, each with what its image says of itself.
    DescribeImages,
    /// List the enclaves that have ended lately, oldest first.
    EndedEnclaves,
    /// Say what enclaves may have, and who holds it.
    DescribePools,
    /// End enclaves and give back what they held.
    TerminateEnclave(Selector),
    /// Stream the console of one debug-mode enclave: first its kept history, then what follows.
    Console(Selector),
    /// Give the console of one debug-mode enclave that runs, or that has ended lately.
    Logs(Logs),
    /// Wait for the end of one enclave, and say how it was. One that has ended lately is told at once.
    AwaitEnd(Selector),
    /// Tell what becomes of enclaves: first those that run, then every change.
    Events,
    /// Give the certificate that verifiers of attestation documents pin.
    AttestationRoot,
}

/// Whose console is wanted, and how much of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Logs {
    /// Of several that have ended with the same name, the last is meant; one that runs comes before all of them.
    pub enclave: Selector,
    /// What is still to come, too, until the enclave ends.
    pub follow: bool,
}

/// Which enclaves a request is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Selector {
    /// The enclave with this id. Only the part after the last `-enc` counts, as with AWS's nitro-cli.
    Id(String),
    /// The one enclave with this name.
    Name(String),
    /// Every enclave. Not valid for a console.
    All,
}

/// The parameters of `run-enclave`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunEnclave {
    /// Memory to give to the enclave, in MiB. The daemon rounds it up to whole hugepages.
    pub memory_mib: u64,
    /// How many or which CPUs.
    pub cpus: CpuSelection,
    /// The vsock CID to use; `None` lets the daemon choose.
    pub enclave_cid: Option<u32>,
    /// The wanted name; the daemon appends `_1`, `_2`, … if it is taken.
    pub enclave_name: String,
    /// Whether the console can be watched. A debug-mode enclave attests with zero PCRs.
    pub debug_mode: bool,
    /// What the image says of itself: the text of its metadata, JSON of at most [`MAX_IMAGE_METADATA`] bytes. It is not
    /// measured, so the client's word for it is as good as any; the daemon keeps it and does not look into it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_metadata: Option<String>,
    /// What is to carry its vsock; `None` leaves it to the daemon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vsock: Option<VsockBackend>,
}

/// The longest [`RunEnclave::image_metadata`], in bytes: room for what container engines say of an image. Twice as many, as
/// JSON may write them, leave room in a request.
pub const MAX_IMAGE_METADATA: usize = 64 << 10;

/// How many or which CPUs an enclave gets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CpuSelection {
    /// This many, chosen by the daemon as whole cores.
    Count(u32),
    /// Exactly these, by the parent's CPU number, in the order of the enclave's vCPUs.
    Ids(Vec<u32>),
}

/// What the daemon answers. `Progress` may come before the one final message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", content = "value", rename_all = "snake_case")]
pub enum Reply {
    /// A line for the user, to be shown on standard error.
    Progress(String),
    /// Final answer to [`Request::RunEnclave`]: the enclave has sent its heartbeat.
    EnclaveStarted(EnclaveRunInfo),
    /// Final answer to [`Request::DescribeEnclaves`], ordered by creation.
    Enclaves(Vec<EnclaveDescription>),
    /// Final answer to [`Request::DescribeImages`], ordered by creation.
    RunningImages(Vec<RunningImage>),
    /// Final answer to [`Request::EndedEnclaves`].
    Ended(Vec<EndedEnclave>),
    /// Final answer to [`Request::DescribePools`].
    Pools(Pools),
    /// Final answer to [`Request::TerminateEnclave`]: these are gone and their resources are free. Of all enclaves, those that the
    /// client may not end are there as well, as not terminated.
    Terminated(Vec<EnclaveTermination>),
    /// Too many clients want this at the moment: the same request may be answered later.
    Busy(Failure),
    /// Final answer to [`Request::AwaitEnd`]: the enclave is gone, and what it held is free. The daemon gives no answer, but closes
    /// the connection, if it leaves before the enclave ends; the next one can be asked again.
    EnclaveEnded(EndedEnclave),
    /// Answer to [`Request::Events`], again and again until either side closes the connection.
    Event(EnclaveEvent),
    /// In place of so many events, which came faster than the client took them.
    EventsLost(u64),
    /// Answer to [`Request::Console`] and [`Request::Logs`]: raw console bytes follow on this connection.
    ConsoleAttached {
        /// The watched enclave's CID.
        enclave_cid: u32,
    },
    /// Final answer to [`Request::AttestationRoot`]: PEM.
    AttestationRoot(String),
    /// Final answer to any request that failed.
    Error(Failure),
}
