//! The C library's allocator, as filters need it.

/// All threads share the heap that grows with `brk`.
const ARENAS: libc::c_int = 1;

/// Has all threads share one arena. Left to itself, glibc makes one for each thread, opens a file of `/sys` to count processors when
/// it makes the ninth, and one of `/proc` before it makes any but the first smaller: no filter lets it open a file. One arena takes
/// less memory, too, and is hardly ever fought for: threads that run allocate little, and keep some of it apart for themselves.
#[expect(
    unsafe_code,
    reason = "the standard library cannot tell the allocator anything"
)]
pub fn keep_to_one_arena() {
    // SAFETY: no other thread exists yet. It fails only for values that make no sense.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, ARENAS) };
}
