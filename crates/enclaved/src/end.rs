//! Why an enclave ended, and what is said of it.

use std::time::Duration;

use api::vmm::{Event, ExitReason};
use api::{ApplicationEnd, ErrorCode, Failure};

use crate::console::Console;
use crate::heartbeat::HeartbeatError;
use crate::launcher::ProcessEnd;
use crate::printable::printable;
use crate::registry::EndRequest;

/// How much of the console a failure to boot quotes, in bytes. A kernel's panic message, its register dump included, fits.
const QUOTED_CONSOLE: usize = 4096;

/// How long the console of an ended VMM may take to drain before it is quoted.
const CONSOLE_GRACE: Duration = Duration::from_secs(1);

/// Why an enclave ended.
#[derive(Debug)]
pub(crate) enum End {
    /// The guest ended.
    Exited(ExitReason),
    /// The VMM could not go on.
    Failed(Failure),
    /// The VMM is gone without a word.
    Vanished,
    /// The VMM was killed because the machine, or its control group, has no memory left for it.
    OutOfMemory,
    /// The VMM did not keep to the protocol; this is what it sent.
    Nonsense(String),
    /// Somebody wanted it to end.
    Requested(EndRequest),
    /// It did not boot within this time.
    Late(Duration),
    /// Its heartbeat was none.
    Heartbeat(HeartbeatError),
    /// The client that started it left before it had booted.
    Abandoned,
}

impl End {
    /// What an event means that does not lead on.
    pub(crate) fn from_event(event: Event) -> Self {
        match event {
            Event::Exited(reason) => Self::Exited(reason),
            Event::Failed(failure) => Self::Failed(Failure {
                message: printable(failure.message.as_bytes()),
                ..failure
            }),
            Event::Signed(_) => Self::Nonsense("a signature out of turn".to_owned()),
            Event::Measured(_) => Self::Nonsense("measurements out of turn".to_owned()),
            Event::Started => Self::Nonsense("a start out of turn".to_owned()),
        }
    }

    /// The reason as the end of a sentence.
    pub(crate) fn in_words(&self, process_end: &ProcessEnd, application: Option<ApplicationEnd>) -> String {
        match (self, application) {
            (Self::Exited(ExitReason::Reset), Some(application)) => application.to_string(),
            (Self::Exited(reason), _) => printable(reason.to_string().as_bytes()),
            (Self::Failed(failure), _) => format!("{}: {failure}", failure.code),
            (Self::Vanished, _) => {
                format!("its VMM process ended by itself or was killed ({process_end})")
            }
            (Self::OutOfMemory, _) => {
                "the kernel killed its VMM process for want of memory (OOM killer)".to_owned()
            }
            (Self::Nonsense(what), _) => format!("its VMM broke the protocol: it sent {what}"),
            (Self::Requested(request), _) => request.reason().to_owned(),
            (Self::Late(limit), _) => format!("no heartbeat within {} s", limit.as_secs()),
            (Self::Heartbeat(HeartbeatError::Io(error)), _) => {
                format!("the heartbeat connection failed: {error}")
            }
            (Self::Heartbeat(error), _) => error.to_string(),
            (Self::Abandoned, _) => "the client that started it left before it had booted".to_owned(),
        }
    }

    /// What the client is told of an enclave that ended before it had booted, for this `reason`: the VMM's own failure
    /// where it gave one, else E36, with the end of the console if the guest may be the cause.
    pub(crate) async fn boot_failure(self, reason: &str, console: Option<&Console>) -> Failure {
        let hint = match (&self, console) {
            (Self::Nonsense(_) | Self::Requested(_) | Self::Abandoned, _) => String::new(),
            (_, None) => " Start it with --debug-mode to see its console.".to_owned(),
            (_, Some(console)) => quote(console).await,
        };
        match self {
            Self::Failed(failure) => failure,
            _ => Failure::new(
                ErrorCode::EnclaveBootFailure,
                format!("The enclave did not boot: {reason}.{hint}"),
            ),
        }
    }
}

/// The end of the console of an enclave whose VMM has ended.
pub(crate) async fn last_words(console: &Console) -> String {
    // A process that somehow keeps the pipe open does not keep anybody waiting.
    let _ = tokio::time::timeout(CONSOLE_GRACE, console.ended()).await;
    printable(&console.tail(QUOTED_CONSOLE))
}

async fn quote(console: &Console) -> String {
    match last_words(console).await.trim() {
        "" => " Its console stayed empty.".to_owned(),
        text => format!(" The last of its console:\n{text}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vmm_cannot_bring_control_characters_to_a_terminal_or_log() {
        let failure = Failure::new(ErrorCode::IoctlFailure, "\u{1b}[2Jgone");
        let process_end = ProcessEnd("exit status: 1".into());
        for event in [
            Event::Failed(failure),
            Event::Exited(ExitReason::Crashed("\u{1b}[2Jgone".into())),
        ] {
            let words = End::from_event(event).in_words(&process_end, None);
            assert!(words.ends_with("\u{fffd}[2Jgone"), "{words:?}");
        }
    }

    #[tokio::test]
    async fn only_an_end_of_the_guests_making_points_to_its_console() {
        let end = End::Requested(EndRequest::Shutdown);
        let failure = end.boot_failure("the daemon is shutting down", None).await;
        assert_eq!(
            failure.message,
            "The enclave did not boot: the daemon is shutting down."
        );

        let failure = End::Late(Duration::from_mins(3))
            .boot_failure("no heartbeat", None)
            .await;
        assert!(failure.message.contains("--debug-mode"), "{}", failure.message);
    }
}
