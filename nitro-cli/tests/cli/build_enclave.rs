//! build-enclave from a root file system with blobs made here. What other sources hold is the image crate's to test.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::program::{Finished, Program};

const BLOBS: [(&str, &str); 4] = [
    ("bzImage", "kernel"),
    (
        "bzImage.config",
        "#\n#\n# Linux/x86_64 6.12.0 Kernel Configuration\n",
    ),
    ("cmdline", "console=ttyS0\n"),
    ("init", "init"),
];

/// A directory with `blobs` and a root file system in `hello`.
pub(crate) fn workplace() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    furnish(directory.path());
    directory
}

/// Makes `blobs` and a root file system `hello`.
pub(crate) fn furnish(directory: &Path) {
    let blobs = directory.join("blobs");
    fs::create_dir(&blobs).unwrap();
    for (name, contents) in BLOBS {
        fs::write(blobs.join(name), contents).unwrap();
    }
    let hello = directory.join("hello");
    fs::create_dir(&hello).unwrap();
    fs::write(hello.join("init"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(hello.join("init"), fs::Permissions::from_mode(0o755)).unwrap();
}

pub(crate) fn build(directory: &Path, source: &str, more: &[&str]) -> Program {
    let arguments = [
        "build-enclave",
        "--docker-uri",
        source,
        "--output-file",
        "out.eif",
    ];
    Program::new(arguments.iter().chain(more))
        .directory(directory)
        .env("NITRO_CLI_BLOBS", directory.join("blobs"))
}

fn describe(directory: &Path) -> Value {
    let finished = Program::new(["describe-eif", "--eif-path", "out.eif"])
        .directory(directory)
        .run();
    assert_eq!(finished.code, 0, "{finished:#?}");
    serde_json::from_str(&finished.stdout).unwrap()
}

/// The names in a directory, so that what a failure leaves behind shows.
pub(crate) fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn assert_built(finished: &Finished) -> Value {
    assert_eq!(finished.code, 0, "{finished:#?}");
    assert_eq!(
        finished.stderr,
        "Start building the Enclave Image...\nEnclave Image successfully created.\n"
    );
    serde_json::from_str(&finished.stdout).unwrap()
}

#[test]
fn a_directory_becomes_an_image_with_the_measurements_that_are_printed() {
    let directory = workplace();

    let finished = build(directory.path(), "hello", &[]).run();

    let built = assert_built(&finished);
    assert!(
        finished
            .stdout
            .starts_with("{\n  \"Measurements\": {\n    \"HashAlgorithm\": \"Sha384 { ... }\",\n")
    );
    let described = describe(directory.path());
    assert_eq!(described["Measurements"], built["Measurements"]);
    assert_eq!(described["CheckCRC"], true);
    assert_eq!(described["EifVersion"], 4);
    assert_eq!(described["ImageName"], "hello");
    assert_eq!(described["Metadata"]["KernelVersion"], "6.12.0");
    assert_eq!(names(directory.path()), ["blobs", "hello", "out.eif"]);
}

#[test]
fn the_same_directory_gives_the_same_bytes() {
    let directory = workplace();
    let output = directory.path().join("out.eif");

    assert_built(&build(directory.path(), "hello", &[]).run());
    let first = fs::read(&output).unwrap();
    assert_built(&build(directory.path(), "hello", &[]).run());

    assert!(fs::read(&output).unwrap() == first);
}

#[test]
fn name_version_metadata_and_time_are_the_users() {
    let directory = workplace();
    fs::write(directory.path().join("more.json"), r#"{"Team": "payments"}"#).unwrap();
    let options = ["--name", "web", "--version", "7", "--metadata", "more.json"];

    let finished = build(directory.path(), "hello", &options)
        .env("SOURCE_DATE_EPOCH", "1700000000")
        .run();

    assert_built(&finished);
    let described = describe(directory.path());
    assert_eq!(described["ImageName"], "web");
    assert_eq!(described["ImageVersion"], "7");
    assert_eq!(described["Metadata"]["Team"], "payments");
    let build_time = described["Metadata"]["BuildTime"].as_str().unwrap();
    assert!(build_time.starts_with("2023-11-14T22:13:20"), "{build_time}");
}

#[test]
fn a_path_that_is_not_here_is_not_taken_for_an_image_to_pull() {
    let directory = workplace();
    for source in ["./missing.tar", "/nonexistent/image"] {
        let finished = build(directory.path(), source, &[]).run();

        finished.assert_failed(48, &["E48"]);
        finished.assert_says(&[&format!("`{source}` does not exist.")]);
    }
}

#[test]
fn a_source_that_is_no_image_is_e48_and_the_old_output_stays() {
    let directory = workplace();
    fs::write(directory.path().join("junk"), "junk").unwrap();
    fs::create_dir(directory.path().join("nothing-to-run")).unwrap();
    fs::write(directory.path().join("out.eif"), "old").unwrap();
    let before = names(directory.path());
    for (source, reason) in [
        ("junk", "not an image"),
        ("nothing-to-run", "neither /sbin/init nor /init"),
    ] {
        let finished = build(directory.path(), source, &[]).run();

        finished.assert_failed(48, &["E48"]);
        finished.assert_says(&[&format!("Cannot build an EIF from `{source}`: "), reason]);
        assert_eq!(names(directory.path()), before);
        assert_eq!(fs::read(directory.path().join("out.eif")).unwrap(), b"old");
    }
}

#[test]
fn missing_blobs_are_named_with_the_variable_that_says_where_they_are() {
    let cases = [
        ("cmdline", 19, "E19"),
        ("bzImage", 48, "E48"),
        ("bzImage.config", 48, "E48"),
        ("init", 48, "E48"),
    ];
    for (name, code, block) in cases {
        let directory = workplace();
        fs::remove_file(directory.path().join("blobs").join(name)).unwrap();

        let finished = build(directory.path(), "hello", &[]).run();

        finished.assert_failed(code, &[block]);
        finished.assert_says(&[name, "NITRO_CLI_BLOBS names the directory"]);
        assert_eq!(names(directory.path()), ["blobs", "hello"]);
    }
}

#[test]
fn an_output_that_cannot_be_created_is_e19() {
    let directory = workplace();
    for (output, reason) in [
        ("missing/out.eif", "missing/out.eif`"),
        (".", "not a regular file"),
    ] {
        let finished = Program::new(["build-enclave", "--docker-uri", "hello", "--output-file", output])
            .directory(directory.path())
            .env("NITRO_CLI_BLOBS", directory.path().join("blobs"))
            .run();

        finished.assert_failed(19, &["E19"]);
        finished.assert_says(&["Cannot create the output file", reason]);
    }
}

#[test]
fn metadata_that_describe_eif_could_not_print_is_refused() {
    let directory = workplace();
    let long = json!({"long": "x".repeat(4096)}).to_string();
    let files = [
        ("array.json", "[1]", "JSON object"),
        ("junk.json", "{", "not JSON"),
        ("long.json", &long, "more than 4096 bytes"),
    ];
    for (name, contents, _) in files {
        fs::write(directory.path().join(name), contents).unwrap();
    }
    let elsewhere = [
        ("missing.json", "", "No such file"),
        ("/proc/self/smaps", "", "more than 4096 bytes"),
    ];
    for (name, _, reason) in files.into_iter().chain(elsewhere) {
        let finished = build(directory.path(), "hello", &["--metadata", name]).run();

        finished.assert_failed(48, &["E48"]);
        finished.assert_says(&[&format!("the metadata file `{name}`: "), reason]);
        assert!(!directory.path().join("out.eif").exists());
    }
}

#[test]
fn a_time_that_is_none_is_e03() {
    let directory = workplace();
    for text in ["yesterday", "-1", "4294967296"] {
        let finished = build(directory.path(), "hello", &[])
            .env("SOURCE_DATE_EPOCH", text)
            .run();

        finished.assert_failed(3, &["E03"]);
        finished.assert_says(&["SOURCE_DATE_EPOCH is `", text]);
    }
}

#[test]
fn measuring_writes_nothing_and_says_the_same() {
    let directory = workplace();
    let finished = build(directory.path(), "hello", &[]).run();
    let built = assert_built(&finished);
    fs::remove_file(directory.path().join("out.eif")).unwrap();
    let before = names(directory.path());

    for output in [&[][..], &["--output-file", "out.eif"]] {
        let line = ["build-enclave", "--docker-uri", "hello", "--measure-only"];
        let finished = Program::new(line.iter().chain(output))
            .directory(directory.path())
            .env("NITRO_CLI_BLOBS", directory.path().join("blobs"))
            .run();

        assert_eq!(finished.code, 0, "{finished:#?}");
        assert_eq!(finished.stderr, "Start building the Enclave Image...\n");
        assert_eq!(serde_json::from_str::<Value>(&finished.stdout).unwrap(), built);
        assert_eq!(names(directory.path()), before);
    }
}

#[test]
fn kernel_command_line_and_init_are_chosen_one_by_one() {
    let directory = workplace();
    let measure = |more: &[&str]| {
        let finished = build(directory.path(), "hello", more).run();
        let measured = &assert_built(&finished)["Measurements"];
        ["PCR1", "PCR2"].map(|pcr| measured[pcr].as_str().unwrap().to_owned())
    };
    fs::write(directory.path().join("other"), "other").unwrap();
    let [all, application] = measure(&[]);
    for more in [
        ["--kernel", "other"],
        ["--cmdline", "console=ttyS1"],
        ["--init", "other"],
    ] {
        let [changed, same] = measure(&more);
        assert_ne!(changed, all, "{more:?}");
        assert_eq!(same, application);
    }
    let same = [
        ["--kernel", "blobs/bzImage"],
        ["--cmdline", " console=ttyS0 "],
        ["--init", "blobs/init"],
    ];
    for more in same {
        assert_eq!(measure(&more), [all.clone(), application.clone()], "{more:?}");
    }
    assert_eq!(describe(directory.path())["Metadata"]["KernelVersion"], "6.12.0");
    measure(&["--kernel", "other"]);
    assert_eq!(describe(directory.path())["Metadata"]["KernelVersion"], "unknown");

    let complete = ["--kernel", "other", "--cmdline", "x", "--init", "other"];
    let finished = build(directory.path(), "hello", &complete)
        .env("NITRO_CLI_BLOBS", "/nonexistent")
        .run();
    assert_built(&finished);
    let finished = build(directory.path(), "hello", &["--init", "missing"]).run();
    finished.assert_failed(48, &["E48"]);
    finished.assert_says(&["`missing` is missing: the first program"]);
}

#[test]
fn a_quiet_build_says_nothing_but_its_errors() {
    let directory = workplace();
    let finished = build(directory.path(), "hello", &["--quiet"]).run();
    assert_eq!((finished.code, finished.stderr.as_str()), (0, ""));
    let finished = build(directory.path(), "./missing", &["--quiet"]).run();
    finished.assert_failed(48, &["E48"]);
    assert!(finished.stderr.starts_with("[ E48 ]"), "{finished:#?}");
}

#[test]
fn a_terminal_shows_how_far_a_build_is() {
    let directory = workplace();
    File::create(directory.path().join("hello/large"))
        .unwrap()
        .set_len(40 << 20)
        .unwrap();
    let controller =
        rustix::pty::openpt(rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY).unwrap();
    rustix::pty::grantpt(&controller).unwrap();
    rustix::pty::unlockpt(&controller).unwrap();
    let name = rustix::pty::ptsname(&controller, Vec::new()).unwrap();
    let terminal = File::options()
        .read(true)
        .write(true)
        .open(name.to_str().unwrap())
        .unwrap();

    let finished = build(directory.path(), "hello", &[]).stderr(terminal).run();

    assert_eq!(finished.code, 0, "{finished:#?}");
    // Whatever a terminal shows fits into its buffer here; with nobody left at it, reading ends with an error.
    let (mut shown, mut buffer) = (Vec::new(), [0; 4096]);
    let mut controller = File::from(controller);
    while let Ok(count @ 1..) = controller.read(&mut buffer) {
        shown.extend(&buffer[..count]);
    }
    let shown = String::from_utf8(shown).unwrap();
    assert!(
        shown.starts_with("Start building the Enclave Image...\r\n"),
        "{shown:?}"
    );
    assert!(shown.contains("\r\x1b[KWriting the image    [####"), "{shown:?}");
    assert!(
        shown.ends_with("\r\x1b[KEnclave Image successfully created.\r\n"),
        "the bar is gone: {shown:?}"
    );
}
