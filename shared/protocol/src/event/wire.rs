//! The flat form of an event, as it is written and read.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Event, EventKind, Failure, ReleaseReason, ResultPayload, ResultRef};
use crate::id::{CopyId, OperationId, Queue, WorkerId};
use crate::progress::Progress;
use crate::time::Timestamp;
use crate::token_name::TokenName;

/// The flat form of an event; see the module documentation.
#[derive(Deserialize, JsonSchema)]
pub(crate) struct Wire {
    /// What happened.
    #[schemars(with = "String")]
    event: Name,
    /// The operation.
    operation_id: OperationId,
    /// When the publisher decided it, by its clock. Readers take the time at which the stream stored the
    /// message instead.
    at: Timestamp,
    /// The worker that published it; absent when a backend did.
    worker_id: Option<WorkerId>,
    /// The attempt it belongs to, from 1; 0 before the first one.
    #[serde(default)]
    attempt: u32,
    /// Unique to one claim by one process, or to one event of a backend. A publisher recognises its own
    /// event by it.
    claim: Option<String>,
    /// Stream sequence of the claimed start request.
    start_sequence: Option<u64>,
    /// Number of the claimed delivery, from 1.
    delivery: Option<u64>,
    /// Why the operation is pending again.
    reason: Option<ReleaseReason>,
    /// The next attempt must not start before this time, by the publisher's clock: it is as far from
    /// `at` as the retry is from the stream's time.
    retry_at: Option<Timestamp>,
    /// The copy of the start request that counts from here on; absent for the first request.
    copy: Option<CopyId>,
    /// The queue in which the operation waits from here on.
    queue: Option<Queue>,
    /// What went wrong.
    error: Option<Failure>,
    /// The result, up to 256 KiB.
    #[schemars(with = "serde_json::Value")]
    result: Option<Box<RawValue>>,
    /// Where a larger result is.
    result_ref: Option<ResultRef>,
    /// The last progress, if the publisher knows it.
    progress: Option<Progress>,
    /// Whether a backend ended it because the worker did not confirm in time.
    #[serde(default)]
    forced: bool,
    /// The token that asked for the cancel, when no cancel intent names it.
    #[serde(default, deserialize_with = "crate::if_valid::read")]
    requested_by: Option<TokenName>,
    /// The reason of the cancel, when no cancel intent has it. (Programs that do not know it read `reason` as
    /// that of a release.)
    #[serde(default, deserialize_with = "crate::if_valid::read")]
    cancel_reason: Option<String>,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "snake_case")]
enum Name {
    Started,
    Released,
    Moved,
    Completed,
    Failed,
    Cancelled,
}

impl TryFrom<Wire> for Event {
    type Error = String;

    fn try_from(wire: Wire) -> Result<Self, String> {
        let kind = match wire.event {
            Name::Started => {
                if wire.worker_id.is_none() {
                    return Err("a started event needs worker_id".to_owned());
                }
                EventKind::Started {
                    start_sequence: wire
                        .start_sequence
                        .ok_or("a started event needs start_sequence")?,
                    delivery: wire.delivery.unwrap_or(1),
                }
            }
            Name::Released => EventKind::Released {
                reason: wire.reason.ok_or("a released event needs reason")?,
                error: wire.error,
                retry_at: wire.retry_at,
                copy: wire.copy,
            },
            Name::Moved => EventKind::Moved {
                queue: wire.queue.ok_or("a moved event needs queue")?,
                retry_at: wire.retry_at,
                copy: wire.copy.ok_or("a moved event needs copy")?,
            },
            Name::Completed => EventKind::Completed {
                result: match (wire.result, wire.result_ref) {
                    (_, Some(stored)) => ResultPayload::Stored(stored),
                    (Some(inline), None) => ResultPayload::Inline(inline),
                    // `"result":null` reads as absent: an engine may well return nothing.
                    (None, None) => ResultPayload::Inline(RawValue::NULL.to_owned()),
                },
                progress: wire.progress,
            },
            Name::Failed => EventKind::Failed {
                error: wire.error.ok_or("a failed event needs error")?,
                progress: wire.progress,
            },
            Name::Cancelled => EventKind::Cancelled {
                forced: wire.forced,
                progress: wire.progress,
                requested_by: wire.requested_by,
                reason: wire.cancel_reason,
            },
        };
        Ok(Self {
            operation_id: wire.operation_id,
            at: wire.at,
            worker_id: wire.worker_id,
            attempt: wire.attempt,
            claim_id: wire.claim,
            kind,
        })
    }
}

impl Serialize for Event {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("event", self.kind.name())?;
        map.serialize_entry("operation_id", &self.operation_id)?;
        map.serialize_entry("attempt", &self.attempt)?;
        map.serialize_entry("at", &self.at)?;
        if let Some(worker_id) = &self.worker_id {
            map.serialize_entry("worker_id", worker_id)?;
        }
        if let Some(claim_id) = &self.claim_id {
            map.serialize_entry("claim", claim_id)?;
        }
        match &self.kind {
            EventKind::Started {
                start_sequence,
                delivery,
            } => {
                map.serialize_entry("start_sequence", start_sequence)?;
                map.serialize_entry("delivery", delivery)?;
            }
            EventKind::Released {
                reason,
                error,
                retry_at,
                copy,
            } => {
                map.serialize_entry("reason", reason)?;
                if let Some(error) = error {
                    map.serialize_entry("error", error)?;
                }
                if let Some(retry_at) = retry_at {
                    map.serialize_entry("retry_at", retry_at)?;
                }
                if let Some(copy) = copy {
                    map.serialize_entry("copy", copy)?;
                }
            }
            EventKind::Moved {
                queue,
                retry_at,
                copy,
            } => {
                map.serialize_entry("queue", queue)?;
                if let Some(retry_at) = retry_at {
                    map.serialize_entry("retry_at", retry_at)?;
                }
                map.serialize_entry("copy", copy)?;
            }
            EventKind::Completed {
                result: ResultPayload::Inline(result),
                ..
            } => map.serialize_entry("result", result)?,
            EventKind::Completed {
                result: ResultPayload::Stored(stored),
                ..
            } => {
                map.serialize_entry("result_ref", stored)?;
            }
            EventKind::Failed { error, .. } => map.serialize_entry("error", error)?,
            EventKind::Cancelled {
                forced,
                requested_by,
                reason,
                ..
            } => {
                if *forced {
                    map.serialize_entry("forced", forced)?;
                }
                if let Some(token) = requested_by {
                    map.serialize_entry("requested_by", token)?;
                }
                if let Some(reason) = reason {
                    map.serialize_entry("cancel_reason", reason)?;
                }
            }
        }
        if let Some(progress) = self.kind.progress() {
            map.serialize_entry("progress", progress)?;
        }
        map.end()
    }
}
