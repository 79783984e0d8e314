// parent: --cpus 8 --threads 2 --memory 3G --hugepages-2m 768 --no-daemon -- --test-threads 1 --nocapture
//! The Nitro Security Module as an application sees it, through AWS's own client library inside the enclave, and attestation
//! documents as a verifier on the parent does.

#![forbid(unsafe_code)]
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a suite fails on the spot"
)]

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use end_to_end_tests::guest::port;
use end_to_end_tests::hostile_vmm::{FINDINGS, MEASURED, ORDERS};
use end_to_end_tests::vsock_socket::connect;
use end_to_end_tests::{Enclave, Finished, Host, Launch, OwnDaemon, World, eifs, hex, parent, poll};
use rustix::process::Signal;

fn client() -> Launch {
    Launch::of(eifs::of_application("nsm-client", &[])).with_memory(128)
}

/// A conversation with the application `nsm-client`.
struct Nsm(BufReader<UnixStream>);

/// What became of one request.
#[derive(Debug)]
struct Answer {
    /// As AWS's library wrote it.
    request: String,
    /// As AWS's library read and would write it.
    response: String,
    /// The response in words.
    words: String,
}

impl Nsm {
    fn of(enclave: &Enclave) -> Self {
        let stream = poll::until("the application", || connect(enclave, port::NSM).ok());
        Self(BufReader::new(stream))
    }

    fn say(&mut self, line: &str) {
        writeln!(self.0.get_mut(), "{line}").expect("send");
    }

    fn hear(&mut self) -> String {
        let mut answer = String::new();
        self.0.read_line(&mut answer).expect("an answer");
        answer.trim_end().to_owned()
    }

    fn ask(&mut self, line: &str) -> Answer {
        self.say(line);
        let answer = self.hear();
        let mut parts = answer.splitn(3, ' ').map(str::to_owned);
        let mut part = || parts.next().expect("three parts");
        Answer {
            request: part(),
            response: part(),
            words: part(),
        }
    }

    /// The value of a register, and whether it is locked.
    fn pcr(&mut self, index: u16) -> (bool, String) {
        let words = self.ask(&format!("DescribePCR {index}")).words;
        let (lock, value) = words
            .strip_prefix("DescribePCR ")
            .and_then(|rest| rest.split_once(' '))
            .expect("a register");
        (lock == "true", value.to_owned())
    }

    /// A document with these fields, in hexadecimal or `-`.
    fn document(&mut self, fields: &str) -> Vec<u8> {
        let words = self.ask(&format!("Attestation {fields}")).words;
        let document = words.strip_prefix("Attestation ").expect("a document");
        hex::decode(document).expect("hexadecimal")
    }
}

/// The document and the root as files.
struct Files {
    document: PathBuf,
    root: PathBuf,
}

impl Files {
    fn write(host: &Host, document: &[u8]) -> Self {
        let files = Self {
            document: "/tmp/document.cose".into(),
            root: "/tmp/root.pem".into(),
        };
        fs::write(&files.document, document).expect("write the document");
        let root = host.cli(&["attestation-root"]).succeeded().stdout;
        fs::write(&files.root, root).expect("write the root");
        files
    }

    fn verify(&self, host: &Host, more: &[&str]) -> Finished {
        let (document, root) = (self.document.to_string_lossy(), self.root.to_string_lossy());
        let fixed = ["verify-attestation", "--document", &document, "--root", &root];
        host.cli(&[&fixed[..], more].concat())
    }
}

/// The name of the check that a document did not pass.
fn failed_check(finished: &Finished) -> String {
    assert_eq!(finished.code(), Some(1), "{finished:?}");
    let answer = finished.json();
    assert_eq!(answer["Verified"], false);
    answer["Check"].as_str().expect("a check").to_owned()
}

const ZERO: &str = "000000000000000000000000000000000000000000000000\
                    000000000000000000000000000000000000000000000000";

/// SHA-384 of 48 zeros and the byte aa: PCR 16 after `ExtendPCR 16 aa`.
fn extended_once() -> String {
    use sha2::Digest;
    hex::encode(&sha2::Sha384::digest([[0; 48].as_slice(), &[0xaa]].concat()))
}

/// Fails unless the answer is this error, in these bytes.
#[track_caller]
fn assert_fails(nsm: &mut Nsm, line: &str, error: &str) {
    let answer = nsm.ask(line);
    assert_eq!(answer.words, format!("Error {error}"), "{line}");
    // {"Error": text}
    let golden = format!(
        "a1654572726f72{:02x}{}",
        0x60 + error.len(),
        hex::encode(error.as_bytes())
    );
    assert_eq!(answer.response, golden, "{line}");
}

#[test]
fn awss_client_is_answered_byte_for_byte() {
    let _world = World::enter();
    let daemon = OwnDaemon::start(&[]);
    let enclave = client().run(daemon.host());
    let mut nsm = Nsm::of(&enclave);

    let answer = nsm.ask("DescribeNSM");
    assert_eq!(answer.request, "6b44657363726962654e534d");
    let locked: Vec<String> = (0..16).map(|index| index.to_string()).collect();
    let (instance, slot) = enclave.id.split_once("-enc").expect("an id");
    assert_eq!(
        answer.words,
        format!(
            "DescribeNSM {{ version_major: 1, version_minor: 0, version_patch: 0, module_id: \"{instance}-enc{slot:0>16}\", \
             max_pcrs: 32, locked_pcrs: {{{}}}, digest: SHA384 }}",
            locked.join(", ")
        )
    );
    let answer = nsm.ask("DescribePCR 16");
    assert_eq!(answer.request, "a16b4465736372696265504352a165696e64657810");
    assert_eq!(
        answer.response,
        format!("a16b4465736372696265504352a2646c6f636bf464646174615830{ZERO}")
    );
    let answer = nsm.ask("ExtendPCR 16 aa");
    assert_eq!(
        answer.request,
        "a169457874656e64504352a265696e64657810646461746141aa"
    );
    let value = extended_once();
    assert_eq!(
        answer.response,
        format!("a169457874656e64504352a164646174615830{value}")
    );
    let answer = nsm.ask("LockPCR 16");
    assert_eq!(answer.request, "a1674c6f636b504352a165696e64657810");
    assert_eq!(answer.response, "674c6f636b504352");
    let answer = nsm.ask("LockPCRs 18");
    assert_eq!(answer.request, "a1684c6f636b50435273a16572616e676512");
    assert_eq!(answer.response, "684c6f636b50435273");
    let answer = nsm.ask("GetRandom");
    assert_eq!(answer.request, "6947657452616e646f6d");
    // {"GetRandom": {"random": 256 bytes}}
    assert_eq!(
        &answer.response[..44],
        "a16947657452616e646f6da16672616e646f6d590100"
    );
    assert_eq!(answer.response.len(), 44 + 512);
    assert_ne!(nsm.ask("GetRandom").words, answer.words);
    let answer = nsm.ask("Attestation - - -");
    assert_eq!(
        answer.request,
        "a16b4174746573746174696f6ea369757365725f64617461f6656e6f6e6365f66a7075626c69635f6b6579f6"
    );
    let document = answer.words.strip_prefix("Attestation ").expect("a document");
    assert!(document.starts_with("8444a1013822a059"), "{document}");
    // {"Attestation": {"document": bytes}}
    let length = document.len() / 2;
    assert_eq!(
        answer.response,
        format!("a16b4174746573746174696f6ea168646f63756d656e7459{length:04x}{document}")
    );
    enclave.terminate();
}

#[test]
fn registers_change_until_they_are_locked_and_indices_have_a_limit() {
    let _world = World::enter();
    let daemon = OwnDaemon::start(&[]);
    let enclave = client().run(daemon.host());
    let mut nsm = Nsm::of(&enclave);

    nsm.ask("ExtendPCR 16 aa");
    assert_eq!(nsm.pcr(16), (false, extended_once()));
    let without_data = nsm.ask("ExtendPCR 31 ").words;
    assert_eq!(without_data.len(), "ExtendPCR ".len() + 96);
    assert_eq!(nsm.ask("LockPCR 16").words, "LockPCR");
    assert_eq!(nsm.pcr(16), (true, extended_once()));
    for locked in ["LockPCR 16", "ExtendPCR 16 aa", "ExtendPCR 0 aa", "LockPCR 0"] {
        assert_fails(&mut nsm, locked, "ReadOnlyIndex");
    }
    for verb in [
        "DescribePCR 32",
        "ExtendPCR 32 aa",
        "LockPCR 32",
        "DescribePCR 65535",
        "LockPCRs 33",
    ] {
        assert_fails(&mut nsm, verb, "InvalidIndex");
    }
    assert_eq!(nsm.ask("LockPCRs 18").words, "LockPCRs");
    assert_eq!((nsm.pcr(17).0, nsm.pcr(18).0), (true, false));
    assert_eq!(nsm.ask("LockPCRs 0").words, "LockPCRs");
    assert_eq!(nsm.ask("LockPCRs 32").words, "LockPCRs");
    assert!(nsm.pcr(31).0);
    enclave.terminate();
}

#[test]
fn fields_and_requests_have_limits() {
    let _world = World::enter();
    let daemon = OwnDaemon::start(&[]);
    let enclave = client().run(daemon.host());
    let mut nsm = Nsm::of(&enclave);

    let (most, too_much) = ("ab".repeat(1024), "ab".repeat(1025));
    let answer = nsm.ask(&format!("Attestation {most} {most} {most}"));
    assert!(answer.words.starts_with("Attestation "), "{}", answer.words);
    for fields in [
        format!("{too_much} - -"),
        format!("- {too_much} -"),
        format!("- - {too_much}"),
    ] {
        assert_fails(&mut nsm, &format!("Attestation {fields}"), "InputTooLarge");
    }
    // The longest request there can be: the rest of it takes 27 bytes.
    let longest = nsm.ask(&format!("ExtendPCR 20 {}", "ab".repeat(0x1000 - 27)));
    assert_eq!(longest.request.len(), 2 * 0x1000);
    assert!(longest.words.starts_with("ExtendPCR "), "{}", longest.words);
    let too_long = format!("ExtendPCR 20 {}", "ab".repeat(0x1000 - 26));
    assert_fails(&mut nsm, &too_long, "InputTooLarge");
    enclave.terminate();
}

#[test]
fn a_document_says_what_was_measured_and_verifies_with_our_root_alone() {
    let _world = World::enter();
    let daemon = OwnDaemon::start(&["--parent-role", "arn:aws:iam::123456789012:role/Test"]);
    let host = daemon.host();
    let enclave = client().run(host);
    let described = enclave.description().expect("it runs");
    let eif = eifs::of_application("nsm-client", &[]);
    let file = host
        .cli(&["describe-eif", "--eif-path", &eif.to_string_lossy()])
        .succeeded()
        .json();
    let mut nsm = Nsm::of(&enclave);

    let document = nsm.document("75 6e 6b");

    let files = Files::write(host, &document);
    let pcr0 = file["Measurements"]["PCR0"].as_str().expect("PCR0");
    let expected = format!("0={pcr0}");
    let verified = files
        .verify(
            host,
            &[
                "--pcr",
                &expected,
                "--nonce",
                "6e",
                "--user-data",
                "75",
                "--max-age",
                "3600",
            ],
        )
        .succeeded()
        .json();
    assert_eq!(verified["Verified"], true);
    for (index, name) in [("0", "PCR0"), ("1", "PCR1"), ("2", "PCR2")] {
        assert_eq!(verified["PCRs"][index], file["Measurements"][name], "{name}");
        assert_eq!(verified["PCRs"][index], described["Measurements"][name], "{name}");
    }
    assert_eq!(
        verified["PCRs"]["3"],
        "bd1333825303268a6c7e47cf428ef78e04c71fd252ece83f9cbf2a7afdfd2cd13f72ca43a6a9ed680605640255e76510"
    );
    assert_eq!(verified["PCRs"].as_object().expect("registers").len(), 16);
    assert_eq!(verified["PublicKey"], "6b");
    assert_eq!(
        verified["Certificates"].as_array().expect("certificates").len(),
        5
    );

    let check = |more: &[&str]| failed_check(&files.verify(host, more));
    assert_eq!(check(&["--pcr", &format!("0={ZERO}")]), "pcr");
    assert_eq!(check(&["--nonce", "00"]), "nonce");
    assert_eq!(check(&["--user-data", "00"]), "user-data");
    assert_eq!(check(&["--at", "2020-01-01T00:00:00Z"]), "validity");
    let other = OwnDaemon::start(&["--state-directory", "/tmp/other-state"]);
    fs::write(
        &files.root,
        other.host().cli(&["attestation-root"]).succeeded().stdout,
    )
    .expect("write");
    assert_eq!(check(&[]), "root");
    let mut damaged = document;
    damaged[200] ^= 1;
    let files = Files::write(host, &damaged);
    assert_eq!(files.verify(host, &[]).code(), Some(1));
    drop(other);
    fs::remove_dir_all("/tmp/other-state").expect("remove");
    enclave.terminate();
}

/// Leaves them where `cargo xtask test` asks other verifiers about them, after this suite: one without optional fields, and
/// one in which these are as long as all of the verifiers let them be.
#[test]
fn documents_for_independent_verifiers_pass_ours() {
    let _world = World::enter();
    let daemon = OwnDaemon::start(&[]);
    let host = daemon.host();
    let enclave = client().run(host);
    let mut nsm = Nsm::of(&enclave);
    let share = parent::share();
    let (field, key) = ("ab".repeat(512), "cd".repeat(1024));

    for (name, fields) in [
        ("plain", "- - -".to_owned()),
        ("full", format!("{field} {field} {key}")),
    ] {
        let document = nsm.document(&fields);
        let verified = Files::write(host, &document).verify(host, &[]).succeeded();
        assert_eq!(verified.json()["Verified"], true, "{name}");
        fs::write(share.join(format!("{name}.cose")), document).expect("write the document");
    }
    let root = host.cli(&["attestation-root"]).succeeded().stdout;
    fs::write(share.join("root.pem"), root).expect("write the root");
    enclave.terminate();
}

#[test]
fn a_debug_enclave_attests_nothing_and_is_accepted_only_on_demand() {
    let _world = World::enter();
    let daemon = OwnDaemon::start(&[]);
    let host = daemon.host();
    let enclave = client().in_debug_mode().run(host);
    let mut nsm = Nsm::of(&enclave);

    for index in [0, 1, 2, 8] {
        assert_eq!(nsm.pcr(index), (true, ZERO.to_owned()));
    }
    assert_ne!(nsm.pcr(4).1, ZERO);
    let files = Files::write(host, &nsm.document("- - -"));
    assert_eq!(failed_check(&files.verify(host, &[])), "debug");
    let _ = files.verify(host, &["--allow-debug"]).succeeded();
    enclave.terminate();
}

#[test]
fn registers_survive_the_daemon_and_a_call_meanwhile_waits() {
    let _world = World::enter();
    let mut daemon = OwnDaemon::start(&[]);
    let enclave = client().run(daemon.host());
    let mut nsm = Nsm::of(&enclave);
    nsm.ask("ExtendPCR 16 aa");
    nsm.ask("LockPCR 16");

    daemon.end_with(Signal::KILL);
    nsm.say("ExtendPCR 17 aa");
    // Long enough that an answer, were there one, would have come.
    thread::sleep(Duration::from_secs(2));
    daemon.start_next(&[]);

    let answer = nsm.hear();
    assert!(
        answer.ends_with(&format!("ExtendPCR {}", extended_once())),
        "{answer}"
    );
    assert_eq!(nsm.pcr(16), (true, extended_once()));
    assert_eq!(nsm.pcr(17), (false, extended_once()));
    let files = Files::write(daemon.host(), &nsm.document("- - -"));
    let verified = files.verify(daemon.host(), &[]).succeeded().json();
    assert_eq!(verified["PCRs"]["16"], extended_once());
    enclave.terminate();
}

#[test]
fn the_kernels_random_numbers_come_from_the_nsm() {
    let _world = World::enter();
    let daemon = OwnDaemon::start(&[]);
    let enclave = client().run(daemon.host());
    let mut nsm = Nsm::of(&enclave);
    let mut read = || {
        nsm.say("Hwrng");
        nsm.hear()
    };

    let (first, second) = (read(), read());

    assert!(first.starts_with("nsm"), "{first}");
    assert_eq!(first.len(), second.len());
    assert_ne!(first, second);
    enclave.terminate();
}

/// The VMM of the daemons below; a link to the one that is wanted.
const VMM: &str = "/tmp/vmm-of-this-suite";

/// The options of those daemons. `hostile-vmm` has no guest: it sends the heartbeat itself, through a socket in its directory.
const HOSTILE_VMM: [&str; 4] = ["--vmm", VMM, "--vsock", "unix"];

/// The VMMs that are started from here on are these.
fn use_vmm(vmm: &Path) {
    let _ = fs::remove_file(VMM);
    symlink(vmm, VMM).expect("link the VMM");
}

/// The VMMs that are started from here on are `hostile-vmm`, which does what `orders` says.
fn use_hostile_vmm(orders: &str) {
    // Whoever it runs as writes there.
    fs::write(FINDINGS, "").expect("make a file for the findings");
    fs::set_permissions(FINDINGS, Permissions::from_mode(0o666)).expect("let others write there");
    fs::write(ORDERS, orders).expect("write the orders");
    use_vmm(&parent::guest_application("hostile-vmm"));
}

fn with_hostile_vmm(orders: &str) -> OwnDaemon {
    use_hostile_vmm(orders);
    OwnDaemon::start(&HOSTILE_VMM)
}

fn hello() -> Launch {
    Launch::of(parent::hello_eif()).with_memory(128)
}

/// The first line of what the hostile VMM has learnt that begins with `word`, without it.
fn finding(word: &str) -> String {
    poll::until("a finding of the hostile VMM", || {
        let findings = fs::read_to_string(FINDINGS).unwrap_or_default();
        let line = findings.lines().find_map(|line| line.strip_prefix(word));
        // It is written at once.
        line.filter(|_| findings.ends_with('\n'))
            .map(|line| line.trim_start().to_owned())
    })
}

#[test]
fn a_vmm_that_was_taken_over_cannot_change_what_was_measured() {
    let _world = World::enter();
    let daemon = with_hostile_vmm("measure-twice");
    hello()
        .attempt(daemon.host())
        .failed_to_run("E36", &["broke the protocol", "measurements out of turn"]);
    drop(daemon);

    let daemon = with_hostile_vmm("measure-late");
    let enclave = hello().run(daemon.host());
    enclave.wait_until_gone();
    daemon.wait_until_logged("measurements out of turn");
}

#[test]
fn a_vmm_that_was_taken_over_cannot_speak_for_another_enclave() {
    let _world = World::enter();
    use_vmm(Path::new("/usr/bin/enclave-vmm"));
    let daemon = OwnDaemon::start(&HOSTILE_VMM);
    let victim = client().run(daemon.host());
    let mut victims_nsm = Nsm::of(&victim);
    let measured = victims_nsm.pcr(0);
    use_hostile_vmm("impersonate");

    let enclave = hello().run(daemon.host());

    let document = hex::decode(&finding("document ")).expect("hexadecimal");
    let text = String::from_utf8_lossy(&document).into_owned();
    let slot = |enclave: &Enclave| enclave.id.rsplit("-enc").next().expect("an id").to_owned();
    assert!(text.contains(&slot(&enclave)), "it names the enclave that asked");
    assert!(!text.contains(&slot(&victim)));
    // Behind another enclave's socket is that one's VMM, never the daemon; it cannot even be reached, and that one still has its
    // own security module.
    assert_eq!(finding("other's socket:"), "PermissionDenied");
    assert_eq!(victims_nsm.pcr(0), measured);
    victim.terminate();
    enclave.terminate();
}

/// All files below `directory`.
fn files_below(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).expect("list a directory");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths
        .flat_map(|path| {
            if path.is_dir() {
                files_below(&path)
            } else {
                vec![path]
            }
        })
        .collect()
}

#[test]
fn a_vmm_that_was_taken_over_reaches_no_key_no_register_no_enclave_and_no_process() {
    let _world = World::enter();
    use_vmm(Path::new("/usr/bin/enclave-vmm"));
    let daemon = OwnDaemon::start(&HOSTILE_VMM);
    let victim = client().run(daemon.host());
    let keys = files_below(Path::new("/var/lib/enclaved"));
    assert!(!keys.is_empty());
    let secrets = keys.iter().map(|path| path.display().to_string());
    let orders: Vec<String> = ["break-out".to_owned()].into_iter().chain(secrets).collect();
    use_hostile_vmm(&orders.join("\n"));

    let enclave = hello().run(daemon.host());

    finding("that was all");
    let findings = fs::read_to_string(FINDINGS).expect("findings");
    println!("{findings}");
    let attempts: Vec<&str> = findings
        .lines()
        .filter(|line| line.starts_with("tried "))
        .collect();
    let done: Vec<_> = attempts
        .iter()
        .filter(|line| !line.ends_with(": PermissionDenied"))
        .collect();
    assert!(done.is_empty(), "{done:#?}");
    // What was tried was there to be had.
    for name in [
        "pcrs.json",
        "enclave.json",
        "outcome",
        "log.pipe",
        "nsm.sock",
        "vsock.sock",
    ] {
        assert!(enclave.directory().join(name).exists(), "{name}");
    }
    for process in [daemon.process_id(), victim.process_id()] {
        let attempt = format!("tried signal {process}: PermissionDenied");
        assert!(attempts.contains(&attempt.as_str()), "{attempt}");
    }
    let neighbour = victim.directory();
    let name = neighbour.file_name().expect("a name").to_string_lossy();
    assert!(
        attempts
            .iter()
            .any(|line| line.contains(&format!("connect ../{name}")))
    );
    let status = fs::read_to_string(format!("/proc/{}/status", enclave.process_id())).expect("its status");
    for line in [
        "Groups:\t \n",
        "CapPrm:\t0000000000000000\n",
        "CapEff:\t0000000000000000\n",
    ] {
        assert!(status.contains(line), "{line:?} in {status}");
    }
    let users = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    let user = users.and_then(|users| users.split_ascii_whitespace().next());
    let user: u32 = user.expect("a user").parse().expect("a number");
    assert!(user > 0x7000_0000, "{user}");
    enclave.terminate();
    victim.terminate();
}

#[test]
fn what_a_vmm_that_was_taken_over_leaves_behind_ends_with_its_enclave() {
    let _world = World::enter();
    let daemon = with_hostile_vmm("leave-a-child");
    let enclave = hello().run(daemon.host());
    let child = PathBuf::from("/proc").join(finding("child "));
    assert!(child.exists());

    enclave.terminate();

    assert!(!child.exists());
    // And what the enclave had can be had again.
    fs::write(ORDERS, "behave").expect("write the orders");
    hello().run(daemon.host()).terminate();
}

#[test]
fn a_vmm_that_was_taken_over_cannot_starve_the_daemon_or_break_its_own_registers() {
    let _world = World::enter();
    use_vmm(Path::new("/usr/bin/enclave-vmm"));
    let daemon = OwnDaemon::start(&HOSTILE_VMM);
    let bystander = client().run(daemon.host());
    let mut bystanders_nsm = Nsm::of(&bystander);
    let before = bystanders_nsm.pcr(0);
    use_hostile_vmm("garbage");
    let enclave = hello().run(daemon.host());
    let answer = finding("pcr0 ");
    assert!(answer.ends_with(&MEASURED.repeat(48)), "{answer}");
    daemon.wait_until_logged("a request to the NSM was refused");
    enclave.terminate();

    fs::write(ORDERS, "flood").expect("write the orders");
    let flooding = hello().run(daemon.host());
    finding("flooding");
    fs::write(ORDERS, "behave").expect("write the orders");
    // Clients are served, enclaves start and end, and other security modules answer, meanwhile.
    hello().run(daemon.host()).terminate();
    assert_eq!(daemon.host().describe().len(), 2);
    assert_eq!(bystanders_nsm.pcr(0), before);
    assert!(!bystanders_nsm.document("- - -").is_empty());
    flooding.terminate();
    bystander.terminate();
}

/// Not a limit that must hold, but what there is. `cargo xtask bench nsm` has it measured several times, and makes a table of
/// the lines.
#[test]
fn how_often_an_enclave_can_ask() {
    let runs: u32 = std::env::var("BENCH_RUNS").map_or(1, |runs| runs.parse().expect("a number"));
    let _world = World::enter();
    let daemon = OwnDaemon::start(&[]);
    let enclave = client().run(daemon.host());
    let mut nsm = Nsm::of(&enclave);
    for (what, request) in [("GetRandom", "GetRandom"), ("Attestation", "Attestation - - -")] {
        let mut per_second = || {
            nsm.say(&format!("Repeat 5 {request}"));
            let count: u32 = nsm.hear().parse().expect("a number");
            assert!(count > 0);
            (f64::from(count) / 5.0).to_string()
        };
        let rates: Vec<String> = (0..runs).map(|_| per_second()).collect();
        println!("rate: {what}: {}", rates.join(" "));
    }
    enclave.terminate();
}
