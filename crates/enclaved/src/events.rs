//! What becomes of enclaves, told to every client that listens.
//!
//! The registry tells each change under its lock, so that clients hear of changes in the order in which they happened. Telling
//! never waits: a client that falls behind by more than `KEPT` events loses the oldest, and is told how many.

use api::{EnclaveEvent, EndedEnclave, EventKind};
use tokio::sync::broadcast;

use crate::note::Facts;
use crate::registry::milliseconds_now;

/// Events that are kept for clients that have not taken them yet.
const KEPT: usize = 256;

/// As much of a reason as an event repeats, in characters. The list of ended enclaves has all of it.
const LONGEST_REASON: usize = 1000;

/// What one client has still to hear.
pub type Changes = broadcast::Receiver<EnclaveEvent>;

/// Where changes are told.
#[derive(Debug)]
pub(crate) struct Events {
    /// None once the daemon stops.
    sender: Option<broadcast::Sender<EnclaveEvent>>,
}

impl Default for Events {
    fn default() -> Self {
        Self {
            sender: Some(broadcast::Sender::new(KEPT)),
        }
    }
}

impl Events {
    /// All that is told from here on.
    pub(crate) fn changes(&self) -> Option<Changes> {
        self.sender.as_ref().map(broadcast::Sender::subscribe)
    }

    /// Tells a change of an enclave.
    pub(crate) fn tell(&self, kind: EventKind, enclave: &Facts) {
        self.send(event(kind, enclave));
    }

    /// Tells that an enclave is gone, and why, if it came as far as to have a reason.
    pub(crate) fn tell_end(&self, enclave: &Facts, ended: Option<&EndedEnclave>) {
        let reason = ended.map_or("it could not be started", |ended| ended.reason.as_str());
        self.send(EnclaveEvent {
            reason: Some(reason.chars().take(LONGEST_REASON).collect()),
            exit_code: ended.and_then(|ended| ended.exit_code),
            ..event(EventKind::Ended, enclave)
        });
    }

    /// Closes what clients listen to.
    pub(crate) fn stop(&mut self) {
        self.sender = None;
    }

    fn send(&self, event: EnclaveEvent) {
        if let Some(sender) = &self.sender {
            // Nobody may be listening.
            let _ = sender.send(event);
        }
    }
}

/// Of now.
pub(crate) fn event(kind: EventKind, enclave: &Facts) -> EnclaveEvent {
    EnclaveEvent {
        time: milliseconds_now(),
        kind,
        enclave_name: enclave.name.clone(),
        enclave_id: enclave.id.to_string(),
        enclave_cid: enclave.cid,
        reason: None,
        exit_code: None,
    }
}
