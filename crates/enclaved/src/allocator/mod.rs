//! `nitro-enclaves-allocator`: sets CPUs and hugepages of this machine apart for enclaves.
//!
//! # How a reservation is made
//!
//! ```text
//! allocator.yaml ── yaml ── configuration: what is wanted      typed, every mistake told with its remedy
//!                             │
//! /sys ── sysfs ─── machine: what there is                     cores and hugepages, node by node
//!                             │
//!                           plan: who gets what                pure; whole cores and pages of one node
//!                             │
//!                           reserve: ask the kernel            all counts, or the previous ones
//!                             │ Shortage: the machine has less than it seemed ──► plan again
//!                           pool: /run/enclaved/pool.json      what the daemon admits enclaves to
//! ```
//!
//! CPUs are not taken from the parent here: the daemon isolates an enclave's CPUs while it runs. Memory is, since only
//! early at boot are large pages there for the asking.
//!
//! # Rules
//!
//! - While an enclave runs nothing is changed. The pool's lock keeps new ones away meanwhile.
//! - Pages that other programs use or were promised are never counted for enclaves and never taken.
//! - A failure leaves every count, and the pool's file, as they were.

mod command;
pub mod configuration;
pub mod machine;
pub mod plan;
pub mod pool;
pub mod reserve;
pub mod sysfs;
#[cfg(test)]
mod testing;
mod yaml;

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::admission::memory::PageSize;
use crate::inheritance;
use crate::run_directory::{self, RunDirectoryError};
use configuration::{Configuration, ConfigurationError};
use machine::{Machine, MachineError};
use plan::PlanError;
use pool::{Pool, PoolError, PoolLock};
use reserve::{Reservation, ReserveError, Shortage};
use sysfs::{Kernel, Sysfs};

pub use command::{Arguments, run};

/// How often a plan is made again after the kernel gave too little. Each time the machine is known to have less, so that
/// real machines need two for each node; a machine that gives less each time it is asked is not asked for ever.
const MAX_PLANS: usize = 32;

/// Why nothing was reserved or released.
#[derive(Debug, thiserror::Error)]
pub enum AllocatorError {
    /// The configuration.
    #[error(transparent)]
    Configuration(#[from] ConfigurationError),
    /// The named file does not exist.
    #[error("{0} does not exist; write it (see --help) or leave out --config")]
    NoConfiguration(PathBuf),
    /// The run directory.
    #[error(transparent)]
    RunDirectory(#[from] RunDirectoryError),
    /// The pool's file or lock.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// The run directory cannot be searched for enclaves.
    #[error("cannot look for enclaves in {path}")]
    Search {
        /// The directory.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Enclaves run.
    #[error(
        "the pool is in use: {} still running ({}). Terminate all enclaves (nitro-cli terminate-enclave --all) and run \
         the allocator again; nothing was changed",
        if ids.len() == 1 { "an enclave is" } else { "enclaves are" },
        ids.join(", ")
    )]
    EnclavesRun {
        /// Their ids.
        ids: Vec<String>,
    },
    /// The machine cannot be read.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// The machine does not have what is asked for.
    #[error("{0}. Nothing was changed")]
    Plan(PlanError),
    /// The machine seemed to have it, but the kernel could not make the pages.
    #[error(
        "{}. All previous counts are back. Memory may be fragmented: run the allocator early at boot (systemctl enable \
         nitro-enclaves-allocator), ask for fewer MiB, compact memory first (echo 1 > /proc/sys/vm/compact_memory), or \
         let the kernel set pages apart when it starts (on its command line: {})",
        sentences(shortages),
        kernel_arguments(shortages, *nodes)
    )]
    Fragmented {
        /// What was tried, in order.
        shortages: Vec<Shortage>,
        /// NUMA nodes of the machine.
        nodes: usize,
    },
    /// The hugepages could not be changed.
    #[error(transparent)]
    Reserve(#[from] ReserveError),
}

fn sentences(shortages: &[Shortage]) -> String {
    let sentences: Vec<String> = shortages.iter().map(ToString::to_string).collect();
    sentences.join("; ")
}

/// What on the kernel's command line would set as many pages apart, which it spreads evenly over all nodes.
fn kernel_arguments(shortages: &[Shortage], nodes: usize) -> String {
    let arguments = PageSize::ALL.iter().filter_map(|size| {
        let wanted = shortages.iter().filter(|shortage| shortage.size == *size);
        let most = wanted.map(|shortage| shortage.wanted).max()?;
        let most = most.saturating_mul(u64::try_from(nodes).unwrap_or(1));
        let unit = match size {
            PageSize::Gigabyte => "1G",
            PageSize::TwoMegabytes => "2M",
        };
        Some(format!("hugepagesz={unit} hugepages={most}"))
    });
    arguments.collect::<Vec<_>>().join(" or ")
}

/// The allocator of one machine.
#[derive(Debug)]
pub struct Allocator<K> {
    /// Where the machine is described.
    pub sysfs: Sysfs,
    /// Who changes hugepages.
    pub kernel: K,
    /// The daemon's directory, made if it is missing.
    pub run_directory: PathBuf,
}

impl<K: Kernel> Allocator<K> {
    /// Reserves what the configuration says, in place of what was reserved before, and makes it the daemon's pool.
    ///
    /// # Errors
    /// [`AllocatorError`]. Except for [`ReserveError::NotRestored`], nothing has changed then.
    pub fn allocate(&self, configuration: &Configuration) -> Result<Pool, AllocatorError> {
        let _lock = self.alone()?;
        let previous = self.previous_pool()?;
        let mut machine = Machine::read(&self.sysfs)?;
        let mut shortages = Vec::new();
        for _ in 0..MAX_PLANS {
            let pool = match plan::plan(configuration, &machine) {
                Ok(pool) => pool,
                Err(error) if shortages.is_empty() => return Err(AllocatorError::Plan(error)),
                Err(_) => break,
            };
            let targets = reserve::targets(&machine, &pool, previous.as_ref());
            let reservation = Reservation::new(&self.sysfs, &self.kernel, &targets);
            match reservation.make() {
                Ok(()) => {
                    self.publish(&pool, &reservation)?;
                    return Ok(pool);
                }
                Err(ReserveError::Short(shortage)) => {
                    learn(&mut machine, &pool, &shortage);
                    shortages.push(shortage);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(AllocatorError::Fragmented {
            shortages,
            nodes: machine.nodes.len(),
        })
    }

    /// Gives back all hugepages that nobody uses, and the pool.
    ///
    /// # Errors
    /// [`AllocatorError`]. Except for [`ReserveError::NotRestored`], nothing has changed then.
    pub fn release(&self) -> Result<Released, AllocatorError> {
        let _lock = self.alone()?;
        let machine = Machine::read(&self.sysfs)?;
        Reservation::new(&self.sysfs, &self.kernel, &reserve::nothing(&machine)).make()?;
        Pool::remove(&self.run_directory)?;
        let left = Machine::read(&self.sysfs)?;
        let (before, kept_mib) = (huge_mib(&machine), huge_mib(&left));
        Ok(Released {
            mib: before.saturating_sub(kept_mib),
            kept_mib,
        })
    }

    /// The lock, while no enclave runs.
    fn alone(&self) -> Result<PoolLock, AllocatorError> {
        run_directory::create(&self.run_directory)?;
        let lock = PoolLock::exclusive(&self.run_directory)?;
        let ids = inheritance::living(&self.run_directory).map_err(|source| AllocatorError::Search {
            path: self.run_directory.clone(),
            source,
        })?;
        if ids.is_empty() {
            Ok(lock)
        } else {
            Err(AllocatorError::EnclavesRun {
                ids: ids.iter().map(ToString::to_string).collect(),
            })
        }
    }

    /// The pool that is to be replaced. A damaged one is replaced as if there were none.
    fn previous_pool(&self) -> Result<Option<Pool>, PoolError> {
        match Pool::read(&self.run_directory) {
            Err(error @ PoolError::Io { .. }) => Err(error),
            read => Ok(read.unwrap_or_default()),
        }
    }

    fn publish(&self, pool: &Pool, reservation: &Reservation<'_, K>) -> Result<(), AllocatorError> {
        pool.write(&self.run_directory)
            .map_err(|error| match reservation.undo_because_of(error) {
                Ok(error) => error.into(),
                Err(worse) => worse.into(),
            })
    }
}

/// Takes note that the machine has less than it seemed to have.
fn learn(machine: &mut Machine, pool: &Pool, shortage: &Shortage) {
    let Some(memory) = machine.nodes.get_mut(&shortage.node) else {
        return;
    };
    match shortage.size {
        PageSize::Gigabyte => memory.room.gigabyte_pages = shortage.got,
        PageSize::TwoMegabytes => {
            let large = pool.pages(shortage.node, PageSize::Gigabyte) * PageSize::Gigabyte.bytes();
            memory.room.bytes = large + shortage.got * PageSize::TwoMegabytes.bytes();
        }
    }
}

/// MiB in hugepages of the whole machine.
fn huge_mib(machine: &Machine) -> u64 {
    let sizes = PageSize::ALL.iter().flat_map(|size| {
        let nodes = machine.nodes.values();
        nodes.filter_map(|memory| Some(memory.pages(*size)?.total.saturating_mul(size.bytes() >> 20)))
    });
    sizes.fold(0, u64::saturating_add)
}

/// What was given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Released {
    /// MiB of hugepages that are ordinary memory again.
    pub mib: u64,
    /// MiB of hugepages that other programs use.
    pub kept_mib: u64,
}

impl fmt::Display for Released {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Gave back {} MiB of hugepages.", self.mib)?;
        if self.kept_mib > 0 {
            write!(f, " {} MiB stay: other programs use them.", self.kept_mib)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
