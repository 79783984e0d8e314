//! A daemon that follows a script: one connection after the other, and it keeps what it was asked.

use std::fs::File;
use std::io::{IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::thread::{self, JoinHandle};

use api::{Reply, Request, frame};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use tempfile::TempDir;

/// Listens on a socket of its own until its script is done.
pub(crate) struct FakeDaemon {
    directory: TempDir,
    thread: JoinHandle<Vec<Asked>>,
}

/// A request as it arrived.
pub(crate) struct Asked {
    pub(crate) request: Request,
    pub(crate) descriptor: Option<File>,
}

/// What to do with one connection.
pub(crate) enum Scene {
    /// Read the request, then act.
    Asked(Box<dyn FnOnce(UnixStream) + Send>),
    /// Act without reading anything.
    Connected(Box<dyn FnOnce(UnixStream) + Send>),
}

impl Scene {
    /// Reads the request and sends `replies`.
    pub(crate) fn replies(replies: Vec<Reply>) -> Self {
        Self::asked(move |mut stream| {
            for reply in replies {
                send(&mut stream, &reply);
            }
        })
    }

    /// Reads the request and sends these bytes, whatever they are.
    pub(crate) fn bytes(bytes: Vec<u8>) -> Self {
        Self::asked(move |mut stream| {
            // The client may leave as soon as it has seen that the bytes make no sense.
            let _ = stream.write_all(&bytes);
        })
    }

    pub(crate) fn asked(act: impl FnOnce(UnixStream) + Send + 'static) -> Self {
        Self::Asked(Box::new(act))
    }

    pub(crate) fn connected(act: impl FnOnce(UnixStream) + Send + 'static) -> Self {
        Self::Connected(Box::new(act))
    }
}

impl FakeDaemon {
    pub(crate) fn start(scenes: Vec<Scene>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("enclaved.sock")).unwrap();
        let thread = thread::spawn(move || {
            let play = |scene| {
                let (stream, _) = listener.accept().unwrap();
                match scene {
                    Scene::Connected(act) => {
                        act(stream);
                        None
                    }
                    Scene::Asked(act) => {
                        let asked = receive(&stream).expect("a client that connects also asks");
                        act(stream);
                        Some(asked)
                    }
                }
            };
            scenes.into_iter().filter_map(play).collect()
        });
        Self { directory, thread }
    }

    /// A daemon that is asked once and sends `replies`.
    pub(crate) fn replying(replies: Vec<Reply>) -> Self {
        Self::start(vec![Scene::replies(replies)])
    }

    /// A daemon that gives each client what `answer` says, and closes the connection, until it is finished.
    pub(crate) fn serving(answer: fn(&Request) -> Vec<Reply>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("enclaved.sock")).unwrap();
        let thread = thread::spawn(move || {
            let mut all = Vec::new();
            loop {
                let (mut stream, _) = listener.accept().unwrap();
                let Some(asked) = receive(&stream) else {
                    return all;
                };
                for reply in answer(&asked.request) {
                    send(&mut stream, &reply);
                }
                all.push(asked);
            }
        });
        Self { directory, thread }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("enclaved.sock")
    }

    /// What was asked, in order. Fails if the script was not played to its end.
    pub(crate) fn finish(self) -> Vec<Asked> {
        // A connection without a request lets a daemon that still waits fail instead of waiting for ever.
        drop(UnixStream::connect(self.socket()));
        self.thread
            .join()
            .expect("the daemon was asked as often as its script says")
    }

    /// The one thing that was asked.
    pub(crate) fn finish_one(self) -> Asked {
        self.finish().pop().expect("one request")
    }
}

pub(crate) fn send(stream: &mut UnixStream, reply: &Reply) {
    stream.write_all(&frame::encode(reply).unwrap()).unwrap();
}

/// Reads one request as the daemon does: the descriptor comes with the first bytes. None of a client that says nothing.
fn receive(mut stream: &UnixStream) -> Option<Asked> {
    let mut header = [0; frame::HEADER_LEN];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let message = recvmsg(
        stream,
        &mut [IoSliceMut::new(&mut header)],
        &mut ancillary,
        RecvFlags::CMSG_CLOEXEC,
    )
    .unwrap();
    if message.bytes == 0 {
        return None;
    }
    assert_eq!(message.bytes, frame::HEADER_LEN, "a request comes whole");
    let mut descriptors: Vec<File> = ancillary
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors.map(File::from)),
            _ => None,
        })
        .flatten()
        .collect();
    assert!(descriptors.len() <= 1, "one descriptor at most");

    let mut body = vec![0; frame::body_len(header, frame::MAX_REQUEST).unwrap()];
    stream.read_exact(&mut body).unwrap();
    Some(Asked {
        request: frame::decode(&body).unwrap(),
        descriptor: descriptors.pop(),
    })
}
