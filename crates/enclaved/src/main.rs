//! The host daemon's process: arguments, log, signals; everything else is the library's.

#![forbid(unsafe_code)]

use std::error::Error;
use std::io::{self, IsTerminal};
use std::process::ExitCode;

use clap::Parser;
use enclaved::admission::Machine;
use enclaved::config::{Arguments, Config, LogFormat, MOST_CLIENTS, find_vmm};
use enclaved::daemon::{Daemon, StartError, Stop};
use enclaved::error_chain::chain_of;
use enclaved::foreign::REFUSED_THREADS;
use enclaved::service_manager;
use enclaved::vmm_process::VmmLauncher;
use rustix::process::{Resource, Rlimit};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Threads that serve clients; all their work is short.
const WORKERS: usize = 2;

/// Threads for what takes as long as a client likes: looking at its image, and closing what it has passed. No client that is served can
/// take more than two, so that there is one for everybody; those that are refused share some of their own. What is over is for the
/// daemon itself. They exist only while they are needed.
const MOST_WAITING: usize = 2 * MOST_CLIENTS + REFUSED_THREADS + 32;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = if arguments.foreground {
        serve(&arguments)
    } else {
        enclaved::background::start().map_err(Into::into)
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("enclaved: {}", chain_of(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn serve(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    if arguments.background_child {
        enclaved::background::leave_session()?;
    }
    // Sockets and files are made for root alone; who else may use them is decided one by one.
    rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    raise_descriptor_limit();
    start_log(arguments.log_format);
    let passed = service_manager::passed_listener()?;
    let vmm = find_vmm(arguments.vmm.as_deref())?;
    let machine = Machine::this_one(&arguments.run_directory).map_err(StartError::from)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .max_blocking_threads(MOST_WAITING)
        .enable_all()
        .build()?;
    let served = runtime.block_on(async {
        let config = Config::from(arguments);
        let stop = stop_signal()?;
        let daemon = Daemon::build(
            &config,
            machine,
            VmmLauncher::new(vmm, arguments.allow_missing.clone()),
            passed,
        )?;
        service_manager::ready();
        if arguments.background_child {
            enclaved::background::report_ready(&config.run_directory)?;
        }
        daemon.run(stop).await;
        Ok(())
    });
    // Nothing of the daemon's is left to do; what still closes a client's descriptor is not waited for.
    runtime.shutdown_background();
    served
}

/// Ready when the daemon is to stop: SIGTERM, which a service manager sends, leaves the enclaves to the next daemon; SIGINT,
/// Ctrl-C of a developer, ends them. The handlers are in place when this returns.
fn stop_signal() -> io::Result<impl Future<Output = Stop>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => Stop::Leave,
            _ = hang_up.recv() => Stop::Leave,
            _ = interrupt.recv() => Stop::EndEnclaves,
        }
    })
}

/// Many clients and enclaves need more descriptors than the usual soft limit of 1024.
fn raise_descriptor_limit() {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    // The usual limit still serves some.
    let _ = rustix::process::setrlimit(Resource::Nofile, raised);
}

/// Logs to standard error; `RUST_LOG` sets the level, `info` unless set.
fn start_log(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal());
    match format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
}
