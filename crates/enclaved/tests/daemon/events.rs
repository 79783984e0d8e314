//! Clients that are told what becomes of enclaves.

use std::time::Duration;

use api::vmm::{Event, ExitReason};
use api::{EnclaveEvent, ErrorCode, EventKind, Failure, Reply, Request};
use enclaved::places::Room;

use crate::support::{Client, Parent, by_name, request, soon};

fn listen(parent: &Parent) -> Client {
    let mut client = parent.client();
    client.send(&Request::Events);
    client
}

async fn next(client: &Client) -> EnclaveEvent {
    match client.reply().await {
        Reply::Event(event) => event,
        other => panic!("{other:?}"),
    }
}

/// The next event is this one, of the enclave with this name.
#[track_caller]
fn assert_is(event: &EnclaveEvent, kind: EventKind, name: &str) {
    assert_eq!(
        (event.kind, event.enclave_name.as_str()),
        (kind, name),
        "{event:?}"
    );
}

#[tokio::test]
async fn a_client_hears_of_those_that_run_and_then_of_every_change_in_order() {
    let mut parent = Parent::start();
    let (mut first, info) = parent.boot(request("first", 2)).await;
    let client = listen(&parent);
    let present = next(&client).await;
    assert_is(&present, EventKind::Present, "first");
    assert_eq!(present.enclave_id, info.enclave_id);
    assert_eq!(u64::from(present.enclave_cid), info.enclave_cid);
    assert!(present.time > 1_700_000_000_000, "{present:?}");

    let (mut second, _) = parent.boot(request("second", 2)).await;
    assert_is(&next(&client).await, EventKind::Starting, "second");
    assert_is(&next(&client).await, EventKind::Running, "second");
    second.say(Event::Exited(ExitReason::TripleFault));
    second.killed().await;
    let ended = next(&client).await;
    assert_is(&ended, EventKind::Ended, "second");
    assert_eq!(
        (ended.reason.as_deref(), ended.exit_code),
        (Some("triple fault"), None)
    );

    let mut terminating = parent.client();
    terminating.send(&Request::TerminateEnclave(by_name("first")));
    assert_is(&next(&client).await, EventKind::Terminating, "first");
    first.killed().await;
    let ended = next(&client).await;
    assert_is(&ended, EventKind::Ended, "first");
    assert_eq!(ended.reason.as_deref(), Some("it was terminated by request"));
    // Whoever hears of the end finds everything free.
    parent.assert_nothing_is_held().await;
}

#[tokio::test]
async fn an_enclave_that_does_not_boot_ends_too() {
    let mut parent = Parent::start();
    let client = listen(&parent);
    // Nothing runs: only an answer to a later request shows that the client is known.
    let (_running, _) = parent.boot(request("running", 2)).await;
    while next(&client).await.kind != EventKind::Running {}

    let mut starting = parent.client();
    starting.run(request("broken", 2));
    let guest = parent.guest().await;
    guest.say(Event::Failed(Failure::new(ErrorCode::EifParsing, "no image")));

    assert_is(&next(&client).await, EventKind::Starting, "broken");
    let ended = next(&client).await;
    assert_is(&ended, EventKind::Ended, "broken");
    assert!(ended.reason.unwrap().contains("no image"));
}

#[tokio::test]
async fn a_client_that_does_not_listen_holds_up_nobody_and_is_told_what_it_has_lost() {
    // It is deaf for as long as all those rounds take.
    let mut parent = Parent::start_with(|config| config.limits.reply_time = Duration::from_mins(5));
    let deaf = listen(&parent);
    let (_first, _) = parent.boot(request(&"x".repeat(1000), 2)).await;
    // More than a socket and the daemon hold; each round is two events.
    for _ in 0..300 {
        let mut client = parent.client();
        client.run(request(&"y".repeat(1000), 2));
        let guest = parent.guest().await;
        guest.say(Event::Failed(Failure::new(ErrorCode::EifParsing, "no image")));
        client.failure().await;
    }

    let told = soon(async {
        loop {
            match deaf.reply().await {
                Reply::EventsLost(lost) => return lost,
                Reply::Event(_) => {}
                other => panic!("{other:?}"),
            }
        }
    });
    assert!(told.await > 0);
}

#[tokio::test]
async fn a_daemon_that_stops_ends_what_it_tells() {
    let mut parent = Parent::start();
    let (mut guest, _) = parent.boot(request("hello", 2)).await;
    let client = listen(&parent);
    assert_is(&next(&client).await, EventKind::Present, "hello");

    let stopping = tokio::spawn(parent.stop());
    guest.killed().await;
    assert_is(&next(&client).await, EventKind::Ended, "hello");
    assert_eq!(client.replies().await, []);
    stopping.await.unwrap();

    let mut parent = Parent::start();
    let (_guest, _) = parent.boot(request("hello", 2)).await;
    let client = listen(&parent);
    assert_is(&next(&client).await, EventKind::Present, "hello");
    let parent = parent.restart().await;
    assert_eq!(
        client.replies().await,
        [],
        "it goes on, so nothing has become of it"
    );
    assert_eq!(parent.describe().await.len(), 1);
}

#[tokio::test]
async fn listeners_beyond_the_limit_are_refused() {
    let mut parent = Parent::start_with(|config| config.limits.watchers = Room::without_shares(1));
    let (_guest, _) = parent.boot(request("hello", 2)).await;
    let first = listen(&parent);
    assert_is(&next(&first).await, EventKind::Present, "hello");

    let refused = listen(&parent).failure().await;

    assert_eq!(refused.code, ErrorCode::ConsoleConnection);
}
