//! Refusals of the server that no waiting can change.

use std::error::Error;

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::{
    CreateStreamError, CreateStreamErrorKind, GetStreamError, GetStreamErrorKind,
};

/// What to do about a refusal that would come again at every try; `None` when it may pass.
pub(super) fn remedy(error: &(dyn Error + 'static)) -> Option<&'static str> {
    match code(error)? {
        ErrorCode::STREAM_REPLICAS_NOT_SUPPORTED => {
            Some("One server alone keeps one copy: set KTRDR_STREAM_REPLICAS=1, or run a cluster")
        }
        ErrorCode::STREAM_SUBJECT_OVERLAP => Some(
            "Another stream of this account has these subjects: remove it, or choose another KTRDR_SUBJECT_PREFIX",
        ),
        ErrorCode::STREAM_INVALID_CONFIG => Some(
            "Check the settings of the streams: KTRDR_STREAM_REPLICAS, KTRDR_RETENTION, KTRDR_STREAM_MAX_BYTES",
        ),
        _ => None,
    }
}

/// The server's code in an error of the client library or in one of its causes.
fn code(error: &(dyn Error + 'static)) -> Option<ErrorCode> {
    let mut next = Some(error);
    while let Some(error) = next {
        let own = if let Some(error) = error.downcast_ref::<CreateStreamError>() {
            match error.kind() {
                CreateStreamErrorKind::JetStream(error) => Some(error.error_code()),
                _ => None,
            }
        } else if let Some(error) = error.downcast_ref::<GetStreamError>() {
            match error.kind() {
                GetStreamErrorKind::JetStream(error) => Some(error.error_code()),
                _ => None,
            }
        } else {
            let error = error.downcast_ref::<async_nats::jetstream::Error>();
            error.map(async_nats::jetstream::Error::error_code)
        };

        if own.is_some() {
            return own;
        }
        next = error.source();
    }
    None
}
