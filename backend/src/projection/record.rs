//! One operation as the projection holds it, and how it is shown.
//!
//! There may be millions of records, so each is kept small: names are shared, texts have their
//! exact size, fields that few operations have are boxed, and the progress of an ended operation is
//! kept as JSON.

mod times;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use ktrdr_protocol::event::{Failure, ResultRef};
use ktrdr_protocol::execution::ExecutionOptions;
use ktrdr_protocol::id::{OperationId, ScheduleId, WorkerId, WorkerType};
use ktrdr_protocol::json::length;
use ktrdr_protocol::keys::{Concurrency, Unique};
use ktrdr_protocol::labels::Labels;
use ktrdr_protocol::origin::Origin;
use ktrdr_protocol::priority::Priority;
use ktrdr_protocol::progress::Progress;
use ktrdr_protocol::queue_name::QueueName;
use ktrdr_protocol::rest::operation::{
    Attempt, LeftOut, Metadata, OperationDocument, PermitWait, ProgressDocument,
};
use ktrdr_protocol::rest::shortened::{MAX_PARAMETERS, shortened};
use ktrdr_protocol::schema_digest::SchemaDigest;
use ktrdr_protocol::start_request::{NamedCopy, StartRequest};
use ktrdr_protocol::state::{State, Status};
use ktrdr_protocol::time::Timestamp;
use ktrdr_protocol::token_name::TokenName;
use serde_json::value::RawValue;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::index::Place;
use crate::summaries::Shared;

pub use self::times::Times;

/// Where operations of one worker type came from: one of its queues, or direct starts.
#[derive(Debug)]
pub struct QueueInfo {
    /// Its number in the indexes.
    pub number: u32,
    /// Number of the worker type in the indexes.
    pub type_number: u32,
    /// The worker type.
    pub worker_type: WorkerType,
    /// The queue, or `direct`.
    pub origin: Origin,
    /// What the queue's name says; `None` for `direct`, and for queues of earlier versions.
    pub name: Option<QueueName>,
    /// Number of the line that it is a part of: the queues of one class, by priority.
    pub line: u32,
    /// How its operations are summarised.
    pub summary: Shared,
}

impl QueueInfo {
    /// One that is in no index.
    pub fn lone(worker_type: WorkerType, origin: Origin) -> Self {
        Self {
            number: u32::MAX,
            type_number: u32::MAX,
            worker_type,
            name: QueueName::parse(origin.as_str()),
            origin,
            line: u32::MAX,
            summary: Shared::default(),
        }
    }

    /// Whether its operations wait for their time.
    pub fn is_delayed(&self) -> bool {
        self.name.is_some_and(|name| name.is_delayed)
    }
}

/// The progress of an operation, as it is stored.
#[derive(Debug, Clone, Default)]
pub enum StoredProgress {
    /// No progress was reported.
    #[default]
    NotReported,
    /// The operation runs, so its progress changes often.
    Running(Box<LatestProgress>),
    /// The operation has ended. As JSON, because the parsed form is several times as large.
    Ended(Box<RawValue>),
}

/// The newest progress of the attempt that runs.
#[derive(Debug, Clone)]
pub struct LatestProgress {
    /// Its number among the attempt's reports.
    pub number: u64,
    /// When it arrived, by the monotonic clock.
    pub heard: Instant,
    /// The latest time that was shown for it, by this backend's clock.
    pub shown_at: Timestamp,
    /// The progress itself.
    pub progress: Progress,
}

/// Fields that few operations have.
#[derive(Debug, Clone, Default)]
pub struct RareFields {
    /// Execution options, when the start had any.
    pub execution: Option<ExecutionOptions>,
    /// The operation that this one retries or resumes.
    pub retry_of: Option<OperationId>,
    /// The schedule that started it.
    pub schedule_id: Option<ScheduleId>,
    /// When the first cancel was requested.
    pub cancel_requested_at: Option<Timestamp>,
    /// Its reason.
    pub cancel_reason: Option<Box<str>>,
    /// Whether it was cancelled without the worker's confirmation.
    pub forced: bool,
    /// The time before which it must not run again.
    pub retry_at: Option<Timestamp>,
    /// Why it failed.
    pub failure: Option<Failure>,
    /// The reference to a large result.
    pub result_ref: Option<ResultRef>,
    /// Sequence of a second start with the same id, made directly on a worker.
    pub direct_start: Option<u64>,
    /// Sequences of all further start requests with this id.
    pub other_starts: Vec<u64>,
    /// Whether the newest attempt belongs to that second start, so that no queue hands it to
    /// another worker.
    pub runs_direct: bool,
    /// The start request that counts, when it is not the first one.
    pub request: Option<CountingRequest>,
    /// The copy with which a backend put the operation back or moved it last.
    pub put_back: Option<Box<PutBack>>,
    /// The summary of an operation that comes from the archive, as it was there.
    pub summary: Option<Box<str>>,
}

/// The start request that counts: the one that a worker may run, or runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CountingRequest {
    /// It is the message at this sequence.
    Stored(u64),
    /// The log names a copy that is not in the stream yet.
    Missing,
}

/// The newest put-back or move of an operation.
#[derive(Debug, Clone)]
pub struct PutBack {
    /// The copy of the start request that was named.
    pub copy: NamedCopy,
    /// How many times the operation was put back.
    pub count: u32,
}

/// One operation.
#[derive(Debug, Clone)]
pub struct Record {
    /// The operation id.
    pub id: OperationId,
    /// Its worker type and origin.
    pub queue: Arc<QueueInfo>,
    /// Status, attempt and last sequence.
    pub state: State,
    /// Sequence of its start request. It gives the order of creation, and says when the stream
    /// forgets it.
    pub start_sequence: u64,
    /// Stream time of its start request.
    pub created_at: Timestamp,
    /// Stream time of its newest message, or an earlier one's if the stream's clock was set back.
    pub updated_at: Timestamp,
    /// When it ended.
    pub completed_at: Option<Timestamp>,
    /// Parameters of the start request.
    pub parameters: Box<RawValue>,
    /// All attempts, in order.
    pub attempts: Vec<Attempt>,
    /// Its progress.
    pub progress: StoredProgress,
    /// Its result, if it is small.
    pub result: Option<Box<RawValue>>,
    /// The request schema that its parameters were checked against.
    pub schema_digest: Option<SchemaDigest>,
    /// The token that started it. With tokens, all operations have one, and share the text.
    pub requested_by: Option<TokenName>,
    /// Fields that few operations have.
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
            schema_digest,
            retry_of,
            schedule_id,
            requested_by,
            ..
        } = request;
        let is_rare = !execution.is_default() || retry_of.is_some() || schedule_id.is_some();
        let rare = is_rare.then(|| {
            let execution = (!execution.is_default()).then_some(execution);
            Box::new(RareFields {
                execution,
                retry_of,
                schedule_id,
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
            schema_digest,
            requested_by,
            rare,
        }
    }

    /// About how many bytes its document has.
    pub fn size(&self) -> usize {
        const FIELDS: usize = 1024;
        const ATTEMPT: usize = 256;

        // As it is written: a control character takes six bytes.
        let attempt = |attempt: &Attempt| ATTEMPT + attempt.error.as_ref().map_or(0, length);
        let failure = |failure: &Failure| length(&failure.code) + 2 * length(&failure.message);
        let label = |(name, value): (&str, &str)| name.len() + length(&value) + 4;
        let reference = |stored: &ResultRef| stored.bucket.len() + stored.object.len();
        let progress = match &self.progress {
            StoredProgress::Ended(json) => json.get().len(),
            StoredProgress::Running(_) | StoredProgress::NotReported => 0,
        };
        FIELDS
            + self.parameters.get().len()
            + self.result.as_ref().map_or(0, |json| json.get().len())
            + self.attempts.iter().map(attempt).sum::<usize>()
            + self.failure().map_or(0, failure)
            + self.cancel_reason().map_or(0, |reason| length(&reason))
            + self.result_ref().map_or(0, reference)
            + self
                .labels()
                .map_or(0, |labels| labels.iter().map(label).sum())
            + progress
    }

    /// Where the indexes must have it.
    pub fn place(&self) -> Place {
        Place {
            worker_type: self.queue.type_number,
            queue: self.queue.number,
            status: self.state.status,
        }
    }

    /// How long a running operation has reported nothing new: since its newest progress, or since its
    /// attempt began.
    pub fn quiet_for(&self, now: Timestamp, instant: Instant) -> Duration {
        match &self.progress {
            StoredProgress::Running(latest) => instant.saturating_duration_since(latest.heard),
            StoredProgress::NotReported | StoredProgress::Ended(_) => {
                let begun = self.attempts.last().map(|attempt| attempt.started_at);
                now.after(begun.unwrap_or(now))
            }
        }
    }

    /// The worker that runs it or ran it last. `None` while it is pending: a worker that released
    /// it has no part in it any more.
    pub fn worker_id(&self) -> Option<&WorkerId> {
        match self.state.status {
            Status::Pending => None,
            _ => self.attempts.last().map(|attempt| &attempt.worker_id),
        }
    }

    /// The start request that counts.
    pub fn request(&self) -> CountingRequest {
        let other = self.rare.as_ref().and_then(|rare| rare.request);
        other.unwrap_or(CountingRequest::Stored(self.start_sequence))
    }

    /// The newest put-back or move, if there was one.
    pub fn put_back(&self) -> Option<&PutBack> {
        self.rare.as_ref()?.put_back.as_deref()
    }

    /// Whether an attempt runs that was started directly on a worker, so that no queue holds it.
    pub fn runs_direct(&self) -> bool {
        let is_second = self.rare.as_ref().is_some_and(|rare| rare.runs_direct);
        self.state.status == Status::Running && is_second
    }

    fn execution(&self) -> Option<&ExecutionOptions> {
        self.rare.as_ref()?.execution.as_ref()
    }

    /// Its unique key, if it has one.
    pub fn unique(&self) -> Option<&Unique> {
        self.execution()?.unique.as_ref()
    }

    /// Its concurrency key, if it has one.
    pub fn concurrency(&self) -> Option<&Concurrency> {
        self.execution()?.concurrency.as_ref()
    }

    /// Whether a worker may be given it: it is pending, and not delayed.
    pub fn is_queued(&self) -> bool {
        self.state.status == Status::Pending && !self.queue.is_delayed()
    }

    /// The priority in force: that of its queue, which may have changed since the start request. `None` for a
    /// direct start.
    pub fn priority(&self) -> Option<Priority> {
        self.queue.name.map(|name| name.priority)
    }

    /// When the first cancel was requested.
    pub fn cancel_requested_at(&self) -> Option<Timestamp> {
        self.rare.as_ref().and_then(|rare| rare.cancel_requested_at)
    }

    /// The reason of the first cancel, when it had one.
    pub fn cancel_reason(&self) -> Option<&str> {
        self.rare.as_ref()?.cancel_reason.as_deref()
    }

    /// Why it failed.
    pub fn failure(&self) -> Option<&Failure> {
        self.rare.as_ref().and_then(|rare| rare.failure.as_ref())
    }

    /// The schedule that started it.
    pub fn schedule_id(&self) -> Option<&ScheduleId> {
        self.rare
            .as_ref()
            .and_then(|rare| rare.schedule_id.as_ref())
    }

    /// The operation that this one retries or resumes.
    pub fn retry_of(&self) -> Option<&OperationId> {
        self.rare.as_ref().and_then(|rare| rare.retry_of.as_ref())
    }

    /// Its labels, if it has any.
    pub fn labels(&self) -> Option<&Labels> {
        Some(&self.execution()?.labels).filter(|labels| !labels.is_empty())
    }

    /// What it is about.
    pub fn summary(&self) -> Option<String> {
        let archived = self.rare.as_ref().and_then(|rare| rare.summary.as_deref());
        match archived {
            Some(summary) => Some(summary.to_owned()),
            None => self.queue.summary.load().of(&self.parameters),
        }
    }

    /// The reference to a large result.
    pub fn result_ref(&self) -> Option<&ResultRef> {
        self.rare.as_ref().and_then(|rare| rare.result_ref.as_ref())
    }

    /// When something last changed. Reported progress counts while the operation runs. Afterwards
    /// only the stream does, so that all backends show the same, also those that received no
    /// report.
    pub fn shown_updated_at(&self) -> Timestamp {
        match &self.progress {
            StoredProgress::Running(reported) => self.updated_at.max(reported.shown_at),
            _ => self.updated_at,
        }
    }

    /// The newest progress of the attempt that runs.
    pub fn live_progress(&self) -> Option<Progress> {
        match &self.progress {
            StoredProgress::Running(reported) => Some(reported.progress.clone()),
            _ => None,
        }
    }

    /// Its progress; 100 once it is completed.
    pub fn shown_progress(&self) -> Cow<'_, Progress> {
        match &self.progress {
            StoredProgress::Running(reported) => Cow::Borrowed(&reported.progress),
            // This process wrote it from a `Progress`, so it parses. If it did not, 0 or 100 would
            // still be true.
            StoredProgress::Ended(json) => Cow::Owned(
                serde_json::from_str(json.get()).unwrap_or_else(|_| self.bare_progress()),
            ),
            StoredProgress::NotReported => Cow::Owned(self.bare_progress()),
        }
    }

    /// The same for a document. The progress of an ended operation is copied as text, not parsed
    /// and written again.
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

    /// Sequences of further start requests with this id.
    pub fn other_starts(&self) -> &[u64] {
        self.rare.as_ref().map_or(&[], |rare| &rare.other_starts)
    }

    /// The fields that few operations have, created when there are none.
    pub fn rare_mut(&mut self) -> &mut RareFields {
        self.rare.get_or_insert_default()
    }
}

/// An operation at one moment, with the facts that depend on other operations.
#[derive(Debug, Clone)]
pub struct View {
    /// The operation itself.
    pub record: Arc<Record>,
    /// Its position in the queue, from 1, while it is pending.
    pub queue_position: Option<u64>,
    /// The permit that it waits for.
    pub waits_for_permit: Option<PermitWait>,
    /// The newest operation that repeats it.
    pub retried_as: Option<OperationId>,
    /// Whether it comes from the archive, and no longer from the stream.
    pub archived: bool,
    /// Its turn, when it was read from the archive to be shown alone.
    pub turn: Option<Turn>,
}

/// A turn to hold what was read from the archive until it counts for an answer. There are few.
pub type Turn = Arc<OwnedSemaphorePermit>;

impl View {
    /// The operation's status.
    pub fn status(&self) -> Status {
        self.record.state.status
    }
}

/// How much of an operation a document has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// All of it.
    Whole,
    /// All but the result, which may be large: `result` is `null`.
    WithoutResult,
    /// No result, and only small parameters.
    InList,
}

impl View {
    /// The document of the operation, to this extent.
    pub fn document(&self, extent: Extent) -> OperationDocument<'_> {
        let record = &*self.record;
        let result = record.result.as_deref();
        let shown_result = result.filter(|_| extent == Extent::Whole);
        let short = match extent {
            Extent::InList => shortened(&record.parameters),
            Extent::Whole | Extent::WithoutResult => None,
        };
        let mut truncated = Vec::new();
        if result.is_some() && shown_result.is_none() {
            truncated.push(LeftOut::Result);
        }
        if short.is_some() {
            truncated.push(LeftOut::Parameters);
        }

        let rare = record.rare.as_deref();
        let requested = record
            .execution()
            .and_then(|execution| execution.priority)
            .unwrap_or_default();
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

        OperationDocument {
            operation_id: Cow::Borrowed(&record.id),
            operation_type: Cow::Borrowed(&record.queue.worker_type),
            status: record.state.status,
            summary: record.summary().map(Cow::Owned),
            progress: record.progress_document(),
            metadata: Metadata {
                parameters: short.map_or(Cow::Borrowed(&*record.parameters), Cow::Owned),
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
            result: shown_result.map(Cow::Borrowed),
            result_ref: record.result_ref().map(Cow::Borrowed),
            error_message: record
                .failure()
                .map(|failure| Cow::Borrowed(failure.message.as_str())),
            error: record.failure().map(Cow::Borrowed),
            cancel_requested_at: record.cancel_requested_at(),
            cancel_reason: record.cancel_reason().map(Cow::Borrowed),
            forced: rare.is_some_and(|rare| rare.forced),
            queue_position: self.queue_position,
            waits_for_permit: self.waits_for_permit.clone(),
            queue: Cow::Borrowed(&record.queue.origin),
            priority: record
                .priority()
                .filter(|priority| *priority != Priority::USUAL || *priority != requested),
            start_at: record.due(),
            expires_at: record.deadline(),
            retry_at: record.retry_at(),
            retry_of: rare
                .and_then(|rare| rare.retry_of.as_ref())
                .map(Cow::Borrowed),
            retried_as: self.retried_as.as_ref().map(Cow::Borrowed),
            schedule_id: record.schedule_id().map(Cow::Borrowed),
            requested_by: record.requested_by.as_ref().map(Cow::Borrowed),
            archived: self.archived,
            truncated: truncated.into(),
        }
    }

    /// About how many bytes the document has to this extent.
    pub fn size(&self, extent: Extent) -> usize {
        let record = &self.record;
        let left_out = |text: &RawValue, shown: usize| text.get().len().saturating_sub(shown);
        let result = record.result.as_ref().map_or(0, |text| left_out(text, 0));
        let parameters = left_out(&record.parameters, MAX_PARAMETERS);
        match extent {
            Extent::Whole => record.size(),
            Extent::WithoutResult => record.size() - result,
            Extent::InList => record.size() - result - parameters,
        }
    }
}
