//! Changing the machine's hugepages: all of it, or nothing.
//!
//! First what is given back, then what is added, the largest pages first, so that memory can move from one size to the
//! other. Then everything is read again: the kernel gives what it can. If that is too little, every count is put back.

use std::error::Error;
use std::io;
use std::path::PathBuf;

use super::machine::Machine;
use super::pool::Pool;
use super::sysfs::{CountError, Counts, Kernel, Sysfs};
use crate::admission::memory::PageSize;

/// How many pages of one size a node shall have in all, those included that other programs hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Target {
    node: u32,
    size: PageSize,
    pages: u64,
    /// How they were found.
    before: Counts,
}

/// The kernel gave fewer pages than were asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("of {wanted} pages of {} on NUMA node {node} the kernel gave {got}", size.name())]
pub struct Shortage {
    /// The node.
    pub node: u32,
    pub(crate) size: PageSize,
    /// Pages for enclaves that were asked for.
    pub wanted: u64,
    /// Pages for enclaves that there were then.
    pub got: u64,
}

/// Why hugepages are not as they shall be.
#[derive(Debug, thiserror::Error)]
pub enum ReserveError {
    /// Too few pages; the counts are what they were.
    #[error(transparent)]
    Short(Shortage),
    /// The kernel refused a change; the counts are what they were.
    #[error("cannot write {pages} to {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// What was written.
        pages: u64,
        /// What the kernel said.
        source: io::Error,
    },
    /// A count cannot be read.
    #[error(transparent)]
    Read(#[from] CountError),
    /// The counts could not be put back.
    #[error(
        "{cause}; and the previous hugepages could not all be put back: {path} has {found} instead of {before}. \
         Write {before} to it, or run the allocator again with less memory"
    )]
    NotRestored {
        /// What went wrong before.
        cause: Box<dyn Error + Send + Sync>,
        /// The file.
        path: PathBuf,
        /// What it had.
        before: u64,
        /// What it has.
        found: u64,
    },
}

/// The counts that a pool needs. On its nodes, pages beyond it go back; on nodes of the `previous` pool, that pool's.
/// Other nodes are left alone.
pub(crate) fn targets(machine: &Machine, pool: &Pool, previous: Option<&Pool>) -> Vec<Target> {
    let nodes = pool.nodes();
    every_count(machine)
        .filter_map(|(node, size, before)| {
            let pages = if nodes.contains(&node) {
                before.held().saturating_add(pool.pages(node, size))
            } else {
                let given = previous?.pages(node, size);
                lowered(&before, before.asked_for().saturating_sub(given))
            };
            Some(Target {
                node,
                size,
                pages,
                before,
            })
        })
        .collect()
}

/// The counts of a machine without a pool: what other programs hold.
pub(crate) fn nothing(machine: &Machine) -> Vec<Target> {
    every_count(machine)
        .map(|(node, size, before)| Target {
            node,
            size,
            pages: lowered(&before, 0),
            before,
        })
        .collect()
}

/// `pages`, but no fewer than others hold, and never more than there are.
fn lowered(before: &Counts, pages: u64) -> u64 {
    pages.max(before.held()).min(before.asked_for())
}

/// Every size of page of every node, the largest first.
fn every_count(machine: &Machine) -> impl Iterator<Item = (u32, PageSize, Counts)> {
    PageSize::ALL.into_iter().flat_map(move |size| {
        let nodes = machine.nodes.keys();
        nodes.filter_map(move |node| Some((*node, size, *machine.pages(*node, size)?)))
    })
}

/// Changes the machine's hugepages.
pub(crate) struct Reservation<'a, K> {
    sysfs: &'a Sysfs,
    kernel: &'a K,
    targets: &'a [Target],
}

impl<'a, K: Kernel> Reservation<'a, K> {
    pub(crate) fn new(sysfs: &'a Sysfs, kernel: &'a K, targets: &'a [Target]) -> Self {
        Self {
            sysfs,
            kernel,
            targets,
        }
    }

    /// Reaches all targets.
    ///
    /// # Errors
    /// [`ReserveError`]. All counts are what they were before, except for [`ReserveError::NotRestored`].
    pub(crate) fn make(&self) -> Result<(), ReserveError> {
        self.reach_targets()
            .map_err(|cause| self.undo_because_of(cause).unwrap_or_else(|worse| worse))
    }

    /// Puts every count back; `cause` again if that succeeds.
    ///
    /// # Errors
    /// [`ReserveError`]: what cannot be put back is the more urgent news.
    pub(crate) fn undo_because_of<E: Error + Send + Sync + 'static>(
        &self,
        cause: E,
    ) -> Result<E, ReserveError> {
        match self.undo()? {
            None => Ok(cause),
            Some((path, before, found)) => Err(ReserveError::NotRestored {
                cause: Box::new(cause),
                path,
                before,
                found,
            }),
        }
    }

    fn reach_targets(&self) -> Result<(), ReserveError> {
        for target in self.targets {
            if target.pages < target.before.asked_for() {
                self.ask(target, target.pages)?;
            }
        }
        for target in self.targets {
            if target.pages > target.before.asked_for() {
                self.ask(target, target.pages)?;
            }
            let now = self.counts(target)?;
            if now.total < target.pages {
                let held = target.before.held();
                return Err(ReserveError::Short(Shortage {
                    node: target.node,
                    size: target.size,
                    wanted: target.pages.saturating_sub(held),
                    got: now.total.saturating_sub(held),
                }));
            }
        }
        Ok(())
    }

    /// Puts every count back; the first that is not what it was, with what it was and is.
    fn undo(&self) -> Result<Option<(PathBuf, u64, u64)>, ReserveError> {
        let mut changed = Vec::new();
        for target in self.targets {
            let (now, before) = (self.counts(target)?.asked_for(), target.before.asked_for());
            if now > before {
                self.ask(target, before)?;
            } else if now < before {
                changed.push(target);
            }
        }
        for target in changed {
            self.ask(target, target.before.asked_for())?;
        }
        for target in self.targets {
            let (found, before) = (self.counts(target)?.asked_for(), target.before.asked_for());
            if found != before {
                let path = self.sysfs.count_file(target.node, target.size);
                return Ok(Some((path, before, found)));
            }
        }
        Ok(None)
    }

    fn ask(&self, target: &Target, pages: u64) -> Result<(), ReserveError> {
        let path = self.sysfs.count_file(target.node, target.size);
        match self.kernel.ask(&path, pages) {
            // Not every kernel can make pages of 1 GiB once it runs: then there are none to be had.
            Err(error)
                if error.kind() == io::ErrorKind::InvalidInput && target.size == PageSize::Gigabyte =>
            {
                Ok(())
            }
            asked => asked.map_err(|source| ReserveError::Write { path, pages, source }),
        }
    }

    fn counts(&self, target: &Target) -> Result<Counts, CountError> {
        // A size that was there and is gone has no pages.
        Ok(self.sysfs.counts(target.node, target.size)?.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests;
