//! Sends the log lines of an attempt, beside its other reports: what waits for the stream of log lines
//! delays nothing else.
//!
//! Log lines may be lost, so nothing waits for them for long. While their stream is missing or does
//! not answer, all attempts of the worker wait together before one tries again ([`LogGate`]).

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ktrdr_bus::oplog::NotStored;
use ktrdr_bus::telemetry::chain;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::attempt::ownership::OwnedAttempt;
use crate::reporting::log_lines::Speaker;
use crate::worker::core::Core;
use crate::worker::running::AttemptHandle;

/// For so long lines gather before a batch is sent, also when more wait than it holds: an engine that says
/// as much as it can takes no more of the bus than ten batches a second.
const GATHER: Duration = Duration::from_millis(100);

/// How long storing one batch may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long the last lines may delay the end of an operation.
const LAST_PATIENCE: Duration = Duration::from_secs(1);

/// How long the next attempt waits to learn what the ones before have said.
const COUNT_PATIENCE: Duration = Duration::from_secs(1);

/// Pause after a batch could not be stored; doubled each time. Batches of other attempts that fail during
/// the pause were under way before it, and do not count.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// Whether batches are tried now. All attempts of a worker share it.
#[derive(Default)]
pub(crate) struct LogGate {
    closed: Mutex<Option<Closed>>,
    /// Whether somebody was told.
    is_told: AtomicBool,
}

#[derive(Clone, Copy)]
struct Closed {
    until: Instant,
    pause: Duration,
}

impl LogGate {
    /// When the next batch may be tried; `None` for now.
    fn opens_at(&self) -> Option<Instant> {
        let closed = *self.closed.lock();
        closed
            .map(|closed| closed.until)
            .filter(|until| *until > Instant::now())
    }

    fn open(&self) {
        *self.closed.lock() = None;
    }

    fn close(&self, why: NotStored) {
        if self.opens_at().is_some() {
            return;
        }
        let mut closed = self.closed.lock();
        let pause = closed.map_or(FIRST_PAUSE, |closed| (closed.pause * 2).min(MAX_PAUSE));
        *closed = Some(Closed {
            until: Instant::now() + pause,
            pause,
        });
        drop(closed);

        // Once: with backends of an earlier release, this is as it must be.
        if !self.is_told.swap(true, Ordering::Relaxed) {
            tracing::warn!(%why, "log lines of operations are not stored now; trying again from time to time");
        }
    }
}

/// Counts what earlier attempts have said, so that the limits are those of the operation. What cannot be
/// read does not count.
pub(crate) async fn count_earlier(core: &Arc<Core>, handle: &AttemptHandle, owned: &OwnedAttempt) {
    let is_off = core.log_limits.level.is_none();
    if is_off || core.log_gate.opens_at().is_some() || !core.connection.is_up() {
        return;
    }

    let last = core
        .oplog
        .last_log_batch(&core.worker_type, &owned.operation_id);
    match tokio::time::timeout(COUNT_PATIENCE, last).await {
        Ok(Ok(Some(last))) => {
            let logs = &handle.report.logs;
            logs.count_earlier(last.total_lines, last.total_bytes);
        }
        Ok(Ok(None)) => {}
        Ok(Err(error)) => {
            tracing::debug!(
                error = chain(&error),
                "what earlier attempts have said cannot be read"
            );
        }
        Err(_) => tracing::debug!("what earlier attempts have said was not read in time"),
    }
}

/// Sends lines until dropped. A batch that is on its way then is sent again by [`flush_logs`].
pub(crate) async fn send_logs(
    core: &Arc<Core>,
    handle: &AttemptHandle,
    owned: &OwnedAttempt,
) -> Infallible {
    let logs = &handle.report.logs;
    // Most operations say nothing, so what they wait with is small.
    logs.wait().await;
    Box::pin(async {
        loop {
            logs.wait().await;
            tokio::time::sleep(GATHER).await;
            if let Some(opens_at) = core.log_gate.opens_at() {
                tokio::time::sleep_until(opens_at).await;
            }
            if !core.connection.is_up() {
                tokio::time::sleep(FIRST_PAUSE).await;
                continue;
            }
            send_next(core, handle, owned, PATIENCE).await;
        }
    })
    .await
}

/// Sends the last lines of an attempt.
pub(crate) async fn flush_logs(core: &Arc<Core>, handle: &AttemptHandle, owned: &OwnedAttempt) {
    let logs = &handle.report.logs;
    logs.finish();
    let deadline = Instant::now() + LAST_PATIENCE;
    let mut is_refused = false;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let is_hopeless =
            left.is_zero() || core.log_gate.opens_at().is_some() || !core.connection.is_up();
        if is_hopeless {
            return;
        }
        match send_next(core, handle, owned, left).await {
            Sent::Stored => is_refused = false,
            // The next one says what was left out. When that is refused, too, there is always a next one.
            Sent::Refused if !is_refused => is_refused = true,
            Sent::Refused | Sent::Nothing => return,
        }
    }
}

/// What became of the next batch.
enum Sent {
    Stored,
    /// The server would refuse it again, so its lines are left out.
    Refused,
    /// There is none, or it must be tried again.
    Nothing,
}

/// Tries to store the next batch.
async fn send_next(
    core: &Arc<Core>,
    handle: &AttemptHandle,
    owned: &OwnedAttempt,
    patience: Duration,
) -> Sent {
    let logs = &handle.report.logs;
    let speaker = Speaker {
        operation_id: &owned.operation_id,
        worker_id: &core.worker_id,
        attempt: owned.attempt,
    };
    let Some(batch) = logs.next_batch(&speaker) else {
        return Sent::Nothing;
    };

    let id = format!("{}-logs-{}", owned.claim_id, batch.before);
    let stored = core.oplog.store_log_lines(
        &core.worker_type,
        &owned.operation_id,
        batch.payload,
        &id,
        patience,
    );
    match stored.await {
        Ok(()) => {
            core.log_gate.open();
            logs.stored();
            Sent::Stored
        }
        Err(NotStored::Refused) => {
            logs.discarded();
            Sent::Refused
        }
        // While the connection is lost, nothing is known about the stream.
        Err(_) if !core.connection.is_up() => Sent::Nothing,
        Err(why) => {
            core.log_gate.close(why);
            Sent::Nothing
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_pauses_grow_until_a_batch_is_stored() {
        let gate = LogGate::default();
        assert_eq!(gate.opens_at(), None);
        let pause = |gate: &LogGate| gate.opens_at().map(|at| at - Instant::now());

        for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
            gate.close(NotStored::NoStream);
            assert_eq!(pause(&gate), Some(Duration::from_secs(seconds)));
            // Another attempt had a batch under way.
            gate.close(NotStored::NoStream);
            assert_eq!(pause(&gate), Some(Duration::from_secs(seconds)));

            tokio::time::advance(Duration::from_secs(seconds)).await;
            assert_eq!(gate.opens_at(), None);
        }

        gate.open();
        gate.close(NotStored::Full);
        assert_eq!(pause(&gate), Some(FIRST_PAUSE));
    }
}
