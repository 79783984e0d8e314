//! What enclaves have printed, while they run and afterwards.

use api::{ErrorCode, Logs, Reply, Request, RunEnclave, Selector};

use crate::support::{CONSOLES, Client, Parent, by_name, debug_request, request};

fn ask(parent: &Parent, enclave: Selector, follow: bool) -> Client {
    let mut client = parent.client();
    client.send(&Request::Logs(Logs { enclave, follow }));
    client
}

/// What is logged, up to the end of the connection.
async fn logged(client: Client) -> Vec<u8> {
    let reply = client.reply().await;
    assert!(matches!(reply, Reply::ConsoleAttached { .. }), "{reply:?}");
    client.rest().await
}

/// Waits until the daemon has read what the guest has printed.
async fn until_read(parent: &Parent, name: &str, text: &[u8]) {
    let mut watcher = parent.client();
    watcher.send(&Request::Console(by_name(name)));
    watcher.reply().await;
    assert_eq!(watcher.bytes(text.len()).await, text);
}

async fn terminate(parent: &Parent, name: &str) {
    let mut client = parent.client();
    client.send(&Request::TerminateEnclave(by_name(name)));
    assert!(matches!(client.last_reply().await, Reply::Terminated(_)));
}

#[tokio::test]
async fn the_log_of_a_running_enclave_is_what_there_is_or_also_what_comes() {
    let mut parent = Parent::start();
    let (mut guest, _) = parent.boot(debug_request("hello")).await;
    guest.print(b"before\n");
    until_read(&parent, "hello", b"before\n").await;

    assert_eq!(logged(ask(&parent, by_name("hello"), false)).await, b"before\n");
    let following = ask(&parent, by_name("hello"), true);
    assert_eq!(
        following.reply().await,
        Reply::ConsoleAttached { enclave_cid: 16 }
    );
    assert_eq!(following.bytes(7).await, b"before\n");
    guest.print(b"after\n");
    guest.die("exit status: 0");
    assert_eq!(following.rest().await, b"after\n");
}

#[tokio::test]
async fn the_log_stays_after_the_end_and_survives_the_daemon() {
    let mut parent = Parent::start();
    let (guest, info) = parent.boot(debug_request("hello")).await;
    guest.print(b"last words\x00\xff\n");
    until_read(&parent, "hello", b"last words\x00\xff\n").await;
    // The pipe's end on the guest's side is closed with the guest.
    drop(guest);
    terminate(&parent, "hello").await;

    for follow in [false, true] {
        let text = logged(ask(&parent, Selector::Id(info.enclave_id.clone()), follow)).await;
        assert_eq!(text, b"last words\x00\xff\n");
    }
    let mut parent = parent.restart().await;
    assert_eq!(
        logged(ask(&parent, by_name("hello"), false)).await,
        b"last words\x00\xff\n"
    );
    // The last of its name counts, and one that runs before those that have ended.
    let (second, _) = parent.boot(debug_request("hello")).await;
    assert_eq!(logged(ask(&parent, by_name("hello"), false)).await, b"");
    drop(second);
}

#[tokio::test]
async fn an_enclave_that_did_not_boot_has_a_log() {
    let mut parent = Parent::start();
    let mut client = parent.client();
    client.run(debug_request("broken"));
    let mut guest = parent.guest().await;
    guest.print(b"Kernel panic\n");
    guest.die("exit status: 1");
    client.failure().await;

    assert_eq!(
        logged(ask(&parent, by_name("broken"), false)).await,
        b"Kernel panic\n"
    );
}

#[tokio::test]
async fn the_logs_of_the_last_sixteen_are_kept() {
    let mut parent = Parent::start();
    for number in 0..20 {
        let wanted = RunEnclave {
            enclave_name: format!("number {number}"),
            ..debug_request("")
        };
        let (guest, _) = parent.boot(wanted).await;
        drop(guest);
        terminate(&parent, &format!("number {number}")).await;
    }

    assert_eq!(
        std::fs::read_dir(parent.path().join(CONSOLES)).unwrap().count(),
        16
    );
    assert_eq!(logged(ask(&parent, by_name("number 4"), false)).await, b"");
    let forgotten = ask(&parent, by_name("number 3"), false).failure().await;
    assert_eq!(forgotten.code, ErrorCode::ConsoleConnection);
    assert!(
        forgotten.message.contains("not kept any more"),
        "{}",
        forgotten.message
    );
}

#[tokio::test]
async fn an_enclave_in_production_has_no_log() {
    let mut parent = Parent::start();
    let (guest, _) = parent.boot(request("hello", 2)).await;
    let refused = async |parent: &Parent, enclave| ask(parent, enclave, false).failure().await.code;

    assert_eq!(
        refused(&parent, by_name("hello")).await,
        ErrorCode::ConsoleConnection
    );
    drop(guest);
    terminate(&parent, "hello").await;
    assert_eq!(
        refused(&parent, by_name("hello")).await,
        ErrorCode::ConsoleConnection
    );
    assert_eq!(
        refused(&parent, by_name("nobody")).await,
        ErrorCode::EnclaveNaming
    );
    assert_eq!(
        refused(&parent, Selector::Id("i-0-enc1".into())).await,
        ErrorCode::SocketError
    );
    assert_eq!(refused(&parent, Selector::All).await, ErrorCode::InvalidCommand);
}
