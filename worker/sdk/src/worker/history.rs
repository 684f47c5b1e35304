//! The operations that this worker runs and has run, for its own REST interface. They are kept in
//! memory only: the stream is the record.

use std::collections::VecDeque;
use std::sync::Arc;

use ktrdr_protocol::event::Failure;
use ktrdr_protocol::id::OperationId;
use ktrdr_protocol::metric::MetricPoint;
use ktrdr_protocol::origin::Origin;
use ktrdr_protocol::progress::Progress;
use ktrdr_protocol::rest::metrics::Cursor;
use ktrdr_protocol::rest::operation::{Attempt, AttemptOutcome};
use ktrdr_protocol::start_request::StartRequest;
use ktrdr_protocol::state::Status;
use ktrdr_protocol::time::Timestamp;
use parking_lot::{Mutex, RwLock};
use serde_json::value::RawValue;
use tokio_util::sync::CancellationToken;

use crate::worker::points::{LocalPoints, PointsPage};
use crate::worker::running::AttemptHandle;

/// Operations kept. Beyond that, the oldest one that has ended is removed.
const MAX_OPERATIONS: usize = 256;
/// Largest result that is kept, in bytes.
const MAX_RESULT: usize = 64 * 1024;

/// One operation as this worker knows it.
pub(crate) struct LocalOperation {
    pub(crate) request: StartRequest,
    pub(crate) origin: Origin,
    pub(crate) handle: Arc<AttemptHandle>,
    state: Mutex<LocalState>,
    points: Mutex<LocalPoints>,
    /// Cancelled when the attempt has ended.
    over: CancellationToken,
}

/// The part of a [`LocalOperation`] that changes.
#[derive(Clone)]
pub(crate) struct LocalState {
    pub(crate) status: Status,
    pub(crate) attempts: Vec<Attempt>,
    pub(crate) ended_at: Option<Timestamp>,
    pub(crate) progress: Progress,
    pub(crate) result: Option<Box<RawValue>>,
    pub(crate) error: Option<Failure>,
}

impl LocalState {
    /// Whether the operation went on without this worker's attempt.
    pub(crate) fn is_lost(&self) -> bool {
        let last = self.attempts.last();
        last.is_some_and(|attempt| attempt.outcome == Some(AttemptOutcome::Lost))
    }
}

impl LocalOperation {
    /// The state now, with the newest progress while it runs.
    pub(crate) fn state(&self) -> LocalState {
        let mut state = self.state.lock().clone();
        if state.status == Status::Running {
            state.progress = self.handle.report.latest_progress();
        }
        state
    }

    pub(crate) fn started(&self, attempt: Attempt) {
        let mut state = self.state.lock();
        state.status = Status::Running;
        state.attempts.push(attempt);
    }

    /// Notes how the attempt ended.
    pub(crate) fn ended(&self, change: impl FnOnce(&mut LocalState)) {
        let mut state = self.state.lock();
        state.progress = self.handle.report.latest_progress();
        state.ended_at = Some(Timestamp::now());
        change(&mut state);
        if state
            .result
            .as_ref()
            .is_some_and(|result| result.get().len() > MAX_RESULT)
        {
            state.result = None;
        }
        drop(state);
        self.over.cancel();
    }

    /// Resolves when the attempt has ended. Cancel safe.
    pub(crate) async fn until_ended(&self) {
        self.over.cancelled().await;
    }

    /// Adds points that are not known yet. The attempt measured `before` points before the first of
    /// them.
    pub(crate) fn record_points(&self, before: u64, points: &[MetricPoint]) {
        let attempt = self.handle.attempt();
        self.points.lock().record(before, points, attempt);
    }

    /// Notes that the stream has a batch of `count` points, the first of them with the number
    /// `first`.
    pub(crate) fn batch_is_stored(&self, sequence: u64, first: u64, count: usize) {
        self.points.lock().stored(sequence, first, count);
    }

    /// Up to `limit` points of the series `names` from `cursor` on; of all series when there are no
    /// names.
    pub(crate) fn points(&self, cursor: Cursor, names: &[String], limit: usize) -> PointsPage {
        let attempt = self.handle.attempt();
        self.points.lock().page(cursor, attempt, names, limit)
    }
}

/// The operations this process has run, oldest first.
#[derive(Default)]
pub(crate) struct LocalOperations {
    entries: RwLock<VecDeque<Arc<LocalOperation>>>,
}

impl LocalOperations {
    pub(crate) fn insert(
        &self,
        request: StartRequest,
        origin: Origin,
        handle: Arc<AttemptHandle>,
    ) -> Arc<LocalOperation> {
        let entry = Arc::new(LocalOperation {
            request,
            origin,
            handle,
            state: Mutex::new(LocalState {
                status: Status::Pending,
                attempts: Vec::new(),
                ended_at: None,
                progress: Progress::default(),
                result: None,
                error: None,
            }),
            points: Mutex::default(),
            over: CancellationToken::new(),
        });

        let mut entries = self.entries.write();
        // A running operation must stay: clients ask about it and cancel it here.
        if entries.len() >= MAX_OPERATIONS
            && let Some(ended) = entries
                .iter()
                .position(|entry| entry.state.lock().ended_at.is_some())
        {
            entries.remove(ended);
        }
        entries.push_back(entry.clone());
        entry
    }

    /// Removes an entry, because the operation was not this worker's to run.
    pub(crate) fn remove(&self, entry: &Arc<LocalOperation>) {
        self.entries
            .write()
            .retain(|known| !Arc::ptr_eq(known, entry));
    }

    /// The newest entry of an operation.
    pub(crate) fn get(&self, id: &OperationId) -> Option<Arc<LocalOperation>> {
        self.entries
            .read()
            .iter()
            .rev()
            .find(|entry| entry.request.operation_id == *id)
            .cloned()
    }

    /// All entries, newest first.
    pub(crate) fn all(&self) -> Vec<Arc<LocalOperation>> {
        self.entries.read().iter().rev().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use ktrdr_protocol::id::WorkerId;

    use super::*;

    /// A failed state whose engine chose the error code that lost attempts have.
    fn failed(outcome: AttemptOutcome) -> LocalState {
        LocalState {
            status: Status::Failed,
            attempts: vec![Attempt {
                attempt: 1,
                worker_id: WorkerId::new("w").unwrap(),
                started_at: Timestamp::now(),
                ended_at: None,
                outcome: Some(outcome),
                error: None,
            }],
            ended_at: None,
            progress: Progress::default(),
            result: None,
            error: Some(Failure {
                code: "fenced".to_owned(),
                message: String::new(),
                permanent: true,
            }),
        }
    }

    #[test]
    fn no_error_code_of_an_engine_says_that_its_attempt_was_lost() {
        assert!(!failed(AttemptOutcome::Failed).is_lost());
        assert!(failed(AttemptOutcome::Lost).is_lost());
    }
}
