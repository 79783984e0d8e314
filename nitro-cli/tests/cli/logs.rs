//! The log and the files of errors: where they are, what they hold, and what happens where there can be none.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::program::Program;

/// Fails with E19, whatever user runs it.
const FAILING: [&str; 3] = ["pcr", "--input", "/nonexistent/file"];

#[test]
fn each_error_has_a_file_that_its_text_names_and_a_line_in_the_log() {
    let directory = tempfile::tempdir().unwrap();
    let logs = directory.path().join("made/when/missing");

    let run = "run-enclave --eif-path /nonexistent/a.eif --memory 64 --cpu-count 2";
    let finished = Program::new(run.split_whitespace())
        .env("NITRO_CLI_LOGS_PATH", &logs)
        .run();

    finished.assert_failed(39, &["E19", "E39"]);
    let files = finished.error_files();
    assert_ne!(files[0], files[1], "one each");
    let name = files[0].file_name().unwrap().to_str().unwrap();
    assert_eq!(files[0].parent().unwrap(), logs);
    assert_eq!(
        name.len(),
        "err2026-01-31T12:00:00.123456789+00:00.log".len(),
        "{name}"
    );
    assert!(name.starts_with("err2") && name.ends_with("+00:00.log"), "{name}");
    let details = fs::read_to_string(&files[0]).unwrap();
    for part in [
        "Action: run-enclave\n",
        "Subactions:\n    Cannot open the EIF `/nonexistent/a.eif`: ",
        "Root error: E19 File operation failure\n",
        "Version: 1.5.0 (enclaved ",
    ] {
        assert!(details.contains(part), "{details}");
    }
    let log = fs::read_to_string(logs.join("nitro_enclaves.log")).unwrap();
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!(lines.len(), 3, "{log}");
    assert!(
        lines[0].starts_with("[nitro-cli:") && lines[0].ends_with("] run-enclave"),
        "{log}"
    );
    assert!(
        lines[1].contains("][ERROR][") && lines[1].contains("[ E19 ]"),
        "{log}"
    );
    assert!(lines[1].ends_with(&format!("({})", files[0].display())), "{log}");
    assert!(lines[2].contains("[ E39 ]"), "{log}");
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(
        mode(&logs.join("nitro_enclaves.log")),
        0o664,
        "others append to it"
    );
    assert_eq!(mode(&files[0]) & 0o007, 0, "it is nobody else's");
}

#[test]
fn backtrace_shows_with_the_error_what_its_file_holds() {
    let finished = Program::new(FAILING).env("BACKTRACE", "1").run();

    finished.assert_failed(19, &["E19"]);
    let details = fs::read_to_string(&finished.error_files()[0]).unwrap();
    finished.assert_says(&["#E19\n\nBacktrace:\n", &details, "\nIf you open a support ticket"]);
    let without = Program::new(FAILING).env("BACKTRACE", "0").run();
    assert!(!without.stderr.contains("Backtrace"), "{without:#?}");
}

#[test]
fn a_named_directory_that_cannot_be_used_ends_every_command_with_e19() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    for command in [
        &["describe-enclaves"][..],
        &["describe-eif", "--eif-path", "a.eif"],
        &["explain", "--error-code", "E26"],
    ] {
        let finished = Program::new(command).env("NITRO_CLI_LOGS_PATH", &file).run();

        assert_eq!(
            (finished.code, finished.stdout.as_str()),
            (19, ""),
            "{finished:#?}"
        );
        assert_eq!(finished.blocks(), ["E19"]);
        finished.assert_says(&["nitro_enclaves.log`", "Set NITRO_CLI_LOGS_PATH to a directory"]);
        assert_eq!(finished.error_files().len(), 0, "{finished:#?}");
    }
    let usage = Program::new(["bogus"]).env("NITRO_CLI_LOGS_PATH", &file).run();
    assert_eq!(usage.code, 2, "the parser comes first");
}

/// Runs on machines with and without the default directory, and as any user.
#[test]
fn without_a_named_directory_a_command_works_with_or_without_a_log() {
    for value in [None, Some("")] {
        let mut program = Program::new(FAILING).without_env("NITRO_CLI_LOGS_PATH");
        if let Some(value) = value {
            program = program.env("NITRO_CLI_LOGS_PATH", value);
        }

        let finished = program.run();

        assert_eq!(
            (finished.code, finished.blocks()),
            (19, vec!["E19"]),
            "{finished:#?}"
        );
        for file in finished.error_files() {
            assert!(file.starts_with("/var/log/nitro_enclaves"), "{finished:#?}");
            fs::remove_file(file).unwrap();
        }
    }
}

#[test]
fn rust_log_says_what_is_logged() {
    let lines = |level: &str| {
        let directory = tempfile::tempdir().unwrap();
        Program::new(FAILING)
            .env("NITRO_CLI_LOGS_PATH", directory.path())
            .env("RUST_LOG", level)
            .run();
        let log = fs::read_to_string(directory.path().join("nitro_enclaves.log")).unwrap();
        log.lines().count()
    };

    assert_eq!(lines("off"), 0);
    assert_eq!(lines("error"), 1);
    assert_eq!(lines("info"), 2);
    assert_eq!(lines("trace"), 2);
    assert_eq!(lines("what is this"), 2);
}
