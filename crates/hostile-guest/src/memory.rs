//! Guest-physical memory, which is mapped one to one.
//!
//! ```text
//!   16 MiB   the kernel: code, data, stack
//!   24 MiB   tables of the processor: pages, segments, interrupts, the handlers' stacks
//!   32 MiB   what devices see: queues and buffers
//!   64 MiB   the least memory of an enclave
//!  3.. 4 GiB registers of devices
//! ```
//!
//! From 24 MiB on nothing belongs to a Rust value, so that words there may be read and written at will, also by devices.

#![expect(unsafe_code, reason = "memory by its address")]

use core::ops::Range;

/// Tables of the processor.
pub(crate) const TABLES: u64 = 24 << 20;

/// What devices see.
pub(crate) const SHARED: Range<u64> = 32 << 20..64 << 20;

/// Registers of devices.
pub(crate) const REGISTERS: Range<u64> = 3 << 30..4 << 30;

/// Boot data below the kernel: zero page and command line.
const BOOT_DATA: Range<u64> = 0x1000..0x10_0000;

/// A word of one, two, four or eight bytes.
pub(crate) trait Word: Copy {}

impl Word for u8 {}
impl Word for u16 {}
impl Word for u32 {}
impl Word for u64 {}

/// Reads the word at `address`.
///
/// # Panics
/// If it is not in a range that is named here, or not aligned.
pub(crate) fn read<T: Word>(address: u64) -> T {
    assert!(allowed::<T>(address), "read at {address:#x}");
    // SAFETY: mapped, aligned, and no Rust value is there; any bits are a word.
    unsafe { core::ptr::with_exposed_provenance::<T>(pointer_bits(address)).read_volatile() }
}

/// Reads a byte of this kernel's code.
///
/// # Panics
/// If `address` is not in the kernel.
pub(crate) fn read_code(address: u64) -> u8 {
    assert!((16 << 20..TABLES).contains(&address), "code at {address:#x}");
    // SAFETY: mapped; nobody changes code.
    unsafe { core::ptr::with_exposed_provenance::<u8>(pointer_bits(address)).read_volatile() }
}

/// Writes the word at `address`.
///
/// # Panics
/// If it is not in a range that is named here, or not aligned.
pub(crate) fn write<T: Word>(address: u64, word: T) {
    assert!(allowed::<T>(address), "write at {address:#x}");
    // SAFETY: mapped, aligned, and no Rust value is there.
    unsafe { core::ptr::with_exposed_provenance_mut::<T>(pointer_bits(address)).write_volatile(word) }
}

/// Fills `length` bytes from `address` on with zeros; both multiples of eight.
///
/// # Panics
/// As [`write()`].
pub(crate) fn clear(address: u64, length: u64) {
    (address..address + length)
        .step_by(8)
        .for_each(|word| write(word, 0_u64));
}

fn allowed<T: Word>(address: u64) -> bool {
    let length = size_of::<T>() as u64;
    let inside = |range: Range<u64>| range.contains(&address) && range.end - address >= length;
    let known = inside(TABLES..SHARED.end) || inside(REGISTERS) || inside(BOOT_DATA);
    known && address.is_multiple_of(length)
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "this kernel is for 64-bit machines alone"
)]
fn pointer_bits(address: u64) -> usize {
    address as usize
}
