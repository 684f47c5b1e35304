//! Where a result goes: into the `completed` event, or into the object store when it is large.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::object_store::ObjectMetadata;
use ktrdr_protocol::event::{MAX_INLINE_RESULT, ResultPayload, ResultRef};
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

/// The payload of the `completed` event. A large result is stored in the object store first. Keeps
/// trying through an outage of any length.
///
/// # Errors
/// [`Lost`] when the attempt was lost before the result was stored. Parts of the result that are
/// already in the bucket expire with its age limit.
pub(crate) async fn store_result(
    core: &Arc<Core>,
    owned: &OwnedAttempt,
    result: &RawValue,
) -> Result<ResultPayload, Lost> {
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
) -> Result<ResultPayload, Lost> {
    let bucket = core.names.results_bucket();
    let object = SubjectNames::result_object(&owned.operation_id, owned.attempt);

    loop {
        match put(core, &bucket, &object, text).await {
            Ok(()) => {
                return Ok(ResultPayload::Stored(ResultRef {
                    bucket,
                    object,
                    size: text.len() as u64,
                }));
            }
            Err(error) => {
                tracing::warn!(%error, %object, "the result could not be stored; trying again");
            }
        }

        if let Err(NotVerified::Lost(lost)) = owned.verify(core).await {
            return Err(lost);
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn put(core: &Core, bucket: &str, object: &str, text: &str) -> Result<(), async_nats::Error> {
    let store = core.connection.jetstream.get_object_store(bucket).await?;
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
    store.put(meta, &mut text.as_bytes()).await?;
    Ok(())
}
