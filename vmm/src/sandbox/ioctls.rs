//! Numbers of ioctls on x86-64 (`include/uapi/linux/kvm.h` and `vhost.h`), as filters compare them.

pub(super) const KVM_CREATE_VM: u32 = 0xae01;
pub(super) const KVM_CHECK_EXTENSION: u32 = 0xae03;
pub(super) const KVM_GET_VCPU_MMAP_SIZE: u32 = 0xae04;
pub(super) const KVM_GET_SUPPORTED_CPUID: u32 = 0xc008_ae05;
pub(super) const KVM_CREATE_VCPU: u32 = 0xae41;
pub(super) const KVM_SET_USER_MEMORY_REGION: u32 = 0x4020_ae46;
pub(super) const KVM_SET_TSS_ADDR: u32 = 0xae47;
pub(super) const KVM_CREATE_IRQCHIP: u32 = 0xae60;
pub(super) const KVM_IRQ_LINE: u32 = 0x4008_ae61;
pub(super) const KVM_IRQFD: u32 = 0x4020_ae76;
pub(super) const KVM_CREATE_PIT2: u32 = 0x4040_ae77;
pub(super) const KVM_IOEVENTFD: u32 = 0x4040_ae79;
pub(super) const KVM_RUN: u32 = 0xae80;
pub(super) const KVM_GET_REGS: u32 = 0x8090_ae81;
pub(super) const KVM_SET_REGS: u32 = 0x4090_ae82;
pub(super) const KVM_GET_SREGS: u32 = 0x8138_ae83;
pub(super) const KVM_SET_SREGS: u32 = 0x4138_ae84;
pub(super) const KVM_SET_MSRS: u32 = 0x4008_ae89;
pub(super) const KVM_SET_CPUID2: u32 = 0x4008_ae90;
pub(super) const KVM_GET_MP_STATE: u32 = 0x8004_ae98;
pub(super) const KVM_GET_VCPU_EVENTS: u32 = 0x8040_ae9f;
pub(super) const KVM_SET_TSC_KHZ: u32 = 0xaea2;
pub(super) const KVM_X86_SET_MSR_FILTER: u32 = 0x4188_aec6;

pub(super) const VHOST_GET_FEATURES: u32 = 0x8008_af00;
pub(super) const VHOST_SET_FEATURES: u32 = 0x4008_af00;
pub(super) const VHOST_SET_OWNER: u32 = 0xaf01;
pub(super) const VHOST_SET_MEM_TABLE: u32 = 0x4008_af03;
pub(super) const VHOST_SET_VRING_NUM: u32 = 0x4008_af10;
pub(super) const VHOST_SET_VRING_ADDR: u32 = 0x4028_af11;
pub(super) const VHOST_SET_VRING_BASE: u32 = 0x4008_af12;
pub(super) const VHOST_SET_VRING_KICK: u32 = 0x4008_af20;
pub(super) const VHOST_SET_VRING_CALL: u32 = 0x4008_af21;
pub(super) const VHOST_VSOCK_SET_GUEST_CID: u32 = 0x4008_af60;
pub(super) const VHOST_VSOCK_SET_RUNNING: u32 = 0x4004_af61;

/// `FIONBIO`.
pub(super) const FIONBIO: u32 = 0x5421;
