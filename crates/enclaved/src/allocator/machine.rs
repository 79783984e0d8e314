//! What the machine has: cores, and memory that can become hugepages, node by node.
//!
//! Read once, from sysfs, before anything is changed. Pages that somebody uses or was promised are *held*: when the
//! allocator runs no enclave exists, so they are other programs', and enclaves get theirs beside them.

use std::collections::{BTreeMap, BTreeSet};

use super::sysfs::{CountError, Counts, Sysfs};
use crate::admission::memory::PageSize;
use crate::admission::topology::{self, Core, TopologyError};

/// The machine, as the planner sees it.
#[derive(Debug, Clone)]
pub struct Machine {
    /// Every core with an online CPU, by its lowest CPU.
    pub cores: Vec<Core>,
    /// CPUs that exist but do not run.
    pub offline: BTreeSet<u32>,
    /// Memory by NUMA node.
    pub nodes: BTreeMap<u32, NodeMemory>,
}

/// The memory of one node.
#[derive(Debug, Clone, Default)]
pub struct NodeMemory {
    /// Hugepages of 1 GiB; `None` if the kernel has no such size.
    pub gigabyte: Option<Counts>,
    /// Likewise of 2 MiB.
    pub two_megabytes: Option<Counts>,
    /// What can be had for enclaves, as far as is known.
    pub room: Room,
}

/// How much of a node's memory can become hugepages for enclaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Pages of 1 GiB.
    pub gigabyte_pages: u64,
    /// Whether what is left can be had in pages of 2 MiB.
    pub has_small_pages: bool,
    /// Bytes, in pages of all sizes.
    pub bytes: u64,
}

/// Nothing is known.
impl Default for Room {
    fn default() -> Self {
        Self {
            gigabyte_pages: u64::MAX,
            has_small_pages: true,
            bytes: u64::MAX,
        }
    }
}

/// Why the machine's description cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// The CPUs.
    #[error(transparent)]
    Cpus(#[from] TopologyError),
    /// The hugepages.
    #[error(transparent)]
    Pages(#[from] CountError),
}

impl Machine {
    /// Reads everything.
    ///
    /// # Errors
    /// [`MachineError`].
    pub fn read(sysfs: &Sysfs) -> Result<Self, MachineError> {
        let online = topology::read_cpu_list(&sysfs.devices.join("cpu/online"))?;
        let present = topology::read_cpu_list(&sysfs.devices.join("cpu/present"))?;
        let nodes = sysfs.nodes().into_iter().map(|node| {
            let memory = NodeMemory::read(sysfs, node)?;
            Ok((node, memory))
        });
        Ok(Self {
            cores: topology::read_cores(&sysfs.devices)?,
            offline: present.difference(&online).copied().collect(),
            nodes: nodes.collect::<Result<_, MachineError>>()?,
        })
    }

    /// The core that has this CPU, if that is online.
    pub fn core_of(&self, cpu: u32) -> Option<&Core> {
        self.cores.iter().find(|core| core.cpus.contains(&cpu))
    }

    /// Whether all hardware threads of the core are online. The kernel forgets which core an offline CPU is part of, so
    /// while some are offline a core with fewer threads than the others counts as incomplete.
    pub fn is_whole(&self, core: &Core) -> bool {
        let most = self.cores.iter().map(|core| core.cpus.len()).max();
        self.offline.is_empty() || Some(core.cpus.len()) == most
    }

    /// The cores of a node that enclaves may have: whole, and not CPU 0's.
    pub fn cores_for_enclaves(&self, node: u32) -> impl Iterator<Item = &Core> {
        let usable = move |core: &&Core| core.node == node && !core.cpus.contains(&0) && self.is_whole(core);
        self.cores.iter().filter(usable)
    }

    /// The hugepages of one size on one node; `None` if there is no such size.
    pub(crate) fn pages(&self, node: u32, size: PageSize) -> Option<&Counts> {
        self.nodes.get(&node)?.pages(size)
    }
}

impl NodeMemory {
    fn read(sysfs: &Sysfs, node: u32) -> Result<Self, CountError> {
        let gigabyte = sysfs.counts(node, PageSize::Gigabyte)?;
        let two_megabytes = sysfs.counts(node, PageSize::TwoMegabytes)?;
        let mut memory = Self {
            gigabyte,
            two_megabytes,
            room: Room::default(),
        };
        memory.room = Room {
            gigabyte_pages: memory.gigabyte.map_or(0, |_| u64::MAX),
            has_small_pages: memory.two_megabytes.is_some(),
            bytes: memory.reusable_bytes().saturating_add(sysfs.free_bytes(node)),
        };
        Ok(memory)
    }

    pub(crate) fn pages(&self, size: PageSize) -> Option<&Counts> {
        match size {
            PageSize::Gigabyte => self.gigabyte.as_ref(),
            PageSize::TwoMegabytes => self.two_megabytes.as_ref(),
        }
    }

    /// What lies in hugepages that nobody holds.
    fn reusable_bytes(&self) -> u64 {
        let reusable = PageSize::ALL.iter().filter_map(|size| {
            let counts = self.pages(*size)?;
            Some(
                counts
                    .total
                    .saturating_sub(counts.held())
                    .saturating_mul(size.bytes()),
            )
        });
        reusable.fold(0, u64::saturating_add)
    }
}

#[cfg(test)]
mod tests;
