//! A second processor that disturbs while the first one attacks: it accesses the devices' registers, interrupts the first one, and
//! halts and is woken.
//!
//! A processor that is started by an interrupt begins in real mode, in a page below 1 MiB; a few instructions are copied there and goes to
//! 64-bit mode with the first one's page tables.

#![expect(unsafe_code, reason = "the first instructions of a processor")]

use core::arch::global_asm;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::attacks;
use crate::command_line::Orders;
use crate::interrupts;
use crate::memory;
use crate::processor::{self, COMPANION_STACK, COMPANION_TASK_SEGMENT, GDT, PML4};
use crate::random::Random;
use crate::serial;

/// The page that it starts in: its number is the vector of the interrupt that starts it.
const PAGE: u64 = 0x8000;
const VECTOR: u32 = 8;

/// Where it finds the segments: their limit and address.
const SEGMENTS: u64 = PAGE + 0x800;

const LOCAL_APIC: u64 = 0xfee0_0000;
const SPURIOUS: u64 = LOCAL_APIC + 0xf0;
const COMMAND: u64 = LOCAL_APIC + 0x300;
const DESTINATION: u64 = LOCAL_APIC + 0x310;
const ENABLED: u32 = 0x1ff;
const INIT: u32 = 0x4500;
const START_UP: u32 = 0x4600;
const TO_OTHERS: u32 = 0xc_0000;

/// Interrupts of all processors that are told of.
const STORM: u64 = 2000;

/// How long is waited between the interrupts that start it, in looks.
const BETWEEN: u32 = 100_000;

/// What it is to do, and whether it does.
static STOP: AtomicBool = AtomicBool::new(false);
static RUNNING: AtomicBool = AtomicBool::new(false);
static SEED: AtomicU32 = AtomicU32::new(0);
/// Where the devices' registers are.
static DEVICES: [AtomicU32; 2] = [const { AtomicU32::new(0) }; 2];

unsafe extern "C" {
    /// The code that is copied, and its end.
    fn hostile_guest_companion_start();
    fn hostile_guest_companion_start_end();
}

global_asm!(
    ".balign 16",
    ".code16",
    ".globl hostile_guest_companion_start",
    "hostile_guest_companion_start:",
    "cli",
    "xor ax, ax",
    "mov ds, ax",
    ".byte 0x66", // with all 32 bits of their address
    "lgdt [{segments}]",
    "mov eax, cr4",
    "or eax, 0x620", // PAE, OSFXSR, OSXMMEXCPT
    "mov cr4, eax",
    "mov eax, {page_tables}",
    "mov cr3, eax",
    "mov ecx, 0xc0000080", // EFER
    "rdmsr",
    "or eax, 0x100", // LME
    "wrmsr",
    "mov eax, cr0",
    "and eax, 0x9ffffffb", // CD, NW, EM off
    "or eax, 0x80000003",  // PG, MP, PE
    "mov cr0, eax",
    ".byte 0x66, 0xea", // far jump to 64-bit code
    ".long 6f",
    ".word 0x10",
    ".globl hostile_guest_companion_start_end",
    "hostile_guest_companion_start_end:",
    ".code64",
    "6:",
    "mov ax, 0x18",
    "mov ss, ax",
    "mov ds, ax",
    "mov es, ax",
    "mov rsp, {stack}",
    "mov ax, {task}",
    "ltr ax",
    "xor ebp, ebp",
    "call {main}",
    segments = const SEGMENTS,
    page_tables = const PML4,
    stack = const COMPANION_STACK,
    task = const COMPANION_TASK_SEGMENT,
    main = sym main,
);

/// Starts it, and waits until it runs.
pub(crate) fn start(orders: &Orders<'_>) {
    let start = hostile_guest_companion_start as *const () as u64;
    let end = hostile_guest_companion_start_end as *const () as u64;
    for offset in 0..end - start {
        memory::write(PAGE + offset, memory::read_code(start + offset));
    }
    memory::write(SEGMENTS, 0x3f_u16);
    for (address, byte) in (SEGMENTS + 2..).zip(GDT.to_le_bytes()) {
        memory::write(address, byte);
    }
    SEED.store(
        u32::try_from(orders.seed & 0xffff_ffff).unwrap_or(0),
        Ordering::Relaxed,
    );
    for (device, window) in DEVICES.iter().zip(orders.devices) {
        device.store(u32::try_from(window).unwrap_or(0), Ordering::Relaxed);
    }
    memory::write(SPURIOUS, ENABLED);
    memory::write(DESTINATION, 0_u32);
    for command in [INIT, START_UP | VECTOR, START_UP | VECTOR] {
        memory::write(COMMAND, TO_OTHERS | command);
        (0..BETWEEN).for_each(|_| processor::pause());
    }
    while !RUNNING.load(Ordering::Acquire) {
        processor::pause();
    }
}

/// Has it halt for ever, and waits until it does.
pub(crate) fn stop() {
    STOP.store(true, Ordering::Release);
    while RUNNING.load(Ordering::Acquire) {
        // It may be halted.
        memory::write(SPURIOUS, ENABLED);
        memory::write(COMMAND, TO_OTHERS | 0x40);
        (0..BETWEEN).for_each(|_| processor::pause());
    }
}

extern "C" fn main() -> ! {
    processor::load_interrupt_descriptors();
    interrupts::set_priority(0);
    memory::write(SPURIOUS, ENABLED);
    RUNNING.store(true, Ordering::Release);
    let devices = [0, 1].map(|index| u64::from(DEVICES[index].load(Ordering::Relaxed)));
    let mut number = 0;
    let mut told = false;
    while !STOP.load(Ordering::Acquire) {
        let mut random = Random::of_round(SEED.load(Ordering::Relaxed).into(), u64::MAX - number);
        number += 1;
        if !told && interrupts::count() > STORM {
            // The first processor may get no further than into the next one.
            told = true;
            serial::line(format_args!("more than {STORM} interrupts have come"));
        }
        match random.below(4) {
            0 => attacks::access_registers(devices, &mut random),
            1 => memory::write(COMMAND, random.pick(&[0, TO_OTHERS]) | 0x40),
            2 => interrupts::wait_for_timer(&mut random),
            _ => processor::let_interrupts_in(),
        }
    }
    RUNNING.store(false, Ordering::Release);
    loop {
        processor::halt();
    }
}
