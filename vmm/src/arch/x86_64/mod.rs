//! x86-64: a machine with PIC, I/O APIC, local APICs and PIT in KVM, no ACPI and no PCI, entered by the 64-bit Linux boot
//! protocol. Linux finds its processors by the MP table and its devices by the command line.

mod cpuid;
mod kernel;
pub mod layout;
mod mp_table;
mod msrs;
mod registers;
mod zero_page;

use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES, KVM_PIT_SPEAKER_DUMMY, kvm_pit_config};
use kvm_ioctls::{Cap, Kvm, VcpuFd, VmFd};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use cpuid::Topology;
#[cfg(test)]
pub(crate) use kernel::tests as kernel_images;
pub use kernel::{KernelError, KernelPlan, Segment};

/// The architecture an EIF must be for.
pub const EIF_ARCH: eif::Arch = eif::Arch::X86_64;

/// Why KVM or guest memory refused the boot state.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// An ioctl failed.
    #[error("{call} failed")]
    Kvm {
        /// The ioctl's name in the KVM API.
        call: &'static str,
        /// Its errno.
        source: kvm_ioctls::Error,
    },
    /// A table is longer than KVM's interface allows.
    #[error("too many entries for {0}")]
    TooManyEntries(&'static str),
    /// A boot structure lies outside of guest memory.
    #[error("boot data do not fit into guest memory")]
    Memory(#[from] vm_memory::GuestMemoryError),
    /// None, or more than the interrupt controllers can address.
    #[error("{0} vCPUs are not possible: this machine has 1 to {max}", max = mp_table::MAX_VCPUS)]
    VcpuCount(usize),
}

impl BootError {
    /// For `map_err` on a kvm-ioctls result.
    pub(crate) fn kvm(call: &'static str) -> impl Fn(kvm_ioctls::Error) -> Self {
        move |source| Self::Kvm { call, source }
    }
}

/// What the kernel is told of this enclave.
#[derive(Debug)]
pub struct BootData<'a> {
    /// Where the kernel is and what it can take.
    pub kernel: &'a KernelPlan,
    /// The measured command line and the machine's additions, without NUL.
    pub cmdline: &'a [u8],
    /// Guest-physical address and length of the concatenated ramdisks.
    pub initrd: Option<(u64, u64)>,
    /// Bytes of RAM, low and high together.
    pub ram: u64,
    /// Number of vCPUs.
    pub vcpus: usize,
}

/// What is appended to the EIF's command line, after measuring, so that the kernel finds the devices.
pub fn machine_arguments() -> String {
    let devices = [
        (layout::VSOCK_WINDOW, layout::VSOCK_IRQ),
        (layout::NSM_WINDOW, layout::NSM_IRQ),
    ];
    let argument = |(window, interrupt): (std::ops::Range<u64>, u32)| {
        format!(" virtio_mmio.device=4K@{:#x}:{interrupt}", window.start)
    };
    devices.map(argument).concat()
}

/// Creates PIC, I/O APIC and PIT. To be called before the first vCPU exists.
pub fn create_interrupt_controllers(vm: &VmFd) -> Result<(), BootError> {
    vm.set_tss_address(layout::KVM_TSS)
        .map_err(BootError::kvm("KVM_SET_TSS_ADDR"))?;
    vm.create_irq_chip()
        .map_err(BootError::kvm("KVM_CREATE_IRQCHIP"))?;
    // Linux gates the PIT through port 0x61 when it calibrates; "speaker dummy" makes KVM answer there.
    let pit = kvm_pit_config {
        flags: KVM_PIT_SPEAKER_DUMMY,
        ..kvm_pit_config::default()
    };
    vm.create_pit2(pit).map_err(BootError::kvm("KVM_CREATE_PIT2"))
}

/// Keeps from the guest what it has no use for and the parent should not offer: see `msrs`. To be called before the first vCPU runs.
pub fn withhold_registers(vm: &VmFd) -> Result<(), BootError> {
    msrs::withhold(vm)
}

/// Writes zero page, command line, MP table, page tables and GDT.
pub fn write_boot_data(memory: &GuestMemoryMmap, data: &BootData<'_>) -> Result<(), BootError> {
    let vcpus = u8::try_from(data.vcpus)
        .ok()
        .filter(|vcpus| (1..=mp_table::MAX_VCPUS).contains(vcpus));
    let vcpus = vcpus.ok_or(BootError::VcpuCount(data.vcpus))?;
    memory.write_slice(
        &zero_page::build(data.kernel, data.ram, data.initrd),
        GuestAddress(layout::ZERO_PAGE),
    )?;
    memory.write_slice(&[data.cmdline, b"\0"].concat(), GuestAddress(layout::CMDLINE))?;
    memory.write_slice(&mp_table::build(vcpus), GuestAddress(layout::MP_TABLE))?;
    registers::write_tables(memory)
}

/// CPUID, model-specific registers and, on vCPU 0, the boot registers of every vCPU in `vcpus`.
pub fn configure_vcpus(
    kvm: &Kvm,
    vcpus: &[VcpuFd],
    threads_per_core: u8,
    entry: u64,
) -> Result<(), BootError> {
    let supported = kvm
        .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
        .map_err(BootError::kvm("KVM_GET_SUPPORTED_CPUID"))?;
    let common = cpuid::filtered(&supported, kvm.check_extension(Cap::TscDeadlineTimer));
    let count = u8::try_from(vcpus.len()).map_err(|_| BootError::VcpuCount(vcpus.len()))?;
    let topology = Topology {
        vcpus: count,
        threads_per_core: threads_per_core.max(1),
    };
    for (number, vcpu) in (0..count).zip(vcpus) {
        let entries = cpuid::for_vcpu(&common, number, topology);
        let table = CpuId::from_entries(&entries).map_err(|_| BootError::TooManyEntries("KVM_SET_CPUID2"))?;
        registers::set_tsc_rate(vcpu);
        vcpu.set_cpuid2(&table)
            .map_err(BootError::kvm("KVM_SET_CPUID2"))?;
        registers::set_msrs(vcpu)?;
    }
    vcpus
        .first()
        .map_or(Ok(()), |bootstrap| registers::set(bootstrap, entry))
}

/// Whether nothing but another vCPU can make this one run again: it waits for a start-up IPI, or is halted with maskable
/// interrupts off. To be asked by the thread of the vCPU, outside of `KVM_RUN`.
pub fn halted_for_ever(vcpu: &VcpuFd) -> bool {
    const INTERRUPTS_ON: u64 = 1 << 9;
    let Ok(state) = vcpu.get_mp_state() else {
        return false;
    };
    match state.mp_state {
        kvm_bindings::KVM_MP_STATE_UNINITIALIZED | kvm_bindings::KVM_MP_STATE_INIT_RECEIVED => true,
        kvm_bindings::KVM_MP_STATE_HALTED => {
            let interrupts_off = vcpu.get_regs().is_ok_and(|regs| regs.rflags & INTERRUPTS_ON == 0);
            interrupts_off && vcpu.get_vcpu_events().is_ok_and(|events| events.nmi.pending == 0)
        }
        _ => false,
    }
}

/// Real-mode code that a usable KVM runs to its end, and an emulating one does not: it turns SSE on, uses it, and
/// writes [`PROBE_ANSWER`] to port [`PROBE_PORT`].
pub const PROBE_CODE: [u8; 26] = [
    0x0f,
    0x20,
    0xe0, // mov eax, cr4
    0x66,
    0x0d,
    0x00,
    0x06,
    0x00,
    0x00, // or eax, 0x600 (OSFXSR | OSXMMEXCPT)
    0x0f,
    0x22,
    0xe0, // mov cr4, eax
    0x0f,
    0x57,
    0xc0, // xorps xmm0, xmm0
    0x0f,
    0x11,
    0x06,
    0x00,
    0x05, // movups [0x500], xmm0
    0xb0,
    PROBE_ANSWER, // mov al, answer
    0xe6,
    PROBE_PORT, // out port, al
    0xf4,       // hlt
    0x90,       // nop
];

/// Where [`PROBE_CODE`] reports.
pub const PROBE_PORT: u8 = 0x10;

/// What [`PROBE_CODE`] reports.
pub const PROBE_ANSWER: u8 = b'K';

/// Points `vcpu` to real-mode code at guest-physical `address`, below 64 KiB.
pub fn enter_real_mode(vcpu: &VcpuFd, address: u16) -> Result<(), BootError> {
    let mut sregs = vcpu.get_sregs().map_err(BootError::kvm("KVM_GET_SREGS"))?;
    sregs.cs.base = 0;
    sregs.cs.selector = 0;
    vcpu.set_sregs(&sregs).map_err(BootError::kvm("KVM_SET_SREGS"))?;
    let mut regs = vcpu.get_regs().map_err(BootError::kvm("KVM_GET_REGS"))?;
    regs.rip = u64::from(address);
    regs.rflags = 2;
    vcpu.set_regs(&regs).map_err(BootError::kvm("KVM_SET_REGS"))
}
