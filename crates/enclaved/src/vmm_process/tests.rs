use super::*;
use std::fs::File;
use std::io::{IoSliceMut, Read, Write};

use api::vmm::{Event, ExitReason, LaunchSpec, MemoryFile, VsockBackend};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage};

use crate::launcher::Descriptors;
use crate::vmm_user::VmmUsers;

/// A launch whose n-th descriptor is the read end of a pipe that holds the byte n.
fn launch(directory: &Path) -> Launch {
    let numbered = |number: u8| {
        let (read_end, write_end) = rustix::pipe::pipe().unwrap();
        File::from(write_end).write_all(&[number]).unwrap();
        read_end
    };
    Launch {
        spec: LaunchSpec {
            enclave_id: "i-0-enc1".into(),
            guest_cid: 16,
            cpu_ids: vec![1],
            threads_per_core: 1,
            memory: vec![
                MemoryFile {
                    size: 64 << 20,
                    page_size: 2 << 20,
                    node: None,
                };
                2
            ],
            vsock: VsockBackend::Unix,
            debug_mode: true,
            isolated: false,
        },
        descriptors: Descriptors {
            kvm: numbered(0),
            eif: numbered(1).into(),
            vsock: numbered(2),
            nsm: numbered(3),
            outcome: numbered(4),
            log: rustix::pipe::pipe().unwrap().1,
            memory: vec![numbered(5), numbered(6)],
            console: Some(numbered(7)),
            vcpu_group: None,
        },
        directory: directory.to_owned(),
        user: None,
        process_list: None,
    }
}

#[tokio::test]
async fn the_specification_and_its_descriptors_arrive_in_one_packet_in_the_documented_order() {
    let directory = tempfile::tempdir().unwrap();
    let launch = launch(directory.path());
    let spec = launch.spec.clone();
    let (process, theirs) = sleeper();

    process.send_launch(&launch).unwrap();

    let mut packet = vec![0; MAX_MESSAGE];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(16))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(&mut packet)];
    let received = rustix::net::recvmsg(&theirs, &mut parts, &mut ancillary, RecvFlags::empty()).unwrap();
    assert_eq!(
        serde_json::from_slice::<LaunchSpec>(&packet[..received.bytes]).unwrap(),
        spec
    );
    let rights = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(rights) => Some(rights),
        _ => None,
    });
    let numbers: Vec<u8> = rights
        .unwrap()
        .map(|descriptor| {
            let mut number = [0];
            File::from(descriptor).read_exact(&mut number).unwrap();
            number[0]
        })
        .collect();
    assert_eq!(numbers, [0, 1, 2, 3, 4, 5, 6, 7]);
}

/// A process that only sleeps, and the VMM's end of its control socket.
fn sleeper() -> (VmmProcess, OwnedFd) {
    let (ours, theirs) = control_pair().unwrap();
    let child = Command::new("sleep").arg("1000").spawn().unwrap();
    (VmmProcess::watch(child, ours).unwrap(), theirs)
}

fn say(vmm: &OwnedFd, packet: &[u8]) {
    rustix::net::send(vmm, packet, SendFlags::empty()).unwrap();
}

#[tokio::test]
async fn packets_become_events_in_order_and_a_closed_socket_is_the_end() {
    let (mut process, vmm) = sleeper();
    let events = [
        Event::Started,
        Event::Exited(ExitReason::Crashed("KVM_EXIT_INTERNAL_ERROR".into())),
    ];
    for event in &events {
        say(&vmm, &serde_json::to_vec(event).unwrap());
    }
    drop(vmm);

    for event in events {
        assert_eq!(process.next_event().await, Said::Event(event));
    }
    assert_eq!(process.next_event().await, Said::Closed);
    assert_eq!(process.next_event().await, Said::Closed);
}

#[tokio::test]
async fn what_is_no_event_is_nonsense_whatever_its_size_and_form() {
    let (mut process, vmm) = sleeper();
    let too_long = [
        serde_json::to_vec(&Event::Started).unwrap(),
        vec![b' '; MAX_MESSAGE],
    ]
    .concat();
    for packet in [b"started".as_slice(), &[0xff; 10], b"{}", &too_long] {
        say(&vmm, packet);
        assert!(
            matches!(process.next_event().await, Said::Nonsense(_)),
            "{}",
            packet.len()
        );
    }
    say(&vmm, &serde_json::to_vec(&Event::Started).unwrap());
    assert_eq!(process.next_event().await, Said::Event(Event::Started));
}

#[tokio::test]
async fn waiting_for_an_event_can_be_given_up_without_losing_one() {
    let (mut process, vmm) = sleeper();
    for _ in 0..3 {
        tokio::select! {
            biased;
            _ = process.next_event() => panic!("nothing was said"),
            () = tokio::task::yield_now() => {}
        }
    }
    say(&vmm, &serde_json::to_vec(&Event::Started).unwrap());

    assert_eq!(process.next_event().await, Said::Event(Event::Started));
}

#[tokio::test]
async fn a_process_is_launched_killed_and_reaped() {
    let directory = tempfile::tempdir().unwrap();
    let launcher = VmmLauncher::new("/bin/cat".into(), Vec::new());

    let mut process = launcher.launch(launch(directory.path())).unwrap();

    let identity = process.identity().clone();
    assert!(identity.open().is_some());
    process.kill();
    assert_eq!(process.wait().await.to_string(), "signal: 9 (SIGKILL)");
    process.kill();
    assert_eq!(process.wait().await.to_string(), "signal: 9 (SIGKILL)");
    assert_eq!(process.next_event().await, Said::Closed);
    assert!(identity.open().is_none());
}

/// `cat` waits at its control socket for as long as it is looked at.
#[tokio::test]
async fn a_vmm_starts_in_its_directory_wherever_its_program_is() {
    let private = tempfile::tempdir().unwrap();
    let program = private.path().join("program");
    std::fs::copy("/bin/cat", &program).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let launcher = VmmLauncher::new(program.clone(), Vec::new());

    let process = launcher.launch(launch(directory.path())).unwrap();

    let proc = format!("/proc/{}", process.identity().process_id);
    assert_eq!(std::fs::read_link(format!("{proc}/exe")).unwrap(), program);
    assert_eq!(
        std::fs::read_link(format!("{proc}/cwd")).unwrap(),
        directory.path()
    );
    assert!(std::fs::read(format!("{proc}/environ")).unwrap().is_empty());
}

#[test]
fn a_vmm_is_told_who_it_is_to_be_and_what_may_be_missing() {
    let directory = tempfile::tempdir().unwrap();
    let user = VmmUsers::from(7000).of(&[1]).expect("tests run as root");
    let launch = Launch {
        user: Some(user),
        ..launch(directory.path())
    };
    let layers = vec![Layer::EmptyRoot, Layer::UtsNamespace];

    let arguments = VmmLauncher::new("/vmm".into(), layers).arguments(&launch);

    let expected = ["--user", "7001", "--allow-missing", "empty-root,uts-namespace"];
    assert_eq!(arguments, expected);
}

/// Whether the process of this identity ends soon; it is nobody's to wait for, or the runtime's.
async fn ends(identity: &ProcessIdentity) -> bool {
    for _ in 0..1000 {
        if identity.open().is_none() {
            return true;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    false
}

#[tokio::test]
async fn a_process_goes_with_its_owner_unless_it_is_left() {
    let (dropped, _theirs) = sleeper();
    let (left, _theirs) = sleeper();
    let (gone, goes_on) = (dropped.identity().clone(), left.identity().clone());

    drop(dropped);
    left.leave();

    assert!(ends(&gone).await);
    assert!(goes_on.open().is_some());
    rustix::process::pidfd_send_signal(goes_on.open().unwrap(), Signal::KILL).unwrap();
}

#[tokio::test]
async fn a_process_of_an_earlier_daemon_is_watched_killed_and_its_last_event_read() {
    let directory = tempfile::tempdir().unwrap();
    let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    let identity = ProcessIdentity::of(child.id()).unwrap();
    let launcher = VmmLauncher::new("/bin/cat".into(), Vec::new());
    let mut process = launcher.take_over(&identity, directory.path(), true).unwrap();
    tokio::select! {
        biased;
        _ = process.next_event() => panic!("nothing was said"),
        () = tokio::task::yield_now() => {}
    }

    let last = Event::Exited(ExitReason::TripleFault);
    std::fs::write(directory.path().join(OUTCOME), serde_json::to_vec(&last).unwrap()).unwrap();
    process.kill();

    assert_eq!(process.next_event().await, Said::Event(last));
    assert_eq!(process.next_event().await, Said::Closed);
    assert!(process.wait().await.to_string().contains("earlier daemon"));
    assert!(!child.wait().unwrap().success());
}

#[tokio::test]
async fn one_that_has_ended_before_it_could_be_taken_over_still_has_its_last_event() {
    let directory = tempfile::tempdir().unwrap();
    let identity = ProcessIdentity::of(std::process::id()).unwrap();
    let launcher = VmmLauncher::new("/bin/cat".into(), Vec::new());
    std::fs::write(directory.path().join(OUTCOME), "nonsense").unwrap();

    let mut process = launcher.take_over(&identity, directory.path(), false).unwrap();

    // It must not be this process that is ended.
    process.kill();
    process.wait().await;
    assert!(matches!(process.next_event().await, Said::Nonsense(_)));
    std::fs::remove_file(directory.path().join(OUTCOME)).unwrap();
    let mut process = launcher.take_over(&identity, directory.path(), false).unwrap();
    assert_eq!(process.next_event().await, Said::Closed);
}

#[tokio::test]
async fn a_vmm_that_ends_at_once_or_is_not_there_is_reported() {
    let directory = tempfile::tempdir().unwrap();

    match VmmLauncher::new("/bin/false".into(), Vec::new()).launch(launch(directory.path())) {
        // It may be gone before or after it is sent its specification.
        Err(failure) => assert_eq!(failure.code, ErrorCode::EnclaveBootFailure),
        Ok(mut process) => {
            assert_eq!(process.next_event().await, Said::Closed);
            assert_eq!(process.wait().await.to_string(), "exit status: 1");
        }
    }
    let failure = VmmLauncher::new("/nonexistent/vmm".into(), Vec::new())
        .launch(launch(directory.path()))
        .unwrap_err();
    assert_eq!(failure.code, ErrorCode::ProcessSpawn);
    assert!(
        failure.message.contains("/nonexistent/vmm"),
        "{}",
        failure.message
    );
}
