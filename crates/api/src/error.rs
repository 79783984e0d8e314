//! The catalogue of `[ ENN ]` errors: AWS's numbers, so that scripts written for its nitro-cli keep working.

use serde::{Deserialize, Serialize};

/// One row of the catalogue. The numeric value is AWS's number and, for most failures, the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
#[repr(u8)]
pub enum ErrorCode {
    /// An error that no other number describes.
    Unspecified = 0,
    /// A required argument or configuration key is absent.
    MissingArgument = 1,
    /// Two arguments or configuration keys exclude each other.
    ConflictingArgument = 2,
    /// An argument's value cannot be used.
    InvalidArgument = 3,
    /// A socket pair for a child process could not be made.
    SocketPairCreation = 4,
    /// The enclave's process could not be started.
    ProcessSpawn = 5,
    /// The process could not move to the background.
    Daemonize = 6,
    /// A directory or file of run-time state could not be read.
    ReadFromDisk = 7,
    /// A connection to an enclave's process is of no use.
    UnusableConnection = 8,
    /// A connection could not be shut down.
    SocketClose = 9,
    /// The time limit of a connection could not be set.
    SocketConnectTimeout = 10,
    /// A socket operation failed, or no enclave has the given id.
    SocketError = 11,
    /// Waiting for events failed.
    Epoll = 12,
    /// Watching a file failed.
    Inotify = 13,
    /// A command could not be encoded or is not known.
    InvalidCommand = 14,
    /// A lock was left by a failed thread.
    LockAcquire = 15,
    /// A thread failed.
    ThreadJoin = 16,
    /// JSON or CBOR could not be read or written.
    Serde = 17,
    /// A file's mode could not be changed.
    FilePermissions = 18,
    /// A file could not be opened, created, read or written.
    FileOperation = 19,
    /// The same CPU was asked for twice.
    InvalidCpuConfiguration = 20,
    /// A CPU that was asked for is not in the pool.
    NoSuchCpuAvailableInPool = 21,
    /// More CPUs were asked for than the pool has.
    InsufficientCpus = 22,
    /// A CPU list holds something that is no number.
    MalformedCpuId = 23,
    /// A CPU list holds a malformed range.
    CpuError = 24,
    /// The hugepage size is not one the kernel has.
    NoSuchHugepageFlag = 25,
    /// The enclave needs more memory than was asked for.
    InsufficientMemoryRequested = 26,
    /// There are not enough free hugepages.
    InsufficientMemoryAvailable = 27,
    /// The virtual machine could not be created.
    InvalidEnclaveFd = 28,
    /// The hypervisor refused the enclave's configuration.
    IoctlFailure = 29,
    /// The hypervisor refused to say where the image goes.
    IoctlImageLoadInfoFailure = 30,
    /// The hypervisor refused a memory region.
    IoctlSetMemoryRegionFailure = 31,
    /// The hypervisor refused a vCPU.
    IoctlAddVcpuFailure = 32,
    /// The hypervisor refused to start the enclave.
    IoctlEnclaveStartFailure = 33,
    /// The image does not fit where it must be loaded.
    MemoryOverflow = 34,
    /// The enclave image is not a well-formed EIF.
    EifParsing = 35,
    /// The enclave did not send its heartbeat.
    EnclaveBootFailure = 36,
    /// Waiting for the enclave's events failed.
    EventWait = 37,
    /// An enclave's process could not carry out a command.
    ProcessCommandNotExecuted = 38,
    /// An enclave's process, or the daemon, could not be reached or failed.
    ProcessConnectionFailure = 39,
    /// The socket of an enclave's process is not there.
    SocketPathNotFound = 40,
    /// A reply could not be sent.
    SendReply = 41,
    /// Enclave memory could not be mapped.
    Mmap = 42,
    /// Enclave memory could not be unmapped.
    Munmap = 43,
    /// The console cannot be watched: the enclave is not in debug mode.
    ConsoleConnection = 44,
    /// The connection to the console broke.
    ConsoleRead = 45,
    /// The console's bytes could not be written to standard output.
    ConsoleWriteOutput = 46,
    /// A number is too large for what it stands for.
    IntegerParsing = 47,
    /// The enclave image could not be built.
    EifBuilding = 48,
    /// The container image could not be built.
    DockerImageBuild = 49,
    /// The container image could not be fetched.
    DockerImagePull = 50,
    /// There is no directory for intermediate files.
    ArtifactsPathNotSet = 51,
    /// There is no directory with kernel and init.
    BlobsPathNotSet = 52,
    /// The clock went backwards.
    ClockSkew = 53,
    /// Signals could not be blocked.
    SignalMasking = 54,
    /// Signals could not be unblocked.
    SignalUnmasking = 55,
    /// The log could not be opened.
    LoggerError = 56,
    /// Something could not be measured.
    HasherError = 57,
    /// No enclave has this name, or more than one.
    EnclaveNaming = 58,
    /// The image's signature or its certificate is not valid.
    EIFSignatureChecker = 59,
    /// The image could not be signed.
    EIFSigning = 60,
}

/// Every code with its short title, in numeric order: `CATALOGUE[n]` is `En`.
const CATALOGUE: [(ErrorCode, &str); 61] = [
    (ErrorCode::Unspecified, "Unspecified error"),
    (ErrorCode::MissingArgument, "Missing argument"),
    (ErrorCode::ConflictingArgument, "Conflicting arguments"),
    (ErrorCode::InvalidArgument, "Invalid argument provided"),
    (ErrorCode::SocketPairCreation, "Socket pair creation failure"),
    (ErrorCode::ProcessSpawn, "Process spawn failure"),
    (ErrorCode::Daemonize, "Daemonize process failure"),
    (ErrorCode::ReadFromDisk, "Read from disk failure"),
    (ErrorCode::UnusableConnection, "Unusable connection failure"),
    (ErrorCode::SocketClose, "Socket close failure"),
    (
        ErrorCode::SocketConnectTimeout,
        "Socket connect set timeout failure",
    ),
    (ErrorCode::SocketError, "Socket error"),
    (ErrorCode::Epoll, "Epoll error"),
    (ErrorCode::Inotify, "Inotify error"),
    (ErrorCode::InvalidCommand, "Invalid command"),
    (ErrorCode::LockAcquire, "Lock acquire failure"),
    (ErrorCode::ThreadJoin, "Thread join failure"),
    (ErrorCode::Serde, "Serialization or deserialization failure"),
    (ErrorCode::FilePermissions, "File permissions change failure"),
    (ErrorCode::FileOperation, "File operation failure"),
    (ErrorCode::InvalidCpuConfiguration, "Invalid CPU configuration"),
    (
        ErrorCode::NoSuchCpuAvailableInPool,
        "CPU not available in the pool",
    ),
    (ErrorCode::InsufficientCpus, "Insufficient CPUs available"),
    (ErrorCode::MalformedCpuId, "Malformed CPU ID"),
    (ErrorCode::CpuError, "CPU error"),
    (ErrorCode::NoSuchHugepageFlag, "No such hugepage size"),
    (
        ErrorCode::InsufficientMemoryRequested,
        "Insufficient memory requested",
    ),
    (
        ErrorCode::InsufficientMemoryAvailable,
        "Insufficient memory available",
    ),
    (ErrorCode::InvalidEnclaveFd, "Invalid enclave file descriptor"),
    (ErrorCode::IoctlFailure, "Ioctl failure"),
    (
        ErrorCode::IoctlImageLoadInfoFailure,
        "Ioctl image get load info failure",
    ),
    (
        ErrorCode::IoctlSetMemoryRegionFailure,
        "Ioctl set memory region failure",
    ),
    (ErrorCode::IoctlAddVcpuFailure, "Ioctl add vCPU failure"),
    (ErrorCode::IoctlEnclaveStartFailure, "Ioctl start enclave failure"),
    (ErrorCode::MemoryOverflow, "Memory overflow"),
    (ErrorCode::EifParsing, "EIF file parsing failure"),
    (ErrorCode::EnclaveBootFailure, "Enclave boot failure"),
    (ErrorCode::EventWait, "Enclave event wait failure"),
    (
        ErrorCode::ProcessCommandNotExecuted,
        "Enclave process command not executed",
    ),
    (
        ErrorCode::ProcessConnectionFailure,
        "Enclave process connection failure",
    ),
    (ErrorCode::SocketPathNotFound, "Socket path not found"),
    (ErrorCode::SendReply, "Enclave process send reply failure"),
    (ErrorCode::Mmap, "Enclave mmap error"),
    (ErrorCode::Munmap, "Enclave munmap error"),
    (ErrorCode::ConsoleConnection, "Enclave console connection failure"),
    (ErrorCode::ConsoleRead, "Enclave console read error"),
    (
        ErrorCode::ConsoleWriteOutput,
        "Enclave console write output error",
    ),
    (ErrorCode::IntegerParsing, "Integer parsing error"),
    (ErrorCode::EifBuilding, "EIF building error"),
    (ErrorCode::DockerImageBuild, "Docker image build error"),
    (ErrorCode::DockerImagePull, "Docker image pull error"),
    (ErrorCode::ArtifactsPathNotSet, "Artifacts path not set"),
    (ErrorCode::BlobsPathNotSet, "Blobs path not set"),
    (ErrorCode::ClockSkew, "Clock skew error"),
    (ErrorCode::SignalMasking, "Signal masking error"),
    (ErrorCode::SignalUnmasking, "Signal unmasking error"),
    (ErrorCode::LoggerError, "Logger error"),
    (ErrorCode::HasherError, "Hasher error"),
    (ErrorCode::EnclaveNaming, "Enclave naming error"),
    (ErrorCode::EIFSignatureChecker, "EIF signature checker error"),
    (ErrorCode::EIFSigning, "EIF signing error"),
];

impl ErrorCode {
    /// Every code, in numeric order.
    pub fn all() -> impl Iterator<Item = Self> {
        CATALOGUE.iter().map(|(code, _)| *code)
    }

    /// AWS's number, 0 to 60.
    pub fn number(self) -> u8 {
        self as u8
    }

    /// The headline nitro-cli prints after the number.
    pub fn title(self) -> &'static str {
        CATALOGUE
            .get(usize::from(self.number()))
            .map_or("", |(_, title)| title)
    }
}

impl From<ErrorCode> for u8 {
    fn from(code: ErrorCode) -> Self {
        code.number()
    }
}

impl TryFrom<u8> for ErrorCode {
    type Error = UnknownErrorCode;

    fn try_from(number: u8) -> Result<Self, UnknownErrorCode> {
        CATALOGUE
            .get(usize::from(number))
            .map(|(code, _)| *code)
            .ok_or(UnknownErrorCode(number))
    }
}

/// Written as users see it: `E26`.
impl std::fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "E{:02}", self.number())
    }
}

/// A number above 60.
#[derive(Debug, thiserror::Error)]
#[error("no error has the number {0}")]
pub struct UnknownErrorCode(u8);

/// A failure on its way to the user: what kind it is, and what happened in words that name the thing and the remedy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// The catalogue row.
    pub code: ErrorCode,
    /// One or more sentences, without the number.
    pub message: String,
}

impl Failure {
    /// A failure of kind `code`.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    /// A failure of kind `code` whose message is `context` followed by `source` and all that caused it.
    pub fn caused_by(code: ErrorCode, context: &str, source: &(dyn std::error::Error + 'static)) -> Self {
        let causes = std::iter::successors(Some(source), |error| error.source());
        let message = causes.fold(context.to_owned(), |text, cause| format!("{text}: {cause}"));
        Self { code, message }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_at_its_own_number_and_has_a_title() {
        for (index, code) in ErrorCode::all().enumerate() {
            assert_eq!(usize::from(code.number()), index);
            assert!(!code.title().is_empty());
        }
    }

    #[test]
    fn a_code_travels_as_its_number_and_an_unknown_number_is_refused() {
        let json = serde_json::to_string(&ErrorCode::EnclaveBootFailure).unwrap();

        assert_eq!(json, "36");
        assert_eq!(
            serde_json::from_str::<ErrorCode>(&json).unwrap(),
            ErrorCode::EnclaveBootFailure
        );
        assert!(serde_json::from_str::<ErrorCode>("61").is_err());
    }

    #[test]
    fn a_failure_tells_the_whole_chain_once() {
        let source = std::io::Error::other(std::io::Error::other("no space"));

        let failure = Failure::caused_by(ErrorCode::Mmap, "mapping guest memory", &source);

        assert!(
            failure.message.starts_with("mapping guest memory: "),
            "{}",
            failure.message
        );
        assert!(failure.message.ends_with("no space"), "{}", failure.message);
    }
}
