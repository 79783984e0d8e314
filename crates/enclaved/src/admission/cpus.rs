//! The CPU pool and the choice of CPUs for an enclave.
//!
//! An enclave gets whole cores: two tenants never share a core's caches and execution units. CPU 0's core stays with
//! the parent. The pool itself never changes; which of its CPUs are held is the registry's to say and is passed in,
//! so there is no second account that could disagree.
//!
//! AWS decides in two steps with different error numbers, and so do we: [`CpuPool::check`] compares the request with
//! the whole pool (E20 to E22), [`CpuPool::choose`] with what is free (E29, the number of every refusal by the driver).

use std::cmp::Reverse;
use std::collections::BTreeSet;

use api::{CpuSelection, ErrorCode, Failure};

use super::topology::Core;

/// The cores that enclaves may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CpuPool {
    /// Ordered by their lowest CPU.
    cores: Vec<Core>,
    /// Whether the machine has more than one NUMA node, whatever the pool has.
    several_nodes: bool,
}

/// The CPUs of one enclave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CpuGrant {
    /// The parent's CPU for each vCPU. For a count: siblings side by side. For ids: the user's order.
    pub cpu_ids: Vec<u32>,
    /// Hardware threads per core to tell the guest of; 1 if the cores differ or the user's order tears siblings apart.
    pub threads_per_core: u8,
    /// The one NUMA node they are on, if the machine has several.
    pub node: Option<u32>,
}

impl CpuPool {
    /// The default pool: every core but CPU 0's.
    pub fn without_cpu_0(mut cores: Vec<Core>) -> Self {
        let nodes: BTreeSet<u32> = cores.iter().map(|core| core.node).collect();
        cores.retain(|core| !core.cpus.contains(&0));
        Self {
            cores,
            several_nodes: nodes.len() > 1,
        }
    }

    /// The cores of this pool all of whose CPUs are among `cpus`.
    #[must_use]
    pub fn restricted_to(&self, cpus: &BTreeSet<u32>) -> Self {
        let mut cores = self.cores.clone();
        cores.retain(|core| core.cpus.iter().all(|cpu| cpus.contains(cpu)));
        Self {
            cores,
            several_nodes: self.several_nodes,
        }
    }

    /// Every core of the pool, ordered by its lowest CPU.
    pub fn cores(&self) -> &[Core] {
        &self.cores
    }

    /// All CPUs of the pool, free or not.
    pub fn cpus(&self) -> BTreeSet<u32> {
        self.cores
            .iter()
            .flat_map(|core| core.cpus.iter().copied())
            .collect()
    }

    /// How many CPUs the pool has, free or not.
    pub fn size(&self) -> usize {
        self.cores.iter().map(|core| core.cpus.len()).sum()
    }

    /// Compares a request with the whole pool, whatever is free of it.
    ///
    /// # Errors
    /// E20 if a CPU is named twice, E21 if one is not in the pool, E22 if more are asked for than the pool has.
    pub fn check(&self, selection: &CpuSelection) -> Result<(), Failure> {
        match selection {
            CpuSelection::Count(count) => self.check_count(*count),
            CpuSelection::Ids(ids) => self.check_ids(ids),
        }
    }

    fn check_count(&self, count: u32) -> Result<(), Failure> {
        let size = self.size();
        if usize::try_from(count).unwrap_or(usize::MAX) <= size {
            return Ok(());
        }
        let message = if size == 0 {
            "The CPU pool is empty: CPU 0's core stays with the parent, and this machine has no other. \
             Enclaves need a machine with at least two cores."
                .to_owned()
        } else {
            format!(
                "Asked for {count} CPUs, but the pool has {size}: {}.",
                self.describe_cores()
            )
        };
        Err(Failure::new(ErrorCode::InsufficientCpus, message))
    }

    fn check_ids(&self, ids: &[u32]) -> Result<(), Failure> {
        let mut distinct = BTreeSet::new();
        if let Some(twice) = ids.iter().find(|id| !distinct.insert(**id)) {
            let message = format!("CPU {twice} was asked for twice.");
            return Err(Failure::new(ErrorCode::InvalidCpuConfiguration, message));
        }
        if let Some(stranger) = ids.iter().find(|id| self.core_of(**id).is_none()) {
            let message = match self.size() {
                0 => format!("CPU {stranger} is not in the CPU pool, which is empty."),
                _ => format!(
                    "CPU {stranger} is not in the CPU pool: {}. CPU 0's core stays with the parent.",
                    self.describe_cores()
                ),
            };
            return Err(Failure::new(ErrorCode::NoSuchCpuAvailableInPool, message));
        }
        Ok(())
    }

    /// The CPUs for a request that passed [`Self::check`]: those named, or whole free cores that hold exactly the
    /// wanted count. Of the NUMA nodes on which they fit, and whose memory fits, that with the fewest free CPUs is taken, so
    /// that the largest free block stays whole; of several such the lowest; of its cores the lowest. Only if they fit on no
    /// node, they come from several.
    ///
    /// # Errors
    /// E29: no CPU, half a core, or CPUs that another enclave holds.
    pub fn choose(
        &self,
        selection: &CpuSelection,
        held: &BTreeSet<u32>,
        memory_fits: impl Fn(u32) -> bool,
    ) -> Result<CpuGrant, Failure> {
        match selection {
            CpuSelection::Count(0) => Err(refusal("An enclave needs at least one CPU.")),
            CpuSelection::Ids(ids) if ids.is_empty() => Err(refusal("An enclave needs at least one CPU.")),
            CpuSelection::Count(count) => self.choose_count(*count, held, memory_fits),
            CpuSelection::Ids(ids) => self.choose_ids(ids, held),
        }
    }

    fn choose_count(
        &self,
        count: u32,
        held: &BTreeSet<u32>,
        memory_fits: impl Fn(u32) -> bool,
    ) -> Result<CpuGrant, Failure> {
        let wanted = usize::try_from(count).unwrap_or(usize::MAX);
        let is_free = |core: &&Core| core.cpus.iter().all(|cpu| !held.contains(cpu));
        let free: Vec<&Core> = self.cores.iter().filter(is_free).collect();
        if let Some(cores) = tightest_fit(&free, wanted, memory_fits).or_else(|| fit(&free, wanted)) {
            return Ok(CpuGrant {
                cpu_ids: cores.iter().flat_map(|core| core.cpus.iter().copied()).collect(),
                threads_per_core: common_thread_count(&cores),
                node: self.common_node(&cores),
            });
        }
        let everything: Vec<&Core> = self.cores.iter().collect();
        if fit(&everything, wanted).is_none() {
            return Err(refusal(&format!(
                "Asked for {count} CPUs, which would split a core; enclaves get whole cores. \
                 Ask for a multiple of {}.",
                self.threads_of_the_smallest_core()
            )));
        }
        let free_cpus = cpu_count(&free);
        Err(refusal(&format!(
            "Asked for {count} of the pool's {} CPUs, but only {free_cpus} are free: other enclaves hold the rest. \
             Terminate an enclave or ask for fewer CPUs.",
            self.size()
        )))
    }

    fn choose_ids(&self, ids: &[u32], held: &BTreeSet<u32>) -> Result<CpuGrant, Failure> {
        if let Some(busy) = ids.iter().find(|id| held.contains(id)) {
            return Err(refusal(&format!("CPU {busy} is in use by another enclave.")));
        }
        let cores: Vec<&Core> = self
            .cores
            .iter()
            .filter(|core| core.cpus.iter().any(|cpu| ids.contains(cpu)))
            .collect();
        for core in &cores {
            if let Some(absent) = core.cpus.iter().find(|cpu| !ids.contains(cpu)) {
                return Err(refusal(&format!(
                    "CPU {absent} is missing: it shares a core with {}, and enclaves get whole cores.",
                    list(core.cpus.iter().filter(|cpu| *cpu != absent))
                )));
            }
        }
        let threads = common_thread_count(&cores);
        let side_by_side = ids.chunks(usize::from(threads)).all(|chunk| {
            let cores: BTreeSet<_> = chunk.iter().map(|id| self.core_of(*id)).collect();
            cores.len() == 1
        });
        Ok(CpuGrant {
            cpu_ids: ids.to_vec(),
            threads_per_core: if side_by_side { threads } else { 1 },
            node: self.common_node(&cores),
        })
    }

    /// The one node of all these cores, if the machine has several.
    fn common_node(&self, cores: &[&Core]) -> Option<u32> {
        let first = cores.first()?.node;
        let common = self.several_nodes && cores.iter().all(|core| core.node == first);
        common.then_some(first)
    }

    /// The index of the core that has this CPU.
    fn core_of(&self, cpu: u32) -> Option<usize> {
        self.cores.iter().position(|core| core.cpus.contains(&cpu))
    }

    fn threads_of_the_smallest_core(&self) -> usize {
        self.cores.iter().map(|core| core.cpus.len()).min().unwrap_or(1)
    }

    fn describe_cores(&self) -> String {
        format!("CPUs {}", list(self.cores.iter().flat_map(|core| &core.cpus)))
    }
}

/// The fit on the node with the fewest free CPUs; one where memory fits, too, before one where it does not.
fn tightest_fit<'a>(
    free: &[&'a Core],
    wanted: usize,
    memory_fits: impl Fn(u32) -> bool,
) -> Option<Vec<&'a Core>> {
    let nodes: BTreeSet<u32> = free.iter().map(|core| core.node).collect();
    let fits = nodes.into_iter().filter_map(|node| {
        let cores: Vec<&Core> = free.iter().copied().filter(|core| core.node == node).collect();
        Some((
            (!memory_fits(node), cpu_count(&cores), node),
            fit(&cores, wanted)?,
        ))
    });
    fits.min_by_key(|(order, _)| *order).map(|(_, cores)| cores)
}

fn cpu_count(cores: &[&Core]) -> usize {
    cores.iter().map(|core| core.cpus.len()).sum()
}

/// Cores with exactly `wanted` CPUs in all: of each size the lowest, larger cores first, so that machines that mix
/// cores with and without threads are used well. Thread counts are powers of two, for which taking the largest that
/// still fits finds a solution whenever there is one.
pub(crate) fn fit<'a>(cores: &[&'a Core], wanted: usize) -> Option<Vec<&'a Core>> {
    let mut candidates = cores.to_vec();
    candidates.sort_by_key(|core| Reverse(core.cpus.len()));
    let mut missing = wanted;
    let mut chosen = Vec::new();
    for core in candidates {
        if core.cpus.len() <= missing {
            missing -= core.cpus.len();
            chosen.push(core);
        }
    }
    (missing == 0).then_some(chosen)
}

/// The thread count that all these cores have, else 1.
fn common_thread_count(cores: &[&Core]) -> u8 {
    let mut counts = cores.iter().map(|core| core.cpus.len());
    let first = counts.next().unwrap_or(1);
    let common = if counts.all(|count| count == first) {
        first
    } else {
        1
    };
    u8::try_from(common).unwrap_or(1)
}

fn refusal(message: &str) -> Failure {
    Failure::new(ErrorCode::IoctlFailure, message)
}

fn list<'a>(cpus: impl Iterator<Item = &'a u32>) -> String {
    cpus.map(u32::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;
