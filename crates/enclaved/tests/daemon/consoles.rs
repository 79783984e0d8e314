//! Watching a console over the real socket.
use enclaved::places::Room;

use crate::support::{Client, Parent, by_name, debug_request, request};
use api::{ErrorCode, Reply, Request};

async fn attach(parent: &Parent, name: &str) -> Client {
    let mut client = parent.client();
    client.send(&Request::Console(by_name(name)));
    assert_eq!(client.reply().await, Reply::ConsoleAttached { enclave_cid: 16 });
    client
}

#[tokio::test]
async fn watchers_come_and_go_and_each_sees_everything() {
    let mut parent = Parent::start();
    let (mut guest, _) = parent.boot(debug_request("hello")).await;
    guest.print(b"Unpacking initramfs\r\n");

    let early = attach(&parent, "hello").await;
    assert_eq!(early.bytes(21).await, b"Unpacking initramfs\r\n");
    for _ in 0..3 {
        let passing = attach(&parent, "hello").await;
        assert_eq!(passing.bytes(9).await, b"Unpacking");
    }
    guest.print(b"Hello \x1b[31mraw\x00\xff");
    let late = attach(&parent, "hello").await;
    guest.die("exit status: 0");

    assert_eq!(early.rest().await, b"Hello \x1b[31mraw\x00\xff");
    assert_eq!(
        late.rest().await,
        b"Unpacking initramfs\r\nHello \x1b[31mraw\x00\xff"
    );
    parent.assert_nothing_is_held().await;
}

#[tokio::test]
async fn an_enclave_that_is_not_in_debug_mode_has_no_console() {
    let mut parent = Parent::start();
    let (guest, _) = parent.boot(request("hello", 2)).await;
    assert!(guest.descriptors.as_ref().unwrap().console.is_none());

    let Reply::Error(failure) = parent.ask(Request::Console(by_name("hello"))).await else {
        panic!("attached");
    };

    assert_eq!(failure.code, ErrorCode::ConsoleConnection);
    assert!(failure.message.contains("--debug-mode"), "{}", failure.message);
}

#[tokio::test]
async fn watchers_beyond_the_limit_are_refused_and_make_room_when_they_leave() {
    let mut parent = Parent::start_with(|config| config.limits.watchers = Room::without_shares(1));
    let (_guest, _) = parent.boot(debug_request("hello")).await;
    let watcher = attach(&parent, "hello").await;

    let refused = parent.ask(Request::Console(by_name("hello"))).await;
    assert!(matches!(refused, Reply::Error(failure) if failure.code == ErrorCode::ConsoleConnection));

    drop(watcher);
    loop {
        let mut client = parent.client();
        client.send(&Request::Console(by_name("hello")));
        match client.reply().await {
            Reply::ConsoleAttached { .. } => break,
            _refused_still => tokio::task::yield_now().await,
        }
    }
}
