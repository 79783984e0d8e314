//! The audit log: who has asked the daemon for what, and what came of it.
//!
//! ```text
//! connection ── Trail: what is known of one request ──► Audit ── one line of JSON ──► thread ──► /var/log/enclaved/audit.jsonl
//!                                                         │                                      audit.jsonl.1, the one before
//!                                                         └─ Allowance: not too many lines of one user
//! ```
//!
//! Each request leaves one line: when it is answered, or, if the answer goes on (a console, events), when it begins. What a line
//! holds is in [`Entry`]. Every text in it is JSON, so no name can pass for a line of its own.
//!
//! A client cannot fill the disk, and hardly push out what others have done: the log is two files of bounded length ([`mod@file`]), and
//! a user that asks more often than [`allowance`] has room for is counted instead; a line says how many. Enclaves that were
//! started or ended are always written down.
//!
//! No request fails, or waits, because the log cannot be written: a thread of its own writes, and if that fails, the daemon's own
//! log says so once. What it has not written yet is lost if the daemon is killed.

mod allowance;
mod file;

use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use api::{Failure, Request, Selector};
use serde::Serialize;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};

use crate::peer::Peer;
use allowance::{Allowance, LeftOut};
use file::AuditFile;

/// Lines that wait to be written. More are counted instead.
const WAITING: usize = 1024;

/// The most characters of what a client has put into a request.
const LONGEST_NAME: usize = 256;

/// How long the daemon waits, at its end, for the last lines to be written.
const FAREWELL: Duration = Duration::from_secs(2);

/// One line of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Entry {
    /// RFC 3339, in UTC.
    time: String,
    user: u32,
    group: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    process: Option<i32>,
    /// The request; none if what came was no request.
    #[serde(skip_serializing_if = "Option::is_none")]
    command: Option<&'static str>,
    /// Which enclaves the client has named.
    #[serde(skip_serializing_if = "Option::is_none")]
    selected: Option<Selector>,
    /// Those that it was about.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    enclaves: Vec<Subject>,
    /// Of an enclave that was started: what was measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pcr0: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    debug_mode: Option<bool>,
    /// `ok`, or AWS's error number.
    result: String,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// An enclave that a request was about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Subject {
    id: String,
    name: String,
}

/// In place of lines that are not there.
#[derive(Debug, Serialize)]
struct Omission {
    time: String,
    /// Whose they are; nobody's in particular if they came faster than they could be written.
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<u32>,
    left_out: u64,
}

/// The log, or none.
#[derive(Debug)]
pub(crate) struct Audit(Option<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    allowance: Allowance,
    /// Lines that found no room.
    lost: u64,
    /// To the thread that writes; none once the daemon ends.
    lines: Option<SyncSender<String>>,
    written: Receiver<()>,
}

impl Audit {
    /// Writes to `path` from here on; to nothing without one.
    pub(crate) fn start(path: Option<PathBuf>) -> Self {
        Self(path.map(|path| {
            let (lines, waiting) = mpsc::sync_channel::<String>(WAITING);
            let (done, written) = mpsc::channel();
            let mut file = AuditFile::new(path);
            file.open();
            let write = move || {
                for line in waiting {
                    file.write(&line);
                }
                // Nobody waits if the daemon has gone on.
                let _ = done.send(());
            };
            let started = thread::Builder::new().name("audit".into()).spawn(write);
            if let Err(error) = &started {
                tracing::error!(%error, "there is no audit log: its thread cannot be started");
            }
            Mutex::new(Inner {
                allowance: Allowance::default(),
                lost: 0,
                lines: started.is_ok().then_some(lines),
                written,
            })
        }))
    }

    /// What is to be written of a request that `client` has begun.
    pub(crate) fn trail(self: &Arc<Self>, client: Peer) -> Trail {
        Trail {
            audit: Arc::clone(self),
            entry: Some(Entry::of(client)),
        }
    }

    /// Writes what is left, and no more from here on.
    pub(crate) fn close(&self) {
        let Some(mut inner) = self.lock() else {
            return;
        };
        for left_out in inner.allowance.close() {
            inner.tell_omission(Some(left_out.user), left_out.lines);
        }
        inner.lines = None;
        let _ = inner.written.recv_timeout(FAREWELL);
    }

    fn add(&self, entry: &Entry, is_change: bool) {
        let Some(mut inner) = self.lock() else {
            return;
        };
        let now = Instant::now();
        for LeftOut { user, lines } in inner.allowance.over(now) {
            inner.tell_omission(Some(user), lines);
        }
        if inner.allowance.spend(entry.user, now) || is_change {
            inner.send(entry);
        } else {
            inner.allowance.count(entry.user);
        }
    }

    fn lock(&self) -> Option<MutexGuard<'_, Inner>> {
        let inner = self.0.as_ref()?;
        Some(inner.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Inner {
    fn tell_omission(&mut self, user: Option<u32>, left_out: u64) {
        self.send(&Omission {
            time: now(),
            user,
            left_out,
        });
    }

    fn send(&mut self, what: &impl Serialize) {
        let Some(lines) = &self.lines else {
            return;
        };
        if self.lost > 0 && lines.try_send(lines_left_out(self.lost)).is_ok() {
            self.lost = 0;
        }
        if let Err(TrySendError::Full(_)) = lines.try_send(line(what)) {
            self.lost += 1;
        }
    }
}

/// What is known of a request until it is written down, once.
#[derive(Debug)]
pub(crate) struct Trail {
    audit: Arc<Audit>,
    /// None once it is written.
    entry: Option<Entry>,
}

impl Trail {
    /// What the client asks for.
    pub(crate) fn asked(&mut self, command: &'static str, request: &Request) {
        if let Some(entry) = &mut self.entry {
            entry.command = Some(command);
            entry.selected = selected(request);
            if let Request::RunEnclave(request) = request {
                entry.debug_mode = Some(request.debug_mode);
            }
        }
    }

    /// It is about this enclave, too.
    pub(crate) fn about(&mut self, id: &(impl ToString + ?Sized), name: &str) {
        if let Some(entry) = &mut self.entry {
            entry.enclaves.push(Subject {
                id: id.to_string(),
                name: shortened(name),
            });
        }
    }

    /// It has started an enclave with this PCR0.
    pub(crate) fn measured(&mut self, pcr0: String) {
        if let Some(entry) = &mut self.entry {
            entry.pcr0 = Some(pcr0);
        }
    }

    /// The client has got what it asked for, or begins to get it.
    pub(crate) fn granted(&mut self) {
        self.write(None);
    }

    /// The client has not got what it asked for, unless that is written down as begun.
    pub(crate) fn failed(&mut self, failure: &Failure) {
        self.write(Some(failure));
    }

    fn write(&mut self, failure: Option<&Failure>) {
        let Some(mut entry) = self.entry.take() else {
            return;
        };
        if let Some(failure) = failure {
            entry.result = failure.code.to_string();
            // What follows may be the console of an enclave.
            entry.reason = failure.message.lines().next().map(shortened);
        }
        let changes = matches!(entry.command, Some("run-enclave" | "terminate-enclave"));
        let is_change = changes && !entry.enclaves.is_empty();
        self.audit.add(&entry, is_change);
    }
}

impl Entry {
    fn of(client: Peer) -> Self {
        Self {
            time: now(),
            user: client.user,
            group: client.group,
            process: client.process,
            command: None,
            selected: None,
            enclaves: Vec::new(),
            pcr0: None,
            debug_mode: None,
            result: "ok".into(),
            reason: None,
        }
    }
}

fn selected(request: &Request) -> Option<Selector> {
    let selector = match request {
        Request::RunEnclave(run) => &Selector::Name(run.enclave_name.clone()),
        Request::TerminateEnclave(selector) | Request::Console(selector) | Request::AwaitEnd(selector) => {
            selector
        }
        Request::Logs(logs) => &logs.enclave,
        Request::DescribeEnclaves
        | Request::DescribeImages
        | Request::EndedEnclaves
        | Request::DescribePools
        | Request::Events
        | Request::AttestationRoot => return None,
    };
    Some(match selector {
        Selector::Id(id) => Selector::Id(shortened(id)),
        Selector::Name(name) => Selector::Name(shortened(name)),
        Selector::All => Selector::All,
    })
}

/// As much of a client's text as is kept. JSON escapes the control characters of ASCII; others, which a terminal may obey, are
/// replaced.
fn shortened(text: &str) -> String {
    let shown = |character: char| match character {
        '\u{7f}'..='\u{9f}' => char::REPLACEMENT_CHARACTER,
        other => other,
    };
    text.chars().map(shown).take(LONGEST_NAME).collect()
}

fn now() -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = SystemTime.format_time(&mut Writer::new(&mut text));
    text
}

/// A line in place of those that could not be written.
fn lines_left_out(left_out: u64) -> String {
    line(&Omission {
        time: now(),
        user: None,
        left_out,
    })
}

/// As JSON, with a line feed.
fn line(what: &impl Serialize) -> String {
    // Nothing in it fails to become JSON.
    let mut line = serde_json::to_string(what).unwrap_or_default();
    line.push('\n');
    line
}

#[cfg(test)]
mod tests;
