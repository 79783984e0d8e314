//! The life of one enclave, from launch to the return of everything it held.
//!
//! ```text
//!             launch            Measured, Started, heartbeat            end
//!   Prepared ───────► booting ──────────────────────────────► running ───────► gone
//!                        │                                                       ▲
//!                        └── any other end, the time limit, the client leaves ───┘
//! ```
//!
//! There is one way out: kill the process, wait until it is reaped (the kernel has then freed its memory), drop the
//! lease. Only after that is anybody told. While an enclave boots it belongs to the client that asked for it: if that
//! client leaves, the enclave is ended, so that an interrupted run-enclave leaves nothing behind.

use std::time::Duration;

use api::vmm::Event;
use api::{EnclaveRunInfo, Measurements, Reply};
use tokio::sync::{mpsc, watch};

use crate::end::End;
use crate::heartbeat::Heartbeat;
use crate::launcher::{Instance, Launcher, ProcessEnd, Said};
use crate::preparation::Prepared;
use crate::registry::{EndRequest, Lease};

/// How long a VMM that closed its socket may take to end by itself, so that its own exit status is seen.
const EXIT_GRACE: Duration = Duration::from_millis(500);

/// To the client that started the enclave: progress, then one final reply. Its other end is dropped if the client
/// leaves.
pub(crate) type Client = mpsc::UnboundedSender<Reply>;

/// Launches an enclave and stays with it to its end.
pub(crate) async fn supervise<L: Launcher>(prepared: Prepared, launcher: &L, client: Client) {
    let Prepared {
        lease,
        launch,
        heartbeat,
        console,
        time_limit,
    } = prepared;
    let id = launch.spec.enclave_id.clone();
    let started_line = started_line(&launch.spec);
    let instance = match launcher.launch(launch) {
        Ok(instance) => instance,
        Err(failure) => {
            let reason = failure.message.as_str();
            tracing::warn!(enclave = %id, reason, "the enclave could not be launched");
            drop((heartbeat, lease));
            return reply(&client, Reply::Error(failure));
        }
    };
    lease.set_process(instance.process_id());
    tracing::info!(enclave = %id, process_id = instance.process_id(), "launched");
    let mut life = Life {
        end_requests: lease.end_requests(),
        instance,
        lease,
    };
    let boot = Boot {
        heartbeat,
        time_limit,
        started_line,
    };
    match boot.run(&mut life, &client).await {
        Ok(info) => {
            let name = info.enclave_name.as_str();
            tracing::info!(enclave = %id, name, cid = info.enclave_cid, "running");
            reply(&client, Reply::EnclaveStarted(info));
            drop(client);
            let end = life.until_end().await;
            let process_end = life.finish(&end).await;
            let reason = end.in_words(&process_end);
            tracing::info!(enclave = %id, reason = reason.as_str(), "the enclave has ended");
        }
        Err(end) => {
            let process_end = life.finish(&end).await;
            let reason = end.in_words(&process_end);
            tracing::warn!(enclave = %id, reason = reason.as_str(), "the enclave did not boot");
            let failure = end.boot_failure(&reason, console.as_ref()).await;
            reply(&client, Reply::Error(failure));
        }
    }
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

/// A launched enclave.
struct Life<I> {
    instance: I,
    end_requests: watch::Receiver<Option<EndRequest>>,
    lease: Lease,
}

impl<I: Instance> Life<I> {
    /// Returns when a running enclave is to end or has ended.
    async fn until_end(&mut self) -> End {
        tokio::select! {
            said = self.instance.next_event() => match said {
                Said::Event(event) => End::from_event(event),
                Said::Nonsense(what) => End::Nonsense(what),
                Said::Closed => End::Vanished,
            },
            request = requested(&mut self.end_requests) => End::Requested(request),
        }
    }

    /// Ends the process if it still runs, and gives everything back.
    async fn finish(mut self, end: &End) -> ProcessEnd {
        if matches!(end, End::Vanished) {
            let _ = tokio::time::timeout(EXIT_GRACE, self.instance.wait()).await;
        }
        self.instance.kill();
        let process_end = self.instance.wait().await;
        drop(self.lease);
        process_end
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
struct Boot {
    heartbeat: Heartbeat,
    time_limit: Duration,
    started_line: String,
}

impl Boot {
    /// Returns when the enclave has booted, or why it has not.
    async fn run(self, life: &mut Life<impl Instance>, client: &Client) -> Result<EnclaveRunInfo, End> {
        let heard = self.heartbeat.heard();
        let deadline = tokio::time::sleep(self.time_limit);
        tokio::pin!(heard, deadline);
        let mut stage = Stage::Loading;
        let mut alive = false;
        while !(alive && stage == Stage::Running) {
            tokio::select! {
                said = life.instance.next_event() => match said {
                    Said::Event(event) => {
                        stage = stage.after(event, &life.lease)?;
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
            }
        }
        // A record without its enclave cannot be; if it were, nobody would want the enclave.
        life.lease.set_running().ok_or(End::Abandoned)
    }
}

/// How far the VMM has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Loading,
    Measured,
    Running,
}

impl Stage {
    /// The next stage. Each event is accepted once, in its turn: measurements must not change once they are known.
    fn after(self, event: Event, lease: &Lease) -> Result<Self, End> {
        match (self, event) {
            (Self::Loading, Event::Measured(measurements)) => {
                lease.set_measurements(well_formed(measurements)?);
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
