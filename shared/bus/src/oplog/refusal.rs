//! What the server's refusal of a message means.

use std::time::Duration;

use async_nats::RequestErrorKind;
use async_nats::jetstream::ErrorCode;

use super::PublishError;
use crate::no_room::NoRoom;
use crate::telemetry::{Repeated, chain};

/// How long an event waits for room before that is said.
const FULL_PATIENCE: Duration = Duration::from_secs(5);

/// Lines about events that wait for room.
static WAITING_FOR_ROOM: Repeated = Repeated::new();

/// The last sequence of the subject, as a refused append names it. A cluster that is busy with another
/// message of the subject names none.
pub(super) fn named_tail(refusal: &PublishError) -> Option<u64> {
    match refusal {
        PublishError::Refused(error) => tail_in(error),
        _ => None,
    }
}

/// [`named_tail`] of the server's own error.
pub(crate) fn tail_in(error: &async_nats::jetstream::Error) -> Option<u64> {
    if error.error_code() != ErrorCode::STREAM_WRONG_LAST_SEQUENCE {
        return None;
    }
    let text = error.to_string();
    let number = text.strip_prefix("wrong last sequence: ")?;
    number.split(' ').next()?.parse().ok()
}

/// Says that an event has waited for room for a while.
pub(super) fn warn_of_full(failure: &PublishError, waited: Duration) {
    if waited < FULL_PATIENCE {
        return;
    }
    if let Some(count) = WAITING_FOR_ROOM.note() {
        let advice = NoRoom::of(failure)
            .unwrap_or(NoRoom::Server)
            .advice("KTRDR_STREAM_MAX_BYTES", "--stream-max-bytes");
        tracing::warn!(
            error = chain(failure),
            count,
            "events cannot be stored, and wait until the operations stream has room: {advice}"
        );
    }
}

/// What a failed publish tells about the message.
pub(super) enum Refusal {
    WrongSequence,
    TooLarge,
    Full,
    /// It may have been stored.
    Unknown,
}

/// Only a refusal by the server is final. Without an answer the message may have been stored.
pub(super) fn classify(error: &PublishError) -> Refusal {
    match error {
        PublishError::Request(error) if error.kind() == RequestErrorKind::MaxPayloadExceeded => {
            Refusal::TooLarge
        }
        PublishError::Request(_) | PublishError::Unreadable(_) | PublishError::Unconfirmed(_) => {
            Refusal::Unknown
        }
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

/// Why a batch that nothing depends on was not stored, or may not have been.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotStored {
    /// No stream takes it: a backend of an earlier release does not make it, or it was removed.
    #[error("no stream takes them; a backend of this release makes one")]
    NoStream,
    /// Nobody answered in time. It may have been stored.
    #[error("the server does not answer; perhaps it does not permit them")]
    Silent,
    /// The server refuses it, and would refuse it again.
    #[error("the server refuses this batch")]
    Refused,
    /// The server has no room now.
    #[error("the server has no room")]
    Full,
}

impl NotStored {
    pub(super) fn of(failure: &PublishError) -> Self {
        match failure {
            PublishError::Request(error) if error.kind() == RequestErrorKind::NoResponders => {
                Self::NoStream
            }
            _ => match classify(failure) {
                Refusal::TooLarge | Refusal::WrongSequence => Self::Refused,
                Refusal::Full => Self::Full,
                Refusal::Unknown => Self::Silent,
            },
        }
    }
}
