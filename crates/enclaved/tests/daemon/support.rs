//! A daemon in a temporary directory with scripted guests instead of VMMs, and a client that speaks to it.
//!
//! Each launch arrives at the test as a [`Guest`], which the test then makes speak, beat or die. Memory is an end of
//! a pipe, so that a test can see when the last copy of it is closed.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use api::vmm::{Event, LaunchSpec, MemoryFile, VsockBackend};
use api::{
    CpuSelection, EnclaveDescription, EnclaveRunInfo, ErrorCode, Failure, Measurements, Reply, Request,
    RunEnclave, Selector, frame,
};
use enclaved::admission::Machine;
use enclaved::admission::cpus::CpuPool;
use enclaved::admission::memory::{GuestMemory, MemorySource};
use enclaved::admission::topology::Core;
use enclaved::authority::Source;
use enclaved::config::Limits;
use enclaved::cpu_partition::CpuPartitions;
use enclaved::daemon::Stop;
use enclaved::ids::InstanceId;
use enclaved::launcher::{Descriptors, Instance, Launch, Launcher, ProcessEnd, Said};
use enclaved::process_identity::ProcessIdentity;
use enclaved::vmm_user::FIRST_VMM_USER;
use enclaved::{Config, Daemon};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

/// What a broken test waits for before it fails; no working test comes near.
const PATIENCE: Duration = Duration::from_secs(20);

/// In the run directory, for want of another: the keys of attestation.
const STATE: &str = "attestation";

/// In the run directory, too: what was asked.
pub(crate) const AUDIT_LOG: &str = "audit.jsonl";

/// In the run directory, too: consoles of enclaves that have ended.
pub(crate) const CONSOLES: &str = "consoles";

/// `future`'s output, or a failed test.
pub(crate) async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("nothing happened")
}

/// Runs blocking client code beside the daemon.
pub(crate) async fn blocking<R: Send + 'static>(work: impl FnOnce() -> R + Send + 'static) -> R {
    soon(tokio::task::spawn_blocking(work))
        .await
        .expect("the client panicked")
}

/// A parent with 4 cores of 2 threads on 2 nodes (cores with CPU 1, 2, 3 are for enclaves) and a memory pool.
pub(crate) struct Parent {
    directory: tempfile::TempDir,
    memory: Arc<Mutex<Vec<OwnedFd>>>,
    guests: mpsc::UnboundedReceiver<Guest>,
    launcher: ScriptedLauncher,
    stop: oneshot::Sender<Stop>,
    daemon: JoinHandle<()>,
}

impl Parent {
    pub(crate) fn start() -> Self {
        Self::start_with(|_| {})
    }

    pub(crate) fn start_with(adjust: impl FnOnce(&mut Config)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut config = config(directory.path());
        adjust(&mut config);
        let memory = Arc::new(Mutex::new(Vec::new()));
        let (launches, guests) = mpsc::unbounded_channel();
        let launcher = ScriptedLauncher {
            launches,
            orphans: Arc::default(),
        };
        let (stop, daemon) = start(&config, &memory, &launcher);
        Self {
            directory,
            memory,
            guests,
            launcher,
            stop,
            daemon,
        }
    }

    /// Stops the daemon so that its enclaves go on, and starts the next one.
    pub(crate) async fn restart(self) -> Self {
        self.stop.send(Stop::Leave).unwrap();
        soon(self.daemon).await.unwrap();
        let config = config(self.directory.path());
        let (stop, daemon) = start(&config, &self.memory, &self.launcher);
        Self { stop, daemon, ..self }
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(self.path())
    }

    /// The next guest that the daemon launches.
    pub(crate) async fn guest(&mut self) -> Guest {
        soon(self.guests.recv()).await.expect("the daemon is gone")
    }

    /// An enclave that has booted.
    pub(crate) async fn boot(&mut self, request: RunEnclave) -> (Guest, EnclaveRunInfo) {
        let mut client = self.client();
        client.run(request);
        let mut guest = self.guest().await;
        guest.boot().await;
        match client.last_reply().await {
            Reply::EnclaveStarted(info) => (guest, info),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn ask(&self, request: Request) -> Reply {
        let mut client = self.client();
        client.send(&request);
        client.last_reply().await
    }

    pub(crate) async fn describe(&self) -> Vec<EnclaveDescription> {
        match self.ask(Request::DescribeEnclaves).await {
            Reply::Enclaves(enclaves) => enclaves,
            other => panic!("{other:?}"),
        }
    }

    /// The directories in the run directory: one for each enclave.
    pub(crate) fn enclave_directories(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.path()).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        paths
            .filter(|path| path.is_dir() && !path.ends_with(STATE) && !path.ends_with(CONSOLES))
            .collect()
    }

    /// Fails unless everything is given back: no directory, no memory, and the whole pool can be had again.
    pub(crate) async fn assert_nothing_is_held(&mut self) {
        assert_eq!(self.describe().await, []);
        assert_eq!(self.enclave_directories(), Vec::<PathBuf>::new());
        assert!(
            self.memory.lock().unwrap().iter().all(is_closed_elsewhere),
            "memory is still open"
        );
        let mut client = self.client();
        client.run(request("everything", 6));
        let guest = self.guest().await;
        assert_eq!(guest.spec.cpu_ids, [1, 5, 2, 6, 3, 7]);
        guest.say(Event::Failed(Failure::new(ErrorCode::EifParsing, "enough")));
        client.failure().await;
    }

    /// Stops the daemon and its enclaves, and waits until it has gone.
    pub(crate) async fn stop(self) -> tempfile::TempDir {
        self.stop.send(Stop::EndEnclaves).unwrap();
        soon(self.daemon).await.unwrap();
        self.directory
    }
}

fn config(run_directory: &Path) -> Config {
    Config {
        run_directory: run_directory.to_owned(),
        socket_group: "no such group".into(),
        group_file: "/nonexistent".into(),
        heartbeat_timeout: None,
        limits: Limits::default(),
        authority: Source::Own(run_directory.join(STATE)),
        region: "local".into(),
        parent_role: None,
        vsock: Some(VsockBackend::Unix),
        first_vmm_user: FIRST_VMM_USER,
        audit_log: Some(run_directory.join(AUDIT_LOG)),
    }
}

/// A daemon, and what stops it.
fn start(
    config: &Config,
    memory: &Arc<Mutex<Vec<OwnedFd>>>,
    launcher: &ScriptedLauncher,
) -> (oneshot::Sender<Stop>, JoinHandle<()>) {
    let cores = [(0, [0, 4]), (0, [1, 5]), (1, [2, 6]), (1, [3, 7])].map(|(node, cpus)| Core {
        node,
        cpus: cpus.to_vec(),
    });
    let machine = Machine {
        instance: InstanceId::read(Path::new("/nonexistent")),
        cpus: CpuPool::without_cpu_0(cores.to_vec()),
        memory: Box::new(PipeMemory(Arc::clone(memory))),
        partitions: CpuPartitions::none(),
        kvm: "/dev/null".into(),
        vhost_vsock: "/nonexistent".into(),
    };
    let daemon = Daemon::build(config, machine, launcher.clone(), None).unwrap();
    let (stop, stopped) = oneshot::channel();
    let daemon = tokio::spawn(daemon.run(async { stopped.await.unwrap_or(Stop::EndEnclaves) }));
    (stop, daemon)
}

/// Gives out write ends of pipes and keeps the read ends.
struct PipeMemory(Arc<Mutex<Vec<OwnedFd>>>);

impl MemorySource for PipeMemory {
    fn pools(&self) -> Vec<api::PoolHugepages> {
        Vec::new()
    }

    fn fits(&self, _: u64, _: u32) -> bool {
        true
    }

    fn allocate(&self, mib: u64, node: Option<u32>) -> Result<Vec<GuestMemory>, Failure> {
        if mib > 4096 {
            return Err(Failure::new(
                ErrorCode::InsufficientMemoryAvailable,
                "no hugepages",
            ));
        }
        let (read_end, write_end) = rustix::pipe::pipe().unwrap();
        self.0.lock().unwrap().push(read_end);
        Ok(vec![GuestMemory {
            file: write_end,
            layout: MemoryFile {
                size: mib << 20,
                page_size: 2 << 20,
                node,
            },
        }])
    }
}

fn is_closed_elsewhere(read_end: &OwnedFd) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec};
    let mut state = [PollFd::new(read_end, PollFlags::empty())];
    let at_once = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    rustix::event::poll(&mut state, Some(&at_once)).unwrap();
    state[0].revents().contains(PollFlags::HUP)
}

#[derive(Clone)]
struct ScriptedLauncher {
    launches: mpsc::UnboundedSender<Guest>,
    /// Instances that a daemon has left, by their directory.
    orphans: Arc<Mutex<BTreeMap<PathBuf, ScriptedInstance>>>,
}

impl Launcher for ScriptedLauncher {
    type Instance = ScriptedInstance;

    fn launch(&self, launch: Launch) -> Result<ScriptedInstance, Failure> {
        if launch.spec.guest_cid == 666 {
            return Err(Failure::new(ErrorCode::ProcessSpawn, "no process"));
        }
        let (says, said) = mpsc::unbounded_channel();
        let (process, end) = watch::channel(None);
        let accepted = Arc::new(AtomicBool::new(false));
        let guest = Guest {
            accepted: Arc::clone(&accepted),
            spec: launch.spec,
            directory: launch.directory.clone(),
            descriptors: Some(launch.descriptors),
            says: Some(says),
            process: process.clone(),
        };
        self.launches
            .send(guest)
            .map_err(|_| Failure::new(ErrorCode::ProcessSpawn, "the test is over"))?;
        Ok(ScriptedInstance {
            said,
            process,
            end,
            identity: ProcessIdentity::of(std::process::id()).unwrap(),
            directory: launch.directory,
            accepted,
            outlives: false,
            orphans: Arc::clone(&self.orphans),
        })
    }

    fn take_over(
        &self,
        vmm: &ProcessIdentity,
        directory: &Path,
        lives: bool,
    ) -> io::Result<ScriptedInstance> {
        assert!(lives);
        let instance = self.orphans.lock().unwrap().remove(directory).unwrap();
        assert_eq!(*vmm, instance.identity);
        Ok(instance)
    }
}

struct ScriptedInstance {
    /// That of the tests' process, so that a daemon finds it alive.
    identity: ProcessIdentity,
    directory: PathBuf,
    accepted: Arc<AtomicBool>,
    outlives: bool,
    orphans: Arc<Mutex<BTreeMap<PathBuf, ScriptedInstance>>>,
    said: mpsc::UnboundedReceiver<Said>,
    process: watch::Sender<Option<String>>,
    end: watch::Receiver<Option<String>>,
}

impl Instance for ScriptedInstance {
    fn identity(&self) -> &ProcessIdentity {
        &self.identity
    }

    fn accept(&mut self) {
        let before = self.accepted.swap(true, Ordering::SeqCst);
        assert!(!before, "a signature is accepted once");
    }

    fn outlive(&mut self) {
        self.outlives = true;
    }

    fn leave(self) {
        assert!(self.outlives, "it would end with the daemon");
        let orphans = Arc::clone(&self.orphans);
        orphans.lock().unwrap().insert(self.directory.clone(), self);
    }

    async fn next_event(&mut self) -> Said {
        self.said.recv().await.unwrap_or(Said::Closed)
    }

    fn kill(&mut self) {
        self.process.send_if_modified(|end| {
            let alive = end.is_none();
            end.get_or_insert_with(|| "signal: 9 (SIGKILL)".into());
            alive
        });
    }

    async fn wait(&mut self) -> ProcessEnd {
        let end = self.end.wait_for(Option::is_some).await.unwrap();
        ProcessEnd(end.clone().unwrap())
    }
}

/// A VMM with its guest, as the test plays it.
pub(crate) struct Guest {
    /// Whether the daemon has accepted the image's signature.
    pub(crate) accepted: Arc<AtomicBool>,
    pub(crate) spec: LaunchSpec,
    pub(crate) directory: PathBuf,
    pub(crate) descriptors: Option<Descriptors>,
    says: Option<mpsc::UnboundedSender<Said>>,
    process: watch::Sender<Option<String>>,
}

impl Guest {
    pub(crate) fn say(&self, event: Event) {
        self.utter(Said::Event(event));
    }

    pub(crate) fn utter(&self, said: Said) {
        let says = self.says.as_ref().expect("the guest is dead");
        says.send(said).expect("nobody listens any more");
    }

    /// Sends `byte` as init does; what comes back.
    pub(crate) async fn beat(&self, byte: u8) -> Vec<u8> {
        let path = self.directory.join("vsock.sock_9000");
        blocking(move || {
            let mut stream = UnixStream::connect(path).unwrap();
            stream.write_all(&[byte]).unwrap();
            let mut echo = Vec::new();
            // An error is a connection that the daemon closed without an answer.
            let _ = stream.read_to_end(&mut echo);
            echo
        })
        .await
    }

    /// Everything an enclave does until it runs.
    pub(crate) async fn boot(&mut self) {
        self.say(Event::Measured(measurements()));
        self.say(Event::Started);
        assert_eq!(self.beat(0xb7).await, [0xb7]);
    }

    /// Writes to the console.
    pub(crate) fn print(&self, text: &[u8]) {
        let console = self
            .descriptors
            .as_ref()
            .and_then(|descriptors| descriptors.console.as_ref());
        let mut console = File::from(console.expect("not in debug mode").try_clone().unwrap());
        console.write_all(text).unwrap();
    }

    /// Ends the process and everything it held.
    pub(crate) fn die(&mut self, status: &str) {
        self.descriptors = None;
        self.process.send_replace(Some(status.into()));
        self.says = None;
    }

    /// Returns when the daemon has killed the process, and takes what it held with it.
    pub(crate) async fn killed(&mut self) {
        let mut end = self.process.subscribe();
        soon(end.wait_for(Option::is_some)).await.unwrap();
        self.descriptors = None;
    }
}

/// A connection to the daemon. Blocking, as simple clients are; reading happens on a thread.
pub(crate) struct Client {
    stream: UnixStream,
}

impl Client {
    pub(crate) fn connect(directory: &Path) -> Self {
        Self {
            stream: UnixStream::connect(directory.join("enclaved.sock")).unwrap(),
        }
    }

    pub(crate) fn send(&mut self, request: &Request) {
        self.send_with(&frame::encode(request).unwrap(), &[]);
    }

    /// Sends bytes; fails once the daemon has closed the connection.
    pub(crate) fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends bytes with descriptors.
    pub(crate) fn send_with(&mut self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            assert!(ancillary.push(SendAncillaryMessage::ScmRights(descriptors)));
        }
        let sent = rustix::net::sendmsg(
            &self.stream,
            &[IoSlice::new(bytes)],
            &mut ancillary,
            SendFlags::NOSIGNAL,
        );
        assert_eq!(sent.unwrap(), bytes.len());
    }

    /// Asks for an enclave from an image of one MiB.
    pub(crate) fn run(&mut self, request: RunEnclave) {
        let image = tempfile::tempfile().unwrap();
        image.set_len(1 << 20).unwrap();
        let frame = frame::encode(&Request::RunEnclave(request)).unwrap();
        self.send_with(&frame, &[image.as_fd()]);
    }

    pub(crate) fn finish_sending(&self) {
        self.stream.shutdown(std::net::Shutdown::Write).unwrap();
    }

    /// All replies until the daemon closes the connection.
    pub(crate) async fn replies(&self) -> Vec<Reply> {
        let mut stream = self.stream.try_clone().unwrap();
        blocking(move || {
            let mut replies = Vec::new();
            while let Some(reply) = read_reply(&mut stream) {
                replies.push(reply);
            }
            replies
        })
        .await
    }

    /// The next reply.
    pub(crate) async fn reply(&self) -> Reply {
        let mut stream = self.stream.try_clone().unwrap();
        blocking(move || read_reply(&mut stream)).await.expect("no reply")
    }

    pub(crate) async fn last_reply(&self) -> Reply {
        self.replies().await.pop().expect("no reply")
    }

    pub(crate) async fn failure(&self) -> Failure {
        match self.last_reply().await {
            Reply::Error(failure) | Reply::Busy(failure) => failure,
            other => panic!("{other:?}"),
        }
    }

    /// Everything that follows, raw, until the daemon closes the connection.
    pub(crate) async fn rest(&self) -> Vec<u8> {
        let mut stream = self.stream.try_clone().unwrap();
        blocking(move || {
            let mut bytes = Vec::new();
            let _ = stream.read_to_end(&mut bytes);
            bytes
        })
        .await
    }

    /// The next `length` raw bytes.
    pub(crate) async fn bytes(&self, length: usize) -> Vec<u8> {
        let mut stream = self.stream.try_clone().unwrap();
        blocking(move || {
            let mut bytes = vec![0; length];
            stream.read_exact(&mut bytes).unwrap();
            bytes
        })
        .await
    }
}

/// `None` when the daemon has closed the connection, in whichever way.
fn read_reply(stream: &mut UnixStream) -> Option<Reply> {
    let mut header = [0; frame::HEADER_LEN];
    stream.read_exact(&mut header).ok()?;
    let mut body = vec![0; frame::body_len(header, frame::MAX_REPLY).unwrap()];
    stream.read_exact(&mut body).unwrap();
    Some(frame::decode(&body).unwrap())
}

pub(crate) fn request(name: &str, cpus: u32) -> RunEnclave {
    RunEnclave {
        memory_mib: 64,
        cpus: CpuSelection::Count(cpus),
        enclave_cid: None,
        enclave_name: name.into(),
        debug_mode: false,
        image_metadata: None,
        vsock: None,
    }
}

pub(crate) fn debug_request(name: &str) -> RunEnclave {
    RunEnclave {
        debug_mode: true,
        ..request(name, 2)
    }
}

pub(crate) fn measurements() -> Measurements {
    Measurements {
        hash_algorithm: Measurements::HASH_ALGORITHM.into(),
        pcr0: "00".repeat(48),
        pcr1: "11".repeat(48),
        pcr2: "22".repeat(48),
        pcr8: None,
    }
}

pub(crate) fn by_name(name: &str) -> Selector {
    Selector::Name(name.into())
}
