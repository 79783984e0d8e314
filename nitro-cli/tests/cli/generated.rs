//! Completions and manual pages know every command and option.

use std::fs;

use crate::examples::commands;
use crate::program::Program;

#[test]
fn each_shell_gets_a_script_with_every_command() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let finished = Program::new(["completions", shell]).run();

        assert_eq!((finished.code, finished.stderr.as_str()), (0, ""), "{shell}");
        for command in commands() {
            assert!(finished.stdout.contains(&command), "{shell}: {command}");
        }
        assert!(finished.stdout.contains("disconnect-timeout"), "{shell}");
    }
}

#[test]
fn each_command_has_a_manual_page_with_its_options_and_examples() {
    let directory = tempfile::tempdir().unwrap();
    let pages = directory.path().join("made/man1");

    let finished = Program::new(["man-pages".as_ref(), pages.as_os_str()]).run();

    assert_eq!(
        (finished.code, finished.stdout, finished.stderr),
        (0, String::new(), String::new())
    );
    assert!(
        fs::read_to_string(pages.join("nitro-cli.1"))
            .unwrap()
            .contains("NITRO_CLI_BLOBS")
    );
    for command in commands() {
        let page = fs::read_to_string(pages.join(format!("nitro-cli-{command}.1"))).unwrap();
        assert!(page.contains("Example"), "{page}");
    }
    let page = fs::read_to_string(pages.join("nitro-cli-run-enclave.1")).unwrap();
    assert!(page.contains("cpu\\-ids"), "{page}");
    let again = Program::new(["man-pages".as_ref(), pages.as_os_str()]).run();
    assert_eq!(again.code, 0);
    assert_eq!(
        fs::read_to_string(pages.join("nitro-cli-run-enclave.1")).unwrap(),
        page,
        "nothing of it depends on when it is made"
    );
}

#[test]
fn a_directory_that_cannot_be_made_is_e19() {
    Program::new(["man-pages", "/dev/null/man1"])
        .run()
        .assert_failed(19, &["E19"]);
}
