//! The allocator's process: exit statuses, and what it says before it needs any rights. Nothing of this machine is changed.
#![expect(clippy::unwrap_used, reason = "a failed test panics")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

fn allocator(run_directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nitro-enclaves-allocator"));
    command
        .env_remove("NITRO_CLI_INSTALL_DIR")
        .arg("--run-directory")
        .arg(run_directory);
    command
}

fn said(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_owned()).unwrap();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_wrong_configuration_is_exit_status_1_and_one_line_of_error() {
    let directory = tempfile::tempdir().unwrap();
    let run = directory.path().join("run");
    let file = directory.path().join("etc/nitro_enclaves/allocator.yaml");
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(&file, "memory_mib: 512\ncpu_count: two\n").unwrap();
    let expected = format!(
        "Error: {}: cpu_count is \"two\"; write a whole number of CPUs above zero, such as `cpu_count: 2`.\n",
        file.display()
    );

    let named = allocator(&run).arg("--config").arg(&file).output().unwrap();
    let installed = allocator(&run)
        .env("NITRO_CLI_INSTALL_DIR", directory.path())
        .output()
        .unwrap();

    for output in [named, installed] {
        assert_eq!(said(&output), (Some(1), String::new(), expected.clone()));
    }
    assert!(!run.exists());
}

#[test]
fn a_named_configuration_that_does_not_exist_is_an_error_and_no_default() {
    let directory = tempfile::tempdir().unwrap();
    let absent = directory.path().join("absent.yaml");

    let output = allocator(directory.path())
        .arg("--config")
        .arg(&absent)
        .output()
        .unwrap();

    let (code, stdout, stderr) = said(&output);
    assert_eq!((code, stdout.as_str()), (Some(1), ""));
    let expected = format!("Error: {} does not exist; write it", absent.display());
    assert!(stderr.starts_with(&expected), "{stderr}");
}

/// The run directory cannot be made below a file, so nothing is reserved even if this runs as root.
#[test]
fn without_a_configuration_the_default_is_said_before_anything_else() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let run = file.path().join("run");

    let output = allocator(&run)
        .env("NITRO_CLI_INSTALL_DIR", "/nonexistent")
        .output()
        .unwrap();

    let (code, stdout, stderr) = said(&output);
    assert_eq!((code, stdout.as_str()), (Some(1), ""));
    let notice = "/nonexistent/etc/nitro_enclaves/allocator.yaml does not exist; reserving the default, \
                  memory_mib: 512 and cpu_count: 2.\nError: cannot create ";
    assert!(stderr.starts_with(notice), "{stderr}");
}

#[test]
fn wrong_usage_is_exit_status_2_and_help_has_an_example() {
    let nowhere = Path::new("/nonexistent");
    for arguments in [
        &["--memory", "512"][..],
        &["--release", "--config", "x"],
        &["extra"],
    ] {
        let (code, stdout, stderr) = said(&allocator(nowhere).args(arguments).output().unwrap());
        assert_eq!((code, stdout.as_str()), (Some(2), ""), "{stderr}");
    }

    let (code, stdout, _) = said(&allocator(nowhere).arg("--help").output().unwrap());
    assert_eq!(code, Some(0));
    assert!(stdout.contains("  memory_mib: 512\n  cpu_count: 2"), "{stdout}");
}
