//! How much a guest can make its device hold.

/// Bounds of one [`Muxer`](crate::Muxer).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at the same time, in any state. More are refused.
    pub connections: u32,
    /// RSTs for packets of no connection that wait for a receive buffer. More are dropped.
    pub stray_resets: usize,
    /// Largest receive window of a connection in bytes.
    pub largest_window: u32,
    /// Smallest receive window of a connection in bytes.
    pub smallest_window: u32,
    /// Bytes from which windows are given out: a connection gets a 64th of what is left, within the two limits above.
    pub window_pool: u32,
    /// How long a guest may take to answer a REQUEST, or a SHUTDOWN of both directions.
    pub answer_within: std::time::Duration,
}

impl Default for Limits {
    /// 4096 connections; windows of 256 KiB for the first two hundred, down to 8 KiB; never more than 96 MiB in all.
    fn default() -> Self {
        Self {
            connections: 4096,
            stray_resets: 1024,
            largest_window: 256 << 10,
            smallest_window: 8 << 10,
            window_pool: 64 << 20,
            // Linux gives its peer as long to answer a close (VSOCK_CLOSE_TIMEOUT).
            answer_within: std::time::Duration::from_secs(8),
        }
    }
}

/// Gives receive windows to connections so that the sum of all windows, and with it the memory that slow readers on the
/// parent can cost, is bounded; and so that few connections have large windows and many still have one each.
///
/// A connection gets a 64th of what is left of the pool, within the limits, and returns it when it ends. Windows never
/// change while a connection lives.
#[derive(Debug)]
pub(crate) struct WindowPool {
    left: u32,
    largest: u32,
    smallest: u32,
}

/// A window that came out of a pool.
#[derive(Debug)]
pub(crate) struct Reservation {
    /// What the connection may promise.
    pub(crate) window: u32,
    /// What was taken from the pool: less than the window if the pool was empty.
    taken: u32,
}

impl WindowPool {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            left: limits.window_pool,
            largest: limits.largest_window,
            smallest: limits.smallest_window,
        }
    }

    pub(crate) fn reserve(&mut self) -> Reservation {
        let window = (self.left / 64).min(self.largest).max(self.smallest);
        let taken = window.min(self.left);
        self.left -= taken;
        Reservation { window, taken }
    }

    pub(crate) fn release(&mut self, reservation: &Reservation) {
        self.left += reservation.taken;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sum_of_windows_is_bounded_and_all_of_it_returns() {
        let limits = Limits::default();
        let mut pool = WindowPool::new(&limits);
        let reservations: Vec<_> = (0..limits.connections).map(|_| pool.reserve()).collect();

        assert!(
            reservations[..128]
                .iter()
                .all(|r| r.window == limits.largest_window)
        );
        assert!(reservations.iter().all(|r| r.window >= limits.smallest_window));
        let sum: u64 = reservations.iter().map(|r| u64::from(r.window)).sum();
        assert!(sum <= 96 << 20, "{sum}");
        for reservation in &reservations {
            pool.release(reservation);
        }
        assert_eq!(pool.left, limits.window_pool);
    }
}
