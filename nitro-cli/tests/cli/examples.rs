//! Every example of every command's help, run by a shell as a user would, beside files of the names that it has and with a
//! daemon that answers.

use std::fs;
use std::path::Path;
use std::process::Command;

use api::{EnclaveTermination, EventKind, Reply, Request};
use test_signer::{Curve, TestSigner};

use crate::build_from_elsewhere::{furnish_for_dockerfile, image};
use crate::doctor::pools;
use crate::enclaves::{description, run_info};
use crate::events::event;
use crate::fake_daemon::FakeDaemon;
use crate::foreground::ended;
use crate::program::Program;
use crate::registry::{Access, Registry};
use crate::{attested, build_enclave, images};

/// The commands that the help lists.
pub(crate) fn commands() -> Vec<String> {
    let help = Program::new(["--help"]).run().stdout;
    let (_, commands) = help.split_once("Commands:\n").unwrap();
    let (commands, _) = commands.split_once("\n\n").unwrap();
    let names = commands.lines().map(|line| {
        let (name, summary) = line.trim_start().split_once(' ').expect(line);
        assert!(
            line.starts_with("  ") && !summary.trim().is_empty(),
            "one line each: {line:?}"
        );
        name.to_owned()
    });
    names.filter(|name| name != "help").collect()
}

/// The lines below `Example:`, each with those that go on after a backslash.
fn examples(help: &str) -> Vec<String> {
    let Some((_, section)) = help.split_once("Example:\n") else {
        return Vec::new();
    };
    let (section, _) = section.split_once("\n\n").unwrap_or((section, ""));
    let joined = section.replace("\\\n", " ");
    joined.lines().map(|line| line.trim().to_owned()).collect()
}

/// Files of all names that examples have.
fn furnish(directory: &Path) {
    build_enclave::furnish(directory);
    fs::rename(directory.join("hello"), directory.join("hello-rootfs")).unwrap();
    let signer = TestSigner::new(Curve::P384);
    let attested = attested::just_now(&[0x00, 0xff]);
    let configuration = r#"{"eif_path": "hello.eif", "memory_mib": 512, "cpu_count": 2}"#;
    let files: [(&str, &[u8]); 7] = [
        ("hello.eif", &images::unsigned(None)),
        ("hello.json", configuration.as_bytes()),
        ("bzImage", b"kernel"),
        ("cert.pem", &signer.certificate_pem),
        ("key.pem", &signer.key_pem),
        ("document.cose", &attested.document),
        ("root.pem", &attested.root),
    ];
    for (name, bytes) in files {
        fs::write(directory.join(name), bytes).unwrap();
    }
}

fn answer(request: &Request) -> Vec<Reply> {
    let termination = EnclaveTermination {
        enclave_name: "hello".into(),
        enclave_id: run_info().enclave_id,
        terminated: true,
    };
    vec![match request {
        Request::RunEnclave(_) => Reply::EnclaveStarted(run_info()),
        Request::DescribeEnclaves => Reply::Enclaves(vec![description()]),
        Request::DescribeImages => Reply::RunningImages(vec![]),
        Request::EndedEnclaves => Reply::Ended(vec![]),
        Request::DescribePools => pools(),
        Request::TerminateEnclave(_) => Reply::Terminated(vec![termination]),
        Request::AwaitEnd(_) => Reply::EnclaveEnded(ended(Some(0))),
        Request::Events => Reply::Event(event(EventKind::Present)),
        Request::Console(_) | Request::Logs(_) => Reply::ConsoleAttached { enclave_cid: 16 },
        Request::AttestationRoot => Reply::AttestationRoot("-----BEGIN CERTIFICATE-----\n".into()),
    }]
}

#[test]
fn every_command_shows_examples_that_work_as_they_are() {
    let directory = tempfile::tempdir().unwrap();
    furnish(directory.path());
    furnish_for_dockerfile(directory.path(), "hello");
    let storage = tempfile::tempdir().unwrap();
    let registry = Registry::start(storage.path(), Access::Open);
    registry.push(&image(), "hello", "v1");
    let daemon = FakeDaemon::serving(answer);
    let program = Path::new(env!("CARGO_BIN_EXE_nitro-cli")).parent().unwrap();
    let path = format!("{}:/usr/bin:/bin:/usr/sbin:/sbin", program.display());
    for command in commands() {
        let help = Program::new([&command, "--help"]).run().stdout;
        let examples = examples(&help);
        assert!(!examples.is_empty(), "{help}");
        for example in examples {
            assert!(example.starts_with(&format!("nitro-cli {command}")), "{example}");
            let example = example.replace("registry.example", &registry.host);

            let output = Command::new("sh")
                .args(["-c", &example])
                .current_dir(directory.path())
                .env_clear()
                .env("PATH", &path)
                .env("PCR0", "01".repeat(48))
                .env("ENCLAVED_SOCKET", daemon.socket())
                .env("NITRO_CLI_BLOBS", "blobs")
                .env("NITRO_CLI_LOGS_PATH", directory.path().join("logs"))
                .env("HOME", directory.path())
                .env("BUILDAH_ISOLATION", "chroot")
                .env("CONTAINERS_STORAGE_CONF", directory.path().join("storage.conf"))
                .output()
                .unwrap();

            let stderr = String::from_utf8_lossy(&output.stderr);
            // What is wrong with the machine that tests run on is not wrong with the example.
            let unfit = command == "doctor" && output.status.code() == Some(1);
            // It ends when the daemon does.
            let at_its_end = command == "events" && output.status.code() == Some(39);
            assert!(
                output.status.success() || unfit || at_its_end,
                "{example}: {stderr}"
            );
        }
    }
    assert!(daemon.finish().len() > 5, "the daemon was asked");
}
