//! Where the machine enters the kernel: 64-bit mode, the first GiB mapped one to one, RSI at the zero page.

#![no_std]
#![no_main]
#![expect(
    unsafe_code,
    reason = "the first instructions have to be those of the processor"
)]

mod memory_functions;

use core::arch::global_asm;
use core::panic::PanicInfo;

// The library `core` has been compiled for processors whose SSE is on.
global_asm!(
    ".section .text.entry, \"ax\"",
    ".globl _start",
    "_start:",
    "cli",
    "mov rax, cr0",
    "and al, 0xfb", // EM off
    "or al, 2",     // MP on
    "mov cr0, rax",
    "mov rax, cr4",
    "or eax, 0x600", // OSFXSR, OSXMMEXCPT
    "mov cr4, rax",
    "lea rsp, [rip + stack_end]",
    "xor ebp, ebp",
    "mov rdi, rsi",
    "call {start}",
    "ud2",
    ".section .bss.stack, \"aw\", @nobits",
    ".balign 4096",
    ".skip 256 * 1024",
    "stack_end:",
    ".text",
    start = sym start,
);

extern "C" fn start(zero_page: u64) -> ! {
    hostile_guest::run(zero_page)
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    hostile_guest::fail(info)
}
