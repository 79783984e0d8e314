// parent: --cpus 6 --threads 2 --memory 3G --hugepages-2m 768 -- --test-threads 1
//! run, describe, console, terminate, as in AWS's launch post, and everything that can happen in between.
//!
//! The parent has three cores of two threads: CPUs 0 and 1 stay with it, 2 to 5 are for enclaves.

#![forbid(unsafe_code)]
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a suite fails on the spot"
)]

use std::fs;
use std::thread;

use end_to_end_tests::guest::FLOOD;
use end_to_end_tests::{
    ContainerImage, Enclave, Host, Launch, World, eifs, parent, poll, processes_named, send_signal,
};
use rustix::process::Signal;
use serde_json::{Value, json};

const HELLO: &str = "Hello from the enclave side!";

fn hello() -> Launch {
    Launch::of(parent::hello_eif())
}

/// Pages of 2 MiB that are neither in use nor promised.
fn free_hugepages() -> u64 {
    let counter = |name: &str| -> u64 {
        let path = format!("/sys/kernel/mm/hugepages/hugepages-2048kB/{name}");
        let text = fs::read_to_string(path).expect("a counter of hugepages");
        text.trim().parse().expect("a number")
    };
    counter("free_hugepages") - counter("resv_hugepages")
}

/// The text of an array of numbers as an element of a pretty-printed object.
fn array(numbers: &Value, indent: &str) -> String {
    let numbers: Vec<String> = numbers
        .as_array()
        .expect("an array")
        .iter()
        .map(Value::to_string)
        .collect();
    format!(
        "[\n{indent}  {}\n{indent}]",
        numbers.join(&format!(",\n{indent}  "))
    )
}

#[test]
fn the_launch_post_of_aws_works_word_for_word() {
    let _world = World::enter();
    let host = Host::of_the_parent();
    let free_before = free_hugepages();

    let enclave = hello()
        .with_memory(512)
        .with_cpu_count(2)
        .in_debug_mode()
        .run(&host);

    let info = &enclave.info;
    let cid = info["EnclaveCID"].as_u64().expect("a CID");
    assert!(cid >= 16, "{info}");
    assert_eq!(info["CPUIDs"], json!([2, 3]), "a whole core, not the parent's");
    assert_eq!(free_before - free_hugepages(), 256, "pages for 512 MiB");
    let common = |indent: &str| {
        format!(
            "{indent}\"EnclaveName\": \"hello\",\n{indent}\"EnclaveID\": \"{}\",\n{indent}\"ProcessID\": {},\n\
             {indent}\"EnclaveCID\": {cid},\n{indent}\"NumberOfCPUs\": 2,\n{indent}\"CPUIDs\": {},\n\
             {indent}\"MemoryMiB\": 512",
            enclave.id,
            info["ProcessID"],
            array(&info["CPUIDs"], indent),
        )
    };
    assert_eq!(enclave.started.stdout, format!("{{\n{}\n}}\n", common("  ")));
    assert_eq!(
        enclave.started.stderr,
        format!(
            "Start allocating memory...\n\
             Started enclave with enclave-cid: {cid}, memory: 512 MiB, cpu-ids: [2, 3]\n"
        )
    );

    let described = host.cli(&["describe-enclaves"]).succeeded();
    let measurements = &described.json()[0]["Measurements"];
    let expected = format!(
        "[\n  {{\n{},\n    \"State\": \"RUNNING\",\n    \"Flags\": \"DEBUG_MODE\",\n    \"Measurements\": {{\n      \
         \"HashAlgorithm\": {},\n      \"PCR0\": {},\n      \"PCR1\": {},\n      \"PCR2\": {}\n    }}\n  }}\n]\n",
        common("    "),
        measurements["HashAlgorithm"],
        measurements["PCR0"],
        measurements["PCR1"],
        measurements["PCR2"],
    );
    assert_eq!(described.stdout, expected);
    assert_eq!(described.stderr, "");

    let mut console = enclave.console();
    console.wait_for(HELLO);

    let id = enclave.id.clone();
    let terminated = enclave.terminate();
    assert_eq!(
        terminated.stdout,
        format!(
            "{{\n  \"EnclaveName\": \"hello\",\n  \"EnclaveID\": \"{id}\",\n  \"Terminated\": true\n}}\n"
        )
    );
    assert_eq!(
        terminated.stderr,
        format!("Successfully terminated enclave {id}.\n")
    );
    assert_eq!(
        console.finish().code(),
        Some(0),
        "the console ends with the enclave"
    );
    assert_eq!(host.cli(&["describe-enclaves"]).succeeded().stdout, "[]\n");
    poll::until("all hugepages to be free again", || {
        (free_hugepages() == free_before).then_some(())
    });
}

#[test]
fn the_process_id_is_that_of_the_enclaves_vmm() {
    let _world = World::enter();
    let host = Host::of_the_parent();

    let enclave = hello().run(&host);

    assert_eq!(processes_named("enclave-vmm"), [enclave.process_id()]);
}

#[test]
fn describe_enclaves_measures_what_describe_eif_measures() {
    let _world = World::enter();
    let host = Host::of_the_parent();
    let eif = parent::hello_eif();
    let file = host
        .cli(&["describe-eif", "--eif-path", &eif.to_string_lossy()])
        .succeeded()
        .json();

    let enclave = hello().run(&host);

    let description = enclave.description().expect("it is listed");
    assert_eq!(description["Measurements"], file["Measurements"]);
    assert_eq!(file["IsSigned"], false);
    assert_eq!(file["CheckCRC"], true);
    assert_eq!(file["EifVersion"], 4);
    assert_eq!(description["Flags"], "NONE", "without --debug-mode");
}

#[test]
fn a_late_console_still_shows_the_boot_and_consoles_come_and_go() {
    let _world = World::enter();
    let host = Host::of_the_parent();
    let enclave = hello().in_debug_mode().run(&host);
    let cid = &enclave.info["EnclaveCID"];
    enclave.console().wait_for(&format!("[   1] {HELLO}"));

    // The first watcher has left; each of the next sees all there was, in order, and nothing on standard error.
    for _ in 0..2 {
        let mut console = enclave.console();
        console.wait_for(&format!("[   2] {HELLO}"));
        let text = console.stdout();
        let greeting = format!(
            "Connecting to the console for enclave {cid}...\nSuccessfully connected to the console.\n"
        );
        assert!(text.starts_with(&greeting), "{text}");
        let unpacking = text.find("Unpacking initramfs").expect("boot text");
        let hello = text.find(HELLO).expect("the application's first line");
        assert!(unpacking < hello, "{text}");
        assert_eq!(console.stderr(), "");
        console.signal(Signal::INT);
        assert_eq!(console.finish().code(), None, "Ctrl-C ends the client");
        assert!(enclave.description().is_some(), "and the client only");
    }
}

#[test]
fn several_watchers_see_the_same_and_a_timed_one_leaves_by_itself() {
    let _world = World::enter();
    let host = Host::of_the_parent();
    let enclave = hello().in_debug_mode().run(&host);
    let mut watchers: Vec<_> = (0..3).map(|_| enclave.console()).collect();

    let timed = host.cli(&[
        "console",
        "--enclave-id",
        &enclave.id,
        "--disconnect-timeout",
        "1",
    ]);
    assert_eq!((timed.code(), timed.stderr.as_str()), (Some(0), ""));

    for watcher in &mut watchers {
        watcher.wait_for(&format!("[   3] {HELLO}"));
    }
}

#[test]
fn a_watcher_that_does_not_read_stops_neither_the_guest_nor_another_watcher() {
    // What can pile up in a socket of this kernel (net.core.wmem_default), where the first watcher's bytes stay.
    const MORE_THAN_A_SOCKET_HOLDS: usize = 256 << 10;
    let _world = World::enter();
    let host = Host::of_the_parent();
    let enclave = Launch::of(eifs::of_application("flood", &[]))
        .in_debug_mode()
        .run(&host);
    let mut stuck = enclave.console();
    stuck.wait_for(FLOOD);
    stuck.signal(Signal::STOP);

    let reading = enclave.console();
    poll::until("more output than a socket holds", || {
        (reading.stdout().len() > MORE_THAN_A_SOCKET_HOLDS).then_some(())
    });

    let seen = stuck.stdout().len();
    stuck.signal(Signal::CONT);
    poll::until("the first watcher to go on", || {
        (stuck.stdout().len() > seen).then_some(())
    });
}

#[test]
fn attach_console_prints_the_enclave_and_then_its_console() {
    let _world = World::enter();
    let host = Host::of_the_parent();

    let mut attached = hello().with(&["--attach-console"]).start(&host);
    attached.wait_for(HELLO);

    let text = attached.stdout();
    let (json, _) = text
        .split_once("Connecting to the console")
        .expect("JSON comes first");
    let info: Value = serde_json::from_str(json).expect("JSON");
    assert_eq!(host.describe()[0]["Flags"], "DEBUG_MODE", "implied");
    let id = info["EnclaveID"].as_str().expect("an id");
    let _ = host.cli(&["terminate-enclave", "--enclave-id", id]).succeeded();
    assert_eq!(attached.finish().code(), Some(0));
}

#[test]
fn an_enclave_can_be_named_and_is_found_by_its_name() {
    let _world = World::enter();
    let host = Host::of_the_parent();
    let enclave = hello().named("testName").in_debug_mode().run(&host);

    assert_eq!(enclave.name(), "testName");
    assert_eq!(host.describe()[0]["EnclaveName"], "testName");
    host.start_cli(&["console", "--enclave-name", "testName"])
        .wait_for(HELLO);
    let terminated = host
        .cli(&["terminate-enclave", "--enclave-name", "testName"])
        .succeeded();

    assert_eq!(terminated.json()["EnclaveID"], enclave.info["EnclaveID"]);
    assert_eq!(host.describe(), Vec::<Value>::new());
}

#[test]
fn a_taken_name_gets_a_number_and_two_enclaves_run_at_the_same_time() {
    let _world = World::enter();
    let host = Host::of_the_parent();

    let first = hello().run(&host);
    let second = hello().run(&host);

    assert_eq!((first.name(), second.name()), ("hello", "hello_1"));
    for what in ["EnclaveID", "EnclaveCID", "ProcessID", "CPUIDs"] {
        assert_ne!(first.info[what], second.info[what], "{what}");
    }
    let listed: Vec<Value> = host
        .describe()
        .into_iter()
        .map(|enclave| enclave["EnclaveID"].clone())
        .collect();
    assert_eq!(
        listed,
        [first.id.clone(), second.id.clone()],
        "in the order they were started"
    );

    let terminated = host.cli(&["terminate-enclave", "--all"]).succeeded().json();
    assert_eq!(terminated.as_array().map(Vec::len), Some(2), "{terminated}");
    assert_eq!(
        host.cli(&["terminate-enclave", "--all"]).succeeded().stdout,
        "[]\n"
    );
}

#[test]
fn two_run_enclave_calls_at_once_both_succeed() {
    let _world = World::enter();
    let host = Host::of_the_parent();

    let enclaves = thread::scope(|scope| {
        let calls = [(); 2].map(|()| scope.spawn(|| hello().run(&host)));
        calls.map(|call| call.join().expect("both succeed"))
    });

    let mut names = enclaves.each_ref().map(Enclave::name);
    names.sort_unstable();
    assert_eq!(names, ["hello", "hello_1"]);
    assert_ne!(enclaves[0].info["CPUIDs"], enclaves[1].info["CPUIDs"]);
    assert_eq!(host.describe().len(), 2);
}

#[test]
fn ten_enclaves_in_a_row_leave_nothing() {
    let world = World::enter();
    let host = Host::of_the_parent();
    for _ in 0..10 {
        let enclave = hello().run(&host);
        assert_eq!(enclave.name(), "hello", "the name is free again");
        assert_eq!(enclave.info["CPUIDs"], json!([2, 3]), "so are the CPUs");
        enclave.terminate();
        world.assert_unchanged();
    }
}

#[test]
fn sixty_four_mebibytes_are_enough_to_boot() {
    let _world = World::enter();
    let host = Host::of_the_parent();

    let enclave = hello().with_memory(64).in_debug_mode().run(&host);

    assert_eq!(enclave.info["MemoryMiB"], 64);
    enclave.console().wait_for(HELLO);
}

#[test]
fn memory_takes_units_and_is_rounded_up_to_whole_pages() {
    let _world = World::enter();
    let host = Host::of_the_parent();
    for (asked, given) in [("101", 102), ("128m", 128), ("1G", 1024)] {
        let enclave = hello().with_memory_option(asked).run(&host);
        assert_eq!(enclave.info["MemoryMiB"], given, "{asked}");
    }
}

/// Case 4 of AWS's integration tests, on cores with two threads.
#[test]
fn cpus_are_given_as_whole_cores() {
    let _world = World::enter();
    let host = Host::of_the_parent();
    let attempt = |count: &str| hello().with_cpu_options(&["--cpu-count", count]).attempt(&host);

    attempt("0").failed_to_run("E29", &["at least one CPU"]);
    for half_a_core in ["1", "3"] {
        attempt(half_a_core).failed_to_run("E29", &["whole cores"]);
    }
    for more_than_the_pool in ["5", "6", "4294967295"] {
        attempt(more_than_the_pool).failed_to_run("E22", &[more_than_the_pool]);
    }
    attempt("zzz").failed_with(3, "E03", &["zzz"]);
    let negative = hello().with_cpu_options(&["--cpu-count=-3"]).attempt(&host);
    assert!(
        negative.code() != Some(0) && negative.stdout.is_empty(),
        "{negative:#?}"
    );

    for count in [2, 4] {
        let enclave = hello().with_cpu_count(count).in_debug_mode().run(&host);
        assert_eq!(enclave.info["NumberOfCPUs"], count);
        enclave
            .console()
            .wait_for(&format!("smp: Brought up 1 node, {count} CPUs"));
    }
}

#[test]
fn cpus_can_be_named_and_their_order_is_kept() {
    let _world = World::enter();
    let host = Host::of_the_parent();

    let enclave = hello().with_cpu_ids(&["5", "4"]).run(&host);

    assert_eq!(enclave.info["CPUIDs"], json!([5, 4]));
    let in_use = hello().with_cpu_ids(&["4", "5"]).attempt(&host);
    in_use.failed_to_run("E29", &["in use by another enclave"]);
    hello()
        .with_cpu_ids(&["2"])
        .attempt(&host)
        .failed_to_run("E29", &["CPU 3 is missing"]);
    hello()
        .with_cpu_ids(&["2", "2"])
        .attempt(&host)
        .failed_to_run("E20", &["CPU 2", "twice"]);
    hello()
        .with_cpu_ids(&["0", "1"])
        .attempt(&host)
        .failed_to_run("E21", &["CPU 0 is not in the CPU pool"]);
}

#[test]
fn a_cid_can_be_chosen_and_is_refused_while_it_is_taken() {
    let _world = World::enter();
    let host = Host::of_the_parent();

    let enclave = hello().with(&["--enclave-cid", "1234"]).run(&host);

    assert_eq!(enclave.info["EnclaveCID"], 1234);
    hello()
        .with(&["--enclave-cid", "1234"])
        .attempt(&host)
        .failed_to_run("E29", &["1234"]);
    let chosen = hello().with(&["--enclave-cid", "0"]).run(&host);
    assert!(
        chosen.started.stderr.contains("auto-generated"),
        "{:#?}",
        chosen.started
    );
}

#[test]
fn sigterm_to_the_process_id_ends_the_enclave_cleanly() {
    let world = World::enter();
    let host = Host::of_the_parent();
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let enclave = hello().run(&host);
        send_signal(enclave.process_id(), signal);
        enclave.wait_until_gone();
        world.assert_unchanged();
    }
}

#[test]
fn an_application_that_ends_takes_its_enclave_along() {
    let _world = World::enter();
    let host = Host::of_the_parent();

    let enclave = Launch::of(eifs::of_application("exit-at-once", &["3"])).run(&host);

    enclave.wait_until_gone();
    let unknown = host.cli(&["terminate-enclave", "--enclave-id", &enclave.id]);
    unknown.failed_with(11, "E11", &[&enclave.id]);
}

#[test]
fn the_image_may_change_and_go_once_the_enclave_runs() {
    let _world = World::enter();
    let host = Host::of_the_parent();
    let copy = eifs::path("copy.eif");
    fs::copy(parent::hello_eif(), &copy).expect("copy the image");
    let enclave = Launch::of(&copy).in_debug_mode().run(&host);
    let before = enclave.description().expect("it is listed");

    fs::write(&copy, "overwritten").expect("overwrite the image");
    assert_eq!(enclave.description().as_ref(), Some(&before));
    fs::remove_file(&copy).expect("delete the image");
    assert_eq!(enclave.description().as_ref(), Some(&before));

    enclave.console().wait_for(&format!("[   2] {HELLO}"));
}

#[test]
fn an_image_of_many_megabytes_boots_with_the_memory_that_the_rule_asks_for() {
    let _world = World::enter();
    let host = Host::of_the_parent();
    let ballast: Vec<u8> = (0..32_u32 << 18)
        .flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes())
        .collect();
    let eif = eifs::path("large.eif");
    ContainerImage::of_application("idle", &[])
        .with_file("srv/ballast", 0o644, ballast)
        .build(&eif);
    let size = fs::metadata(&eif).expect("the image").len();
    let least = (4 * size).div_ceil(1 << 20);

    Launch::of(&eif)
        .with_memory(least - 1)
        .attempt(&host)
        .failed_to_run("E26", &[&least.to_string()]);
    Launch::of(&eif)
        .with_memory(least)
        .in_debug_mode()
        .run(&host)
        .console()
        .wait_for("idle: alive");

    fs::remove_file(&eif).expect("delete the image");
}
