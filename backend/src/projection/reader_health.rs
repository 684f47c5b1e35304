//! Whether the stream can be read, and why not.
//!
//! A backend that cannot read the stream goes on answering with an old state. It must say so
//! ([`crate::routes`]), and it must accept no starts: it could not show them.

use std::error::Error;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ktrdr_bus::telemetry::chain;
use parking_lot::Mutex;
use tokio::time::Instant;

/// For how long reading may fail before anybody is told. The next try often succeeds.
const TOLERANCE: Duration = Duration::from_secs(1);

/// What the last tries to read the stream have led to.
#[derive(Debug, Default)]
pub struct ReaderHealth {
    is_failing: AtomicBool,
    failure: Mutex<Option<Failure>>,
}

#[derive(Debug)]
struct Failure {
    since: Instant,
    cause: String,
}

impl ReaderHealth {
    /// Notes that reading began.
    pub fn note_success(&self) {
        self.is_failing.store(false, Ordering::Relaxed);
        *self.failure.lock() = None;
    }

    /// Notes that reading could not begin or has broken off.
    pub fn note_failure(&self, error: &(dyn Error + 'static)) {
        let mut failure = self.failure.lock();
        let since = failure
            .as_ref()
            .map_or_else(Instant::now, |failure| failure.since);
        let cause = chain(error);
        *failure = Some(Failure { since, cause });
        self.is_failing.store(true, Ordering::Relaxed);
    }

    /// Why the stream cannot be read; `None` when it can.
    pub fn trouble(&self) -> Option<String> {
        if !self.is_failing.load(Ordering::Relaxed) {
            return None;
        }
        let failure = self.failure.lock();
        let failure = failure.as_ref()?;
        (failure.since.elapsed() >= TOLERANCE).then(|| failure.cause.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_a_failure_that_lasts_is_told() {
        let health = ReaderHealth::default();
        let refused = std::io::Error::other("maximum consumers limit reached");

        health.note_failure(&refused);
        assert_eq!(health.trouble(), None);
        tokio::time::advance(TOLERANCE).await;
        health.note_failure(&refused);
        assert_eq!(
            health.trouble().as_deref(),
            Some("maximum consumers limit reached")
        );

        health.note_success();
        assert_eq!(health.trouble(), None);
    }
}
