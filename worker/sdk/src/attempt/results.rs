//! Results: inside the `completed` event, or in the object store when they are large.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::object_store::ObjectMetadata;
use ktrdr_protocol::event::{MAX_INLINE_RESULT, ResultPayload, ResultRef};
use serde_json::value::RawValue;

use crate::attempt::claim::{Claimer, Ended, Hold};
use crate::worker::core::Core;

/// Room for the rest of the event, in bytes.
const EVENT_ROOM: usize = 16 * 1024;
/// Size of the pieces of a large result, where the server takes messages of that size.
const CHUNK: usize = 128 * 1024;
/// Room for the headers of a piece, in bytes.
const CHUNK_ROOM: usize = 1024;
const RETRY: Duration = Duration::from_secs(1);

/// The payload for a result, stored first when it is large. Keeps trying through an outage of any length.
///
/// # Errors
/// [`Ended::Fenced`] when the attempt was lost meanwhile. What was stored of a large result until then goes with the bucket's age limit.
pub(crate) async fn store_result(
    core: &Arc<Core>,
    hold: &Hold,
    claimer: &Claimer<'_>,
    result: &RawValue,
) -> Result<ResultPayload, Ended> {
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
    Box::pin(store_object(core, hold, claimer, text)).await
}

async fn store_object(
    core: &Arc<Core>,
    hold: &Hold,
    claimer: &Claimer<'_>,
    text: &str,
) -> Result<ResultPayload, Ended> {
    let bucket = core.names.results_bucket();
    // The attempt is part of the name: one that was fenced cannot overwrite what the winner stored.
    let object = format!("{}.{}", hold.operation_id, hold.attempt);
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
                tracing::warn!(%error, %object, "the result could not be stored; trying again")
            }
        }
        if let Ok(Some(lost)) = claimer.verify(hold).await {
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
