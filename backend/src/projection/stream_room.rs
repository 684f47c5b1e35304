//! How much room is left in the operations stream.
//!
//! Part of it is reserved for operations that were accepted: a stream that is full of start
//! requests would have no room for the events of the attempts that run them.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// Bytes reserved for the events of one operation that has not ended: `started`, and an end with a
/// small result.
const RESERVE: u64 = 2 * 1024;

/// Bytes that a stored message takes in addition to payload and subject: lengths, time, checksum,
/// headers.
const OVERHEAD: u64 = 128;

/// The size of the stream as far as this backend knows: the server's last answer, and what was
/// read since.
#[derive(Debug, Default)]
pub struct StreamRoom {
    limit: AtomicI64,
    used: AtomicU64,
    counted_to: AtomicU64,
}

impl StreamRoom {
    /// Takes what the server says about the stream: its limit in bytes (0 or less for none), its
    /// size, and its last sequence.
    pub fn set_measured(&self, limit: i64, used: u64, last_sequence: u64) {
        self.limit.store(limit, Ordering::Relaxed);
        self.used.store(used, Ordering::Relaxed);
        self.counted_to.store(last_sequence, Ordering::Relaxed);
    }

    /// Adds a message that was read, unless the size that the server said includes it.
    pub fn add_message(&self, sequence: u64, subject: usize, payload: usize) {
        if sequence > self.counted_to.load(Ordering::Relaxed) {
            self.used
                .fetch_add((subject + payload) as u64 + OVERHEAD, Ordering::Relaxed);
        }
    }

    /// Whether a start request with a payload of this size fits beside what the `open` operations
    /// will still need. `open` is called only when there is a limit.
    pub fn fits(&self, payload: usize, open: impl FnOnce() -> u64) -> bool {
        let Ok(limit @ 1..) = u64::try_from(self.limit.load(Ordering::Relaxed)) else {
            return true;
        };
        let needed = (open() + 1).saturating_mul(RESERVE) + payload as u64 + OVERHEAD;
        self.used.load(Ordering::Relaxed).saturating_add(needed) <= limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_limit_everything_fits() {
        let room = StreamRoom::default();
        assert!(room.fits(1 << 30, || 1 << 40));
        room.set_measured(-1, u64::MAX, 7);
        assert!(room.fits(1 << 30, || 1 << 40));
    }

    #[test]
    fn what_open_operations_need_is_kept_free() {
        let room = StreamRoom::default();
        room.set_measured(10 * RESERVE as i64, 0, 7);
        assert!(room.fits(100, || 8));
        assert!(!room.fits(100, || 9));
        // The size that the server said includes it.
        room.add_message(7, 10, 100_000);
        assert!(room.fits(100, || 8));
        room.add_message(8, 10, RESERVE as usize);
        assert!(!room.fits(100, || 8));
        assert!(room.fits(100, || 6));
    }
}
