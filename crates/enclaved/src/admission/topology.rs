//! What the parent's CPUs are: whole cores and the NUMA node of each, read once from sysfs.
//!
//! `cpu/online` lists the CPUs that run, `cpu/cpuN/topology/thread_siblings_list` the hardware threads of N's core,
//! `node/nodeN/cpulist` the CPUs of a NUMA node. All three are CPU lists of the kernel: `0,2-5` (`Documentation/
//! admin-guide/cputopology.rst`). A machine without the `node` directory has one node.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

/// Where the kernel describes CPUs and nodes.
pub const SYSFS: &str = "/sys/devices/system";

/// More CPUs than any kernel supports; a list that names a higher one is damaged.
const MAX_CPU: u32 = 1 << 16;

/// One physical core.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Core {
    /// The NUMA node it belongs to.
    pub node: u32,
    /// Its online hardware threads, in ascending order; at least one.
    pub cpus: Vec<u32>,
}

/// Why the topology could not be read.
#[derive(Debug, thiserror::Error)]
pub enum TopologyError {
    /// A file of sysfs could not be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// A file of sysfs does not hold a CPU list.
    #[error("{path} holds {content:?}, which is no CPU list")]
    NoCpuList {
        /// The file.
        path: String,
        /// What it holds.
        content: String,
    },
}

/// Every core with an online CPU, ordered by its lowest CPU, as `sysfs` (usually [`SYSFS`]) describes them.
///
/// # Errors
/// [`TopologyError`] if the online CPUs cannot be read. A CPU whose siblings cannot be read is its own core.
pub fn read_cores(sysfs: &Path) -> Result<Vec<Core>, TopologyError> {
    let online = read_cpu_list(&sysfs.join("cpu/online"))?;
    let nodes = read_nodes(sysfs)?;
    let mut seen = BTreeSet::new();
    let mut cores = Vec::new();
    for &cpu in &online {
        if !seen.insert(cpu) {
            continue;
        }
        let siblings_file = sysfs.join(format!("cpu/cpu{cpu}/topology/thread_siblings_list"));
        let mut siblings = read_cpu_list(&siblings_file).unwrap_or_default();
        siblings.insert(cpu);
        let cpus: Vec<u32> = siblings.intersection(&online).copied().collect();
        seen.extend(&cpus);
        let node = nodes
            .iter()
            .find(|(_, cpus)| cpus.contains(&cpu))
            .map_or(0, |(node, _)| *node);
        cores.push(Core { node, cpus });
    }
    Ok(cores)
}

/// The CPUs of each NUMA node that has any.
fn read_nodes(sysfs: &Path) -> Result<Vec<(u32, BTreeSet<u32>)>, TopologyError> {
    let Ok(entries) = std::fs::read_dir(sysfs.join("node")) else {
        return Ok(Vec::new());
    };
    let mut nodes = Vec::new();
    for entry in entries.flatten() {
        let name = entry.file_name();
        let number = name
            .to_str()
            .and_then(|name| name.strip_prefix("node")?.parse().ok());
        if let Some(number) = number {
            nodes.push((number, read_cpu_list(&entry.path().join("cpulist"))?));
        }
    }
    nodes.sort_unstable_by_key(|(number, _)| *number);
    Ok(nodes)
}

/// The CPUs that a file of sysfs lists.
pub(crate) fn read_cpu_list(path: &Path) -> Result<BTreeSet<u32>, TopologyError> {
    let content = std::fs::read_to_string(path).map_err(|source| TopologyError::Read {
        path: path.display().to_string(),
        source,
    })?;
    parse_cpu_list(content.trim()).ok_or_else(|| TopologyError::NoCpuList {
        path: path.display().to_string(),
        content: content.trim().chars().take(80).collect(),
    })
}

/// The CPUs of a list such as `0,2-5`; an empty text is an empty list.
pub(crate) fn parse_cpu_list(text: &str) -> Option<BTreeSet<u32>> {
    let mut cpus = BTreeSet::new();
    for range in text.split(',').filter(|_| !text.is_empty()) {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        if first > last || last >= MAX_CPU {
            return None;
        }
        cpus.extend(first..=last);
    }
    Some(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fs;

    fn write(root: &Path, file: &str, content: &str) {
        let path = root.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    #[test]
    fn two_nodes_with_two_threads_per_core_are_read_as_whole_cores() {
        let sysfs = tempfile::tempdir().unwrap();
        let root = sysfs.path();
        write(root, "cpu/online", "0-7\n");
        for cpu in 0..8 {
            let first = cpu % 4;
            write(
                root,
                &format!("cpu/cpu{cpu}/topology/thread_siblings_list"),
                &format!("{first},{}\n", first + 4),
            );
        }
        write(root, "node/node0/cpulist", "0-1,4-5\n");
        write(root, "node/node1/cpulist", "2-3,6-7\n");
        write(root, "node/online", "0-1\n");

        let cores = read_cores(root).unwrap();

        let expected = [(0, [0, 4]), (0, [1, 5]), (1, [2, 6]), (1, [3, 7])];
        let expected = expected.map(|(node, cpus)| Core {
            node,
            cpus: cpus.to_vec(),
        });
        assert_eq!(cores, expected);
    }

    #[test]
    fn offline_cpus_are_not_there_and_a_machine_without_nodes_has_node_0() {
        let sysfs = tempfile::tempdir().unwrap();
        let root = sysfs.path();
        write(root, "cpu/online", "0,2\n");
        write(root, "cpu/cpu0/topology/thread_siblings_list", "0-1\n");

        let cores = read_cores(root).unwrap();

        let cpus: Vec<_> = cores.iter().map(|core| (core.node, core.cpus.clone())).collect();
        assert_eq!(cpus, [(0, vec![0]), (0, vec![2])]);
    }

    #[test]
    fn a_damaged_sysfs_is_named() {
        let sysfs = tempfile::tempdir().unwrap();
        assert!(matches!(
            read_cores(sysfs.path()),
            Err(TopologyError::Read { .. })
        ));

        write(sysfs.path(), "cpu/online", "0-x\n");
        let error = read_cores(sysfs.path()).unwrap_err();

        assert!(error.to_string().contains("cpu/online holds \"0-x\""), "{error}");
    }

    #[test]
    fn this_machine_has_a_core_with_cpu_0() {
        let cores = read_cores(Path::new(SYSFS)).unwrap();
        assert!(cores.iter().any(|core| core.cpus.contains(&0)));
    }

    #[test]
    fn lists_are_parsed_strictly() {
        assert_eq!(parse_cpu_list("0,2-4"), Some([0, 2, 3, 4].into()));
        assert_eq!(parse_cpu_list(""), Some([].into()));
        for malformed in [",", "1,", "a", "3-1", "1-2-3", "-1", "0-4294967295"] {
            assert_eq!(parse_cpu_list(malformed), None, "{malformed}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in "[0-9,\\- x]{0,40}") {
            let _ = parse_cpu_list(&text);
        }
    }
}
