//! Removes the consumer of one queue without losing a start.
//!
//! The problem: between the last look at a queue and the removal of its consumer, another backend
//! may publish a start, and a worker may take it. Then the worker would lose its lease, and nobody
//! would deliver the next start.
//!
//! How it is solved, in this order:
//!
//! 1. The queue leaves the list, behind the revision that this backend knows. Only one backend
//!    succeeds, workers take their pulls back, and the next start makes the queue again.
//! 2. The consumer is paused: it delivers nothing from here on. The pause ends by itself, so a
//!    backend that is killed leaves nothing behind.
//! 3. The server is asked again. When something was delivered or waits since, when the queue is
//!    listed again, or when too much time has passed, the consumer is resumed, or paused again as an
//!    operator wanted it.
//! 4. The consumer is removed.
//!
//! A start that is published after step 3 is delivered to nobody. It is in the stream, though, and
//! every backend makes the consumers of all queues with operations that have not ended.

use std::error::Error;
use std::time::Duration;

use ktrdr_bus::queues::{self, QueueConsumer};
use ktrdr_bus::telemetry::chain;
use ktrdr_protocol::origin::Origin;
use tokio::time::Instant;

use crate::state::AppState;

/// How long the consumer delivers nothing when this backend is killed in between.
const PAUSE: Duration = Duration::from_secs(15);

/// How long everything up to the removal may take. The rest of the pause is for the request on its
/// way.
const DEADLINE: Duration = Duration::from_secs(5);

/// Why a queue is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Nobody has used it for a while.
    Idle,
    /// Others need its consumer. Its operations may still wait.
    Room,
}

/// Removes a queue that was found like this. False when it is needed after all, or another backend
/// removes it.
///
/// # Errors
/// When NATS does not answer; the next round tries again.
pub async fn remove(
    state: &AppState,
    found: &QueueConsumer,
    reason: Reason,
) -> Result<bool, Box<dyn Error + Send + Sync>> {
    let (worker_type, queue) = (&found.worker_type, &found.queue);
    if !unlist(state, found).await? {
        return Ok(false);
    }
    let is_removed = remove_unlisted(state, found, reason).await?;
    if is_removed {
        tracing::info!(%worker_type, %queue, ?reason, "removed the queue; the next start makes it again");
    }

    // Another backend may have listed it since, because it found the consumer. And a start may have
    // come. The queue is made at once, not only in the next round.
    let is_listed = state
        .queues
        .lists
        .newest(worker_type)
        .await?
        .list
        .names(queue);
    let is_needed = is_listed || (reason == Reason::Idle && has_open(state, found));
    if is_needed || !is_removed {
        state.queues.forget(worker_type, queue);
        state.queues.ensure(worker_type, queue).await?;
    }
    Ok(is_removed)
}

/// Pauses the consumer, looks at it once more, and removes it or lets it go on.
async fn remove_unlisted(
    state: &AppState,
    found: &QueueConsumer,
    reason: Reason,
) -> Result<bool, Box<dyn Error + Send + Sync>> {
    let _changing = state.queues.changing.lock().await;
    let (jetstream, names) = (&state.connection.jetstream, &state.names);
    let consumer = &found.info.name;
    let begun = Instant::now();
    state.queues.forget(&found.worker_type, &found.queue);

    // The server cannot pause a consumer whose files it has lost. Such a one goes without.
    // The server compares the end of the pause with its own clock.
    let until = state.projection.now().plus(PAUSE);
    let paused = queues::pause(jetstream, names, consumer, until).await;
    let now = queues::info(jetstream, names, consumer).await?;
    if let Err(error) = &paused {
        tracing::debug!(
            consumer,
            error = chain(error),
            "the consumer cannot be paused"
        );
    }

    let is_quiet = now.paused == paused.is_ok()
        && now.delivered.stream_sequence == found.info.delivered.stream_sequence
        && match reason {
            Reason::Idle => now.num_pending <= found.info.num_pending && !has_open(state, found),
            Reason::Room => now.num_ack_pending == 0,
        };
    let listed = state.queues.lists.newest(&found.worker_type).await?.list;
    if is_quiet && !listed.names(&found.queue) && begun.elapsed() <= DEADLINE {
        queues::remove(jetstream, names, consumer).await?;
        state.queues.note_removed(&found.worker_type, &found.queue);
        return Ok(true);
    }

    if paused.is_ok() {
        match state.queues.newest_pause(&found.worker_type).await? {
            Some(wanted) => queues::pause(jetstream, names, consumer, wanted.end()).await?,
            None => queues::resume(jetstream, names, consumer).await?,
        }
    }
    Ok(false)
}

/// Takes the queue out of the list. False when another backend has written the list.
async fn unlist(
    state: &AppState,
    found: &QueueConsumer,
) -> Result<bool, Box<dyn Error + Send + Sync>> {
    let lists = &state.queues.lists;
    let known = lists.all().remove(&found.worker_type).unwrap_or_default();
    if !known.list.names(&found.queue) {
        // It must be listed to be removed: the write below decides who removes it.
        return Ok(false);
    }

    let mut without = known.list;
    without.remove(&found.queue);
    let written = lists
        .replace(&found.worker_type, known.revision, without)
        .await?;
    Ok(written)
}

fn has_open(state: &AppState, found: &QueueConsumer) -> bool {
    let origin = Origin::Queued(found.queue.clone());
    state.projection.open(&found.worker_type, &origin) > 0
}
