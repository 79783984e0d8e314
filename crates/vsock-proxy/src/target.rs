//! A target at work: accepts, connects to the other side, and has the two relayed.
//!
//! The number of its connections is limited. Whoever comes when all are taken waits in the listener's backlog, which the
//! kernel bounds.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::configuration::{Allowlist, TargetConfiguration};
use crate::counters::Counters;
use crate::enclave_side::{EnclaveAddress, EnclaveListener, ListenAddress};
use crate::error::StartError;
use crate::log_limit::LogLimit;
use crate::relay::relay;
use crate::remote::{Remote, RemoteError};
use crate::resolve::Family;

/// Pause after accepting failed, which means that descriptors or memory are short.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// At most once in this time it is said that all connections are taken.
const FULL_INTERVAL: Duration = Duration::from_mins(1);

/// Likewise, why a connection has failed: whoever connects may do so as often as they like. `RUST_LOG=debug` tells all.
const FAILURE_INTERVAL: Duration = Duration::from_secs(1);

/// What one target does, and has done.
#[derive(Debug)]
pub(crate) struct Target {
    route: Route,
    most_connections: usize,
    free: Arc<Semaphore>,
    counters: Counters,
    full: LogLimit,
    failures: LogLimit,
}

#[derive(Debug)]
enum Route {
    Outbound {
        address: ListenAddress,
        listener: EnclaveListener,
        remote: Arc<Remote>,
    },
    Inbound {
        address: SocketAddr,
        listener: TcpListener,
        enclave: EnclaveAddress,
    },
}

/// A connection that was accepted.
enum Accepted {
    Enclave(UnixStream),
    Client(TcpStream),
}

/// Why a connection has no other side.
#[derive(Debug, thiserror::Error)]
enum ConnectError {
    #[error(transparent)]
    Remote(#[from] RemoteError),
    #[error("the enclave cannot be connected to: {0}")]
    Enclave(#[source] io::Error),
}

impl Target {
    /// Listens, if the server is allowed.
    pub(crate) async fn start(
        configuration: TargetConfiguration,
        allowlist: &Arc<Allowlist>,
        family: Family,
        most_connections: usize,
    ) -> Result<Self, StartError> {
        let route = match configuration {
            TargetConfiguration::Outbound { listen, remote } => {
                let named = allowlist.names(&remote);
                let remote = Arc::new(Remote::new(remote, family, Arc::clone(allowlist)));
                check(&remote, named).await?;
                Route::Outbound {
                    listener: EnclaveListener::bind(&listen).map_err(cannot_listen(&listen))?,
                    address: listen,
                    remote,
                }
            }
            TargetConfiguration::Inbound { listen, enclave } => {
                let listener = TcpListener::bind(listen).await.map_err(cannot_listen(&listen))?;
                Route::Inbound {
                    address: listener.local_addr().unwrap_or(listen),
                    listener,
                    enclave,
                }
            }
        };
        Ok(Self {
            route,
            most_connections,
            // A limit beyond what a semaphore counts is none.
            free: Arc::new(Semaphore::new(most_connections.min(Semaphore::MAX_PERMITS))),
            counters: Counters::default(),
            full: LogLimit::once_in(FULL_INTERVAL),
            failures: LogLimit::once_in(FAILURE_INTERVAL),
        })
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Never returns.
    pub(crate) async fn serve(self: Arc<Self>) {
        loop {
            if self.free.available_permits() == 0 && self.full.allows() {
                let most = self.most_connections;
                tracing::warn!(target = %self, "all {most} connections are taken; more wait");
            }
            // The semaphore is never closed.
            let Ok(permit) = Arc::clone(&self.free).acquire_owned().await else {
                return;
            };
            match self.route.accept().await {
                Ok((accepted, caller)) => {
                    tokio::spawn(Arc::clone(&self).pass_on(accepted, caller, permit));
                }
                // The caller has given up already.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    tracing::warn!(target = %self, %error, "accepting a connection failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn pass_on(self: Arc<Self>, accepted: Accepted, caller: String, _permit: OwnedSemaphorePermit) {
        Counters::add_one(&self.counters.accepted);
        match self.route.connect(accepted).await {
            Ok((enclave, tcp)) => {
                tracing::debug!(target = %self, caller, "connected");
                match relay(enclave, tcp, &self.counters).await {
                    Ok(()) => tracing::debug!(target = %self, caller, "ended"),
                    Err(error) => tracing::debug!(target = %self, caller, %error, "broke"),
                }
            }
            Err(error) => {
                Counters::add_one(&self.counters.failed);
                if self.failures.allows() {
                    tracing::warn!(target = %self, caller, %error, "a connection was closed");
                } else {
                    tracing::debug!(target = %self, caller, %error, "a connection was closed");
                }
            }
        }
        Counters::add_one(&self.counters.ended);
    }
}

/// A name on the allowlist may take as long as it likes to be resolved.
async fn check(remote: &Arc<Remote>, named: bool) -> Result<(), StartError> {
    if named {
        let remote = Arc::clone(remote);
        tokio::spawn(async move { remote.check().await });
        return Ok(());
    }
    remote.check().await.map_err(|source| StartError::Remote {
        remote: remote.to_string(),
        source,
    })
}

fn cannot_listen(address: &impl fmt::Display) -> impl FnOnce(io::Error) -> StartError {
    let address = address.to_string();
    move |source| StartError::Listen { address, source }
}

impl Route {
    /// A connection, and who made it.
    async fn accept(&self) -> io::Result<(Accepted, String)> {
        match self {
            Self::Outbound { listener, .. } => {
                let (stream, caller) = listener.accept().await?;
                Ok((Accepted::Enclave(stream), caller))
            }
            Self::Inbound { listener, .. } => {
                let (stream, caller) = listener.accept().await?;
                Ok((Accepted::Client(stream), caller.to_string()))
            }
        }
    }

    /// Both sides of a connection that was accepted. If there is no other side, it is closed.
    async fn connect(&self, accepted: Accepted) -> Result<(UnixStream, TcpStream), ConnectError> {
        match (self, accepted) {
            (Self::Outbound { remote, .. }, Accepted::Enclave(stream)) => {
                Ok((stream, remote.connect().await?))
            }
            (Self::Inbound { enclave, .. }, Accepted::Client(stream)) => {
                Ok((enclave.connect().await.map_err(ConnectError::Enclave)?, stream))
            }
            _ => Err(ConnectError::Enclave(io::ErrorKind::Unsupported.into())),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.route {
            Route::Outbound { address, remote, .. } => write!(f, "{address} -> {remote}"),
            Route::Inbound { address, enclave, .. } => write!(f, "{address} -> {enclave}"),
        }
    }
}
