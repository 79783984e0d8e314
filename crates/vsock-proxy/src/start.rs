//! The process: its log, its limits, its targets, and the counters it prints.

use std::convert::Infallible;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, Rlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval};
use tracing_subscriber::EnvFilter;

use crate::arguments::Arguments;
use crate::configuration::{Allowlist, TargetConfiguration, Targets};
use crate::error::{StartError, chain_of};
use crate::target::Target;

/// The most connections of a process without `--num_workers`: at 64 KiB of buffers each, a quarter of a GiB.
const MOST_CONNECTIONS: u64 = 4096;

/// Descriptors that are not connections': listeners, the runtime's, those to name servers.
const OTHER_DESCRIPTORS: u64 = 512;

/// Between two lines of counters in the log.
const COUNTERS_INTERVAL: Duration = Duration::from_mins(1);

/// Starts the targets, and serves them until the process is ended. Returns only if it cannot start, with AWS's form of an
/// error on standard error.
pub fn run(arguments: &Arguments) -> ExitCode {
    start_log();
    match serve(arguments) {
        Ok(never) => match never {},
        Err(error) => {
            eprintln!("Error: {:?}", chain_of(&error));
            ExitCode::FAILURE
        }
    }
}

fn serve(arguments: &Arguments) -> Result<Infallible, StartError> {
    // AWS's order: of several things that are wrong, the same one is named.
    let target = arguments.target()?;
    let most_connections = arguments.most_connections()?;
    let targets = targets(arguments, target)?;
    let allowlist = allowlist(arguments, &targets)?;
    let descriptors = raised_descriptor_limit();
    let most_connections = most_connections.unwrap_or_else(|| share_of_each(targets.len(), descriptors));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(StartError::Runtime)?;
    runtime.block_on(async {
        // Before anybody can know that it runs: until then, the signal ends the process.
        let asked = signal(SignalKind::user_defined1()).map_err(StartError::Runtime)?;
        let mut started = Vec::new();
        for target in targets {
            let target = Target::start(target, &allowlist, arguments.family(), most_connections);
            started.push(Arc::new(target.await?));
        }
        for target in &started {
            tracing::info!(%target, "listening");
            tokio::spawn(Arc::clone(target).serve());
        }
        Ok(print_counters(&started, asked).await)
    })
}

fn targets(
    arguments: &Arguments,
    target: Option<TargetConfiguration>,
) -> Result<Vec<TargetConfiguration>, StartError> {
    let Some(file) = &arguments.targets else {
        return Ok(target.into_iter().collect());
    };
    let read = Targets::read(file).map_err(|source| StartError::Targets {
        file: file.clone(),
        source,
    });
    Ok(read?.0)
}

/// Without an outbound target, none is needed.
fn allowlist(arguments: &Arguments, targets: &[TargetConfiguration]) -> Result<Arc<Allowlist>, StartError> {
    let is_outbound = |target: &TargetConfiguration| matches!(target, TargetConfiguration::Outbound { .. });
    if !targets.iter().any(is_outbound) {
        return Ok(Arc::default());
    }
    let read = Allowlist::read(&arguments.config).map_err(|source| StartError::Allowlist {
        file: arguments.config.clone(),
        source,
    });
    read.map(Arc::new)
}

/// Connections of each target, so that none takes another one's, as far as descriptors go.
fn share_of_each(targets: usize, descriptors: u64) -> usize {
    // Two each.
    let all = MOST_CONNECTIONS.min(descriptors.saturating_sub(OTHER_DESCRIPTORS) / 2);
    usize::try_from(all)
        .unwrap_or(usize::MAX)
        .div_ceil(targets.max(1))
        .max(1)
}

/// Many connections need more descriptors than the usual soft limit of 1024.
fn raised_descriptor_limit() -> u64 {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    match rustix::process::setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum.unwrap_or(u64::MAX),
        Err(_) => limit.current.unwrap_or(u64::MAX),
    }
}

/// Logs to standard error; `RUST_LOG` sets the level. Unless it is set there are warnings, and libraries say nothing: what
/// becomes of a connection is said here.
fn start_log() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("vsock_proxy=warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .init();
}

/// To the log each minute in which something has changed, and to standard error whenever it is asked for. Never returns.
async fn print_counters(targets: &[Arc<Target>], mut asked: Signal) -> Infallible {
    let mut ticks = interval(COUNTERS_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let now = || {
        targets
            .iter()
            .map(|target| format!("{target}: {}", target.counters()))
    };
    let mut logged: Vec<String> = now().collect();
    loop {
        tokio::select! {
            _ = asked.recv() => {
                let lines: String = now().map(|line| line + "\n").collect();
                // Nobody may be reading.
                let _ = io::stderr().write_all(lines.as_bytes());
            }
            _ = ticks.tick() => {
                let lines: Vec<String> = now().collect();
                for line in lines.iter().filter(|line| !logged.contains(line)) {
                    tracing::info!("{line}");
                }
                logged = lines;
            }
        }
    }
}
