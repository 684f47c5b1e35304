//! The operations that this worker runs and has run, for its own REST interface. They are kept in
//! memory only: the stream is the record.

use std::collections::VecDeque;
use std::sync::Arc;

use ktrdr_protocol::event::Failure;
use ktrdr_protocol::id::OperationId;
use ktrdr_protocol::metric::MetricPoint;
use ktrdr_protocol::origin::Origin;
use ktrdr_protocol::progress::Progress;
use ktrdr_protocol::rest::operation::Attempt;
use ktrdr_protocol::start_request::StartRequest;
use ktrdr_protocol::state::Status;
use ktrdr_protocol::time::Timestamp;
use parking_lot::{Mutex, RwLock};
use serde_json::value::RawValue;

use crate::worker::running::AttemptHandle;

/// Operations kept. Beyond that, the oldest one that has ended is removed.
const MAX_OPERATIONS: usize = 256;
/// Metric points kept per operation.
const MAX_POINTS: usize = 10_000;
/// Largest result that is kept, in bytes.
const MAX_RESULT: usize = 64 * 1024;

/// One operation as this worker knows it.
pub(crate) struct LocalOperation {
    pub(crate) request: StartRequest,
    pub(crate) origin: Origin,
    pub(crate) handle: Arc<AttemptHandle>,
    state: Mutex<LocalState>,
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
    pub(crate) points: Vec<MetricPoint>,
    /// How many points were measured so far.
    points_seen: u64,
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
    }

    /// Adds points that are not known yet. The attempt measured `before` points before the first of
    /// them.
    pub(crate) fn record_points(&self, before: u64, points: &[MetricPoint]) {
        let mut state = self.state.lock();
        let known = usize::try_from(state.points_seen.saturating_sub(before)).unwrap_or(usize::MAX);
        let new = points.get(known..).unwrap_or_default();
        state.points_seen = state.points_seen.max(before + points.len() as u64);
        let room = MAX_POINTS.saturating_sub(state.points.len());
        let attempt = state.attempts.last().map(|attempt| attempt.attempt);
        state
            .points
            .extend(new.iter().take(room).map(|point| MetricPoint {
                attempt,
                ..point.clone()
            }));
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
                points: Vec::new(),
                points_seen: 0,
            }),
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
