//! Putting an operation back into its queue: the event first, then a copy of its start request.
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
use ktrdr_protocol::start_request::NamedCopy;
use ktrdr_protocol::time::Timestamp;
use ktrdr_protocol::trace;
use serde_json::value::RawValue;

use super::{Dispatch, PATIENCE};
use crate::projection::record::Record;

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
        let queue = &record.queue;
        keys.check(Received {
            subject: &self.names.start(&queue.worker_type, &queue.origin),
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

    /// When a retry that waits is due, by this machine's clock: readers replace the time of an event
    /// by the stream's. Without an answer from the stream it is due at once.
    async fn remaining_delay(&self, record: &Record) -> Option<Timestamp> {
        let due = record.retry_at()?;
        let now = self.log.clock().await.ok()?;
        Some(Timestamp::now().plus(due.after(now)))
    }

    /// Stores the copy of the start request that the log names, signed if there is a key.
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
        mut original: Original,
        copy: &NamedCopy,
        tries: u32,
    ) -> Result<Stored, AppendError> {
        let named = serde_json::value::to_raw_value(copy).map_err(AppendError::Encode)?;
        original.members.insert("copy".to_owned(), named);
        let body = serde_json::to_vec(&original.members).map_err(AppendError::Encode)?;

        // No operation id has a slash, so no start has such a message id.
        let message = StartMessage {
            operation_id: &record.id,
            worker_type: &record.queue.worker_type,
            origin: &record.queue.origin,
            body: body.into(),
            copy: Some(&copy.id),
            trace: original.trace.as_deref(),
            message_id: &format!("{}/{}/{tries}", record.id, copy.id),
        };
        self.log
            .store_start(message, self.signatures.signer(), PATIENCE)
            .await
    }
}
