//! Instructions that no other language has a word for, and the tables that the processor wants: pages and segments.
//!
//! The machine's own page tables map the first GiB; registers of devices are above it, so that ours map four.

#![expect(unsafe_code, reason = "privileged instructions")]

use core::arch::asm;

use crate::memory::{self, TABLES, Word};

pub(crate) const PML4: u64 = TABLES;
const PDPT: u64 = TABLES + 0x1000;
const DIRECTORIES: u64 = TABLES + 0x2000;
pub(crate) const GDT: u64 = TABLES + 0x1_0000;
const TASKS: [u64; 2] = [TABLES + 0x1_1000, TABLES + 0x1_1800];
/// Each processor has two for handlers, 64 KiB each.
const HANDLER_STACKS: u64 = TABLES + 0x2_0000;

/// The end of the second processor's stack.
pub(crate) const COMPANION_STACK: u64 = TABLES + 0xa_0000;

/// Where the interrupt descriptors are.
pub(crate) const IDT: u64 = TABLES + 0x1_2000;
/// A page for page tables that attacks change.
pub(crate) const SPARE_TABLES: u64 = TABLES + 0x10_0000;

/// The code segment.
pub(crate) const CODE: u16 = 0x10;
const TASK_SEGMENT: u16 = 0x20;
/// The second processor's.
pub(crate) const COMPANION_TASK_SEGMENT: u16 = 0x30;

pub(crate) const PRESENT: u64 = 1 << 0;
pub(crate) const WRITABLE: u64 = 1 << 1;
pub(crate) const LARGE: u64 = 1 << 7;
const LARGE_PAGE: u64 = 2 << 20;

/// Makes and loads page tables and segments.
pub(crate) fn set_up() {
    memory::clear(TABLES, 0x1_3000);
    map_four_gibibytes();
    make_segments();
    load_page_tables(PML4);
    load_segments();
}

fn map_four_gibibytes() {
    memory::write(PML4, PDPT | PRESENT | WRITABLE);
    for gibibyte in 0..4 {
        let directory = DIRECTORIES + gibibyte * 0x1000;
        memory::write(PDPT + gibibyte * 8, directory | PRESENT | WRITABLE);
        for page in 0..512 {
            let address = (gibibyte << 30) + page * LARGE_PAGE;
            memory::write(directory + page * 8, address | PRESENT | WRITABLE | LARGE);
        }
    }
}

/// Code, data, and a task whose only use is that handlers get stacks of their own: code that is interrupted may keep data below
/// its stack pointer.
fn make_segments() {
    memory::write(GDT + u64::from(CODE), 0x00af_9b00_0000_ffff_u64);
    memory::write(GDT + 0x18, 0x00cf_9300_0000_ffff_u64);
    for (processor, (task, selector)) in
        (0..).zip(TASKS.into_iter().zip([TASK_SEGMENT, COMPANION_TASK_SEGMENT]))
    {
        let low = 0x67 | (task & 0xff_ffff) << 16 | 0x89 << 40 | (task >> 24 & 0xff) << 56;
        memory::write(GDT + u64::from(selector), low);
        memory::write(GDT + u64::from(selector) + 8, task >> 32);
        // Interrupt stack table entries 1 and 2, which are not aligned to eight bytes.
        for (entry, end) in [(0x24, 1), (0x2c, 2)] {
            let stack = HANDLER_STACKS + (2 * processor + end) * 0x1_0000;
            memory::write(task + entry, u32::try_from(stack).unwrap_or_default());
            memory::write(task + entry + 4, 0_u32);
        }
    }
}

fn load_page_tables(root: u64) {
    // SAFETY: they map all that the kernel uses, one to one, as the ones before did.
    unsafe { asm!("mov cr3, {}", in(reg) root) }
}

/// Forgets translations that the processor has cached.
pub(crate) fn flush_translations() {
    load_page_tables(PML4);
}

/// Where the page directory entry of a 2 MiB page is.
pub(crate) fn directory_entry(address: u64) -> u64 {
    DIRECTORIES + address / LARGE_PAGE * 8
}

/// What `lgdt` and `lidt` take.
#[repr(C, packed)]
struct TablePointer {
    limit: u16,
    base: u64,
}

fn load_segments() {
    let pointer = TablePointer {
        limit: 0x3f,
        base: GDT,
    };
    // SAFETY: the selectors that are in use mean the same in the new table; the task segment is described there.
    unsafe {
        asm!(
            "lgdt [{pointer}]",
            "ltr {task:x}",
            pointer = in(reg) &raw const pointer,
            task = in(reg) TASK_SEGMENT,
        );
    }
}

/// Loads the interrupt descriptors, which have been made.
pub(crate) fn load_interrupt_descriptors() {
    let pointer = TablePointer {
        limit: 0xfff,
        base: IDT,
    };
    // SAFETY: all 256 lead to handlers.
    unsafe { asm!("lidt [{}]", in(reg) &raw const pointer) }
}

/// A word that goes through an I/O port.
pub(crate) trait PortWord: Word {
    #[doc(hidden)]
    fn read(port: u16) -> Self;
    #[doc(hidden)]
    fn write(self, port: u16);
}

macro_rules! port_word {
    ($word:ty, $register:tt) => {
        impl PortWord for $word {
            fn read(port: u16) -> Self {
                let word: Self;
                // SAFETY: devices of this machine reach no memory of Rust values.
                unsafe { asm!(concat!("in ", $register, ", dx"), in("dx") port, out($register) word) }
                word
            }

            fn write(self, port: u16) {
                // SAFETY: as above.
                unsafe { asm!(concat!("out dx, ", $register), in("dx") port, in($register) self) }
            }
        }
    };
}

port_word!(u8, "al");
port_word!(u16, "ax");
port_word!(u32, "eax");

/// Reads from an I/O port.
pub(crate) fn port_read<T: PortWord>(port: u16) -> T {
    T::read(port)
}

/// Writes to an I/O port.
pub(crate) fn port_write<T: PortWord>(port: u16, word: T) {
    word.write(port);
}

/// Writes `count` bytes from `address` on to a port with one string instruction.
pub(crate) fn port_write_string(port: u16, address: u64, count: u64) {
    assert!(memory::SHARED.contains(&address) && memory::SHARED.end - address > count);
    // SAFETY: only reads memory, where no Rust value is.
    unsafe { asm!("rep outsb", in("dx") port, inout("rsi") address => _, inout("rcx") count => _) }
}

/// Reads `count` bytes from a port with one string instruction, to `address` on.
pub(crate) fn port_read_string(port: u16, address: u64, count: u64) {
    assert!(memory::SHARED.contains(&address) && memory::SHARED.end - address > count);
    // SAFETY: writes where no Rust value is.
    unsafe { asm!("rep insb", in("dx") port, inout("rdi") address => _, inout("rcx") count => _) }
}

/// Lets others have the processor for a moment.
pub(crate) fn pause() {
    core::hint::spin_loop();
}

/// Orders what was written to memory before what is read or written after.
pub(crate) fn fence() {
    core::sync::atomic::fence(core::sync::atomic::Ordering::SeqCst);
}

/// Waits for an interrupt, with interrupts on; they are off again afterwards.
pub(crate) fn halt_until_interrupt() {
    // SAFETY: all handlers keep all registers.
    unsafe { asm!("sti", "hlt", "cli") }
}

/// Runs code at any address.
pub(crate) fn jump(address: u64) -> ! {
    // SAFETY: that this kernel ends there is what is wanted.
    unsafe { asm!("jmp {}", in(reg) address, options(noreturn)) }
}

/// Runs an instruction that there is not.
pub(crate) fn raise_exception() -> ! {
    // SAFETY: that this kernel ends there is what is wanted.
    unsafe { asm!("ud2", options(noreturn)) }
}

/// Halts with interrupts off.
pub(crate) fn halt() {
    // SAFETY: nothing happens until an NMI.
    unsafe { asm!("hlt") }
}

/// Lets pending interrupts in.
pub(crate) fn let_interrupts_in() {
    // SAFETY: all handlers keep all registers.
    unsafe { asm!("sti", "nop", "nop", "cli") }
}

/// Has the machine reset by its keyboard controller.
pub(crate) fn reset_machine() -> ! {
    loop {
        port_write(0x64, 0xfe_u8);
    }
}
