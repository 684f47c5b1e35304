//! How many consumers the operations stream has, and how many it may have.
//!
//! The problem: a server refuses consumers beyond a limit, 1,000 for each stream by default. A
//! backend reads the stream by a consumer of its own. If queues take all of them, no backend
//! starts.
//!
//! How it is solved: queues leave a tenth of the limit to everything else. A queue that may stay
//! unused leaves another fifth to those that are certainly needed.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use ktrdr_bus::queues::DEFAULT_MAX_CONSUMERS;

/// There is no room for the consumer of another queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the stream has {consumers} of at most {limit} consumers, and the rest is reserved")]
pub struct NoRoom {
    /// How many there are.
    pub consumers: usize,
    /// How many there may be.
    pub limit: usize,
}

/// How much a queue is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Demand {
    /// It is the queue `any` of a worker type, or a worker could take an operation that waits in
    /// it.
    Certain,
    /// A client asks for it. There may be no worker for it.
    Possible,
}

/// The consumers of the operations stream, as far as this backend knows.
#[derive(Debug)]
pub struct Room {
    consumers: AtomicUsize,
    limit: AtomicUsize,
    /// Whether the lack of room was logged since there was room.
    warned: AtomicBool,
}

impl Default for Room {
    fn default() -> Self {
        Self {
            consumers: AtomicUsize::new(0),
            limit: AtomicUsize::new(DEFAULT_MAX_CONSUMERS),
            warned: AtomicBool::new(false),
        }
    }
}

impl Room {
    /// How many consumers there are.
    pub fn consumers(&self) -> usize {
        self.consumers.load(Ordering::Relaxed)
    }

    /// How many there may be.
    pub fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    /// How many there may be before queues must be removed, so that backends have theirs.
    pub fn for_all_queues(&self) -> usize {
        let limit = self.limit();
        limit - limit / 10
    }

    /// How many there may be when a queue is made that may stay unused.
    pub fn for_possible_queues(&self) -> usize {
        let limit = self.limit();
        self.for_all_queues() - limit / 5
    }

    /// Whether there is room for the consumer of another queue.
    ///
    /// # Errors
    /// [`NoRoom`].
    pub fn check(&self, demand: Demand) -> Result<(), NoRoom> {
        let (consumers, limit) = (self.consumers(), self.limit());
        let bound = match demand {
            Demand::Certain => self.for_all_queues(),
            Demand::Possible => self.for_possible_queues(),
        };
        if consumers < bound {
            return Ok(());
        }
        self.warn();
        Err(NoRoom { consumers, limit })
    }

    /// Counts a consumer that was made.
    pub fn add(&self) {
        self.consumers.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes what the server says: the number of consumers, and the stream's own limit (0 or less
    /// for none).
    pub fn set_measured(&self, consumers: usize, own_limit: i32) {
        let own_limit = usize::try_from(own_limit).ok().filter(|limit| *limit > 0);
        let limit = own_limit.unwrap_or(DEFAULT_MAX_CONSUMERS);
        self.consumers.store(consumers, Ordering::Relaxed);
        self.limit.store(limit, Ordering::Relaxed);
        if consumers < self.for_possible_queues() {
            self.warned.store(false, Ordering::Relaxed);
        } else {
            self.warn();
        }
    }

    /// Says it once, until there is room again.
    fn warn(&self) {
        if !self.warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                consumers = self.consumers(),
                limit = self.limit(),
                "the operations stream has few consumers left: starts that need a new queue are refused. Cancel operations that no worker can run, remove consumers that nobody needs, or raise the stream's max_consumers"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_leave_consumers_to_backends_and_to_new_worker_types() {
        let room = Room::default();
        room.set_measured(699, -1);
        assert_eq!(room.check(Demand::Possible), Ok(()));
        room.add();
        assert_eq!(
            room.check(Demand::Possible),
            Err(NoRoom {
                consumers: 700,
                limit: 1000
            })
        );
        assert_eq!(room.check(Demand::Certain), Ok(()));
        room.set_measured(900, -1);
        assert!(room.check(Demand::Certain).is_err());
    }

    #[test]
    fn the_limit_of_the_stream_counts_when_it_has_one() {
        let room = Room::default();
        room.set_measured(5, 10);
        assert!(room.check(Demand::Possible).is_ok());
        room.set_measured(7, 10);
        assert!(room.check(Demand::Possible).is_err());
        assert!(room.check(Demand::Certain).is_ok());
        assert_eq!((room.consumers(), room.limit()), (7, 10));
    }
}
