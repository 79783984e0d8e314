//! What CPUID tells the guest: what KVM supports here, with this enclave's topology, and less what an enclave has no use for or
//! could watch or burden the parent with: nested virtualisation, performance counters and traces of execution, enclaves of the
//! processor's own (SGX), waiting for memory to be written, page faults of the parent's.
//!
//! Leaf numbers are those of the Intel and AMD manuals. APIC ids equal vCPU numbers: whole cores, siblings side by
//! side, and the threads of a core are one or two, so an id's low bit is the thread.

use kvm_bindings::{CpuId, kvm_cpuid_entry2};

/// The processors of one enclave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Topology {
    pub(super) vcpus: u8,
    pub(super) threads_per_core: u8,
}

impl Topology {
    fn thread_bits(self) -> u32 {
        bits_for(self.threads_per_core)
    }

    fn package_bits(self) -> u32 {
        bits_for(self.vcpus)
    }
}

/// How many bits number `count` things.
fn bits_for(count: u8) -> u32 {
    u32::from(count.max(1)).next_power_of_two().trailing_zeros()
}

const LEAF_TOPOLOGY: u32 = 0xb;
const LEAF_TOPOLOGY_V2: u32 = 0x1f;
const LEAF_TOPOLOGY_AMD: u32 = 0x8000_0026;
const LEVEL_THREAD: u32 = 1 << 8;
const LEVEL_CORE: u32 = 2 << 8;

const ECX_DTES64: u32 = 1 << 2;
const ECX_MONITOR: u32 = 1 << 3;
const ECX_DS_CPL: u32 = 1 << 4;
const ECX_VMX: u32 = 1 << 5;
const ECX_PDCM: u32 = 1 << 15;
const ECX_X2APIC: u32 = 1 << 21;
const ECX_TSC_DEADLINE: u32 = 1 << 24;
const ECX_HYPERVISOR: u32 = 1 << 31;
const EDX_DS: u32 = 1 << 21;
const EDX_HTT: u32 = 1 << 28;
const AMD_ECX_CMP_LEGACY: u32 = 1 << 1;
const AMD_ECX_SVM: u32 = 1 << 2;
const AMD_ECX_IBS: u32 = 1 << 10;
const AMD_ECX_PERFCTR_CORE: u32 = 1 << 23;

/// Leaf 7, first subleaf.
const LEAF_FEATURES: u32 = 0x7;
const EBX_SGX: u32 = 1 << 2;
const EBX_PROCESSOR_TRACE: u32 = 1 << 25;
const ECX_WAITPKG: u32 = 1 << 5;
const ECX_SGX_LC: u32 = 1 << 30;
const EDX_ARCH_LBR: u32 = 1 << 19;

/// KVM's features (`Documentation/virt/kvm/x86/cpuid.rst`).
const LEAF_KVM_FEATURES: u32 = 0x4000_0001;
/// Guest memory is in hugepages that are there: it never waits for one (bits 4, 10 and 14). It does not migrate (bit 17), and nothing
/// of it is encrypted (bit 16).
const KVM_WITHOUT_USE: u32 = 1 << 4 | 1 << 10 | 1 << 14 | 1 << 16 | 1 << 17;

/// The entries that no vCPU's number changes: filtered once, then completed per vCPU by [`for_vcpu`].
pub(super) fn filtered(supported: &CpuId, tsc_deadline: bool) -> Vec<kvm_cpuid_entry2> {
    let kept = supported.as_slice().iter();
    let kept = kept.filter(|entry| {
        !matches!(
            entry.function,
            LEAF_TOPOLOGY | LEAF_TOPOLOGY_V2 | LEAF_TOPOLOGY_AMD
        )
    });
    kept.map(|entry| filter_entry(*entry, tsc_deadline)).collect()
}

fn filter_entry(mut entry: kvm_cpuid_entry2, tsc_deadline: bool) -> kvm_cpuid_entry2 {
    match entry.function {
        0x1 => {
            entry.ecx &= !(ECX_VMX | ECX_PDCM | ECX_DTES64 | ECX_DS_CPL | ECX_MONITOR);
            entry.edx &= !EDX_DS;
            entry.ecx |= ECX_HYPERVISOR | ECX_X2APIC;
            if tsc_deadline {
                entry.ecx |= ECX_TSC_DEADLINE;
            }
        }
        LEAF_FEATURES if entry.index == 0 => {
            entry.ebx &= !(EBX_SGX | EBX_PROCESSOR_TRACE);
            entry.ecx &= !(ECX_WAITPKG | ECX_SGX_LC);
            entry.edx &= !EDX_ARCH_LBR;
        }
        LEAF_KVM_FEATURES => entry.eax &= !KVM_WITHOUT_USE,
        // Nothing of MONITOR and MWAIT (5), performance counters (Intel 0xa, AMD 0x8000_0022), SGX (0x12), processor trace (0x14),
        // last branches (0x1c), nested virtualisation, instruction-based sampling (0x8000_001b), memory encryption.
        0x5 | 0xa | 0x12 | 0x14 | 0x1c | 0x8000_000a | 0x8000_001b | 0x8000_001f | 0x8000_0022 => {
            clear(&mut entry);
        }
        0x8000_0001 => entry.ecx &= !(AMD_ECX_SVM | AMD_ECX_IBS | AMD_ECX_PERFCTR_CORE),
        _ => {}
    }
    entry
}

fn clear(entry: &mut kvm_cpuid_entry2) {
    (entry.eax, entry.ebx, entry.ecx, entry.edx) = (0, 0, 0, 0);
}

/// The whole table of vCPU number `vcpu`.
pub(super) fn for_vcpu(common: &[kvm_cpuid_entry2], vcpu: u8, topology: Topology) -> Vec<kvm_cpuid_entry2> {
    let mut entries: Vec<_> = common
        .iter()
        .map(|entry| number(*entry, vcpu, topology))
        .collect();
    entries.extend(topology_leaf(vcpu, topology));
    entries
}

fn number(mut entry: kvm_cpuid_entry2, vcpu: u8, topology: Topology) -> kvm_cpuid_entry2 {
    let vcpus = u32::from(topology.vcpus);
    let threads = u32::from(topology.threads_per_core);
    match entry.function {
        0x1 => {
            entry.ebx = (entry.ebx & 0x0000_ffff) | (vcpus << 16) | (u32::from(vcpu) << 24);
            set(&mut entry.edx, EDX_HTT, vcpus > 1);
        }
        // Intel caches: sharing threads in bits 25:14 (first two levels per core, the third by all), cores in 31:26.
        0x4 if entry.eax & 0x1f != 0 => {
            let level = (entry.eax >> 5) & 0x7;
            let sharing = if level >= 3 { vcpus } else { threads };
            let cores = (vcpus / threads.max(1)).clamp(1, 64);
            entry.eax = (entry.eax & 0x3fff) | ((sharing - 1) << 14) | ((cores - 1) << 26);
        }
        0x8000_0001 => set(&mut entry.ecx, AMD_ECX_CMP_LEGACY, vcpus > 1),
        0x8000_0008 => entry.ecx = (entry.ecx & !0xf0ff) | (vcpus - 1) | (topology.package_bits() << 12),
        // AMD caches, as leaf 4.
        0x8000_001d if entry.eax & 0x1f != 0 => {
            let level = (entry.eax >> 5) & 0x7;
            let sharing = if level >= 3 { vcpus } else { threads };
            entry.eax = (entry.eax & !0x03ff_c000) | ((sharing - 1) << 14);
        }
        // AMD: APIC id, core and threads per core, one node.
        0x8000_001e => {
            entry.eax = u32::from(vcpu);
            entry.ebx = (u32::from(vcpu) >> topology.thread_bits()) | ((threads - 1) << 8);
            entry.ecx = 0;
        }
        _ => {}
    }
    entry
}

/// Sets or clears `bit`, whatever the host has there.
fn set(register: &mut u32, bit: u32, to: bool) {
    *register = if to { *register | bit } else { *register & !bit };
}

/// Leaf 0xb: threads, cores and the end mark.
fn topology_leaf(vcpu: u8, topology: Topology) -> [kvm_cpuid_entry2; 3] {
    let level = |index, eax, ebx, kind: u32| kvm_cpuid_entry2 {
        function: LEAF_TOPOLOGY,
        index,
        flags: kvm_bindings::KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
        eax,
        ebx,
        ecx: kind | index,
        edx: u32::from(vcpu),
        ..kvm_cpuid_entry2::default()
    };
    [
        level(
            0,
            topology.thread_bits(),
            u32::from(topology.threads_per_core),
            LEVEL_THREAD,
        ),
        level(1, topology.package_bits(), u32::from(topology.vcpus), LEVEL_CORE),
        level(2, 0, 0, 0),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(function: u32) -> kvm_cpuid_entry2 {
        kvm_cpuid_entry2 {
            function,
            eax: !0,
            ebx: !0,
            ecx: !0,
            edx: !0,
            ..Default::default()
        }
    }

    fn leaf(entries: &[kvm_cpuid_entry2], function: u32, index: u32) -> kvm_cpuid_entry2 {
        *entries
            .iter()
            .find(|entry| entry.function == function && entry.index == index)
            .unwrap()
    }

    #[test]
    fn nested_virtualisation_and_counters_are_hidden() {
        let supported =
            CpuId::from_entries(&[entry(1), entry(0xa), entry(0x8000_0001), entry(0x8000_000a)]).unwrap();

        let entries = filtered(&supported, false);

        assert_eq!(leaf(&entries, 1, 0).ecx & (ECX_VMX | ECX_PDCM), 0);
        assert_ne!(leaf(&entries, 1, 0).ecx & ECX_HYPERVISOR, 0);
        assert_eq!(leaf(&entries, 0xa, 0).eax, 0);
        assert_eq!(leaf(&entries, 0x8000_0001, 0).ecx & AMD_ECX_SVM, 0);
        assert_eq!(leaf(&entries, 0x8000_0001, 0).ecx & AMD_ECX_PERFCTR_CORE, 0);
        assert_eq!(leaf(&entries, 0x8000_000a, 0).edx, 0);
    }

    #[test]
    fn traces_and_enclaves_of_the_processor_are_hidden() {
        let other_subleaf = kvm_cpuid_entry2 { index: 1, ..entry(7) };
        let host = [
            entry(5),
            entry(7),
            other_subleaf,
            entry(0x12),
            entry(0x14),
            entry(0x8000_001b),
        ];
        let entries = filtered(&CpuId::from_entries(&host).unwrap(), false);

        let features = leaf(&entries, 7, 0);
        assert_eq!(features.ebx, !(EBX_SGX | EBX_PROCESSOR_TRACE));
        assert_eq!(
            (features.ecx, features.edx),
            (!(ECX_WAITPKG | ECX_SGX_LC), !EDX_ARCH_LBR)
        );
        assert_eq!(leaf(&entries, 7, 1).ebx, !0);
        for hidden in [5, 0x12, 0x14, 0x8000_001b] {
            let hidden = leaf(&entries, hidden, 0);
            assert_eq!((hidden.eax, hidden.ebx, hidden.ecx, hidden.edx), (0, 0, 0, 0));
        }
    }

    #[test]
    fn kvm_offers_its_clock_but_no_page_faults_of_its_own() {
        const CLOCK: u32 = 1 << 3;
        const ASYNC_PF: u32 = 1 << 4;
        let supported = CpuId::from_entries(&[entry(LEAF_KVM_FEATURES)]).unwrap();

        let features = leaf(&filtered(&supported, false), LEAF_KVM_FEATURES, 0).eax;

        assert_eq!(features & (CLOCK | ASYNC_PF), CLOCK);
    }

    #[test]
    fn four_vcpus_on_two_cores_are_described_as_such() {
        let topology = Topology {
            vcpus: 4,
            threads_per_core: 2,
        };
        let host = [entry(1), entry(0xb), entry(0x8000_001e), entry(LEAF_TOPOLOGY_AMD)];
        let supported = CpuId::from_entries(&host).unwrap();

        let entries = for_vcpu(&filtered(&supported, true), 3, topology);

        assert_eq!(leaf(&entries, 1, 0).ebx >> 16, 0x0304);
        assert_eq!(leaf(&entries, 0xb, 0).eax, 1);
        assert_eq!(leaf(&entries, 0xb, 0).ebx, 2);
        assert_eq!(leaf(&entries, 0xb, 1).eax, 2);
        assert_eq!(leaf(&entries, 0xb, 1).ebx, 4);
        assert_eq!(leaf(&entries, 0xb, 1).edx, 3);
        assert_eq!(leaf(&entries, 0x8000_001e, 0).ebx, 0x0101);
        assert_eq!(entries.iter().filter(|entry| entry.function == 0xb).count(), 3);
        assert!(entries.iter().all(|entry| entry.function != LEAF_TOPOLOGY_AMD));
    }

    #[test]
    fn one_vcpu_is_no_multiprocessor() {
        let topology = Topology {
            vcpus: 1,
            threads_per_core: 1,
        };
        let supported = CpuId::from_entries(&[entry(1), entry(0x8000_0001)]).unwrap();

        let entries = for_vcpu(&filtered(&supported, false), 0, topology);

        assert_eq!(leaf(&entries, 1, 0).edx & EDX_HTT, 0);
        assert_eq!(leaf(&entries, 0x8000_0001, 0).ecx & AMD_ECX_CMP_LEGACY, 0);
        assert_eq!(leaf(&entries, 0xb, 1).eax, 0);
    }
}
