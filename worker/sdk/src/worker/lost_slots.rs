//! Slots that are lost: their attempt is over, and its engine does not return.
//!
//! A thread cannot be ended from outside. So a slot whose engine ignores the request to stop takes
//! no work until the engine returns, or until the worker is restarted. Operators must see that:
//! heartbeats, `/health` and `/metrics` have the number.

use std::sync::atomic::{AtomicU32, Ordering};

use tokio_util::sync::CancellationToken;

/// How many slots of one worker are lost.
#[derive(Debug, Default)]
pub(crate) struct LostSlots {
    count: AtomicU32,
    given_up: CancellationToken,
}

/// One lost slot. It is found again when this is dropped.
#[derive(Debug)]
pub(crate) struct LostSlot<'a>(&'a LostSlots);

impl LostSlots {
    /// The number now.
    pub(crate) fn count(&self) -> u32 {
        self.count.load(Ordering::Relaxed)
    }

    /// Counts one more, until the value is dropped.
    pub(crate) fn add(&self) -> LostSlot<'_> {
        self.count.fetch_add(1, Ordering::Relaxed);
        LostSlot(self)
    }

    /// Ends the waiting for lost slots: the worker stops.
    pub(crate) fn give_up(&self) {
        self.given_up.cancel();
    }

    /// Resolves when nobody waits for lost slots any more.
    pub(crate) async fn given_up(&self) {
        self.given_up.cancelled().await;
    }
}

impl Drop for LostSlot<'_> {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_slot_counts_until_it_is_dropped() {
        let slots = LostSlots::default();
        let (first, second) = (slots.add(), slots.add());
        assert_eq!(slots.count(), 2);

        drop(first);
        assert_eq!(slots.count(), 1);
        drop(second);
        assert_eq!(slots.count(), 0);
    }
}
