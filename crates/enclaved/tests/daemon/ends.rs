//! Clients that wait for the end of an enclave.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use api::vmm::{Event, ExitReason};
use api::{EndedEnclave, ErrorCode, Reply, Request, Selector};

use crate::support::{Client, Parent, blocking, by_name, measurements, request};

fn wait_for(parent: &Parent, selector: Selector) -> Client {
    let mut client = parent.client();
    client.send(&Request::AwaitEnd(selector));
    client
}

async fn end(client: Client) -> EndedEnclave {
    match client.last_reply().await {
        Reply::EnclaveEnded(ended) => ended,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_end_is_told_with_the_applications_code_when_everything_is_free() {
    let mut parent = Parent::start();
    let (mut guest, info) = parent.boot(request("hello", 6)).await;
    let by_id = wait_for(&parent, Selector::Id(info.enclave_id.clone()));
    let path = guest.directory.join("vsock.sock_9001");
    blocking(move || {
        let mut stream = UnixStream::connect(path).unwrap();
        stream.write_all(b"exited 7\n").unwrap();
        stream.read_exact(&mut [0]).unwrap();
    })
    .await;
    guest.say(Event::Exited(ExitReason::Reset));
    guest.killed().await;

    let ended = end(by_id).await;

    assert_eq!(ended.run, info);
    assert_eq!(
        (ended.exit_code, ended.reason.as_str()),
        (Some(7), "its application ended with exit code 7")
    );
    parent.assert_nothing_is_held().await;
    // One that comes too late is told at once, also by the next daemon.
    let parent = parent.restart().await;
    assert_eq!(end(wait_for(&parent, by_name("hello"))).await, ended);
}

#[tokio::test]
async fn who_waits_while_the_daemon_is_replaced_asks_the_next_one() {
    let mut parent = Parent::start();
    let (mut guest, info) = parent.boot(request("hello", 2)).await;
    let waiting = wait_for(&parent, by_name("hello"));
    // Known for sure only once another request of later was answered.
    assert_eq!(parent.describe().await.len(), 1);

    let parent = parent.restart().await;
    assert_eq!(waiting.replies().await, [], "no answer is not an end");

    let waiting = wait_for(&parent, Selector::Id(info.enclave_id));
    let mut terminating = parent.client();
    terminating.send(&Request::TerminateEnclave(by_name("hello")));
    guest.killed().await;
    assert_eq!(end(waiting).await.reason, "it was terminated by request");
}

#[tokio::test]
async fn the_end_of_what_never_was_is_e11_or_e58_and_of_all_is_e14() {
    let parent = Parent::start();
    let refused = async |selector| wait_for(&parent, selector).failure().await.code;

    assert_eq!(
        refused(Selector::Id("i-0-enc1".into())).await,
        ErrorCode::SocketError
    );
    assert_eq!(refused(by_name("nobody")).await, ErrorCode::EnclaveNaming);
    assert_eq!(refused(Selector::All).await, ErrorCode::InvalidCommand);
}

#[tokio::test]
async fn a_client_that_has_left_when_its_enclave_has_booted_does_not_leave_it_behind() {
    let mut parent = Parent::start();
    // The client leaves and the heartbeat comes at the same time: whichever the daemon sees first.
    for _ in 0..10 {
        let mut client = parent.client();
        client.run(request("hello", 6));
        let mut guest = parent.guest().await;
        guest.say(Event::Measured(measurements()));
        guest.say(Event::Started);
        let mut heartbeat = UnixStream::connect(guest.directory.join("vsock.sock_9000")).unwrap();
        heartbeat.write_all(&[0xb7]).unwrap();
        drop(client);

        guest.killed().await;
        drop(guest);
        while !parent.enclave_directories().is_empty() {
            tokio::task::yield_now().await;
        }
        assert_eq!(parent.describe().await, []);
    }
}
