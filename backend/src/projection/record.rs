//! One operation as the projection holds it, and how it is shown.
//!
//! There may be millions, so: names are shared, texts are exact-sized, what few operations have is boxed, and the progress of
//! an ended one is kept as its JSON.

use std::borrow::Cow;
use std::sync::Arc;

use ktrdr_protocol::event::{Failure, ResultRef};
use ktrdr_protocol::execution::ExecutionOptions;
use ktrdr_protocol::id::{OperationId, WorkerId, WorkerType};
use ktrdr_protocol::origin::Origin;
use ktrdr_protocol::progress::Progress;
use ktrdr_protocol::rest::operation::{Attempt, Metadata, OperationDocument, ProgressDocument};
use ktrdr_protocol::start_request::StartRequest;
use ktrdr_protocol::state::{State, Status};
use ktrdr_protocol::time::Timestamp;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use super::index::Place;

/// A queue of a worker type.
#[derive(Debug)]
pub struct QueueInfo {
    /// Its number in the indexes.
    pub number: u32,
    /// Number of the worker type in the indexes.
    pub type_number: u32,
    /// The worker type.
    pub worker_type: WorkerType,
    /// Its name.
    pub origin: Origin,
}

/// How far an operation is.
#[derive(Debug, Clone, Default)]
pub enum StoredProgress {
    /// Nothing was reported.
    #[default]
    NotReported,
    /// It runs; changes often.
    Running(Box<LatestProgress>),
    /// It has ended; JSON, because the parsed form is several times as large.
    Ended(Box<RawValue>),
}

/// The newest report of the attempt that runs.
#[derive(Debug, Clone)]
pub struct LatestProgress {
    /// Its number among the attempt's reports.
    pub number: u64,
    /// The latest time that users were shown for it, by this backend's clock.
    pub shown_at: Timestamp,
    /// What it said.
    pub progress: Progress,
}

/// What few operations have.
#[derive(Debug, Clone, Default)]
pub struct RareFields {
    /// How to run it, when the start said so.
    pub execution: Option<ExecutionOptions>,
    /// The operation this one repeats.
    pub retry_of: Option<OperationId>,
    /// When a cancel was asked for.
    pub cancel_requested_at: Option<Timestamp>,
    /// Closed without the worker's confirmation.
    pub forced: bool,
    /// Not to be run before this time.
    pub retry_at: Option<Timestamp>,
    /// What went wrong, once failed.
    pub failure: Option<Failure>,
    /// Where a large result is.
    pub result_ref: Option<ResultRef>,
    /// Sequence of a second start with this id, directly on a worker.
    pub direct_start: Option<u64>,
    /// The newest attempt belongs to that one, so no queue hands it to another worker.
    pub runs_direct: bool,
}

/// One operation.
#[derive(Debug, Clone)]
pub struct Record {
    /// Its id.
    pub id: OperationId,
    /// Its worker type and queue.
    pub queue: Arc<QueueInfo>,
    /// Where it stands.
    pub state: State,
    /// Sequence of its start request: creation order, and how long it is retained.
    pub start_sequence: u64,
    /// When the start was accepted.
    pub created_at: Timestamp,
    /// When anything in the stream about it last changed.
    pub updated_at: Timestamp,
    /// When it ended.
    pub completed_at: Option<Timestamp>,
    /// The request's parameters.
    pub parameters: Box<RawValue>,
    /// All attempts in order.
    pub attempts: Vec<Attempt>,
    /// How far it is.
    pub progress: StoredProgress,
    /// The result, when it is small.
    pub result: Option<Box<RawValue>>,
    /// What few operations have.
    pub rare: Option<Box<RareFields>>,
}

impl Record {
    /// A pending operation from its start request.
    pub fn new(request: StartRequest, start_sequence: u64, queue: Arc<QueueInfo>) -> Self {
        let StartRequest {
            operation_id,
            parameters,
            execution,
            created_at,
            retry_of,
            ..
        } = request;
        let rare = (!execution.is_default() || retry_of.is_some()).then(|| {
            let execution = (!execution.is_default()).then_some(execution);
            Box::new(RareFields {
                execution,
                retry_of,
                ..RareFields::default()
            })
        });
        Self {
            id: operation_id,
            queue,
            state: State::default(),
            start_sequence,
            created_at,
            updated_at: created_at,
            completed_at: None,
            parameters,
            attempts: Vec::new(),
            progress: StoredProgress::NotReported,
            result: None,
            rare,
        }
    }

    /// Its place in the indexes.
    pub fn place(&self) -> Place {
        Place {
            worker_type: self.queue.type_number,
            queue: self.queue.number,
            status: self.state.status,
        }
    }

    /// Who runs it, or ran it last. Nobody while it is pending: the one that handed it back has nothing to do with it.
    pub fn worker_id(&self) -> Option<&WorkerId> {
        match self.state.status {
            Status::Pending => None,
            _ => self.attempts.last().map(|attempt| &attempt.worker_id),
        }
    }

    /// When a cancel was asked for.
    pub fn cancel_requested_at(&self) -> Option<Timestamp> {
        self.rare.as_ref().and_then(|rare| rare.cancel_requested_at)
    }

    /// The failure, once failed.
    pub fn failure(&self) -> Option<&Failure> {
        self.rare.as_ref().and_then(|rare| rare.failure.as_ref())
    }

    /// Where a large result is.
    pub fn result_ref(&self) -> Option<&ResultRef> {
        self.rare.as_ref().and_then(|rare| rare.result_ref.as_ref())
    }

    /// When something last changed. Reports count while the operation runs; afterwards only what is in the stream does, so
    /// that all backends say the same, also those that heard none.
    pub fn shown_updated_at(&self) -> Timestamp {
        match &self.progress {
            StoredProgress::Running(reported) => self.updated_at.max(reported.shown_at),
            _ => self.updated_at,
        }
    }

    /// What was last heard of the attempt that runs.
    pub fn live_progress(&self) -> Option<Progress> {
        match &self.progress {
            StoredProgress::Running(reported) => Some(reported.progress.clone()),
            _ => None,
        }
    }

    /// How far it is; 100 once completed.
    pub fn shown_progress(&self) -> Cow<'_, Progress> {
        match &self.progress {
            StoredProgress::Running(reported) => Cow::Borrowed(&reported.progress),
            // Written by this process from a `Progress`; if it ever did not parse, 0 or 100 is still true.
            StoredProgress::Ended(json) => Cow::Owned(
                serde_json::from_str(json.get()).unwrap_or_else(|_| self.bare_progress()),
            ),
            StoredProgress::NotReported => Cow::Owned(self.bare_progress()),
        }
    }

    /// The same for a document. The progress of an ended operation is copied as text, not parsed and written again.
    pub fn progress_document(&self) -> ProgressDocument<'_> {
        match &self.progress {
            StoredProgress::Running(reported) => {
                ProgressDocument::Value(Cow::Borrowed(&reported.progress))
            }
            StoredProgress::Ended(json) => ProgressDocument::Json(json),
            StoredProgress::NotReported => {
                ProgressDocument::Value(Cow::Owned(self.bare_progress()))
            }
        }
    }

    fn bare_progress(&self) -> Progress {
        match self.state.status {
            Status::Completed => Progress::default().finished(),
            _ => Progress::default(),
        }
    }

    /// What few operations have, to be written to.
    pub fn rare_mut(&mut self) -> &mut RareFields {
        self.rare.get_or_insert_default()
    }
}

/// An operation at one moment, with what depends on the others.
#[derive(Debug, Clone)]
pub struct View {
    /// The operation.
    pub record: Arc<Record>,
    /// While pending: its place in the queue.
    pub queue_position: Option<u64>,
}

impl View {
    /// Where it stands.
    pub fn status(&self) -> Status {
        self.record.state.status
    }
}

/// A [`View`] without its result, which may be large: `result` is `null`.
#[derive(Debug)]
pub struct WithoutResult<'a>(pub &'a View);

impl Serialize for WithoutResult<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.document(None).serialize(serializer)
    }
}

impl Serialize for View {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let result = self.record.result.as_deref();
        self.document(result).serialize(serializer)
    }
}

/// A view is written as an [`OperationDocument`].
impl JsonSchema for View {
    fn schema_name() -> Cow<'static, str> {
        OperationDocument::schema_name()
    }

    fn schema_id() -> Cow<'static, str> {
        OperationDocument::schema_id()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        OperationDocument::json_schema(generator)
    }
}

impl View {
    /// The document of the operation, with `result` as its result.
    pub fn document<'a>(&'a self, result: Option<&'a RawValue>) -> OperationDocument<'a> {
        let record = &*self.record;
        let rare = record.rare.as_deref();
        let worker_id = record.worker_id();
        let started_at = record.attempts.last().map(|attempt| attempt.started_at);
        let ended_at = record
            .completed_at
            .or_else(|| record.attempts.last().and_then(|attempt| attempt.ended_at));
        let duration = |started_at| {
            ended_at
                .unwrap_or_else(Timestamp::now)
                .seconds_since(started_at)
        };
        let pending = record.state.status == Status::Pending;

        OperationDocument {
            operation_id: Cow::Borrowed(&record.id),
            operation_type: Cow::Borrowed(&record.queue.worker_type),
            status: record.state.status,
            progress: record.progress_document(),
            metadata: Metadata {
                parameters: Cow::Borrowed(&record.parameters),
                worker_id: worker_id.map(WorkerId::as_str),
            },
            execution: rare
                .and_then(|rare| rare.execution.as_ref())
                .map(Cow::Borrowed),
            created_at: record.created_at,
            started_at,
            completed_at: record.completed_at,
            updated_at: record.shown_updated_at(),
            duration_seconds: started_at.map(duration),
            worker_id: worker_id.map(Cow::Borrowed),
            attempt: record.state.attempt,
            attempts: Cow::Borrowed(&record.attempts),
            result: result.map(Cow::Borrowed),
            result_ref: record.result_ref().map(Cow::Borrowed),
            error_message: record
                .failure()
                .map(|failure| Cow::Borrowed(failure.message.as_str())),
            error: record.failure().map(Cow::Borrowed),
            cancel_requested_at: record.cancel_requested_at(),
            forced: rare.is_some_and(|rare| rare.forced),
            queue_position: self.queue_position,
            queue: Cow::Borrowed(&record.queue.origin),
            retry_at: rare.and_then(|rare| rare.retry_at).filter(|_| pending),
            retry_of: rare
                .and_then(|rare| rare.retry_of.as_ref())
                .map(Cow::Borrowed),
        }
    }
}
