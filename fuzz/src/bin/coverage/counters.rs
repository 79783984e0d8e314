//! What instrumented code calls and writes to (`SanitizerCoverage` in Clang's documentation), which libFuzzer otherwise has: a counter of a
//! byte for each edge, and a table with the address of each edge's block, in the same order.
//!
//! Before `main` the compiler's constructors say where both are, once for each piece of code that was compiled apart, and always the
//! same place: the linker has put all of them side by side.

use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, AtomicU8, Ordering};

static COUNTERS: [AtomicPtr<AtomicU8>; 2] = [const { AtomicPtr::new(ptr::null_mut()) }; 2];
static ADDRESSES: [AtomicPtr<Entry>; 2] = [const { AtomicPtr::new(ptr::null_mut()) }; 2];

/// An element of the table.
#[derive(Clone, Copy)]
#[repr(C)]
struct Entry {
    address: usize,
    _flags: usize,
}

/// The address of each edge's block, as it is in the program's file. `None` for a block that was optimised away after it had been
/// counted: the compiler writes a one in its place.
pub(crate) fn edges() -> &'static [Option<u64>] {
    static EDGES: OnceLock<Vec<Option<u64>>> = OnceLock::new();
    EDGES.get_or_init(|| {
        let base = (&raw const __ehdr_start).addr();
        let address = |entry: &Entry| Some(entry.address.checked_sub(base)? as u64);
        let edges: Vec<_> = table(&ADDRESSES).iter().map(address).collect();
        assert_eq!(edges.len(), table(&COUNTERS).len(), "a counter for each edge");
        edges
    })
}

/// Marks the edges that were reached since this was called before.
pub(crate) fn take(reached: &mut [bool]) {
    for (counter, reached) in table(&COUNTERS).iter().zip(reached) {
        *reached |= counter.swap(0, Ordering::Relaxed) > 0;
    }
}

fn table<T>([start, end]: &[AtomicPtr<T>; 2]) -> &'static [T] {
    let (start, end) = (start.load(Ordering::Relaxed), end.load(Ordering::Relaxed));
    if start.is_null() {
        return &[];
    }
    let length = (end.addr() - start.addr()) / size_of::<T>();
    // SAFETY: the compiler's constructors say that there are so many from `start` on. They are in sections of this program, which stay;
    // addresses are never written, and counters are written as bytes.
    unsafe { std::slice::from_raw_parts(start, length) }
}

unsafe extern "C" {
    /// The linker's: where the program's file begins in memory.
    static __ehdr_start: u8;
}

// SAFETY: these names are the compiler's, and nothing else in this program has them, since libFuzzer is not in it.
#[unsafe(no_mangle)]
extern "C" fn __sanitizer_cov_8bit_counters_init(start: *mut AtomicU8, end: *mut AtomicU8) {
    COUNTERS[0].store(start, Ordering::Relaxed);
    COUNTERS[1].store(end, Ordering::Relaxed);
}

// SAFETY: as above.
#[unsafe(no_mangle)]
extern "C" fn __sanitizer_cov_pcs_init(start: *mut Entry, end: *mut Entry) {
    ADDRESSES[0].store(start, Ordering::Relaxed);
    ADDRESSES[1].store(end, Ordering::Relaxed);
}

/// Operands of comparisons, of which only libFuzzer makes something.
macro_rules! ignored {
    ($($name:ident($($operand:ty),*);)*) => {
        $(
            // SAFETY: as above.
            #[unsafe(no_mangle)]
            extern "C" fn $name($(_: $operand),*) {}
        )*
    };
}

ignored! {
    __sanitizer_cov_trace_cmp1(u8, u8);
    __sanitizer_cov_trace_cmp2(u16, u16);
    __sanitizer_cov_trace_cmp4(u32, u32);
    __sanitizer_cov_trace_cmp8(u64, u64);
    __sanitizer_cov_trace_const_cmp1(u8, u8);
    __sanitizer_cov_trace_const_cmp2(u16, u16);
    __sanitizer_cov_trace_const_cmp4(u32, u32);
    __sanitizer_cov_trace_const_cmp8(u64, u64);
    __sanitizer_cov_trace_switch(u64, *const u64);
    __sanitizer_cov_trace_pc_indir(usize);
}
