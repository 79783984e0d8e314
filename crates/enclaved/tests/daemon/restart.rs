//! What the next daemon knows of the enclaves of the one before it.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use api::vmm::{Event, ExitReason};
use api::{EndedEnclave, ErrorCode, Reply, Request, RunEnclave, Selector};

use crate::support::{Guest, Parent, blocking, by_name, debug_request, request, soon};

async fn ended(parent: &Parent) -> Vec<EndedEnclave> {
    match parent.ask(Request::EndedEnclaves).await {
        Reply::Ended(enclaves) => enclaves,
        other => panic!("{other:?}"),
    }
}

/// Says how the application ended, as init does, and waits for the answer.
async fn say_application_end(guest: &Guest, line: &'static [u8]) {
    let path = guest.directory.join("vsock.sock_9001");
    blocking(move || {
        let mut stream = UnixStream::connect(path).unwrap();
        stream.write_all(line).unwrap();
        stream.read_exact(&mut [0]).unwrap();
    })
    .await;
}

#[tokio::test]
async fn enclaves_go_on_with_all_they_hold_when_the_daemon_is_replaced() {
    let mut parent = Parent::start();
    let (_first, _) = parent.boot(request("hello", 2)).await;
    let wanted = RunEnclave {
        enclave_cid: Some(500),
        ..debug_request("watched")
    };
    let (_second, _) = parent.boot(wanted).await;
    let before = parent.describe().await;
    assert_eq!(before.len(), 2);

    let mut parent = parent.restart().await;

    assert_eq!(parent.describe().await, before);
    // Names, CIDs and CPUs are still taken, and what is left can be had.
    let (_third, third) = parent.boot(request("hello", 2)).await;
    assert_eq!(third.enclave_name, "hello_1");
    assert_eq!(third.cpu_ids, [3, 7]);
    assert!(
        third.enclave_cid > 500,
        "an ended enclave's CID is not used again soon"
    );
    let mut client = parent.client();
    client.run(request("one too many", 2));
    assert_eq!(client.failure().await.code, ErrorCode::IoctlFailure);
}

#[tokio::test]
async fn what_an_image_says_of_itself_is_kept_as_it_is_and_survives_the_daemon() {
    let mut parent = Parent::start();
    let text = "{\"ImageName\": \"hello\"}  as it is, JSON or not";
    let wanted = RunEnclave {
        image_metadata: Some(text.into()),
        ..request("hello", 2)
    };
    let (_first, info) = parent.boot(wanted).await;
    let (_second, _) = parent.boot(request("says nothing", 2)).await;
    let parent = parent.restart().await;

    let Reply::RunningImages(images) = parent.ask(Request::DescribeImages).await else {
        panic!("no images");
    };

    let metadata: Vec<_> = images.iter().map(|image| image.metadata.as_deref()).collect();
    assert_eq!(metadata, [Some(text), None]);
    assert_eq!(images[0].enclave.run, info);
    let mut client = parent.client();
    client.run(RunEnclave {
        image_metadata: Some("x".repeat(api::MAX_IMAGE_METADATA + 1)),
        ..request("too much to say", 2)
    });
    assert_eq!(client.failure().await.code, ErrorCode::InvalidCommand);
}

#[tokio::test]
async fn the_pool_shows_who_holds_which_core() {
    let mut parent = Parent::start();
    let (_guest, info) = parent.boot(request("hello", 2)).await;
    let parent = parent.restart().await;

    let Reply::Pools(pools) = parent.ask(Request::DescribePools).await else {
        panic!("no pools");
    };

    let cores: Vec<_> = pools
        .cores
        .into_iter()
        .map(|core| (core.node, core.cpus, core.enclave_id, core.enclave_name))
        .collect();
    assert_eq!(
        cores,
        [
            (0, vec![1, 5], Some(info.enclave_id), Some("hello".to_owned())),
            (1, vec![2, 6], None, None),
            (1, vec![3, 7], None, None),
        ]
    );
}

#[tokio::test]
async fn an_enclave_that_was_taken_over_ends_like_any_other() {
    let mut parent = Parent::start();
    let (mut first, _) = parent.boot(request("terminated", 2)).await;
    let (mut second, _) = parent.boot(request("by itself", 2)).await;
    let mut parent = parent.restart().await.restart().await;

    let mut client = parent.client();
    client.send(&Request::TerminateEnclave(by_name("terminated")));
    first.killed().await;
    assert!(matches!(client.last_reply().await, Reply::Terminated(all) if all.len() == 1));

    say_application_end(&second, b"exited 3\n").await;
    second.say(Event::Exited(ExitReason::Reset));
    second.killed().await;
    while !parent.describe().await.is_empty() {
        tokio::task::yield_now().await;
    }
    let reasons: Vec<_> = ended(&parent)
        .await
        .into_iter()
        .map(|enclave| (enclave.run.enclave_name, enclave.reason, enclave.exit_code))
        .collect();
    assert_eq!(
        reasons,
        [
            ("terminated".into(), "it was terminated by request".into(), None),
            (
                "by itself".into(),
                "its application ended with exit code 3".into(),
                Some(3)
            ),
        ]
    );
    parent.assert_nothing_is_held().await;
}

#[tokio::test]
async fn an_enclave_that_still_boots_ends_with_its_daemon() {
    let mut parent = Parent::start();
    let mut client = parent.client();
    client.run(request("hello", 2));
    let mut guest = parent.guest().await;

    let restarting = tokio::spawn(parent.restart());
    guest.killed().await;
    let failure = client.failure().await;
    let mut parent = soon(restarting).await.unwrap();

    assert_eq!(failure.code, ErrorCode::EnclaveBootFailure);
    assert!(failure.message.contains("shutting down"), "{}", failure.message);
    parent.assert_nothing_is_held().await;
}

#[tokio::test]
async fn a_console_has_its_history_across_daemons() {
    let mut parent = Parent::start();
    let (guest, _) = parent.boot(debug_request("hello")).await;
    guest.print(b"before, ");
    let mut watcher = parent.client();
    watcher.send(&Request::Console(by_name("hello")));
    assert!(matches!(watcher.reply().await, Reply::ConsoleAttached { .. }));
    assert_eq!(watcher.bytes(8).await, b"before, ");

    let parent = parent.restart().await;
    guest.print(b"after");

    let mut watcher = parent.client();
    watcher.send(&Request::Console(by_name("hello")));
    assert!(matches!(watcher.reply().await, Reply::ConsoleAttached { .. }));
    assert_eq!(watcher.bytes(13).await, b"before, after");
}

#[tokio::test]
async fn ended_enclaves_are_remembered_with_their_last_words() {
    let mut parent = Parent::start();
    let (mut guest, info) = parent.boot(debug_request("hello")).await;
    for line in 0..30 {
        guest.print(format!("line {line}\n").as_bytes());
    }
    guest.say(Event::Exited(ExitReason::TripleFault));
    guest.killed().await;
    // The last copy of the console's pipe is gone with the guest.
    while ended(&parent).await.is_empty() {
        tokio::task::yield_now().await;
    }

    let mut parent = parent.restart().await;

    let ended = ended(&parent).await;
    assert_eq!(ended.len(), 1);
    assert_eq!(ended[0].run, info);
    assert_eq!(
        (ended[0].reason.as_str(), ended[0].exit_code),
        ("triple fault", None)
    );
    assert!(ended[0].ended_at >= ended[0].started_at);
    assert_eq!(ended[0].console.len(), 20);
    assert_eq!(ended[0].console.last().map(String::as_str), Some("line 29"));
    let unknown = parent
        .ask(Request::TerminateEnclave(Selector::Id(info.enclave_id)))
        .await;
    assert!(matches!(unknown, Reply::Error(failure) if failure.code == ErrorCode::SocketError));
    parent.assert_nothing_is_held().await;
}
