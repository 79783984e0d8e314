// parent: --cpus 6 --memory 3G --hugepages-2m 512 --no-daemon -- --test-threads 1
//! `vsock-proxy` between enclaves and TCP, over the parent's own kernel: with real enclaves, and as it is installed, a static
//! program. What needs neither is tested in `crates/vsock-proxy/tests`.

#![forbid(unsafe_code)]
#![expect(clippy::expect_used, reason = "a suite fails on the spot")]

mod proxying;

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use end_to_end_tests::guest::{Address, Order, TlsOrder, port};
use end_to_end_tests::stream::{self, Stream, Sum};
use end_to_end_tests::vsock_socket::{order, tls_order};
use end_to_end_tests::{Enclave, Host, Launch, OwnDaemon, World, descriptors, eifs, poll};
use proxying::name_server::NameServer;
use proxying::{Proxy, file, outbound, refused, serve, tls_server};
use test_signer::TestSigner;
use vsock::{VMADDR_CID_ANY, VsockListener};

const KIB: u64 = 1 << 10;

/// The vsock port at which enclaves find the proxy, at CID 3.
const PROXY: u32 = 8000;

/// Any port of the parent.
const LOOPBACK: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);

fn kernel() -> OwnDaemon {
    OwnDaemon::start(&["--vsock", "kernel"])
}

fn enclave(host: &Host, application: &str) -> Enclave {
    let enclave = Launch::of(eifs::of_application(application, &[]))
        .with_memory(512)
        .in_debug_mode()
        .run(host);
    enclave.console().wait_for(&format!("{application}: ready"));
    enclave
}

fn exchange(connections: u64, bytes: u64) -> Order {
    Order::Exchange {
        to: Address { cid: 3, port: PROXY },
        connections,
        bytes,
    }
}

/// The enclave connects to the proxy, ends sending at once, and says what it has received. If nobody is behind the proxy, that is
/// nothing.
fn received(enclave: &Enclave) -> String {
    let to = Address { cid: 3, port: PROXY };
    order(enclave, Order::HalfClose { to }).expect("an answer")
}

fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("connect to the proxy");
    stream.set_read_timeout(Some(poll::LIMIT)).expect("a limit");
    stream
}

#[test]
fn a_tls_client_in_an_enclave_knows_its_server_by_name() {
    const CONNECTIONS: u64 = 8;
    let _world = World::enter();
    let daemon = kernel();
    let enclave = enclave(daemon.host(), "tls-client");
    let signer = TestSigner::of_server(1, "server.example");
    let config = tls_server::of(&signer);
    let (server, _) = serve(LOOPBACK, usize::MAX, move |stream| {
        tls_server::echo(Arc::clone(&config), stream)
    });
    // As on EC2: three arguments and an allowlist.
    let allowlist = format!("allowlist: [{{address: 127.0.0.1, port: {}}}]", server.port());
    let arguments = [&PROXY.to_string(), "127.0.0.1", &server.port().to_string()];
    let mut command = Command::new("vsock-proxy");
    command.args(arguments).args(["--config", &file(&allowlist)]);
    let _proxy = Proxy::listening(&mut command);

    let good = TlsOrder {
        port: PROXY,
        name: "server.example".into(),
        root: signer.certificate_der,
        connections: CONNECTIONS,
        bytes: 256 * KIB,
    };
    assert_eq!(tls_order(&enclave, &good).expect("an answer"), "exchanged");
    let another_name = TlsOrder {
        name: "other.example".into(),
        ..good.clone()
    };
    let answer = tls_order(&enclave, &another_name).expect("an answer");
    assert!(answer.contains("not valid for name"), "{answer}");
    let another_root = TlsOrder {
        root: TestSigner::of_server(2, "server.example").certificate_der,
        ..good.clone()
    };
    let answer = tls_order(&enclave, &another_root).expect("an answer");
    assert!(answer.contains("invalid peer certificate"), "{answer}");
    assert_eq!(tls_order(&enclave, &good).expect("an answer"), "exchanged");
    enclave.terminate();
}

#[test]
fn a_thousand_connections_of_an_enclave_at_once_each_get_their_own_bytes() {
    const CONNECTIONS: u64 = 1000;
    descriptors::raise_limit().expect("more descriptors");
    let _world = World::enter();
    let daemon = kernel();
    let enclave = enclave(daemon.host(), "vsock-echo");
    let (server, _) = serve(LOOPBACK, usize::MAX, stream::echo);
    let proxy = Proxy::start(&outbound(PROXY, server));

    // All are open before the first byte is sent.
    let answer = order(&enclave, exchange(CONNECTIONS, 16 * KIB)).expect("an answer");

    assert_eq!(answer, "exchanged");
    let bytes = CONNECTIONS * 16 * KIB;
    proxy.counts(&format!(
        "accepted={CONNECTIONS} open=0 failed=0 from_enclaves={bytes} to_enclaves={bytes}"
    ));
    enclave.terminate();
}

#[test]
fn whoever_ends_first_still_receives() {
    let _world = World::enter();
    let daemon = kernel();
    let enclave = enclave(daemon.host(), "vsock-echo");
    // It begins to send when the enclave has ended.
    let (server, _) = serve(LOOPBACK, 1, |mut stream| {
        stream::receive(&mut stream)?;
        stream::send(&mut stream, 5, 1024 * KIB)?;
        stream.end_sending()
    });
    let _proxy = Proxy::start(&outbound(PROXY, server));

    assert_eq!(received(&enclave), Sum::of_pattern(5, 1024 * KIB).to_string());
    enclave.terminate();
}

#[test]
fn a_server_that_is_down_ends_connections_in_order_and_is_reached_when_it_is_back() {
    let _world = World::enter();
    let daemon = kernel();
    let enclave = enclave(daemon.host(), "vsock-echo");
    let nothing = Sum::of_pattern(0, 0).to_string();
    let (server, first) = serve(LOOPBACK, 1, stream::echo);
    let proxy = Proxy::start(&outbound(PROXY, server));

    assert_eq!(order(&enclave, exchange(1, KIB)).expect("an answer"), "exchanged");
    first.join().expect("no panic");
    for _ in 0..3 {
        // Which of the two it is depends on whether the end has come before the enclave looks.
        let answer = received(&enclave);
        assert!(
            answer == nothing || answer.starts_with("NotConnected"),
            "{answer}"
        );
    }
    let (_, _second) = serve(server, 10, stream::echo);
    assert_eq!(
        order(&enclave, exchange(10, KIB)).expect("an answer"),
        "exchanged"
    );

    proxy.goes_on_and_has_said(&format!("{server} cannot be connected to: Connection refused"));
    enclave.terminate();
}

#[test]
fn clients_reach_an_enclave_by_tcp_and_are_closed_when_it_is_gone() {
    let _world = World::enter();
    let daemon = kernel();
    let enclave = enclave(daemon.host(), "vsock-echo");
    let cid = enclave.cid();
    let (echo, source) = (port::ECHO, port::SOURCE);
    let proxy = Proxy::start(&format!(
        "targets:\n\
         - {{inbound: '127.0.0.1:8443', enclave_cid: {cid}, enclave_port: {echo}}}\n\
         - {{inbound: '[::1]:8444', enclave_cid: {cid}, enclave_port: {source}}}\n\
         - {{inbound: '127.0.0.1:8445', enclave_cid: {cid}, enclave_port: 4321}}\n"
    ));

    let clients = stream::open(16, || Ok::<_, io::Error>(connect(8443))).expect("connect");
    stream::exchange_at_once(clients, 1, 256 * KIB).expect("the same back");
    let mut client = TcpStream::connect("[::1]:8444").expect("connect to the proxy");
    client.set_read_timeout(Some(poll::LIMIT)).expect("a limit");
    client.write_all(b"9 100000\n").expect("send");
    let sum = stream::receive(&mut client).expect("receive");
    assert_eq!(sum, Sum::of_pattern(9, 100_000));
    // Nobody listens at that port of the enclave.
    assert_eq!(connect(8445).read(&mut [0]).expect("an end"), 0);

    let mut open = connect(8443);
    open.write_all(b"x").expect("send");
    open.read_exact(&mut [0]).expect("receive");
    enclave.terminate();
    // A reset: what has come may not be all.
    assert!(open.read(&mut [0]).is_err());
    assert_eq!(connect(8443).read(&mut [0]).expect("an end"), 0);
    proxy.goes_on_and_has_said("the enclave cannot be connected to");
}

#[test]
fn enclaves_without_the_kernels_vsock_are_served_at_their_unix_sockets() {
    let _world = World::enter();
    let daemon = OwnDaemon::start(&["--vsock", "unix"]);
    let enclave = enclave(daemon.host(), "vsock-echo");
    let (server, _) = serve(LOOPBACK, usize::MAX, stream::echo);
    let directory = enclave.directory();
    let proxy = Proxy::start(&format!(
        "allowlist: [{{address: 127.0.0.1, port: {port}}}]\n\
         targets:\n\
         - {{local_socket: {sockets}_{PROXY}, remote_addr: 127.0.0.1, remote_port: {port}}}\n\
         - {{inbound: '127.0.0.1:8443', enclave_socket: {sockets}, enclave_port: {echo}}}\n",
        port = server.port(),
        sockets = directory.join("vsock.sock").display(),
        echo = port::ECHO,
    ));

    // The daemon gives the socket to the VMM's user once it sees it.
    poll::until("the VMM to reach the proxy", || {
        let answer = order(&enclave, exchange(16, 64 * KIB)).expect("an answer");
        (answer == "exchanged").then_some(())
    });
    stream::exchange(connect(8443), 1, 64 * KIB).expect("the same back");

    drop(proxy);
    enclave.terminate();
    poll::until(
        "the enclave's directory to go, with the socket that the proxy has left",
        || (!directory.exists()).then_some(()),
    );
}

#[test]
fn what_is_not_allowed_is_refused_in_the_words_of_aws_and_then_nobody_listens() {
    let _world = World::enter();
    let two = |allowed: &str| {
        format!(
            "allowlist: [{{address: 127.0.0.1, port: 9001}}, {{address: {allowed}, port: 9002}}]\n\
             targets:\n\
             - {{local_port: {PROXY}, remote_addr: 127.0.0.1, remote_port: 9001}}\n\
             - {{local_port: 8001, remote_addr: 127.0.0.2, remote_port: 9002}}\n"
        )
    };

    let said = refused(&two("127.0.0.3"));
    assert_eq!(said.code(), Some(1), "{said:#?}");
    let expected = "Error: \"Error at checking the allowlist: 127.0.0.2:9002: The given address and port are not allowed\"\n";
    assert_eq!(said.stderr, expected);
    let taken = VsockListener::bind_with_cid_port(VMADDR_CID_ANY, PROXY).expect("nobody listens");
    let said = refused(&two("127.0.0.2"));
    assert_eq!(said.code(), Some(1), "{said:#?}");
    let expected = "Error: \"Could not listen for connections: Could not bind to vsock port 8000: Address already in use";
    assert!(said.stderr.starts_with(expected), "{said:#?}");
    drop(taken);
    let _proxy = Proxy::start(&two("127.0.0.2"));
}

/// A server at an address of the machine's own that sends a pattern to whoever connects.
fn telling(address: Ipv4Addr, port: u16, seed: u64) -> SocketAddr {
    let (address, _) = serve((address, port), usize::MAX, move |mut stream| {
        stream::send(&mut stream, seed, KIB)?;
        stream.end_sending()
    });
    address
}

/// Which server is behind the proxy's socket; `None` if there is none.
fn who_answers(socket: &Path) -> Option<u64> {
    let mut stream = UnixStream::connect(socket).expect("connect to the proxy");
    stream.set_read_timeout(Some(poll::LIMIT)).expect("a limit");
    let sum = stream::receive(&mut stream).expect("receive");
    (1..10).find(|seed| Sum::of_pattern(*seed, KIB) == sum)
}

#[test]
fn names_are_those_of_the_hosts_file_and_of_the_name_server_whatever_they_are_by_then() {
    const HOSTS: &str = "/etc/hosts";
    const LISTED: &str = "/tmp/listed.sock";
    const ASKED_FOR: &str = "/tmp/asked-for.sock";
    let _world = World::enter();
    let address = |last| Ipv4Addr::new(127, 0, 0, last);
    let port = telling(address(3), 0, 3).port();
    let _ = telling(address(4), port, 4);
    let hosts_before = fs::read_to_string(HOSTS).expect("a file of hosts");
    // Nobody listens at the first.
    let hosts = format!("{hosts_before}\n127.0.0.2 listed.example\n127.0.0.3 listed.example\n");
    fs::write(HOSTS, hosts).expect("write the file of hosts");
    fs::write("/etc/resolv.conf", "nameserver 127.0.0.1\n").expect("name the name server");

    // There is no name server yet, and the proxy starts all the same.
    let _proxy = Proxy::start(&format!(
        "allowlist: [{{address: listed.example, port: {port}}}, {{address: asked-for.example, port: {port}}}]\n\
         targets:\n\
         - {{local_socket: {LISTED}, remote_addr: listed.example, remote_port: {port}}}\n\
         - {{local_socket: {ASKED_FOR}, remote_addr: asked-for.example, remote_port: {port}}}\n"
    ));
    let is_answered_by = |socket: &str, expected: Option<u64>| {
        poll::until(&format!("{socket} to be answered by {expected:?}"), || {
            (who_answers(Path::new(socket)) == expected).then_some(())
        });
    };
    assert_eq!(who_answers(Path::new(LISTED)), Some(3));
    assert_eq!(who_answers(Path::new(ASKED_FOR)), None);
    let name_server = NameServer::start(address(3));
    is_answered_by(ASKED_FOR, Some(3));
    name_server.moves_to(address(4));
    is_answered_by(ASKED_FOR, Some(4));
    fs::write(HOSTS, format!("{hosts_before}\n127.0.0.4 listed.example\n")).expect("write the file of hosts");
    is_answered_by(LISTED, Some(4));

    fs::write(HOSTS, hosts_before).expect("write the file of hosts");
    fs::remove_file("/etc/resolv.conf").expect("remove what names the name server");
}
