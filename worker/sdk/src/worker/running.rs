//! The attempts that run in this process now, and how to ask one to stop.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use ktrdr_protocol::id::OperationId;
use ktrdr_protocol::progress::Progress;
use ktrdr_protocol::worker::RunningOperation;
use parking_lot::RwLock;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::attempt::stop::{Lost, StopReason};
use crate::reporting::log_lines::LogLimits;
use crate::reporting::report::Report;

/// One attempt that holds a slot, as the rest of the worker sees it.
pub(crate) struct AttemptHandle {
    pub(crate) operation_id: OperationId,
    /// 0 until the operation is claimed.
    attempt: AtomicU32,
    pub(crate) cancel: CancellationToken,
    pub(crate) report: Arc<Report>,
    stop_reason: OnceLock<StopReason>,
    lost: OnceLock<Lost>,
    /// Cancelled when the attempt is lost, whatever it was asked to stop for before.
    pub(crate) gone: CancellationToken,
    /// Cancelled when nothing waits for the engine any more: it has returned, or its attempt is over
    /// without it.
    pub(crate) ended: CancellationToken,
    /// When the engine had ended, and its end began to be recorded.
    ending_since: OnceLock<Instant>,
}

impl AttemptHandle {
    pub(crate) fn new(operation_id: OperationId, logs: LogLimits) -> Self {
        Self {
            operation_id,
            attempt: AtomicU32::new(0),
            cancel: CancellationToken::new(),
            report: Arc::new(Report::with_logs(logs)),
            stop_reason: OnceLock::new(),
            lost: OnceLock::new(),
            gone: CancellationToken::new(),
            ended: CancellationToken::new(),
            ending_since: OnceLock::new(),
        }
    }

    /// Notes that the end of the attempt is being recorded from now on.
    pub(crate) fn set_ending(&self) {
        let _ = self.ending_since.set(Instant::now());
    }

    pub(crate) fn attempt(&self) -> u32 {
        self.attempt.load(Ordering::Relaxed)
    }

    pub(crate) fn set_claimed(&self, attempt: u32) {
        self.attempt.store(attempt, Ordering::Relaxed);
    }

    /// Asks the engine to stop. Only the first reason is kept; that the attempt is lost is kept in
    /// any case.
    pub(crate) fn stop(&self, reason: StopReason) {
        if let StopReason::Lost(lost) = reason {
            let _ = self.lost.set(lost);
            self.gone.cancel();
        }
        let _ = self.stop_reason.set(reason);
        self.cancel.cancel();
    }

    /// Why the attempt was asked to stop; `None` when it was not.
    pub(crate) fn stop_reason(&self) -> Option<StopReason> {
        self.stop_reason.get().copied()
    }

    /// Whether the attempt is lost.
    pub(crate) fn lost(&self) -> Option<Lost> {
        self.lost.get().copied()
    }

    fn describe(&self) -> RunningOperation {
        let (report, mut progress) = self.report.numbered_progress();
        progress.shorten(Progress::KEPT_STEP, Progress::KEPT_FIELDS);
        RunningOperation {
            operation_id: self.operation_id.clone(),
            attempt: self.attempt(),
            report,
            progress,
        }
    }
}

/// All attempts that hold a slot of this worker, oldest first.
///
/// The key is a number and not the operation id: after a lost lease, an operation can come back to
/// the very process that still runs an earlier attempt of it.
#[derive(Default)]
pub(crate) struct RunningAttempts {
    next_number: AtomicU64,
    table: RwLock<Table>,
}

#[derive(Default)]
struct Table {
    attempts: BTreeMap<u64, Arc<AttemptHandle>>,
    /// Why all attempts were asked to stop; every later one is stopped for the same reason.
    stopping: Option<StopReason>,
}

impl RunningAttempts {
    /// Adds an attempt and returns its number in the table.
    pub(crate) fn insert(&self, attempt: Arc<AttemptHandle>) -> u64 {
        let number = self.next_number.fetch_add(1, Ordering::Relaxed);
        let mut table = self.table.write();
        if let Some(reason) = table.stopping {
            attempt.stop(reason);
        }
        table.attempts.insert(number, attempt);
        number
    }

    pub(crate) fn remove(&self, number: u64) {
        self.table.write().attempts.remove(&number);
    }

    /// The newest attempt of an operation.
    pub(crate) fn find(&self, id: &OperationId) -> Option<Arc<AttemptHandle>> {
        self.table
            .read()
            .attempts
            .values()
            .rev()
            .find(|attempt| attempt.operation_id == *id)
            .cloned()
    }

    /// Asks every attempt of an operation to stop; returns how many there were.
    pub(crate) fn stop(&self, id: &OperationId, reason: StopReason) -> usize {
        let table = self.table.read();
        table
            .attempts
            .values()
            .filter(|attempt| attempt.operation_id == *id)
            .map(|attempt| attempt.stop(reason))
            .count()
    }

    /// Asks all attempts to stop, including those inserted later: their requests were on the way.
    pub(crate) fn stop_all(&self, reason: StopReason) {
        let mut table = self.table.write();
        table.stopping = Some(reason);
        for attempt in table.attempts.values() {
            attempt.stop(reason);
        }
    }

    /// One operation as a heartbeat describes it; `None` when it does not run here.
    pub(crate) fn describe(&self, id: &OperationId) -> Option<RunningOperation> {
        self.find(id).map(|attempt| attempt.describe())
    }

    /// All claimed operations as a heartbeat describes them, oldest first.
    pub(crate) fn describe_all(&self) -> Vec<RunningOperation> {
        self.table
            .read()
            .attempts
            .values()
            .filter(|attempt| attempt.attempt() > 0)
            .map(|attempt| attempt.describe())
            .collect()
    }

    /// The operation that has held a slot for the longest time.
    pub(crate) fn oldest(&self) -> Option<OperationId> {
        self.table
            .read()
            .attempts
            .values()
            .next()
            .map(|attempt| attempt.operation_id.clone())
    }

    /// How many attempts have an end that could not be recorded for longer than this.
    pub(crate) fn unstored_ends(&self, after: Duration) -> usize {
        let table = self.table.read();
        let since = table
            .attempts
            .values()
            .filter_map(|attempt| attempt.ending_since.get());
        since.filter(|since| since.elapsed() > after).count()
    }

    pub(crate) fn len(&self) -> usize {
        self.table.read().attempts.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_entered_while_all_are_stopped_is_stopped_too() {
        let (running, id) = (RunningAttempts::default(), OperationId::new("a").unwrap());
        let early = Arc::new(AttemptHandle::new(id.clone(), LogLimits::default()));
        running.insert(early.clone());

        running.stop_all(StopReason::Shutdown);
        let late = Arc::new(AttemptHandle::new(id, LogLimits::default()));
        running.insert(late.clone());

        assert_eq!(
            [early, late].map(|attempt| attempt.stop_reason()),
            [Some(StopReason::Shutdown); 2]
        );
    }
}
