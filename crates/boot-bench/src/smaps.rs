//! Private memory of a process, from `/proc/PID/smaps` (`Documentation/filesystems/proc.rst`).
//!
//! ```text
//! 7f5c40000000-7f5c50000000 rw-s 00000000 00:0f 5   /memfd:guest-memory (deleted)
//! Size:             262144 kB
//! KernelPageSize:     2048 kB
//! Private_Clean:         0 kB
//! Private_Dirty:         0 kB
//! VmFlags: rd wr sh mr mw me ms de ht
//! ```

/// Pages of this size are ordinary ones; mappings of larger ones are guest memory.
const SMALL_PAGE_KIB: u64 = 4;

/// Bytes that no other process shares with this one, in mappings of ordinary pages: the memory that comes on top of the
/// guest's.
pub(crate) fn private_bytes(smaps: &str) -> u64 {
    let mut total = 0;
    let mut ordinary = true;
    for line in smaps.lines() {
        let Some((name, value)) = field(line) else {
            continue;
        };
        match name {
            "KernelPageSize" => ordinary = value <= SMALL_PAGE_KIB,
            // These follow KernelPageSize in each mapping.
            "Private_Clean" | "Private_Dirty" if ordinary => total += value,
            _ => {}
        }
    }
    total * 1024
}

/// `Name:   123 kB`.
fn field(line: &str) -> Option<(&str, u64)> {
    let (name, rest) = line.split_once(':')?;
    let value = rest.trim().strip_suffix(" kB")?;
    Some((name, value.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMAPS: &str = "\
00400000-004c0000 r-xp 00001000 00:02 77                                 /usr/bin/enclave-vmm
Size:                768 kB
KernelPageSize:        4 kB
MMUPageSize:           4 kB
Rss:                 512 kB
Shared_Clean:         12 kB
Shared_Dirty:          0 kB
Private_Clean:       500 kB
Private_Dirty:         0 kB
VmFlags: rd ex mr mw me
01a0f000-01a31000 rw-p 00000000 00:00 0                                  [heap]
Size:                136 kB
KernelPageSize:        4 kB
Private_Clean:         0 kB
Private_Dirty:        64 kB
7f5c40000000-7f5c50000000 rw-s 00000000 00:0f 5                          /memfd:guest: 1 kB (deleted)
Size:             262144 kB
KernelPageSize:     2048 kB
Private_Clean:      2048 kB
Private_Dirty:      4096 kB
Private_Hugetlb:  262144 kB
7ffe0000-7ffe1000 rw-p 00000000 00:00 0                                  [stack]
KernelPageSize:        4 kB
Private_Clean:         4 kB
Private_Dirty:         8 kB
";

    #[test]
    fn private_pages_count_and_guest_memory_does_not() {
        assert_eq!(private_bytes(SMAPS), (500 + 64 + 4 + 8) * 1024);
    }

    #[test]
    fn a_process_that_has_ended_has_no_memory() {
        assert_eq!(private_bytes(""), 0);
    }

    #[test]
    fn this_process_has_memory_of_its_own() {
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        assert!(private_bytes(&smaps) > 64 << 10);
    }
}
