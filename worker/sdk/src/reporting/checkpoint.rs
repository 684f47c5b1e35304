//! Writes and reads checkpoints. They are in a KV bucket, one per operation.
//!
//! The next attempt resumes from the newest checkpoint. Every checkpoint is a valid place to resume
//! from, so a write that fails is only logged: the next one makes up for it.
//!
//! The key is `<worker_type>.<operation_id>`, so that permissions of the server can keep worker
//! types apart. Workers of version 0.1.0 use `<operation_id>`. While some of them may be running,
//! both keys are written, and the checkpoint of the later attempt is read: no version repeats work
//! that the other has saved.

use std::sync::Arc;
use std::time::Duration;

use ktrdr_bus::key_values::{Found, KeyError, KeyValues};
use ktrdr_protocol::checkpoint::Checkpoint;
use ktrdr_protocol::id::OperationId;
use ktrdr_protocol::start_request::StartRequest;
use ktrdr_protocol::subject::SubjectNames;
use ktrdr_protocol::time::Timestamp;
use serde_json::value::RawValue;
use tokio_util::sync::CancellationToken;

use crate::attempt::ownership::OwnedAttempt;
use crate::worker::core::Core;

/// How long reading a checkpoint may take before the attempt starts from the beginning.
const LOAD_PATIENCE: Duration = Duration::from_secs(10);
/// Pause before it is read again.
const LOAD_RETRY: Duration = Duration::from_millis(500);

/// Reads the newest checkpoint of the operation, or of the operation that it resumes. Gives up when
/// `stop` is cancelled.
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
    let reading = Box::pin(async {
        tokio::select! {
            found = tokio::time::timeout(LOAD_PATIENCE, read_newest(core, request, owned)) => found.unwrap_or_else(|_| {
                tracing::warn!("the checkpoint could not be read in time; starting from the beginning");
                None
            }),
            () = stop.cancelled() => None,
        }
    });
    reading.await
}

async fn read_newest(
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

        let Some(entry) = found else {
            continue;
        };
        tracing::info!(from = %id, from_attempt = entry.attempt, saved_at = %entry.at, "resuming from a checkpoint");

        // A resume of this operation finds it there even if this attempt gets no further.
        if *id != request.operation_id
            && let Err(error) = save(core, owned, entry.state.clone()).await
        {
            tracing::warn!(%error, "the checkpoint was not copied from the resumed operation");
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
    let entry = Checkpoint {
        attempt: owned.attempt,
        at: Timestamp::now(),
        state,
    };
    let payload: bytes::Bytes = serde_json::to_vec(&entry)?.into();
    let bucket = bucket(core);
    // The key that names the type comes first: it decides when both are of the same attempt.
    for key in keys(core, &owned.operation_id) {
        let revision = match read_key(&bucket, &key).await? {
            Some((_, Some(newer))) if newer.attempt > owned.attempt => return Ok(()),
            Some((revision, _)) => revision,
            None => 0,
        };
        // With the revision, a save by another attempt in between makes this one fail.
        bucket.update(&key, payload.clone(), revision).await?;
    }
    Ok(())
}

/// Removes the checkpoint of an operation that completed.
pub(crate) async fn remove(core: &Core, id: &OperationId) {
    let removed = async {
        for key in keys(core, id) {
            bucket(core).remove(&key).await?;
        }
        Ok::<_, KeyError>(())
    };
    if let Err(error) = removed.await {
        // It expires with the bucket's age limit.
        tracing::debug!(%error, "a checkpoint was not removed");
    }
}

fn bucket(core: &Core) -> KeyValues {
    let jetstream = core.connection.jetstream.clone();
    KeyValues::new(jetstream, core.names.checkpoints_bucket())
}

/// The keys of an operation's checkpoint: the one that names the worker type, and the one under
/// which workers of version 0.1.0 read and write it.
fn keys(core: &Core, id: &OperationId) -> impl Iterator<Item = String> + use<> {
    let typed = SubjectNames::checkpoint(&core.worker_type, id);
    let old = core.old_checkpoint_keys.then(|| id.to_string());
    std::iter::once(typed).chain(old)
}

/// Reads the newest checkpoint of an operation. An older worker writes under the old key alone, so
/// the one of the later attempt counts.
async fn read(core: &Core, id: &OperationId) -> Result<Option<Checkpoint>, KeyError> {
    let bucket = bucket(core);
    let mut newest: Option<Checkpoint> = None;
    for key in keys(core, id) {
        let found = bucket.read_newest(&key).await?;
        if let Some((_, Some(entry))) = found.map(decode)
            && newest
                .as_ref()
                .is_none_or(|newest| entry.attempt > newest.attempt)
        {
            newest = Some(entry);
        }
    }
    Ok(newest)
}

/// Reads the bucket's entry: its revision, and the checkpoint unless it was removed or is
/// unreadable.
async fn read_key(
    bucket: &KeyValues,
    key: &str,
) -> Result<Option<(u64, Option<Checkpoint>)>, KeyError> {
    Ok(bucket.read(key).await?.map(decode))
}

fn decode(found: Found) -> (u64, Option<Checkpoint>) {
    let entry = found.value.and_then(|value| {
        serde_json::from_slice(&value)
            .inspect_err(|error| tracing::warn!(%error, "a checkpoint is not readable; ignored"))
            .ok()
    });
    (found.revision, entry)
}
