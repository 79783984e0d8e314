use super::*;
use crate::run_directory::RunDirectory;
use std::fs::File;
use std::io::Write;
use tokio::io::DuplexStream;

/// Writes like a VMM, but waits for room, so that tests lose nothing at the pipe.
async fn write_all(pipe: &mut File, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        match pipe.write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    }
}

/// The directory of one enclave in a run directory of its own.
fn directory() -> (tempfile::TempDir, EnclaveDirectory) {
    let parent = tempfile::tempdir().unwrap();
    let run_directory = RunDirectory::open(parent.path(), None).unwrap();
    let directory = run_directory
        .create_enclave(&"i-0-enc1".parse().unwrap(), None)
        .unwrap();
    (parent, directory)
}

/// A console whose directory is gone already: it has all of it open.
fn open() -> (Console, File) {
    let (_parent, directory) = directory();
    let (console, write_end) = Console::create(&directory).unwrap();
    (console, File::from(write_end))
}

/// Two daemons, one after the other, as two runtimes.
#[test]
fn the_next_daemon_has_the_history_and_what_was_printed_while_there_was_none() {
    let (_parent, directory) = directory();
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
    };
    let first = runtime();
    let mut guest = first.block_on(async {
        let (console, write_end) = Console::create(&directory).unwrap();
        let mut guest = File::from(write_end);
        write_all(&mut guest, b"before, ").await;
        arrived(&console, 8).await;
        guest
    });
    drop(first);

    guest.write_all(b"between, ").unwrap();

    runtime().block_on(async {
        let console = Console::reopen(&directory).unwrap();
        write_all(&mut guest, b"after").await;
        drop(guest);
        console.ended().await;
        assert_eq!(everything_shown(&console).await, b"before, between, after");
    });
}

async fn arrived(console: &Console, total: usize) {
    let total = u64::try_from(total).unwrap();
    let mut state = console.0.state.subscribe();
    state.wait_for(|state| state.written >= total).await.unwrap();
}

async fn everything_shown(console: &Console) -> Vec<u8> {
    let mut shown = Vec::new();
    console.show(&mut shown).await.unwrap();
    shown
}

#[tokio::test]
async fn a_late_watcher_gets_history_then_live_bytes_then_the_end() {
    let (console, mut guest) = open();
    write_all(&mut guest, b"Unpacking initramfs\n").await;
    arrived(&console, 20).await;

    let (mut client, mut connection): (DuplexStream, DuplexStream) = tokio::io::duplex(1 << 16);
    let shown = {
        let console = console.clone();
        tokio::spawn(async move { console.show(&mut connection).await })
    };
    let mut history = [0; 20];
    client.read_exact(&mut history).await.unwrap();
    write_all(&mut guest, b"Hello").await;
    drop(guest);
    let mut rest = Vec::new();
    shown.await.unwrap().unwrap();
    client.read_to_end(&mut rest).await.unwrap();

    assert_eq!(&history, b"Unpacking initramfs\n");
    assert_eq!(rest, b"Hello");
}

#[tokio::test]
async fn a_watcher_of_an_ended_console_still_gets_its_history() {
    let (console, mut guest) = open();
    write_all(&mut guest, b"last words").await;
    drop(guest);
    console.ended().await;

    assert_eq!(everything_shown(&console).await, b"last words");
    assert_eq!(console.tail(5), b"words");
}

#[tokio::test]
async fn output_beyond_the_history_is_replaced_by_a_note_of_its_length() {
    let (console, mut guest) = open();
    write_all(&mut guest, &vec![b'a'; 1000]).await;
    write_all(&mut guest, &vec![b'b'; HISTORY]).await;
    drop(guest);
    console.ended().await;

    let shown = everything_shown(&console).await;

    let note = b"\n[... 1000 bytes of console output lost ...]\n";
    assert!(shown.starts_with(note));
    assert!(shown[note.len()..].iter().all(|byte| *byte == b'b'));
    assert_eq!(shown.len(), note.len() + HISTORY);
}

#[tokio::test]
async fn a_watcher_that_stands_still_holds_up_neither_the_guest_nor_another_watcher() {
    let (console, mut guest) = open();
    let (_never_read, mut connection) = tokio::io::duplex(16);
    let stuck = {
        let console = console.clone();
        tokio::spawn(async move { console.show(&mut connection).await })
    };

    let line = vec![b'x'; CHUNK];
    for _ in 0..64 {
        write_all(&mut guest, &line).await;
    }
    drop(guest);
    console.ended().await;

    assert_eq!(console.tail(usize::MAX).len(), HISTORY);
    assert!(everything_shown(&console).await.len() > HISTORY);
    assert!(!stuck.is_finished());
    stuck.abort();
}

#[tokio::test(start_paused = true)]
async fn a_watcher_that_takes_nothing_after_the_end_is_given_up() {
    let (console, mut guest) = open();
    write_all(&mut guest, &[b'x'; 100]).await;
    drop(guest);
    console.ended().await;
    let (_never_read, mut connection) = tokio::io::duplex(16);

    let error = console.show(&mut connection).await.unwrap_err();

    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
}

#[tokio::test]
async fn a_watcher_that_hangs_up_is_noticed_when_written_to() {
    let (console, mut guest) = open();
    write_all(&mut guest, b"anything").await;
    let (client, mut connection) = tokio::io::duplex(1 << 16);
    drop(client);

    assert!(console.show(&mut connection).await.is_err());
}
