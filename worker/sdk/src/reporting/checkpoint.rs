//! Checkpoints: where the next attempt may go on. One per operation, in a KV bucket; any of them is a valid place to start
//! from, the newest only saves the most work.

use std::sync::Arc;
use std::time::Duration;

use ktrdr_protocol::id::OperationId;
use ktrdr_protocol::start_request::StartRequest;
use ktrdr_protocol::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio_util::sync::CancellationToken;

use crate::attempt::ownership::OwnedAttempt;
use crate::worker::core::Core;

/// How long looking for a checkpoint may take before the work starts from the beginning.
const LOAD_PATIENCE: Duration = Duration::from_secs(10);
/// Pause before it is looked for again.
const LOAD_RETRY: Duration = Duration::from_millis(500);

/// What the bucket holds for an operation.
#[derive(Serialize, Deserialize)]
struct Entry {
    attempt: u32,
    at: Timestamp,
    state: Box<RawValue>,
}

/// The newest checkpoint of the operation, or of the one it resumes. Found by the SDK before the engine starts; not looked for
/// any longer once the engine shall `stop` anyway.
pub(crate) async fn load(
    core: &Arc<Core>,
    request: &StartRequest,
    owned: &OwnedAttempt,
    stop: &CancellationToken,
) -> Option<Box<RawValue>> {
    if owned.attempt == 1 && request.resume_from.is_none() {
        return None;
    }
    // Boxed because it is rare.
    let looking = Box::pin(async {
        tokio::select! {
            found = tokio::time::timeout(LOAD_PATIENCE, look_for(core, request, owned)) => found.unwrap_or_else(|_| {
                tracing::warn!("the checkpoint could not be read in time; starting from the beginning");
                None
            }),
            () = stop.cancelled() => None,
        }
    });
    looking.await
}

async fn look_for(
    core: &Arc<Core>,
    request: &StartRequest,
    owned: &OwnedAttempt,
) -> Option<Box<RawValue>> {
    let own = (owned.attempt > 1).then_some(&request.operation_id);
    for id in own.into_iter().chain(&request.resume_from) {
        let found = loop {
            match read(core, id).await {
                Ok(found) => break found,
                Err(error) => {
                    tracing::debug!(%error, "the checkpoint cannot be read yet");
                    tokio::time::sleep(LOAD_RETRY).await;
                }
            }
        };
        let Some((_, Some(entry))) = found else {
            continue;
        };
        tracing::info!(from = %id, from_attempt = entry.attempt, saved_at = %entry.at, "going on from a checkpoint");
        // So that whoever resumes this operation finds it even if this one gets no further.
        if *id != request.operation_id
            && let Err(error) = save(core, owned, entry.state.clone()).await
        {
            tracing::warn!(%error, "the checkpoint was not taken over");
        }
        return Some(entry.state);
    }
    None
}

/// Saves a checkpoint of this attempt, unless a later attempt has saved one.
pub(crate) async fn save(
    core: &Arc<Core>,
    owned: &OwnedAttempt,
    state: Box<RawValue>,
) -> Result<(), async_nats::Error> {
    let entry = Entry {
        attempt: owned.attempt,
        at: Timestamp::now(),
        state,
    };
    let payload: bytes::Bytes = serde_json::to_vec(&entry)?.into();
    let store = bucket(core).await?;
    let revision = match read(core, &owned.operation_id).await? {
        Some((_, Some(newer))) if newer.attempt > owned.attempt => return Ok(()),
        Some((revision, _)) => revision,
        None => 0,
    };
    // The revision decides between this attempt and one that saved in between.
    store
        .update(owned.operation_id.as_str(), payload, revision)
        .await?;
    Ok(())
}

/// Removes the checkpoint of an operation that completed.
pub(crate) async fn remove(core: &Core, id: &OperationId) {
    let removed =
        async { Ok::<_, async_nats::Error>(bucket(core).await?.purge(id.as_str()).await?) };
    if let Err(error) = removed.await {
        // It goes with the bucket's age limit.
        tracing::debug!(%error, "a checkpoint was not removed");
    }
}

async fn bucket(core: &Core) -> Result<async_nats::jetstream::kv::Store, async_nats::Error> {
    Ok(core
        .connection
        .jetstream
        .get_key_value(core.names.checkpoints_bucket())
        .await?)
}

/// What the bucket holds for an operation, if anything: its revision, and the checkpoint if there is one that can be read.
async fn read(
    core: &Core,
    id: &OperationId,
) -> Result<Option<(u64, Option<Entry>)>, async_nats::Error> {
    use async_nats::jetstream::kv::Operation;
    let Some(found) = bucket(core).await?.entry(id.as_str()).await? else {
        return Ok(None);
    };
    let entry = match found.operation {
        Operation::Put => serde_json::from_slice(&found.value)
            .inspect_err(|error| tracing::warn!(%error, "a checkpoint is not readable; ignored"))
            .ok(),
        Operation::Delete | Operation::Purge => None,
    };
    Ok(Some((found.revision, entry)))
}
