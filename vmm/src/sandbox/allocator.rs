//! The C library's allocator, as filters need it.

/// Threads that may allocate at the same time without waiting for each other. The one that allocates all the time is that of the
/// vsock device.
const ARENAS: libc::c_int = 2;

/// Has all threads share few arenas. Left to itself, glibc makes one for each thread, and from the ninth on looks into `/sys` for the
/// number of processors, which no filter lets it. It also saves memory.
#[expect(
    unsafe_code,
    reason = "the standard library cannot tell the allocator anything"
)]
pub fn keep_to_few_arenas() {
    // SAFETY: no other thread exists yet. It fails only for values that make no sense.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, ARENAS) };
}
