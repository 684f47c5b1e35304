//! Reads what workers publish about their type, within bounds.

use ktrdr_bus::telemetry::short;
use ktrdr_http::schema::UnusableSchema;
use ktrdr_http::schema::cost::{MAX_BYTES, length};
use ktrdr_http::schema::integer_limits;
use ktrdr_protocol::rest::summary::Summary;
use ktrdr_protocol::schema_text::SchemaText;
use ktrdr_protocol::worker::{WorkerTypeEntry, is_domain};
use serde_json::Value;

use super::SKIPPED;

/// Longest description of a worker type that is kept, in characters.
const MAX_DESCRIPTION: usize = 4096;

/// Longest version of a worker type that is kept, in characters.
const MAX_VERSION: usize = 128;

/// Why an entry of the bucket is not a worker type.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EntryError {
    #[error("it cannot be read: {0}")]
    Unreadable(String),
    #[error("it is the entry of {0}")]
    OtherKey(String),
    #[error("its domain {0:?} cannot be part of a path, or is reserved")]
    Domain(String),
}

/// Longest text of a schema that is read at all. White space and escapes are not kept, so more than
/// [`MAX_BYTES`] may be fine.
const MAX_TEXT: usize = 4 * MAX_BYTES;

/// What is kept of an entry.
#[derive(Debug)]
pub(crate) struct Read {
    /// The entry, without what is too large.
    pub(crate) published: WorkerTypeEntry,
    /// Why starts are refused, when the request schema was left out.
    pub(super) refused: Option<UnusableSchema>,
    /// How operations of the type are summarised.
    pub(super) summary: Summary,
}

/// Reads the entry of the bucket at `key`. What is too large is left out, and a request schema that
/// is missing for this reason is named as the reason to refuse starts. Limits of integer types are
/// left out, too: [`integer_limits`].
pub(crate) fn read(key: &str, value: &[u8]) -> Result<Read, EntryError> {
    let mut published: WorkerTypeEntry =
        serde_json::from_slice(value).map_err(|error| EntryError::Unreadable(short(&error)))?;
    if published.worker_type.as_str() != key {
        return Err(EntryError::OtherKey(short(&published.worker_type)));
    }
    if !is_domain(&published.domain) {
        return Err(EntryError::Domain(short(&published.domain)));
    }

    let mut summary = Summary::default();
    let refused = shorten(&mut published.request_schema, |schema| {
        summary = Summary::of_schema(schema);
    })?;
    if shorten(&mut published.result_schema, |_| {})?.is_some()
        && let Some(count) = SKIPPED.note()
    {
        tracing::warn!(
            worker_type = key,
            count,
            "the result schema is too large and is not shown"
        );
    }
    for (text, limit) in [
        (&mut published.description, MAX_DESCRIPTION),
        (&mut published.version, MAX_VERSION),
    ] {
        if let Some((end, _)) = text.char_indices().nth(limit) {
            text.truncate(end);
        }
    }
    Ok(Read {
        published,
        refused,
        summary,
    })
}

/// Makes the text of a schema the one that is kept, and lets `look` see the schema. One that is too
/// large is replaced by `{}`. As a value it takes a hundred times its text, so it is one only here.
fn shorten(
    text: &mut SchemaText,
    look: impl FnOnce(&Value),
) -> Result<Option<UnusableSchema>, EntryError> {
    let bytes = text.as_str().len();
    if bytes > MAX_TEXT {
        *text = SchemaText::default();
        return Ok(Some(UnusableSchema::TooLarge { bytes }));
    }
    let mut schema = text
        .value()
        .map_err(|error| EntryError::Unreadable(short(&error)))?;
    let bytes = length(&schema);
    if bytes > MAX_BYTES {
        *text = SchemaText::default();
        return Ok(Some(UnusableSchema::TooLarge { bytes }));
    }

    integer_limits::remove_all(&mut schema);
    look(&schema);
    *text = SchemaText::of(&schema);
    Ok(None)
}
