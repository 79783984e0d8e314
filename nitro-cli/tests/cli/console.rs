//! The console: raw bytes until the end, the time limit, or nobody reads.

use std::fs::{self, File};
use std::io::{Read, Write, pipe};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use api::{Logs, Reply, Request, Selector};
use rustix::fs::{Mode, OFlags};
use rustix::pty::OpenptFlags;
use rustix::termios::OptionalActions;

use crate::fake_daemon::{FakeDaemon, Scene, send};
use crate::program::{Finished, Program};

const GREETING: &str =
    "Connecting to the console for enclave 16...\nSuccessfully connected to the console.\n";

/// Attaches the client, then does `act`.
fn attached(act: impl FnOnce(UnixStream) + Send + 'static) -> FakeDaemon {
    FakeDaemon::start(vec![Scene::asked(|mut stream| {
        send(&mut stream, &Reply::ConsoleAttached { enclave_cid: 16 });
        act(stream);
    })])
}

/// A console that is silent until the client leaves.
fn silent(mut stream: UnixStream) {
    assert_eq!(stream.read(&mut [0]).unwrap(), 0, "a console is read-only");
}

/// A console that never stops until the client leaves.
fn flooding(mut stream: UnixStream) {
    while stream.write_all(&[b'x'; 8192]).is_ok() {}
}

fn console(more: &[&str]) -> Program {
    Program::new(["console", "--enclave-id", "i-1-enc2"].iter().chain(more))
}

#[test]
fn bytes_come_out_as_they_are_until_the_end() {
    // More than any buffer on the way, in pieces that split characters, with bytes a terminal would not show.
    let bytes: Vec<u8> = (1..=255).cycle().take(300_001).collect();
    let sent = bytes.clone();
    let daemon = attached(move |mut stream| {
        for piece in sent.chunks(1013) {
            stream.write_all(piece).unwrap();
        }
    });
    let (mut reader, writer) = pipe().unwrap();

    let child = console(&[]).daemon(&daemon).stdout(writer).spawn();
    let mut printed = Vec::new();
    reader.read_to_end(&mut printed).unwrap();
    let finished = Finished::wait_for(child);

    assert_eq!((finished.code, finished.stderr.as_str()), (0, ""));
    assert!(
        printed == [GREETING.as_bytes(), &bytes].concat(),
        "{} bytes printed",
        printed.len()
    );
    assert_eq!(
        daemon.finish_one().request,
        Request::Console(Selector::Id("i-1-enc2".into()))
    );
}

/// A terminal: the end that shows, and the end that programs write to.
fn terminal() -> (File, File) {
    let shown = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    rustix::pty::unlockpt(&shown).unwrap();
    let name = rustix::pty::ptsname(&shown, Vec::new()).unwrap();
    let written = rustix::fs::open(&name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
    let mut raw = rustix::termios::tcgetattr(&written).unwrap();
    raw.make_raw();
    rustix::termios::tcsetattr(&written, OptionalActions::Now, &raw).unwrap();
    (shown.into(), written.into())
}

/// Another program that shares a terminal may have made it non-blocking.
#[test]
fn a_terminal_that_takes_only_some_bytes_at_a_time_gets_all() {
    const LENGTH: usize = 300_000;
    let daemon = attached(|mut stream| stream.write_all(&vec![b'x'; LENGTH]).unwrap());
    let (mut shown, written) = terminal();
    rustix::io::ioctl_fionbio(&written, true).unwrap();

    let child = console(&[]).daemon(&daemon).stdout(written).spawn();
    let mut printed = Vec::new();
    // EIO says that nobody has the other end open any more.
    assert!(shown.read_to_end(&mut printed).is_err());
    let finished = Finished::wait_for(child);

    assert_eq!((finished.code, finished.stderr.as_str()), (0, ""));
    assert_eq!(printed.len(), GREETING.len() + LENGTH);
    daemon.finish();
}

#[test]
fn a_name_selects_the_enclave() {
    let daemon = attached(drop);

    let finished = Program::new(["console", "--enclave-name", "web"])
        .daemon(&daemon)
        .run();

    assert_eq!(
        (finished.code, finished.stdout.as_str()),
        (0, GREETING),
        "{finished:#?}"
    );
    assert_eq!(
        daemon.finish_one().request,
        Request::Console(Selector::Name("web".into()))
    );
}

#[test]
fn the_time_limit_ends_a_silent_and_a_flooding_console_alike() {
    for act in [silent, flooding] {
        let daemon = attached(act);
        let started = Instant::now();

        let finished = console(&["--disconnect-timeout", "2"]).daemon(&daemon).run();

        assert!(
            started.elapsed() >= Duration::from_secs(2),
            "left after {:?}",
            started.elapsed()
        );
        assert_eq!((finished.code, finished.stderr.as_str()), (0, ""));
        assert!(finished.stdout.starts_with(GREETING), "{}", finished.stdout.len());
        daemon.finish();
    }
}

#[test]
fn the_time_limit_holds_while_nobody_empties_standard_output() {
    let daemon = attached(flooding);
    let (reader, writer) = pipe().unwrap();

    let finished = console(&["--disconnect-timeout", "1"])
        .daemon(&daemon)
        .stdout(writer)
        .run();

    assert_eq!((finished.code, finished.stderr.as_str()), (0, ""));
    drop(reader);
    daemon.finish();
}

#[test]
fn a_limit_beyond_all_time_is_none() {
    let daemon = attached(drop);

    let finished = console(&["--disconnect-timeout", "18446744073709551615"])
        .daemon(&daemon)
        .run();

    assert_eq!(
        (finished.code, finished.stdout.as_str()),
        (0, GREETING),
        "{finished:#?}"
    );
    daemon.finish();
}

#[test]
fn a_console_ends_when_its_reader_goes_even_if_it_is_silent() {
    let daemon = attached(silent);
    let (mut reader, writer) = pipe().unwrap();

    let child = console(&[]).daemon(&daemon).stdout(writer).spawn();
    let mut greeting = vec![0; GREETING.len()];
    reader.read_exact(&mut greeting).unwrap();
    drop(reader);
    let finished = Finished::wait_for(child);

    assert_eq!((finished.code, finished.stderr.as_str()), (0, ""));
    daemon.finish();
}

#[test]
fn a_broken_connection_is_e45_after_the_bytes_that_came() {
    // A peer that closes with something unread resets the connection: here, most of the request.
    let daemon = FakeDaemon::start(vec![Scene::connected(|mut stream| {
        stream.read_exact(&mut [0]).unwrap();
        send(&mut stream, &Reply::ConsoleAttached { enclave_cid: 16 });
        stream.write_all(b"last words\n").unwrap();
    })]);

    let finished = console(&[]).daemon(&daemon).run();

    assert_eq!(
        (finished.code, finished.stdout),
        (45, format!("{GREETING}last words\n"))
    );
    assert!(
        finished
            .stderr
            .starts_with("[ E45 ] Enclave console read error. "),
        "{}",
        finished.stderr
    );
    daemon.finish();
}

#[test]
fn output_that_cannot_be_written_is_e46() {
    let daemon = attached(drop);
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();

    let finished = console(&[]).daemon(&daemon).stdout(full).run();

    finished.assert_failed(46, &["E46"]);
    daemon.finish();
}

#[test]
fn a_daemon_that_does_not_answer_is_not_waited_for_beyond_the_time_limit() {
    let daemon = FakeDaemon::start(vec![Scene::asked(silent)]);

    let finished = console(&["--disconnect-timeout", "1"]).daemon(&daemon).run();

    finished.assert_failed(39, &["E39"]);
    finished.assert_says(&["has not answered in time"]);
    daemon.finish();
}

#[test]
fn a_log_comes_out_as_it_is_and_nothing_else() {
    for (options, follow) in [(&[][..], false), (&["--follow"], true)] {
        let daemon = attached(|mut stream| stream.write_all(b"as it is\x00\x1b[0m").unwrap());

        let arguments = ["logs", "--enclave-name", "hello"];
        let finished = Program::new(arguments.iter().chain(options))
            .daemon(&daemon)
            .run();

        assert_eq!((finished.code, finished.stderr.as_str()), (0, ""));
        assert_eq!(finished.stdout, "as it is\x00\x1b[0m");
        let enclave = Selector::Name("hello".into());
        assert_eq!(
            daemon.finish_one().request,
            Request::Logs(Logs { enclave, follow })
        );
    }
}
