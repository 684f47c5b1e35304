//! Where a result goes: into the `completed` event, or into the object store when it is large.
//!
//! Each worker type has a bucket of its own, so that permissions of the server can keep worker types
//! apart. Backends create it. While there is none, because all backends are of version 0.1.0, the
//! bucket that all types share is used.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::{GetStreamError, GetStreamErrorKind, ObjectStoreError};
use async_nats::jetstream::object_store::{ObjectMetadata, ObjectStore};
use ktrdr_bus::no_room::NoRoom;
use ktrdr_bus::telemetry::{Repeated, chain};
use ktrdr_protocol::event::{Failure, MAX_INLINE_RESULT, ResultPayload, ResultRef};
use ktrdr_protocol::subject::SubjectNames;
use serde_json::value::RawValue;

use crate::attempt::ownership::{NotVerified, OwnedAttempt};
use crate::attempt::stop::Lost;
use crate::worker::core::Core;

/// Room that the rest of the event needs, in bytes.
const EVENT_ROOM: usize = 16 * 1024;
/// Chunk size of a large result, unless the server's message limit is lower.
const CHUNK: usize = 128 * 1024;
/// Room that the headers of a chunk need, in bytes.
const CHUNK_ROOM: usize = 1024;
const RETRY: Duration = Duration::from_secs(1);

/// How often a large result is stored that the server refuses for lack of a permission. Permissions
/// may be changed, so the first refusal is not believed.
const REFUSED_TRIES: u32 = 3;

/// Lines about results that could not be stored.
static NOT_STORED: Repeated = Repeated::new();

/// Why a result was not stored.
#[derive(Debug)]
pub(crate) enum NotStored {
    /// The attempt was lost before.
    Lost(Lost),
    /// This worker may not store it.
    Refused(Failure),
}

/// The payload of the `completed` event. A large result is stored in the object store first. Keeps
/// trying through an outage of any length, but not without a permission.
///
/// # Errors
/// [`NotStored`]. Parts of the result that are already in the bucket expire with its age limit.
pub(crate) async fn store_result(
    core: &Arc<Core>,
    owned: &OwnedAttempt,
    result: &RawValue,
) -> Result<ResultPayload, NotStored> {
    let text = result.get();
    let payload_limit = core
        .connection
        .client
        .max_payload()
        .saturating_sub(EVENT_ROOM);
    if text.len() <= MAX_INLINE_RESULT.min(payload_limit) {
        return Ok(ResultPayload::Inline(result.to_owned()));
    }
    // Boxed because it is rare.
    Box::pin(store_object(core, owned, text)).await
}

async fn store_object(
    core: &Arc<Core>,
    owned: &OwnedAttempt,
    text: &str,
) -> Result<ResultPayload, NotStored> {
    let object = SubjectNames::result_object(&owned.operation_id, owned.attempt);
    let mut refused = 0;

    loop {
        let asked = core.connection.refusals.count();
        match put(core, &object, text).await {
            Ok(bucket) => {
                return Ok(ResultPayload::Stored(ResultRef {
                    bucket,
                    object,
                    size: text.len() as u64,
                }));
            }
            Err(error) => {
                if let Some(count) = NOT_STORED.note() {
                    let advice = NoRoom::of(&*error)
                        .map(|full| full.advice("KTRDR_RESULTS_MAX_BYTES", "--results-max-bytes"))
                        .map_or_else(String::new, |advice| {
                            format!(". The bucket has no room: {advice}")
                        });
                    tracing::warn!(
                        error = chain(&*error), %object, count,
                        "the result could not be stored; trying again{advice}"
                    );
                }
            }
        }

        if let Some(subject) = core.connection.refusals.since(asked, is_about_results) {
            refused += 1;
            if refused >= REFUSED_TRIES {
                return Err(NotStored::Refused(refusal(&subject)));
            }
        }
        if let Err(NotVerified::Lost(lost)) = owned.verify(core).await {
            return Err(NotStored::Lost(lost));
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Stores the object and returns the name of its bucket.
async fn put(core: &Core, object: &str, text: &str) -> Result<String, async_nats::Error> {
    let (bucket, store) = open_bucket(core).await?;
    let chunk = CHUNK
        .min(
            core.connection
                .client
                .max_payload()
                .saturating_sub(CHUNK_ROOM),
        )
        .max(1);
    let meta = ObjectMetadata {
        name: object.to_owned(),
        chunk_size: Some(chunk),
        ..ObjectMetadata::default()
    };

    if let Err(error) = store.put(meta, &mut text.as_bytes()).await {
        // The bucket may be gone.
        *core.results.lock() = None;
        return Err(error.into());
    }
    Ok(bucket)
}

/// The bucket of this worker type, or the shared one.
async fn open_bucket(core: &Core) -> Result<(String, ObjectStore), async_nats::Error> {
    let own = core.names.results_bucket_of(&core.worker_type);
    let known = core.results.lock().clone();
    if let Some(store) = known {
        return Ok((own, store));
    }

    let jetstream = &core.connection.jetstream;
    match jetstream.get_object_store(&own).await {
        Ok(store) => {
            *core.results.lock() = Some(store.clone());
            Ok((own, store))
        }
        Err(error) if is_missing(&error) => {
            let shared = core.names.results_bucket();
            let store = jetstream.get_object_store(&shared).await?;
            Ok((shared, store))
        }
        Err(error) => Err(error.into()),
    }
}

/// Whether the bucket does not exist.
fn is_missing(error: &ObjectStoreError) -> bool {
    let source = error.source();
    let error = source.and_then(|source| source.downcast_ref::<GetStreamError>());
    error.is_some_and(|error| {
        matches!(error.kind(), GetStreamErrorKind::JetStream(ref error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND)
    })
}

/// Whether a permission is one that only large results need.
fn is_about_results(subject: &str) -> bool {
    subject.starts_with("$O.") || subject.contains(".OBJ_")
}

fn refusal(subject: &str) -> Failure {
    Failure {
        code: "result_not_stored".to_owned(),
        message: format!(
            "the result is too large for the operation log, and the worker's NATS user may not publish to {subject} to store it"
        ),
        permanent: true,
    }
}
