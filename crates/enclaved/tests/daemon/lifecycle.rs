//! Every way an enclave can go, from run-enclave to its end, with scripted guests.

use std::os::fd::AsFd;
use std::time::Duration;

use crate::support::{Guest, Parent, by_name, debug_request, measurements, request, soon};
use api::vmm::{Event, ExitReason};
use api::{EnclaveFlags, EnclaveState, ErrorCode, Failure, Reply, Request, Selector};
use enclaved::launcher::Said;

#[tokio::test]
async fn an_enclave_is_run_described_and_terminated_as_on_aws() {
    let mut parent = Parent::start();
    let mut client = parent.client();
    client.run(request("hello", 2));

    assert_eq!(
        client.reply().await,
        Reply::Progress("Start allocating memory...".into())
    );
    let mut guest = parent.guest().await;
    assert_eq!(
        parent.describe().await,
        [],
        "AWS does not list an enclave that boots"
    );
    guest.say(Event::Measured(measurements()));
    guest.say(Event::Started);
    let started = "Started enclave with enclave-cid: 16, memory: 64 MiB, cpu-ids: [1, 5]";
    assert_eq!(client.reply().await, Reply::Progress(started.into()));
    assert_eq!(guest.beat(0xb7).await, [0xb7]);
    let Reply::EnclaveStarted(info) = client.last_reply().await else {
        panic!("not started");
    };

    assert_eq!(
        (info.enclave_name.as_str(), info.enclave_cid, info.process_id),
        ("hello", 16, std::process::id())
    );
    assert_eq!(
        (info.number_of_cpus, info.cpu_ids.as_slice(), info.memory_mib),
        (2, [1, 5].as_slice(), 64)
    );
    let described = parent.describe().await;
    assert_eq!(described.len(), 1);
    assert_eq!(described[0].run, info);
    assert_eq!(described[0].state, EnclaveState::Running);
    assert_eq!(described[0].flags, EnclaveFlags::None);
    assert_eq!(described[0].measurements, measurements());

    let mut terminating = parent.client();
    terminating.send(&Request::TerminateEnclave(Selector::Id(info.enclave_id.clone())));
    guest.killed().await;
    let Reply::Terminated(terminated) = terminating.last_reply().await else {
        panic!("not terminated");
    };
    assert_eq!(terminated.len(), 1);
    assert_eq!(terminated[0].enclave_id, info.enclave_id);
    assert!(terminated[0].terminated);
    parent.assert_nothing_is_held().await;
}

#[tokio::test]
async fn the_vmm_is_told_and_given_what_the_protocol_says() {
    let mut parent = Parent::start();
    let mut client = parent.client();
    client.run(debug_request("hello"));
    let guest = parent.guest().await;

    assert_eq!(guest.spec.guest_cid, 16);
    assert_eq!(guest.spec.cpu_ids, [1, 5]);
    assert_eq!(guest.spec.threads_per_core, 2);
    assert!(guest.spec.debug_mode);
    assert_eq!(guest.directory, parent.path().join(&guest.spec.enclave_id));
    let descriptors = guest.descriptors.as_ref().unwrap();
    assert_eq!(descriptors.memory.len(), guest.spec.memory.len());
    assert!(descriptors.console.is_some());
    let image = std::fs::File::from(descriptors.eif.as_fd().try_clone_to_owned().unwrap());
    assert_eq!(image.metadata().unwrap().len(), 1 << 20);
    assert!(guest.directory.join("vsock.sock").exists());
    drop(client);
}

#[tokio::test]
async fn the_heartbeat_socket_is_gone_once_the_enclave_runs() {
    let mut parent = Parent::start();
    let (guest, _) = parent.boot(request("hello", 2)).await;

    assert!(!guest.directory.join("vsock.sock_9000").exists());
    assert!(guest.directory.join("vsock.sock").exists());
}

/// What the client is told when `act` is what the guest does instead of booting.
async fn failed_boot(act: impl AsyncFnOnce(&mut Guest)) -> Failure {
    let mut parent = Parent::start();
    let mut client = parent.client();
    client.run(debug_request("hello"));
    let mut guest = parent.guest().await;
    act(&mut guest).await;
    guest.killed().await;
    let failure = client.failure().await;
    parent.assert_nothing_is_held().await;
    failure
}

#[tokio::test]
async fn every_failure_to_boot_is_named_and_leaves_nothing() {
    let exited = failed_boot(async |guest| {
        guest.say(Event::Measured(measurements()));
        guest.say(Event::Started);
        guest.print(b"Kernel panic - not syncing: No working init found.\r\n");
        guest.say(Event::Exited(ExitReason::Reset));
    });
    let failure = exited.await;
    assert_eq!(failure.code, ErrorCode::EnclaveBootFailure);
    assert!(
        failure.message.contains("the guest reset itself"),
        "{}",
        failure.message
    );
    assert!(
        failure.message.ends_with("No working init found."),
        "{}",
        failure.message
    );

    let wrong_byte = failed_boot(async |guest| {
        guest.say(Event::Measured(measurements()));
        guest.say(Event::Started);
        assert!(guest.beat(0x41).await.is_empty());
    });
    let failure = wrong_byte.await;
    assert_eq!(failure.code, ErrorCode::EnclaveBootFailure);
    assert!(
        failure.message.contains("0x41 instead of 0xb7"),
        "{}",
        failure.message
    );

    let vanished = failed_boot(async |guest| guest.die("signal: 9 (SIGKILL)")).await;
    assert_eq!(vanished.code, ErrorCode::EnclaveBootFailure);
    assert!(
        vanished.message.contains("signal: 9 (SIGKILL)"),
        "{}",
        vanished.message
    );
    assert!(
        vanished.message.contains("Its console stayed empty."),
        "{}",
        vanished.message
    );
}

#[tokio::test]
async fn the_vmms_own_failure_keeps_its_number_and_words() {
    let told = Failure::new(ErrorCode::EifParsing, "section 3 ends beyond the file");
    let said = told.clone();

    let failure = failed_boot(async |guest| guest.say(Event::Failed(said))).await;

    assert_eq!(failure, told);
}

#[tokio::test]
async fn a_vmm_that_breaks_the_protocol_is_ended() {
    for script in [
        vec![Said::Event(Event::Started)],
        vec![
            Said::Event(Event::Measured(measurements())),
            Said::Event(Event::Measured(measurements())),
        ],
        vec![Said::Event(Event::Measured(api::Measurements {
            pcr0: "<script>".into(),
            ..measurements()
        }))],
        vec![Said::Nonsense("a malformed message".into())],
    ] {
        let failure = failed_boot(async |guest| {
            for said in script {
                guest.utter(said);
            }
        })
        .await;
        assert_eq!(failure.code, ErrorCode::EnclaveBootFailure);
        assert!(
            failure.message.contains("broke the protocol"),
            "{}",
            failure.message
        );
    }
}

#[tokio::test]
async fn an_enclave_without_heartbeat_is_ended_after_its_time() {
    let mut parent = Parent::start_with(|config| config.heartbeat_timeout = Some(Duration::from_millis(50)));
    let mut client = parent.client();
    client.run(request("hello", 2));
    let mut guest = parent.guest().await;
    guest.killed().await;

    let failure = client.failure().await;

    assert_eq!(failure.code, ErrorCode::EnclaveBootFailure);
    assert!(
        failure.message.contains("no heartbeat within"),
        "{}",
        failure.message
    );
    assert!(failure.message.contains("--debug-mode"), "{}", failure.message);
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_booting_enclave_with_it() {
    let mut parent = Parent::start();
    let mut client = parent.client();
    client.run(request("hello", 2));
    let mut guest = parent.guest().await;

    drop(client);

    guest.killed().await;
    eventually_free(&mut parent).await;
}

#[tokio::test]
async fn a_client_that_only_finished_sending_is_still_there() {
    let mut parent = Parent::start();
    let mut client = parent.client();
    client.run(request("hello", 2));
    client.finish_sending();
    let mut guest = parent.guest().await;
    guest.boot().await;

    assert!(matches!(client.last_reply().await, Reply::EnclaveStarted(_)));
}

#[tokio::test]
async fn a_vmm_that_cannot_be_started_is_reported_and_leaves_nothing() {
    let mut parent = Parent::start();
    let mut client = parent.client();
    let mut refused = request("hello", 2);
    refused.enclave_cid = Some(666);
    client.run(refused);

    assert_eq!(client.failure().await.code, ErrorCode::ProcessSpawn);
    parent.assert_nothing_is_held().await;
}

/// Waits until no enclave is listed or held; for ends that no client is told of.
async fn eventually_free(parent: &mut Parent) {
    soon(async {
        while !parent.describe().await.is_empty() || !parent.enclave_directories().is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    parent.assert_nothing_is_held().await;
}

#[tokio::test]
async fn a_running_enclave_that_ends_by_itself_disappears() {
    let ends: [fn(&mut Guest); 4] = [
        |guest| guest.say(Event::Exited(ExitReason::TripleFault)),
        |guest| {
            guest.say(Event::Failed(Failure::new(
                ErrorCode::Unspecified,
                "KVM_RUN failed",
            )));
        },
        |guest| guest.utter(Said::Nonsense("a message of more than 65536 bytes".into())),
        |guest| guest.die("signal: 9 (SIGKILL)"),
    ];
    for end in ends {
        let mut parent = Parent::start();
        let (mut guest, _) = parent.boot(request("hello", 2)).await;
        end(&mut guest);
        guest.killed().await;
        eventually_free(&mut parent).await;
    }
}

#[tokio::test]
async fn enclaves_get_different_cpus_cids_and_names_and_are_listed_in_order() {
    let mut parent = Parent::start();
    let (_one, first) = parent.boot(request("hello", 2)).await;
    let (_two, second) = parent.boot(request("hello", 4)).await;

    assert_eq!(
        (first.enclave_name.as_str(), second.enclave_name.as_str()),
        ("hello", "hello_1")
    );
    assert_eq!((first.enclave_cid, second.enclave_cid), (16, 17));
    assert_eq!(second.cpu_ids, [2, 6, 3, 7]);
    let listed: Vec<String> = parent
        .describe()
        .await
        .into_iter()
        .map(|one| one.run.enclave_id)
        .collect();
    assert_eq!(listed, [first.enclave_id, second.enclave_id]);
    let mut third = parent.client();
    third.run(request("third", 2));
    assert_eq!(third.failure().await.code, ErrorCode::IoctlFailure);
}

#[tokio::test]
async fn two_enclaves_boot_at_the_same_time_each_by_its_own_heartbeat() {
    let mut parent = Parent::start();
    let (mut one, mut two) = (parent.client(), parent.client());
    one.run(request("one", 2));
    let mut first = parent.guest().await;
    two.run(request("two", 2));
    let mut second = parent.guest().await;

    second.boot().await;
    assert!(matches!(two.last_reply().await, Reply::EnclaveStarted(info) if info.enclave_name == "two"));
    first.boot().await;
    assert!(matches!(one.last_reply().await, Reply::EnclaveStarted(info) if info.enclave_name == "one"));
}

#[tokio::test]
async fn a_heartbeat_before_the_vmms_word_still_counts() {
    let mut parent = Parent::start();
    let mut client = parent.client();
    client.run(request("hello", 2));
    let guest = parent.guest().await;

    assert_eq!(guest.beat(0xb7).await, [0xb7]);
    guest.say(Event::Measured(measurements()));
    guest.say(Event::Started);

    assert!(matches!(client.last_reply().await, Reply::EnclaveStarted(_)));
}

#[tokio::test]
async fn terminating_by_name_and_all_answers_when_they_are_gone() {
    let mut parent = Parent::start();
    let (mut one, _) = parent.boot(request("one", 2)).await;
    let (mut two, _) = parent.boot(request("two", 2)).await;

    let mut client = parent.client();
    client.send(&Request::TerminateEnclave(by_name("one")));
    one.killed().await;
    assert!(matches!(client.last_reply().await, Reply::Terminated(gone) if gone[0].enclave_name == "one"));
    let mut client = parent.client();
    client.send(&Request::TerminateEnclave(Selector::All));
    two.killed().await;
    assert!(matches!(client.last_reply().await, Reply::Terminated(gone) if gone[0].enclave_name == "two"));

    assert_eq!(
        parent.ask(Request::TerminateEnclave(Selector::All)).await,
        Reply::Terminated(vec![])
    );
    parent.assert_nothing_is_held().await;
}

#[tokio::test]
async fn unknown_enclaves_have_awss_numbers() {
    let parent = Parent::start();
    let code = async |request| match parent.ask(request).await {
        Reply::Error(failure) => failure.code,
        other => panic!("{other:?}"),
    };

    for id in ["i-0000000000000000-enc1", "", "nonsense"] {
        let unknown = Selector::Id(id.into());
        assert_eq!(
            code(Request::TerminateEnclave(unknown.clone())).await,
            ErrorCode::SocketError
        );
        assert_eq!(code(Request::Console(unknown)).await, ErrorCode::SocketError);
    }
    assert_eq!(
        code(Request::TerminateEnclave(by_name("nobody"))).await,
        ErrorCode::EnclaveNaming
    );
    assert_eq!(
        code(Request::Console(by_name("nobody"))).await,
        ErrorCode::EnclaveNaming
    );
    assert_eq!(
        code(Request::Console(Selector::All)).await,
        ErrorCode::InvalidCommand
    );
}

#[tokio::test]
async fn a_stopping_daemon_ends_its_enclaves_tells_its_clients_and_leaves_no_socket() {
    let mut parent = Parent::start();
    let (mut running, _) = parent.boot(request("running", 2)).await;
    let mut client = parent.client();
    client.run(request("booting", 2));
    let mut booting = parent.guest().await;

    let stopping = tokio::spawn(parent.stop());
    running.killed().await;
    booting.killed().await;
    let failure = client.failure().await;
    let directory = stopping.await.unwrap();

    assert_eq!(failure.code, ErrorCode::EnclaveBootFailure);
    assert!(failure.message.contains("shutting down"), "{}", failure.message);
    let mut left: Vec<_> = std::fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    left.sort_unstable();
    assert_eq!(
        left,
        [
            "attestation",
            "audit.jsonl",
            "enclaved.lock",
            "ended.jsonl",
            "pool.lock"
        ]
    );
}
