//! Single keys of a key-value bucket.
//!
//! The client library's own type asks for the description of the whole bucket first. A program that
//! only reads and writes keys of its own should not need the permission for that. So this module
//! knows the subjects: JetStream stores a key as the last message of `$KV.<bucket>.<key>`, and a
//! direct get of that subject reads it.

use async_nats::HeaderMap;
use async_nats::header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE;
use async_nats::jetstream::context::{Context, PublishErrorKind};
use async_nats::jetstream::stream::DirectGetErrorKind;
use bytes::Bytes;

/// The header of a message that says that a key was removed.
const OPERATION: &str = "KV-Operation";

/// A key-value bucket. Cheap to clone.
#[derive(Clone)]
pub struct KeyValues {
    jetstream: Context,
    bucket: String,
}

/// What is stored at a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its revision; the next write can expect it.
    pub revision: u64,
    /// The value; `None` when it was removed.
    pub value: Option<Bytes>,
}

/// Why a key could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// There is no such bucket.
    #[error("there is no bucket {bucket}: a backend makes it when it starts")]
    NoBucket {
        /// The bucket.
        bucket: String,
    },
    /// NATS refused or did not answer.
    #[error("cannot use key {key} of bucket {bucket}")]
    Nats {
        /// The bucket.
        bucket: String,
        /// The key.
        key: String,
        /// The error of the client library.
        #[source]
        source: async_nats::Error,
    },
}

impl KeyValues {
    /// The bucket of this name, whether it exists or not.
    pub fn new(jetstream: Context, bucket: impl Into<String>) -> Self {
        Self {
            jetstream,
            bucket: bucket.into(),
        }
    }

    /// What is stored at a key; `None` when nothing ever was.
    ///
    /// # Errors
    /// [`KeyError`].
    pub async fn read(&self, key: &str) -> Result<Option<Found>, KeyError> {
        let stream = self
            .jetstream
            .get_stream_no_info(format!("KV_{}", self.bucket))
            .await
            .map_err(|error| self.failed(key, error))?;

        let message = match stream.direct_get_last_for_subject(self.subject(key)).await {
            Ok(message) => message,
            Err(error) => {
                return match error.kind() {
                    DirectGetErrorKind::NotFound => Ok(None),
                    DirectGetErrorKind::ErrorResponse(status, _)
                        if status == async_nats::StatusCode::NO_RESPONDERS =>
                    {
                        Err(self.no_bucket())
                    }
                    _ => Err(self.failed(key, error)),
                };
            }
        };
        let is_removed = message.headers.get(OPERATION).is_some();
        Ok(Some(Found {
            revision: message.sequence,
            value: (!is_removed).then_some(message.payload),
        }))
    }

    /// Writes a value, whatever is there.
    ///
    /// # Errors
    /// [`KeyError`].
    pub async fn put(&self, key: &str, value: Bytes) -> Result<u64, KeyError> {
        self.publish(key, HeaderMap::new(), value).await
    }

    /// Writes a value if `revision` is the last one; 0 for a key that was never written.
    ///
    /// # Errors
    /// [`KeyError`], also when another revision is the last one.
    pub async fn update(&self, key: &str, value: Bytes, revision: u64) -> Result<u64, KeyError> {
        let mut headers = HeaderMap::new();
        headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, revision.to_string());
        self.publish(key, headers, value).await
    }

    /// Removes a value. A short message that says so stays, until it expires.
    ///
    /// # Errors
    /// [`KeyError`].
    pub async fn remove(&self, key: &str) -> Result<u64, KeyError> {
        let mut headers = HeaderMap::new();
        headers.insert(OPERATION, "DEL");
        self.publish(key, headers, Bytes::new()).await
    }

    async fn publish(&self, key: &str, headers: HeaderMap, value: Bytes) -> Result<u64, KeyError> {
        let sent = self
            .jetstream
            .publish_with_headers(self.subject(key), headers, value)
            .await;
        let answer = match sent {
            Ok(answer) => answer.await,
            Err(error) => Err(error),
        };
        answer
            .map(|ack| ack.sequence)
            .map_err(|error| match error.kind() {
                PublishErrorKind::StreamNotFound => self.no_bucket(),
                _ => self.failed(key, error),
            })
    }

    fn subject(&self, key: &str) -> String {
        format!("$KV.{}.{key}", self.bucket)
    }

    fn no_bucket(&self) -> KeyError {
        KeyError::NoBucket {
            bucket: self.bucket.clone(),
        }
    }

    fn failed(&self, key: &str, source: impl Into<async_nats::Error>) -> KeyError {
        KeyError::Nats {
            bucket: self.bucket.clone(),
            key: key.to_owned(),
            source: source.into(),
        }
    }
}
