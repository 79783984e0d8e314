//! The task of one enclave, with a VMM that is this test, however it behaves.

use super::*;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use api::nsm::{MAX_REQUEST, ResponsePacket};
use attestation::{Policy, TrustAnchor};
use rustix::net::{RecvFlags, SendFlags, SocketFlags};

use crate::authority::Source;
use crate::run_directory::RunDirectory;

/// An enclave that was measured, and its VMM's end of the channel.
struct World {
    state: tempfile::TempDir,
    run: RunDirectory,
    id: EnclaveId,
    directory: EnclaveDirectory,
    listener: OwnedFd,
    module: Option<SecurityModule>,
    vmm: OwnedFd,
}

fn attestation(state: &Path) -> Attestation {
    let source = Source::Own(state.join("attestation"));
    Attestation {
        authority: Arc::new(Authority::open(&source, "i-0123456789abcdef0", "local").unwrap()),
        parent: ParentIdentity::new(Some("arn:aws:iam::123456789012:role/Test"), "i-0123456789abcdef0")
            .unwrap(),
    }
}

fn measurements() -> Measurements {
    Measurements {
        hash_algorithm: String::new(),
        pcr0: "01".repeat(48),
        pcr1: "02".repeat(48),
        pcr2: "03".repeat(48),
        pcr8: Some("08".repeat(48)),
    }
}

fn accept(listener: &OwnedFd) -> OwnedFd {
    rustix::net::accept_with(listener, SocketFlags::CLOEXEC).unwrap()
}

impl World {
    fn new(number: u32, debug_mode: bool) -> Self {
        let state = tempfile::tempdir().unwrap();
        let run = RunDirectory::open(&state.path().join("run"), None).unwrap();
        let id: EnclaveId = format!("i-0123456789abcdef0-enc{number:x}").parse().unwrap();
        let directory = run.create_enclave(&id, None).unwrap();
        let listener = directory.bind_nsm().unwrap();
        let attestation = attestation(state.path());
        let module = SecurityModule::start(&attestation, &id, &directory, &measurements(), debug_mode);
        let vmm = accept(&listener);
        Self {
            state,
            run,
            id,
            directory,
            listener,
            module: Some(module.unwrap()),
            vmm,
        }
    }

    /// The daemon is replaced; the VMM takes the connection of the new one.
    fn next_daemon(&mut self) {
        self.module = None;
        let module = SecurityModule::resume(&attestation(self.state.path()), &self.id, &self.directory);
        self.module = Some(module.unwrap());
        self.vmm = accept(&self.listener);
    }

    fn send(&self, number: u64, request: &[u8]) {
        let room = 0x3000;
        let packet = RequestPacket {
            number,
            room,
            request,
        }
        .encode();
        rustix::net::send(&self.vmm, &packet, SendFlags::empty()).unwrap();
    }

    async fn received(&self) -> (u64, Vec<u8>) {
        let vmm = self.vmm.try_clone().unwrap();
        let receive = move || {
            let mut packet = vec![0; 0x4000];
            let (length, _) = rustix::net::recv(&vmm, &mut packet[..], RecvFlags::empty()).unwrap();
            let packet = ResponsePacket::decode(&packet[..length]).unwrap();
            (packet.number, packet.response.to_vec())
        };
        let received = tokio::task::spawn_blocking(receive);
        tokio::time::timeout(Duration::from_secs(30), received)
            .await
            .expect("an answer in time")
            .unwrap()
    }

    async fn ask(&self, number: u64, request: &[u8]) -> Vec<u8> {
        self.send(number, request);
        let (answered, response) = self.received().await;
        assert_eq!(answered, number);
        response
    }
}

/// `{"DescribePCR": {"index": index}}` and the like, index below 24.
fn indexed(verb: &str, index: u8) -> Vec<u8> {
    let mut request = vec![0xa1, 0x60 + u8::try_from(verb.len()).unwrap()];
    request.extend(verb.bytes());
    let field: &[u8] = if verb == "LockPCRs" {
        b"\xa1\x65range"
    } else {
        b"\xa1\x65index"
    };
    request.extend(field);
    request.push(index);
    request
}

/// `{"ExtendPCR": {"index": 16, "data": h'aa'}}`
fn extend() -> Vec<u8> {
    b"\xa1\x69ExtendPCR\xa2\x65index\x10\x64data\x41\xaa".to_vec()
}

fn attest() -> Vec<u8> {
    b"\xa1\x6bAttestation\xa3\x69user_data\xf6\x65nonce\x43abc\x6apublic_key\xf6".to_vec()
}

fn error(code: nsm::ErrorCode) -> Vec<u8> {
    Response::Error(code).encode()
}

/// The value of a register in the response to `DescribePCR`.
fn value(response: &[u8]) -> &[u8] {
    response.last_chunk::<48>().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn registers_are_those_that_were_measured_and_debug_mode_hides_them() {
    let world = World::new(1, false);
    for (index, byte) in [(0, 1), (1, 2), (2, 3), (8, 8)] {
        let response = world
            .ask(u64::from(index) + 1, &indexed("DescribePCR", index))
            .await;
        assert_eq!(value(&response), [byte; 48], "PCR{index}");
    }
    let role = value(&world.ask(20, &indexed("DescribePCR", 3)).await).to_vec();

    let debug = World::new(2, true);
    for index in [0, 1, 2, 8] {
        let response = debug
            .ask(u64::from(index) + 1, &indexed("DescribePCR", index))
            .await;
        assert_eq!(value(&response), [0; 48], "PCR{index}");
    }
    assert_eq!(value(&debug.ask(20, &indexed("DescribePCR", 3)).await), role);
    assert_ne!(role, [0; 48]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_verifies_with_our_root_and_names_the_enclave() {
    let world = World::new(0xabc, false);

    let response = world.ask(1, &attest()).await;

    let start = response
        .windows(4)
        .position(|bytes| bytes == [0x84, 0x44, 0xa1, 0x01])
        .unwrap();
    let root = attestation(world.state.path()).authority.root_pem().unwrap();
    let root = TrustAnchor::from_bytes(root.as_bytes()).unwrap();
    let document = attestation::verify(&response[start..], &root, now(), &Policy::default()).unwrap();
    assert_eq!(
        document.content().module_id,
        "i-0123456789abcdef0-enc0000000000000abc"
    );
    assert_eq!(document.content().pcrs[&0], [1; 48]);
    assert_eq!(document.content().nonce.as_deref(), Some(&b"abc"[..]));
    assert_eq!(document.content().pcrs.len(), 16);
}

#[tokio::test(flavor = "multi_thread")]
async fn registers_survive_the_daemon() {
    let mut world = World::new(1, false);
    let extended = world.ask(1, &extend()).await;
    assert_eq!(world.ask(2, &indexed("LockPCR", 16)).await, b"\x67LockPCR");

    world.next_daemon();

    assert_eq!(
        value(&world.ask(3, &indexed("DescribePCR", 16)).await),
        value(&extended)
    );
    assert_eq!(
        world.ask(4, &extend()).await,
        error(nsm::ErrorCode::ReadOnlyIndex)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_is_asked_for_again_after_a_restart_is_made_once() {
    let mut world = World::new(1, false);
    let first = world.ask(7, &extend()).await;
    world.next_daemon();

    assert_eq!(world.ask(7, &extend()).await, first);

    assert_ne!(world.ask(8, &extend()).await, first);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_after_a_restart_is_answered_by_the_next_daemon() {
    let mut world = World::new(1, false);
    world.module = None;
    world.next_daemon();

    world.send(1, &indexed("DescribePCR", 0));

    assert_eq!(world.received().await.0, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_is_refused_and_the_next_request_is_served() {
    let world = World::new(1, false);
    for (number, (request, code)) in (1..).zip([
        (&b""[..], nsm::ErrorCode::InvalidOperation),
        (&b"\xff\xff"[..], nsm::ErrorCode::InvalidOperation),
        (&[0; MAX_REQUEST + 1], nsm::ErrorCode::InputTooLarge),
    ]) {
        assert_eq!(world.ask(number, request).await, error(code));
    }
    rustix::net::send(&world.vmm, b"short", SendFlags::empty()).unwrap();
    assert_eq!(value(&world.ask(9, &indexed("DescribePCR", 0)).await), [1; 48]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_for_which_there_is_no_room_is_said_to_be_too_large() {
    let world = World::new(1, false);
    let request = indexed("DescribePCR", 0);
    let (number, room) = (1, 20);
    let packet = RequestPacket {
        number,
        room,
        request: &request,
    };
    rustix::net::send(&world.vmm, &packet.encode(), SendFlags::empty()).unwrap();

    assert_eq!(world.received().await.1, error(nsm::ErrorCode::BufferTooSmall));
}

#[tokio::test(flavor = "multi_thread")]
async fn enclaves_do_not_see_each_others_registers_and_one_that_floods_holds_up_no_other() {
    let (first, second) = (World::new(1, false), World::new(2, false));
    let extended = first.ask(1, &extend()).await;
    let flooding = first.vmm.try_clone().unwrap();
    let flood = std::thread::spawn(move || {
        let request = attest();
        for number in 2..300 {
            let packet = RequestPacket {
                number,
                room: 0x3000,
                request: &request,
            };
            // Nobody reads the answers: it blocks once the sockets are full.
            if rustix::net::send(&flooding, &packet.encode(), SendFlags::DONTWAIT).is_err() {
                break;
            }
        }
    });

    let response = second.ask(1, &indexed("DescribePCR", 16)).await;

    assert_eq!(value(&response), [0; 48]);
    assert_ne!(value(&extended), [0; 48]);
    flood.join().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn registers_that_cannot_be_written_down_do_not_change() {
    let world = World::new(1, false);
    // A directory in its place cannot be written to.
    fs::create_dir(world.directory.path().join("pcrs.json.new")).unwrap();

    assert_eq!(
        world.ask(1, &extend()).await,
        error(nsm::ErrorCode::InternalError)
    );

    assert_eq!(value(&world.ask(2, &indexed("DescribePCR", 16)).await), [0; 48]);
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_registers_are_not_resumed() {
    let mut world = World::new(1, false);
    world.module = None;
    for damage in ["", "{}", "null"] {
        fs::write(world.directory.path().join("pcrs.json"), damage).unwrap();
        let resumed = SecurityModule::resume(&attestation(world.state.path()), &world.id, &world.directory);
        assert!(matches!(resumed, Err(SecurityModuleError::State(_))), "{damage}");
    }
    assert!(world.run.path().exists());
}
