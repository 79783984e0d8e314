//! The daemon as a whole: built from a [`Config`], then run until told to stop.
//!
//! Building takes the run directory's lock, takes over the enclaves of the daemon before this one, and opens the client
//! socket; from then on clients can connect. Running serves them. Stopping refuses new clients, leaves or ends the enclaves
//! ([`Stop`]), and removes the socket. A client socket that a service manager has opened is neither opened nor removed.

use std::error::Error;
use std::io;
use std::os::unix::net::UnixListener as StdListener;
use std::sync::Arc;
use std::time::Duration;

use api::vmm::VsockBackend;
use api::{ErrorCode, Failure, Reply, frame};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;

use nsm::ParentIdentity;

use crate::admission::Machine;
use crate::admission::topology::TopologyError;
use crate::audit::Audit;
use crate::authority::{Authority, AuthorityError};
use crate::config::{Config, Limits};
use crate::connection;
use crate::ended::EndedEnclaves;
use crate::error_chain::chain_of;
use crate::foreign::Refused;
use crate::inheritance::{self, Inherited};
use crate::launcher::Launcher;
use crate::pace::Pace;
use crate::parent_vsock::ParentVsock;
use crate::peer::Peer;
use crate::places::Places;
use crate::registry::Registry;
use crate::run_directory::{RunDirectory, RunDirectoryError, group_id};
use crate::security_module::Attestation;
use crate::service_manager::{self, Pulse};
use crate::supervisor::{self, Left};
use crate::vmm_user::VmmUsers;

/// How long clients get at the end to take their last reply.
const FAREWELL: Duration = Duration::from_secs(2);

/// How long the daemon waits, at its end, for the kernel to take apart the last VMM.
const LAST_ENCLAVES: Duration = Duration::from_secs(30);

/// How long the daemon waits after accepting failed, which means that descriptors or memory are short.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why the daemon cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The run directory cannot be used.
    #[error("the run directory cannot be used")]
    RunDirectory(#[from] RunDirectoryError),
    /// The CPUs cannot be read.
    #[error("the machine's CPUs cannot be read")]
    Topology(#[from] TopologyError),
    /// Attestation documents cannot be signed.
    #[error("the authority for attestation cannot be used")]
    Authority(#[from] AuthorityError),
    /// What PCR 3 and 4 are to say cannot be said.
    #[error("attestation cannot name this machine")]
    Identity(#[from] nsm::IdentityError),
    /// Something of the operating system failed.
    #[error("{action} failed")]
    Io {
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

impl StartError {
    /// For `map_err`: `action` failed.
    pub fn io(action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, source }
    }
}

/// What is to become of the enclaves when the daemon stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// They go on, and the next daemon takes them over. Those that still boot are ended.
    Leave,
    /// They are ended.
    EndEnclaves,
}

/// What every connection and supervisor shares.
#[derive(Debug)]
pub(crate) struct Shared<L> {
    pub(crate) limits: Limits,
    pub(crate) heartbeat_timeout: Option<Duration>,
    pub(crate) vmm_users: VmmUsers,
    /// What carries the vsock of enclaves whose clients do not say; `None` if that is up to the machine.
    pub(crate) vsock: Option<VsockBackend>,
    pub(crate) parent_vsock: ParentVsock,
    pub(crate) machine: Machine,
    pub(crate) registry: Registry,
    pub(crate) launcher: L,
    pub(crate) run_directory: RunDirectory,
    pub(crate) attestation: Attestation,
    pub(crate) audit: Arc<Audit>,
    /// Places for clients that watch a console.
    pub(crate) watchers: Places,
    /// Places for clients that wait for the end of an enclave.
    pub(crate) waiters: Places,
    /// How often each user may ask.
    pub(crate) pace: Pace,
}

/// A daemon that clients can connect to.
#[derive(Debug)]
pub struct Daemon<L> {
    shared: Arc<Shared<L>>,
    listener: UnixListener,
}

impl<L: Launcher> Daemon<L> {
    /// Opens everything; clients come to the listener that was `passed`, if there is one. Must be called on a Tokio
    /// runtime.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn build(
        config: &Config,
        machine: Machine,
        launcher: L,
        passed: Option<StdListener>,
    ) -> Result<Self, StartError> {
        let group = group_id(&config.group_file, &config.socket_group);
        if group.is_none() {
            tracing::warn!(group = %config.socket_group, "no such group: only root can use the socket");
        }
        let mut run_directory = RunDirectory::open(&config.run_directory, group)?;
        let inherited =
            inheritance::take(run_directory.path()).map_err(StartError::io("reading the run directory"))?;
        let instance = machine.instance.to_string();
        let attestation = Attestation {
            authority: Arc::new(Authority::open(&config.authority, &instance, &config.region)?),
            parent: ParentIdentity::new(config.parent_role.as_deref(), &instance)?,
        };
        let listener = passed.map_or_else(|| run_directory.bind_client_socket(), Ok)?;
        listener
            .set_nonblocking(true)
            .and_then(|()| UnixListener::from_std(listener))
            .map_err(StartError::io("watching the client socket"))
            .map(|listener| {
                let parent_vsock = ParentVsock::default();
                if kernel_is_default(config, &machine)
                    && let Err(error) = parent_vsock.take_ports()
                {
                    tracing::error!(
                        error = chain_of(&error),
                        "enclaves that use the kernel's vsock cannot boot before it can"
                    );
                }
                let shared = Shared {
                    limits: config.limits,
                    heartbeat_timeout: config.heartbeat_timeout,
                    vmm_users: VmmUsers::from(config.first_vmm_user),
                    vsock: config.vsock,
                    parent_vsock,
                    machine,
                    registry: Registry::default(),
                    launcher,
                    run_directory,
                    attestation,
                    audit: Arc::new(Audit::start(config.audit_log.clone())),
                    watchers: Places::new(config.limits.watchers),
                    waiters: Places::new(config.limits.waiters),
                    pace: Pace::default(),
                };
                shared
                    .registry
                    .remember(EndedEnclaves::load(shared.run_directory.path()));
                shared.take_over(inherited);
                Self {
                    shared: Arc::new(shared),
                    listener,
                }
            })
    }

    /// Serves clients until `stop` is ready, then does what it says.
    pub async fn run(self, stop: impl Future<Output = Stop>) {
        let Self { shared, listener } = self;
        tracing::info!(
            run_directory = %shared.run_directory.path().display(),
            cpus = shared.machine.cpus.size(),
            "ready"
        );
        let mut connections = JoinSet::new();
        let stop = tokio::select! {
            () = accept(&listener, &shared, &mut connections) => Stop::Leave,
            stop = stop => stop,
        };
        tracing::info!(?stop, "shutting down");
        service_manager::stopping();
        drop(listener);
        shared.run_directory.remove_client_socket();
        end_enclaves(&shared.registry, stop).await;
        shared.registry.stop_events();
        let last_replies = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(FAREWELL, last_replies).await.is_err() {
            tracing::debug!("some clients did not take their last reply");
        }
        shared.audit.close();
        tracing::info!("stopped");
    }
}

/// Whether the kernel carries the vsock of enclaves whose clients do not say otherwise.
fn kernel_is_default(config: &Config, machine: &Machine) -> bool {
    match config.vsock {
        Some(backend) => backend == VsockBackend::Kernel,
        None => machine.vhost_vsock.exists(),
    }
}

impl<L: Launcher> Shared<L> {
    /// Takes over the enclaves of the daemon before this one. Those that have ended since are remembered as such.
    fn take_over(&self, inherited: Vec<Inherited>) {
        let ids: Vec<_> = inherited
            .iter()
            .map(|enclave| enclave.note.enclave.id.clone())
            .collect();
        let partitions = &self.machine.partitions;
        partitions.clear_all_but(&ids);
        for (Inherited { note, lives }, id) in inherited.into_iter().zip(ids) {
            let directory = self.run_directory.inherited_enclave(&id);
            let partition = partitions.inherited(&id, &note.enclave.cpu_ids, directory.path());
            let left = Left {
                note,
                directory,
                partition,
                lives,
            };
            match supervisor::resume(
                &self.registry,
                &self.launcher,
                &self.attestation,
                &self.parent_vsock,
                left,
            ) {
                Ok(true) => tracing::info!(enclave = %id, "taken over"),
                Ok(false) => tracing::info!(enclave = %id, "has ended while there was no daemon"),
                Err(error) => {
                    tracing::error!(enclave = %id, error = &error as &dyn Error, "cannot be taken over, and is ended");
                }
            }
        }
    }
}

async fn end_enclaves(registry: &Registry, stop: Stop) {
    let all_gone = async {
        for mut ending in registry.shut_down(stop == Stop::Leave) {
            ending.gone().await;
        }
    };
    if tokio::time::timeout(LAST_ENCLAVES, all_gone).await.is_err() {
        tracing::error!("some VMM processes do not end; their memory stays taken until they do");
    }
}

/// Serves every client in a task of its own. Never returns.
async fn accept<L: Launcher>(
    listener: &UnixListener,
    shared: &Arc<Shared<L>>,
    connections: &mut JoinSet<()>,
) {
    let mut pulse = Pulse::wanted();
    let places = Places::new(shared.limits.connections);
    let refused = Refused::default();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = pulse.due() => {
                let registry = shared.registry.clone();
                Pulse::beat(move || registry.describe().len());
                continue;
            }
        };
        // Those that have finished meanwhile no longer count.
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok((stream, _)) => match Peer::of(&stream) {
                Ok(client) => {
                    if let Some(place) = places.take(client) {
                        connections.spawn(connection::serve(stream, client, place, Arc::clone(shared)));
                    } else {
                        tell_of_the_crowd(&stream, client, shared);
                        close_refused(&refused, stream);
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "the kernel does not tell who a client is; it is left");
                    close_refused(&refused, stream);
                }
            },
            Err(error) => {
                tracing::warn!(%error, "accepting a client failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Tells a client that there are too many, if that takes no waiting.
fn tell_of_the_crowd<L>(stream: &UnixStream, client: Peer, shared: &Shared<L>) {
    let failure = Failure::new(
        ErrorCode::SocketError,
        "Too many clients are connected to the daemon, of this user or of all.",
    );
    shared.audit.trail(client).failed(&failure);
    if let Ok(bytes) = frame::encode(&Reply::Busy(failure)) {
        let _ = stream.try_write(&bytes);
    }
}

fn close_refused(refused: &Refused, stream: UnixStream) {
    match stream.into_std() {
        Ok(stream) => refused.close(stream.into()),
        Err(error) => {
            tracing::warn!(%error, "a refused client is closed without looking at what it has passed");
        }
    }
}
