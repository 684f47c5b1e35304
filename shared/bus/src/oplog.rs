//! Appending to an operation's log under an expected sequence, and reading it back.
//!
//! This is where "nothing is finished twice" is enforced: every state change goes through [`OpLog::append`], which publishes
//! with `Nats-Expected-Last-Subject-Sequence` and resolves every unknown outcome by reading the subject.

use std::time::Duration;

use async_nats::header::{NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, NATS_MESSAGE_ID};
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::Context;
use async_nats::jetstream::response::Response;
use async_nats::jetstream::stream::{RawMessageErrorKind, Stream};
use async_nats::{Client, HeaderMap, HeaderName, RequestError, RequestErrorKind};
use bytes::Bytes;
use serde::Deserialize;
use tokio::time::Instant;

use ktrdr_protocol::cancel::CancelIntent;
use ktrdr_protocol::event::Event;
use ktrdr_protocol::id::{OperationId, WorkerType};
use ktrdr_protocol::metric::MetricBatch;
use ktrdr_protocol::origin::Origin;
use ktrdr_protocol::start_request::StartRequest;
use ktrdr_protocol::state::FoldedLog;
use ktrdr_protocol::subject::SubjectNames;
use ktrdr_protocol::time::Timestamp;
use ktrdr_protocol::trace::{self, TraceParent};

use crate::backoff::Backoff;
use crate::nats::REQUEST_TIMEOUT;

/// First pause after a publish of unknown outcome; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// Longest pause between two tries.
const MAX_PAUSE: Duration = Duration::from_secs(2);

/// How often a log that ends before the event to be followed is read again before that is believed: about 5 s.
const SHORT_READS: u32 = 8;

/// Room for headers and subject within the server's `max_payload`, in bytes.
const HEADER_ROOM: usize = 1024;

/// The time at which the stream stored a message.
pub fn stream_time(time: async_nats::datetime::DateTime) -> Timestamp {
    // Divided as 64 bits: dividing as 128 bits is visible in the time of a replay.
    Timestamp::from_millis(
        i64::try_from(time.unix_timestamp_nanos())
            .unwrap_or_default()
            .div_euclid(1_000_000),
    )
}

/// Why a log could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the log of operation {operation_id}")]
pub struct ReadLogError {
    /// The operation.
    pub operation_id: OperationId,
    /// The cause.
    #[source]
    pub source: async_nats::jetstream::stream::RawMessageError,
}

/// How a publish failed.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The server said no.
    #[error("the server refused the message")]
    Refused(#[source] async_nats::jetstream::Error),
    /// It did not answer, or the message did not leave.
    #[error("no answer to a publish")]
    Request(#[source] RequestError),
    /// It said something else.
    #[error("the answer to a publish cannot be read")]
    Unreadable(#[source] serde_json::Error),
}

/// Why a message was not stored.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// Another event came first, and nothing of this one was stored; or this one was, and others have followed it since.
    #[error("another event came first")]
    Conflict(Box<FoldedLog>),
    /// The message is larger than the server takes.
    #[error("the message is larger than the NATS server takes (max_payload)")]
    TooLarge,
    /// The stream or the disk is full; nothing was stored.
    #[error("the stream is full")]
    Full(#[source] PublishError),
    /// The message cannot be written as JSON.
    #[error("the message cannot be written as JSON")]
    Encode(#[source] serde_json::Error),
    /// NATS did not answer in time. It may have been stored.
    #[error("NATS did not confirm in time")]
    Unknown(#[source] PublishError),
}

/// Where a message was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// Its sequence in the stream.
    pub sequence: u64,
    /// Somebody else stored a message with the same id before. Nothing was stored, and `sequence` is the earlier
    /// message's.
    pub was_known: bool,
}

/// The logs of all operations. Cheap to clone.
#[derive(Clone)]
pub struct OpLog {
    jetstream: Context,
    client: Client,
    names: SubjectNames,
}

impl OpLog {
    /// Over this connection.
    pub fn new(jetstream: Context, names: SubjectNames) -> Self {
        Self {
            client: jetstream.client(),
            jetstream,
            names,
        }
    }

    /// Appends `event` directly after `expected` (0: as the first), and returns its sequence.
    ///
    /// A publish whose outcome is unknown is repeated until it is known or `patience` is over. That is safe: the server
    /// checks the expected sequence first, so a repetition of one that landed is refused, and then recognised by its claim.
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
        loop {
            let header = [(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, expected.to_string())];
            let failure = match self.publish(&subject, header, payload.clone()).await {
                Ok(ack) => return Ok(ack.sequence),
                Err(error) => error,
            };
            match classify(&failure) {
                Refusal::WrongSequence => {
                    if let Ok(log) = self.read(worker_type, &event.operation_id).await {
                        if log
                            .last
                            .as_ref()
                            .is_some_and(|last| last.is_same_publish(event))
                        {
                            return Ok(log.state.last_sequence);
                        }
                        // In a cluster the refusal can be about a message that is not committed yet, and the answer can
                        // come from a server that has just become the leader or does not know that it no longer is. Then
                        // the tail is still the expected one, or an earlier one, and only time will tell. (An earlier one
                        // that stays is that of a stream that was made anew.)
                        let behind = log.tail < expected && {
                            short_reads += 1;
                            short_reads < SHORT_READS
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
                Refusal::Full | Refusal::Unknown => {}
            }
            if backoff.reaches(deadline) {
                return Err(AppendError::Unknown(failure));
            }
            tracing::debug!(operation_id = %event.operation_id, event = event.kind.name(), error = %failure, "publishing again");
            backoff.wait().await;
        }
    }

    /// Reads and folds the whole log of an operation.
    ///
    /// Asks the stream's leader, not a replica: a direct get may answer from one that lags. Even so the answer can be old
    /// by the time it is used; [`Self::append`] finds out.
    ///
    /// # Errors
    /// [`ReadLogError`] when NATS does not answer.
    pub async fn read(
        &self,
        worker_type: &WorkerType,
        id: &OperationId,
    ) -> Result<FoldedLog, ReadLogError> {
        // Boxed because it is rare: every operation's future would otherwise have room for it.
        Box::pin(self.read_now(worker_type, id)).await
    }

    /// [`Self::read`], when it is known that the log reaches to `sequence`. In a cluster a server that has just become the
    /// leader, or does not know that it no longer is, may not have it yet; so an answer that ends before is asked for again. It
    /// is believed in the end: the stream may have been made anew.
    ///
    /// # Errors
    /// [`ReadLogError`] when NATS does not answer.
    pub async fn read_from(
        &self,
        worker_type: &WorkerType,
        id: &OperationId,
        sequence: u64,
    ) -> Result<FoldedLog, ReadLogError> {
        let mut backoff = Backoff::new(FIRST_PAUSE, MAX_PAUSE);
        for _ in 1..SHORT_READS {
            let log = self.read(worker_type, id).await?;
            if log.tail >= sequence {
                return Ok(log);
            }
            backoff.wait().await;
        }
        self.read(worker_type, id).await
    }

    async fn read_now(
        &self,
        worker_type: &WorkerType,
        id: &OperationId,
    ) -> Result<FoldedLog, ReadLogError> {
        let subject = self.names.operation(worker_type, id);
        let stream = self.stream(id).await?;
        let mut log = FoldedLog::default();
        loop {
            match stream
                .raw_message_builder()
                .sequence(log.tail + 1)
                .next_by_subject(subject.as_str())
                .send()
                .await
            {
                Ok(message) => {
                    let stored_at = stream_time(message.time);
                    let event = Event::decode(&message.payload)
                        .ok()
                        .map(|event| event.at_stream_time(stored_at));
                    log.push(message.sequence, event);
                }
                Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => {
                    return Ok(log);
                }
                Err(source) => {
                    return Err(ReadLogError {
                        operation_id: id.clone(),
                        source,
                    });
                }
            }
        }
    }

    /// What the stream's clock shows: the one by which [`Self::read`] tells when things happened.
    ///
    /// # Errors
    /// When NATS does not answer.
    pub async fn clock(&self) -> Result<Timestamp, RequestError> {
        #[derive(Deserialize)]
        struct Info {
            ts: Timestamp,
        }
        let subject = format!("STREAM.INFO.{}", self.names.stream());
        let asked = Box::pin(self.jetstream.request::<_, _, Response<Info>>(subject, &()));
        match asked
            .await
            .map_err(|error| RequestError::with_source(RequestErrorKind::Other, error))?
        {
            Response::Ok(info) => Ok(info.ts),
            Response::Err { error } => {
                Err(RequestError::with_source(RequestErrorKind::Other, error))
            }
        }
    }

    /// Whether somebody asked to cancel the operation.
    ///
    /// # Errors
    /// [`ReadLogError`] when NATS does not answer.
    pub async fn is_cancel_requested(
        &self,
        worker_type: &WorkerType,
        id: &OperationId,
    ) -> Result<bool, ReadLogError> {
        // Boxed because it is rare: every operation's future would otherwise have room for it.
        Box::pin(self.find_cancel_intent(worker_type, id)).await
    }

    async fn find_cancel_intent(
        &self,
        worker_type: &WorkerType,
        id: &OperationId,
    ) -> Result<bool, ReadLogError> {
        let stream = self.stream(id).await?;
        let subject = self.names.cancel(worker_type, id);
        let newest = stream
            .raw_message_builder()
            .last_by_subject(subject.as_str())
            .send()
            .await;

        match newest {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(false),
            Err(source) => Err(ReadLogError {
                operation_id: id.clone(),
                source,
            }),
        }
    }

    /// Stores a start request: the queue entry of an operation and the record of its creation in one message.
    ///
    /// The operation id is the message id, so publishing a request again stores nothing. `trace` travels in a header.
    ///
    /// # Errors
    /// [`AppendError`], never `Conflict`. Only [`AppendError::Unknown`] leaves open whether it was stored.
    pub async fn start(
        &self,
        request: &StartRequest,
        origin: &Origin,
        trace: Option<&TraceParent>,
        patience: Duration,
    ) -> Result<Stored, AppendError> {
        let subject = self.names.start(&request.operation_type, origin);
        let payload = serde_json::to_vec(request).map_err(AppendError::Encode)?;
        let max_payload = self.client.server_info().max_payload;
        if max_payload > 0 && payload.len() + HEADER_ROOM > max_payload {
            return Err(AppendError::TooLarge);
        }

        let message_id = request.operation_id.as_str();
        self.publish_once(&subject, message_id, payload.into(), trace, patience)
            .await
    }

    /// Stores a cancel intent, so that a worker that takes the operation over finds it. Returns its sequence.
    ///
    /// The operation id makes the message id, so the stream keeps the first intent of an operation. Repeating it is
    /// useful all the same: the server hands the message to everybody who listens on the subject at that moment, and it
    /// may be the first time that the worker hears it.
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
        self.publish_once(
            &subject,
            &format!("cancel-{id}"),
            payload.into(),
            None,
            patience,
        )
        .await
        .map(|stored| stored.sequence)
    }

    /// Stores a batch of metric points. Publishing a batch again with the same `message_id` stores nothing.
    ///
    /// # Errors
    /// [`AppendError`], never `Conflict`.
    pub async fn store_metrics(
        &self,
        worker_type: &WorkerType,
        batch: &MetricBatch,
        message_id: &str,
        patience: Duration,
    ) -> Result<(), AppendError> {
        let subject = self.names.metrics(worker_type, &batch.operation_id);
        let payload = serde_json::to_vec(batch).map_err(AppendError::Encode)?;
        self.publish_once(&subject, message_id, payload.into(), None, patience)
            .await
            .map(drop)
    }

    /// Stores a message under an id of its own. Repeats the publish until its outcome is known or `patience` is over.
    /// That is safe: the server drops a message whose id it has seen.
    async fn publish_once(
        &self,
        subject: &str,
        message_id: &str,
        payload: Bytes,
        trace: Option<&TraceParent>,
        patience: Duration,
    ) -> Result<Stored, AppendError> {
        let deadline = Instant::now().checked_add(patience);
        let mut backoff = Backoff::new(FIRST_PAUSE, MAX_PAUSE);
        let mut is_repetition = false;
        loop {
            let id_header = (NATS_MESSAGE_ID, message_id.to_owned());
            let trace_header = trace.map(|trace| {
                (
                    HeaderName::from_static(trace::HEADER),
                    trace.as_str().to_owned(),
                )
            });
            let headers = std::iter::once(id_header).chain(trace_header);
            let failure = match self.publish(subject, headers, payload.clone()).await {
                Ok(answer) => {
                    return Ok(Stored {
                        sequence: answer.sequence,
                        // A repetition cannot tell whether its own first try was stored, so it counts as stored by it.
                        was_known: answer.duplicate && !is_repetition,
                    });
                }
                Err(error) => error,
            };

            match classify(&failure) {
                Refusal::TooLarge => return Err(AppendError::TooLarge),
                Refusal::Full => return Err(AppendError::Full(failure)),
                Refusal::WrongSequence | Refusal::Unknown => {}
            }
            if backoff.reaches(deadline) {
                return Err(AppendError::Unknown(failure));
            }
            backoff.wait().await;
            is_repetition = true;
        }
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
            // Streams count from 1: what says neither a sequence nor an error is no answer of a stream.
            None if answer.sequence == 0 => Err(PublishError::Unreadable(
                serde::de::Error::missing_field("seq"),
            )),
            None => Ok(answer),
        }
    }

    async fn stream(&self, id: &OperationId) -> Result<Stream<()>, ReadLogError> {
        self.jetstream
            .get_stream_no_info(self.names.stream())
            .await
            .map_err(|error| ReadLogError {
                operation_id: id.clone(),
                source: async_nats::jetstream::stream::RawMessageError::with_source(
                    RawMessageErrorKind::Other,
                    error,
                ),
            })
    }
}

/// What the stream answers to a publish. A plain struct, because two of these are read for every operation: the client
/// library's own type is an enum that is tried one variant after the other.
#[derive(Deserialize)]
struct Answer {
    #[serde(default, rename = "seq")]
    sequence: u64,
    #[serde(default)]
    duplicate: bool,
    error: Option<async_nats::jetstream::Error>,
}

enum Refusal {
    WrongSequence,
    TooLarge,
    Full,
    Unknown,
}

/// What a failed publish says about the message: only refusals by the server are final.
fn classify(error: &PublishError) -> Refusal {
    match error {
        PublishError::Request(error) if error.kind() == RequestErrorKind::MaxPayloadExceeded => {
            Refusal::TooLarge
        }
        PublishError::Request(_) | PublishError::Unreadable(_) => Refusal::Unknown,
        PublishError::Refused(error) => match error.error_code() {
            ErrorCode::STREAM_WRONG_LAST_SEQUENCE
            | ErrorCode::STREAM_WRONG_LAST_SEQUENCE_CONSTANT => Refusal::WrongSequence,
            ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM => Refusal::TooLarge,
            ErrorCode::STREAM_STORE_FAILED
            | ErrorCode::STORAGE_RESOURCES_EXCEEDED
            | ErrorCode::INSUFFICIENT_RESOURCES
            | ErrorCode::ACCOUNT_RESOURCES_EXCEEDED => Refusal::Full,
            _ => Refusal::Unknown,
        },
    }
}
