//! From enclaves to servers.

use std::time::Duration;

use rustix::process::{Resource, Rlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::proxy::{
    Proxy, assert_closed, assert_echoes, echo, echo_server, limited, outbound, pattern, read_all, server,
    unused_port,
};

/// More than all buffers on the way take together.
const MUCH: usize = 24 << 20;

#[test]
fn much_data_goes_both_ways_at_once() {
    limited(async {
        let (listener, port) = server("127.0.0.1").await;
        let proxy = Proxy::start(&outbound("127.0.0.1", port), &[]);
        let mut enclave = proxy.connect("socket").await;
        let (mut server, _) = listener.accept().await.unwrap();
        let (out, back) = (pattern(MUCH, 1), pattern(MUCH, 2));

        let (mut enclave_reads, mut enclave_writes) = enclave.split();
        let (mut server_reads, mut server_writes) = server.split();
        let (mut got_out, mut got_back) = (vec![0; MUCH], vec![0; MUCH]);
        let (a, b, c, d) = tokio::join!(
            enclave_writes.write_all(&out),
            server_writes.write_all(&back),
            server_reads.read_exact(&mut got_out),
            enclave_reads.read_exact(&mut got_back),
        );
        a.unwrap();
        b.unwrap();
        c.unwrap();
        d.unwrap();
        assert!(got_out == out && got_back == back);
    });
}

#[test]
fn whoever_ends_one_direction_still_gets_the_other() {
    limited(async {
        let (listener, port) = server("127.0.0.1").await;
        let proxy = Proxy::start(&outbound("127.0.0.1", port), &[]);

        // The enclave first.
        let mut enclave = proxy.connect("socket").await;
        let (mut server, _) = listener.accept().await.unwrap();
        enclave.write_all(b"question").await.unwrap();
        enclave.shutdown().await.unwrap();
        assert_eq!(read_all(&mut server).await, b"question");
        let answer = pattern(MUCH, 3);
        let (written, mut got) = (server.write_all(&answer), vec![0; MUCH]);
        let (written, read) = tokio::join!(written, enclave.read_exact(&mut got));
        written.unwrap();
        read.unwrap();
        assert!(got == answer);
        drop(server);
        assert_closed(enclave).await;

        // The server first.
        let mut enclave = proxy.connect("socket").await;
        let (mut server, _) = listener.accept().await.unwrap();
        server.write_all(b"greeting").await.unwrap();
        server.shutdown().await.unwrap();
        let mut got = Vec::new();
        enclave.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"greeting");
        enclave.write_all(b"a late answer").await.unwrap();
        drop(enclave);
        assert_eq!(read_all(&mut server).await, b"a late answer");
    });
}

#[test]
fn a_thousand_connections_are_open_at_once_without_a_limit_on_workers() {
    limited(async {
        const CONNECTIONS: u32 = 1000;
        // Two of each are this process's.
        let limit = rustix::process::getrlimit(Resource::Nofile);
        let raised = Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        };
        rustix::process::setrlimit(Resource::Nofile, raised).unwrap();
        let port = echo_server("127.0.0.1").await;
        let proxy = Proxy::start(&outbound("127.0.0.1", port), &[]);

        let mut open = Vec::new();
        for number in 0..CONNECTIONS {
            let mut stream = proxy.connect("socket").await;
            stream.write_all(&number.to_be_bytes()).await.unwrap();
            open.push((number, stream));
        }
        // Each is served while all others are open.
        for (number, stream) in &mut open {
            assert_eq!(stream.read_u32().await.unwrap(), *number);
        }
        let mut ending = JoinSet::new();
        for (number, stream) in open {
            ending.spawn(async move { assert_echoes(stream, &pattern(1000, number)).await });
        }
        while let Some(ended) = ending.join_next().await {
            ended.unwrap();
        }
    });
}

#[test]
fn many_clients_one_after_the_other_and_at_once_get_their_own_bytes() {
    limited(async {
        let port = echo_server("127.0.0.1").await;
        let proxy = Proxy::start(&outbound("127.0.0.1", port), &[]);
        for round in 0..20 {
            let mut clients = JoinSet::new();
            for client in 0..25 {
                let stream = proxy.connect("socket").await;
                let message = pattern(200_000, round * 100 + client);
                clients.spawn(async move {
                    let (mut from, mut to) = stream.into_split();
                    let mut got = vec![0; message.len()];
                    let (written, read) = tokio::join!(to.write_all(&message), from.read_exact(&mut got));
                    written.unwrap();
                    read.unwrap();
                    assert!(got == message);
                });
            }
            while let Some(client) = clients.join_next().await {
                client.unwrap();
            }
        }
    });
}

#[test]
fn a_server_that_is_down_closes_its_clients_and_is_found_again_when_it_is_back() {
    limited(async {
        let port = unused_port("127.0.0.9").await;
        let mut proxy = Proxy::start(&outbound("127.0.0.9", port), &[]);
        for _ in 0..5 {
            assert_closed(proxy.connect("socket").await).await;
        }

        let listener = TcpListener::bind(("127.0.0.9", port)).await.unwrap();
        let serving = tokio::spawn(echo(listener));
        assert_echoes(proxy.connect("socket").await, b"up").await;
        serving.abort();
        assert!(serving.await.unwrap_err().is_cancelled());
        assert_closed(proxy.connect("socket").await).await;
        let listener = TcpListener::bind(("127.0.0.9", port)).await.unwrap();
        tokio::spawn(echo(listener));
        assert_echoes(proxy.connect("socket").await, b"up again").await;

        assert!(proxy.runs());
        let said = proxy.said();
        assert!(
            said.contains(&format!("127.0.0.9:{port} cannot be connected to")),
            "{said}"
        );
    });
}

#[test]
fn a_name_that_nobody_can_resolve_closes_its_clients_and_no_other_targets() {
    limited(async {
        let port = echo_server("127.0.0.1").await;
        let configuration = format!(
            "allowlist: [{{address: absent.invalid, port: 80}}, {{address: 127.0.0.1, port: {port}}}]\n\
         targets:\n\
         - {{local_socket: DIR/absent, remote_addr: absent.invalid, remote_port: 80}}\n\
         - {{local_socket: DIR/socket, remote_addr: 127.0.0.1, remote_port: {port}}}\n"
        );
        let proxy = Proxy::start(&configuration, &[]);

        for _ in 0..3 {
            assert_closed(proxy.connect("absent").await).await;
            assert_echoes(proxy.connect("socket").await, b"here").await;
        }

        let said = proxy.said();
        assert!(said.contains("absent.invalid cannot be resolved"), "{said}");
    });
}

#[test]
fn servers_are_reached_by_ipv6_and_only_by_the_family_that_is_asked_for() {
    limited(async {
        let port = echo_server("::1").await;
        let proxy = Proxy::start(&outbound("::1", port), &["-6"]);
        assert_echoes(proxy.connect("socket").await, b"six").await;

        // The name has an address of each family, or of one: -4 must not find the server that listens at ::1.
        let proxy = Proxy::start(&outbound("localhost", port), &["--ipv4"]);
        assert_closed(proxy.connect("socket").await).await;
    });
}

#[test]
fn more_connections_than_workers_wait_and_are_served_then() {
    limited(async {
        let port = echo_server("127.0.0.1").await;
        let proxy = Proxy::start(&outbound("127.0.0.1", port), &["--num_workers", "2"]);
        let mut first = proxy.connect("socket").await;
        let mut second = proxy.connect("socket").await;
        for stream in [&mut first, &mut second] {
            stream.write_all(b"x").await.unwrap();
            assert_eq!(stream.read_u8().await.unwrap(), b'x');
        }
        let third = tokio::spawn(assert_echoes(proxy.connect("socket").await, b"third"));

        // It is not served before one of the others ends, however long those go on.
        second.write_all(b"y").await.unwrap();
        assert_eq!(second.read_u8().await.unwrap(), b'y');
        assert!(!third.is_finished());
        drop(first);
        third.await.unwrap();

        let said = proxy.said();
        assert!(said.contains("all 2 connections are taken; more wait"), "{said}");
    });
}

#[test]
fn descriptors_that_run_out_are_waited_for() {
    const CONNECTIONS: u32 = 40;
    limited(async {
        let port = echo_server("127.0.0.1").await;
        // Two for each connection, so that not all can be served.
        let workers = CONNECTIONS.to_string();
        let mut proxy = Proxy::start_with_descriptors(
            CONNECTIONS,
            &outbound("127.0.0.1", port),
            &["--num_workers", &workers],
        );
        let mut open = Vec::new();
        for _ in 0..CONNECTIONS {
            open.push(proxy.connect("socket").await);
        }
        while !proxy.next_line().unwrap().contains("Too many open files") {}

        drop(open);

        let all_ended = format!("accepted={CONNECTIONS} open=0");
        while !proxy.counters(1)[0].contains(&all_ended) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_echoes(proxy.connect("socket").await, b"served").await;
    });
}

#[test]
fn sigusr1_prints_what_each_target_has_passed_on() {
    limited(async {
        let port = echo_server("127.0.0.1").await;
        let gone = unused_port("127.0.0.8").await;
        let configuration = format!(
            "allowlist: [{{address: 127.0.0.1, port: {port}}}, {{address: 127.0.0.8, port: {gone}}}]\n\
         targets:\n\
         - {{local_socket: DIR/gone, remote_addr: 127.0.0.8, remote_port: {gone}}}\n\
         - {{local_socket: DIR/socket, remote_addr: 127.0.0.1, remote_port: {port}}}\n"
        );
        let mut proxy = Proxy::start(&configuration, &[]);
        assert_closed(proxy.connect("gone").await).await;
        assert_echoes(proxy.connect("socket").await, &pattern(100_000, 1)).await;
        let mut open = proxy.connect("socket").await;
        open.write_all(b"z").await.unwrap();
        assert_eq!(open.read_u8().await.unwrap(), b'z');

        let expected = [
            format!(
                "{} -> 127.0.0.8:{gone}: accepted=1 open=0 failed=1 from_enclaves=0 to_enclaves=0",
                proxy.path("gone").display()
            ),
            format!(
                "{} -> 127.0.0.1:{port}: accepted=2 open=1 failed=0 from_enclaves=100001 to_enclaves=100001",
                proxy.path("socket").display()
            ),
        ];
        // An end is counted after the client has seen it.
        while proxy.counters(2) != expected {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
}

#[test]
fn a_socket_that_a_killed_proxy_has_left_is_listened_at_again() {
    limited(async {
        let port = echo_server("127.0.0.1").await;
        let configuration = outbound("127.0.0.1", port);
        let proxy = Proxy::start(&configuration, &[]).replaced(&configuration, "socket");
        assert_echoes(proxy.connect("socket").await, b"again").await;
    });
}
