//! One client connection: one request, its replies, the end.

use std::sync::Arc;
use std::time::Duration;

use api::{ErrorCode, Failure, MAX_IMAGE_METADATA, Pools, Reply, Request, RunEnclave, Selector};
use tokio::net::UnixStream;
use tokio::sync::mpsc;

use crate::admission::{self, CurrentPool, Image};
use crate::daemon::Shared;
use crate::foreign::{self, ForeignDescriptor};
use crate::launcher::Launcher;
use crate::preparation::{self, Order};
use crate::supervisor;
use crate::wire::{self, ReceiveError};

/// Serves the connection of one client and closes it.
pub(crate) async fn serve<L: Launcher>(mut stream: UnixStream, daemon: Arc<Shared<L>>) {
    converse(&mut stream, &daemon).await;
    foreign::close(stream);
}

async fn converse<L: Launcher>(stream: &mut UnixStream, daemon: &Arc<Shared<L>>) {
    let limit = daemon.limits.request_time;
    let received = match tokio::time::timeout(limit, wire::receive_request(stream)).await {
        Ok(Err(ReceiveError::Nothing)) => return,
        Ok(received) => received.map_err(Failure::from),
        Err(_) => Err(Failure::new(
            ErrorCode::SocketError,
            format!("The request was not complete after {} s.", limit.as_secs_f32()),
        )),
    };
    let answered = match received {
        Ok((request, descriptors)) => answer(stream, daemon, request, descriptors).await,
        Err(failure) => Err(failure),
    };
    if let Err(failure) = answered {
        tracing::info!(code = %failure.code, reason = failure.message.as_str(), "request refused");
        send(stream, daemon, &Reply::Error(failure)).await;
    }
}

/// Carries out the request and sends its replies; a failure is left to be sent by the caller.
async fn answer<L: Launcher>(
    stream: &mut UnixStream,
    daemon: &Arc<Shared<L>>,
    request: Request,
    descriptors: Vec<ForeignDescriptor>,
) -> Result<(), Failure> {
    tracing::info!(user = ?user(stream), request = kind(&request), "request");
    let reply = match (request, descriptors.into_iter().next()) {
        (Request::RunEnclave(request), Some(image)) => return run(stream, daemon, request, image).await,
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
        (Request::TerminateEnclave(selector), None) => terminate(daemon, &selector).await?,
        (Request::Console(selector), None) => return console(stream, daemon, &selector).await,
    };
    send(stream, daemon, &reply).await;
    Ok(())
}

/// Boots an enclave, tells the client how it goes, and ends the enclave if the client leaves meanwhile.
async fn run<L: Launcher>(
    stream: &mut UnixStream,
    daemon: &Arc<Shared<L>>,
    request: RunEnclave,
    image: ForeignDescriptor,
) -> Result<(), Failure> {
    check_metadata(request.image_metadata.as_deref())?;
    let image = accept_image(image, daemon.limits.request_time).await?;
    let pool = CurrentPool::take(&daemon.machine.cpus, daemon.run_directory.path())?;
    let kvm = admission::check(&request, &image, &daemon.machine, &pool.cpus)?;
    send(
        stream,
        daemon,
        &Reply::Progress("Start allocating memory...".to_owned()),
    )
    .await;
    let (lease, grant) = daemon.registry.admit(&request, &daemon.machine, &pool.cpus)?;
    tracing::info!(enclave = %grant.id, name = grant.name.as_str(), cid = grant.cid, cpus = ?grant.cpus.cpu_ids, "admitted");
    let order = Order {
        image,
        kvm,
        image_metadata: request.image_metadata,
        debug_mode: request.debug_mode,
        time_limit: daemon.heartbeat_timeout,
        users: daemon.vmm_users,
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
    loop {
        let reply = tokio::select! {
            reply = from_supervisor.recv() => reply,
            // Dropping the receiver tells the supervisor.
            () = wire::hung_up(stream) => None,
        };
        match reply {
            Some(reply) => send(stream, daemon, &reply).await,
            None => return Ok(()),
        }
    }
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

async fn terminate<L: Launcher>(daemon: &Shared<L>, selector: &Selector) -> Result<Reply, Failure> {
    let mut terminated = Vec::new();
    for mut ending in daemon.registry.terminate(selector)? {
        ending.gone().await;
        terminated.push(ending.termination);
    }
    Ok(Reply::Terminated(terminated))
}

async fn console<L: Launcher>(
    stream: &mut UnixStream,
    daemon: &Shared<L>,
    selector: &Selector,
) -> Result<(), Failure> {
    let mut watched = daemon.registry.console(selector)?;
    let _place = daemon.watchers.try_acquire().map_err(|_| {
        let message = "Too many consoles are being watched; close one.";
        Failure::new(ErrorCode::ConsoleConnection, message)
    })?;
    let enclave_cid = watched.enclave_cid;
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
        () = wire::hung_up(incoming.as_ref()) => {}
    }
    Ok(())
}

/// Sends one reply in bounded time. A client that does not take it is not worth a word: what it asked for is done.
async fn send<L: Launcher>(stream: &mut UnixStream, daemon: &Shared<L>, reply: &Reply) {
    let sent = tokio::time::timeout(daemon.limits.reply_time, wire::send_reply(stream, reply)).await;
    if !matches!(sent, Ok(Ok(()))) {
        tracing::debug!("a client did not take its reply");
    }
}

/// The client's user, by the kernel's word.
fn user(stream: &UnixStream) -> Option<u32> {
    stream.peer_cred().ok().map(|credentials| credentials.uid())
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
        Request::AttestationRoot => "attestation-root",
    }
}
