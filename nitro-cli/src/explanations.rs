//! What each number of the catalogue means here, and what to do about it: the texts of `explain`.
//!
//! The numbers are AWS's. Some stand for steps that AWS's nitro-cli takes and this one does not; their text says so, since
//! somebody may have met them elsewhere.

use api::ErrorCode;

/// One or more sentences, after the title.
#[expect(clippy::too_many_lines, reason = "it is a table, with one row for each error")]
pub(crate) fn explanation(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::Unspecified => {
            "Something went wrong that has no number of its own. The text after the number says what."
        }
        ErrorCode::MissingArgument => {
            "An option, or a key of the file given with `--config`, is not there. `nitro-cli COMMAND --help` lists what a \
             command needs."
        }
        ErrorCode::ConflictingArgument => {
            "Two options, or two keys of the file given with `--config`, exclude each other, such as `cpu_count` and \
             `cpu_ids`. Leave one of them out."
        }
        ErrorCode::InvalidArgument => {
            "The value of an option cannot be used: a number that is none, a unit of memory other than M, G and T, a CID that \
             is reserved (1, 2, 3 and 4294967295), or CPU numbers that are not separated by spaces."
        }
        ErrorCode::SocketPairCreation => {
            "The daemon could not make the pair of sockets by which it talks to the process of an enclave. It may have run \
             out of descriptors: see its log, and LimitNOFILE= in its unit."
        }
        ErrorCode::ProcessSpawn => {
            "The daemon could not start the process of an enclave, `enclave-vmm`. See whether it is installed beside \
             `enclaved`, and whether the machine has memory and processes left."
        }
        ErrorCode::Daemonize => {
            "A process could not move to the background. Not used here: the process of an enclave is started by the daemon."
        }
        ErrorCode::ReadFromDisk => {
            "The directory with the sockets of enclaves could not be read. Not used here: there is one socket, the daemon's."
        }
        ErrorCode::UnusableConnection => {
            "A connection to the process of an enclave is of no use. Not used here."
        }
        ErrorCode::SocketClose => "A connection could not be closed. Not used here.",
        ErrorCode::SocketConnectTimeout => {
            "The time limit of a connection to a console could not be set. Not used here."
        }
        ErrorCode::SocketError => {
            "No running enclave has the id, or a connection to the daemon failed. `nitro-cli describe-enclaves` lists the \
             enclaves that run; `nitro-cli describe-enclaves --ended` says what became of others."
        }
        ErrorCode::Epoll => "Waiting for events of the operating system failed. Not used here.",
        ErrorCode::Inotify => "A file could not be watched. Not used here.",
        ErrorCode::InvalidCommand => {
            "The daemon could not make sense of a request. nitro-cli and the daemon may be of different versions: upgrade \
             both, and restart the daemon, which its enclaves do not notice."
        }
        ErrorCode::LockAcquire => "A lock was left behind by a thread that failed. Not used here.",
        ErrorCode::ThreadJoin => "A thread failed. Not used here.",
        ErrorCode::Serde => {
            "JSON could not be read or written: the file given with `--config` lacks a key or has a value of the wrong type, \
             or the custom metadata of an image is no JSON object."
        }
        ErrorCode::FilePermissions => "The mode of a file could not be changed. Not used here.",
        ErrorCode::FileOperation => {
            "A file could not be opened, made, read or written. The text names the file and the reason; of a log, \
             NITRO_CLI_LOGS_PATH says where it is."
        }
        ErrorCode::InvalidCpuConfiguration => "A CPU is named twice in `--cpu-ids`. Name each once.",
        ErrorCode::NoSuchCpuAvailableInPool => {
            "A CPU named in `--cpu-ids` is not one that enclaves may have. `nitro-cli describe-pools` lists those; \
             /etc/nitro_enclaves/allocator.yaml decides about them."
        }
        ErrorCode::InsufficientCpus => {
            "More CPUs are asked for than there are for enclaves at all. `nitro-cli describe-pools` lists them; \
             /etc/nitro_enclaves/allocator.yaml decides about them."
        }
        ErrorCode::MalformedCpuId => "A list of CPUs has something in it that is no number.",
        ErrorCode::CpuError => {
            "A list of CPUs has a range in it that is none: a range is two numbers with `-` between them."
        }
        ErrorCode::NoSuchHugepageFlag => "There are no pages of this size. Not used here.",
        ErrorCode::InsufficientMemoryRequested => {
            "The enclave needs more memory than is asked for with `--memory`: at least 64 MiB and four times the size of its \
             image, which is unpacked in memory."
        }
        ErrorCode::InsufficientMemoryAvailable => {
            "There are not enough free hugepages. `nitro-cli describe-pools` shows how many there are and who has them. \
             Reserve more with memory_mib in /etc/nitro_enclaves/allocator.yaml and `systemctl restart \
             nitro-enclaves-allocator`, or `sysctl vm.nr_hugepages=N`; terminate enclaves that are not needed."
        }
        ErrorCode::InvalidEnclaveFd => {
            "The virtual machine of an enclave could not be made. Not used here; see E29."
        }
        ErrorCode::IoctlFailure => {
            "The machine cannot run an enclave of this form: KVM is not there or refused, no CPUs are free, a core would be \
             taken in part, or the CID is in use. The text says which. `nitro-cli doctor` checks the machine."
        }
        ErrorCode::IoctlImageLoadInfoFailure => {
            "The place of the image in memory is not known. Not used here; see E29."
        }
        ErrorCode::IoctlSetMemoryRegionFailure => {
            "Memory could not be given to the enclave. Not used here; see E29."
        }
        ErrorCode::IoctlAddVcpuFailure => "A CPU could not be given to the enclave. Not used here; see E29.",
        ErrorCode::IoctlEnclaveStartFailure => "The enclave could not be started. Not used here; see E29.",
        ErrorCode::MemoryOverflow => {
            "The image does not fit where it has to be loaded: give the enclave more memory."
        }
        ErrorCode::EifParsing => {
            "The file is no enclave image, or a damaged one, or it is not there. `nitro-cli describe-eif` says where reading \
             stopped; build the image again with `nitro-cli build-enclave`."
        }
        ErrorCode::EnclaveBootFailure => {
            "The enclave did not send its heartbeat in time, or ended before it did. Start it with `--debug-mode`: the error \
             then shows the end of its console."
        }
        ErrorCode::EventWait => "Waiting for an event of the enclave failed. Not used here.",
        ErrorCode::ProcessCommandNotExecuted => {
            "The process of an enclave could not carry out a command. Not used here."
        }
        ErrorCode::ProcessConnectionFailure => {
            "The daemon could not be reached or did not answer, or an enclave was not started; then the error before this one \
             is the reason. `systemctl start enclaved` starts the daemon where it is a service, `sudo enclaved` elsewhere; \
             members of the group `ne` may use it. Only who has started an enclave and root may terminate it."
        }
        ErrorCode::SocketPathNotFound => {
            "The socket of the process of an enclave is not there. Not used here."
        }
        ErrorCode::SendReply => "The process of an enclave could not send its answer. Not used here.",
        ErrorCode::Mmap => {
            "The memory of an enclave could not be mapped. See the daemon's log; the machine may be short of memory."
        }
        ErrorCode::Munmap => "The memory of an enclave could not be unmapped. Not used here.",
        ErrorCode::ConsoleConnection => {
            "The console cannot be watched, because the enclave was not started with `--debug-mode`. By design there is no \
             way to look into an enclave without it."
        }
        ErrorCode::ConsoleRead => {
            "The connection to the console broke. `nitro-cli describe-enclaves` says whether the enclave runs."
        }
        ErrorCode::ConsoleWriteOutput => {
            "The console's output could not be written to standard output. See whether there is room where it goes."
        }
        ErrorCode::IntegerParsing => "A number could not be read. Not used here; see E03.",
        ErrorCode::EifBuilding => {
            "An image could not be built: the container image, the kernel and init in NITRO_CLI_BLOBS, the metadata or the \
             signer cannot be used. The text says which."
        }
        ErrorCode::DockerImageBuild => "A container image could not be built from its Dockerfile.",
        ErrorCode::DockerImagePull => {
            "A container image could not be fetched. See whether its name is right and you may fetch it."
        }
        ErrorCode::ArtifactsPathNotSet => {
            "There is no directory for intermediate files. Not used here: builds need none, and NITRO_CLI_ARTIFACTS is not \
             asked for."
        }
        ErrorCode::BlobsPathNotSet => {
            "The directory with kernel and init is not known. Not used here: NITRO_CLI_BLOBS has a default."
        }
        ErrorCode::ClockSkew => "The clock went backwards. Not used here.",
        ErrorCode::SignalMasking => "Signals could not be held back.",
        ErrorCode::SignalUnmasking => "Signals could not be let through again.",
        ErrorCode::LoggerError => "The log could not be set up. Not used here; see E19.",
        ErrorCode::HasherError => "Something could not be measured: the certificate is not in PEM form.",
        ErrorCode::EnclaveNaming => {
            "No running enclave has the name, or more than one has. `nitro-cli describe-enclaves` lists them with their ids."
        }
        ErrorCode::EIFSignatureChecker => {
            "The image is signed, and the signature does not hold: it is not the certificate's, it is for another image, or \
             the certificate is not valid at this time. `nitro-cli describe-eif` shows it; `nitro-cli sign-eif` makes another."
        }
        ErrorCode::EIFSigning => {
            "The image could not be signed: key and certificate must both be given, in PEM, belong together, and be on P-256, \
             P-384 or P-521."
        }
    }
}
