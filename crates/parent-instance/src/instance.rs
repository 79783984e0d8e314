//! Running a session: start a machine, follow its steps, end it.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::machine::Machine;
use crate::ports::{self, Event, Stream};
use crate::status::Status;
use crate::{Config, Error, packages};

/// How long a machine may take from the start of QEMU to its process 1. It takes about two seconds on an idle host.
const INIT_LIMIT: Duration = Duration::from_mins(3);

/// What runs in a machine, as root in `/root`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Session {
    /// A program and its arguments. Standard input is empty, output goes to two streams.
    Command(Vec<String>),
    /// A program and its arguments on the caller's terminal.
    Terminal(Vec<String>),
}

impl Session {
    /// A login shell on the caller's terminal.
    pub fn shell() -> Self {
        Self::Terminal(vec!["sh".into(), "-l".into()])
    }

    pub(crate) fn command(&self) -> &[String] {
        match self {
            Self::Command(command) | Self::Terminal(command) => command,
        }
    }

    pub(crate) fn is_interactive(&self) -> bool {
        matches!(self, Self::Terminal(_))
    }
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    /// Exit status as a shell gives it: 128 + n if signal n ended the command, 127 if there is no such program.
    pub status: u8,
    /// The kernel's log, kept if `status` is not 0.
    pub log: Option<PathBuf>,
}

/// A parent instance that can be started: the configuration is sound and its Debian packages are there. Each
/// [`run`](Self::run) is a machine of its own, freshly booted.
#[derive(Debug)]
pub struct ParentInstance {
    config: Config,
    /// A directory of unpacked Debian packages.
    packages: Option<PathBuf>,
}

impl ParentInstance {
    /// Checks the description and gets the Debian packages.
    pub fn prepare(config: Config) -> Result<Self, Error> {
        config.validate()?;
        let packages = match config.all_packages().as_slice() {
            [] => None,
            names => Some(packages::unpacked(names, &config.cache)?),
        };
        Ok(Self { config, packages })
    }

    /// Runs a session. Its output goes to the caller's standard output and standard error as it comes.
    pub fn run(&self, session: &Session) -> Result<Exit, Error> {
        self.run_with(session, io::stdout(), io::stderr())
    }

    /// Runs a session whose output goes to `stdout` and `stderr`, byte for byte. Interactive sessions use neither.
    /// A machine that hangs before its process 1 is started once more.
    pub fn run_with(
        &self,
        session: &Session,
        mut stdout: impl Write + Send,
        mut stderr: impl Write + Send,
    ) -> Result<Exit, Error> {
        let mut attempt = || self.attempt(session, &mut stdout, &mut stderr);
        match attempt() {
            Err(Error::NoInit { .. }) => attempt(),
            result => result,
        }
    }

    /// One machine from its start to its end.
    fn attempt(
        &self,
        session: &Session,
        stdout: &mut (impl Write + Send),
        stderr: &mut (impl Write + Send),
    ) -> Result<Exit, Error> {
        let started = Instant::now();
        let (machine, ports) = Machine::start(&self.config, self.packages.as_deref(), session)?;
        let (sender, events) = channel();
        thread::scope(|scope| {
            let (first, second) = (sender.clone(), sender.clone());
            if session.is_interactive() {
                scope.spawn(move || ports::use_terminal(&ports.terminal, &first));
            } else {
                scope.spawn(move || ports::copy(ports.stdout, stdout, Stream::Stdout, &first));
                scope.spawn(move || ports::copy(ports.stderr, stderr, Stream::Stderr, &second));
            }
            scope.spawn(move || ports::read_status(ports.status, &sender));
            let limit = (!session.is_interactive()).then_some(self.config.time_limit);
            Attendance {
                machine,
                events,
                started,
                limit,
                copied: [0; 2],
            }
            .until_exit()
        })
    }
}

/// Waits for a machine to do what it is there for.
struct Attendance {
    machine: Machine,
    events: Receiver<Event>,
    started: Instant,
    /// For the whole session.
    limit: Option<Duration>,
    /// Bytes passed on of each [`Stream`].
    copied: [u64; 2],
}

impl Attendance {
    /// The machine is dropped, and QEMU with it, when this returns.
    fn until_exit(mut self) -> Result<Exit, Error> {
        let init_limit = self.limit.map_or(INIT_LIMIT, |limit| limit.min(INIT_LIMIT));
        match self.next(Some(init_limit)) {
            Next::Event(Event::Status(Status::Init)) => self.machine.remove_start_files()?,
            Next::Event(event) => return Err(self.failure(event)),
            Next::LimitReached(limit) => {
                return Err(Error::NoInit {
                    limit,
                    log: self.machine.keep_log(),
                });
            }
        }
        let mut exit = None;
        loop {
            match self.next(self.limit) {
                Next::Event(Event::Status(Status::Ready)) => {}
                Next::Event(Event::Status(Status::Exit { code, stdout, stderr })) => {
                    exit = Some((code, [stdout, stderr]));
                }
                Next::Event(Event::Copied(stream, bytes)) => self.copied[stream as usize] += bytes,
                Next::Event(event) => return Err(self.failure(event)),
                Next::LimitReached(limit) => {
                    return Err(Error::TimeLimit {
                        limit,
                        log: self.machine.keep_log(),
                    });
                }
            }
            if let Some((status, written)) = exit
                && written == self.copied
            {
                let log = (status != 0).then(|| self.machine.keep_log());
                return Ok(Exit { status, log });
            }
        }
    }

    /// Waits for the next event, at most until `limit` after the start of the machine.
    fn next(&self, limit: Option<Duration>) -> Next {
        // Every port's thread ends with the machine, the one of the status port with an event of its own.
        let Some(limit) = limit else {
            return Next::Event(self.events.recv().unwrap_or(Event::Ended));
        };
        match self
            .events
            .recv_timeout(limit.saturating_sub(self.started.elapsed()))
        {
            Ok(event) => Next::Event(event),
            Err(RecvTimeoutError::Timeout) => Next::LimitReached(limit),
            Err(RecvTimeoutError::Disconnected) => Next::Event(Event::Ended),
        }
    }

    /// What an event means that is none of the expected steps.
    fn failure(&mut self, event: Event) -> Error {
        match event {
            Event::Failed(error) => error,
            Event::Status(Status::Failed(reason)) => Error::NotReady {
                reason,
                log: self.machine.keep_log(),
            },
            Event::Status(_) | Event::Copied(..) | Event::Ended => self.machine.ended(),
        }
    }
}

/// What [`Attendance::next`] waited for.
enum Next {
    Event(Event),
    LimitReached(Duration),
}
