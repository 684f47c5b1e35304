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

impl OpLog {
    /// Removes the start requests at these sequences, then the log, the cancel intents and the metric
    /// points of the operation. False when the first start request was gone: another backend has
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
        for (stream, subject) in [
            (&operations, self.names.operation(worker_type, id)),
            (&operations, self.names.cancel(worker_type, id)),
            (&metrics, self.names.metrics(worker_type, id)),
        ] {
            self.purge(stream, &subject).await.map_err(failed)?;
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

    async fn purge(&self, stream: &str, subject: &str) -> Result<(), async_nats::Error> {
        let request: Value = json!({"filter": subject});
        let answer: Response<PurgeResponse> = self
            .jetstream
            .request(format!("STREAM.PURGE.{stream}"), &request)
            .await?;
        match answer {
            Response::Ok(_) => Ok(()),
            Response::Err { error } => Err(error.into()),
        }
    }
}
