//! Large results, which are in the object store: the archive keeps those that are not too large.

use ktrdr_bus::nats::Connection;
use ktrdr_protocol::subject::SubjectNames;

use super::ArchiveError;
use crate::projection::model::archiving::Ended;
use crate::result_buckets::ResultBuckets;
use crate::stored_results::{self, Unservable};

/// Largest result that is kept, in bytes.
const LARGEST: u64 = 4 * 1024 * 1024;

/// Bytes of the results of one transaction, about.
const TOGETHER: usize = 8 * 1024 * 1024;

/// How often a result is asked for that NATS does not hand out, before the operation is archived
/// without it.
const TRIES: u32 = 5;

/// Reads large results.
pub struct Results {
    connection: Connection,
    names: SubjectNames,
    buckets: std::sync::Arc<ResultBuckets>,
    /// Tries for the result that could not be read last.
    failed: u32,
}

impl Results {
    /// Reads from the buckets below the prefix of `names`.
    pub fn new(
        connection: Connection,
        names: SubjectNames,
        buckets: std::sync::Arc<ResultBuckets>,
    ) -> Self {
        Self {
            connection,
            names,
            buckets,
            failed: 0,
        }
    }

    /// The first operations of `batch`, each with its large result if it has one that is kept. What
    /// does not fit into memory is left for the next transaction.
    ///
    /// # Errors
    /// When a result cannot be read now.
    pub async fn of(
        &mut self,
        batch: Vec<Ended>,
    ) -> Result<Vec<(Ended, Option<String>)>, ArchiveError> {
        let (mut read, mut bytes) = (Vec::with_capacity(batch.len()), 0);
        for ended in batch {
            if bytes >= TOGETHER {
                break;
            }
            let result = self.one(&ended).await?;
            bytes += result.as_ref().map_or(0, String::len);
            read.push((ended, result));
        }
        Ok(read)
    }

    async fn one(&mut self, ended: &Ended) -> Result<Option<String>, ArchiveError> {
        let record = &ended.record;
        let Some(stored) = record.result_ref().filter(|stored| stored.size <= LARGEST) else {
            return Ok(None);
        };
        let place = (&self.connection, &self.names, &*self.buckets);
        let read = async {
            let mut pieces = stored_results::open(place, record, stored).await?;
            let mut text = Vec::with_capacity(usize::try_from(stored.size).unwrap_or_default());
            while let Some(piece) = pieces.next().await? {
                text.extend_from_slice(&piece);
            }
            String::from_utf8(text).map_err(|error| Unservable::Invalid(error.to_string()))
        };
        match read.await {
            Ok(text) => {
                self.failed = 0;
                Ok(Some(text))
            }
            Err(Unservable::Unreachable(cause)) if self.failed < TRIES => {
                self.failed += u32::from(self.connection.is_up());
                let id = record.id.clone();
                Err(ArchiveError::Result { id, cause })
            }
            Err(why) => {
                self.failed = 0;
                tracing::warn!(operation_id = %record.id, ?why, "archived without its large result");
                Ok(None)
            }
        }
    }
}
