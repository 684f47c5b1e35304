//! Publishes starts and cancels; nothing else in the backend does.
//!
//! The problem: a request decides by what this backend has read so far, and meanwhile a worker or
//! another backend may have moved the operation on. NATS may also fail to confirm, so that nobody
//! knows whether a message was stored.
//!
//! How it is solved: a start request has the operation id as its message id, so publishing it again
//! stores nothing. Every event names the sequence it must follow. When another event came first,
//! the stream refuses it and the log has the current state: a cancel is then decided again, and an
//! end that was decided for a state that has passed is dropped. A publish without a confirmation is
//! repeated for a while and then answered with `outcome_unknown`.
//!
//! Rejected: a lock around an operation. The stream already puts all events in one order, and a
//! lock that its holder can lose protects nothing.

mod copies;
mod keys;

use std::sync::Arc;
use std::time::Duration;

use ktrdr_bus::oplog::{AppendError, Behind, OpLog, StartMessage, Stored};
use ktrdr_bus::refusals::Refusals;
use ktrdr_bus::telemetry::chain;
use ktrdr_bus::topology::TopologyError;
use ktrdr_protocol::cancel::CancelIntent;
use ktrdr_protocol::claim::expired;
use ktrdr_protocol::event::{Event, EventKind, Failure};
use ktrdr_protocol::id::{OperationId, Queue, WorkerType};
use ktrdr_protocol::origin::Origin;
use ktrdr_protocol::queue_class;
use ktrdr_protocol::queue_name::QueueName;
use ktrdr_protocol::signed_start::NOT_SIGNED;
use ktrdr_protocol::start_request::StartRequest;
use ktrdr_protocol::state::Status;
use ktrdr_protocol::subject::SubjectNames;
use ktrdr_protocol::time::Timestamp;
use ktrdr_protocol::trace::TraceParent;

use crate::error::{ApiError, ErrorCode};
use crate::projection::record::{Record, View};
use crate::queues::{QueueError, Queues};
use crate::signatures::Signatures;

pub use self::copies::{MoveError, NoOriginal};

/// How long a request repeats a publish that is not confirmed.
const PATIENCE: Duration = Duration::from_secs(6);

/// How often a cancel is decided when other events come first. Each time, the operation has moved
/// on.
const DECISIONS: usize = 8;

/// Publishes starts and cancels.
pub struct Dispatch {
    names: SubjectNames,
    queues: Arc<Queues>,
    log: OpLog,
    signatures: Signatures,
    refusals: Refusals,
}

/// The outcome of a cancel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cancel {
    /// The operation is cancelled, by the event at this sequence.
    Done(u64),
    /// Somebody else has cancelled it meanwhile, by the event at this sequence.
    Before(u64),
    /// The worker was asked to stop, by the intent at this sequence.
    Asked(u64),
    /// The operation had already ended with this status.
    Ended(Status),
}

/// The outcome of a move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moved {
    /// It was moved by the event at this sequence.
    Done(u64),
    /// The same, but the copy of its start request is not stored yet.
    CopyFollows(u64),
    /// Another event came first, at this sequence.
    Late(u64),
}

impl Dispatch {
    /// Publishes into these queues and this log, signed if there is a key. `refusals` are those of
    /// the same connection.
    pub fn new(
        names: SubjectNames,
        queues: Arc<Queues>,
        log: OpLog,
        signatures: Signatures,
        refusals: Refusals,
    ) -> Self {
        Self {
            names,
            queues,
            log,
            signatures,
            refusals,
        }
    }

    /// Takes another retention: the retention in force has changed.
    pub fn set_retention(&self, retention: Duration) {
        self.signatures.set_retention(retention);
    }

    /// Stores a start request, in the queue of the smallest class that covers its requirements, and
    /// of its priority. One that is not due yet, by the stream's time `now`, waits apart. `None` when it
    /// was to be stored behind the entry of a key, and another entry came first.
    ///
    /// # Errors
    /// [`ApiError`]; only `outcome_unknown` leaves open whether it was stored.
    pub async fn start(
        &self,
        request: &StartRequest,
        trace: Option<&TraceParent>,
        now: Timestamp,
        behind: Option<&Behind>,
    ) -> Result<Option<Stored>, ApiError> {
        let refused = self.refusals.count();
        let origin = self.origin_of(request, now, refused).await?;
        let signer = self.signatures.signer();
        let stored = match StartMessage::of(request, &origin, trace) {
            Ok(message) => {
                let message = StartMessage { behind, ..message };
                self.log.store_start(message, signer, PATIENCE).await
            }
            Err(error) => Err(error),
        };
        match stored {
            Ok(stored) => Ok(Some(stored)),
            Err(AppendError::Superseded) => Ok(None),
            Err(error) => {
                let error = ApiError::append(error, &request.operation_id);
                Err(self.explain(error, refused))
            }
        }
    }

    /// Checks what can be checked of a start before anything is done for it: that its queue exists, and
    /// that NATS takes a message of its size.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn check_start(
        &self,
        request: &StartRequest,
        trace: Option<&TraceParent>,
        now: Timestamp,
    ) -> Result<(), ApiError> {
        let refused = self.refusals.count();
        let origin = self.origin_of(request, now, refused).await?;
        let message = StartMessage::of(request, &origin, trace);
        let fits = message.and_then(|message| self.log.fits(&message));
        fits.map_err(|error| ApiError::append(error, &request.operation_id))
    }

    /// The queue of a start, which is made unless it exists. `refused` counts what the server had refused
    /// before.
    async fn origin_of(
        &self,
        request: &StartRequest,
        now: Timestamp,
        refused: u64,
    ) -> Result<Origin, ApiError> {
        let execution = &request.execution;
        let class =
            queue_class::covering(&execution.requirements).map_err(ApiError::beyond_largest)?;
        let name = QueueName::new(class, execution.priority.unwrap_or_default());
        if execution.due(now).is_some_and(|due| due > now) {
            return Ok(Origin::Queued(name.delayed().queue()));
        }

        let queue = name.queue();
        self.ensure_queue(&request.operation_type, &queue, refused)
            .await?;
        Ok(Origin::Queued(queue))
    }

    /// Makes a queue, unless it exists. `refused` counts what the server had refused before.
    async fn ensure_queue(
        &self,
        worker_type: &WorkerType,
        queue: &Queue,
        refused: u64,
    ) -> Result<(), ApiError> {
        let ensured = self.queues.ensure(worker_type, queue).await;
        ensured.map_err(|error| self.explain(unusable_queue(error), refused))
    }

    /// The server answers nobody who lacks a permission, so that looks as if NATS were away. Says
    /// which one is missing, if the server has refused something after it had refused `before`.
    fn explain(&self, error: ApiError, before: u64) -> ApiError {
        let is_unanswered = matches!(
            error.problem().code,
            ErrorCode::NatsUnavailable | ErrorCode::OutcomeUnknown
        );
        let is_of_requests =
            |subject: &str| subject.starts_with("$JS.API.") || self.names.parse(subject).is_some();
        match self.refusals.since(before, is_of_requests) {
            Some(subject) if is_unanswered => ApiError::not_permitted(&subject),
            _ => error,
        }
    }

    /// Moves an operation for a client; see [`Self::move_to`].
    ///
    /// # Errors
    /// 409 `not_repeatable` when its start request cannot be published again, or what a start may be
    /// refused for.
    pub async fn try_move(&self, record: &Record, to: QueueName) -> Result<Moved, ApiError> {
        let refused = self.refusals.count();
        let error = match self.move_to(record, to).await {
            Ok(sequence) => return Ok(Moved::Done(sequence)),
            Err(MoveError::Append(AppendError::Conflict(log))) => return Ok(Moved::Late(log.tail)),
            Err(MoveError::CopyFollows { moved_at, source }) => {
                tracing::warn!(operation_id = %record.id, error = chain(&source), "the operation was moved, and its start request follows later");
                return Ok(Moved::CopyFollows(moved_at));
            }
            Err(MoveError::Append(error)) => ApiError::append(error, &record.id),
            Err(MoveError::Queue(error)) => unusable_queue(error),
            Err(MoveError::NoOriginal(NoOriginal::Unknown(_))) => ApiError::nats_unavailable(),
            Err(MoveError::NoOriginal(why)) => not_repeatable(record, &why.to_string()),
        };
        Err(self.explain(error, refused))
    }

    /// The last sequence of an operation's log; 0 when the log is empty.
    ///
    /// # Errors
    /// [`ApiError`] when NATS does not answer.
    pub async fn log_tail(
        &self,
        worker_type: &WorkerType,
        id: &OperationId,
    ) -> Result<u64, ApiError> {
        let refused = self.refusals.count();
        let log = self.log.read(worker_type, id).await;
        log.map(|log| log.tail)
            .map_err(|_| self.explain(ApiError::nats_unavailable(), refused))
    }

    /// Cancels an operation: one that is pending at once, one that runs by storing `intent` for its
    /// worker. Decides again whenever another event came first.
    ///
    /// # Errors
    /// [`ApiError`] when NATS does not confirm.
    pub async fn cancel(&self, record: &Record, intent: CancelIntent) -> Result<Cancel, ApiError> {
        let (worker_type, id) = (&record.queue.worker_type, &record.id);
        let mut state = record.state;
        let mut tail = state.last_sequence;
        let refused = self.refusals.count();
        for _ in 0..DECISIONS {
            match state.status {
                Status::Completed | Status::Failed => return Ok(Cancel::Ended(state.status)),
                Status::Cancelled => return Ok(Cancel::Before(state.last_sequence)),
                Status::Running => {
                    return self
                        .intend_cancel(worker_type, &intent)
                        .await
                        .map(Cancel::Asked);
                }
                Status::Pending => {
                    let kind = EventKind::Cancelled {
                        forced: false,
                        progress: None,
                        requested_by: intent.requested_by.clone(),
                        reason: intent.reason.clone(),
                    };
                    match self.append(record, state.attempt, tail, kind).await {
                        Ok(sequence) => return Ok(Cancel::Done(sequence)),
                        Err(AppendError::Conflict(log)) => (tail, state) = (log.tail, log.state),
                        Err(error) => {
                            return Err(self.explain(ApiError::append(error, id), refused));
                        }
                    }
                }
            }
        }

        Err(ApiError::internal(format!(
            "operation {id} changed {DECISIONS} times while it was being cancelled"
        )))
    }

    /// Asks the worker to stop. Repeating it reaches a worker that did not receive the intent
    /// before.
    ///
    /// # Errors
    /// [`ApiError`] when NATS does not confirm.
    pub async fn intend_cancel(
        &self,
        worker_type: &WorkerType,
        intent: &CancelIntent,
    ) -> Result<u64, ApiError> {
        let refused = self.refusals.count();
        let stored = self.log.cancel(worker_type, intent, PATIENCE).await;
        stored.map_err(|error| {
            let error = ApiError::append(error, &intent.operation_id);
            self.explain(error, refused)
        })
    }

    /// Closes an operation whose worker does not confirm the cancel.
    ///
    /// # Errors
    /// [`AppendError`]; a conflict means that another event came first, for example the worker's.
    pub async fn force_cancel(&self, record: &Record) -> Result<u64, AppendError> {
        let kind = EventKind::Cancelled {
            forced: record.state.status == Status::Running,
            progress: record.live_progress(),
            requested_by: None,
            reason: None,
        };
        self.close(record, kind).await
    }

    /// Closes an operation whose worker is gone and that no queue will deliver again.
    ///
    /// # Errors
    /// [`AppendError`]; a conflict means that another event came first.
    pub async fn fail_lost(&self, record: &Record, message: String) -> Result<u64, AppendError> {
        let error = Failure {
            code: "worker_lost".to_owned(),
            message,
            permanent: false,
        };
        let kind = EventKind::Failed {
            error,
            progress: record.live_progress(),
        };
        self.close(record, kind).await
    }

    /// Closes an operation of which no attempt has started in time.
    ///
    /// # Errors
    /// [`AppendError`]; a conflict means that another event came first, for example a worker's claim.
    pub async fn expire(&self, record: &Record, deadline: Timestamp) -> Result<u64, AppendError> {
        let kind = EventKind::Failed {
            error: expired(deadline),
            progress: None,
        };
        self.close(record, kind).await
    }

    /// Closes an operation whose start request workers refuse because of its signature.
    ///
    /// # Errors
    /// [`AppendError`]; a conflict means that another event came first.
    pub async fn fail_unsigned(
        &self,
        record: &Record,
        message: String,
    ) -> Result<u64, AppendError> {
        let error = Failure {
            code: NOT_SIGNED.to_owned(),
            message,
            permanent: true,
        };
        let kind = EventKind::Failed {
            error,
            progress: record.live_progress(),
        };
        self.close(record, kind).await
    }

    /// Refuses to sign the parameters of an operation again whose own start request was not signed:
    /// whoever may publish on the bus could have chosen them. A backend that signs nothing repeats
    /// everything.
    ///
    /// # Errors
    /// 409 `not_repeatable`, or 503 when NATS does not answer.
    pub async fn may_repeat(&self, view: &View) -> Result<(), ApiError> {
        if self.signatures.trusted().is_none() {
            return Ok(());
        }
        let record = &view.record;
        let refused = self.refusals.count();
        let why = if view.archived {
            "it has left the stream, and its signature with it".to_owned()
        } else {
            match self.original(record).await {
                Ok(_) => return Ok(()),
                Err(NoOriginal::Unknown(_)) => {
                    return Err(self.explain(ApiError::nats_unavailable(), refused));
                }
                Err(why) => why.to_string(),
            }
        };

        Err(not_repeatable(record, &why))
    }

    /// Appends an event if the operation is still in the state of `record`.
    async fn close(&self, record: &Record, kind: EventKind) -> Result<u64, AppendError> {
        let state = record.state;
        let appended = self
            .append(record, state.attempt, state.last_sequence, kind.clone())
            .await;
        match appended {
            // The message that came first is not an event and changed nothing, but the next event
            // must name its sequence.
            Err(AppendError::Conflict(log)) if log.state == state => {
                self.append(record, state.attempt, log.tail, kind).await
            }
            outcome => outcome,
        }
    }

    /// Appends an event about `attempt` that must follow `tail`.
    async fn append(
        &self,
        record: &Record,
        attempt: u32,
        tail: u64,
        kind: EventKind,
    ) -> Result<u64, AppendError> {
        let event = Event::by_backend(&record.id, attempt, kind);
        self.log
            .append(&record.queue.worker_type, &event, tail, PATIENCE)
            .await
    }
}

/// The answer when the start request of an operation must not be published again.
fn not_repeatable(record: &Record, why: &str) -> ApiError {
    let id = &record.id;
    let text = format!(
        "The start request of operation {id} cannot be trusted ({why}), so it is not run again; start a new operation"
    );
    ApiError::new(ErrorCode::NotRepeatable, text)
        .with("operation_id", id.as_str())
        .with("status", record.state.status.as_str())
}

/// The answer to a start whose queue cannot be used.
fn unusable_queue(error: QueueError) -> ApiError {
    match error {
        QueueError::NoRoom(_) | QueueError::Topology(TopologyError::ConsumerLimit { .. }) => {
            ApiError::too_many_queues()
        }
        QueueError::Topology(error @ TopologyError::Nats { .. }) => {
            tracing::warn!(error = chain(&error), "cannot prepare the queue");
            ApiError::nats_unavailable()
        }
        QueueError::Topology(error) => ApiError::internal(error),
    }
}
