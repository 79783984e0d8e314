// parent: --cpus 6 --memory 3G --hugepages-2m 512 -- --test-threads 1 --nocapture
//! Which user may do what: every cell of the table "Who may do what" in `docs/threat-model.md`, tried as that user.
//!
//! The parent instance has the group `ne`, number 900, and users need no names there.

#![forbid(unsafe_code)]
#![expect(
    clippy::expect_used,
    reason = "a suite that cannot prepare its world must fail on the spot and say why"
)]

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use end_to_end_tests::{
    ContainerImage, Enclave, Finished, Host, Launch, OwnDaemon, Running, World, eifs, parent, poll, run,
};
use rustix::process::Signal;
use serde_json::Value;

const THREAT_MODEL: &str = include_str!("../../docs/threat-model.md");

/// The group of the daemon's socket.
const NE: u32 = 900;

/// Whoever runs a command.
#[derive(Debug, Clone, Copy)]
struct User {
    number: u32,
    group: u32,
}

const OTHER: User = User {
    number: 2001,
    group: 2001,
};
const MEMBER: User = User {
    number: 2002,
    group: NE,
};
const OWNER: User = User {
    number: 2003,
    group: NE,
};
const ROOT: User = User { number: 0, group: 0 };

/// In the order of the table's columns.
const USERS: [User; 4] = [OTHER, MEMBER, OWNER, ROOT];

/// How a command of a row is tried as a user; what the cell says of it.
type Trial = fn(&mut Scene, User) -> String;

/// The rows of the table, by what stands in their first column.
const TRIALS: [(&str, Trial); 19] = [
    ("`run-enclave`", run_enclave),
    ("`describe-enclaves`", |scene, user| {
        scene.cli(user, &["describe-enclaves"])
    }),
    ("`describe-enclaves --metadata`", |scene, user| {
        scene.cli(user, &["describe-enclaves", "--metadata"])
    }),
    ("`describe-enclaves --ended`", |scene, user| {
        scene.cli(user, &["describe-enclaves", "--ended"])
    }),
    ("`describe-pools`", |scene, user| {
        scene.cli(user, &["describe-pools"])
    }),
    ("`console`", |scene, user| {
        scene.watch(user, &["console", "--enclave-name", "owned"], "Hello from")
    }),
    ("`logs`", |scene, user| {
        scene.cli(user, &["logs", "--enclave-name", "owned"])
    }),
    ("`events`", |scene, user| {
        scene.watch(user, &["events"], "\"PRESENT\"")
    }),
    ("`attestation-root`", |scene, user| {
        scene.cli(user, &["attestation-root"])
    }),
    ("`terminate-enclave` of the owner's enclave", |scene, user| {
        let id = scene.owned().id.clone();
        scene.cli(user, &["terminate-enclave", "--enclave-id", &id])
    }),
    (
        "`terminate-enclave --all`, with the owner's enclave",
        |scene, user| {
            scene.owned();
            scene.cli(user, &["terminate-enclave", "--all"])
        },
    ),
    ("`build-enclave`", build_enclave),
    ("`describe-eif`", |scene, user| {
        scene.cli(user, &["describe-eif", "--eif-path", scene.eif()])
    }),
    ("`pcr`", |scene, user| {
        scene.cli(user, &["pcr", "--input", scene.eif()])
    }),
    ("`explain`", |scene, user| {
        scene.cli(user, &["explain", "--error-code", "E39"])
    }),
    ("starting another `enclaved`", start_daemon),
    ("reading the enclave's notes", |scene, user| {
        let note = scene.owned().directory().join("enclave.json");
        cell(&run(Command::new("cat")
            .arg(note)
            .uid(user.number)
            .gid(user.group)))
    }),
    ("reading the keys of attestation", |_, user| {
        let key = "/var/lib/enclaved/attestation/root.pem";
        cell(&run(Command::new("cat")
            .arg(key)
            .uid(user.number)
            .gid(user.group)))
    }),
    ("sending signals to the VMM", |scene, user| {
        let vmm = scene.owned().process_id().to_string();
        let mut command = Command::new("sh");
        command.args(["-c", &format!("kill -0 {vmm}")]);
        cell(&run(command.uid(user.number).gid(user.group)))
    }),
];

/// An enclave of the owner's, and files that everybody may read.
struct Scene {
    host: Host,
    eif: PathBuf,
    image: PathBuf,
    owned: Enclave,
}

impl Scene {
    fn set() -> Self {
        let host = Host::of_the_parent();
        let eif = everybodys_eif();
        let image = eifs::path("everybodys.tar");
        ContainerImage::of_application("idle", &[]).write_docker_archive(&image);
        Self {
            owned: started(&host, &eif, "owned", OWNER),
            host,
            eif,
            image,
        }
    }

    /// The owner's enclave; another one, if it was ended.
    fn owned(&mut self) -> &Enclave {
        if self.owned.description().is_none() {
            self.owned = started(&self.host, &self.eif, "owned", OWNER);
        }
        &self.owned
    }

    fn eif(&self) -> &str {
        self.eif.to_str().expect("a path in text")
    }

    fn cli(&self, user: User, arguments: &[&str]) -> String {
        cell(&run(&mut as_user(self.host.command(arguments), user)))
    }

    /// A command that goes on until it is stopped, once it has printed `text`.
    fn watch(&self, user: User, arguments: &[&str], text: &str) -> String {
        let mut watching = Running::start(&mut as_user(self.host.command(arguments), user));
        let seen = poll::until("what is watched", || {
            let ended = watching.has_ended();
            if watching.stdout().contains(text) {
                return Some(true);
            }
            ended.then_some(false)
        });
        if seen {
            return "yes".into();
        }
        cell(&watching.finish())
    }
}

/// An image that every user may read.
fn everybodys_eif() -> PathBuf {
    let eif = eifs::path("everybodys.eif");
    fs::copy(parent::hello_eif(), &eif).expect("copy the image");
    fs::set_permissions(&eif, fs::Permissions::from_mode(0o644)).expect("change the mode");
    eif
}

fn as_user(mut command: Command, user: User) -> Command {
    command.uid(user.number).gid(user.group);
    command
}

fn started(host: &Host, eif: &Path, name: &str, user: User) -> Enclave {
    let launch = Launch::of(eif).with_memory(128).in_debug_mode().named(name);
    let started = run(&mut as_user(launch.command(host), user)).succeeded();
    Enclave::started_by(started, host)
}

/// What a cell says of a command that has ended so: `yes`, nitro-cli's first error, or `no`.
fn cell(finished: &Finished) -> String {
    if finished.status.success() {
        return "yes".into();
    }
    let error = finished.stderr.split_once("[ E").and_then(|(_, rest)| {
        let (number, _) = rest.split_once(" ]")?;
        Some(format!("E{number}"))
    });
    error.unwrap_or_else(|| "no".into())
}

fn run_enclave(scene: &mut Scene, user: User) -> String {
    let launch = Launch::of(&scene.eif).with_memory(128);
    let finished = run(&mut as_user(launch.command(&scene.host), user));
    let cell = cell(&finished);
    if finished.status.success() {
        Enclave::started_by(finished, &scene.host).terminate();
    }
    cell
}

fn build_enclave(scene: &mut Scene, user: User) -> String {
    let directory = eifs::path(&format!("built-by-{}", user.number));
    fs::create_dir_all(&directory).expect("create a directory");
    chown(&directory, Some(user.number), Some(user.group)).expect("give it away");
    let mut command = Command::new("nitro-cli");
    command
        .args(["build-enclave", "--docker-uri"])
        .arg(&scene.image)
        .arg("--output-file")
        .arg(directory.join("built.eif"));
    cell(&run(&mut as_user(command, user)))
}

/// Root's is beside the one that runs; others try to take its place.
fn start_daemon(_: &mut Scene, user: User) -> String {
    if user.number == ROOT.number {
        drop(OwnDaemon::start(&[]));
        return "yes".into();
    }
    let mut command = Command::new("enclaved");
    command.arg("--foreground");
    cell(&run(&mut as_user(command, user)))
}

/// The rows of the table: what stands in the first column, and the cells after it.
fn table() -> Vec<(&'static str, Vec<&'static str>)> {
    let (_, section) = THREAT_MODEL
        .split_once("## Who may do what")
        .expect("the section");
    let rows = section.lines().skip_while(|line| !line.starts_with('|'));
    let rows = rows.take_while(|line| line.starts_with('|')).skip(2);
    rows.map(|row| {
        let mut cells = row.trim_matches('|').split('|').map(str::trim);
        (cells.next().expect("a first column"), cells.collect())
    })
    .collect()
}

#[test]
fn the_table_says_what_each_user_may_do() {
    let _world = World::enter();
    let table = table();
    let rows: Vec<_> = table.iter().map(|(row, _)| *row).collect();
    assert_eq!(rows, TRIALS.map(|(row, _)| row), "the rows of the table");
    let mut scene = Scene::set();

    let mut wrong = Vec::new();
    for ((row, cells), (_, attempt)) in table.iter().zip(TRIALS) {
        assert_eq!(cells.len(), USERS.len(), "the cells of {row}");
        for (user, expected) in USERS.iter().zip(cells) {
            let seen = attempt(&mut scene, *user);
            if seen != *expected {
                wrong.push(format!(
                    "{row} as {user:?}: the table says {expected}, but it is {seen}"
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn all_of_a_member_are_its_own_and_it_is_told_that_others_go_on() {
    let _world = World::enter();
    let scene = Scene::set();
    let own = started(&scene.host, &scene.eif, "own", MEMBER);

    let finished = run(&mut as_user(
        scene.host.command(&["terminate-enclave", "--all"]),
        MEMBER,
    ));

    assert_eq!(finished.code(), Some(39), "{finished:#?}");
    let ended = finished.json();
    assert_eq!(ended.as_array().map(Vec::len), Some(1), "{ended}");
    assert_eq!(ended[0]["EnclaveID"], own.id.as_str());
    let of_the_owner = scene.owned.id.clone();
    for text in ["Failed connections: 1", "[ E39 ]", &of_the_owner] {
        assert!(finished.stderr.contains(text), "{finished:#?}");
    }
    assert!(own.description().is_none());
    assert!(scene.owned.description().is_some());
}

#[test]
fn the_next_daemon_knows_whose_an_enclave_is() {
    let _world = World::enter();
    let mut daemon = OwnDaemon::start(&[]);
    let host = daemon.host().clone();
    let eif = everybodys_eif();
    let enclave = started(&host, &eif, "owned", OWNER);
    daemon.end_with(Signal::KILL);
    daemon.start_next(&[]);
    let terminate = |user| {
        let command = host.command(&["terminate-enclave", "--enclave-id", &enclave.id]);
        run(&mut as_user(command, user))
    };

    terminate(MEMBER).failed_with(39, "E39", &["No permission", "2003"]);
    assert_eq!(host.describe().len(), 1);
    let _ = terminate(OWNER).succeeded();

    assert_eq!(host.describe(), Vec::<Value>::new());
}

/// The most memory that the daemon may have, whatever its clients do, in KiB: the requests of a user whose places are all taken by
/// half requests, and as much again.
const DAEMON_MEMORY: u64 = 96 << 10;

#[test]
fn a_user_that_takes_all_it_can_get_holds_up_nobody() {
    let _world = World::enter();
    let scene = Scene::set();
    let host = &scene.host;
    for behaviour in ["silent", "half", "unread", "talkative"] {
        let mut command = Command::new(parent::guest_application("crowd"));
        command.arg(host.socket()).args([behaviour, "2000"]);
        let mut crowd = Running::start(&mut as_user(command, MEMBER));
        crowd.wait_for("crowded");

        let own = started(host, &scene.eif, behaviour, OWNER);
        for user in [OWNER, ROOT].repeat(5) {
            let described = run(&mut as_user(host.command(&["describe-enclaves"]), user)).succeeded();
            assert_eq!(described.json().as_array().map(Vec::len), Some(2), "{behaviour}");
        }
        let command = host.command(&["terminate-enclave", "--enclave-id", &own.id]);
        let _ = run(&mut as_user(command, OWNER)).succeeded();

        assert!(!crowd.has_ended(), "{behaviour}: {}", crowd.stderr());
        let memory = daemon_memory(host);
        println!("{behaviour}: the daemon has had {memory} KiB at most");
        assert!(memory < DAEMON_MEMORY, "{behaviour}: {memory} KiB");
    }
}

#[test]
fn a_user_that_asks_without_end_is_written_down_in_bounded_length() {
    let _world = World::enter();
    let log = Path::new("/tmp/bounded/audit.jsonl");
    let daemon = OwnDaemon::start(&["--audit-log", log.to_str().expect("text")]);
    let host = daemon.host();
    let mut command = Command::new(parent::guest_application("crowd"));
    command.arg(host.socket()).args(["unread", "2000"]);
    let mut crowd = Running::start(&mut as_user(command, MEMBER));
    crowd.wait_for("crowded");
    let _ = run(&mut as_user(host.command(&["describe-enclaves"]), OWNER)).succeeded();
    drop(crowd);
    drop(daemon);

    let text = fs::read_to_string(log).expect("the audit log");
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("a line of JSON"))
        .collect();
    let of = |user: User| lines.iter().filter(move |line| line["user"] == user.number);
    assert!(of(MEMBER).count() < 1000, "{}", of(MEMBER).count());
    let left_out: u64 = of(MEMBER).filter_map(|line| line["left_out"].as_u64()).sum();
    assert!(left_out > 1000, "{left_out}");
    assert!(of(OWNER).any(|line| line["command"] == "describe-enclaves"));
}

#[test]
fn the_audit_log_says_who_has_done_what() {
    let _world = World::enter();
    let log = Path::new("/tmp/audit/audit.jsonl");
    let daemon = OwnDaemon::start(&["--audit-log", log.to_str().expect("text")]);
    let host = daemon.host();
    let enclave = started(host, &everybodys_eif(), "owned", OWNER);
    let pcr0 = enclave.description().expect("it runs")["Measurements"]["PCR0"].clone();
    let terminate = |user| {
        let command = host.command(&["terminate-enclave", "--enclave-id", &enclave.id]);
        run(&mut as_user(command, user))
    };
    assert_eq!(terminate(MEMBER).code(), Some(39));
    let _ = terminate(OWNER).succeeded();
    let forged = "x\n{\"user\":0,\"command\":\"run-enclave\"}";
    let command = host.command(&["console", "--enclave-name", forged]);
    assert_eq!(run(&mut as_user(command, MEMBER)).code(), Some(58));

    let lines = poll::until("the lines", || {
        let text = fs::read_to_string(log).expect("the audit log");
        text.contains("E58").then_some(text)
    });
    println!("{lines}");
    let lines: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).expect("a line of JSON"))
        .collect();
    let told: Vec<_> = lines
        .iter()
        .filter(|line| line["command"] != "describe-enclaves")
        .map(|line| (&line["command"], &line["user"], &line["result"]))
        .collect();
    let expected = [
        ("run-enclave", OWNER, "ok"),
        ("terminate-enclave", MEMBER, "E39"),
        ("terminate-enclave", OWNER, "ok"),
        ("console", MEMBER, "E58"),
    ];
    assert_eq!(told.len(), expected.len(), "{told:?}");
    for ((command, user, result), expected) in told.iter().zip(expected) {
        assert_eq!(**command, expected.0);
        assert_eq!(**user, expected.1.number);
        assert_eq!(**result, expected.2);
    }
    assert_eq!(lines[0]["pcr0"], pcr0);
    assert_eq!(lines[0]["enclaves"][0]["id"], enclave.id.as_str());
    let mode = fs::metadata(log).expect("the log").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

/// The most memory that the daemon has had, in KiB.
fn daemon_memory(host: &Host) -> u64 {
    let lock = fs::read_to_string(host.run_directory().join("enclaved.lock")).expect("the lock");
    let status = fs::read_to_string(format!("/proc/{}/status", lock.trim())).expect("the daemon runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let figure = line.and_then(|line| line.trim().strip_suffix(" kB"));
    figure.and_then(|figure| figure.parse().ok()).expect("VmHWM")
}
