//! Which command lines are accepted: AWS's options and their rules. Usage errors end with 2 before anything is done.

use crate::program::Program;

/// A command line as one would type it; no argument here holds a space.
fn arguments(line: &str) -> impl Iterator<Item = &str> {
    line.split_whitespace()
}

/// A command line, and a part of what is said about it.
const WRONG: &[(&str, &str)] = &[
    ("bogus", "unrecognized subcommand 'bogus'"),
    ("--bogus", "unexpected argument '--bogus'"),
    // run-enclave
    ("run-enclave", "--eif-path <FILE>"),
    ("run-enclave --memory 64 --cpu-count 2", "--eif-path <FILE>"),
    ("run-enclave --eif-path a.eif --cpu-count 2", "--memory <SIZE>"),
    ("run-enclave --eif-path a.eif --memory 64", "--cpu-count <COUNT>"),
    (
        "run-enclave --eif-path a.eif --memory 64 --cpu-count 2 --cpu-ids 2 3",
        "cannot be used with",
    ),
    (
        "run-enclave --eif-path a.eif --memory 64 --cpu-ids 2 3 --cpu-count 2",
        "cannot be used with",
    ),
    (
        "run-enclave --eif-path a.eif --memory 64 --cpu-count",
        "a value is required for '--cpu-count",
    ),
    (
        "run-enclave --eif-path a.eif --memory 64 --cpu-count -3",
        "unexpected argument '-3'",
    ),
    (
        "run-enclave --eif-path a.eif --memory 64 --cpu-count 1 2",
        "unexpected argument '2'",
    ),
    (
        "run-enclave --eif-path a.eif --memory 64 --cpu-ids",
        "a value is required for '--cpu-ids",
    ),
    (
        "run-enclave --eif-path a.eif --memory 64 --cpu-ids 2 --cpu-ids 3",
        "cannot be used multiple times",
    ),
    (
        "run-enclave --eif-path a.eif --memory 64 --cpu-count 2 --cpu-count 2",
        "cannot be used multiple times",
    ),
    (
        "run-enclave --eif-path a.eif --memory -10 --cpu-count 2",
        "unexpected argument '-1'",
    ),
    (
        "run-enclave --eif-path a.eif --memory 64 64 --cpu-count 2",
        "unexpected argument '64'",
    ),
    (
        "run-enclave --eif-path a.eif --memory --cpu-count 2",
        "a value is required for '--memory",
    ),
    (
        "run-enclave --eif-path a.eif b.eif --memory 64 --cpu-count 2",
        "unexpected argument 'b.eif'",
    ),
    (
        "run-enclave --eif-path --memory 64 --cpu-count 2",
        "a value is required for '--eif-path",
    ),
    (
        "run-enclave --eif-path a.eif --memory 64 --cpu-count 2 --enclave-cid",
        "a value is required",
    ),
    (
        "run-enclave --eif-path a.eif --memory 64 --cpu-count 2 --enclave-cid 5 6",
        "unexpected argument '6'",
    ),
    (
        "run-enclave --eif-path a.eif --memory 64 --cpu-count 2 --enclave-name",
        "a value is required",
    ),
    (
        "run-enclave --eif-path a.eif --memory 64 --cpu-count 2 --enclave-name a b",
        "unexpected argument 'b'",
    ),
    (
        "run-enclave --eif-path a.eif --memory 64 --cpu-count 2 --debug-mode=true",
        "unexpected value 'true'",
    ),
    (
        "run-enclave --eif-path a.eif --memory 64 --cpu-count 2 --attach-console yes",
        "unexpected argument",
    ),
    (
        "run-enclave --eif-path a.eif --mem 64 --cpu-count 2",
        "'--memory'",
    ),
    ("run-enclave --config a.json --memory 64", "cannot be used with"),
    // describe-enclaves
    ("describe-enclaves extra", "unexpected argument 'extra'"),
    (
        "describe-enclaves --enclave-id i",
        "unexpected argument '--enclave-id'",
    ),
    // terminate-enclave
    (
        "terminate-enclave",
        "<--enclave-id <ID>|--enclave-name <NAME>|--all>",
    ),
    (
        "terminate-enclave --enclave-id",
        "a value is required for '--enclave-id",
    ),
    ("terminate-enclave --enclave-id a b", "unexpected argument 'b'"),
    (
        "terminate-enclave --enclave-id a --enclave-name b",
        "cannot be used with",
    ),
    ("terminate-enclave --enclave-id a --all", "cannot be used with"),
    ("terminate-enclave --all --enclave-name b", "cannot be used with"),
    ("terminate-enclave --all=true", "unexpected value 'true'"),
    // console
    ("console", "<--enclave-id <ID>|--enclave-name <NAME>>"),
    (
        "console --disconnect-timeout 10",
        "<--enclave-id <ID>|--enclave-name <NAME>>",
    ),
    ("console --enclave-id", "a value is required for '--enclave-id"),
    ("console --enclave-id a --enclave-name b", "cannot be used with"),
    (
        "console --enclave-id a --disconnect-timeout",
        "a value is required for '--disconnect-timeout",
    ),
    (
        "console --enclave-id a --disconnect-timeout 1 2",
        "unexpected argument '2'",
    ),
    ("console --all", "unexpected argument '--all'"),
    // logs
    ("logs", "<--enclave-id <ID>|--enclave-name <NAME>>"),
    ("logs --enclave-id a --enclave-name b", "cannot be used with"),
    ("events now", "unexpected argument 'now'"),
    // build-enclave
    ("build-enclave", "--docker-uri <IMAGE>"),
    ("build-enclave --docker-uri a", "--output-file <FILE>"),
    ("build-enclave --output-file a.eif", "--docker-uri <IMAGE>"),
    (
        "build-enclave --docker-uri a b --output-file a.eif",
        "unexpected argument 'b'",
    ),
    (
        "build-enclave --docker-uri a --output-file",
        "a value is required for '--output-file",
    ),
    (
        "build-enclave --docker-uri --output-file a.eif",
        "a value is required for '--docker-uri",
    ),
    (
        "build-enclave --docker-uri a --output-file a.eif --name",
        "a value is required for '--name",
    ),
    (
        "build-enclave --docker-uri a --output-file a.eif --version",
        "a value is required for '--version",
    ),
    (
        "build-enclave --docker-uri a --output-file a.eif --metadata",
        "a value is required for '--metadata",
    ),
    (
        "build-enclave --docker-uri a --output-file a.eif --name b --name c",
        "cannot be used multiple times",
    ),
    (
        "build-enclave --docker-uri a --output-file a.eif --signing-certificate c.pem",
        "--private-key <FILE>",
    ),
    (
        "build-enclave --docker-uri a --output-file a.eif --private-key k.pem",
        "--signing-certificate <FILE>",
    ),
    // sign-eif
    (
        "sign-eif --eif-path a.eif --signing-certificate c.pem",
        "--private-key <FILE>",
    ),
    (
        "sign-eif --eif-path a.eif --private-key k.pem",
        "--signing-certificate <FILE>",
    ),
    ("sign-eif --eif-path", "a value is required for '--eif-path"),
    // pcr
    ("pcr", "--signing-certificate <FILE>"),
    ("pcr --signing-certificate c.pem --input a", "cannot be used with"),
    ("pcr --input", "a value is required for '--input"),
    ("pcr --input a b", "unexpected argument 'b'"),
    // describe-eif
    ("describe-eif", "--eif-path <FILE>"),
    ("describe-eif --eif-path", "a value is required for '--eif-path"),
    (
        "describe-eif --eif-path a.eif b.eif",
        "unexpected argument 'b.eif'",
    ),
    (
        "describe-eif --eif-path a.eif --eif-path b.eif",
        "cannot be used multiple times",
    ),
];

#[test]
fn wrong_command_lines_end_with_2_and_are_explained() {
    for (line, explanation) in WRONG {
        let finished = Program::new(arguments(line)).run();

        assert_eq!(finished.code, 2, "{line}: {finished:#?}");
        assert_eq!(finished.stdout, "", "{line}");
        assert!(finished.stderr.starts_with("error: "), "{line}: {finished:#?}");
        assert!(finished.stderr.contains(explanation), "{line}: {finished:#?}");
    }
}

#[test]
fn without_arguments_the_help_is_an_error() {
    let finished = Program::new([""; 0]).run();

    assert_eq!(finished.code, 2);
    assert_eq!(finished.stdout, "");
    finished.assert_says(&["Usage: nitro-cli <COMMAND>", "run-enclave"]);
}

#[test]
fn help_and_version_are_answers() {
    for line in [
        "--help",
        "-h",
        "help",
        "help run-enclave",
        "run-enclave --help",
        "run-enclave -h",
    ] {
        let finished = Program::new(arguments(line)).run();

        assert_eq!((finished.code, finished.stderr.as_str()), (0, ""), "{line}");
        assert!(
            finished.stdout.contains("Usage: nitro-cli"),
            "{line}: {finished:#?}"
        );
    }
    for line in ["--version", "-V"] {
        let finished = Program::new(arguments(line)).run();

        assert_eq!((finished.code, finished.stderr.as_str()), (0, ""));
        assert_eq!(finished.stdout, "Nitro CLI 1.5.0\n");
    }
    let help = Program::new(["--help"]).run().stdout;
    assert!(
        help.contains(concat!("This is enclaved ", env!("CARGO_PKG_VERSION"))),
        "{help}"
    );
}

#[test]
fn values_that_are_no_numbers_are_e03_and_named() {
    let run = "run-enclave --eif-path a.eif";
    let cases = [
        (
            format!("{run} --memory 512 --cpu-count 2z"),
            "`2z` of `--cpu-count`",
        ),
        (
            format!("{run} --memory 512 --cpu-count zzz"),
            "`zzz` of `--cpu-count`",
        ),
        (
            format!("{run} --memory 256mb --cpu-count 2"),
            "`256mb` of `--memory`",
        ),
        (format!("{run} --memory VVV --cpu-count 2"), "`VVV` of `--memory`"),
        (
            format!("{run} --memory 17592186044416T --cpu-count 2"),
            "of `--memory`",
        ),
        (
            format!("{run} --memory 512 --cpu-count 2 --enclave-cid 1"),
            "`1` of `--enclave-cid`",
        ),
        (
            format!("{run} --memory 512 --cpu-count 2 --enclave-cid 2"),
            "`2` of `--enclave-cid`",
        ),
        (
            format!("{run} --memory 512 --cpu-count 2 --enclave-cid 3"),
            "`3` of `--enclave-cid`",
        ),
        (
            format!("{run} --memory 512 --cpu-count 2 --enclave-cid 4294967295"),
            "of `--enclave-cid`",
        ),
        (
            format!("{run} --memory 512 --cpu-count 2 --enclave-cid 4294967296"),
            "of `--enclave-cid`",
        ),
        (
            format!("{run} --memory 512 --cpu-count 2 --enclave-cid u"),
            "`u` of `--enclave-cid`",
        ),
        (
            format!("{run} --memory 512 --cpu-ids 1,3"),
            "`1,3` of `--cpu-ids`",
        ),
        (format!("{run} --memory 512 --cpu-ids 1 x"), "`x` of `--cpu-ids`"),
        (
            "console --enclave-id i --disconnect-timeout x".into(),
            "`x` of `--disconnect-timeout`",
        ),
        (
            "console --enclave-id i --disconnect-timeout 1.5".into(),
            "`1.5` of `--disconnect-timeout`",
        ),
    ];
    for (line, named) in cases {
        let finished = Program::new(arguments(&line)).run();

        finished.assert_failed(3, &["E03"]);
        finished.assert_says(&["[ E03 ] Invalid argument provided. The value ", named]);
    }
}
