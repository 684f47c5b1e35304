//! Reading and replacing the entry of a key; [`ktrdr_protocol::keys`] decides.
//!
//! Keys are in the operations stream, so that a start request can be stored behind the entry of its key
//! ([`Behind`]), and so that a backend that has read the stream up to an entry knows every operation
//! that was started before.

use std::time::Duration;

use async_nats::header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE;
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::{DirectGetErrorKind, RawMessageErrorKind};
use ktrdr_protocol::id::{OperationId, WorkerType};
use ktrdr_protocol::keys::{Key, KeyDigest, KeyEntry, KeyKind, MAX_HOLDERS};
use ktrdr_protocol::time::Timestamp;
use tokio::time::Instant;

use super::read::stream_time;
use super::refusal::{Refusal, classify, named_tail};
use super::{AppendError, FIRST_PAUSE, MAX_PAUSE, MAX_SHORT_READS, OpLog, Reads};
use crate::backoff::Backoff;

/// How often an entry is replaced that an operation leaves, when others are faster.
const LEAVE_TRIES: usize = 8;

/// The last entry of a key.
#[derive(Debug, Clone)]
pub struct StoredEntry {
    /// Its sequence; 0 when the key has none.
    pub sequence: u64,
    /// When the stream stored it; the epoch when there is none.
    pub stored_at: Timestamp,
    /// The entry; without holders when there is none.
    pub entry: KeyEntry,
}

/// A message is stored only while the entry at this sequence is the last one of its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Behind {
    /// The subject of the key.
    pub subject: String,
    /// The entry.
    pub sequence: u64,
}

/// Why the entry of a key could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadKeyError {
    /// NATS did not answer, or only copies of the stream do that lag behind.
    #[error("cannot read the key on {subject}")]
    Nats {
        /// The subject of the key.
        subject: String,
        /// The error of the client library.
        #[source]
        source: async_nats::Error,
    },
    /// Nobody can know who holds the key.
    #[error(
        "the last message on {subject} is no entry of this key, or names too many holders, so nobody knows who holds it. Somebody published it by hand: purge the subject while no operation holds the key"
    )]
    Foreign {
        /// The subject of the key.
        subject: String,
    },
}

impl OpLog {
    /// The last entry of a key.
    ///
    /// A backend asks the stream's leader. A worker may be answered by a copy that lags; then its
    /// [`Self::replace_key`] is refused, and names the sequence from which it has to read again.
    ///
    /// # Errors
    /// [`ReadKeyError`].
    pub async fn read_key(
        &self,
        worker_type: &WorkerType,
        kind: KeyKind,
        key: &Key,
    ) -> Result<StoredEntry, ReadKeyError> {
        self.read_key_from(worker_type, kind, key, 0).await
    }

    /// Like [`Self::read_key`], for a key whose last entry is at `sequence` or behind it.
    ///
    /// # Errors
    /// [`ReadKeyError`].
    pub async fn read_key_from(
        &self,
        worker_type: &WorkerType,
        kind: KeyKind,
        key: &Key,
        sequence: u64,
    ) -> Result<StoredEntry, ReadKeyError> {
        let subject = self.names.key(worker_type, kind, key);
        let failed = |source| ReadKeyError::Nats {
            subject: subject.clone(),
            source,
        };
        let mut backoff = Backoff::new(FIRST_PAUSE, MAX_PAUSE);
        for _ in 0..MAX_SHORT_READS {
            let last = self.last_of(&subject).await.map_err(failed)?;
            if last.as_ref().map_or(0, |message| message.sequence) >= sequence {
                return entry_of(&subject, key, last);
            }
            backoff.wait().await;
        }
        Err(failed(
            "the copy of the stream that answers lags behind".into(),
        ))
    }

    /// The last message of a subject.
    async fn last_of(&self, subject: &str) -> Result<Option<StreamMessage>, async_nats::Error> {
        let stream = self.jetstream.get_stream_no_info(self.names.stream());
        let stream = stream.await?;
        if self.reads == Reads::Leader {
            let request = stream.raw_message_builder().last_by_subject(subject);
            return match request.send().await {
                Ok(message) => Ok(Some(message)),
                Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(None),
                Err(error) => Err(error.into()),
            };
        }
        match stream.direct_get_last_for_subject(subject).await {
            Ok(message) => Ok(Some(message)),
            Err(error) if error.kind() == DirectGetErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Replaces the entry at `expected` (0: there is none), and returns the sequence of the new one.
    /// `Ok(Err(sequence))` when another entry came first: read again, from this sequence. It may be this
    /// one, when the first answer was lost. 0 when somebody has removed all entries.
    ///
    /// # Errors
    /// [`AppendError`], never `Conflict`.
    pub async fn replace_key(
        &self,
        worker_type: &WorkerType,
        kind: KeyKind,
        entry: &KeyEntry,
        expected: u64,
        patience: Duration,
    ) -> Result<Result<u64, u64>, AppendError> {
        let subject = self.names.key(worker_type, kind, &entry.key);
        let payload = serde_json::to_vec(entry).map_err(AppendError::Encode)?;
        let deadline = Instant::now().checked_add(patience);
        let mut backoff = Backoff::new(FIRST_PAUSE, MAX_PAUSE);

        loop {
            let header = [(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, expected.to_string())];
            let failure = match self.publish(&subject, header, payload.clone().into()).await {
                Ok(stored) => return Ok(Ok(stored.sequence)),
                Err(failure) => failure,
            };
            match classify(&failure) {
                // A cluster that is busy with another entry of the key names none.
                Refusal::WrongSequence => return Ok(Err(named_tail(&failure).unwrap_or(expected))),
                Refusal::TooLarge => return Err(AppendError::TooLarge),
                Refusal::Full => return Err(AppendError::Full(failure)),
                Refusal::Unknown => {}
            }
            if backoff.reaches(deadline) {
                return Err(AppendError::Unknown(failure));
            }
            backoff.wait().await;
        }
    }

    /// Removes the entries of a key before the one at `last`. That one stays, so whoever is about to
    /// replace it, or to start behind it, notices nothing.
    ///
    /// # Errors
    /// When NATS does not answer or refuses.
    pub async fn purge_old_entries(
        &self,
        worker_type: &WorkerType,
        kind: KeyKind,
        digest: KeyDigest,
        last: u64,
    ) -> Result<(), async_nats::Error> {
        let subject = self.names.key_with(worker_type, kind, digest);
        // A server takes a bound before the first message for no bound.
        match last.checked_sub(1).filter(|end| *end > 0) {
            Some(end) => self
                .purge(&self.names.stream(), &subject, end)
                .await
                .map(|_| ()),
            None => Ok(()),
        }
    }

    /// Takes an operation that has ended, or is about to leave the stream, out of the entry of a key:
    /// without its log, it would look like one that has not started yet. Removes the earlier entries.
    ///
    /// A start with a unique key stands behind the entry that names its operation, and behind no old one.
    /// So an entry of such a key behind `end`, the last message that can belong to this operation, is of
    /// a later one with the same id, and stays. A claim with a concurrency key copies the holders below
    /// the limit whether they have ended or not, so there the last entry counts.
    ///
    /// False when the entry does not name it, or somebody else has taken it out meanwhile. When it was the
    /// only holder, the entries are removed and none is written, so no reader of the stream learns of it.
    ///
    /// # Errors
    /// When NATS does not answer, the stream is full, or other entries came first again and again.
    pub async fn leave_key(
        &self,
        worker_type: &WorkerType,
        (kind, key): (KeyKind, &Key),
        id: &OperationId,
        end: u64,
        patience: Duration,
    ) -> Result<bool, async_nats::Error> {
        let (stream, subject) = (self.names.stream(), self.names.key(worker_type, kind, key));
        let mut least = 0;
        for _ in 0..LEAVE_TRIES {
            let read = self.read_key_from(worker_type, kind, key, least).await;
            let StoredEntry {
                sequence, entry, ..
            } = match read {
                Ok(stored) => stored,
                // It names nobody, and people are told of it when they use the key.
                Err(ReadKeyError::Foreign { .. }) => return Ok(false),
                Err(error) => return Err(error.into()),
            };
            let is_of_a_later_one = kind == KeyKind::Unique && sequence > end;
            if !entry.names(id) || is_of_a_later_one {
                return Ok(false);
            }

            let others = entry.holders.into_iter().filter(|holder| holder != id);
            let rest = KeyEntry {
                holders: others.collect(),
                ..entry
            };
            if rest.holders.is_empty() {
                return Ok(self.purge(&stream, &subject, sequence).await? > 0);
            }
            let replaced = self.replace_key(worker_type, kind, &rest, sequence, patience);
            match replaced.await? {
                Ok(replacement) => {
                    self.purge(&stream, &subject, replacement - 1).await?;
                    return Ok(true);
                }
                Err(sequence) => least = sequence,
            }
        }
        Err("other entries of the key came first".into())
    }
}

/// The entry that a message of the key's subject holds.
fn entry_of(
    subject: &str,
    key: &Key,
    message: Option<StreamMessage>,
) -> Result<StoredEntry, ReadKeyError> {
    let Some(message) = message else {
        return Ok(StoredEntry {
            sequence: 0,
            stored_at: Timestamp::EPOCH,
            entry: KeyEntry::free(key.clone()),
        });
    };
    let entry = serde_json::from_slice::<KeyEntry>(&message.payload).ok();
    let entry = entry.filter(|entry| entry.key == *key && entry.holders.len() <= MAX_HOLDERS);
    let entry = entry.ok_or_else(|| ReadKeyError::Foreign {
        subject: subject.to_owned(),
    })?;
    Ok(StoredEntry {
        sequence: message.sequence,
        stored_at: stream_time(message.time),
        entry,
    })
}
