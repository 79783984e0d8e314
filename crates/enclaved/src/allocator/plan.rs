//! The choice of CPUs and pages: a pure function of what is asked for and what the machine has.
//!
//! - CPUs are whole cores of one node, never CPU 0's core, and no core is in two reservations. Named CPUs (`cpu_pool`)
//!   are settled first, whatever their order in the file; a count then takes the lowest free cores.
//! - Memory is on the CPUs' node and is rounded up to 2 MiB: pages of 1 GiB for the whole GiB of it, pages of 2 MiB for
//!   the rest. What cannot be had in pages of 1 GiB comes in pages of 2 MiB.
//! - A count tries the nodes in order and takes the first that has both, as AWS's script does. Reservations are placed one
//!   after the other and never moved again.

use std::collections::{BTreeMap, BTreeSet};

use super::configuration::{Configuration, CpuRequest, Place, Request};
use super::machine::{Machine, Room};
use super::pool::{Pool, PoolEntry};
use crate::admission::cpus;
use crate::admission::memory::PageSize;
use crate::admission::topology::Core;

/// MiB of the smaller page and how many of them are one of the larger.
const SMALL_PAGE_MIB: u64 = 2;
const SMALL_PAGES_PER_GIB: u64 = 1024 / SMALL_PAGE_MIB;

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}{problem}")]
pub struct PlanError {
    /// The reservation that cannot be made.
    pub place: Place,
    /// Why not.
    pub problem: Obstacle,
}

/// What stands against a reservation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Obstacle {
    /// No node has so many CPUs.
    #[error(
        "cpu_count is {wanted}, but no NUMA node has so many CPUs for enclaves: {}. CPU 0's core and cores with an \
         offline CPU stay with the parent. Write a smaller cpu_count",
        cpus_of(offers)
    )]
    TooFewCpus {
        /// CPUs that were asked for.
        wanted: u32,
        /// What each node has.
        offers: Vec<Offer>,
    },
    /// Whole cores do not make this number of CPUs.
    #[error("cpu_count is {wanted}, which would split a core; write a multiple of {threads}")]
    SplitsCore {
        /// CPUs that were asked for.
        wanted: u32,
        /// CPUs of a core.
        threads: usize,
    },
    /// The nodes that have the CPUs do not have the memory.
    #[error(
        "memory_mib is {wanted_mib}, but there is not so much where the CPUs are: {}",
        memory_of(offers)
    )]
    TooLittleMemory {
        /// MiB that were asked for.
        wanted_mib: u64,
        /// What the nodes have, those that have the CPUs.
        offers: Vec<Offer>,
    },
    /// A named CPU does not exist.
    #[error("cpu_pool names CPU {cpu}, which this machine does not have; see `lscpu -e`")]
    NoSuchCpu {
        /// The CPU.
        cpu: u32,
    },
    /// A named CPU does not run.
    #[error(
        "cpu_pool names CPU {cpu}, which is offline; bring it back (echo 1 > \
         /sys/devices/system/cpu/cpu{cpu}/online) or leave it out"
    )]
    Offline {
        /// The CPU.
        cpu: u32,
    },
    /// A named CPU is on the core of CPU 0.
    #[error(
        "cpu_pool names CPU {cpu}, but CPU 0's core ({}) stays with the parent; leave it out",
        list(core)
    )]
    CoreOfCpu0 {
        /// The CPU.
        cpu: u32,
        /// All CPUs of the core.
        core: Vec<u32>,
    },
    /// Half a core is named.
    #[error(
        "cpu_pool names CPU {cpu} without CPU {missing}, which shares its core; enclaves get whole cores, so name all \
         of {} or none",
        list(core)
    )]
    PartOfCore {
        /// The CPU.
        cpu: u32,
        /// The CPU that is not named.
        missing: u32,
        /// All CPUs of the core.
        core: Vec<u32>,
    },
    /// A CPU that shares a core with a named one is offline.
    #[error(
        "cpu_pool names CPU {cpu}, whose core has a CPU that is offline ({} are offline); bring it back (echo 1 > \
         /sys/devices/system/cpu/cpuN/online) or leave CPU {cpu} out",
        list(offline)
    )]
    IncompleteCore {
        /// The CPU.
        cpu: u32,
        /// All CPUs of the machine that are offline.
        offline: Vec<u32>,
    },
    /// Named CPUs are on more than one node.
    #[error(
        "cpu_pool names CPU {cpu} of NUMA node {node} and CPU {other_cpu} of node {other_node}; name CPUs of one node"
    )]
    SeveralNodes {
        /// A CPU,
        cpu: u32,
        /// its node,
        node: u32,
        /// another CPU,
        other_cpu: u32,
        /// and the other's node.
        other_node: u32,
    },
    /// Two reservations name the same CPU.
    #[error("cpu_pool names CPU {cpu}, which an earlier entry names; a CPU can be in one entry only")]
    Overlap {
        /// The CPU.
        cpu: u32,
    },
}

/// What one node has left for enclaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// The node.
    pub node: u32,
    /// CPUs in whole cores.
    pub cpus: usize,
    /// MiB in hugepages of any size.
    pub mib: u64,
    /// Whether the kernel has pages of 2 MiB there.
    pub has_small_pages: bool,
}

fn cpus_of(offers: &[Offer]) -> String {
    let offers = offers
        .iter()
        .map(|offer| format!("node {} has {} left", offer.node, offer.cpus));
    offers.collect::<Vec<_>>().join(", ")
}

fn memory_of(offers: &[Offer]) -> String {
    let nodes = offers.iter().map(|offer| {
        if offer.has_small_pages {
            format!("node {} has {} MiB left", offer.node, offer.mib)
        } else {
            format!("node {} has no hugepages of 2 MiB", offer.node)
        }
    });
    let remedy = if offers.iter().any(|offer| offer.has_small_pages) {
        "Write a smaller memory_mib, or free memory"
    } else {
        "Boot a kernel with CONFIG_HUGETLBFS"
    };
    format!("{}. {remedy}", nodes.collect::<Vec<_>>().join(", "))
}

/// Plans all reservations of a configuration.
///
/// # Errors
/// [`PlanError`], for the first that cannot be made.
pub fn plan(configuration: &Configuration, machine: &Machine) -> Result<Pool, PlanError> {
    let mut planner = Planner {
        machine,
        taken: BTreeSet::new(),
        room: machine
            .nodes
            .iter()
            .map(|(node, memory)| (*node, memory.room))
            .collect(),
    };
    let requests = || configuration.requests.iter().enumerate();
    let mut named = Vec::new();
    for (index, request) in requests() {
        if let CpuRequest::Pool(cpus) = &request.cpus {
            let node = planner.take_named(cpus).map_err(at(request))?;
            let cpus = cpus.iter().copied().collect();
            named.push((index, request, node, cpus));
        }
    }
    // In the file's order.
    let mut entries = BTreeMap::new();
    for (index, request, node, cpus) in named {
        let entry = planner.with_memory(request, node, cpus).map_err(at(request))?;
        entries.insert(index, entry);
    }
    for (index, request) in requests() {
        if let CpuRequest::Count(count) = request.cpus {
            entries.insert(index, planner.counted(request, count).map_err(at(request))?);
        }
    }
    Ok(Pool::new(entries.into_values().collect()))
}

fn at(request: &Request) -> impl FnOnce(Obstacle) -> PlanError {
    let place = request.place;
    move |problem| PlanError { place, problem }
}

struct Planner<'a> {
    machine: &'a Machine,
    /// CPUs of reservations that are planned already.
    taken: BTreeSet<u32>,
    /// What they have left of the nodes' memory.
    room: BTreeMap<u32, Room>,
}

impl<'a> Planner<'a> {
    /// Takes these CPUs; their node.
    fn take_named(&mut self, cpus: &BTreeSet<u32>) -> Result<u32, Obstacle> {
        let mut first: Option<(u32, u32)> = None;
        for &cpu in cpus {
            let core = self.named_core(cpu, cpus)?;
            let (other_cpu, other_node) = *first.get_or_insert((cpu, core.node));
            if other_node != core.node {
                return Err(Obstacle::SeveralNodes {
                    cpu: other_cpu,
                    node: other_node,
                    other_cpu: cpu,
                    other_node: core.node,
                });
            }
        }
        if let Some(&cpu) = cpus.intersection(&self.taken).next() {
            return Err(Obstacle::Overlap { cpu });
        }
        self.taken.extend(cpus);
        Ok(first.map_or(0, |(_, node)| node))
    }

    /// The core of a named CPU, if enclaves may have it and `named` has all of it.
    fn named_core(&self, cpu: u32, named: &BTreeSet<u32>) -> Result<&'a Core, Obstacle> {
        let offline = &self.machine.offline;
        let Some(core) = self.machine.core_of(cpu) else {
            return Err(if offline.contains(&cpu) {
                Obstacle::Offline { cpu }
            } else {
                Obstacle::NoSuchCpu { cpu }
            });
        };
        let all = || core.cpus.clone();
        if core.cpus.contains(&0) {
            return Err(Obstacle::CoreOfCpu0 { cpu, core: all() });
        }
        if let Some(&missing) = core.cpus.iter().find(|cpu| !named.contains(cpu)) {
            return Err(Obstacle::PartOfCore {
                cpu,
                missing,
                core: all(),
            });
        }
        if !self.machine.is_whole(core) {
            return Err(Obstacle::IncompleteCore {
                cpu,
                offline: offline.iter().copied().collect(),
            });
        }
        Ok(core)
    }

    /// CPUs and memory of the first node that has both.
    fn counted(&mut self, request: &Request, count: u32) -> Result<PoolEntry, Obstacle> {
        let wanted = usize::try_from(count).unwrap_or(usize::MAX);
        let mut short_of_memory = Vec::new();
        let mut largest = 0;
        for node in self.nodes() {
            let free = self.free_cores(node);
            largest = largest.max(cpu_count(&free));
            let Some(cores) = cpus::fit(&free, wanted) else {
                continue;
            };
            let mut chosen: Vec<u32> = cores.iter().flat_map(|core| &core.cpus).copied().collect();
            chosen.sort_unstable();
            match self.with_memory(request, node, chosen) {
                Ok(entry) => {
                    self.taken.extend(&entry.cpus);
                    return Ok(entry);
                }
                Err(_) => short_of_memory.push(self.offer(node)),
            }
        }
        let every_node = || self.nodes().iter().map(|node| self.offer(*node)).collect();
        Err(if !short_of_memory.is_empty() {
            Obstacle::TooLittleMemory {
                wanted_mib: request.memory_mib,
                offers: short_of_memory,
            }
        } else if largest >= wanted {
            let threads = self.machine.cores.iter().map(|core| core.cpus.len()).max();
            Obstacle::SplitsCore {
                wanted: count,
                threads: threads.unwrap_or(1),
            }
        } else {
            Obstacle::TooFewCpus {
                wanted: count,
                offers: every_node(),
            }
        })
    }

    /// The reservation with pages of `node`, taken if they are there.
    fn with_memory(&mut self, request: &Request, node: u32, cpus: Vec<u32>) -> Result<PoolEntry, Obstacle> {
        let room = self.room.entry(node).or_insert(NO_ROOM);
        let Some((pages_1g, pages_2m)) = room.take(request.memory_mib) else {
            return Err(Obstacle::TooLittleMemory {
                wanted_mib: request.memory_mib,
                offers: vec![self.offer(node)],
            });
        };
        Ok(PoolEntry {
            node,
            cpus,
            pages_1g,
            pages_2m,
        })
    }

    /// Every node with a core.
    fn nodes(&self) -> BTreeSet<u32> {
        self.machine.cores.iter().map(|core| core.node).collect()
    }

    fn free_cores(&self, node: u32) -> Vec<&'a Core> {
        let is_free = |core: &&Core| core.cpus.iter().all(|cpu| !self.taken.contains(cpu));
        self.machine.cores_for_enclaves(node).filter(is_free).collect()
    }

    fn offer(&self, node: u32) -> Offer {
        let room = self.room.get(&node).copied().unwrap_or(NO_ROOM);
        Offer {
            node,
            cpus: cpu_count(&self.free_cores(node)),
            mib: room.bytes >> 20,
            has_small_pages: room.has_small_pages,
        }
    }
}

/// Of a node without hugepages.
const NO_ROOM: Room = Room {
    gigabyte_pages: 0,
    has_small_pages: false,
    bytes: 0,
};

impl Room {
    /// Pages of 1 GiB and of 2 MiB that make `mib` MiB with less than 2 MiB of waste, as many of the larger as can be had.
    fn take(&mut self, mib: u64) -> Option<(u64, u64)> {
        let all_small = mib.div_ceil(SMALL_PAGE_MIB);
        let bytes = all_small.checked_mul(PageSize::TwoMegabytes.bytes())?;
        let large = (all_small / SMALL_PAGES_PER_GIB).min(self.gigabyte_pages);
        let small = all_small - large * SMALL_PAGES_PER_GIB;
        if bytes > self.bytes || (small > 0 && !self.has_small_pages) {
            return None;
        }
        self.bytes -= bytes;
        self.gigabyte_pages -= large;
        Some((large, small))
    }
}

fn cpu_count(cores: &[&Core]) -> usize {
    cores.iter().map(|core| core.cpus.len()).sum()
}

fn list(cpus: &[u32]) -> String {
    let cpus: Vec<String> = cpus.iter().map(u32::to_string).collect();
    cpus.join(",")
}

#[cfg(test)]
mod tests;
