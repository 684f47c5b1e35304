//! Single keys of a key-value bucket.
//!
//! The client library's own type asks for the description of the whole bucket first. A program that
//! only reads and writes keys of its own should not need the permission for that. So this module
//! knows the subjects: JetStream stores a key as the last message of `$KV.<bucket>.<key>`, and a
//! direct get of that subject reads it.

use std::error::Error;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE;
use async_nats::jetstream::context::{Context, PublishErrorKind};
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::{DirectGetErrorKind, LastRawMessageErrorKind, Stream};
use bytes::Bytes;
use ktrdr_protocol::subject::SubjectNames;

use crate::backoff::Backoff;
use crate::oplog::tail_in;

/// A revision that no key ever has: a write that expects it is always refused.
const NO_REVISION: u64 = i64::MAX as u64;

/// How often a key is read that is older than the leader says.
const READINGS: usize = 6;

/// The first pause between two of these readings; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(25);

/// The longest of these pauses.
const MAX_PAUSE: Duration = Duration::from_millis(400);

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

impl Found {
    fn in_message(message: StreamMessage) -> Self {
        let is_removed = message.headers.get(OPERATION).is_some();
        Self {
            revision: message.sequence,
            value: (!is_removed).then_some(message.payload),
        }
    }
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
    /// Another revision is the last one: somebody has written meanwhile.
    #[error("somebody has changed key {key} of bucket {bucket} at the same time")]
    Changed {
        /// The bucket.
        bucket: String,
        /// The key.
        key: String,
        /// The last revision, 0 for none; `None` when the servers were too busy to say.
        newest: Option<u64>,
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
        let stream = self.stream(key).await?;

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
        Ok(Some(Found::in_message(message)))
    }

    /// [`Self::read`] by the leader's own word. Only a program that may read all keys can ask for it.
    ///
    /// # Errors
    /// [`KeyError`].
    pub async fn read_at_leader(&self, key: &str) -> Result<Option<Found>, KeyError> {
        let subject = self.subject(key);
        let stream = self.stream(key).await?;

        match stream.get_last_raw_message_by_subject(&subject).await {
            Ok(message) => Ok(Some(Found::in_message(message))),
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(self.failed(key, error)),
        }
    }

    /// [`Self::read`], but never what a copy of the bucket has that lags: asks its leader first for
    /// the newest revision. Needs the permission to write the key. Those who listen on its subject hear
    /// an empty message.
    ///
    /// # Errors
    /// [`KeyError`], also when only a copy that lags answers.
    pub async fn read_newest(&self, key: &str) -> Result<Option<Found>, KeyError> {
        let newest = self.newest_revision(key).await?;
        let mut backoff = Backoff::new(FIRST_PAUSE, MAX_PAUSE);
        for reading in 1..=READINGS {
            let found = self.read(key).await?;
            if found.as_ref().map_or(0, |found| found.revision) >= newest {
                return Ok(found);
            }
            if reading < READINGS {
                backoff.wait().await;
            }
        }
        Err(self.failed(key, "the copy of the bucket that answers lags behind"))
    }

    /// The newest revision of a key, 0 for none, by the leader's own word: it refuses a write that
    /// expects a revision which no key has, and names the one that it has.
    async fn newest_revision(&self, key: &str) -> Result<u64, KeyError> {
        match self.update(key, Bytes::new(), NO_REVISION).await {
            Ok(_) => Err(self.failed(key, "the bucket took what it must refuse")),
            // Without the leader's word any copy must do.
            Err(KeyError::Changed { newest, .. }) => Ok(newest.unwrap_or_default()),
            // A server that has no room refuses before it compares.
            Err(KeyError::Nats { source, .. }) if refusal_in(&*source).is_some() => Ok(0),
            Err(error) => Err(error),
        }
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
    /// [`KeyError`]; `Changed` when another revision is the last one.
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

    /// [`Self::remove`], if `revision` is the last one.
    ///
    /// # Errors
    /// [`KeyError`]; `Changed` when another revision is the last one.
    pub async fn remove_revision(&self, key: &str, revision: u64) -> Result<u64, KeyError> {
        let mut headers = HeaderMap::new();
        headers.insert(OPERATION, "DEL");
        headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, revision.to_string());
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
                PublishErrorKind::WrongLastSequence => KeyError::Changed {
                    bucket: self.bucket.clone(),
                    key: key.to_owned(),
                    newest: refusal_in(&error).and_then(tail_in),
                },
                _ => self.failed(key, error),
            })
    }

    /// The stream behind the bucket.
    async fn stream(&self, key: &str) -> Result<Stream<()>, KeyError> {
        let name = SubjectNames::key_values_stream(&self.bucket);
        let stream = self.jetstream.get_stream_no_info(name).await;
        stream.map_err(|error| self.failed(key, error))
    }

    fn subject(&self, key: &str) -> String {
        SubjectNames::key_value(&self.bucket, key)
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

/// The server's own words in an error of the client library.
fn refusal_in<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a async_nats::jetstream::Error> {
    error.source()?.downcast_ref()
}
