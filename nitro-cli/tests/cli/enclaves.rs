//! run-enclave, describe-enclaves and terminate-enclave against a daemon that answers.

use std::fs;
use std::io::{Read, pipe};
use std::path::Path;

use api::vmm::VsockBackend;
use api::{
    CpuSelection, EnclaveDescription, EnclaveFlags, EnclaveRunInfo, EnclaveState, EnclaveTermination,
    EndedEnclave, ErrorCode, Failure, Measurements, PoolCore, PoolHugepages, Pools, Reply, Request,
    RunEnclave, RunningImage, Selector,
};
use tempfile::TempDir;

use crate::fake_daemon::{FakeDaemon, Scene};
use crate::images;
use crate::program::Program;

const ID: &str = "i-0000000000000000-enc19a0b1c2d3e4f506";

const RUN_JSON: &str = r#"{
  "EnclaveName": "hello",
  "EnclaveID": "i-0000000000000000-enc19a0b1c2d3e4f506",
  "ProcessID": 4711,
  "EnclaveCID": 16,
  "NumberOfCPUs": 2,
  "CPUIDs": [
    1,
    3
  ],
  "MemoryMiB": 512
}
"#;

pub(crate) fn run_info() -> EnclaveRunInfo {
    EnclaveRunInfo {
        enclave_name: "hello".into(),
        enclave_id: ID.into(),
        process_id: 4711,
        enclave_cid: 16,
        number_of_cpus: 2,
        cpu_ids: vec![1, 3],
        memory_mib: 512,
    }
}

fn termination(name: &str) -> EnclaveTermination {
    EnclaveTermination {
        enclave_name: name.into(),
        enclave_id: format!("i-0-enc{name}"),
        terminated: true,
    }
}

/// A directory with `hello.eif` in it; what the file holds is the daemon's business.
fn directory_with_eif() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("hello.eif"), "an image").unwrap();
    directory
}

fn run_enclave(directory: &Path, more: &[&str]) -> Program {
    let arguments = ["run-enclave", "--eif-path", "hello.eif", "--memory", "512"];
    Program::new(arguments.iter().chain(more)).directory(directory)
}

#[test]
fn run_passes_the_open_image_and_prints_the_enclave() {
    let directory = directory_with_eif();
    let daemon = FakeDaemon::replying(vec![
        Reply::Progress("Start allocating memory...".into()),
        Reply::Progress("Started enclave with enclave-cid: 16, memory: 512 MiB, cpu-ids: [1, 3]".into()),
        Reply::EnclaveStarted(run_info()),
    ]);

    let finished = run_enclave(directory.path(), &["--cpu-count", "2"])
        .daemon(&daemon)
        .run();

    assert_eq!(
        (finished.code, finished.stdout.as_str()),
        (0, RUN_JSON),
        "{finished:#?}"
    );
    assert_eq!(
        finished.stderr,
        "Start allocating memory...\n\
         Started enclave with enclave-cid: 16, memory: 512 MiB, cpu-ids: [1, 3]\n"
    );
    let asked = daemon.finish_one();
    assert_eq!(
        asked.request,
        Request::RunEnclave(RunEnclave {
            memory_mib: 512,
            cpus: CpuSelection::Count(2),
            enclave_cid: None,
            enclave_name: "hello".into(),
            debug_mode: false,
            image_metadata: None,
            vsock: None,
        })
    );
    let mut image = String::new();
    asked
        .descriptor
        .expect("the image's descriptor")
        .read_to_string(&mut image)
        .unwrap();
    assert_eq!(image, "an image");
}

#[test]
fn every_option_of_run_reaches_the_daemon() {
    let directory = directory_with_eif();
    let daemon = FakeDaemon::replying(vec![Reply::EnclaveStarted(run_info())]);
    let options = [
        "--cpu-ids",
        "3",
        "1",
        "--enclave-cid",
        "77",
        "--enclave-name",
        "web server",
        "--debug-mode",
        "--vsock",
        "unix",
    ];

    let finished = run_enclave(directory.path(), &options).daemon(&daemon).run();

    assert_eq!(finished.code, 0, "{finished:#?}");
    assert_eq!(
        daemon.finish_one().request,
        Request::RunEnclave(RunEnclave {
            memory_mib: 512,
            cpus: CpuSelection::Ids(vec![3, 1]),
            enclave_cid: Some(77),
            enclave_name: "web server".into(),
            debug_mode: true,
            image_metadata: None,
            vsock: Some(VsockBackend::Unix),
        })
    );
}

#[test]
fn run_with_an_attached_console_goes_on_with_the_console() {
    let directory = directory_with_eif();
    let daemon = FakeDaemon::start(vec![
        Scene::replies(vec![Reply::EnclaveStarted(run_info())]),
        Scene::bytes(
            [
                api::frame::encode(&Reply::ConsoleAttached { enclave_cid: 16 }).unwrap(),
                b"Hello from the enclave side!\n".to_vec(),
            ]
            .concat(),
        ),
    ]);

    let finished = run_enclave(directory.path(), &["--cpu-count", "2", "--attach-console"])
        .daemon(&daemon)
        .run();

    assert_eq!(finished.code, 0, "{finished:#?}");
    assert_eq!(
        finished.stdout,
        format!(
            "{RUN_JSON}Connecting to the console for enclave 16...\n\
             Successfully connected to the console.\n\
             Hello from the enclave side!\n"
        )
    );
    let [run, console] = daemon.finish().try_into().ok().expect("two requests");
    assert!(matches!(
        run.request,
        Request::RunEnclave(RunEnclave { debug_mode: true, .. })
    ));
    assert_eq!(console.request, Request::Console(Selector::Id(ID.into())));
}

#[test]
fn a_cid_of_zero_is_chosen_by_the_daemon_and_said_so() {
    let directory = directory_with_eif();
    let daemon = FakeDaemon::replying(vec![Reply::EnclaveStarted(run_info())]);

    let finished = run_enclave(directory.path(), &["--cpu-count", "2", "--enclave-cid", "0"])
        .daemon(&daemon)
        .run();

    assert_eq!(
        (finished.code, finished.stdout.as_str()),
        (0, RUN_JSON),
        "{finished:#?}"
    );
    assert_eq!(
        finished.stderr,
        "The enclave CID will be auto-generated as the provided CID is 0\n"
    );
    let request = daemon.finish_one().request;
    assert!(
        matches!(
            request,
            Request::RunEnclave(RunEnclave {
                enclave_cid: None,
                ..
            })
        ),
        "{request:?}"
    );
}

#[test]
fn what_the_daemon_declines_to_run_is_the_root_cause_of_e39() {
    let directory = directory_with_eif();
    let daemon = FakeDaemon::replying(vec![
        Reply::Progress("Start allocating memory...".into()),
        Reply::Error(Failure::new(
            ErrorCode::InsufficientMemoryRequested,
            "The EIF needs at least 1024 MiB",
        )),
    ]);

    let finished = run_enclave(directory.path(), &["--cpu-count", "2"])
        .daemon(&daemon)
        .run();

    finished.assert_failed(39, &["E26", "E39"]);
    finished.assert_says(&[
        "Start allocating memory...\n",
        "[ E26 ] Insufficient memory requested. The EIF needs at least 1024 MiB.\n",
        "\nFailed connections: 1\n",
        "[ E39 ] Enclave process connection failure. ",
    ]);
    daemon.finish();
}

#[test]
fn an_image_that_cannot_be_opened_is_e19_under_e39_and_the_daemon_is_not_asked() {
    let directory = tempfile::tempdir().unwrap();
    let fifo = directory.path().join("fifo");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        0o600.into(),
        0,
    )
    .unwrap();
    let cases = [
        ("missing.eif", "No such file or directory"),
        (".", "not a regular file"),
        ("fifo", "not a regular"),
    ];
    for (path, reason) in cases {
        let finished = Program::new([
            "run-enclave",
            "--eif-path",
            path,
            "--memory",
            "512",
            "--cpu-count",
            "2",
        ])
        .directory(directory.path())
        .run();

        finished.assert_failed(39, &["E19", "E39"]);
        finished.assert_says(&[
            "[ E19 ] File operation failure. Cannot open the EIF `",
            &format!("{path}`"),
            reason,
            "Failed connections: 1\n",
            "[ E39 ]",
        ]);
    }
}

pub(crate) fn description() -> EnclaveDescription {
    EnclaveDescription {
        run: run_info(),
        state: EnclaveState::Running,
        flags: EnclaveFlags::DebugMode,
        measurements: Measurements {
            hash_algorithm: Measurements::HASH_ALGORITHM.into(),
            pcr0: "00".into(),
            pcr1: "11".into(),
            pcr2: "22".into(),
            pcr8: Some("88".into()),
        },
        vsock: Some(VsockBackend::Kernel),
    }
}

#[test]
fn describe_with_metadata_adds_what_the_images_say_of_themselves() {
    let running = |custom: Option<serde_json::Value>| RunningImage {
        enclave: description(),
        metadata: Some(serde_json::to_string(&images::metadata(custom)).unwrap()),
    };
    let nothing_known = RunningImage {
        enclave: description(),
        metadata: None,
    };
    let custom = serde_json::json!({"Team": "payments", "BuildTime": "forged"});
    let daemon = FakeDaemon::replying(vec![Reply::RunningImages(vec![
        running(Some(custom)),
        running(Some(serde_json::json!(["no keys"]))),
        nothing_known,
    ])]);

    let finished = Program::new(["describe-enclaves", "--metadata"])
        .daemon(&daemon)
        .run();

    assert_eq!((finished.code, finished.stderr.as_str()), (0, ""));
    let (_, after_measurements) = finished.stdout.split_once("\"PCR8\": \"88\"\n    },\n").unwrap();
    let expected = r#"    "ImageName": "hello",
    "ImageVersion": "1.0",
    "Metadata": {
      "BuildTime": "2024-01-01T00:00:00+00:00",
      "BuildTool": "nitro-cli",
      "BuildToolVersion": "1.5.0",
      "OperatingSystem": "Linux",
      "KernelVersion": "6.12.0",
      "DockerInfo": null,
      "Team": "payments"
    }
  },
"#;
    assert!(after_measurements.starts_with(expected), "{}", finished.stdout);
    let printed: serde_json::Value = serde_json::from_str(&finished.stdout).unwrap();
    assert_eq!(printed[1]["ImageName"], "hello");
    assert_eq!(printed[1].get("Metadata"), None);
    assert_eq!(printed[2]["EnclaveName"], "hello");
    assert_eq!(printed[2].get("ImageName"), None);
    assert_eq!(daemon.finish_one().request, Request::DescribeImages);
}

#[test]
fn metadata_that_is_none_is_e17() {
    let daemon = FakeDaemon::replying(vec![Reply::RunningImages(vec![RunningImage {
        enclave: description(),
        metadata: Some("{}".into()),
    }])]);

    let finished = Program::new(["describe-enclaves", "--metadata"])
        .daemon(&daemon)
        .run();

    finished.assert_failed(17, &["E17"]);
    daemon.finish();
}

#[test]
fn describe_prints_what_runs_in_aws_shape() {
    let daemon = FakeDaemon::replying(vec![Reply::Enclaves(vec![description()])]);

    let finished = Program::new(["describe-enclaves"]).daemon(&daemon).run();

    assert_eq!((finished.code, finished.stderr.as_str()), (0, ""));
    assert_eq!(
        finished.stdout,
        r#"[
  {
    "EnclaveName": "hello",
    "EnclaveID": "i-0000000000000000-enc19a0b1c2d3e4f506",
    "ProcessID": 4711,
    "EnclaveCID": 16,
    "NumberOfCPUs": 2,
    "CPUIDs": [
      1,
      3
    ],
    "MemoryMiB": 512,
    "State": "RUNNING",
    "Flags": "DEBUG_MODE",
    "Measurements": {
      "HashAlgorithm": "Sha384 { ... }",
      "PCR0": "00",
      "PCR1": "11",
      "PCR2": "22",
      "PCR8": "88"
    }
  }
]
"#
    );
    assert_eq!(daemon.finish_one().request, Request::DescribeEnclaves);
}

#[test]
fn ended_enclaves_are_listed_with_reason_exit_code_times_and_last_words() {
    let daemon = FakeDaemon::replying(vec![Reply::Ended(vec![EndedEnclave {
        run: EnclaveRunInfo {
            enclave_name: "hello".into(),
            enclave_id: "i-0-enc1".into(),
            process_id: 7,
            enclave_cid: 16,
            number_of_cpus: 1,
            cpu_ids: vec![1],
            memory_mib: 64,
        },
        flags: EnclaveFlags::DebugMode,
        reason: "its application ended with exit code 3".into(),
        exit_code: Some(3),
        started_at: 1_700_000_000_123,
        ended_at: 1_700_000_061_000,
        console: vec!["last words".into()],
    }])]);

    let finished = Program::new(["describe-enclaves", "--ended"])
        .daemon(&daemon)
        .run();

    assert_eq!((finished.code, finished.stderr.as_str()), (0, ""));
    let printed: serde_json::Value = serde_json::from_str(&finished.stdout).unwrap();
    assert_eq!(
        printed,
        serde_json::json!([{
            "EnclaveName": "hello", "EnclaveID": "i-0-enc1", "ProcessID": 7, "EnclaveCID": 16, "NumberOfCPUs": 1,
            "CPUIDs": [1], "MemoryMiB": 64, "Flags": "DEBUG_MODE",
            "Reason": "its application ended with exit code 3", "ExitCode": 3,
            "StartedAt": "2023-11-14T22:13:20+00:00", "EndedAt": "2023-11-14T22:14:21+00:00",
            "Console": ["last words"]
        }])
    );
    assert_eq!(daemon.finish_one().request, Request::EndedEnclaves);
}

#[test]
fn tables_are_for_people() {
    let table = |options: &[&str], reply| {
        let daemon = FakeDaemon::replying(vec![reply]);
        let arguments = ["describe-enclaves", "--output", "table"];
        let finished = Program::new(arguments.iter().chain(options))
            .daemon(&daemon)
            .run();
        assert_eq!((finished.code, finished.stderr.as_str()), (0, ""));
        daemon.finish();
        finished.stdout
    };

    assert_eq!(
        table(&[], Reply::Enclaves(vec![description()])),
        "NAME   ID                                      CID  CPUS  MEMORY   STATE    FLAGS       VSOCK\n\
         hello  i-0000000000000000-enc19a0b1c2d3e4f506  16   1,3   512 MiB  RUNNING  DEBUG_MODE  kernel\n"
    );
    let metadata = serde_json::to_string(&images::metadata(None)).unwrap();
    let image = RunningImage {
        enclave: description(),
        metadata: Some(metadata),
    };
    let with_metadata = table(&["--metadata"], Reply::RunningImages(vec![image]));
    assert!(
        with_metadata.ends_with("DEBUG_MODE  kernel  hello  1.0\n"),
        "{with_metadata}"
    );
    let ended = EndedEnclave {
        run: run_info(),
        flags: EnclaveFlags::None,
        reason: "it was terminated by request".into(),
        exit_code: None,
        started_at: 0,
        ended_at: 1_700_000_000_123,
        console: vec![],
    };
    let ended = table(&["--ended"], Reply::Ended(vec![ended]));
    assert!(
        ended.ends_with("  2023-11-14T22:13:20+00:00  -     it was terminated by request\n"),
        "{ended}"
    );
    assert_eq!(table(&[], Reply::Enclaves(vec![])).lines().count(), 1);
}

#[test]
fn pools_are_shown_with_who_holds_them() {
    let daemon = FakeDaemon::replying(vec![Reply::Pools(Pools {
        cores: vec![PoolCore {
            node: 1,
            cpus: vec![2, 3],
            enclave_id: Some("i-0-enc1".into()),
            enclave_name: Some("hello".into()),
        }],
        hugepages: vec![PoolHugepages {
            node: 1,
            page_size_mib: 2,
            total: 256,
            free: 64,
        }],
    })]);

    let finished = Program::new(["describe-pools"]).daemon(&daemon).run();

    assert_eq!((finished.code, finished.stderr.as_str()), (0, ""));
    let printed: serde_json::Value = serde_json::from_str(&finished.stdout).unwrap();
    assert_eq!(
        printed,
        serde_json::json!({
            "Cores": [{"NUMANode": 1, "CPUIDs": [2, 3], "EnclaveID": "i-0-enc1", "EnclaveName": "hello"}],
            "Hugepages": [{"NUMANode": 1, "PageSizeMiB": 2, "Total": 256, "Free": 64}]
        })
    );
    assert_eq!(daemon.finish_one().request, Request::DescribePools);
}

#[test]
fn terminate_by_id_or_name_prints_one_object() {
    let cases = [
        ("--enclave-id", Selector::Id("a".into())),
        ("--enclave-name", Selector::Name("a".into())),
    ];
    for (option, selector) in cases {
        let daemon = FakeDaemon::replying(vec![Reply::Terminated(vec![termination("a")])]);

        let finished = Program::new(["terminate-enclave", option, "a"])
            .daemon(&daemon)
            .run();

        assert_eq!(finished.code, 0, "{finished:#?}");
        assert_eq!(
            finished.stdout,
            "{\n  \"EnclaveName\": \"a\",\n  \"EnclaveID\": \"i-0-enca\",\n  \"Terminated\": true\n}\n"
        );
        assert_eq!(finished.stderr, "Successfully terminated enclave i-0-enca.\n");
        assert_eq!(daemon.finish_one().request, Request::TerminateEnclave(selector));
    }
}

#[test]
fn terminate_all_prints_an_array() {
    let daemon = FakeDaemon::replying(vec![Reply::Terminated(vec![termination("a"), termination("b")])]);

    let finished = Program::new(["terminate-enclave", "--all"]).daemon(&daemon).run();

    assert_eq!(finished.code, 0, "{finished:#?}");
    let printed: serde_json::Value = serde_json::from_str(&finished.stdout).unwrap();
    assert_eq!(printed[1]["EnclaveID"], "i-0-encb");
    assert_eq!(printed.as_array().unwrap().len(), 2);
    assert_eq!(
        finished.stderr,
        "Successfully terminated enclave i-0-enca.\nSuccessfully terminated enclave i-0-encb.\n"
    );
    assert_eq!(
        daemon.finish_one().request,
        Request::TerminateEnclave(Selector::All)
    );
}

#[test]
fn terminate_all_fails_if_there_are_enclaves_of_others_and_prints_those_that_have_ended() {
    let refused = EnclaveTermination {
        terminated: false,
        ..termination("b")
    };
    let daemon = FakeDaemon::replying(vec![Reply::Terminated(vec![refused, termination("a")])]);

    let finished = Program::new(["terminate-enclave", "--all"]).daemon(&daemon).run();

    assert_eq!(finished.code, 39, "{finished:#?}");
    let printed: serde_json::Value = serde_json::from_str(&finished.stdout).unwrap();
    assert_eq!(printed.as_array().unwrap().len(), 1);
    assert_eq!(printed[0]["EnclaveID"], "i-0-enca");
    for text in ["Failed connections: 1\n", "[ E39 ]", "i-0-encb"] {
        assert!(finished.stderr.contains(text), "{finished:#?}");
    }
}

#[test]
fn an_answer_that_nobody_reads_is_no_failure_and_no_panic() {
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    let daemon = FakeDaemon::replying(vec![Reply::Enclaves(vec![])]);

    let finished = Program::new(["describe-enclaves"])
        .daemon(&daemon)
        .stdout(writer)
        .run();

    assert_eq!((finished.code, finished.stderr.as_str()), (0, ""));
    daemon.finish();
}

#[test]
fn an_answer_that_cannot_be_written_is_e19() {
    let daemon = FakeDaemon::replying(vec![Reply::Enclaves(vec![])]);
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();

    let finished = Program::new(["describe-enclaves"])
        .daemon(&daemon)
        .stdout(full)
        .run();

    finished.assert_failed(19, &["E19"]);
    finished.assert_says(&["Cannot write to standard output: No space left on device"]);
    daemon.finish();
}
