//! Removing an operation that is over from the stream, before its messages reach the age limit.
//!
//! The start requests go first. An operation exists by its start request, so what is left of one
//! that was removed in part changes nothing and leaves by its age. The other way round, a start
//! request without its log would look like an operation that waits.

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::response::Response;
use async_nats::jetstream::stream::{DeleteStatus, PurgeResponse};
use ktrdr_protocol::id::{OperationId, WorkerType};
use serde_json::{Value, json};

use super::OpLog;

/// Why an operation could not be removed.
#[derive(Debug, thiserror::Error)]
#[error("cannot remove operation {operation_id} from the stream")]
pub struct RemoveError {
    /// The operation.
    pub operation_id: OperationId,
    /// The error of the client library.
    #[source]
    pub source: async_nats::Error,
}

/// The last sequences that can belong to an operation that is over. What is behind them may belong to
/// a later operation with the same id.
#[derive(Debug, Clone, Copy)]
pub struct Ends {
    /// In the stream of operations.
    pub operations: u64,
    /// In the stream of metrics; `None` to leave the metric points to their age.
    pub metrics: Option<u64>,
    /// In the stream of log lines; `None` to leave them to their age.
    pub logs: Option<u64>,
}

impl OpLog {
    /// Removes the start requests at these sequences, then the log, the cancel intents, the metric
    /// points and the log lines of the operation up to `ends`. False when the first start request was gone: another backend has
    /// removed it, or is doing so.
    ///
    /// Only for an operation that has ended and whose retention is over.
    ///
    /// # Errors
    /// [`RemoveError`] when NATS does not answer or refuses. A part may be removed then.
    pub async fn remove(
        &self,
        worker_type: &WorkerType,
        id: &OperationId,
        starts: &[u64],
        ends: Ends,
    ) -> Result<bool, RemoveError> {
        let failed = |source| RemoveError {
            operation_id: id.clone(),
            source,
        };
        for (place, sequence) in starts.iter().enumerate() {
            let was_there = self.delete(*sequence).await.map_err(failed)?;
            if place == 0 && !was_there {
                return Ok(false);
            }
        }

        let (operations, metrics) = (self.names.stream(), self.names.metrics_stream());
        let logs = self.names.logs_stream();
        let (log, intents) = (
            self.names.operation(worker_type, id),
            self.names.cancel(worker_type, id),
        );
        for (stream, subject, end) in [
            (&operations, log, Some(ends.operations)),
            (&operations, intents, Some(ends.operations)),
            (&metrics, self.names.metrics(worker_type, id), ends.metrics),
            (&logs, self.names.logs(worker_type, id), ends.logs),
        ] {
            // A server takes a bound before the first message for no bound.
            if let Some(end) = end.filter(|end| *end > 0) {
                self.purge(stream, &subject, end).await.map_err(failed)?;
            }
        }
        Ok(true)
    }

    /// Whether there was a message.
    async fn delete(&self, sequence: u64) -> Result<bool, async_nats::Error> {
        let subject = format!("STREAM.MSG.DELETE.{}", self.names.stream());
        // Without `no_erase`, the server overwrites the message on the disk first.
        let request = json!({"seq": sequence, "no_erase": true});
        let answer: Response<DeleteStatus> = self.jetstream.request(subject, &request).await?;
        match answer {
            Response::Ok(deleted) => Ok(deleted.success),
            Response::Err { error }
                if matches!(
                    error.error_code(),
                    ErrorCode::SEQUENCE_NOT_FOUND | ErrorCode::NO_MESSAGE_FOUND
                ) =>
            {
                Ok(false)
            }
            Response::Err { error } => Err(error.into()),
        }
    }

    /// Removes the messages of a subject up to the one at `end`. Returns how many there were.
    pub(super) async fn purge(
        &self,
        stream: &str,
        subject: &str,
        end: u64,
    ) -> Result<u64, async_nats::Error> {
        // The sequence of the first message that stays.
        let request: Value = json!({"filter": subject, "seq": end + 1});
        let answer: Response<PurgeResponse> = self
            .jetstream
            .request(format!("STREAM.PURGE.{stream}"), &request)
            .await?;
        match answer {
            Response::Ok(answer) => Ok(answer.purged),
            // What is gone needs no purge.
            Response::Err { error } if error.error_code() == ErrorCode::STREAM_NOT_FOUND => Ok(0),
            Response::Err { error } => Err(error.into()),
        }
    }
}
