//! Waiting for a condition, never for time to pass.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

/// How long a test waits for something that should happen soon. It is long because only a failing
/// test spends it, and a loaded machine can be slow.
pub const LIMIT: Duration = Duration::from_secs(30);

/// Time between two probes.
const INTERVAL: Duration = Duration::from_millis(20);

/// Repeats `probe` until it returns `Ok`, and returns its value. `Err` says what was seen instead.
///
/// # Panics
/// After `limit`, with `what` was waited for and what was seen last.
#[track_caller]
pub fn wait_for<T>(
    what: &str,
    limit: Duration,
    mut probe: impl AsyncFnMut() -> Result<T, String>,
) -> impl Future<Output = T> {
    let caller = std::panic::Location::caller();
    async move {
        let deadline = Instant::now() + limit;
        let mut last = "nothing".to_owned();
        loop {
            match timeout_at(deadline, probe()).await {
                Ok(Ok(value)) => return value,
                Ok(Err(seen)) => last = seen,
                Err(_) => {
                    panic!(
                        "{caller}: waited {limit:?} for {what}; the last look did not end; seen before: {last}"
                    )
                }
            }
            assert!(
                Instant::now() < deadline,
                "{caller}: waited {limit:?} for {what}; seen last: {last}"
            );
            sleep(INTERVAL).await;
        }
    }
}
