//! Takes what workers publish on core NATS: progress and heartbeats. Neither is stored; the newest
//! message replaces the one before. One that contradicts its subject is not believed.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use ktrdr_protocol::progress::ProgressMessage;
use ktrdr_protocol::worker::{Heartbeat, RunningOperation};
use tokio::time::{Instant, MissedTickBehavior};

use crate::catalogue::HELD_INTERVALS;
use crate::state::AppState;

/// Messages taken in one go, at most.
const MAX_BATCH: usize = 256;

/// Longest interval at which the registry is swept for silent workers, and pause before subscribing
/// again.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// Listens until the task is dropped. Subscriptions survive reconnects; while NATS is unreachable
/// nothing arrives.
pub async fn run(state: &AppState) {
    loop {
        match listen(state).await {
            Ok(()) => tracing::warn!("a subscription ended; subscribing again"),
            Err(error) => tracing::warn!(%error, "cannot subscribe; trying again"),
        }
        tokio::time::sleep(SWEEP_INTERVAL).await;
    }
}

/// Listens until a subscription ends.
async fn listen(state: &AppState) -> Result<(), async_nats::Error> {
    let connection = &state.connection;
    let client = &connection.client;
    let mut link = connection.link.clone();
    let mut heartbeats = client
        .subscribe(state.names.all_heartbeats())
        .await?
        .ready_chunks(MAX_BATCH);
    let mut progress = client
        .subscribe(state.names.all_progress())
        .await?
        .ready_chunks(MAX_BATCH);
    let interval = SWEEP_INTERVAL.min(state.config.protocol.heartbeat_interval);
    let mut sweep = tokio::time::interval(interval);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The current state of the connection counts as a change, too.
    link.mark_changed();

    loop {
        // All arms are cancel safe: chunks are built within one poll.
        tokio::select! {
            chunk = heartbeats.next() => {
                let Some(chunk) = chunk else { return Ok(()) };
                for message in &chunk {
                    hear_heartbeat(state, message);
                }
            }
            chunk = progress.next() => {
                let Some(chunk) = chunk else { return Ok(()) };
                for message in &chunk {
                    hear_progress(state, message);
                }
            }
            changed = link.changed() => {
                changed?;
                let is_up = link.borrow_and_update().up;
                if is_up {
                    state.registry.begin_listening(Instant::now());
                    // Sent after the subscriptions, so the answers arrive.
                    client.publish(state.names.heartbeat_request(), Bytes::new()).await?;
                } else {
                    state.registry.stop_listening(Instant::now());
                }
            }
            _ = sweep.tick() => {
                let now = Instant::now();
                state.registry.sweep(now);
                let held = state.config.protocol.heartbeat_interval * HELD_INTERVALS;
                state.catalogue.note_alive(state.registry.versions(), now, held);
                state.projection.summarise_skipped();
                state.refused.summarise();
            }
        }
    }
}

fn hear_heartbeat(state: &AppState, message: &async_nats::Message) {
    let subject = message.subject.as_str();
    let read = state
        .refused
        .read::<Heartbeat>(&state.names, subject, &message.payload);
    let Some((_, mut heartbeat)) = read else {
        return;
    };

    let (worker_id, worker_type) = (heartbeat.worker_id.clone(), heartbeat.worker_type.clone());
    let running = heartbeat.running.clone();
    let refused = std::mem::take(&mut heartbeat.refused_starts);
    if let Err(why) = state.registry.hear(heartbeat, Instant::now()) {
        return state.refused.note("heartbeat", subject, &why.to_string());
    }
    state.refused_starts.hear(&worker_type, &worker_id, refused);
    // A backend that has just started, or missed a progress message, has the progress from here.
    for running in running {
        let applied = state
            .projection
            .apply_progress(worker_type.as_str(), &worker_id, running);
        if let Err(why) = applied {
            state.refused.note("heartbeat", subject, &why.to_string());
        }
    }
}

fn hear_progress(state: &AppState, message: &async_nats::Message) {
    let subject = message.subject.as_str();
    let read = state
        .refused
        .read::<ProgressMessage>(&state.names, subject, &message.payload);
    let Some((worker_type, message)) = read else {
        return;
    };

    let running = RunningOperation {
        operation_id: message.operation_id,
        attempt: message.attempt,
        report: message.report,
        progress: message.progress,
    };
    let applied = state
        .projection
        .apply_progress(worker_type, &message.worker_id, running);
    if let Err(why) = applied {
        state.refused.note("progress", subject, &why.to_string());
    }
}
