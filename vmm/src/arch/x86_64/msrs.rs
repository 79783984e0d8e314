//! Model-specific registers that the guest does not get.
//!
//! KVM refuses most registers of features that CPUID does not show, but not all: some it emulates for any guest, and for counters it
//! sets up events on the parent's processor. What is refused here raises a general protection fault in the guest, as a register
//! that a processor does not have. All others stay KVM's to answer: which ones a kernel needs depends on its version and on the
//! processor, and kernels that were built for AWS must boot (docs/decisions/0028).
//!
//! Numbers are those of the Intel manual, volume 4, and of the AMD manual, volume 2, appendix A.

use kvm_ioctls::{MsrFilterDefaultAction, MsrFilterRange, MsrFilterRangeFlags, VmFd};

use super::BootError;

/// Registers that follow each other: the first, and how many.
type Range = (u32, u32);

/// Counters of what the processor does, and what they are set up with: a guest could watch the parent by them.
const COUNTERS: [Range; 11] = [
    (0xc1, 8),          // IA32_PMC0 to 7
    (0x186, 8),         // IA32_PERFEVTSEL0 to 7
    (0x1a6, 2),         // MSR_OFFCORE_RSP_0, 1
    (0x309, 0x3d),      // IA32_FIXED_CTR0 to IA32_PERF_CAPABILITIES
    (0x38d, 0x66),      // IA32_FIXED_CTR_CTRL to MSR_PEBS_DATA_CFG
    (0x4c1, 8),         // IA32_A_PMC0 to 7
    (0x600, 1),         // IA32_DS_AREA
    (0xc000_0300, 4),   // PerfCntrGlobalStatus to PerfCntrGlobalStatusSet
    (0xc001_0000, 8),   // PERF_LEGACY_CTL0 to PERF_LEGACY_CTR3
    (0xc001_0200, 12),  // PERF_CTL0 to PERF_CTR5
    (0xc001_1030, 0xe), // instruction-based sampling, IBS_FETCH_CTL to IBS_OP_DATA4
];

/// Virtualisation within the guest.
const NESTED: [Range; 2] = [
    (0x480, 0x14),    // IA32_VMX_BASIC to IA32_VMX_EXIT_CTLS2
    (0xc001_0114, 4), // VM_CR to VM_HSAVE_PA
];

/// Interfaces of another hypervisor that KVM can emulate, Hyper-V's, and what KVM offers to guests whose memory is not always there.
/// KVM answers to the latter whatever CPUID says.
const PARAVIRTUAL: [Range; 3] = [
    (0x4000_0000, 0x200), // Hyper-V
    (0x4b56_4d02, 1),     // MSR_KVM_ASYNC_PF_EN
    (0x4b56_4d06, 3),     // MSR_KVM_ASYNC_PF_INT to MSR_KVM_MIGRATION_CONTROL
];

/// A bit for each register of the longest range, unset: refused.
const REFUSED: [u8; 0x200 / 8] = [0; 0x200 / 8];

/// Withholds the registers from all vCPUs of a machine. To be called before the first of them runs. KVM can do it since Linux 5.10.
pub(super) fn withhold(vm: &VmFd) -> Result<(), BootError> {
    let ranges: Vec<MsrFilterRange<'_>> = withheld().map(refused).collect();
    vm.set_msr_filter(MsrFilterDefaultAction::ALLOW, &ranges)
        .map_err(BootError::kvm("KVM_X86_SET_MSR_FILTER"))
}

fn withheld() -> impl Iterator<Item = Range> {
    COUNTERS.into_iter().chain(NESTED).chain(PARAVIRTUAL)
}

fn refused((base, msr_count): Range) -> MsrFilterRange<'static> {
    MsrFilterRange {
        flags: MsrFilterRangeFlags::READ | MsrFilterRangeFlags::WRITE,
        base,
        msr_count,
        bitmap: &REFUSED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What KVM takes (`KVM_MSR_FILTER_MAX_RANGES`), and what there are bits for.
    #[test]
    fn the_ranges_are_as_many_and_as_long_as_can_be_said() {
        assert!(withheld().count() <= 16);
        assert!(withheld().all(|(_, count)| (1..=0x200).contains(&count)));
    }

    /// Those without which Linux or glibc does not start: APIC base, system calls, the segments' bases, KVM's clock.
    #[test]
    fn what_every_guest_needs_is_not_among_them() {
        for needed in [
            0x1b,
            0x10,
            0x1a0,
            0x277,
            0xc000_0080,
            0xc000_0081,
            0xc000_0100,
            0xc000_0103,
            0x4b56_4d01,
        ] {
            assert!(
                withheld().all(|(base, count)| !(base..base + count).contains(&needed)),
                "{needed:#x}"
            );
        }
    }
}
