//! What the daemon and a service manager, usually systemd, say to each other. Without one, all of this does nothing.
//!
//! ```text
//! service manager ── LISTEN_FDS, LISTEN_PID ──► passed_listener   the client socket, opened and owned by the manager
//!                 ◄── READY=1 ─────────────────  ready             clients can connect
//!                 ── WATCHDOG_USEC ───────────►  Pulse             how often the daemon must prove that it lives
//!                 ◄── WATCHDOG=1, STATUS= ─────  Pulse::beat       proof: the accept loop ran, and then a worker
//!                 ◄── STOPPING=1 ──────────────  stopping
//! ```
//!
//! A socket that was passed outlives the daemon: its name is the manager's to remove, and clients that connect while
//! there is no daemon wait for the next one.
//!
//! The variables are for this process alone. The only processes that the daemon starts are VMMs, whose environment is
//! empty (`vmm_process`).

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use listenfd::ListenFd;
use rustix::net::sockopt;
use sd_notify::NotifyState;
use tokio::time::{Interval, MissedTickBehavior};

/// Why the sockets that a service manager passed cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PassedSocketError {
    /// The daemon has one socket, so whoever passes more has made a mistake.
    #[error("the service manager passed {0} sockets; the daemon takes one")]
    TooMany(usize),
    /// It is no Unix stream socket.
    #[error("what the service manager passed cannot be the client socket")]
    WrongKind(#[source] io::Error),
    /// It is one, but nobody can connect to it.
    #[error("the socket that the service manager passed does not listen (ListenStream= makes one that does)")]
    NotListening,
}

/// The client socket, if a service manager has opened it for this process. No child inherits it. Takes `LISTEN_FDS` and
/// `LISTEN_PID` out of the environment, so it must be called before there are threads.
///
/// # Errors
/// [`PassedSocketError`].
pub fn passed_listener() -> Result<Option<UnixListener>, PassedSocketError> {
    let mut passed = ListenFd::from_env();
    if passed.len() > 1 {
        return Err(PassedSocketError::TooMany(passed.len()));
    }
    let listener = passed
        .take_unix_listener(0)
        .map_err(PassedSocketError::WrongKind)?;
    listener.map(checked).transpose()
}

fn checked(listener: UnixListener) -> Result<UnixListener, PassedSocketError> {
    match sockopt::socket_acceptconn(listener.as_fd()) {
        Ok(true) => Ok(listener),
        Ok(false) => Err(PassedSocketError::NotListening),
        Err(error) => Err(PassedSocketError::WrongKind(error.into())),
    }
}

/// Clients can connect.
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// The daemon is about to end.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// When the accept loop has to prove that it lives: twice in the time that the watchdog allows.
#[derive(Debug)]
pub(crate) struct Pulse(Option<Interval>);

impl Pulse {
    /// As this process was told. Must be called on a Tokio runtime.
    pub(crate) fn wanted() -> Self {
        Self::every(sd_notify::watchdog_enabled().map(|limit| limit / 2))
    }

    fn every(period: Option<Duration>) -> Self {
        let interval = period.filter(|period| !period.is_zero()).map(|period| {
            let mut interval = tokio::time::interval(period);
            // A machine that stood still proves nothing by catching up.
            interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
            interval
        });
        Self(interval)
    }

    /// Returns when it is time; never if no watchdog waits. Dropping it loses nothing.
    pub(crate) async fn due(&mut self) {
        match &mut self.0 {
            Some(interval) => {
                interval.tick().await;
            }
            None => std::future::pending().await,
        }
    }

    /// Called by the accept loop. A worker says the rest, since a daemon whose workers hang is dead too; so is one whose
    /// `enclaves`, how many there are, can no longer be counted.
    pub(crate) fn beat(enclaves: impl FnOnce() -> usize + Send + 'static) {
        tokio::spawn(async move {
            let status = status(enclaves());
            // The manager may be slow to take it, and workers are few. Nobody waits for its end.
            drop(tokio::task::spawn_blocking(move || {
                tell(&[NotifyState::Watchdog, NotifyState::Status(&status)]);
            }));
        });
    }
}

/// One line for `systemctl status`.
fn status(enclaves: usize) -> String {
    match enclaves {
        0 => "no enclave runs".into(),
        1 => "1 enclave runs".into(),
        more => format!("{more} enclaves run"),
    }
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager cannot be told: {states:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_pulse_is_due_in_each_period_and_never_without_a_watchdog() {
        let period = Duration::from_secs(15);
        let mut pulse = Pulse::every(Some(period));
        pulse.due().await;
        let start = tokio::time::Instant::now();
        pulse.due().await;
        pulse.due().await;
        assert_eq!(start.elapsed(), period * 2);

        for none in [None, Some(Duration::ZERO)] {
            let mut pulse = Pulse::every(none);
            let waited = tokio::time::timeout(Duration::from_hours(1), pulse.due()).await;
            assert!(waited.is_err());
        }
    }

    #[test]
    fn a_socket_that_does_not_listen_is_refused() {
        let socket = rustix::net::socket(
            rustix::net::AddressFamily::UNIX,
            rustix::net::SocketType::STREAM,
            None,
        );
        let error = checked(socket.unwrap().into()).unwrap_err();
        assert!(matches!(error, PassedSocketError::NotListening), "{error}");
    }

    #[test]
    fn the_status_counts_in_words() {
        assert_eq!(
            [0, 1, 2].map(status),
            ["no enclave runs", "1 enclave runs", "2 enclaves run"]
        );
    }
}
