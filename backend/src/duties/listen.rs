//! Hears what workers say on core NATS: progress and heartbeats. Neither is stored; the newest word wins.

use std::time::Duration;

use futures::StreamExt;
use ktrdr_bus::telemetry::short;
use ktrdr_protocol::progress::ProgressMessage;
use ktrdr_protocol::worker::{Heartbeat, RunningOperation};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, MissedTickBehavior};

use crate::state::AppState;

/// Most messages taken in one go.
const BATCH: usize = 256;

/// How often silent workers are looked for, at most.
const SWEEP: Duration = Duration::from_secs(1);

/// Listens until the task is dropped. Subscriptions survive reconnects; a broker that is away only means silence.
pub async fn run(state: &AppState) {
    loop {
        match listen(state).await {
            Ok(()) => tracing::warn!("a subscription ended; subscribing again"),
            Err(error) => tracing::warn!(%error, "cannot subscribe; trying again"),
        }
        tokio::time::sleep(SWEEP).await;
    }
}

async fn listen(state: &AppState) -> Result<(), async_nats::Error> {
    let connection = &state.connection;
    let mut link = connection.link.clone();
    let mut heartbeats = connection
        .client
        .subscribe(state.names.all_heartbeats())
        .await?
        .ready_chunks(BATCH);
    let mut progress = connection
        .client
        .subscribe(state.names.all_progress())
        .await?
        .ready_chunks(BATCH);
    let mut sweep = tokio::time::interval(SWEEP.min(state.config.protocol.heartbeat_interval));
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    link.mark_changed();
    loop {
        // All arms are cancel safe: chunks are built within one poll.
        tokio::select! {
            chunk = heartbeats.next() => {
                let Some(chunk) = chunk else { return Ok(()) };
                for message in chunk {
                    if let Some(heartbeat) = read(&message) {
                        hear(state, heartbeat);
                    }
                }
            }
            chunk = progress.next() => {
                let Some(chunk) = chunk else { return Ok(()) };
                for message in chunk {
                    if let Some(ProgressMessage { operation_id, worker_id, attempt, report, progress, .. }) = read(&message) {
                        let running = RunningOperation { operation_id, attempt, report, progress };
                        state.projection.apply_progress(&worker_id, running);
                    }
                }
            }
            changed = link.changed() => {
                changed?;
                let up = link.borrow_and_update().up;
                if up {
                    state.registry.listening(Instant::now());
                    // On the wire after the subscriptions, so the answers are heard.
                    connection.client.publish(state.names.heartbeat_request(), bytes::Bytes::new()).await?;
                } else {
                    state.registry.deaf(Instant::now());
                }
            }
            _ = sweep.tick() => state.registry.sweep(Instant::now()),
        }
    }
}

fn hear(state: &AppState, heartbeat: Heartbeat) {
    // A backend that has just started, or lost a progress message, shows it from here.
    for running in &heartbeat.running {
        state
            .projection
            .apply_progress(&heartbeat.worker_id, running.clone());
    }
    state.registry.hear(heartbeat, Instant::now());
}

fn read<T: DeserializeOwned>(message: &async_nats::Message) -> Option<T> {
    serde_json::from_slice(&message.payload)
        .inspect_err(
            |error| tracing::warn!(subject = %message.subject, error = short(&error), "skipping a message that cannot be read"),
        )
        .ok()
}
