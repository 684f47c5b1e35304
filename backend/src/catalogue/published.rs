//! Reads what workers publish about their type, within bounds.

use ktrdr_bus::telemetry::short;
use ktrdr_http::schema::UnusableSchema;
use ktrdr_http::schema::cost::{MAX_BYTES, length};
use ktrdr_http::schema::integer_limits;
use ktrdr_protocol::worker::{WorkerTypeEntry, is_domain};
use serde_json::Value;

use super::SKIPPED;

/// Longest description of a worker type that is kept, in characters.
const MAX_DESCRIPTION: usize = 4096;

/// Longest version of a worker type that is kept, in characters.
const MAX_VERSION: usize = 128;

/// Why an entry of the bucket is not a worker type.
#[derive(Debug, thiserror::Error)]
pub(super) enum EntryError {
    #[error("it cannot be read: {0}")]
    Unreadable(String),
    #[error("it is the entry of {0}")]
    OtherKey(String),
    #[error("its domain {0:?} cannot be part of a path, or is reserved")]
    Domain(String),
}

/// Reads the entry of the bucket at `key`. What is too large is left out, and a request schema that
/// is missing for this reason is named as the reason to refuse starts. Limits of integer types are
/// left out, too: [`integer_limits`].
pub(super) fn read(
    key: &str,
    value: &[u8],
) -> Result<(WorkerTypeEntry, Option<UnusableSchema>), EntryError> {
    let mut published: WorkerTypeEntry =
        serde_json::from_slice(value).map_err(|error| EntryError::Unreadable(short(&error)))?;
    if published.worker_type.as_str() != key {
        return Err(EntryError::OtherKey(short(&published.worker_type)));
    }
    if !is_domain(&published.domain) {
        return Err(EntryError::Domain(short(&published.domain)));
    }

    let bytes = length(&published.request_schema);
    let refused = (bytes > MAX_BYTES).then(|| {
        published.request_schema = Value::Object(serde_json::Map::new());
        UnusableSchema::TooLarge { bytes }
    });
    if length(&published.result_schema) > MAX_BYTES {
        if let Some(count) = SKIPPED.note() {
            tracing::warn!(
                worker_type = key,
                count,
                "the result schema is too large and is not shown"
            );
        }
        published.result_schema = Value::Object(serde_json::Map::new());
    }
    for schema in [&mut published.request_schema, &mut published.result_schema] {
        integer_limits::remove_all(schema);
    }
    for (text, limit) in [
        (&mut published.description, MAX_DESCRIPTION),
        (&mut published.version, MAX_VERSION),
    ] {
        if let Some((end, _)) = text.char_indices().nth(limit) {
            text.truncate(end);
        }
    }
    Ok((published, refused))
}
