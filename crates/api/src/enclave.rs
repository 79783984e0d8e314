//! What is said of one enclave. The field names and their order are those of AWS's nitro-cli JSON.

use serde::{Deserialize, Serialize};

use crate::vmm::VsockBackend;

/// What `run-enclave` prints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnclaveRunInfo {
    /// Unique among running enclaves.
    #[serde(rename = "EnclaveName")]
    pub enclave_name: String,
    /// `<instance id>-enc<slot in hexadecimal>`.
    #[serde(rename = "EnclaveID")]
    pub enclave_id: String,
    /// The enclave's VMM process on the parent.
    #[serde(rename = "ProcessID")]
    pub process_id: u32,
    /// The enclave's vsock address.
    #[serde(rename = "EnclaveCID")]
    pub enclave_cid: u64,
    /// Length of `cpu_ids`.
    #[serde(rename = "NumberOfCPUs")]
    pub number_of_cpus: u64,
    /// The parent's CPUs that run the enclave's vCPUs, in vCPU order.
    #[serde(rename = "CPUIDs")]
    pub cpu_ids: Vec<u32>,
    /// Memory taken from the parent, in MiB; at least what was asked for.
    #[serde(rename = "MemoryMiB")]
    pub memory_mib: u64,
}

/// One element of what `describe-enclaves` prints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnclaveDescription {
    /// What `run-enclave` printed.
    #[serde(flatten)]
    pub run: EnclaveRunInfo,
    /// Where the enclave is in its life.
    #[serde(rename = "State")]
    pub state: EnclaveState,
    /// How it was started.
    #[serde(rename = "Flags")]
    pub flags: EnclaveFlags,
    /// Of the bytes that were loaded; AWS prints them in debug mode too, although attestation then has zeros.
    #[serde(rename = "Measurements")]
    pub measurements: Measurements,
    /// What carries its vsock. AWS has no such key, so what is printed as JSON goes without.
    #[serde(rename = "Vsock", default, skip_serializing_if = "Option::is_none")]
    pub vsock: Option<VsockBackend>,
}

/// A running enclave and what its image says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunningImage {
    /// The enclave.
    pub enclave: EnclaveDescription,
    /// As [`RunEnclave::image_metadata`](crate::RunEnclave::image_metadata).
    pub metadata: Option<String>,
}

/// The states that AWS's nitro-cli knows; scripts know no other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum EnclaveState {
    /// Admitted, not yet booted: no heartbeat so far.
    Empty,
    /// The enclave's init has sent its heartbeat.
    Running,
    /// Being ended.
    Terminating,
}

/// How an enclave was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum EnclaveFlags {
    /// Production: no console, true PCRs.
    None,
    /// The console can be watched.
    DebugMode,
}

/// How the application of an enclave ended, as its init says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ApplicationEnd {
    /// It exited with this code.
    Exited(u8),
    /// This signal killed it.
    Killed(u8),
}

impl ApplicationEnd {
    /// As a shell reports it: the exit code, or 128 and the signal's number.
    pub fn exit_code(self) -> u16 {
        match self {
            Self::Exited(code) => code.into(),
            Self::Killed(signal) => 128 + u16::from(signal),
        }
    }
}

impl std::fmt::Display for ApplicationEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "its application ended with exit code {code}"),
            Self::Killed(signal) => write!(f, "its application was killed by signal {signal}"),
        }
    }
}

/// An enclave that is gone, or that did not boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndedEnclave {
    /// What `run-enclave` printed, or would have.
    #[serde(flatten)]
    pub run: EnclaveRunInfo,
    /// How it was started.
    #[serde(rename = "Flags")]
    pub flags: EnclaveFlags,
    /// Why it ended, as the end of a sentence.
    #[serde(rename = "Reason")]
    pub reason: String,
    /// How its application ended, if its init said so: as [`ApplicationEnd::exit_code`].
    #[serde(rename = "ExitCode")]
    pub exit_code: Option<u16>,
    /// When it was admitted, in milliseconds since 1970.
    #[serde(rename = "StartedAt")]
    pub started_at: u64,
    /// When it ended, in milliseconds since 1970.
    #[serde(rename = "EndedAt")]
    pub ended_at: u64,
    /// The last lines of its console, in debug mode.
    #[serde(rename = "Console")]
    pub console: Vec<String>,
}

/// Something that became of an enclave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnclaveEvent {
    /// When, in milliseconds since 1970.
    #[serde(rename = "Time")]
    pub time: u64,
    /// What.
    #[serde(rename = "Event")]
    pub kind: EventKind,
    /// Of which enclave.
    #[serde(rename = "EnclaveName")]
    pub enclave_name: String,
    /// As `run-enclave` prints it.
    #[serde(rename = "EnclaveID")]
    pub enclave_id: String,
    /// Its vsock address.
    #[serde(rename = "EnclaveCID")]
    pub enclave_cid: u32,
    /// Of an enclave that has ended, why, as the end of a sentence.
    #[serde(rename = "Reason", default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Of an enclave that has ended, its application's end, as [`EndedEnclave::exit_code`].
    #[serde(rename = "ExitCode", default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<u16>,
}

/// What became of an enclave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum EventKind {
    /// It ran when the client began to listen.
    Present,
    /// It was admitted, and boots.
    Starting,
    /// It has sent its heartbeat.
    Running,
    /// Somebody has asked for its end.
    Terminating,
    /// It is gone, and what it held is free; also if it never ran.
    Ended,
}

/// What the parent has for enclaves, and who holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pools {
    /// Each core that enclaves may have.
    #[serde(rename = "Cores")]
    pub cores: Vec<PoolCore>,
    /// The hugepages of each node and size.
    #[serde(rename = "Hugepages")]
    pub hugepages: Vec<PoolHugepages>,
}

/// A core that enclaves may have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolCore {
    /// The NUMA node.
    #[serde(rename = "NUMANode")]
    pub node: u32,
    /// The core's CPUs: its hardware threads.
    #[serde(rename = "CPUIDs")]
    pub cpus: Vec<u32>,
    /// The enclave that holds it.
    #[serde(rename = "EnclaveID")]
    pub enclave_id: Option<String>,
    /// Its name.
    #[serde(rename = "EnclaveName")]
    pub enclave_name: Option<String>,
}

/// Hugepages of one size on one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolHugepages {
    /// The NUMA node.
    #[serde(rename = "NUMANode")]
    pub node: u32,
    /// The size of a page, in MiB.
    #[serde(rename = "PageSizeMiB")]
    pub page_size_mib: u64,
    /// How many there are.
    #[serde(rename = "Total")]
    pub total: u64,
    /// How many of them no enclave and no other program has or was promised.
    #[serde(rename = "Free")]
    pub free: u64,
}

/// One element of what `terminate-enclave` prints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnclaveTermination {
    /// The name it had.
    #[serde(rename = "EnclaveName")]
    pub enclave_name: String,
    /// The id it had.
    #[serde(rename = "EnclaveID")]
    pub enclave_id: String,
    /// Whether it has ended. False only in an answer about all enclaves, of those that the client may not end.
    #[serde(rename = "Terminated")]
    pub terminated: bool,
}

/// Platform configuration registers of an image, each 96 lower-case hexadecimal digits (SHA-384).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measurements {
    /// Name of the hash; see [`Measurements::HASH_ALGORITHM`].
    #[serde(rename = "HashAlgorithm")]
    pub hash_algorithm: String,
    /// Kernel, command line and every ramdisk.
    #[serde(rename = "PCR0")]
    pub pcr0: String,
    /// Kernel, command line and the first ramdisk.
    #[serde(rename = "PCR1")]
    pub pcr1: String,
    /// Every ramdisk but the first: the application.
    #[serde(rename = "PCR2")]
    pub pcr2: String,
    /// The signing certificate, of a signed image.
    #[serde(rename = "PCR8", default, skip_serializing_if = "Option::is_none")]
    pub pcr8: Option<String>,
}

impl Measurements {
    /// The text that nitro-cli before 1.5 prints and old parsers expect.
    pub const HASH_ALGORITHM: &str = "Sha384 { ... }";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_has_the_keys_types_and_order_of_nitro_cli() {
        let description = EnclaveDescription {
            run: EnclaveRunInfo {
                enclave_name: "hello".into(),
                enclave_id: "i-0000000000000000-enc19a0b1c2d3e4f506".into(),
                process_id: 4711,
                enclave_cid: 16,
                number_of_cpus: 2,
                cpu_ids: vec![1, 3],
                memory_mib: 512,
            },
            state: EnclaveState::Running,
            flags: EnclaveFlags::DebugMode,
            measurements: Measurements {
                hash_algorithm: Measurements::HASH_ALGORITHM.into(),
                pcr0: "00".into(),
                pcr1: "11".into(),
                pcr2: "22".into(),
                pcr8: None,
            },
            vsock: None,
        };

        let json = serde_json::to_string(&description).unwrap();

        assert_eq!(
            json,
            concat!(
                r#"{"EnclaveName":"hello","EnclaveID":"i-0000000000000000-enc19a0b1c2d3e4f506","#,
                r#""ProcessID":4711,"EnclaveCID":16,"NumberOfCPUs":2,"CPUIDs":[1,3],"MemoryMiB":512,"#,
                r#""State":"RUNNING","Flags":"DEBUG_MODE","Measurements":{"HashAlgorithm":"Sha384 { ... }","#,
                r#""PCR0":"00","PCR1":"11","PCR2":"22"}}"#
            )
        );
        assert_eq!(
            serde_json::from_str::<EnclaveDescription>(&json).unwrap(),
            description
        );
    }
}
