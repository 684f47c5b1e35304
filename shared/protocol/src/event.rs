//! The events of an operation log, on the subject `op.<worker_type>.<operation_id>`.
//!
//! The events are the only record of what happened to an operation. Everything else is derived from
//! them: the state of the projection, the attempts, the decision of a worker about a delivered
//! request.
//!
//! Reading them bounds how fast a backend replays the stream. Therefore [`Event`] is read through a
//! plain struct with all fields of all kinds. serde's tagged and flattened enums were rejected:
//! they buffer the whole message and read it twice.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::id::{CopyId, OperationId, Queue, WorkerId};
use crate::progress::Progress;
use crate::time::Timestamp;
use crate::token_name::TokenName;

mod wire;

pub(crate) use self::wire::Wire;

/// Largest result inside a `completed` event, in bytes. A larger one goes to the object store.
pub const MAX_INLINE_RESULT: usize = 256 * 1024;

/// One state change of an operation.
///
/// Written as one flat JSON object that a person can read with `nats sub`. Readers ignore unknown
/// fields and skip an event of an unknown kind.
///
/// ```
/// use ktrdr_protocol::event::Event;
///
/// let json = r#"{"event":"started","operation_id":"op-1","attempt":1,
///     "at":"2025-11-10T10:30:00.123Z","worker_id":"worker-1","claim":"c1","start_sequence":7}"#;
/// let event = Event::decode(json.as_bytes())?;
/// assert_eq!(event.kind.name(), "started");
/// assert_eq!(event.claim_id.as_deref(), Some("c1"));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "Wire")]
pub struct Event {
    /// The operation it belongs to.
    pub operation_id: OperationId,
    /// When the publisher decided it.
    pub at: Timestamp,
    /// The worker that published it; `None` for a backend.
    pub worker_id: Option<WorkerId>,
    /// The attempt it belongs to; 0 when the operation was cancelled before its first attempt.
    pub attempt: u32,
    /// Unique to one claim by one process; the field `claim` of the message. A worker recognises
    /// its own events by it. The worker id is not enough: a restarted worker has the same one.
    pub claim_id: Option<String>,
    /// What happened.
    pub kind: EventKind,
}

/// What happened.
#[derive(Debug, Clone)]
pub enum EventKind {
    /// A worker claimed the operation and starts an attempt.
    Started {
        /// Stream sequence of the claimed start request. A second copy of the request has another
        /// one.
        start_sequence: u64,
        /// Number of the claimed delivery, from 1. It tells a worker that was suspended with an
        /// earlier delivery that another worker has received the request since.
        delivery: u64,
    },
    /// The operation is pending again: its worker gave it back to its queue, or a backend put it
    /// back because no queue held it.
    Released {
        /// Why.
        reason: ReleaseReason,
        /// The failure that a further attempt follows.
        error: Option<Failure>,
        /// The next attempt must not start before this time.
        retry_at: Option<Timestamp>,
        /// The copy of the start request that counts from here on: a backend has put the
        /// operation back, or the attempt belonged to such a copy. `None` for the first request.
        copy: Option<CopyId>,
    },
    /// The operation waits in another queue from here on: it is due, or was given another priority. It
    /// was pending and stays so.
    Moved {
        /// The queue, of the same class.
        queue: Queue,
        /// The next attempt must not start before this time.
        retry_at: Option<Timestamp>,
        /// The copy of the start request that counts from here on. A backend publishes it into the
        /// queue.
        copy: CopyId,
    },
    /// Finished with a result.
    Completed {
        /// The result, or where it is.
        result: ResultPayload,
        /// The last progress, at 100.
        progress: Option<Progress>,
    },
    /// Finished with an error; no attempt follows.
    Failed {
        /// What went wrong.
        error: Failure,
        /// The last progress, if the publisher knows it.
        progress: Option<Progress>,
    },
    /// Cancelled at a user's request.
    Cancelled {
        /// Published by a backend because the worker did not confirm within the cancel grace.
        forced: bool,
        /// The last progress, if the publisher knows it.
        progress: Option<Progress>,
        /// The token that asked for it, when there is no cancel intent that names it: an operation
        /// that nobody runs is cancelled by this event alone.
        requested_by: Option<TokenName>,
        /// The reason of the cancel, when there is no cancel intent that has it; `cancel_reason` of the
        /// message.
        reason: Option<String>,
    },
}

/// Why an operation is pending again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReleaseReason {
    /// The worker is stopping.
    Shutdown,
    /// The attempt failed or was lost, and another one follows.
    Retry,
}

/// A failure as it is recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Failure {
    /// A stable word for programs: `engine_error`, `invalid_request`, `panic`, `timeout`,
    /// `worker_lost`, …
    pub code: String,
    /// What happened, for people.
    pub message: String,
    /// Whether trying again cannot help.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub permanent: bool,
}

/// A result, or where it is.
#[derive(Debug, Clone)]
pub enum ResultPayload {
    /// The result itself.
    Inline(Box<RawValue>),
    /// In the object store.
    Stored(ResultRef),
}

/// Where a large result is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ResultRef {
    /// The object store bucket.
    pub bucket: String,
    /// The object's name: operation id and attempt, so that a fenced attempt cannot overwrite the
    /// winner's.
    pub object: String,
    /// Its size in bytes.
    pub size: u64,
}

impl EventKind {
    /// The word in the `event` field.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Started { .. } => "started",
            Self::Released { .. } => "released",
            Self::Moved { .. } => "moved",
            Self::Completed { .. } => "completed",
            Self::Failed { .. } => "failed",
            Self::Cancelled { .. } => "cancelled",
        }
    }

    /// The progress in a terminal event.
    fn progress(&self) -> Option<&Progress> {
        match self {
            Self::Completed { progress, .. }
            | Self::Failed { progress, .. }
            | Self::Cancelled { progress, .. } => progress.as_ref(),
            Self::Started { .. } | Self::Released { .. } | Self::Moved { .. } => None,
        }
    }

    /// Whether nothing may follow it.
    pub fn is_terminal(&self) -> bool {
        matches!(
            self,
            Self::Completed { .. } | Self::Failed { .. } | Self::Cancelled { .. }
        )
    }
}

impl Event {
    /// An event that a worker publishes about its attempt.
    pub fn by_worker(
        worker_id: &WorkerId,
        claim_id: &str,
        operation_id: &OperationId,
        attempt: u32,
        kind: EventKind,
    ) -> Self {
        Self {
            operation_id: operation_id.clone(),
            at: Timestamp::now(),
            worker_id: Some(worker_id.clone()),
            attempt,
            claim_id: Some(claim_id.to_owned()),
            kind,
        }
    }

    /// An event that a backend publishes about an operation whose last attempt is `attempt`.
    ///
    /// It gets a claim id of its own. Two backends may publish the same event at the same time, and
    /// each must recognise which of the two is in the log.
    pub fn by_backend(operation_id: &OperationId, attempt: u32, kind: EventKind) -> Self {
        Self {
            operation_id: operation_id.clone(),
            at: Timestamp::now(),
            worker_id: None,
            attempt,
            claim_id: Some(uuid::Uuid::now_v7().simple().to_string()),
            kind,
        }
    }

    /// The event as it is published.
    ///
    /// # Errors
    /// Only when a progress or result cannot be written as JSON.
    pub fn encode(&self) -> Result<bytes::Bytes, serde_json::Error> {
        serde_json::to_vec(self).map(Into::into)
    }

    /// Reads a published event.
    ///
    /// # Errors
    /// When it is not an event; the message says what is missing.
    pub fn decode(payload: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(payload)
    }

    /// Replaces the publisher's time by the stream's, and shifts `retry_at` by the same amount.
    ///
    /// Every publisher has its own clock. Only the stream's times can be compared.
    #[must_use]
    pub fn at_stream_time(mut self, stored_at: Timestamp) -> Self {
        if let EventKind::Released {
            retry_at: Some(due),
            ..
        }
        | EventKind::Moved {
            retry_at: Some(due),
            ..
        } = &mut self.kind
        {
            *due = due.moved(self.at, stored_at);
        }
        self.at = stored_at;
        self
    }

    /// Whether both are the same publish: same claim, same attempt, same kind.
    ///
    /// After a publish of unknown outcome, the publisher reads the log and recognises its own event
    /// by this.
    pub fn is_same_publish(&self, other: &Event) -> bool {
        self.kind.name() == other.kind.name()
            && self.attempt == other.attempt
            && self.worker_id == other.worker_id
            && self.claim_id == other.claim_id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: EventKind) -> Event {
        Event {
            operation_id: OperationId::new("op1").unwrap(),
            at: Timestamp::from_millis(1_762_770_600_123),
            worker_id: Some(WorkerId::new("w1").unwrap()),
            attempt: 1,
            claim_id: Some("c1".to_owned()),
            kind,
        }
    }

    #[test]
    fn wire_form_of_every_event_is_stable() {
        let failure = Failure {
            code: "engine_error".into(),
            message: "no".into(),
            permanent: false,
        };
        let result = RawValue::from_string(r#"{"rows":29.0}"#.into()).unwrap();
        let head = r#""operation_id":"op1","attempt":1,"at":"2025-11-10T10:30:00.123Z","worker_id":"w1","claim":"c1""#;
        let cases = [
            (
                EventKind::Started {
                    start_sequence: 7,
                    delivery: 2,
                },
                format!(r#"{{"event":"started",{head},"start_sequence":7,"delivery":2}}"#),
            ),
            (
                EventKind::Released {
                    reason: ReleaseReason::Shutdown,
                    error: None,
                    retry_at: None,
                    copy: None,
                },
                format!(r#"{{"event":"released",{head},"reason":"shutdown"}}"#),
            ),
            (
                EventKind::Released {
                    reason: ReleaseReason::Retry,
                    error: None,
                    retry_at: None,
                    copy: Some(CopyId::new("c2").unwrap()),
                },
                format!(r#"{{"event":"released",{head},"reason":"retry","copy":"c2"}}"#),
            ),
            (
                EventKind::Moved {
                    queue: Queue::new("any-p1").unwrap(),
                    retry_at: None,
                    copy: CopyId::new("c3").unwrap(),
                },
                format!(r#"{{"event":"moved",{head},"queue":"any-p1","copy":"c3"}}"#),
            ),
            (
                EventKind::Completed {
                    result: ResultPayload::Inline(result),
                    progress: None,
                },
                format!(r#"{{"event":"completed",{head},"result":{{"rows":29.0}}}}"#),
            ),
            (
                EventKind::Failed {
                    error: failure,
                    progress: None,
                },
                format!(
                    r#"{{"event":"failed",{head},"error":{{"code":"engine_error","message":"no"}}}}"#
                ),
            ),
            (
                EventKind::Cancelled {
                    forced: false,
                    progress: Some(Progress::new(36.0)),
                    requested_by: None,
                    reason: None,
                },
                format!(
                    r#"{{"event":"cancelled",{head},"progress":{{"percentage":36,"current_step":null,"estimated_remaining_seconds":null}}}}"#
                ),
            ),
            (
                EventKind::Cancelled {
                    forced: true,
                    progress: None,
                    requested_by: None,
                    reason: None,
                },
                format!(r#"{{"event":"cancelled",{head},"forced":true}}"#),
            ),
            (
                EventKind::Cancelled {
                    forced: false,
                    progress: None,
                    requested_by: Some(TokenName::new("alice").unwrap()),
                    reason: None,
                },
                format!(r#"{{"event":"cancelled",{head},"requested_by":"alice"}}"#),
            ),
            (
                EventKind::Cancelled {
                    forced: false,
                    progress: None,
                    requested_by: None,
                    reason: Some("too slow".to_owned()),
                },
                format!(r#"{{"event":"cancelled",{head},"cancel_reason":"too slow"}}"#),
            ),
        ];
        for (kind, json) in cases {
            let event = event(kind);
            assert_eq!(
                String::from_utf8(event.encode().unwrap().to_vec()).unwrap(),
                json
            );
            let read = Event::decode(json.as_bytes()).unwrap();
            assert!(read.is_same_publish(&event));
            assert_eq!(read.encode().unwrap(), event.encode().unwrap());
        }
    }

    #[test]
    fn unknown_fields_are_ignored_and_missing_ones_named() {
        let json = r#"{"event":"started","operation_id":"a","at":"2025-11-10T10:30:00Z","worker_id":"w","attempt":1,"start_sequence":1,"later":[]}"#;
        assert!(Event::decode(json.as_bytes()).is_ok());
        let json =
            r#"{"event":"started","operation_id":"a","at":"2025-11-10T10:30:00Z","worker_id":"w"}"#;
        assert!(
            Event::decode(json.as_bytes())
                .unwrap_err()
                .to_string()
                .contains("start_sequence")
        );
        for garbage in ["", "null", "[]", "{}", "{\"event\":\"exploded\"}", "\u{0}"] {
            assert!(Event::decode(garbage.as_bytes()).is_err());
        }
    }

    #[test]
    fn a_null_result_is_a_result() {
        let json = r#"{"event":"completed","operation_id":"a","at":"2025-11-10T10:30:00Z","worker_id":"w","attempt":1,"result":null}"#;
        let EventKind::Completed {
            result: ResultPayload::Inline(result),
            ..
        } = Event::decode(json.as_bytes()).unwrap().kind
        else {
            panic!("not completed");
        };
        assert_eq!(result.get(), "null");
    }
}
