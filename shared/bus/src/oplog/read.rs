//! Reading an operation's log.
//!
//! The problem: a request that reads any message of the stream ([`Reads::Leader`]) reads start
//! requests and results of all worker types, and nats-server cannot permit less. A direct get names
//! the subject in its own subject, so it can be permitted for the logs of one worker type. But it
//! returns only the last message, and any copy of the stream may answer it, also one that lags.
//!
//! How it is solved: a worker reads the last event ([`Reads::Direct`]). It is enough, because the
//! server stored it with the sequence that it was to follow: the publisher knew the whole log, and
//! [decided by it](ktrdr_protocol::state). A last message without that proof (noise, or an event that
//! somebody published by hand) is not believed, and the whole log is read as a backend does.
//!
//! A reading that lags decides nothing. What a worker concludes from it is an append that names the
//! tail that was read, which the stream refuses, or stays true whatever follows: an operation that
//! has ended. A log that seems to be shorter than it is known to be is read again, and then compared
//! with the leader's own word ([`OpLog::newest_tail`]). Before an effect outside the log, such as an
//! output file that gets its name, that word is asked for first.
//!
//! Rejected: a consumer on the subject. A worker would need to create consumers, and could then change
//! those of others.

use async_nats::header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE;
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::response::Response;
use async_nats::jetstream::stream::{DirectGetErrorKind, RawMessageErrorKind, Stream};
use async_nats::{HeaderName, RequestError, RequestErrorKind};
use bytes::Bytes;
use ktrdr_protocol::cancel::CancelIntent;
use ktrdr_protocol::event::Event;
use ktrdr_protocol::id::{CopyId, OperationId, WorkerType};
use ktrdr_protocol::log_line::LogBatch;
use ktrdr_protocol::start_request::StartRequest;
use ktrdr_protocol::state::FoldedLog;
use ktrdr_protocol::time::Timestamp;
use serde::Deserialize;

use super::refusal::named_tail;
use super::{FIRST_PAUSE, MAX_PAUSE, MAX_SHORT_READS, OpLog};
use crate::backoff::Backoff;

/// Messages on the subject of an operation's cancel that are read, at most. With more that are no
/// intent, the operation is ended by a backend after the cancel grace.
const MAX_CANCEL_READS: usize = 64;

/// A sequence that no log ever has: an append that expects it is always refused.
const NO_SEQUENCE: u64 = i64::MAX as u64;

/// With this header, an expected sequence is about another subject than the message's own.
pub(super) const OTHER_SUBJECT: HeaderName =
    HeaderName::from_static("Nats-Expected-Last-Subject-Sequence-Subject");

/// How logs are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reads {
    /// Message by message, from the leader of the stream.
    Leader,
    /// The last event, from any copy of the stream.
    Direct {
        /// The consumer whose description has the time.
        clock: String,
    },
}

/// Converts the time at which the stream stored a message.
pub fn stream_time(time: async_nats::datetime::DateTime) -> Timestamp {
    // A 64-bit division: the 128-bit one shows in the time that a replay takes.
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
    /// The operation whose log was asked for.
    pub operation_id: OperationId,
    /// The error of the client library.
    #[source]
    pub source: async_nats::Error,
}

impl OpLog {
    /// Reads and folds the log of an operation.
    ///
    /// A backend asks the stream's leader. A worker may be answered by a replica that lags. Events may
    /// be appended after the answer in both cases; [`Self::append`] then returns a conflict.
    ///
    /// # Errors
    /// [`ReadLogError`] when NATS does not answer.
    pub async fn read(
        &self,
        worker_type: &WorkerType,
        id: &OperationId,
    ) -> Result<FoldedLog, ReadLogError> {
        // Boxed because it is rare: every operation's future would otherwise have room for it.
        Box::pin(async {
            if self.reads != Reads::Leader
                && let Some(log) = self.read_last_event(worker_type, id).await?
            {
                return Ok(log);
            }
            self.read_all(worker_type, id).await
        })
        .await
    }

    /// Like [`Self::read`], for a log that is known to reach `sequence`.
    ///
    /// In a cluster, a server that has just become the leader, or is no longer the leader and does
    /// not know it, may not have that event yet, nor may a replica that lags. So a log that ends
    /// earlier is read again, for about five seconds. After that it is returned as it is: the stream
    /// may have been deleted and created again. A reading that may have come from a replica is
    /// returned only when the leader agrees.
    ///
    /// # Errors
    /// [`ReadLogError`] when NATS does not answer, or only replicas that lag do.
    pub async fn read_from(
        &self,
        worker_type: &WorkerType,
        id: &OperationId,
        sequence: u64,
    ) -> Result<FoldedLog, ReadLogError> {
        let mut backoff = Backoff::new(FIRST_PAUSE, MAX_PAUSE);
        for _ in 1..MAX_SHORT_READS {
            let log = self.read(worker_type, id).await?;
            if log.tail >= sequence {
                return Ok(log);
            }
            backoff.wait().await;
        }

        let log = self.read(worker_type, id).await?;
        if log.tail < sequence && self.reads != Reads::Leader {
            let tail = Box::pin(self.newest_tail(worker_type, id)).await?;
            if tail >= sequence {
                return Err(failed(
                    id,
                    "the copy of the stream that answers lags behind",
                ));
            }
        }
        Ok(log)
    }

    /// The log as its last event tells it; `None` when the last message alone does not.
    async fn read_last_event(
        &self,
        worker_type: &WorkerType,
        id: &OperationId,
    ) -> Result<Option<FoldedLog>, ReadLogError> {
        let subject = self.names.operation(worker_type, id);
        let stream = self.stream(id).await?;
        let Some(message) = last_message(&stream, id, &subject).await? else {
            return Ok(Some(FoldedLog::default()));
        };
        if !follows_what_was_known(&message) {
            return Ok(None);
        }

        let stored_at = stream_time(message.time);
        let event = Event::decode(&message.payload)
            .ok()
            .filter(|event| self.names.check(&subject, event).is_ok())
            .map(|event| event.at_stream_time(stored_at));
        Ok(event.map(|event| FoldedLog::ending_with(message.sequence, event)))
    }

    /// The last batch of log lines of an operation that is stored, from any copy of its stream. What is
    /// no batch of this operation counts as none.
    ///
    /// # Errors
    /// [`ReadLogError`] when NATS does not answer, or there is no stream.
    pub async fn last_log_batch(
        &self,
        worker_type: &WorkerType,
        id: &OperationId,
    ) -> Result<Option<LogBatch>, ReadLogError> {
        let subject = self.names.logs(worker_type, id);
        let stream = self
            .jetstream
            .get_stream_no_info(self.names.logs_stream())
            .await
            .map_err(|error| failed(id, error))?;
        let message = last_message(&stream, id, &subject).await?;
        let batch =
            message.and_then(|message| serde_json::from_slice::<LogBatch>(&message.payload).ok());
        Ok(batch.filter(|batch| self.names.check(&subject, batch).is_ok()))
    }

    /// The last sequence of an operation's log now, by the leader's own word: it refuses an append
    /// that expects a sequence which no log has, and names the one that it has. Nothing is stored, but
    /// an empty message is passed on to those who listen on the operation's subject.
    ///
    /// # Errors
    /// [`ReadLogError`] when NATS does not answer, or the leader is busy with another message of this
    /// log.
    pub async fn newest_tail(
        &self,
        worker_type: &WorkerType,
        id: &OperationId,
    ) -> Result<u64, ReadLogError> {
        let subject = self.names.operation(worker_type, id);
        let header = [(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, NO_SEQUENCE.to_string())];
        let Err(refusal) = self.publish(&subject, header, Bytes::new()).await else {
            return Err(failed(id, "the stream took a message that it must refuse"));
        };
        named_tail(&refusal).ok_or_else(|| failed(id, refusal))
    }

    async fn read_all(
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
                        .filter(|event| self.names.check(&subject, event).is_ok())
                        .map(|event| event.at_stream_time(stored_at));
                    log.push(message.sequence, event);
                }
                Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => {
                    return Ok(log);
                }
                Err(error) => return Err(failed(id, error)),
            }
        }
    }

    /// The time of the server's clock, which also stamps the events that [`Self::read`] returns. A
    /// worker asks for the description of its queue, which has the time, too.
    ///
    /// # Errors
    /// When NATS does not answer.
    pub async fn clock(&self) -> Result<Timestamp, RequestError> {
        #[derive(Deserialize)]
        struct Info {
            ts: Timestamp,
        }

        let stream = self.names.stream();
        let subject = match &self.reads {
            Reads::Leader => format!("STREAM.INFO.{stream}"),
            Reads::Direct { clock } => format!("CONSUMER.INFO.{stream}.{clock}"),
        };
        // Boxed because it is rare: every operation's future would otherwise have room for it.
        let nothing = serde_json::json!({});
        let request = self
            .jetstream
            .request::<_, _, Response<Info>>(subject, &nothing);
        let answer = Box::pin(request)
            .await
            .map_err(|error| RequestError::with_source(RequestErrorKind::Other, error))?;

        match answer {
            Response::Ok(info) => Ok(info.ts),
            Response::Err { error } => {
                Err(RequestError::with_source(RequestErrorKind::Other, error))
            }
        }
    }

    /// Whether a cancel of the operation is stored. Messages on the subject that are no intent, or
    /// one of another operation, do not count.
    ///
    /// # Errors
    /// [`ReadLogError`] when NATS does not answer.
    pub async fn is_cancel_requested(
        &self,
        worker_type: &WorkerType,
        id: &OperationId,
    ) -> Result<bool, ReadLogError> {
        // Boxed because it is rare: every operation's future would otherwise have room for it.
        Box::pin(async {
            let subject = self.names.cancel(worker_type, id);
            if self.reads != Reads::Leader {
                // Backends store an intent once, so it is the newest message, or is among a few.
                let stream = self.stream(id).await?;
                match last_message(&stream, id, &subject).await? {
                    None => return Ok(false),
                    Some(message) if self.is_intent(&subject, &message.payload) => return Ok(true),
                    Some(_) => {}
                }
            }
            self.find_cancel_intent(id, &subject).await
        })
        .await
    }

    async fn find_cancel_intent(
        &self,
        id: &OperationId,
        subject: &str,
    ) -> Result<bool, ReadLogError> {
        let stream = self.stream(id).await?;
        let mut request = stream.raw_message_builder().last_by_subject(subject);
        for read in 0..MAX_CANCEL_READS {
            let found = match request.send().await {
                Ok(found) => found,
                Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => {
                    return Ok(false);
                }
                Err(error) => return Err(failed(id, error)),
            };
            if self.is_intent(subject, &found.payload) {
                return Ok(true);
            }
            let next = if read == 0 { 1 } else { found.sequence + 1 };
            request = stream
                .raw_message_builder()
                .sequence(next)
                .next_by_subject(subject);
        }
        Ok(false)
    }

    /// Whether a message is a start request of this operation, in whichever queue: the first one, or
    /// this copy.
    pub(super) fn is_start_of(
        &self,
        id: &OperationId,
        copy: Option<&CopyId>,
        message: &StreamMessage,
    ) -> bool {
        serde_json::from_slice::<StartRequest>(&message.payload).is_ok_and(|request| {
            request.operation_id == *id
                && request.copy_id() == copy
                && self.names.check(&message.subject, &request).is_ok()
        })
    }

    /// The message at `sequence`; `None` when it is not there, or not there any more.
    pub(super) async fn stored_at(
        &self,
        sequence: u64,
    ) -> Result<Option<StreamMessage>, async_nats::Error> {
        let name = self.names.stream();
        let stream = self.jetstream.get_stream_no_info(name).await?;
        let message = stream.raw_message_builder().sequence(sequence).send().await;
        match message {
            Ok(message) => Ok(Some(message)),
            Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) fn is_intent(&self, subject: &str, payload: &[u8]) -> bool {
        serde_json::from_slice::<CancelIntent>(payload)
            .is_ok_and(|intent| self.names.check(subject, &intent).is_ok())
    }

    /// The start request at `sequence`, as the stream stored it; `None` when the stream no longer has
    /// it. Only a backend may read it.
    ///
    /// # Errors
    /// [`ReadLogError`] when NATS does not answer.
    pub async fn start_message(
        &self,
        id: &OperationId,
        sequence: u64,
    ) -> Result<Option<StreamMessage>, ReadLogError> {
        let stream = self.stream(id).await?;
        match stream.raw_message_builder().sequence(sequence).send().await {
            Ok(message) => Ok(Some(message)),
            Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(failed(id, error)),
        }
    }

    async fn stream(&self, id: &OperationId) -> Result<Stream<()>, ReadLogError> {
        self.jetstream
            .get_stream_no_info(self.names.stream())
            .await
            .map_err(|error| failed(id, error))
    }
}

/// The last message of a subject, from any copy of the stream.
async fn last_message(
    stream: &Stream<()>,
    id: &OperationId,
    subject: &str,
) -> Result<Option<StreamMessage>, ReadLogError> {
    match stream.direct_get_last_for_subject(subject).await {
        Ok(message) => Ok(Some(message)),
        Err(error) if error.kind() == DirectGetErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(id, error)),
    }
}

fn failed(id: &OperationId, source: impl Into<async_nats::Error>) -> ReadLogError {
    ReadLogError {
        operation_id: id.clone(),
        source: source.into(),
    }
}

/// Whether the server stored a message only because it directly followed the message that its
/// publisher had read last.
fn follows_what_was_known(message: &StreamMessage) -> bool {
    let expected = message.headers.get(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE);
    let expected = expected.and_then(|value| value.as_str().parse::<u64>().ok());
    expected.is_some_and(|expected| expected < message.sequence)
        && message.headers.get(OTHER_SUBJECT).is_none()
}
