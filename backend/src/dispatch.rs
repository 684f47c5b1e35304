//! The only code that publishes starts and cancels: message ids, expected sequences, and what to do when they do not hold.

use std::collections::HashMap;
use std::time::Duration;

use ktrdr_bus::nats::Connection;
use ktrdr_bus::oplog::{AppendError, OpLog, Stored};
use ktrdr_bus::topology::{self, TopologyError};
use ktrdr_protocol::cancel::CancelIntent;
use ktrdr_protocol::event::{Event, EventKind, Failure};
use ktrdr_protocol::id::{OperationId, Queue, WorkerType};
use ktrdr_protocol::origin::Origin;
use ktrdr_protocol::start_request::StartRequest;
use ktrdr_protocol::state::{FoldedLog, State, Status};
use ktrdr_protocol::subject::SubjectNames;
use ktrdr_protocol::trace::TraceParent;
use parking_lot::Mutex;

use crate::error::ApiError;
use crate::projection::record::Record;

/// How long a request goes on trying to have a message confirmed.
const PATIENCE: Duration = Duration::from_secs(6);

/// How often a cancel is decided anew when other events come first. Each time means that the operation moved on.
const DECISIONS: usize = 8;

/// Publishes starts and cancels.
pub struct Dispatch {
    connection: Connection,
    names: SubjectNames,
    log: OpLog,
    lease: Duration,
    /// Queues whose consumer was seen, and in which connection to which stream: a broker that came back, or a stream that
    /// was made anew, may have lost them.
    queues: Mutex<HashMap<(WorkerType, Queue), (u64, u64)>>,
}

/// What became of a cancel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cancel {
    /// It is cancelled, by the message at this sequence.
    Done(u64),
    /// A worker has been asked to stop, by the message at this sequence.
    Asked(u64),
    /// It had already ended.
    Ended(Status),
}

impl Dispatch {
    /// Over this connection. `lease` goes into queues that are made here.
    pub fn new(connection: Connection, names: SubjectNames, log: OpLog, lease: Duration) -> Self {
        Self {
            connection,
            names,
            log,
            lease,
            queues: Mutex::default(),
        }
    }

    /// Publishes a start request: queue entry and record of creation in one message. Returns its sequence, and whether the
    /// same id had been published before (then nothing was stored, and the sequence is that of the first). `generation` is
    /// that of the projection.
    ///
    /// # Errors
    /// [`ApiError`]; only `outcome_unknown` leaves open whether it was stored.
    pub async fn start(
        &self,
        request: &StartRequest,
        generation: u64,
        trace: Option<&TraceParent>,
    ) -> Result<Stored, ApiError> {
        let queue = request.execution.requirements.queue();
        self.ensure_queue(&request.operation_type, &queue, generation)
            .await?;
        self.log
            .start(request, &Origin::Queued(queue), trace, PATIENCE)
            .await
            .map_err(|error| ApiError::append(error, &request.operation_id))
    }

    /// Sequence of the last message of an operation's log; 0 when there is none.
    ///
    /// # Errors
    /// [`ApiError`] when NATS does not answer.
    pub async fn log_tail(
        &self,
        worker_type: &WorkerType,
        id: &OperationId,
    ) -> Result<u64, ApiError> {
        let log = self.log.read(worker_type, id).await;
        log.map(|log| log.tail)
            .map_err(|_| ApiError::nats_unavailable())
    }

    /// Makes sure that the queue's consumer exists before something is put into it.
    async fn ensure_queue(
        &self,
        worker_type: &WorkerType,
        queue: &Queue,
        generation: u64,
    ) -> Result<(), ApiError> {
        let epoch = (self.connection.link.borrow().epoch, generation);
        let key = (worker_type.clone(), queue.clone());
        if self.queues.lock().get(&key) == Some(&epoch) {
            return Ok(());
        }
        let made = topology::ensure_queue(
            &self.connection.jetstream,
            &self.names,
            worker_type,
            queue,
            self.lease,
        )
        .await;
        match made {
            Ok(_) => {
                self.queues.lock().insert(key, epoch);
                Ok(())
            }
            Err(error @ TopologyError::Nats { .. }) => {
                tracing::warn!(%error, cause = ?std::error::Error::source(&error), "cannot prepare the queue");
                Err(ApiError::nats_unavailable())
            }
            Err(error) => Err(ApiError::internal(error)),
        }
    }

    /// Cancels an operation, deciding anew whenever another event came first.
    ///
    /// # Errors
    /// [`ApiError`] when NATS does not confirm.
    pub async fn cancel(
        &self,
        record: &Record,
        reason: Option<String>,
    ) -> Result<Cancel, ApiError> {
        let (worker_type, id) = (&record.queue.worker_type, &record.id);
        let mut state = record.state;
        let mut tail = state.last_sequence;
        for _ in 0..DECISIONS {
            match state.status {
                Status::Completed | Status::Failed => return Ok(Cancel::Ended(state.status)),
                Status::Cancelled => return Ok(Cancel::Done(state.last_sequence)),
                Status::Running => {
                    return self
                        .intend_cancel(worker_type, id, reason)
                        .await
                        .map(Cancel::Asked);
                }
                Status::Pending => {
                    match self
                        .close(
                            record,
                            state,
                            tail,
                            EventKind::Cancelled {
                                forced: false,
                                progress: None,
                            },
                        )
                        .await
                    {
                        Ok(sequence) => return Ok(Cancel::Done(sequence)),
                        Err(AppendError::Conflict(log)) => {
                            let FoldedLog {
                                tail: last,
                                state: now,
                                ..
                            } = *log;
                            (tail, state) = (last, now);
                        }
                        Err(error) => return Err(ApiError::append(error, id)),
                    }
                }
            }
        }
        Err(ApiError::internal(format!(
            "operation {id} changed {DECISIONS} times while it was being cancelled"
        )))
    }

    /// Asks the worker to stop. Stored, so that a worker that takes over finds it.
    ///
    /// Repeating it is useful: the stream drops a message id it has seen, but the message is still handed to everybody who
    /// listens on the subject at that moment, and it may be the first time that the worker hears it.
    ///
    /// # Errors
    /// [`ApiError`] when NATS does not confirm.
    pub async fn intend_cancel(
        &self,
        worker_type: &WorkerType,
        id: &OperationId,
        reason: Option<String>,
    ) -> Result<u64, ApiError> {
        let intent = CancelIntent::new(id.clone(), reason);
        self.log
            .cancel(worker_type, &intent, PATIENCE)
            .await
            .map_err(|error| ApiError::append(error, id))
    }

    /// Closes a running operation whose worker does not confirm the cancel.
    ///
    /// # Errors
    /// [`AppendError`]; a conflict means that somebody else was faster, for example the worker.
    pub async fn force_cancel(&self, record: &Record) -> Result<u64, AppendError> {
        let forced = record.state.status == Status::Running;
        self.close_known(
            record,
            EventKind::Cancelled {
                forced,
                progress: record.live_progress(),
            },
        )
        .await
    }

    /// Closes an operation that nobody will ever redeliver and whose worker is gone.
    ///
    /// # Errors
    /// [`AppendError`]; a conflict means that somebody else was faster.
    pub async fn fail_lost(&self, record: &Record, message: String) -> Result<u64, AppendError> {
        let error = Failure {
            code: "worker_lost".to_owned(),
            message,
            permanent: false,
        };
        self.close_known(
            record,
            EventKind::Failed {
                error,
                progress: record.live_progress(),
            },
        )
        .await
    }

    /// Closes an operation if it is still in the state that was decided upon.
    async fn close_known(&self, record: &Record, kind: EventKind) -> Result<u64, AppendError> {
        let state = record.state;
        match self
            .close(record, state, state.last_sequence, kind.clone())
            .await
        {
            // What came after is no event: it cannot take effect, but a successor has to name it.
            Err(AppendError::Conflict(log)) if log.state == state => {
                self.close(record, state, log.tail, kind).await
            }
            outcome => outcome,
        }
    }

    async fn close(
        &self,
        record: &Record,
        state: State,
        tail: u64,
        kind: EventKind,
    ) -> Result<u64, AppendError> {
        let event = Event::by_backend(&record.id, state.attempt, kind);
        self.log
            .append(&record.queue.worker_type, &event, tail, PATIENCE)
            .await
    }
}
