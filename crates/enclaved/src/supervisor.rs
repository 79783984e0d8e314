//! The life of one enclave, from launch to the return of everything it held.
//!
//! ```text
//!             launch            Measured, Started, heartbeat            end
//!   Prepared ───────► booting ──────────────────────────────► running ───────► gone
//!                        │                                      ▲ │                ▲
//!                        │        the next daemon takes it over │ ▼                │
//!                        │                              the daemon leaves          │
//!                        └── any other end, the time limit, the client leaves ─────┘
//! ```
//!
//! There is one way out: kill the process, wait until it is reaped, clear its memory and give that back, drop the lease. Only after that is anybody told. While an enclave boots it belongs to the client that asked for it: if that
//! client leaves, the enclave is ended, so that an interrupted run-enclave leaves nothing behind. Once it has booted it
//! belongs to nobody but the parent, and outlives its daemon (see [`crate::inheritance`]).

use std::io;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use api::vmm::{Event, ImageSignature, VsockBackend};
use api::{ApplicationEnd, EnclaveRunInfo, ErrorCode, Failure, Measurements, Reply};
use tokio::sync::{mpsc, watch};

use crate::allocator::pool::PoolLock;
use crate::application_end::ApplicationEndListener;
use crate::console::{Console, ConsoleError};
use crate::cpu_partition::Partition;
use crate::end::End;
use crate::error_chain::chain_of;
use crate::guest_memory::HeldMemory;
use crate::heartbeat::Heartbeat;
use crate::image_signature;
use crate::launcher::{Instance, Launcher, ProcessEnd, Said};
use crate::leftovers;
use crate::note::{Facts, Note};
use crate::own_port::Way;
use crate::parent_vsock::ParentVsock;
use crate::port_listeners::PortListeners;
use crate::preparation::Prepared;
use crate::registry::{EndRequest, Lease, Registry};
use crate::run_directory::{EnclaveDirectory, RunDirectoryError};
use crate::security_module::{Attestation, SecurityModule};
use crate::vmm_log;

/// How long a VMM that closed its socket may take to end by itself, so that its own exit status is seen.
const EXIT_GRACE: Duration = Duration::from_millis(500);

/// To the client that started the enclave: progress, then one final reply. Its other end is dropped if the client
/// leaves.
pub(crate) type Client = mpsc::UnboundedSender<Reply>;

/// Launches an enclave and stays with it to its end.
pub(crate) async fn supervise<L: Launcher>(
    prepared: Prepared,
    launcher: &L,
    attestation: &Attestation,
    client: Client,
) {
    let Prepared {
        lease,
        launch,
        heartbeat,
        application_end,
        console,
        port_listeners,
        memory,
        time_limit,
        pool_lock,
    } = prepared;
    let id = launch.spec.enclave_id.clone();
    let started_line = started_line(&launch.spec);
    let (directory, user) = (launch.directory.clone(), launch.user);
    let instance = match launcher.launch(launch) {
        Ok(instance) => instance,
        Err(failure) => {
            let reason = failure.message.as_str();
            tracing::warn!(enclave = %id, reason, "the enclave could not be launched");
            drop((heartbeat, application_end, port_listeners, memory, lease));
            return reply(&client, Reply::Error(failure));
        }
    };
    let process_id = instance.identity().process_id;
    lease.set_process(process_id);
    tracing::info!(enclave = %id, process_id, "launched");
    let mut life = Life {
        end_requests: lease.end_requests(),
        note: Note::new(lease.facts().clone(), instance.identity().clone(), user),
        directory,
        instance,
        application_end,
        application: None,
        _port_listeners: port_listeners,
        console,
        memory,
        security_module: None,
        lease,
    };
    let boot = Boot {
        heartbeat,
        time_limit,
        started_line,
        pool_lock,
        attestation,
    };
    match boot.run(&mut life, &client).await {
        Ok(info) => {
            let name = info.enclave_name.as_str();
            tracing::info!(enclave = %id, name, cid = info.enclave_cid, "running");
            if client.send(Reply::EnclaveStarted(info)).is_err() {
                let reason = life.finish(&End::Abandoned).await;
                tracing::info!(enclave = %id, reason = reason.as_str(), "the enclave has ended");
                return;
            }
            drop(client);
            life.run().await;
        }
        Err(end) => {
            let console = life.console.clone();
            let reason = life.finish(&end).await;
            tracing::warn!(enclave = %id, reason = reason.as_str(), "the enclave did not boot");
            let failure = end.boot_failure(&reason, console.as_ref()).await;
            reply(&client, Reply::Error(failure));
        }
    }
}

/// Why an enclave could not be taken over.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TakeOverError {
    /// Its VMM cannot be watched.
    #[error("its VMM cannot be watched")]
    Vmm(#[from] io::Error),
    /// Its pipes.
    #[error(transparent)]
    Directory(#[from] RunDirectoryError),
    /// Its console.
    #[error(transparent)]
    Console(#[from] ConsoleError),
}

/// What an earlier daemon has left of an enclave that had booted.
#[derive(Debug)]
pub(crate) struct Left {
    pub(crate) note: Note,
    pub(crate) directory: EnclaveDirectory,
    pub(crate) partition: Option<Partition>,
    /// Whether its VMM lives.
    pub(crate) lives: bool,
}

/// Takes over an enclave that an earlier daemon has booted, and stays with it in a task of its own; or notes its end, if its
/// VMM does not live any more. Returns whether it lives. Must be called on a Tokio runtime.
pub(crate) fn resume<L: Launcher>(
    registry: &Registry,
    launcher: &L,
    attestation: &Attestation,
    parent_vsock: &ParentVsock,
    left: Left,
) -> Result<bool, TakeOverError> {
    let Left {
        note,
        directory,
        partition,
        lives,
    } = left;
    let path = directory.path().to_owned();
    let instance = launcher.take_over(&note.vmm, &path, lives)?;
    vmm_log::resume(&directory, note.enclave.id.to_string())?;
    let console = if note.enclave.debug_mode {
        Some(Console::reopen(&directory)?)
    } else {
        None
    };
    let way = match note.enclave.vsock {
        VsockBackend::Unix => Way::Directory(&directory),
        VsockBackend::Kernel => Way::Kernel(parent_vsock, note.enclave.cid),
    };
    let id = &note.enclave.id;
    // None of what follows is a reason to end an enclave that lives.
    let application_end = ApplicationEndListener::listen(way).unwrap_or_else(|error| {
        let error = chain_of(&error);
        tracing::error!(enclave = %id, error, "how the enclave's application ends will not be heard");
        ApplicationEndListener::deaf()
    });
    let watched = note.vmm_user.filter(|_| lives);
    let port_listeners = watched
        .map(|user| PortListeners::watch(&directory, user))
        .transpose()
        .unwrap_or_else(|error| {
            tracing::error!(enclave = %id, %error, "the enclave reaches no listener that comes from now on");
            None
        });
    // Its VMM may be ending just now, or may be older than the security module.
    let memory = lives
        .then(|| HeldMemory::of_process(&note.vmm, note.enclave.memory_mib))
        .transpose()
        .unwrap_or_else(|error| {
            tracing::warn!(enclave = %id, %error, "guest memory cannot be held, and will not be cleared");
            None
        });
    let security_module = lives
        .then(|| SecurityModule::resume(attestation, id, &directory))
        .transpose()
        .unwrap_or_else(|error| {
            let error = chain_of(&error);
            tracing::error!(enclave = %id, error, "the enclave goes on without a security module");
            None
        });
    let lease = registry.take_over(&note, directory, partition, console.clone());
    let life = Life {
        end_requests: lease.end_requests(),
        instance,
        note,
        directory: path,
        application_end,
        application: None,
        _port_listeners: port_listeners,
        console,
        memory: memory.unwrap_or_default(),
        security_module,
        lease,
    };
    tokio::spawn(life.run());
    Ok(lives)
}

/// The progress line that AWS's nitro-cli prints when the vCPUs start.
fn started_line(spec: &api::vmm::LaunchSpec) -> String {
    let bytes: u64 = spec.memory.iter().map(|file| file.size).sum();
    format!(
        "Started enclave with enclave-cid: {}, memory: {} MiB, cpu-ids: {:?}",
        spec.guest_cid,
        bytes >> 20,
        spec.cpu_ids
    )
}

/// A client that has left misses the reply, which is all right.
fn reply(client: &Client, reply: Reply) {
    let _ = client.send(reply);
}

/// An enclave with a VMM.
pub(crate) struct Life<I> {
    pub(crate) instance: I,
    pub(crate) end_requests: watch::Receiver<Option<EndRequest>>,
    /// What is written down of it.
    pub(crate) note: Note,
    /// Where.
    pub(crate) directory: PathBuf,
    pub(crate) application_end: ApplicationEndListener,
    /// How its application ended, once it has said so.
    pub(crate) application: Option<ApplicationEnd>,
    /// Runs for as long as the enclave.
    pub(crate) _port_listeners: Option<PortListeners>,
    pub(crate) console: Option<Console>,
    pub(crate) memory: HeldMemory,
    /// Once the image is measured.
    pub(crate) security_module: Option<SecurityModule>,
    pub(crate) lease: Lease,
}

impl<I> Life<I> {
    /// From here on the enclave is what was measured, whatever its VMM says.
    fn start_security_module(
        &mut self,
        attestation: &Attestation,
        measurements: &Measurements,
    ) -> Result<(), End> {
        let Facts { id, debug_mode, .. } = self.lease.facts();
        let started = self.lease.with_directory(|directory| {
            SecurityModule::start(attestation, id, directory, measurements, *debug_mode)
        });
        match started {
            Some(Ok(security_module)) => {
                self.security_module = Some(security_module);
                Ok(())
            }
            Some(Err(error)) => {
                let context = "The enclave cannot have a security module";
                Err(End::Failed(Failure::caused_by(
                    ErrorCode::EnclaveBootFailure,
                    context,
                    &error,
                )))
            }
            // A record without its directory cannot be; if it were, nobody would want the enclave.
            None => Err(End::Abandoned),
        }
    }
}

impl<I: Instance> Life<I> {
    /// Stays with an enclave that has booted until it has ended, or the daemon leaves.
    pub(crate) async fn run(mut self) {
        let end = self.until_end().await;
        let id = self.note.enclave.id.clone();
        if matches!(end, End::Requested(EndRequest::Leave)) {
            tracing::info!(enclave = %id, "the enclave goes on without the daemon");
            self.instance.leave();
            self.lease.leave();
            return;
        }
        let reason = self.finish(&end).await;
        tracing::info!(enclave = %id, reason = reason.as_str(), "the enclave has ended");
    }

    /// Returns when a running enclave is to end or has ended.
    async fn until_end(&mut self) -> End {
        loop {
            tokio::select! {
                said = self.instance.next_event() => return match said {
                    Said::Event(event) => End::from_event(event),
                    Said::Nonsense(what) => End::Nonsense(what),
                    Said::Closed => End::Vanished,
                },
                request = requested(&mut self.end_requests) => return End::Requested(request),
                application = self.application_end.heard() => self.application = Some(application),
            }
        }
    }

    /// Notes that the enclave has booted: from here on it outlives the daemon.
    fn settle(&mut self) -> Result<EnclaveRunInfo, End> {
        self.note.write(&self.directory).map_err(|error| {
            let context = "What the enclave holds cannot be written down";
            End::Failed(Failure::caused_by(ErrorCode::FileOperation, context, &error))
        })?;
        self.instance.outlive();
        // A record without its enclave cannot be; if it were, nobody would want the enclave.
        self.lease.set_running().ok_or(End::Abandoned)
    }

    /// Ends the process if it still runs, and gives everything back. Returns the reason, as the end of a sentence.
    async fn finish(mut self, mut end: &End) -> String {
        if matches!(end, End::Vanished) {
            let _ = tokio::time::timeout(EXIT_GRACE, self.instance.wait()).await;
        }
        self.instance.kill();
        let process_end: ProcessEnd = self.instance.wait().await;
        leftovers::end(&self.lease, self.note.vmm_user).await;
        if let Some(security_module) = self.security_module.take() {
            // It writes into the directory that is about to go.
            security_module.stop().await;
        }
        if matches!(end, End::Vanished) && self.lease.was_killed_for_memory() {
            end = &End::OutOfMemory;
        }
        if let Err(error) = self.memory.clear().await {
            let enclave = &self.note.enclave.id;
            tracing::error!(%enclave, %error, "guest memory could not be cleared; the kernel does so before its next use");
        }
        let reason = end.in_words(&process_end, self.application);
        self.lease
            .end(&reason, self.application, self.console.as_ref())
            .await;
        reason
    }
}

/// Returns when somebody asks for the enclave's end.
async fn requested(requests: &mut watch::Receiver<Option<EndRequest>>) -> EndRequest {
    let request = requests.wait_for(Option::is_some).await.map(|request| *request);
    match request {
        Ok(Some(request)) => request,
        // The record outlives every call: its lease is held by the caller.
        Ok(None) | Err(_) => std::future::pending().await,
    }
}

/// What the way to a running enclave takes.
struct Boot<'a> {
    heartbeat: Heartbeat,
    time_limit: Duration,
    started_line: String,
    pool_lock: PoolLock,
    attestation: &'a Attestation,
}

impl Boot<'_> {
    /// Returns when the enclave has booted, or why it has not.
    async fn run(mut self, life: &mut Life<impl Instance>, client: &Client) -> Result<EnclaveRunInfo, End> {
        let heard = self.heartbeat.heard();
        let deadline = tokio::time::sleep(self.time_limit);
        tokio::pin!(heard, deadline);
        let mut stage = Stage::Loading(None);
        let mut alive = false;
        // Written before the first word, so that a daemon that comes after this one finds every VMM.
        life.note.write(&life.directory).map_err(|error| {
            let context = "The VMM's process id cannot be written down";
            End::Failed(Failure::caused_by(ErrorCode::FileOperation, context, &error))
        })?;
        // From here on the allocator sees the enclave itself.
        drop(self.pool_lock);
        while !(alive && stage == Stage::Running) {
            tokio::select! {
                said = life.instance.next_event() => match said {
                    Said::Event(event) => {
                        stage = stage.after(event, life, self.attestation)?;
                        if stage == Stage::Running {
                            reply(client, Reply::Progress(self.started_line.clone()));
                        }
                    }
                    Said::Nonsense(what) => return Err(End::Nonsense(what)),
                    Said::Closed => return Err(End::Vanished),
                },
                heartbeat = &mut heard, if !alive => {
                    heartbeat.map_err(End::Heartbeat)?;
                    alive = true;
                }
                () = &mut deadline => return Err(End::Late(self.time_limit)),
                request = requested(&mut life.end_requests) => return Err(End::Requested(request)),
                () = client.closed() => return Err(End::Abandoned),
                application = life.application_end.heard() => life.application = Some(application),
            }
        }
        life.settle()
    }
}

/// How far the VMM has come.
#[derive(Debug, PartialEq, Eq)]
enum Stage {
    /// With the image's signature, once it has been sent.
    Loading(Option<ImageSignature>),
    Measured,
    Running,
}

impl Stage {
    /// The next stage. Each event is accepted once, in its turn: measurements must not change once they are known.
    fn after<I: Instance>(
        self,
        event: Event,
        life: &mut Life<I>,
        attestation: &Attestation,
    ) -> Result<Self, End> {
        match (self, event) {
            (Self::Loading(None), Event::Signed(signature)) => Ok(Self::Loading(Some(signature))),
            (Self::Loading(signature), Event::Measured(measurements)) => {
                let measurements = well_formed(measurements)?;
                image_signature::check(signature.as_ref(), &measurements, SystemTime::now())?;
                life.start_security_module(attestation, &measurements)?;
                life.lease.set_measurements(measurements.clone());
                life.note.measurements = Some(measurements);
                if signature.is_some() {
                    life.instance.accept();
                }
                Ok(Self::Measured)
            }
            (Self::Measured, Event::Started) => Ok(Self::Running),
            (_, event) => Err(End::from_event(event)),
        }
    }
}

fn well_formed(measurements: Measurements) -> Result<Measurements, End> {
    let is_sha384 = |digest: &String| {
        digest.len() == 96
            && digest
                .bytes()
                .all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
    };
    let Measurements {
        pcr0,
        pcr1,
        pcr2,
        pcr8,
        ..
    } = &measurements;
    if [pcr0, pcr1, pcr2].into_iter().chain(pcr8).all(is_sha384) {
        return Ok(Measurements {
            hash_algorithm: Measurements::HASH_ALGORITHM.to_owned(),
            ..measurements
        });
    }
    Err(End::Nonsense(
        "measurements that are no SHA-384 digests".to_owned(),
    ))
}
