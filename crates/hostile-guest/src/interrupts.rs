//! Interrupts and exceptions: the first are counted, the others pass over the instruction that was tried.
//!
//! # What is tried
//!
//! An instruction that may fail is surrounded by `attempt!`: R14 holds a mark, R15 the address at which to
//! go on. The handler of an exception that finds the mark clears it and goes there. Without it, an exception is a fault of this
//! kernel's own: it says so and resets the machine.

#![expect(unsafe_code, reason = "handlers, and instructions that may fail")]

use core::arch::{asm, global_asm};
use core::sync::atomic::{AtomicU64, Ordering};

use crate::memory;
use crate::processor::{self, CODE, IDT, port_write};
use crate::random::Random;

/// Present interrupt gate.
const GATE: u64 = 0x8e;

const LOCAL_APIC: u64 = 0xfee0_0000;
const PRIORITY: u64 = 0x80;
const TIMER: u64 = 0x320;
const TIMER_COUNT: u64 = 0x380;
const TIMER_DIVIDE: u64 = 0x3e0;

/// The model-specific register that says where the local APIC is, and how it is reached.
const APIC_BASE: u32 = 0x1b;
const APIC_X2: u64 = 1 << 10;
const APIC_ENABLED: u64 = 1 << 11;
const X2APIC_PRIORITY: u32 = 0x808;

const NMI: u64 = 2;
const DOUBLE_FAULT: u64 = 8;

/// Bytes from one stub to the next.
const STUB: u64 = 16;

/// What R14 holds while something is tried.
const MARK: u64 = 0x7ab1_e5ed;

static COUNT: AtomicU64 = AtomicU64::new(0);

unsafe extern "C" {
    /// The first of 256 stubs.
    fn hostile_guest_stubs();
}

global_asm!(
    ".balign 16",
    ".globl hostile_guest_stubs",
    "hostile_guest_stubs:",
    ".set vector, 0",
    ".rept 256",
    ".balign 16",
    // Those without an error code get one.
    ".if (vector <> 8) & (vector <> 10) & (vector <> 11) & (vector <> 12) & (vector <> 13) & (vector <> 14) & (vector <> 17) & (vector <> 21) & (vector <> 29) & (vector <> 30)",
    "push 0",
    ".endif",
    "push vector",
    "jmp 2f",
    ".set vector, vector + 1",
    ".endr",
    "2:",
    "cmp qword ptr [rsp], 2",
    "je 4f",
    "cmp qword ptr [rsp], 32",
    "jae 3f",
    "cmp r14, {mark}",
    "jne 5f",
    "xor r14d, r14d",
    "mov [rsp + 16], r15",
    "add rsp, 16",
    "iretq",
    // An interrupt: told to local APIC and PICs that it is over, whoever of them has sent it.
    "3:",
    "push rax",
    "lock inc qword ptr [rip + {count}]",
    "mov eax, 0xfee000b0",
    "mov dword ptr [rax], 0",
    "mov al, 0x20",
    "out 0x20, al",
    "out 0xa0, al",
    "pop rax",
    "4:",
    "add rsp, 16",
    "iretq",
    "5:",
    "pop rdi",
    "pop rsi",
    "pop rdx",
    "and rsp, -16",
    "call {unexpected}",
    mark = const MARK,
    count = sym COUNT,
    unexpected = sym unexpected,
);

extern "C" fn unexpected(vector: u64, error_code: u64, instruction: u64) -> ! {
    crate::serial::line(format_args!(
        "exception {vector}, error code {error_code:#x}, at {instruction:#x}"
    ));
    processor::reset_machine()
}

/// Makes and loads the interrupt descriptors.
pub(crate) fn set_up() {
    let stubs = hostile_guest_stubs as *const () as u64;
    for vector in 0..256 {
        let handler = stubs + vector * STUB;
        let stack = if [NMI, DOUBLE_FAULT].contains(&vector) {
            2
        } else {
            1
        };
        let low = handler & 0xffff
            | u64::from(CODE) << 16
            | stack << 32
            | GATE << 40
            | (handler >> 16 & 0xffff) << 48;
        memory::write(IDT + vector * 16, low);
        memory::write(IDT + vector * 16 + 8, handler >> 32);
    }
    processor::load_interrupt_descriptors();
}

/// Has no interrupt come in but NMIs, whatever was done to the controllers before: PICs reset and masked, the processor's
/// priority above all others.
pub(crate) fn quiet() {
    set_priority(15);
    set_pics(0xff);
}

/// Lets the timer's and the local APIC's interrupts come in as soon as they are on.
pub(crate) fn take() {
    set_pics(0xfe);
    set_priority(0);
}

/// Vectors from 32 on, and masks.
fn set_pics(mask: u8) {
    for (command, vector, cascade) in [(0x20, 0x20_u8, 4_u8), (0xa0, 0x28, 2)] {
        port_write(command, 0x11_u8);
        for word in [vector, cascade, 1, mask] {
            port_write(command + 1, word);
        }
        port_write(command, 0x20_u8);
    }
}

/// Interrupts of up to this priority wait. An APIC that an attack has moved is brought back.
///
/// CR8 would be simpler, but QEMU (7.2 and 10.0) ends by an assertion when the guest of an emulated processor writes it while
/// an interrupt waits.
pub(crate) fn set_priority(priority: u32) {
    let base = read_msr(APIC_BASE).unwrap_or(LOCAL_APIC | APIC_ENABLED);
    if base & APIC_ENABLED == 0 {
        // Nothing comes from it.
        return;
    }
    // Neither is refused.
    let _ = if base & APIC_X2 != 0 {
        write_msr(X2APIC_PRIORITY, u64::from(priority << 4))
    } else {
        let moved = write_msr(APIC_BASE, base & 0xfff | LOCAL_APIC);
        memory::write(LOCAL_APIC + PRIORITY, priority << 4);
        moved
    };
}

/// Starts the local APIC's timer, and halts until it or another interrupt comes.
pub(crate) fn wait_for_timer(random: &mut Random) {
    memory::write(LOCAL_APIC + TIMER_DIVIDE, 0xb_u32);
    memory::write(LOCAL_APIC + TIMER, 0x40_u32);
    memory::write(LOCAL_APIC + TIMER_COUNT, 1 + random.word32() % 2000);
    processor::halt_until_interrupt();
}

/// Interrupts so far.
pub(crate) fn count() -> u64 {
    COUNT.load(Ordering::Relaxed)
}

/// An instruction has raised an exception.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Exception;

/// Runs one instruction that may fail. R14 and R15 are taken; operands are in others.
macro_rules! attempt {
    ($instruction:literal, $($operands:tt)*) => {{
        let mark: u64;
        // SAFETY: the caller's; an exception goes on after the instruction.
        unsafe {
            asm!(
                "lea r15, [rip + 2f]",
                $instruction,
                "2:",
                $($operands)*
                inout("r14") MARK => mark,
                out("r15") _,
            );
        }
        if mark == MARK { Ok(()) } else { Err(Exception) }
    }};
}

/// Reads a model-specific register.
pub(crate) fn read_msr(register: u32) -> Result<u64, Exception> {
    let (low, high): (u32, u32);
    attempt!("rdmsr", in("ecx") register, inout("eax") 0 => low, inout("edx") 0 => high,)?;
    Ok(u64::from(high) << 32 | u64::from(low))
}

/// Writes a model-specific register. Which ones do not end this kernel is the caller's knowledge.
pub(crate) fn write_msr(register: u32, value: u64) -> Result<(), Exception> {
    let (low, high) = (value & 0xffff_ffff, value >> 32);
    attempt!("wrmsr", in("ecx") register, in("rax") low, in("rdx") high,)
}

/// Calls the hypervisor in the way of AMD processors.
pub(crate) fn vmmcall(number: u64, arguments: [u64; 3]) -> Result<u64, Exception> {
    let result: u64;
    attempt!(
        "vmmcall",
        inout("rax") number => result,
        in("rdi") arguments[0],
        in("rcx") arguments[1],
        in("rdx") arguments[2],
        in("rsi") arguments[0],
    )?;
    Ok(result)
}

/// Calls the hypervisor in the way of Intel processors.
pub(crate) fn vmcall(number: u64, arguments: [u64; 3]) -> Result<u64, Exception> {
    let result: u64;
    attempt!(
        "vmcall",
        inout("rax") number => result,
        in("rdi") arguments[0],
        in("rcx") arguments[1],
        in("rdx") arguments[2],
        in("rsi") arguments[0],
    )?;
    Ok(result)
}

/// Reads eight bytes at any address.
pub(crate) fn probe(address: u64) -> Result<u64, Exception> {
    let word: u64;
    attempt!("mov {word}, [{address}]", address = in(reg) address, word = out(reg) word,)?;
    Ok(word)
}
