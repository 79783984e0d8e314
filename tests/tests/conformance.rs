// parent: --cpus 6 --threads 2 --memory 3G --hugepages-2m 768 -- --test-threads 1
//! The cases of AWS's own integration tests of nitro-cli that need neither Docker nor an AWS account nor AWS's kernel.
//!
//! | AWS's case | where |
//! |---|---|
//! | run and terminate; describe is `[]`, lists, is `[]` again | `lifecycle`, `the_launch_post_of_aws_works_word_for_word` |
//! | a console shows the boot and stays; its time limit | here, and `nitro-cli/tests/cli/console.rs` |
//! | CPU counts, memory sizes | here, and `bad_input` |
//! | measurements of describe-enclaves are those of describe-eif | `lifecycle` |
//! | a name serves run, describe, console and terminate | here |
//! | `pcr` of a certificate is PCR8 of what it signed | `build`, and `nitro-cli/tests/cli/signing.rs` |
//! | signed EIFs run, whoever signed them | `build` |
//! | 128 MiB are enough; what describe-enclaves says then | here |
//! | the console of an enclave in production is E44 | `bad_input` |
//! | consoles come and go | here |
//! | enclaves come and go, five and fifteen times | here, and `lifecycle` |
//! | the default name, and what becomes of one that is taken | here |
//! | `describe-enclaves --metadata` | here |
//! | describe-eif of signed and unsigned images; signing again | `nitro-cli/tests/cli/{describe_eif,signing}.rs` |
//!
//! The parent has three cores of two threads: CPUs 0 and 1 stay with it, 2 to 5 are for enclaves.

#![forbid(unsafe_code)]
#![expect(clippy::indexing_slicing, reason = "a suite fails on the spot")]

use std::fs;
use std::time::{Duration, Instant};

use end_to_end_tests::{ContainerImage, Host, Launch, World, eifs, parent};
use rustix::process::Signal;
use serde_json::{Value, json};

const HELLO: &str = "Hello from the enclave side!";

fn hello() -> Launch {
    Launch::of(parent::hello_eif())
}

#[test]
fn a_console_shows_the_boot_and_stays_while_the_enclave_runs() {
    let _world = World::enter();
    let host = Host::of_the_parent();
    let enclave = hello().in_debug_mode().run(&host);

    let mut console = enclave.console();
    console.wait_for("Unpacking initramfs");
    console.wait_for(&format!("[   5] {HELLO}"));

    assert!(!console.has_ended());
    assert_eq!(console.stderr(), "");
}

#[test]
fn a_console_with_a_time_limit_stays_that_long_and_ends_well() {
    let _world = World::enter();
    let host = Host::of_the_parent();
    let enclave = hello().in_debug_mode().run(&host);
    for seconds in [1, 3] {
        let started = Instant::now();

        let limit = seconds.to_string();
        let console = host.cli(&[
            "console",
            "--enclave-id",
            &enclave.id,
            "--disconnect-timeout",
            &limit,
        ]);

        assert!(started.elapsed() >= Duration::from_secs(seconds));
        assert_eq!((console.code(), console.stderr.as_str()), (Some(0), ""));
    }
}

#[test]
fn cpu_counts_that_make_no_cores_fail_and_two_work_afterwards() {
    let _world = World::enter();
    let host = Host::of_the_parent();
    let attempt = |count: &str| hello().with_cpu_options(&["--cpu-count", count]).attempt(&host);

    attempt("0").failed_to_run("E29", &[]);
    for half_a_core in ["1", "3"] {
        attempt(half_a_core).failed_to_run("E29", &[]);
    }
    // As many as the machine has are more than enclaves may have.
    attempt("6").failed_to_run("E22", &[]);
    assert_eq!(attempt("-3").code(), Some(2));
    attempt("zzz").failed_with(3, "E03", &["zzz"]);

    hello().with_cpu_count(2).run(&host).terminate();
}

#[test]
fn memory_that_is_no_size_or_too_little_fails_and_enough_works_afterwards() {
    let _world = World::enter();
    let host = Host::of_the_parent();

    assert_eq!(hello().with_memory_option("-10").attempt(&host).code(), Some(2));
    hello().with_memory(0).attempt(&host).failed_to_run("E26", &[]);
    hello()
        .with_memory_option("VVV")
        .attempt(&host)
        .failed_with(3, "E03", &["VVV"]);

    let enclave = hello().with_memory(1028).run(&host);
    assert_eq!(enclave.info["MemoryMiB"], 1028);
}

#[test]
fn a_name_serves_every_command() {
    let _world = World::enter();
    let host = Host::of_the_parent();
    let enclave = hello().named("testName").in_debug_mode().run(&host);

    assert_eq!(enclave.name(), "testName");
    assert_eq!(host.describe()[0]["EnclaveName"], "testName");
    let limit = ["--disconnect-timeout", "1"];
    let by_name = ["console", "--enclave-name", "testName"];
    let console = host.cli(&[&by_name[..], &limit].concat());
    assert_eq!(console.code(), Some(0), "{console:#?}");
    let terminated = host.cli(&["terminate-enclave", "--enclave-name", "testName"]);
    let terminated = terminated.succeeded().json();
    assert_eq!(terminated["EnclaveName"], "testName");
    assert_eq!(terminated["EnclaveID"], enclave.id.as_str());
    assert_eq!(terminated["Terminated"], true);
}

#[test]
fn describe_says_of_128_mebibytes_what_was_asked_for() {
    let _world = World::enter();
    let host = Host::of_the_parent();
    for (launch, flags) in [(hello(), "NONE"), (hello().in_debug_mode(), "DEBUG_MODE")] {
        let enclave = launch
            .with_memory(128)
            .with_cpu_count(2)
            .with(&["--enclave-cid", "77"])
            .run(&host);

        let described = enclave.description().expect("it is listed");

        for (key, value) in [
            ("EnclaveCID", json!(77)),
            ("MemoryMiB", json!(128)),
            ("NumberOfCPUs", json!(2)),
            ("State", json!("RUNNING")),
            ("Flags", json!(flags)),
        ] {
            assert_eq!(described[key], value, "{key}");
        }
        enclave.terminate();
    }
}

#[test]
fn consoles_are_connected_and_dropped_again_and_again() {
    let _world = World::enter();
    let host = Host::of_the_parent();
    let enclave = hello().in_debug_mode().run(&host);
    for _ in 0..3 {
        let mut console = enclave.console();
        console.wait_for(HELLO);
        console.signal(Signal::KILL);
        let _ = console.finish();
    }
    assert_eq!(enclave.description().expect("it runs")["State"], "RUNNING");
}

#[test]
fn enclaves_come_and_go_with_everything_in_between() {
    let world = World::enter();
    let host = Host::of_the_parent();
    for round in 0..15 {
        let launch = if round % 3 == 0 {
            hello().in_debug_mode()
        } else {
            hello()
        };
        let enclave = launch.run(&host);
        assert_eq!(host.describe().len(), 1);
        if round % 3 == 0 {
            enclave.console().wait_for(HELLO);
        }
        if round % 2 == 0 {
            enclave.terminate();
        } else {
            let all = host.cli(&["terminate-enclave", "--all"]).succeeded().json();
            assert_eq!(all[0]["EnclaveID"], enclave.id.as_str());
        }
        assert_eq!(host.describe(), Vec::<Value>::new());
        world.assert_unchanged();
    }
}

#[test]
fn the_default_name_is_the_images_and_one_that_is_taken_gets_a_number() {
    let _world = World::enter();
    let host = Host::of_the_parent();
    let eif = eifs::path("two.dots.eif.eif");
    fs::copy(parent::hello_eif(), &eif).expect("copy hello.eif");

    let first = Launch::of(&eif).run(&host);
    let second = Launch::of(&eif).run(&host);

    assert_eq!((first.name(), second.name()), ("two.dots", "two.dots_1"));
    second.terminate();
    let named = hello().named("two.dots").run(&host);
    assert_eq!(named.name(), "two.dots_1", "the number is free again");
}

#[test]
fn describe_with_metadata_shows_what_the_image_said_even_when_it_is_gone() {
    let _world = World::enter();
    let host = Host::of_the_parent();
    let [layout, eif, custom] = ["metadata-layout", "metadata.eif", "metadata.json"].map(eifs::path);
    ContainerImage::of_application("idle", &[]).write_oci_layout(&layout);
    fs::write(&custom, r#"{"Team": "payments", "Stage": 7}"#).expect("write the metadata");
    let [layout, eif_path, custom] = [&layout, &eif, &custom].map(|path| path.to_string_lossy());
    let built = host.cli(&[
        "build-enclave",
        "--docker-uri",
        &layout,
        "--output-file",
        &eif_path,
        "--name",
        "idle-image",
        "--version",
        "0.9",
        "--metadata",
        &custom,
    ]);
    let _ = built.succeeded();
    let file = host
        .cli(&["describe-eif", "--eif-path", &eif_path])
        .succeeded()
        .json();
    let enclave = Launch::of(&eif).run(&host);
    fs::remove_file(&eif).expect("remove the image");

    let described = host.cli(&["describe-enclaves", "--metadata"]).succeeded().json();

    let described = &described[0];
    assert_eq!(described["EnclaveID"], enclave.id.as_str());
    assert_eq!(
        (&described["ImageName"], &described["ImageVersion"]),
        (&json!("idle-image"), &json!("0.9"))
    );
    assert_eq!(
        (&described["Metadata"]["Team"], &described["Metadata"]["Stage"]),
        (&json!("payments"), &json!(7))
    );
    for key in ["ImageName", "ImageVersion", "Metadata", "Measurements"] {
        assert_eq!(described[key], file[key], "{key}");
    }
    assert!(enclave.description().is_some(), "and it goes on");
    assert_eq!(enclave.description().expect("it is listed").get("Metadata"), None);
}
