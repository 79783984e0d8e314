//! The one place that knows the processor architecture.
//!
//! Everything outside this module works with what it exports: guest-physical [`layout`], a [`KernelPlan`] (where the
//! bytes of a kernel image go), [`create_interrupt_controllers`], [`withhold_registers`],
//! [`write_boot_data`] and [`configure_vcpus`]. A second
//! architecture is a second directory here with the same exports, and nothing else.

#[cfg(target_arch = "x86_64")]
mod x86_64;
#[cfg(all(test, target_arch = "x86_64"))]
pub(crate) use x86_64::kernel_images;
#[cfg(target_arch = "x86_64")]
pub use x86_64::{
    BootData, BootError, EIF_ARCH, KernelError, KernelPlan, PROBE_ANSWER, PROBE_CODE, PROBE_PORT, Segment,
    configure_vcpus, create_interrupt_controllers, enter_real_mode, halted_for_ever, layout,
    machine_arguments, withhold_registers, write_boot_data,
};
