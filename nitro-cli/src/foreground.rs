//! `run-enclave --wait`: this process stands for the enclave, as service managers and CI want it.
//!
//! ```text
//!             starting                      running                          ended
//!   catch ──► the daemon boots the enclave ──► waiting for its end ──► exit with its application's code
//!               │ signal                         │ signal
//!               ▼                                ▼
//!             the connection is closed:        terminate-enclave; its end comes as any other
//!             the daemon ends the enclave
//! ```
//!
//! A thread takes SIGINT, SIGTERM and SIGHUP, unless they are ignored. Of those that follow the first one only SIGINT counts: it ends
//! the process at once. Enclaves outlive their daemon, so while that is restarted or upgraded this waits for the next one.

use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use api::{EndedEnclave, ErrorCode, Failure, Reply, Request, Selector};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

use crate::daemon::{AskError, Daemon, unexpected_answer};
use crate::error::CommandError;
use crate::output;
use crate::signals::is_ignored;

/// How long there may be no daemon.
const PATIENCE: Duration = Duration::from_mins(1);

/// A daemon that has been silent for so long was there, and waited for the same.
const WELL: Duration = Duration::from_secs(1);

/// Between two attempts to reach it.
const PAUSE: Duration = Duration::from_millis(200);

/// What a shell makes of a command that Ctrl-C has ended.
const INTERRUPTED: u8 = 130;

/// This process on behalf of one enclave.
#[derive(Debug)]
pub(crate) struct Foreground {
    socket: PathBuf,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// The first signal.
    signal: Option<i32>,
    /// The connection over which the enclave is started.
    starting: Option<UnixStream>,
    /// The enclave, once it runs.
    running: Option<String>,
}

impl Foreground {
    /// From here on signals end the enclave before they end this process.
    ///
    /// # Errors
    /// E54 if signals cannot be taken.
    pub(crate) fn catch(socket: &Path) -> Result<Self, Failure> {
        let wanted = [SIGINT, SIGTERM, SIGHUP]
            .into_iter()
            .filter(|signal| !is_ignored(*signal));
        let signals = Signals::new(wanted).map_err(|error| {
            let context = "Signals cannot be taken, which --wait has to";
            Failure::caused_by(ErrorCode::SignalMasking, context, &error)
        })?;
        let state = Arc::<Mutex<State>>::default();
        let foreground = Self {
            socket: socket.to_owned(),
            state: Arc::clone(&state),
        };
        let socket = socket.to_owned();
        thread::spawn(move || take(signals, &state, &socket));
        Ok(foreground)
    }

    /// The daemon is about to be asked for the enclave.
    ///
    /// # Errors
    /// [`Self::exit`] if a signal has come already.
    pub(crate) fn starting(&self, daemon: &Daemon) -> Result<(), CommandError> {
        let mut state = lock(&self.state);
        // Without the copy a signal would wait for the boot; it cannot be made only where descriptors have run out.
        state.starting = daemon.stream().try_clone().ok();
        match state.signal {
            Some(signal) => Err(CommandError::Application(exit_after(signal))),
            None => Ok(()),
        }
    }

    /// The enclave runs. If a signal has come in the meantime, it is terminated.
    pub(crate) fn running(&self, enclave_id: &str) {
        let mut state = lock(&self.state);
        state.starting = None;
        state.running = Some(enclave_id.to_owned());
        if state.signal.is_some() {
            terminate_in_background(&self.socket, enclave_id);
        }
    }

    /// How the process ends if a signal was the reason that there is no enclave.
    pub(crate) fn exit(&self) -> Option<CommandError> {
        lock(&self.state)
            .signal
            .map(|signal| CommandError::Application(exit_after(signal)))
    }

    /// Waits for the end of the enclave, and says how this process is to end.
    ///
    /// # Errors
    /// [`CommandError::Application`] with a code other than 0; E39 if the enclave ended without one, or the daemon does not come
    /// back.
    pub(crate) fn end(&self, enclave_id: &str) -> Result<(), CommandError> {
        let ended = await_end(&self.socket, enclave_id)?;
        output::notice(format_args!("Enclave {enclave_id} has ended: {}.", ended.reason));
        let signal = lock(&self.state).signal;
        let code = match (signal, ended.exit_code) {
            (Some(signal), _) => exit_after(signal),
            (None, Some(code)) => u8::try_from(code).unwrap_or(u8::MAX),
            (None, None) => {
                let message = format!(
                    "The enclave has ended, and its application's exit code is not known: {}",
                    ended.reason
                );
                return Err(Failure::new(ErrorCode::ProcessConnectionFailure, message).into());
            }
        };
        match code {
            0 => Ok(()),
            code => Err(CommandError::Application(code)),
        }
    }
}

/// A service manager that stops a service finds it well ended; a shell sees that Ctrl-C was pressed.
fn exit_after(signal: i32) -> u8 {
    if signal == SIGINT { INTERRUPTED } else { 0 }
}

/// Takes signals as long as the process lives.
fn take(mut signals: Signals, state: &Mutex<State>, socket: &Path) {
    for signal in signals.forever() {
        let mut state = lock(state);
        if state.signal.is_some() {
            // A terminal that closes sends more than one signal at once, and the first must have its effect.
            if signal == SIGINT {
                let _ = emulate_default_handler(signal);
            }
            continue;
        }
        state.signal = Some(signal);
        output::notice("Ending the enclave...");
        if let Some(enclave_id) = &state.running {
            terminate_in_background(socket, enclave_id);
        } else if let Some(connection) = state.starting.take() {
            // What has come over it can still be read.
            let _ = connection.shutdown(Shutdown::Both);
        }
    }
}

/// In a thread, so that the next signal is taken.
fn terminate_in_background(socket: &Path, enclave_id: &str) {
    let socket = socket.to_owned();
    let request = Request::TerminateEnclave(Selector::Id(enclave_id.to_owned()));
    thread::spawn(move || {
        match ask_patiently(&socket, &request) {
            // It has ended by itself meanwhile.
            Ok(_)
            | Err(AskError::Declined(Failure {
                code: ErrorCode::SocketError,
                ..
            })) => {}
            Err(AskError::Declined(failure) | AskError::NoAnswer(failure)) => output::notice(failure.message),
        }
    });
}

fn await_end(socket: &Path, enclave_id: &str) -> Result<EndedEnclave, CommandError> {
    let request = Request::AwaitEnd(Selector::Id(enclave_id.to_owned()));
    match ask_patiently(socket, &request)? {
        Reply::EnclaveEnded(ended) => Ok(ended),
        _ => Err(unexpected_answer().into()),
    }
}

/// Asks this daemon or the next one, until one has answered or there was none for too long.
fn ask_patiently(socket: &Path, request: &Request) -> Result<Reply, AskError> {
    let mut seen = Instant::now();
    loop {
        let asked = Instant::now();
        let answer = Daemon::connect(socket).and_then(|mut daemon| daemon.ask(request, None));
        if !matches!(answer, Err(AskError::NoAnswer(_))) {
            return answer;
        }
        if asked.elapsed() > WELL {
            seen = Instant::now();
        }
        if seen.elapsed() > PATIENCE {
            return answer;
        }
        thread::sleep(PAUSE);
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
