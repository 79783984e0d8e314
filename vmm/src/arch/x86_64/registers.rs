//! The state in which the bootstrap vCPU meets the kernel: 64-bit mode, paging on, flat segments, as
//! `Documentation/arch/x86/boot.rst`, section "64-bit Boot Protocol", asks.

use kvm_bindings::{Msrs, kvm_dtable, kvm_msr_entry, kvm_regs, kvm_segment, kvm_sregs};
use kvm_ioctls::VcpuFd;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::{BootError, layout};

const CR0_PE: u64 = 1 << 0;
const CR0_ET: u64 = 1 << 4;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
const RFLAGS_RESERVED: u64 = 1 << 1;

const PAGE_PRESENT: u64 = 1 << 0;
const PAGE_WRITABLE: u64 = 1 << 1;
const PAGE_LARGE: u64 = 1 << 7;
const LARGE_PAGE: u64 = 2 << 20;
const TABLE_ENTRIES: u64 = 512;

const BOOT_CS: u16 = 0x10;
const BOOT_DS: u16 = 0x18;
const BOOT_TSS: u16 = 0x20;

const MSR_IA32_TSC: u32 = 0x10;
const MSR_IA32_MISC_ENABLE: u32 = 0x1a0;
const MISC_ENABLE_FAST_STRING: u64 = 1;
const MSR_MTRR_DEF_TYPE: u32 = 0x2ff;
const MTRR_ENABLE: u64 = 1 << 11;
const MTRR_WRITE_BACK: u64 = 6;

/// The descriptors behind `BOOT_CS`, `BOOT_DS` and `BOOT_TSS`: flat 4 GiB code (64-bit) and data, and a busy TSS.
const GDT: [u64; 5] = [
    0,
    0,
    0x00af_9b00_0000_ffff,
    0x00cf_9300_0000_ffff,
    0x008f_8b00_0000_ffff,
];

/// Writes page tables (identity map of the first GiB by 2 MiB pages) and GDT to where the registers will point.
pub(super) fn write_tables(memory: &GuestMemoryMmap) -> Result<(), BootError> {
    let table = PAGE_PRESENT | PAGE_WRITABLE;
    memory.write_obj(layout::PDPT | table, GuestAddress(layout::PML4))?;
    memory.write_obj(layout::PAGE_DIRECTORY | table, GuestAddress(layout::PDPT))?;
    let entries = (0..TABLE_ENTRIES).map(|page| (page * LARGE_PAGE) | table | PAGE_LARGE);
    let directory: Vec<u8> = entries.flat_map(u64::to_le_bytes).collect();
    memory.write_slice(&directory, GuestAddress(layout::PAGE_DIRECTORY))?;
    let gdt: Vec<u8> = GDT.iter().copied().flat_map(u64::to_le_bytes).collect();
    memory.write_slice(&gdt, GuestAddress(layout::GDT))?;
    Ok(())
}

/// Sets registers of the bootstrap vCPU. The others wait for a start-up IPI as KVM makes them.
pub(super) fn set(vcpu: &VcpuFd, entry: u64) -> Result<(), BootError> {
    let registers = kvm_regs {
        rip: entry,
        rsi: layout::ZERO_PAGE,
        rsp: layout::BOOT_STACK,
        rbp: layout::BOOT_STACK,
        rflags: RFLAGS_RESERVED,
        ..kvm_regs::default()
    };
    vcpu.set_regs(&registers)
        .map_err(BootError::kvm("KVM_SET_REGS"))?;
    let reset_state = vcpu.get_sregs().map_err(BootError::kvm("KVM_GET_SREGS"))?;
    vcpu.set_sregs(&long_mode(&reset_state))
        .map_err(BootError::kvm("KVM_SET_SREGS"))
}

/// Gives `vcpu` the TSC rate that the host has now.
///
/// KVM's default on a processor without constant TSC is the rate it knew when it was loaded. If the host has refined its
/// calibration since, KVM tries to scale and, where the processor cannot, leaves the vCPU with a TSC that stands still in
/// KVM's eyes: no TSC-deadline timer ever fires (`set_tsc_khz` in arch/x86/kvm/x86.c). Rate 0 means the current one.
pub(super) fn set_tsc_rate(vcpu: &VcpuFd) {
    // A KVM that refuses keeps its default, which is right wherever this call is not needed.
    let _ = vcpu.set_tsc_khz(0);
}

/// Model-specific registers that firmware would set on every processor: write-back memory by default, and fast string
/// instructions, without which Linux on Intel avoids them.
pub(super) fn set_msrs(vcpu: &VcpuFd) -> Result<(), BootError> {
    let entry = |index, data| kvm_msr_entry {
        index,
        data,
        ..kvm_msr_entry::default()
    };
    let entries = [
        // Zero on every vCPU makes KVM keep them in step.
        entry(MSR_IA32_TSC, 0),
        entry(MSR_IA32_MISC_ENABLE, MISC_ENABLE_FAST_STRING),
        entry(MSR_MTRR_DEF_TYPE, MTRR_ENABLE | MTRR_WRITE_BACK),
    ];
    let msrs = Msrs::from_entries(&entries).map_err(|_| BootError::TooManyEntries("KVM_SET_MSRS"))?;
    vcpu.set_msrs(&msrs)
        .map(drop)
        .map_err(BootError::kvm("KVM_SET_MSRS"))
}

/// `reset_state` changed to 64-bit mode with flat segments.
fn long_mode(reset_state: &kvm_sregs) -> kvm_sregs {
    let code = segment(BOOT_CS, 0xb, true);
    let data = segment(BOOT_DS, 0x3, false);
    let task = kvm_segment {
        s: 0,
        db: 0,
        ..segment(BOOT_TSS, 0xb, false)
    };
    let limit = u16::try_from(size_of_val(&GDT) - 1).unwrap_or(u16::MAX);
    kvm_sregs {
        cs: code,
        ds: data,
        es: data,
        fs: data,
        gs: data,
        ss: data,
        tr: task,
        gdt: kvm_dtable {
            base: layout::GDT,
            limit,
            ..kvm_dtable::default()
        },
        idt: kvm_dtable::default(),
        cr0: CR0_PE | CR0_ET | CR0_PG,
        cr3: layout::PML4,
        cr4: CR4_PAE,
        efer: EFER_LME | EFER_LMA,
        ..*reset_state
    }
}

/// A present, page-granular, flat segment of the given type; `long` makes it 64-bit code.
fn segment(selector: u16, type_: u8, long: bool) -> kvm_segment {
    kvm_segment {
        base: 0,
        limit: 0xffff_ffff,
        selector,
        type_,
        present: 1,
        dpl: 0,
        db: u8::from(!long),
        s: 1,
        l: u8::from(long),
        g: 1,
        ..kvm_segment::default()
    }
}
