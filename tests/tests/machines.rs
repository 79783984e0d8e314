// parent: --cpus 10 --threads 2 --memory 9G --hugepages-1g 6 --hugepages-2m 160 -- --test-threads 1
//! The machines that enclaves can be: with large pages, memory on both sides of the gap for devices, many CPUs, either
//! form of kernel.
//!
//! The parent has five cores of two threads, of which four are for enclaves. Its memory is allocated by the host as it is
//! touched; the large machine touches five GiB.

#![forbid(unsafe_code)]
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a suite fails on the spot"
)]

use std::fs;
use std::path::{Path, PathBuf};

use end_to_end_tests::{ContainerImage, Host, Launch, World, eifs, parent, rest_of_line};

/// Pages of this size, as sysfs names it, that are neither in use nor promised.
fn free_pages(size: &str) -> u64 {
    let counter = |name: &str| -> u64 {
        let path = format!("/sys/kernel/mm/hugepages/hugepages-{size}/{name}");
        let text = fs::read_to_string(path).expect("a counter of hugepages");
        text.trim().parse().expect("a number")
    };
    counter("free_hugepages") - counter("resv_hugepages")
}

/// Free pages of 1 GiB and of 2 MiB.
fn pools() -> (u64, u64) {
    (free_pages("1048576kB"), free_pages("2048kB"))
}

/// An EIF with the application `machine` on this kernel.
fn on_kernel(kernel: &Path, name: &str) -> PathBuf {
    let eif = eifs::path(name);
    ContainerImage::of_application("machine", &[]).build_on_kernel(kernel, &eif);
    eif
}

/// What the application `machine` says of the enclave that `launch` starts; checks `MemoryMiB`, too.
fn facts(launch: Launch, memory_mib: u64) -> Facts {
    let enclave = launch
        .with_memory(memory_mib)
        .in_debug_mode()
        .run(&Host::of_the_parent());
    assert_eq!(enclave.info["MemoryMiB"], memory_mib, "{}", enclave.info);
    let mut console = enclave.console();
    console.wait_for("machine: end of facts");
    Facts(console.stdout())
}

/// The console of an enclave.
struct Facts(String);

impl Facts {
    /// The rest of the line that begins with `start`.
    fn line(&self, start: &str) -> &str {
        rest_of_line(&self.0, start)
    }

    /// The number between `start` and `end`.
    fn number(&self, start: &str, end: &str) -> u64 {
        let number = self.line(start).strip_suffix(end).map(str::parse);
        number.expect("its unit is as agreed").expect("a number")
    }
}

#[test]
fn a_gibibyte_is_one_large_page_where_there_is_one() {
    let _world = World::enter();
    let host = Host::of_the_parent();
    let (large, small) = pools();

    let enclave = Launch::of(parent::hello_eif())
        .with_memory(1024)
        .in_debug_mode()
        .run(&host);

    assert_eq!(enclave.info["MemoryMiB"], 1024);
    assert_eq!(pools(), (large - 1, small));
    enclave.console().wait_for("Hello from the enclave side!");
    enclave.terminate();
    assert_eq!(pools(), (large, small));
}

#[test]
fn any_size_is_given_as_asked_in_pages_of_both_sizes() {
    let _world = World::enter();
    let (large, small) = pools();
    let eif = eifs::of_application("machine", &["fill", "1060"]);

    let enclave = Launch::of(eif)
        .with_memory(1224)
        .in_debug_mode()
        .run(&Host::of_the_parent());

    assert_eq!(enclave.info["MemoryMiB"], 1224);
    assert_eq!(pools(), (large - 1, small - 100));
    enclave.console().wait_for("filled 1060 MiB, 0 pages are wrong");
    enclave.terminate();
    assert_eq!(pools(), (large, small));
}

#[test]
fn five_gibibytes_lie_on_both_sides_of_the_gap_and_all_of_it_can_be_used() {
    let _world = World::enter();
    // More than the three GiB below the gap.
    let eif = eifs::of_application("machine", &["fill", "3584"]);

    let facts = facts(Launch::of(eif), 5 << 10);

    // The kernel keeps a page structure of 64 bytes for each page, and itself.
    let total_mib = facts.number("memory: ", " KiB") >> 10;
    assert!(total_mib >= 4900, "{total_mib} MiB");
    assert_eq!(facts.line("filled "), "3584 MiB, 0 pages are wrong");
    let above_mib = facts.number("above 4 GiB: ", " MiB");
    assert!(above_mib >= 512, "{above_mib} MiB");
}

#[test]
fn an_elf_kernel_boots_like_its_bzimage() {
    let _world = World::enter();
    let bzimage = facts(Launch::of(eifs::of_application("machine", &[])), 256);
    let elf = facts(Launch::of(on_kernel(&parent::vmlinux(), "elf.eif")), 256);

    for fact in ["CPUs online: ", "ran on: ", "siblings of CPU 0: "] {
        assert_eq!(elf.line(fact), bzimage.line(fact), "{fact}");
    }
}

#[test]
fn eight_vcpus_are_four_cores_of_two_threads_and_all_of_them_run() {
    let _world = World::enter();
    let eif = eifs::of_application("machine", &[]);

    let facts = facts(Launch::of(eif).with_cpu_count(8), 256);

    assert_eq!(facts.line("CPUs online: "), "0-7");
    assert_eq!(facts.line("ran on: "), "[0, 1, 2, 3, 4, 5, 6, 7]");
    assert_eq!(facts.line("siblings of CPU 0: "), "0-1");
}

/// A kernel whose header says that an initramfs must not lie low but may lie above 4 GiB finds it there, as one does that
/// is too large for the memory below. Loaders alone read those fields, so the kernel itself is none the wiser.
#[test]
fn an_initramfs_above_four_gibibytes_is_found() {
    // Fields of the setup header (Documentation/arch/x86/boot.rst).
    const INITRD_ADDR_MAX: usize = 0x22c;
    const XLOADFLAGS: usize = 0x236;
    const CAN_BE_LOADED_ABOVE_4G: u8 = 2;
    let _world = World::enter();
    let low = eifs::of_application("machine", &[]);
    let mut kernel = fs::read(parent::blob("bzImage")).expect("read the kernel");
    kernel[INITRD_ADDR_MAX..][..4].copy_from_slice(&0x00ff_ffff_u32.to_le_bytes());
    kernel[XLOADFLAGS] |= CAN_BE_LOADED_ABOVE_4G;
    let patched = eifs::path("no-low-initramfs");
    fs::write(&patched, kernel).expect("write the kernel");
    let high = on_kernel(&patched, "high.eif");

    let low = facts(Launch::of(low), 4 << 10).number("initramfs at ", " MiB");
    let high = facts(Launch::of(high), 4 << 10).number("initramfs at ", " MiB");

    assert!((16..3 << 10).contains(&low), "{low} MiB");
    assert!((4 << 10..5 << 10).contains(&high), "{high} MiB");
}
