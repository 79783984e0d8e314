// parent: --cpus 4 --memory 3G --hugepages-2m 256 --package libssl3 --package libgcc-s1 --package openssl -- --test-threads 1
//! Images built by nitro-cli and by AWS's eif_build: what they measure, and that they run as their configuration says.

#![forbid(unsafe_code)]
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a suite fails on the spot"
)]

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use eif::{Layout, Section};
use end_to_end_tests::{ContainerImage, Host, Launch, World, build_enclave, eifs, parent, rest_of_line, run};
use serde_json::Value;
use test_signer::{Curve, TestSigner};

const PCRS: [&str; 3] = ["PCR0", "PCR1", "PCR2"];

fn describe_eif(eif: &Path) -> Value {
    Host::of_the_parent()
        .cli(&["describe-eif", "--eif-path", &eif.to_string_lossy()])
        .succeeded()
        .json()
}

/// The three measurements of an image, of any of the commands that print them.
fn pcrs(measurements: &Value) -> [&str; 3] {
    PCRS.map(|name| {
        let value = measurements[name].as_str().expect("a PCR");
        assert!(
            value.len() == 96 && value.bytes().all(|digit| digit.is_ascii_hexdigit()),
            "{value}"
        );
        value
    })
}

/// The console of an enclave from its start to its end, which comes by itself.
fn whole_console(eif: &Path) -> String {
    let finished = Launch::of(eif)
        .with(&["--attach-console"])
        .attempt(&Host::of_the_parent())
        .succeeded();
    finished.stdout
}

/// Takes an EIF apart and has the oracle make one of the parts, with more options. Returns what the oracle printed as
/// measurements.
fn rebuild_with_oracle(eif: &Path, output: &Path, options: &[&str]) -> Value {
    let bytes = fs::read(eif).expect("read the EIF");
    let layout = Layout::read(bytes.as_slice(), bytes.len() as u64).expect("a well-formed EIF");
    let data = |section: &Section| {
        let range =
            usize::try_from(section.offset).expect("offset")..usize::try_from(section.end()).expect("end");
        bytes[range].to_vec()
    };
    let cmdline = String::from_utf8(data(layout.cmdline())).expect("a text");
    let kernel = eifs::path("part-kernel");
    fs::write(&kernel, data(layout.kernel())).expect("write the kernel");
    let mut command = Command::new(parent::oracle());
    command
        .args(["--cmdline", &cmdline, "--name", "oracle", "--kernel"])
        .arg(&kernel)
        .arg("--output")
        .arg(output)
        .args(options);
    for (number, ramdisk) in layout.ramdisks().enumerate() {
        let path = eifs::path(&format!("part-ramdisk-{number}"));
        fs::write(&path, data(ramdisk)).expect("write a ramdisk");
        command.arg("--ramdisk").arg(path);
    }
    let printed = run(&mut command).succeeded().stdout;
    let (_, measurements) = printed.split_once('\n').expect("a line before the JSON");
    serde_json::from_str(measurements).expect("JSON")
}

#[test]
fn an_eif_from_eif_build_boots_and_describe_eif_prints_the_pcrs_that_it_printed() {
    let _world = World::enter();
    let host = Host::of_the_parent();
    let eif = eifs::path("oracle.eif");
    let printed = rebuild_with_oracle(&parent::hello_eif(), &eif, &[]);

    let described = describe_eif(&eif);

    assert_eq!(pcrs(&described["Measurements"]), pcrs(&printed));
    assert_eq!(described["CheckCRC"], true);
    let ours = describe_eif(&parent::hello_eif());
    assert_eq!(pcrs(&ours["Measurements"]), pcrs(&printed), "of the same parts");
    let enclave = Launch::of(&eif).in_debug_mode().run(&host);
    assert_eq!(
        pcrs(&enclave.description().expect("it runs")["Measurements"]),
        pcrs(&printed)
    );
    enclave.console().wait_for("Hello from the enclave side!");
}

#[test]
fn a_signed_eif_boots_and_its_pcr8_is_shown_as_the_oracle_printed_it() {
    let _world = World::enter();
    let [eif, key, certificate] = ["signed.eif", "signer.key", "signer.pem"].map(eifs::path);
    let mut openssl = Command::new("openssl");
    openssl
        .args("req -new -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-384 -nodes -sha384".split(' '))
        .args(["-days", "2", "-subj", "/C=US/CN=signer", "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&certificate);
    let _ = run(&mut openssl).succeeded();
    let options = [
        "--private-key",
        &key.to_string_lossy(),
        "--signing-certificate",
        &certificate.to_string_lossy(),
    ];
    let printed = rebuild_with_oracle(&parent::hello_eif(), &eif, &options);
    assert!(printed["PCR8"].is_string(), "{printed}");

    let described = describe_eif(&eif);
    assert_eq!(described["IsSigned"], true);
    assert_eq!(described["SignatureCheck"], true);
    assert_eq!(described["Measurements"], printed);

    let enclave = Launch::of(&eif).in_debug_mode().run(&Host::of_the_parent());
    let description = enclave.description().expect("it runs");
    assert_eq!(description["Measurements"], printed);
    enclave.console().wait_for("Hello from the enclave side!");
}

#[test]
fn an_eif_that_sign_eif_has_signed_boots_and_has_the_pcr8_of_its_certificate() {
    let _world = World::enter();
    let host = Host::of_the_parent();
    let [eif, key, certificate] = ["signed-here.eif", "here.key", "here.pem"].map(eifs::path);
    fs::copy(parent::hello_eif(), &eif).expect("copy hello.eif");
    let signer = TestSigner::new(Curve::P521);
    fs::write(&key, &signer.key_pem).expect("write the key");
    fs::write(&certificate, &signer.certificate_pem).expect("write the certificate");
    let [eif_path, key, certificate] = [&eif, &key, &certificate].map(|path| path.to_string_lossy());

    let options = ["--signing-certificate", &certificate, "--private-key", &key];
    let signed = host.cli(&[&["sign-eif", "--eif-path", &eif_path], &options[..]].concat());
    let printed = signed.succeeded().json();
    let pcr8 = host.cli(&["pcr", "--signing-certificate", &certificate]);
    assert_eq!(printed["Measurements"]["PCR8"], pcr8.succeeded().json()["PCR8"]);

    let enclave = Launch::of(&eif).run(&host);
    let description = enclave.description().expect("it runs");
    assert_eq!(description["Measurements"], printed["Measurements"]);
}

#[test]
fn the_same_image_in_every_form_measures_the_same() {
    let _world = World::enter();
    let image = ContainerImage::of_application("idle", &["one", "two words"])
        .with_file("etc/settings", 0o640, "colour = blue\n")
        .with_attribute("etc/settings", "user.note", b"two words")
        .with_env(&["PATH=/bin", "MODE=test"])
        .with_working_dir("/etc")
        .with_user("12:34");
    let [directory, archive, layout, root] =
        ["forms", "forms/docker.tar", "forms/layout", "forms/root"].map(eifs::path);
    fs::create_dir_all(&directory).expect("create a directory");
    image.write_docker_archive(&archive);
    image.write_oci_layout(&layout);
    image.write_root_directory(&root);
    let layout_tar = directory.join("layout.tar");
    let mut tar = Command::new("tar");
    let _ = run(tar.arg("-C").arg(&layout).arg("-cf").arg(&layout_tar).arg(".")).succeeded();

    let built = [&layout, &layout_tar, &archive, &root].map(|input| {
        let eif = directory.join("form.eif");
        let finished = build_enclave(input, &eif).succeeded();
        assert!(
            finished.stderr.contains("Start building the Enclave Image..."),
            "{finished:#?}"
        );
        assert!(
            finished.stderr.contains("Enclave Image successfully created."),
            "{finished:#?}"
        );
        assert_eq!(
            describe_eif(&eif)["Measurements"],
            finished.json()["Measurements"]
        );
        finished.stdout
    });

    for other in &built {
        assert_eq!(other, &built[0]);
    }
    fs::remove_dir_all(directory).expect("clean up");
}

#[test]
fn two_builds_on_two_days_give_the_same_bytes() {
    let _world = World::enter();
    let image = ContainerImage::of_application("idle", &[]);
    let layout = eifs::path("layout-of-two-days");
    let build = |output: &str| {
        image.write_oci_layout(&layout);
        let output = eifs::path(output);
        let _ = build_enclave(&layout, &output).succeeded();
        fs::remove_dir_all(&layout).expect("remove the layout");
        fs::read(output).expect("read the EIF")
    };

    let first = build("first-day.eif");
    let tomorrow = SystemTime::now() + Duration::from_hours(25);
    let seconds = tomorrow
        .duration_since(UNIX_EPOCH)
        .expect("a time after 1970")
        .as_secs();
    let _ = run(Command::new("date").args(["-s", &format!("@{seconds}")])).succeeded();
    let second = build("second-day.eif");

    assert!(first == second, "the files differ");
}

#[test]
fn entrypoint_cmd_env_workdir_and_user_hold_inside_the_enclave() {
    let _world = World::enter();
    let host = Host::of_the_parent();
    let eif = eifs::path("circumstances.eif");
    ContainerImage::of_application("circumstances", &["two words", "", "*"])
        .with_entrypoint(&["/bin/circumstances", "fixed"])
        .with_env(&["PATH=/usr/local/bin:/bin", "EQUATION=a=b", "EMPTY="])
        .with_working_dir("/srv/not made yet")
        .with_user("1234:5678")
        .build(&eif);

    let enclave = Launch::of(&eif).in_debug_mode().run(&host);
    let mut console = enclave.console();
    console.wait_for("end of circumstances");

    let text = console.stdout();
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    for expected in [
        r#"argv: ["/bin/circumstances", "fixed", "two words", "", "*"]"#,
        "env: PATH=/usr/local/bin:/bin",
        "env: EQUATION=a=b",
        "env: EMPTY=",
        "cwd: /srv/not made yet",
        "uid: 1234",
        "gid: 5678",
    ] {
        assert!(lines.contains(&expected), "{expected}\nis not in\n{text}");
    }
}

#[test]
fn extended_attributes_hold_inside_the_enclave() {
    /// Version 2 of the kernel's `struct vfs_cap_data`: CAP_NET_BIND_SERVICE, permitted and effective.
    const BIND_SERVICE: &[u8] = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    /// Version 2 of the kernel's ACLs: owner rwx, user 4711 r-x, group r-x, mask r-x, others r-x.
    const ACL: &[u8] = b"\x02\0\0\0\
        \x01\0\x07\0\xff\xff\xff\xff\
        \x02\0\x05\0\x67\x12\0\0\
        \x04\0\x05\0\xff\xff\xff\xff\
        \x10\0\x05\0\xff\xff\xff\xff\
        \x20\0\x05\0\xff\xff\xff\xff";
    let _world = World::enter();
    let host = Host::of_the_parent();
    let eif = eifs::path("attributes.eif");
    let program = "bin/circumstances";
    ContainerImage::of_application("circumstances", &[])
        .with_attribute(program, "security.capability", BIND_SERVICE)
        .with_attribute(program, "user.note", b"two words")
        .with_attribute(program, "system.posix_acl_access", ACL)
        .with_file("etc/settings", 0o644, "x")
        .with_attribute("etc/settings", "nonsense", b"")
        .with_user("1234")
        .build(&eif);

    let enclave = Launch::of(&eif).in_debug_mode().run(&host);
    let mut console = enclave.console();
    console.wait_for("end of circumstances");

    let text = console.stdout();
    let capability = format!("xattr: security.capability={}", BIND_SERVICE.escape_ascii());
    let acl = format!("xattr: system.posix_acl_access={}", ACL.escape_ascii());
    for expected in [
        "uid: 1234",
        "capabilities: 0000000000000400",
        &capability,
        &acl,
        "xattr: user.note=two words",
    ] {
        assert!(
            text.lines().any(|line| line.trim_end() == expected),
            "{expected}\nis not in\n{text}"
        );
    }
    let refused = "cannot set the extended attribute nonsense of /etc/settings";
    assert!(text.contains(refused), "{text}");
}

#[test]
fn an_image_that_says_nothing_more_starts_at_the_root_as_root() {
    let _world = World::enter();
    let host = Host::of_the_parent();
    let enclave = Launch::of(eifs::of_application("circumstances", &[]))
        .in_debug_mode()
        .run(&host);
    let mut console = enclave.console();
    console.wait_for("end of circumstances");

    let text = console.stdout();
    for expected in ["cwd: /", "uid: 0", "gid: 0"] {
        assert!(
            text.lines().any(|line| line.trim_end() == expected),
            "{expected}\nis not in\n{text}"
        );
    }
}

#[test]
fn owners_modes_hard_links_and_devices_are_in_the_enclave_as_in_the_image() {
    let _world = World::enter();
    let eif = eifs::path("files.eif");
    let program = fs::read(parent::guest_application("circumstances")).expect("read the application");
    ContainerImage::empty()
        .with_file_of((1000, 2000), "files/data", 0o640, "data")
        .with_hard_link("files/link", "files/data")
        .with_file_of((0, 0), "files/set-uid", 0o4755, program)
        .with_file_of((0, 50), "files/set-gid", 0o2711, "")
        .with_device("files/null", 1, 3)
        .with_entrypoint(&["/files/set-uid"])
        .with_user("1234:5678")
        .build(&eif);

    let enclave = Launch::of(&eif).in_debug_mode().run(&Host::of_the_parent());
    let mut console = enclave.console();
    console.wait_for("end of circumstances");

    let text = console.stdout();
    let line = |start: &str| rest_of_line(&text, start);
    assert_eq!(line("uid: "), "1234");
    assert_eq!(line("effective uid: "), "0", "the program is set-uid root");
    let data = line("file data: ");
    assert!(
        data.starts_with("mode 100640, owner 1000:2000, device 0:0, 2 links"),
        "{data}"
    );
    assert_eq!(line("file link: "), data, "one file, by its inode");
    for (name, expected) in [
        ("set-uid", "mode 104755, owner 0:0, device 0:0, 1 links"),
        ("set-gid", "mode 102711, owner 0:50, device 0:0, 1 links"),
        ("null", "mode 20666, owner 0:0, device 1:3, 1 links"),
    ] {
        let found = line(&format!("file {name}: "));
        assert!(found.starts_with(expected), "{name}: {found}");
    }
}

#[test]
fn processes_that_lose_their_parent_are_reaped() {
    let _world = World::enter();
    let enclave = Launch::of(eifs::of_application("orphans", &[]))
        .in_debug_mode()
        .run(&Host::of_the_parent());

    enclave.console().wait_for("orphans: all 20 are gone");
}

#[test]
fn a_command_that_is_not_in_the_image_is_said_on_the_console() {
    let _world = World::enter();
    for (command, words) in [
        (
            "/bin/absent",
            "cannot find /bin/absent: there is no such file in the image",
        ),
        ("absent", "cannot find `absent`"),
    ] {
        let eif = eifs::path("absent.eif");
        ContainerImage::of_application("idle", &[])
            .with_entrypoint(&[command])
            .build(&eif);
        let console = whole_console(&eif);
        assert!(console.contains(words), "{console}");
        assert!(console.contains("the enclave ends"), "{console}");
    }
}

#[test]
fn an_interpreter_or_loader_that_is_not_in_the_image_is_said_on_the_console() {
    let _world = World::enter();
    let script = "#!/bin/no-such-shell\necho hello\n".to_owned().into_bytes();
    let dynamic = fs::read(parent::oracle()).expect("a dynamically linked program");
    for (program, words) in [
        (
            script,
            "asks for the interpreter /bin/no-such-shell, which is not in the image",
        ),
        (
            dynamic,
            "it is dynamically linked and its loader /lib64/ld-linux-x86-64.so.2 is not in the image",
        ),
        (b"neither\n".to_vec(), "neither an ELF program nor a script"),
    ] {
        let eif = eifs::path("interpreter.eif");
        let image = ContainerImage::empty().with_file("bin/program", 0o755, program);
        image.with_entrypoint(&["/bin/program"]).build(&eif);
        let console = whole_console(&eif);
        assert!(console.contains("cannot run /bin/program: "), "{console}");
        assert!(console.contains(words), "{console}");
    }
}

#[test]
fn an_application_that_dies_at_once_is_said_on_the_console_with_its_exit_code() {
    let _world = World::enter();
    let console = whole_console(&eifs::of_application("exit-at-once", &["3"]));
    assert!(console.contains("exit-at-once: leaving with 3"), "{console}");
    let last_words = console
        .lines()
        .rev()
        .find(|line| line.contains("the application"));
    assert!(
        last_words.is_some_and(|line| line.contains('3') && line.contains("the enclave ends")),
        "{console}"
    );
}

#[test]
fn a_user_that_the_image_does_not_know_is_said_on_the_console() {
    let _world = World::enter();
    let eif = eifs::path("user.eif");
    ContainerImage::of_application("idle", &[])
        .with_user("nobody-here")
        .build(&eif);

    let console = whole_console(&eif);

    assert!(console.contains("nobody-here"), "{console}");
}

#[test]
fn an_image_that_starts_nothing_or_is_none_is_refused_and_no_output_stays() {
    let _world = World::enter();
    let output = eifs::path("refused.eif");
    let layout = eifs::path("starts-nothing");
    ContainerImage::empty()
        .with_file("etc/settings", 0o644, "x")
        .write_oci_layout(&layout);
    let text = eifs::path("text");
    fs::write(&text, "this is no archive").expect("write a file");

    for input in [layout.as_path(), &text, Path::new("/no/such/image")] {
        let refused = build_enclave(input, &output);
        refused.failed_with(48, "E48", &[&input.to_string_lossy()]);
        assert!(!output.exists(), "{input:?}");
    }
}

#[test]
fn missing_blobs_are_e19() {
    let _world = World::enter();
    let layout = eifs::path("any-layout");
    ContainerImage::of_application("idle", &[]).write_oci_layout(&layout);
    let output = eifs::path("no-blobs.eif");
    let mut command = Host::of_the_parent().command(&["build-enclave", "--docker-uri"]);
    command
        .arg(&layout)
        .arg("--output-file")
        .arg(&output)
        .env("NITRO_CLI_BLOBS", "/no/such/blobs");

    run(&mut command).failed_with(19, "E19", &["/no/such/blobs"]);

    assert!(!output.exists());
}
