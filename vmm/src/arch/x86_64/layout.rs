//! Guest-physical addresses, I/O ports and interrupt lines of the x86-64 machine.
//!
//! ```text
//! 0x0000_0500            GDT for the first instruction
//! 0x0000_7000            zero page (boot_params)
//! 0x0000_8ff0            boot stack, growing down
//! 0x0000_9000..0xc000    page tables: identity map of the first GiB
//! 0x0002_0000            kernel command line
//! 0x0009_fc00            MP table, where the kernel looks for it; reserved up to 1 MiB
//! 0x0010_0000            kernel, or the address its ELF headers name
//!        ...             ramdisks, as high as the kernel can reach
//! 0xc000_0000            end of low RAM (3 GiB: whole hugepages of either size)
//! 0xd000_0000            virtio-mmio windows, 4 KiB each
//! 0xfec0_0000            I/O APIC
//! 0xfee0_0000            local APICs
//! 0xfffb_d000            three pages KVM needs on Intel (KVM_SET_TSS_ADDR)
//! 0x1_0000_0000          the rest of RAM
//! ```

use std::ops::Range;

/// Where low RAM ends. RAM beyond it continues at [`HIGH_RAM_START`]. A multiple of 1 GiB so that one hugetlb file of
/// either page size can back both parts.
pub const LOW_RAM_END: u64 = 3 << 30;

/// Where RAM continues above the gap for devices.
pub const HIGH_RAM_START: u64 = 4 << 30;

/// The command line, its NUL included, in bytes (`COMMAND_LINE_SIZE` of Linux on x86).
pub const CMDLINE_CAPACITY: usize = 2048;

/// The virtio-vsock register window; the address of a Firecracker-like machine, which AWS's is.
pub const VSOCK_WINDOW: Range<u64> = 0xd000_0000..0xd000_1000;

/// The interrupt line of virtio-vsock.
pub const VSOCK_IRQ: u32 = 5;

/// The virtio-nsm register window.
pub const NSM_WINDOW: Range<u64> = 0xd000_1000..0xd000_2000;

/// The interrupt line of virtio-nsm.
pub const NSM_IRQ: u32 = 6;

/// The first of the eight ports of the 16550.
pub const SERIAL_PORTS: Range<u64> = 0x3f8..0x400;

/// The interrupt line of the 16550.
pub const SERIAL_IRQ: u32 = 4;

/// The ports of the keyboard controller, 0x60 data and 0x64 command; those between belong to others.
pub const I8042_PORTS: Range<u64> = 0x60..0x65;

/// The real-time clock's ports. There is none; Linux writes its warm-reset vector there before it starts a processor.
pub const CMOS_PORTS: Range<u64> = 0x70..0x72;

pub(super) const GDT: u64 = 0x500;
pub(super) const ZERO_PAGE: u64 = 0x7000;
pub(super) const BOOT_STACK: u64 = 0x8ff0;
pub(super) const PML4: u64 = 0x9000;
pub(super) const PDPT: u64 = 0xa000;
pub(super) const PAGE_DIRECTORY: u64 = 0xb000;
pub(super) const CMDLINE: u64 = 0x2_0000;
pub(super) const MP_TABLE: u64 = 0x9_fc00;
pub(super) const RESERVED_END: u64 = 0x10_0000;
pub(super) const KERNEL: u64 = 0x10_0000;
pub(super) const IO_APIC: u32 = 0xfec0_0000;
pub(super) const LOCAL_APIC: u32 = 0xfee0_0000;
pub(super) const KVM_TSS: usize = 0xfffb_d000;
