//! Putting an operation back into its queue, or moving it into another: the event first, then a copy of
//! its start request.
//!
//! The event names the copy, and a worker runs only the copy that the log named last. So a backend
//! that is wrong about the queue does no harm: the request that the queue holds after all is dropped.
//! When a backend dies between the two, another one publishes the copy that the log names.

use std::collections::BTreeMap;

use async_nats::jetstream::message::StreamMessage;
use ktrdr_bus::oplog::{AppendError, ReadLogError, StartMessage, Stored, stream_time};
use ktrdr_bus::signing::{Received, Refusal};
use ktrdr_protocol::event::{EventKind, Failure, ReleaseReason};
use ktrdr_protocol::id::CopyId;
use ktrdr_protocol::origin::Origin;
use ktrdr_protocol::queue_name::QueueName;
use ktrdr_protocol::start_request::NamedCopy;
use ktrdr_protocol::subject::Topic;
use ktrdr_protocol::time::Timestamp;
use ktrdr_protocol::trace;
use serde_json::value::RawValue;

use super::{Dispatch, PATIENCE};
use crate::projection::record::Record;
use crate::queues::QueueError;

/// The first start request of an operation, which this backend may publish again.
#[derive(Debug)]
pub struct Original {
    /// Its members as they were written: a newer version may have more than this one knows.
    members: BTreeMap<String, Box<RawValue>>,
    trace: Option<String>,
}

/// Why the first start request cannot be published again.
#[derive(Debug, thiserror::Error)]
pub enum NoOriginal {
    /// NATS did not answer.
    #[error(transparent)]
    Unknown(#[from] ReadLogError),
    /// Somebody has removed it.
    #[error("it is no longer in the stream")]
    Gone,
    /// Whoever may publish on the bus could have written it: signing it again would make it look
    /// like a backend's.
    #[error(transparent)]
    NotTrusted(#[from] Refusal),
    /// It is not a JSON object.
    #[error("it cannot be read: {0}")]
    Unreadable(#[from] serde_json::Error),
}

/// Why an operation was not moved.
#[derive(Debug, thiserror::Error)]
pub enum MoveError {
    /// Its start request cannot be published again.
    #[error(transparent)]
    NoOriginal(#[from] NoOriginal),
    /// The queue cannot be used.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// The event or the copy was not stored.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// It was moved, but the copy was not stored. [`crate::duties`] publishes the copy later.
    #[error("the operation was moved, and its start request follows later")]
    CopyFollows {
        /// The sequence of the event.
        moved_at: u64,
        /// Why the copy was not stored.
        source: AppendError,
    },
}

impl Dispatch {
    /// The first start request of an operation. A backend that signs returns it only when a trusted
    /// key has signed it.
    ///
    /// # Errors
    /// [`NoOriginal`].
    pub async fn original(&self, record: &Record) -> Result<Original, NoOriginal> {
        let id = &record.id;
        let message = self.log.start_message(id, record.start_sequence).await?;
        let message = message.ok_or(NoOriginal::Gone)?;
        self.check_signature(record, &message)?;

        let header = message.headers.get(trace::HEADER);
        Ok(Original {
            members: serde_json::from_slice(&message.payload)?,
            trace: header.map(|value| value.as_str().to_owned()),
        })
    }

    fn check_signature(&self, record: &Record, message: &StreamMessage) -> Result<(), Refusal> {
        let Some(keys) = self.signatures.trusted() else {
            return Ok(());
        };
        // The operation may have been moved since, so the queue is that of the message.
        let is_start = matches!(self.names.parse(&message.subject), Some(Topic::Start { worker_type, .. })
            if worker_type == record.queue.worker_type.as_str());
        if !is_start {
            return Err(Refusal::WrongSignature);
        }
        keys.check(Received {
            subject: &message.subject,
            operation_id: &record.id,
            body: &message.payload,
            headers: Some(&message.headers),
            stored_at: stream_time(message.time),
        })
    }

    /// Names a new copy of the start request in the operation's log, if the operation is still in the
    /// state of `record`. It is pending from then on. `lost` says what became of its attempt.
    ///
    /// # Errors
    /// [`AppendError`]; a conflict means that another event came first, for example that of another
    /// backend.
    pub async fn name_copy(
        &self,
        record: &Record,
        lost: Option<Failure>,
    ) -> Result<NamedCopy, AppendError> {
        let id = CopyId::generate();
        let kind = EventKind::Released {
            reason: ReleaseReason::Retry,
            error: lost,
            retry_at: self.remaining_delay(record).await,
            copy: Some(id.clone()),
        };
        let named_at = self.close(record, kind).await?;
        Ok(NamedCopy { id, named_at })
    }

    /// Moves an operation that waits into another queue of its class, if it is still in the state of
    /// `record`. Returns the sequence of the event.
    ///
    /// # Errors
    /// [`MoveError`]; a conflict means that another event came first.
    pub async fn move_to(&self, record: &Record, to: QueueName) -> Result<u64, MoveError> {
        // Before the event: a copy that cannot be made must not be named.
        let original = self.original(record).await?;
        let queue = to.queue();
        if !to.is_delayed {
            self.queues
                .ensure(&record.queue.worker_type, &queue)
                .await?;
        }

        let id = CopyId::generate();
        let kind = EventKind::Moved {
            queue: queue.clone(),
            retry_at: self.remaining_delay(record).await,
            copy: id.clone(),
        };
        let named_at = self.close(record, kind).await?;
        let copy = NamedCopy { id, named_at };
        let origin = Origin::Queued(queue);
        let stored = self.store_copy(record, &origin, original, &copy, 0);
        stored.await.map_err(|source| MoveError::CopyFollows {
            moved_at: named_at,
            source,
        })?;
        Ok(named_at)
    }

    /// Ends an operation that cannot go on, because its start request cannot be published again. Returns
    /// the sequence of the event.
    ///
    /// # Errors
    /// [`MoveError`], also when it is not known whether the start request is there.
    pub async fn end_without_original(
        &self,
        record: &Record,
        why: NoOriginal,
    ) -> Result<u64, MoveError> {
        let message = format!(
            "the operation cannot go on, because its start request cannot be published again: {why}"
        );
        let ended = match why {
            NoOriginal::Unknown(_) => return Err(why.into()),
            NoOriginal::NotTrusted(_) => self.fail_unsigned(record, message).await,
            NoOriginal::Gone | NoOriginal::Unreadable(_) => self.fail_lost(record, message).await,
        };
        Ok(ended?)
    }

    /// When a retry that waits is due, by this machine's clock: readers replace the time of an event
    /// by the stream's. Without an answer from the stream it is due at once.
    async fn remaining_delay(&self, record: &Record) -> Option<Timestamp> {
        let due = record.retry_at()?;
        let now = self.log.clock().await.ok()?;
        Some(Timestamp::now().plus(due.after(now)))
    }

    /// Stores the copy of the start request that the log names into this queue, signed if there is a
    /// key.
    ///
    /// Its message id is made from the copy, so twice is once, also by two backends. `tries` counts
    /// earlier tries after which the copy was not in the stream: whoever may publish can use a message
    /// id first, so each try has another one.
    ///
    /// # Errors
    /// [`AppendError`], never `Conflict`.
    pub async fn store_copy(
        &self,
        record: &Record,
        origin: &Origin,
        mut original: Original,
        copy: &NamedCopy,
        tries: u32,
    ) -> Result<Stored, AppendError> {
        let named = serde_json::value::to_raw_value(copy).map_err(AppendError::Encode)?;
        original.members.insert("copy".to_owned(), named);
        // The copy is stored at another time, so what counts from the first one becomes a time.
        for (member, replaced, time) in [
            ("start_at", "delay_seconds", record.due()),
            ("expires_at", "queue_timeout_seconds", record.deadline()),
        ] {
            if let Some(time) = time {
                let time = serde_json::value::to_raw_value(&time).map_err(AppendError::Encode)?;
                original.members.insert(member.to_owned(), time);
                original.members.remove(replaced);
            }
        }
        let body = serde_json::to_vec(&original.members).map_err(AppendError::Encode)?;

        // No operation id has a slash, so no start has such a message id.
        let message = StartMessage {
            operation_id: &record.id,
            worker_type: &record.queue.worker_type,
            origin,
            body: body.into(),
            copy: Some(&copy.id),
            trace: original.trace.as_deref(),
            message_id: &format!("{}/{}/{tries}", record.id, copy.id),
            behind: None,
        };
        self.log
            .store_start(message, self.signatures.signer(), PATIENCE)
            .await
    }
}
