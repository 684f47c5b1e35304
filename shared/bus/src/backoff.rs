//! Pauses between the tries of a request to NATS: each twice as long as the one before, up to a
//! limit.
//!
//! The delay before a failed attempt is retried is another thing: the worker SDK computes it
//! (`attempt/retry_delay.rs`).

use std::time::Duration;

use tokio::time::Instant;

/// The pauses between the tries of one piece of work.
#[derive(Debug, Clone)]
pub struct Backoff {
    next: Duration,
    longest: Duration,
}

impl Backoff {
    /// Starts with a pause of `first`; no pause is longer than `longest`.
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self {
            next: first,
            longest,
        }
    }

    /// How long [`Self::wait`] will wait next.
    pub fn next_pause(&self) -> Duration {
        self.next
    }

    /// Whether the next pause would last until `deadline` or longer. `None` is no deadline.
    pub fn reaches(&self, deadline: Option<Instant>) -> bool {
        deadline.is_some_and(|at| Instant::now() + self.next >= at)
    }

    /// Waits, and doubles the next pause.
    pub async fn wait(&mut self) {
        let pause = self.next;
        self.next = (pause * 2).min(self.longest);
        tokio::time::sleep(pause).await;
    }
}
