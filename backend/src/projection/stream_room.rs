//! What is left of the operations stream's limit, and what of that is kept for operations that were accepted: a stream filled
//! up with starts would have no room for the news that they were run.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// Bytes kept for the state changes of one operation that has not ended: `started` and its end with a small result.
const RESERVE: u64 = 2 * 1024;

/// What a stored message takes beside its payload and subject: lengths, time, checksum, headers.
const OVERHEAD: u64 = 128;

/// The size of the stream as far as this backend knows. Exact when the server was just asked, then counted on.
#[derive(Debug, Default)]
pub struct StreamRoom {
    limit: AtomicI64,
    used: AtomicU64,
    counted_to: AtomicU64,
}

impl StreamRoom {
    /// What the server says: its limit (none: 0 or less), its size, and the last message in it.
    pub fn set_measured(&self, limit: i64, used: u64, last_sequence: u64) {
        self.limit.store(limit, Ordering::Relaxed);
        self.used.store(used, Ordering::Relaxed);
        self.counted_to.store(last_sequence, Ordering::Relaxed);
    }

    /// A message was read that may be newer than the last look.
    pub fn add_message(&self, sequence: u64, subject: usize, payload: usize) {
        if sequence > self.counted_to.load(Ordering::Relaxed) {
            self.used
                .fetch_add((subject + payload) as u64 + OVERHEAD, Ordering::Relaxed);
        }
    }

    /// Whether a start request of this size fits, beside what `open` operations will still need. They are counted only when there
    /// is a limit.
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
        // Read again, or counted by the look: no growth.
        room.add_message(7, 10, 100_000);
        assert!(room.fits(100, || 8));
        room.add_message(8, 10, RESERVE as usize);
        assert!(!room.fits(100, || 8));
        assert!(room.fits(100, || 6));
    }
}
