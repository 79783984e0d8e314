//! How fast the time stamp counter of this host, and with it that of an emulated processor, counts.
//!
//! QEMU passes the host's counter on. A machine's kernel would find out its rate by means of emulated timers, and on a busy
//! host it can be wrong by a factor of sixty: its clock then runs away, and every time limit in the machine is over at
//! once. So it is told.

use std::time::{Duration, Instant};

/// Between the two looks at counter and clock.
const SPAN: Duration = Duration::from_millis(20);

/// Looks at counter and clock; the one during which least time passed counts.
const TRIES: usize = 100;

/// Counts per millisecond; `None` on processors of another kind.
pub(crate) fn khz() -> Option<u64> {
    let (first_time, first) = look()?;
    std::thread::sleep(SPAN);
    let (last_time, last) = look()?;
    let nanoseconds = last_time.duration_since(first_time).as_nanos();
    let counts = u128::from(last.checked_sub(first)?);
    u64::try_from(counts * 1_000_000 / nanoseconds.max(1)).ok()
}

/// The counter, and the time at which it was read.
fn look() -> Option<(Instant, u64)> {
    let looks = (0..TRIES).filter_map(|_| {
        let before = Instant::now();
        let count = read()?;
        Some((before.elapsed(), before, count))
    });
    looks.min().map(|(_, time, count)| (time, count))
}

#[cfg(target_arch = "x86_64")]
#[expect(
    clippy::unnecessary_wraps,
    unsafe_code,
    reason = "the counter is read by an instruction, which not every processor has"
)]
fn read() -> Option<u64> {
    // SAFETY: RDTSC touches no memory. Linux lets every process execute it unless the process has asked it not to.
    Some(unsafe { core::arch::x86_64::_rdtsc() })
}

#[cfg(not(target_arch = "x86_64"))]
fn read() -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_measurements_agree() {
        let (Some(one), Some(other)) = (khz(), khz()) else {
            return;
        };
        assert!(one.abs_diff(other) * 100 < one, "{one} and {other} kHz");
    }
}
