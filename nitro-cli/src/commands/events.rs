//! `events`: what becomes of enclaves, one JSON object a line, until nobody reads or the daemon leaves.

use std::time::SystemTime;

use api::{EnclaveEvent, ErrorCode, EventKind, Failure, Reply, Request};
use rustix::event::{PollFd, PollFlags};
use serde::Serialize;

use crate::daemon::{Daemon, unexpected_answer};
use crate::environment::Environment;
use crate::error::CommandError;
use crate::streaming::wait;
use crate::{output, time};

pub(super) fn execute(environment: &Environment) -> Result<(), CommandError> {
    let mut daemon = Daemon::connect(&environment.daemon_socket)?;
    daemon.tell(&Request::Events)?;
    let stdout = output::raw_stdout()?;
    loop {
        let mut both = [
            PollFd::new(&stdout, PollFlags::empty()),
            PollFd::new(daemon.stream(), PollFlags::IN),
        ];
        // So that it ends as soon as nobody reads, and not with the next event.
        wait(&mut both, None)?;
        match daemon.next_reply()? {
            Reply::Event(event) => print(&Shown::from(event))?,
            Reply::EventsLost(count) => print(&Lost {
                time: time::milliseconds(SystemTime::now()),
                event: "LOST",
                count,
            })?,
            _ => return Err(unexpected_answer().into()),
        }
    }
}

/// An event as it is printed: with a time for people.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Shown {
    time: String,
    event: EventKind,
    enclave_name: String,
    #[serde(rename = "EnclaveID")]
    enclave_id: String,
    #[serde(rename = "EnclaveCID")]
    enclave_cid: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<u16>,
}

/// So many events were missed.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Lost {
    time: String,
    event: &'static str,
    count: u64,
}

impl From<EnclaveEvent> for Shown {
    fn from(event: EnclaveEvent) -> Self {
        Self {
            time: time::milliseconds(time::of_milliseconds(event.time)),
            event: event.kind,
            enclave_name: event.enclave_name,
            enclave_id: event.enclave_id,
            enclave_cid: event.enclave_cid,
            reason: event.reason,
            exit_code: event.exit_code,
        }
    }
}

fn print(line: &impl Serialize) -> Result<(), CommandError> {
    let mut text = serde_json::to_string(line)
        .map_err(|error| Failure::caused_by(ErrorCode::Serde, "Cannot write an event as JSON", &error))?;
    text.push('\n');
    output::print_text(&text)
}
