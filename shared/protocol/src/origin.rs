//! How an operation came to a worker.

use crate::id::Queue;

/// The queue that has no consumer: operations started directly on a worker.
pub fn direct_queue() -> Queue {
    #[expect(clippy::expect_used, reason = "a constant that is a valid name")]
    Queue::new("direct").expect("a valid name")
}
