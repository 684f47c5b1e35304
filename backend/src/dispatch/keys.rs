//! The entries of unique keys, for starts; [`crate::starts`] decides.

use ktrdr_bus::oplog::{AppendError, Behind, ReadKeyError, StoredEntry};
use ktrdr_bus::telemetry::chain;
use ktrdr_protocol::id::{OperationId, WorkerType};
use ktrdr_protocol::keys::{Key, KeyEntry, KeyKind};

use super::{Dispatch, PATIENCE};
use crate::error::ApiError;

impl Dispatch {
    /// The last entry of a unique key, which is at `least` or behind it.
    ///
    /// # Errors
    /// 503 when NATS does not answer, 500 when somebody else has written on the subject of the key.
    pub async fn unique_key(
        &self,
        worker_type: &WorkerType,
        key: &Key,
        least: u64,
    ) -> Result<StoredEntry, ApiError> {
        let refused = self.refusals.count();
        let read = self
            .log
            .read_key_from(worker_type, KeyKind::Unique, key, least);
        read.await.map_err(|error| match error {
            ReadKeyError::Foreign { .. } => ApiError::internal(error),
            ReadKeyError::Nats { .. } => {
                tracing::debug!(error = chain(&error), "a key could not be read");
                self.explain(ApiError::nats_unavailable(), refused)
            }
        })
    }

    /// Replaces the entry of a unique key at `expected` by one that names `id` last. Returns its
    /// sequence, or the sequence of another one that came first.
    ///
    /// # Errors
    /// [`ApiError`] when NATS does not confirm. The start request was not published then.
    pub async fn replace_unique_key(
        &self,
        worker_type: &WorkerType,
        entry: &KeyEntry,
        expected: u64,
        id: &OperationId,
    ) -> Result<Result<u64, u64>, ApiError> {
        let refused = self.refusals.count();
        let replaced =
            self.log
                .replace_key(worker_type, KeyKind::Unique, entry, expected, PATIENCE);
        replaced.await.map_err(|error| {
            let error = match error {
                // Whatever became of the entry, nothing was started.
                AppendError::Unknown(_) => ApiError::nats_unavailable(),
                error => ApiError::append(error, id),
            };
            self.explain(error, refused)
        })
    }

    /// To publish a start request only while the entry at `sequence` is the last one of its unique key.
    pub fn behind(&self, worker_type: &WorkerType, key: &Key, sequence: u64) -> Behind {
        Behind {
            subject: self.names.key(worker_type, KeyKind::Unique, key),
            sequence,
        }
    }

    /// Whether an operation has ended, by the word of the stream's leader.
    ///
    /// # Errors
    /// 503 when NATS does not answer.
    pub async fn has_ended(
        &self,
        worker_type: &WorkerType,
        id: &OperationId,
    ) -> Result<bool, ApiError> {
        let refused = self.refusals.count();
        let log = self.log.read(worker_type, id).await;
        log.map(|log| log.state.status.is_terminal())
            .map_err(|_| self.explain(ApiError::nats_unavailable(), refused))
    }
}
