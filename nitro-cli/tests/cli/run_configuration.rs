//! `run-enclave --config`: AWS's keys and its rules.

use std::fs;

use api::vmm::VsockBackend;
use api::{CpuSelection, EnclaveRunInfo, Reply, Request, RunEnclave, Selector};

use crate::enclaves::run_info;
use crate::fake_daemon::{FakeDaemon, Scene};
use crate::images;
use crate::program::{Finished, Program};

/// Runs with this configuration beside a `hello.eif`.
fn run(configuration: &str, daemon: Option<&FakeDaemon>, more: &[&str]) -> Finished {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("hello.eif"), "an image").unwrap();
    fs::write(directory.path().join("hello.json"), configuration).unwrap();
    let arguments = ["run-enclave", "--config", "hello.json"];
    let program = Program::new(arguments.iter().chain(more)).directory(directory.path());
    match daemon {
        Some(daemon) => program.daemon(daemon).run(),
        None => program.run(),
    }
}

/// What the daemon is asked for.
fn asked(configuration: &str) -> RunEnclave {
    let daemon = FakeDaemon::replying(vec![Reply::EnclaveStarted(run_info())]);
    let finished = run(configuration, Some(&daemon), &[]);
    assert_eq!(finished.code, 0, "{finished:#?}");
    match daemon.finish_one().request {
        Request::RunEnclave(request) => request,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_keys_are_those_of_the_options_and_others_are_passed_over() {
    let least = asked(r#"{"eif_path": "hello.eif", "memory_mib": 512, "cpu_count": 2, "unheard_of": [1]}"#);
    assert_eq!(
        least,
        RunEnclave {
            memory_mib: 512,
            cpus: CpuSelection::Count(2),
            enclave_cid: None,
            enclave_name: "hello".into(),
            debug_mode: false,
            image_metadata: None,
            vsock: None,
        }
    );
    let most = asked(
        r#"{"eif_path": "hello.eif", "memory_mib": 64, "cpu_ids": [3, 1], "enclave_cid": 77, "enclave_name": "web",
            "debug_mode": true, "attach_console": false, "vsock": "kernel"}"#,
    );
    assert_eq!(
        most,
        RunEnclave {
            memory_mib: 64,
            cpus: CpuSelection::Ids(vec![3, 1]),
            enclave_cid: Some(77),
            enclave_name: "web".into(),
            debug_mode: true,
            image_metadata: None,
            vsock: Some(VsockBackend::Kernel),
        }
    );
    // As on AWS, whose driver refuses it, so that the failure is the enclave's.
    let reserved = asked(r#"{"eif_path": "hello.eif", "memory_mib": 64, "cpu_count": 2, "enclave_cid": 3}"#);
    assert_eq!(reserved.enclave_cid, Some(3));
}

#[test]
fn the_console_can_be_asked_for_in_the_file_and_on_the_command_line() {
    let with_key = r#"{"eif_path": "hello.eif", "memory_mib": 64, "cpu_count": 2, "attach_console": true}"#;
    let without = r#"{"eif_path": "hello.eif", "memory_mib": 64, "cpu_count": 2}"#;
    for (configuration, more) in [(with_key, &[][..]), (without, &["--attach-console"])] {
        let daemon = FakeDaemon::start(vec![
            Scene::replies(vec![Reply::EnclaveStarted(EnclaveRunInfo { ..run_info() })]),
            Scene::replies(vec![Reply::ConsoleAttached { enclave_cid: 16 }]),
        ]);

        let finished = run(configuration, Some(&daemon), more);

        assert_eq!(finished.code, 0, "{finished:#?}");
        assert!(finished.stdout.contains("Successfully connected to the console."));
        let [run, console] = daemon.finish().try_into().ok().expect("two requests");
        assert!(matches!(
            run.request,
            Request::RunEnclave(RunEnclave { debug_mode: true, .. })
        ));
        assert!(matches!(console.request, Request::Console(Selector::Id(_))));
    }
}

#[test]
fn a_wrong_configuration_fails_with_awss_numbers() {
    let cases = [
        ("", 17, "E17"),
        ("[]", 17, "E17"),
        ("{\"eif_path\": \"hello.eif\"", 17, "E17"),
        (r#"{"memory_mib": 64, "cpu_count": 2}"#, 17, "E17"),
        (r#"{"eif_path": "hello.eif", "cpu_count": 2}"#, 17, "E17"),
        (
            r#"{"eif_path": "hello.eif", "memory_mib": "64M", "cpu_count": 2}"#,
            17,
            "E17",
        ),
        (
            r#"{"eif_path": "hello.eif", "memory_mib": 64, "cpu_count": -2}"#,
            17,
            "E17",
        ),
        (
            r#"{"eif_path": "hello.eif", "memory_mib": 64, "cpu_ids": "2 3"}"#,
            17,
            "E17",
        ),
        (
            r#"{"eif_path": "hello.eif", "memory_mib": 64, "cpu_count": 2, "debug_mode": null}"#,
            17,
            "E17",
        ),
        (
            r#"{"eif_path": "hello.eif", "memory_mib": 64, "cpu_count": 2, "cpu_ids": [2]}"#,
            2,
            "E02",
        ),
        (r#"{"eif_path": "hello.eif", "memory_mib": 64}"#, 1, "E01"),
    ];
    for (configuration, code, block) in cases {
        run(configuration, None, &[]).assert_failed(code, &[block]);
    }
    let missing = Program::new(["run-enclave", "--config", "/nonexistent/hello.json"]).run();
    missing.assert_failed(19, &["E19"]);
    missing.assert_says(&["Cannot read the configuration `/nonexistent/hello.json`"]);
}

#[test]
fn a_cid_that_no_enclave_can_have_fails_as_the_enclave_does() {
    let too_large =
        r#"{"eif_path": "hello.eif", "memory_mib": 64, "cpu_count": 2, "enclave_cid": 4294967296}"#;

    run(too_large, None, &[]).assert_failed(39, &["E29", "E39"]);
}

#[test]
fn what_the_image_says_of_itself_goes_along_and_too_much_of_it_does_not() {
    let sent = |image: &[u8]| {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("hello.eif"), image).unwrap();
        let daemon = FakeDaemon::replying(vec![Reply::EnclaveStarted(run_info())]);
        let line = "run-enclave --eif-path hello.eif --memory 64 --cpu-count 2";
        let finished = Program::new(line.split_whitespace())
            .directory(directory.path())
            .daemon(&daemon)
            .run();
        assert_eq!(finished.code, 0, "{finished:#?}");
        match daemon.finish_one().request {
            Request::RunEnclave(request) => request.image_metadata,
            other => panic!("{other:?}"),
        }
    };
    let team = serde_json::json!({"Team": "payments"});

    let text = sent(&images::unsigned(Some(team.clone()))).expect("metadata");
    assert_eq!(
        serde_json::from_str::<eif::Metadata>(&text).unwrap(),
        images::metadata(Some(team.clone()))
    );

    let mut with_docker_info = images::metadata(Some(team.clone()));
    with_docker_info.docker_info = Some("x".repeat(api::MAX_IMAGE_METADATA).into());
    let text = sent(&images::with_metadata(&with_docker_info)).expect("metadata");
    assert_eq!(
        serde_json::from_str::<eif::Metadata>(&text).unwrap(),
        images::metadata(Some(team))
    );

    let too_much = serde_json::json!({"Team": "x".repeat(api::MAX_IMAGE_METADATA)});
    assert_eq!(sent(&images::unsigned(Some(too_much))), None);
    assert_eq!(sent(&images::version_2()), None);
    assert_eq!(sent(b"no image"), None);
}
