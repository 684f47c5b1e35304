//! Appends events to an operation's log and reads the log back. "No operation finishes twice" is
//! enforced here.
//!
//! The problem: several workers and backends may want to move the same operation on at the same
//! time, and only one of them may succeed. The answer to a publish can get lost, so a publisher
//! does not always know whether its event was stored. In a cluster, a server that has just become
//! the leader may answer with an older state.
//!
//! How it is solved: every event goes through [`OpLog::append`]. It names the sequence that the
//! event must follow (`Nats-Expected-Last-Subject-Sequence`), so JetStream stores at most one event
//! at each position. A publish without an answer is repeated. If the first one was stored, the
//! repetition is refused, and the log then shows the event with the publisher's own claim id. A log
//! that ends before the expected sequence is read again for about five seconds before that is
//! believed. Start requests, cancel intents and metric batches have no position; they are stored
//! once by their message id.
//!
//! Rejected: a lock per operation in a key-value bucket. A lock expires while its holder is paused,
//! so the holder's late writes need an expected sequence anyway. Also rejected: message ids for
//! events. The server forgets them after [two minutes](crate::topology), and a worker may come back
//! later.
//!
//! A message id counts for the whole stream, so whoever may publish on any subject of it can use up
//! the id of a message that others are about to store. When the server says that it knows an id, a
//! backend looks at what is stored. If it is something else, the backend stores its own message under
//! another id.

mod keys;
mod read;
mod refusal;
mod remove;

use std::time::Duration;

use async_nats::header::{NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, NATS_MESSAGE_ID};
use async_nats::jetstream::context::Context;
use async_nats::jetstream::message::StreamMessage;
use async_nats::{Client, HeaderMap, HeaderName, RequestError};
use bytes::Bytes;
use serde::Deserialize;
use tokio::time::Instant;
use uuid::Uuid;

use ktrdr_protocol::cancel::CancelIntent;
use ktrdr_protocol::event::Event;
use ktrdr_protocol::id::{CopyId, OperationId, WorkerType};
use ktrdr_protocol::metric::MetricBatch;
use ktrdr_protocol::origin::Origin;
use ktrdr_protocol::requirements::Requirements;
use ktrdr_protocol::start_request::StartRequest;
use ktrdr_protocol::state::FoldedLog;
use ktrdr_protocol::subject::SubjectNames;
use ktrdr_protocol::time::Timestamp;
use ktrdr_protocol::trace::{self, TraceParent};

use crate::backoff::Backoff;
use crate::nats::REQUEST_TIMEOUT;
use crate::signing::StartSigner;

use refusal::{Refusal, classify, named_tail, warn_of_full};

pub use keys::{Behind, ReadKeyError, StoredEntry};
pub use read::{ReadLogError, stream_time};
pub use refusal::NotStored;
pub(crate) use refusal::tail_in;
pub use remove::{Ends, RemoveError};

use read::{OTHER_SUBJECT, Reads};

/// First pause after a publish of unknown outcome; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// Longest pause between two tries.
const MAX_PAUSE: Duration = Duration::from_secs(2);

/// How often a log is read that ends before the expected sequence, until that is believed. With
/// the pauses in between this takes about 5 s.
const MAX_SHORT_READS: u32 = 8;

/// Room for headers and subject within the server's `max_payload`, in bytes.
const HEADER_ROOM: usize = 1024;

/// How one publish failed.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The server refused the message.
    #[error("the server refused the message")]
    Refused(#[source] async_nats::jetstream::Error),
    /// The server did not answer, or the message was not sent.
    #[error("no answer to a publish")]
    Request(#[source] RequestError),
    /// The answer is not one of JetStream.
    #[error("the answer to a publish cannot be read")]
    Unreadable(#[source] serde_json::Error),
    /// The server knows the message id, and what it has stored could not be looked at.
    #[error("cannot read the message that the server has stored with the same id")]
    Unconfirmed(#[source] async_nats::Error),
}

/// Why a message was not stored.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The last event is another one. Either it came first and this one was not stored, or this
    /// one was stored and others have followed it since.
    #[error("another event came first")]
    Conflict(Box<FoldedLog>),
    /// The entry of a key, behind which the message was to be stored, is not the last one any more.
    /// Nothing was stored, unless an earlier try was whose answer got lost.
    #[error("another entry of the key came first")]
    Superseded,
    /// The message exceeds the server's `max_payload`.
    #[error("the message is larger than the NATS server takes (max_payload)")]
    TooLarge,
    /// The stream or the disk is full; nothing was stored.
    #[error("the stream is full")]
    Full(#[source] PublishError),
    /// The message cannot be written as JSON.
    #[error("the message cannot be written as JSON")]
    Encode(#[source] serde_json::Error),
    /// NATS did not answer in time. The message may have been stored.
    #[error("NATS did not confirm in time")]
    Unknown(#[source] PublishError),
}

/// A message that is to be stored once.
struct Once<'a> {
    subject: &'a str,
    /// Its message id.
    id: &'a str,
    payload: Bytes,
    /// Further headers.
    headers: Vec<(HeaderName, String)>,
    /// Whether it is to follow the entry of a key.
    is_behind: bool,
}

/// Where a message was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// Its sequence in the stream.
    pub sequence: u64,
    /// Whether somebody else had stored a message with the same id. Then nothing was stored now,
    /// and `sequence` is the sequence of the earlier message.
    pub was_known: bool,
}

/// A start request as it is stored.
#[derive(Debug)]
pub struct StartMessage<'a> {
    /// The operation.
    pub operation_id: &'a OperationId,
    /// Its worker type.
    pub worker_type: &'a WorkerType,
    /// Its queue, or `direct`.
    pub origin: &'a Origin,
    /// The request as JSON.
    pub body: Bytes,
    /// The name of the copy that it is; `None` for the first request.
    pub copy: Option<&'a CopyId>,
    /// The trace that the start belongs to.
    pub trace: Option<&'a str>,
    /// While the server remembers it, no other message with the same id is stored.
    pub message_id: &'a str,
    /// The entry of its unique key.
    pub behind: Option<&'a Behind>,
}

impl<'a> StartMessage<'a> {
    /// The first request of an operation. Its message id is the operation id.
    ///
    /// # Errors
    /// [`AppendError::Encode`].
    pub fn of(
        request: &'a StartRequest,
        origin: &'a Origin,
        trace: Option<&'a TraceParent>,
    ) -> Result<Self, AppendError> {
        let body = serde_json::to_vec(request).map_err(AppendError::Encode)?;
        Ok(Self {
            operation_id: &request.operation_id,
            worker_type: &request.operation_type,
            origin,
            body: body.into(),
            copy: request.copy_id(),
            trace: trace.map(TraceParent::as_str),
            message_id: request.operation_id.as_str(),
            behind: None,
        })
    }
}

/// The logs of all operations. Cheap to clone.
#[derive(Clone)]
pub struct OpLog {
    jetstream: Context,
    client: Client,
    names: SubjectNames,
    reads: Reads,
}

impl OpLog {
    /// The logs below the prefix of `names`, over this connection, as a backend reads them.
    pub fn new(jetstream: Context, names: SubjectNames) -> Self {
        Self {
            client: jetstream.client(),
            jetstream,
            names,
            reads: Reads::Leader,
        }
    }

    /// The same for a worker of `worker_type`. It reads with requests that the server can permit for
    /// the logs of this worker type alone.
    pub fn of_worker(jetstream: Context, names: SubjectNames, worker_type: &WorkerType) -> Self {
        let any = Requirements::default().queue();
        let reads = Reads::Direct {
            clock: names.consumer(worker_type, &any),
        };
        Self {
            reads,
            ..Self::new(jetstream, names)
        }
    }

    /// Appends `event` directly after `expected` (0: as the first), and returns its sequence.
    ///
    /// While the outcome is unknown, the publish is repeated, for at most `patience`. That is safe:
    /// if the first publish was stored, the server refuses the repetition, and the stored event is
    /// recognised by its claim id.
    ///
    /// # Errors
    /// [`AppendError`]; only [`AppendError::Unknown`] leaves the outcome open.
    pub async fn append(
        &self,
        worker_type: &WorkerType,
        event: &Event,
        expected: u64,
        patience: Duration,
    ) -> Result<u64, AppendError> {
        let subject = self.names.operation(worker_type, &event.operation_id);
        let payload = event.encode().map_err(AppendError::Encode)?;
        let deadline = Instant::now().checked_add(patience);
        let mut backoff = Backoff::new(FIRST_PAUSE, MAX_PAUSE);
        let mut short_reads = 0;
        let began = Instant::now();

        loop {
            let header = [(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, expected.to_string())];
            let failure = match self.publish(&subject, header, payload.clone()).await {
                Ok(ack) => return Ok(ack.sequence),
                Err(error) => error,
            };

            match classify(&failure) {
                Refusal::WrongSequence => {
                    // Boxed because it is rare: every append's future would have room for it.
                    let read = Box::pin(self.read(worker_type, &event.operation_id));
                    if let Ok(log) = read.await {
                        if log
                            .last
                            .as_ref()
                            .is_some_and(|last| last.is_same_publish(event))
                        {
                            return Ok(log.state.last_sequence);
                        }

                        // In a cluster, the server may refuse because of a message that is not
                        // committed yet. The log may also come from a server that has just
                        // become the leader, or that is no longer the leader and does not know it.
                        // In both cases the tail is the expected one or an earlier one, so wait
                        // and try again. An earlier tail that stays means that the stream was
                        // deleted and created again, unless only this reading lags.
                        let behind = log.tail < expected && {
                            short_reads += 1;
                            short_reads < MAX_SHORT_READS || !self.confirms(&failure, expected)
                        };
                        if log.tail != expected && !behind {
                            return Err(AppendError::Conflict(Box::new(log)));
                        }
                    }
                }
                Refusal::TooLarge => return Err(AppendError::TooLarge),
                Refusal::Full if backoff.reaches(deadline) => {
                    return Err(AppendError::Full(failure));
                }
                Refusal::Full => warn_of_full(&failure, began.elapsed()),
                Refusal::Unknown => {}
            }

            if backoff.reaches(deadline) {
                return Err(AppendError::Unknown(failure));
            }
            tracing::debug!(operation_id = %event.operation_id, event = event.kind.name(), error = %failure, "publishing again");
            backoff.wait().await;
        }
    }

    /// Whether a refusal confirms that the log ends before `expected`. The leader itself has refused,
    /// so its word counts more than a reading that came from another server.
    fn confirms(&self, refusal: &PublishError, expected: u64) -> bool {
        self.reads == Reads::Leader || named_tail(refusal).is_some_and(|tail| tail < expected)
    }

    /// Stores a start request. The one message creates the operation and is its entry in a queue.
    ///
    /// The operation id is the message id, so publishing a request again stores nothing. `trace`
    /// and the signature of `signer` travel in headers.
    ///
    /// # Errors
    /// [`AppendError`], never `Conflict`. Only [`AppendError::Unknown`] leaves open whether it was
    /// stored.
    pub async fn start(
        &self,
        request: &StartRequest,
        origin: &Origin,
        trace: Option<&TraceParent>,
        signer: Option<&StartSigner>,
        patience: Duration,
    ) -> Result<Stored, AppendError> {
        let message = StartMessage::of(request, origin, trace)?;
        self.store_start(message, signer, patience).await
    }

    /// Stores a start request under a message id of the caller's choice.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn store_start(
        &self,
        message: StartMessage<'_>,
        signer: Option<&StartSigner>,
        patience: Duration,
    ) -> Result<Stored, AppendError> {
        self.fits(&message)?;
        let StartMessage {
            operation_id,
            worker_type,
            origin,
            body,
            copy,
            trace,
            message_id,
            behind,
        } = message;
        let subject = self.names.start(worker_type, origin);
        let mut headers = Vec::new();
        if let Some(trace) = trace {
            let name = HeaderName::from_static(trace::HEADER);
            headers.push((name, trace.to_owned()));
        }
        if let Some(signer) = signer {
            headers.extend(signer.headers(&subject, operation_id, &body, Timestamp::now()));
        }
        if let Some(Behind { subject, sequence }) = behind {
            headers.push((NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, sequence.to_string()));
            headers.push((OTHER_SUBJECT, subject.clone()));
        }
        let message = Once {
            subject: &subject,
            id: message_id,
            payload: body,
            headers,
            is_behind: behind.is_some(),
        };
        let is_start = |stored: &StreamMessage| self.is_start_of(operation_id, copy, stored);
        self.publish_once(&message, is_start, patience).await
    }

    /// Checks that the server takes a start request of this size.
    ///
    /// # Errors
    /// [`AppendError::TooLarge`].
    pub fn fits(&self, message: &StartMessage<'_>) -> Result<(), AppendError> {
        let max_payload = self.client.server_info().max_payload;
        if max_payload > 0 && message.body.len() + HEADER_ROOM > max_payload {
            return Err(AppendError::TooLarge);
        }
        Ok(())
    }

    /// Stores a cancel intent, so that a worker that takes the operation over finds it. Returns its
    /// sequence.
    ///
    /// The message id is made from the operation id, so the stream keeps only the first intent of
    /// an operation. Repeating an intent still helps: the server passes the message on to everybody
    /// who listens on the subject, and the worker may have missed the first one.
    ///
    /// # Errors
    /// [`AppendError`], never `Conflict`.
    pub async fn cancel(
        &self,
        worker_type: &WorkerType,
        intent: &CancelIntent,
        patience: Duration,
    ) -> Result<u64, AppendError> {
        let id = &intent.operation_id;
        let subject = self.names.cancel(worker_type, id);
        let payload = serde_json::to_vec(intent).map_err(AppendError::Encode)?;
        let message = Once {
            subject: &subject,
            id: &format!("cancel-{id}"),
            payload: payload.into(),
            headers: Vec::new(),
            is_behind: false,
        };
        let is_intent = |stored: &StreamMessage| {
            *stored.subject == *subject && self.is_intent(&subject, &stored.payload)
        };
        let stored = self.publish_once(&message, is_intent, patience).await?;
        Ok(stored.sequence)
    }

    /// Stores a batch of metric points, and returns its sequence. Publishing a batch again with the
    /// same `message_id` stores nothing.
    ///
    /// # Errors
    /// [`AppendError`], never `Conflict`.
    pub async fn store_metrics(
        &self,
        worker_type: &WorkerType,
        batch: &MetricBatch,
        message_id: &str,
        patience: Duration,
    ) -> Result<u64, AppendError> {
        let subject = self.names.metrics(worker_type, &batch.operation_id);
        let payload = serde_json::to_vec(batch).map_err(AppendError::Encode)?;
        let message = Once {
            subject: &subject,
            id: message_id,
            payload: payload.into(),
            headers: Vec::new(),
            is_behind: false,
        };
        let stored = self.publish_once(&message, |_| true, patience).await?;
        Ok(stored.sequence)
    }

    /// Stores a batch of log lines: publishes it once, and waits for the answer for at most `patience`.
    /// Publishing it again with the same `message_id` stores nothing.
    ///
    /// # Errors
    /// [`NotStored`]: what to do with the batch now.
    pub async fn store_log_lines(
        &self,
        worker_type: &WorkerType,
        id: &OperationId,
        batch: Bytes,
        message_id: &str,
        patience: Duration,
    ) -> Result<(), NotStored> {
        let subject = self.names.logs(worker_type, id);
        let header = [(NATS_MESSAGE_ID, message_id.to_owned())];
        let published = self.publish(&subject, header, batch);
        match tokio::time::timeout(patience, published).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(failure)) => Err(NotStored::of(&failure)),
            Err(_) => Err(NotStored::Silent),
        }
    }

    /// Stores a message under its own message id. While the outcome is unknown, the publish is
    /// repeated, for at most `patience`. That is safe: the server drops a message whose id it has
    /// seen. `is_same` says whether a stored message with the same id makes this one needless.
    async fn publish_once(
        &self,
        message: &Once<'_>,
        is_same: impl Fn(&StreamMessage) -> bool,
        patience: Duration,
    ) -> Result<Stored, AppendError> {
        let deadline = Instant::now().checked_add(patience);
        let mut backoff = Backoff::new(FIRST_PAUSE, MAX_PAUSE);
        let mut message_id = message.id.to_owned();
        let mut is_repetition = false;

        loop {
            let id_header = (NATS_MESSAGE_ID, message_id.clone());
            let headers = std::iter::once(id_header).chain(message.headers.iter().cloned());

            let payload = message.payload.clone();
            let failure = match self.publish(message.subject, headers, payload).await {
                Ok(answer) if !answer.duplicate => {
                    return Ok(Stored {
                        sequence: answer.sequence,
                        was_known: false,
                    });
                }
                // Boxed because it is rare: every start's future would have room for it.
                Ok(answer) => match Box::pin(self.known(answer.sequence, &is_same)).await {
                    Ok(true) => {
                        return Ok(Stored {
                            sequence: answer.sequence,
                            // After a repetition, the earlier message is most likely our own first
                            // try.
                            was_known: !is_repetition,
                        });
                    }
                    Ok(false) => {
                        tracing::warn!(
                            subject = message.subject,
                            message_id,
                            other_sequence = answer.sequence,
                            "another message has used up this message id; publishing under a new one"
                        );
                        message_id = format!("{}-{}", message.id, Uuid::new_v4().simple());
                        continue;
                    }
                    Err(error) => error,
                },
                Err(error) => error,
            };

            match classify(&failure) {
                Refusal::TooLarge => return Err(AppendError::TooLarge),
                Refusal::Full => return Err(AppendError::Full(failure)),
                Refusal::WrongSequence if message.is_behind => {
                    return Err(AppendError::Superseded);
                }
                Refusal::WrongSequence | Refusal::Unknown => {}
            }

            if backoff.reaches(deadline) {
                return Err(AppendError::Unknown(failure));
            }
            backoff.wait().await;
            is_repetition |= !matches!(failure, PublishError::Unconfirmed(_));
        }
    }

    /// Whether the message at `sequence`, which the server calls the first one with its id, is the same.
    /// A worker may not read it, and believes the server.
    async fn known(
        &self,
        sequence: u64,
        is_same: impl Fn(&StreamMessage) -> bool,
    ) -> Result<bool, PublishError> {
        if self.reads != Reads::Leader {
            return Ok(true);
        }
        let stored = self.stored_at(sequence).await;
        let stored = stored.map_err(PublishError::Unconfirmed)?;
        Ok(stored.is_some_and(|stored| is_same(&stored)))
    }

    /// Publishes once, with these headers, and waits for the stream's answer.
    async fn publish(
        &self,
        subject: &str,
        named: impl IntoIterator<Item = (HeaderName, String)>,
        payload: Bytes,
    ) -> Result<Answer, PublishError> {
        let mut headers = HeaderMap::new();
        for (name, value) in named {
            headers.insert(name, value);
        }

        let request = async_nats::Request::new()
            .headers(headers)
            .payload(payload)
            .timeout(Some(REQUEST_TIMEOUT));
        let message = self
            .client
            .send_request(subject.to_owned(), request)
            .await
            .map_err(PublishError::Request)?;

        let answer: Answer =
            serde_json::from_slice(&message.payload).map_err(PublishError::Unreadable)?;
        match answer.error {
            Some(refused) => Err(PublishError::Refused(refused)),
            // Streams count from 1, so an answer with neither a sequence nor an error is not one of
            // a stream.
            None if answer.sequence == 0 => Err(PublishError::Unreadable(
                serde::de::Error::missing_field("seq"),
            )),
            None => Ok(answer),
        }
    }
}

/// The stream's answer to a publish.
///
/// The client library has an untagged enum for it, which serde reads by trying each variant. Two
/// answers are read for every operation, and a plain struct is faster.
#[derive(Deserialize)]
struct Answer {
    #[serde(default, rename = "seq")]
    sequence: u64,
    #[serde(default)]
    duplicate: bool,
    error: Option<async_nats::jetstream::Error>,
}
