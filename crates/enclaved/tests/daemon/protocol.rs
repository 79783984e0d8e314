//! What clients may do wrong, over the real socket.

use std::net::TcpStream;
use std::os::fd::AsFd;
use std::time::Duration;

use enclaved::places::Room;

use crate::common::lingering;
use crate::support::{Client, Parent, blocking, request};
use api::frame::{self, MAX_REQUEST};
use api::{CpuSelection, ErrorCode, Reply, Request};

/// The refusal of raw bytes.
async fn refused(bytes: &[u8]) -> ErrorCode {
    let parent = Parent::start();
    let mut client = parent.client();
    client.send_with(bytes, &[]);
    client.finish_sending();
    let code = client.failure().await.code;
    assert_eq!(parent.describe().await, [], "the daemon serves the next client");
    code
}

fn framed(body: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(body.len()).unwrap().to_be_bytes().to_vec();
    bytes.extend(body);
    bytes
}

#[tokio::test]
async fn malformed_requests_are_refused() {
    let whole = frame::encode(&Request::DescribeEnclaves).unwrap();
    for bytes in [
        framed(b""),
        framed(b"not json"),
        framed(br#"{"request":"reboot_the_parent"}"#),
        framed(br#"{"request":"describe_enclaves","extra":1}"#),
        framed(&[0xff; 100]),
        whole[..whole.len() - 1].to_vec(),
        vec![0, 0],
        u32::MAX.to_be_bytes().to_vec(),
        u32::try_from(MAX_REQUEST + 1).unwrap().to_be_bytes().to_vec(),
    ] {
        assert_eq!(refused(&bytes).await, ErrorCode::InvalidCommand, "{bytes:?}");
    }
}

#[tokio::test]
async fn a_request_may_come_byte_by_byte() {
    let parent = Parent::start();
    let mut client = parent.client();

    for byte in frame::encode(&Request::DescribeEnclaves).unwrap() {
        client.send_with(&[byte], &[]);
        tokio::task::yield_now().await;
    }

    assert_eq!(client.last_reply().await, Reply::Enclaves(vec![]));
}

#[tokio::test]
async fn run_takes_exactly_one_descriptor_and_nothing_else_takes_any() {
    let parent = Parent::start();
    let image = tempfile::tempfile().unwrap();
    let run = frame::encode(&Request::RunEnclave(request("hello", 2))).unwrap();
    let describe = frame::encode(&Request::DescribeEnclaves).unwrap();

    for (bytes, count) in [(&run, 0), (&run, 2), (&run, 7), (&describe, 1)] {
        let mut client = parent.client();
        client.send_with(bytes, &vec![image.as_fd(); count]);
        assert_eq!(
            client.failure().await.code,
            ErrorCode::InvalidCommand,
            "{count} descriptors"
        );
    }
    let mut dribbling = parent.client();
    for part in run.chunks(10) {
        dribbling.send_with(part, &[image.as_fd()]);
        if part == &run[10..20] {
            break;
        }
    }
    assert_eq!(dribbling.failure().await.code, ErrorCode::InvalidCommand);
}

#[tokio::test]
async fn an_image_that_is_no_file_is_e35_and_bad_requests_have_their_numbers() {
    let parent = Parent::start();
    let frame = |request| frame::encode(&Request::RunEnclave(request)).unwrap();
    let mut client = parent.client();
    let directory = std::fs::File::open(parent.path()).unwrap();
    client.send_with(&frame(request("hello", 2)), &[directory.as_fd()]);
    assert_eq!(client.failure().await.code, ErrorCode::EifParsing);

    let with = |change: fn(&mut api::RunEnclave)| {
        let mut changed = request("hello", 2);
        change(&mut changed);
        changed
    };
    for (request, code) in [
        (
            with(|r| r.cpus = CpuSelection::Ids(vec![1, 1])),
            ErrorCode::InvalidCpuConfiguration,
        ),
        (
            with(|r| r.cpus = CpuSelection::Ids(vec![0])),
            ErrorCode::NoSuchCpuAvailableInPool,
        ),
        (
            with(|r| r.cpus = CpuSelection::Count(7)),
            ErrorCode::InsufficientCpus,
        ),
        (with(|r| r.cpus = CpuSelection::Count(0)), ErrorCode::IoctlFailure),
        (with(|r| r.cpus = CpuSelection::Count(3)), ErrorCode::IoctlFailure),
        (with(|r| r.memory_mib = 0), ErrorCode::InsufficientMemoryRequested),
        (with(|r| r.memory_mib = 63), ErrorCode::IoctlFailure),
        (
            with(|r| r.memory_mib = 1 << 40),
            ErrorCode::InsufficientMemoryAvailable,
        ),
        (with(|r| r.enclave_cid = Some(3)), ErrorCode::IoctlFailure),
    ] {
        let mut client = parent.client();
        client.run(request.clone());
        assert_eq!(client.failure().await.code, code, "{request:?}");
    }
}

#[tokio::test]
async fn a_client_that_stops_mid_frame_is_cut_off_and_holds_up_nobody() {
    let parent = Parent::start_with(|config| config.limits.request_time = Duration::from_millis(100));
    let mut hanging = parent.client();
    hanging.send_with(&[0, 0, 1], &[]);

    assert_eq!(parent.describe().await, []);
    let failure = hanging.failure().await;

    assert_eq!(failure.code, ErrorCode::SocketError);
    assert!(failure.message.contains("not complete"), "{}", failure.message);
}

#[tokio::test]
async fn two_hundred_clients_at_once_are_all_served() {
    let parent = Parent::start();
    let mut clients: Vec<_> = (0..200).map(|_| parent.client()).collect();

    for client in &mut clients {
        client.send(&Request::DescribeEnclaves);
    }
    for client in clients {
        assert_eq!(client.last_reply().await, Reply::Enclaves(vec![]));
    }
}

#[tokio::test]
async fn clients_beyond_the_limit_are_refused_not_queued() {
    let parent = Parent::start_with(|config| config.limits.connections = Room::without_shares(2));
    let (one, _two) = (parent.client(), parent.client());

    let refused = parent.client();
    assert_eq!(refused.failure().await.code, ErrorCode::SocketError);

    drop(one);
    served(&parent).await;
}

#[tokio::test]
async fn clients_that_are_done_make_room() {
    let parent = Parent::start_with(|config| config.limits.connections = Room::without_shares(2));
    for _ in 0..20 {
        served(&parent).await;
    }
}

/// Asks until there is room. What a client has left is closed a moment after it has its answer.
async fn served(parent: &Parent) {
    loop {
        let mut client = parent.client();
        client.send(&Request::DescribeEnclaves);
        match client.last_reply().await {
            Reply::Enclaves(_) => break,
            _refused_still => tokio::task::yield_now().await,
        }
    }
}

#[tokio::test]
async fn a_client_that_goes_on_talking_is_left() {
    let parent = Parent::start();
    let mut client = parent.client();
    client.send(&Request::Events);

    // The daemon closes the connection, and then sending fails.
    blocking(move || while client.try_send(&[0; 256]).is_ok() {}).await;
}

#[tokio::test]
async fn a_client_that_says_nothing_gets_nothing() {
    let parent = Parent::start();
    let client = parent.client();
    client.finish_sending();

    assert_eq!(client.replies().await, []);
}

/// How a client gets a descriptor to the daemon.
type Way = fn(&mut Client, &TcpStream);

#[tokio::test]
async fn a_descriptor_that_does_not_close_holds_up_only_its_own_client() {
    let ways: [Way; 6] = [
        |client, slow| client.send_with(&describe_frame(), &[slow.as_fd()]),
        |client, slow| client.send_with(&run_frame(), &[slow.as_fd()]),
        |client, slow| client.send_with(&run_frame(), &[slow.as_fd(); 8]),
        |client, slow| client.send_with(&run_frame()[..10], &[slow.as_fd()]),
        |client, slow| {
            client.send_with(&describe_frame(), &[]);
            client.send_with(b"unasked", &[slow.as_fd()]);
        },
        |client, slow| {
            client.run(request("hello", 2));
            client.send_with(b"unasked", &[slow.as_fd()]);
        },
    ];
    for way in ways {
        let parent = Parent::start();
        let (slow, never_reads) = lingering();
        let mut client = parent.client();
        way(&mut client, &slow);
        drop(slow);
        client.finish_sending();

        // Twice: by the second time the first client has had its answer and its descriptor is let go.
        for _ in 0..2 {
            assert_eq!(parent.describe().await, []);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }

        drop(never_reads);
    }
}

fn describe_frame() -> Vec<u8> {
    frame::encode(&Request::DescribeEnclaves).unwrap()
}

fn run_frame() -> Vec<u8> {
    frame::encode(&Request::RunEnclave(request("hello", 2))).unwrap()
}
