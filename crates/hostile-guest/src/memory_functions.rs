//! What compilers call on their own and a C library usually has.

use core::arch::asm;

/// As the C standard says.
///
/// # Safety
/// As there.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, length: usize) -> *mut u8 {
    // SAFETY: the caller's.
    unsafe { asm!("rep movsb", inout("rdi") to => _, inout("rsi") from => _, inout("rcx") length => _) }
    to
}

/// As the C standard says.
///
/// # Safety
/// As there.
#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, length: usize) -> *mut u8 {
    if to.addr().wrapping_sub(from.addr()) >= length {
        // SAFETY: the caller's; going upwards reads each byte before it is written.
        return unsafe { memcpy(to, from, length) };
    }
    // SAFETY: the caller's; going downwards does here. `length` is not 0.
    unsafe {
        asm!(
            "std",
            "rep movsb",
            "cld",
            inout("rdi") to.wrapping_add(length - 1) => _,
            inout("rsi") from.wrapping_add(length - 1) => _,
            inout("rcx") length => _,
        );
    }
    to
}

/// As the C standard says.
///
/// # Safety
/// As there.
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, byte: i32, length: usize) -> *mut u8 {
    // SAFETY: the caller's.
    unsafe { asm!("rep stosb", inout("rdi") to => _, in("eax") byte, inout("rcx") length => _) }
    to
}

/// As the C standard says.
///
/// # Safety
/// As there.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(one: *const u8, other: *const u8, length: usize) -> i32 {
    for index in 0..length {
        // SAFETY: the caller's.
        let a = unsafe { one.wrapping_add(index).read() };
        // SAFETY: the caller's.
        let b = unsafe { other.wrapping_add(index).read() };
        if a != b {
            return i32::from(a) - i32::from(b);
        }
    }
    0
}

/// As POSIX said.
///
/// # Safety
/// As there.
#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(one: *const u8, other: *const u8, length: usize) -> i32 {
    // SAFETY: the caller's.
    unsafe { memcmp(one, other, length) }
}
