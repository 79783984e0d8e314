//! One client connection: one request, its replies, the end.

use std::sync::Arc;
use std::time::Duration;

use api::{ErrorCode, Failure, Logs, MAX_IMAGE_METADATA, Pools, Reply, Request, RunEnclave, Selector};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;

use crate::admission::{self, CurrentPool, Image};
use crate::audit::Trail;
use crate::daemon::Shared;
use crate::foreign::{self, ForeignDescriptor, ForeignDescriptors};
use crate::launcher::Launcher;
use crate::peer::Peer;
use crate::places::Place;
use crate::preparation::{self, Order};
use crate::registry::{Awaited, Ending, Logged, Terminating, Watched};
use crate::supervisor;
use crate::vsock_carrier::VsockCarrier;
use crate::wire::{self, ReceiveError};

/// Bytes of a log that a client has to take in the time that it has for one reply.
const LOG_CHUNK: usize = 64 << 10;

/// A client, and the place that is free when nothing is left of it.
struct Client {
    peer: Peer,
    place: Arc<Place>,
}

/// Serves the connection of one client and closes it.
pub(crate) async fn serve<L: Launcher>(
    mut stream: UnixStream,
    peer: Peer,
    place: Place,
    daemon: Arc<Shared<L>>,
) {
    let client = Client {
        peer,
        place: Arc::new(place),
    };
    daemon.pace.wait(peer).await;
    converse(&mut stream, &client, &daemon).await;
    // The place is free when all is closed.
    foreign::close((stream, client.place));
}

async fn converse<L: Launcher>(stream: &mut UnixStream, client: &Client, daemon: &Arc<Shared<L>>) {
    let limit = daemon.limits.request_time;
    let received = match tokio::time::timeout(limit, wire::receive_request(stream, &client.place)).await {
        Ok(Err(ReceiveError::Nothing)) => return,
        Ok(received) => received.map_err(Failure::from),
        Err(_) => Err(Failure::new(
            ErrorCode::SocketError,
            format!("The request was not complete after {} s.", limit.as_secs_f32()),
        )),
    };
    let mut trail = daemon.audit.trail(client.peer);
    let answered = match received {
        Ok((request, descriptors)) => {
            trail.asked(kind(&request), &request);
            answer(stream, client, daemon, &mut trail, request, descriptors).await
        }
        Err(failure) => Err(failure),
    };
    if let Err(failure) = answered {
        trail.failed(&failure);
        tracing::info!(code = %failure.code, reason = failure.message.as_str(), "request refused");
        send(stream, daemon, &Reply::Error(failure)).await;
    }
}

/// Carries out the request and sends its replies; a failure is left to be sent by the caller.
async fn answer<L: Launcher>(
    stream: &mut UnixStream,
    client: &Client,
    daemon: &Arc<Shared<L>>,
    trail: &mut Trail,
    request: Request,
    descriptors: ForeignDescriptors,
) -> Result<(), Failure> {
    tracing::info!(user = client.peer.user, request = kind(&request), "request");
    let reply = match (request, descriptors.into_one()) {
        (Request::RunEnclave(request), Some(image)) => {
            return run(stream, client, daemon, trail, request, image).await;
        }
        (Request::RunEnclave(_), None) => {
            let message = "run-enclave needs the enclave image's descriptor, and none came with the request.";
            return Err(Failure::new(ErrorCode::InvalidCommand, message));
        }
        (_, Some(_)) => {
            let message = "A descriptor came with a request that takes none.";
            return Err(Failure::new(ErrorCode::InvalidCommand, message));
        }
        (Request::DescribeEnclaves, None) => Reply::Enclaves(daemon.registry.describe()),
        (Request::DescribeImages, None) => Reply::RunningImages(daemon.registry.describe_images()),
        (Request::DescribePools, None) => Reply::Pools(pools(daemon)?),
        (Request::AttestationRoot, None) => Reply::AttestationRoot(attestation_root(daemon)?),
        (Request::EndedEnclaves, None) => Reply::Ended(daemon.registry.ended()),
        (Request::TerminateEnclave(selector), None) => terminate(daemon, client, trail, &selector).await?,
        (Request::Console(selector), None) => {
            let watched = daemon.registry.console(&selector)?;
            return console(stream, client, daemon, trail, watched).await;
        }
        (Request::Logs(logs), None) => return self::logs(stream, client, daemon, trail, &logs).await,
        (Request::AwaitEnd(selector), None) => {
            return await_end(stream, client, daemon, trail, &selector).await;
        }
        (Request::Events, None) => return events(stream, client, daemon, trail).await,
    };
    trail.granted();
    send(stream, daemon, &reply).await;
    Ok(())
}

/// Boots an enclave, tells the client how it goes, and ends the enclave if the client leaves meanwhile.
async fn run<L: Launcher>(
    stream: &mut UnixStream,
    client: &Client,
    daemon: &Arc<Shared<L>>,
    trail: &mut Trail,
    request: RunEnclave,
    image: ForeignDescriptor,
) -> Result<(), Failure> {
    check_metadata(request.image_metadata.as_deref())?;
    let image = accept_image(image, daemon.limits.request_time).await?;
    let pool = CurrentPool::take(&daemon.machine.cpus, daemon.run_directory.path())?;
    let kvm = admission::check(&request, &image, &daemon.machine, &pool.cpus)?;
    let vsock = VsockCarrier::open(request.vsock.or(daemon.vsock), &daemon.machine.vhost_vsock)?;
    send(
        stream,
        daemon,
        &Reply::Progress("Start allocating memory...".to_owned()),
    )
    .await;
    let (lease, grant) = daemon.registry.admit(
        &request,
        &daemon.machine,
        &pool.cpus,
        vsock.backend(),
        client.peer.user,
    )?;
    tracing::info!(enclave = %grant.id, name = grant.name.as_str(), cid = grant.cid, cpus = ?grant.cpus.cpu_ids, vsock = ?vsock.backend(), "admitted");
    trail.about(&grant.id, &grant.name);
    let order = Order {
        image,
        kvm,
        image_metadata: request.image_metadata,
        debug_mode: request.debug_mode,
        time_limit: daemon.heartbeat_timeout,
        users: daemon.vmm_users,
        vsock,
        parent_vsock: daemon.parent_vsock.clone(),
        pool_lock: pool.lock,
    };
    let prepared = preparation::prepare(
        lease,
        grant,
        order,
        &daemon.run_directory,
        &daemon.machine.partitions,
    )?;
    let (replies, mut from_supervisor) = mpsc::unbounded_channel();
    let supervising = Arc::clone(daemon);
    tokio::spawn(async move {
        supervisor::supervise(prepared, &supervising.launcher, &supervising.attestation, replies).await;
    });
    let mut client_is_there = true;
    loop {
        let reply = tokio::select! {
            reply = from_supervisor.recv() => reply,
            () = wire::hung_up(stream, &client.place), if client_is_there => {
                client_is_there = false;
                // Tells the supervisor. What it has said before is still to come.
                from_supervisor.close();
                continue;
            }
        };
        let Some(reply) = reply else {
            // Unless it has been told more.
            trail.failed(&client_left());
            return Ok(());
        };
        match &reply {
            Reply::EnclaveStarted(enclave) => {
                if let Some(pcr0) = daemon.registry.pcr0(&enclave.enclave_id) {
                    trail.measured(pcr0);
                }
                if client_is_there {
                    trail.granted();
                }
            }
            Reply::Error(failure) => trail.failed(failure),
            _ => {}
        }
        let taken = client_is_there && send(stream, daemon, &reply).await;
        if let (false, Reply::EnclaveStarted(enclave)) = (taken, &reply) {
            // The client left just as its enclave had booted, and does not know of it.
            let enclave = Selector::Id(enclave.enclave_id.clone());
            let _ = daemon.registry.terminate(&enclave, client.peer);
        }
    }
}

/// What is written down of an enclave whose client has not waited for it.
fn client_left() -> Failure {
    let message = "The client left before the enclave had booted, and it was ended.";
    Failure::new(ErrorCode::ProcessConnectionFailure, message)
}

/// It is kept as it is, for as long as the enclave runs.
fn check_metadata(text: Option<&str>) -> Result<(), Failure> {
    if text.is_some_and(|text| text.len() > MAX_IMAGE_METADATA) {
        let message = format!("The image's metadata has more than {MAX_IMAGE_METADATA} bytes.");
        return Err(Failure::new(ErrorCode::InvalidCommand, message));
    }
    Ok(())
}

fn pools<L: Launcher>(daemon: &Shared<L>) -> Result<Pools, Failure> {
    let pool = CurrentPool::take(&daemon.machine.cpus, daemon.run_directory.path())?;
    Ok(Pools {
        cores: daemon.registry.cores(&pool.cpus),
        hugepages: daemon.machine.memory.pools(),
    })
}

fn attestation_root<L: Launcher>(daemon: &Shared<L>) -> Result<String, Failure> {
    daemon.attestation.authority.root_pem().map_err(|error| {
        Failure::caused_by(
            ErrorCode::Unspecified,
            "The root of attestation cannot be told",
            &error,
        )
    })
}

/// Looking at a file can take for ever, if it is on a file system that somebody's process serves; the daemon does not
/// wait longer than for the rest of a request.
async fn accept_image(file: ForeignDescriptor, limit: Duration) -> Result<Image, Failure> {
    let looking = tokio::task::spawn_blocking(|| Image::accept(file));
    match tokio::time::timeout(limit, looking).await {
        Ok(Ok(accepted)) => accepted,
        Ok(Err(_)) | Err(_) => Err(Failure::new(
            ErrorCode::EifParsing,
            "The enclave image's file system does not answer.",
        )),
    }
}

async fn terminate<L: Launcher>(
    daemon: &Shared<L>,
    client: &Client,
    trail: &mut Trail,
    selector: &Selector,
) -> Result<Reply, Failure> {
    let Terminating { endings, refused } = daemon.registry.terminate(selector, client.peer)?;
    for Ending { termination, .. } in &endings {
        trail.about(&termination.enclave_id, &termination.enclave_name);
    }
    if !refused.is_empty() {
        trail.failed(&of_others(refused.len()));
    }
    let mut terminated = refused;
    for mut ending in endings {
        ending.gone().await;
        terminated.push(ending.termination);
    }
    Ok(Reply::Terminated(terminated))
}

/// What is written down of a wish for the end of all enclaves, of which some are not the client's. The client tells its user.
fn of_others(count: usize) -> Failure {
    let message = format!("{count} go on, which were started by other users.");
    Failure::new(ErrorCode::ProcessConnectionFailure, message)
}

async fn console<L: Launcher>(
    stream: &mut UnixStream,
    client: &Client,
    daemon: &Shared<L>,
    trail: &mut Trail,
    mut watched: Watched,
) -> Result<(), Failure> {
    let _place = place(daemon, client)?;
    trail.about(&watched.facts.id, &watched.facts.name);
    trail.granted();
    let enclave_cid = watched.facts.cid;
    send(stream, daemon, &Reply::ConsoleAttached { enclave_cid }).await;
    let (incoming, mut outgoing) = stream.split();
    let shown = async {
        match watched.console.show(&mut outgoing).await {
            // Whoever sees the console end finds CPUs and memory free.
            Ok(()) => watched.gone().await,
            Err(error) => tracing::debug!(%error, "a console watcher left"),
        }
    };
    tokio::select! {
        () = shown => {}
        () = wire::hung_up(incoming.as_ref(), &client.place) => {}
    }
    Ok(())
}

/// Room for a client that stays.
fn place<L: Launcher>(daemon: &Shared<L>, client: &Client) -> Result<Place, Failure> {
    daemon.watchers.take(client.peer).ok_or_else(|| {
        let message = "Too many clients watch enclaves; end one of them.";
        Failure::new(ErrorCode::ConsoleConnection, message)
    })
}

/// Gives what an enclave has printed, and, if that is wanted, what it prints from here on.
async fn logs<L: Launcher>(
    stream: &mut UnixStream,
    client: &Client,
    daemon: &Shared<L>,
    trail: &mut Trail,
    logs: &Logs,
) -> Result<(), Failure> {
    let logged = match daemon.registry.logs(&logs.enclave)? {
        Logged::Running(watched) if logs.follow => {
            return console(stream, client, daemon, trail, watched).await;
        }
        logged => logged,
    };
    // Before the log takes memory.
    let _place = place(daemon, client)?;
    let (enclave_cid, kept) = match logged {
        Logged::Running(watched) => {
            trail.about(&watched.facts.id, &watched.facts.name);
            (watched.facts.cid, watched.console.kept())
        }
        Logged::Ended { run, history } => {
            trail.about(&run.enclave_id, &run.enclave_name);
            let kept = history.read().map_err(|error| {
                let context = "The enclave's console cannot be read";
                Failure::caused_by(ErrorCode::ConsoleRead, context, &error)
            })?;
            (u32::try_from(run.enclave_cid).unwrap_or(u32::MAX), kept)
        }
    };
    trail.granted();
    if send(stream, daemon, &Reply::ConsoleAttached { enclave_cid }).await {
        for chunk in kept.chunks(LOG_CHUNK) {
            let written = tokio::time::timeout(daemon.limits.reply_time, stream.write_all(chunk)).await;
            if !matches!(written, Ok(Ok(()))) {
                tracing::debug!("a client did not take the log");
                break;
            }
        }
    }
    Ok(())
}

/// Answers once the enclave has ended. If it goes on without this daemon, the client is to ask the next one.
async fn await_end<L: Launcher>(
    stream: &mut UnixStream,
    client: &Client,
    daemon: &Shared<L>,
    trail: &mut Trail,
    selector: &Selector,
) -> Result<(), Failure> {
    let Some(_place) = daemon.waiters.take(client.peer) else {
        let message = "Too many clients wait for enclaves to end.";
        let failure = Failure::new(ErrorCode::SocketError, message);
        trail.failed(&failure);
        send(stream, daemon, &Reply::Busy(failure)).await;
        return Ok(());
    };
    let awaited = daemon.registry.await_end(selector)?;
    match &awaited {
        Awaited::Ended(ended) => trail.about(&ended.run.enclave_id, &ended.run.enclave_name),
        Awaited::Running { facts, .. } => trail.about(&facts.id, &facts.name),
    }
    trail.granted();
    let ended = match awaited {
        Awaited::Ended(ended) => Some(ended),
        Awaited::Running { facts, mut record } => {
            let gone = async { while record.changed().await.is_ok() {} };
            tokio::select! {
                () = gone => daemon.registry.ended_with_id(&facts.id),
                () = wire::hung_up(stream, &client.place) => None,
            }
        }
    };
    if let Some(ended) = ended {
        send(stream, daemon, &Reply::EnclaveEnded(ended)).await;
    }
    Ok(())
}

/// Tells what becomes of enclaves until the client or the daemon leaves. A client that does not take what it is told is left.
async fn events<L: Launcher>(
    stream: &mut UnixStream,
    client: &Client,
    daemon: &Shared<L>,
    trail: &mut Trail,
) -> Result<(), Failure> {
    let _place = place(daemon, client)?;
    trail.granted();
    let (present, changes) = daemon.registry.events();
    for event in present {
        if !send(stream, daemon, &Reply::Event(event)).await {
            return Ok(());
        }
    }
    let Some(mut changes) = changes else {
        return Ok(());
    };
    loop {
        let told = tokio::select! {
            told = changes.recv() => told,
            () = wire::hung_up(stream, &client.place) => return Ok(()),
        };
        let reply = match told {
            Ok(event) => Reply::Event(event),
            Err(RecvError::Lagged(lost)) => Reply::EventsLost(lost),
            Err(RecvError::Closed) => return Ok(()),
        };
        if !send(stream, daemon, &reply).await {
            return Ok(());
        }
    }
}

/// Sends one reply in bounded time; whether the client has taken it. One that does not is not worth a word: what it asked for is
/// done.
async fn send<L: Launcher>(stream: &mut UnixStream, daemon: &Shared<L>, reply: &Reply) -> bool {
    let sent = tokio::time::timeout(daemon.limits.reply_time, wire::send_reply(stream, reply)).await;
    let taken = matches!(sent, Ok(Ok(())));
    if !taken {
        tracing::debug!("a client did not take its reply");
    }
    taken
}

/// A word for the log.
fn kind(request: &Request) -> &'static str {
    match request {
        Request::RunEnclave(_) => "run-enclave",
        Request::DescribeEnclaves => "describe-enclaves",
        Request::DescribeImages => "describe-images",
        Request::DescribePools => "describe-pools",
        Request::EndedEnclaves => "ended-enclaves",
        Request::TerminateEnclave(_) => "terminate-enclave",
        Request::Console(_) => "console",
        Request::Logs(_) => "logs",
        Request::AwaitEnd(_) => "await-end",
        Request::Events => "events",
        Request::AttestationRoot => "attestation-root",
    }
}
