//! Heartbeats: at every interval, at once on every change, on request, and a farewell.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use ktrdr_protocol::progress::Progress;
use ktrdr_protocol::time::Timestamp;
use ktrdr_protocol::worker::{Heartbeat, WorkerStatus};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::pulling::puller::ServedQueue;
use crate::worker::core::Core;

/// Shortest time between two heartbeats: a worker may finish thousands of operations a second.
const MIN_GAP: Duration = Duration::from_millis(50);

/// Added to the shortest time for each running operation: a heartbeat lists them all.
const GAP_PER_OPERATION: Duration = Duration::from_millis(2);

/// How long sending the farewell may take.
const FAREWELL: Duration = Duration::from_secs(1);

/// The heartbeat of this moment.
pub(crate) fn describe(core: &Core) -> Heartbeat {
    let at = Timestamp::now();
    let time_of = |since: Instant| at.minus(since.elapsed());
    Heartbeat {
        worker_id: core.worker_id.clone(),
        worker_type: core.worker_type.clone(),
        instance: core.instance.clone(),
        endpoint_url: core.endpoint_url.clone(),
        status: if core.is_busy() {
            WorkerStatus::Busy
        } else {
            WorkerStatus::Available
        },
        capabilities: core.capabilities.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        registered_at: core.started_at,
        at,
        interval_seconds: core.heartbeat_interval.as_secs_f64(),
        slots: core.slots,
        running: core.running.describe_all(),
        last_pull_at: core.last_pull.lock().map(time_of),
        finished: core.counters.finished.get(),
        fenced: core.counters.fenced.get(),
        lost_slots: core.lost_slots.count(),
        refused_starts: core.refused.list(),
        leaving: false,
    }
}

/// Sends heartbeats until the client is closed. Begins when the worker serves its first queue:
/// before that, its worker type may not be in the catalogue.
///
/// # Errors
/// When the client is closed.
pub(crate) async fn beat(
    core: Arc<Core>,
    mut queues: watch::Receiver<Vec<ServedQueue>>,
) -> Result<(), async_nats::SubscribeError> {
    let client = &core.connection.client;
    if queues.wait_for(|queues| !queues.is_empty()).await.is_err() {
        return Ok(());
    }

    let mut asked = client.subscribe(core.names.heartbeat_request()).await?;
    let mut link = core.connection.link.clone();

    loop {
        let mut gap = MIN_GAP;
        if core.connection.is_up() {
            let heartbeat = describe(&core);
            gap += GAP_PER_OPERATION
                .saturating_mul(u32::try_from(heartbeat.running.len()).unwrap_or(u32::MAX));
            publish(&core, &heartbeat).await;
        }

        let sent = Instant::now();
        // Cancel safe: a notification or message that is not taken stays.
        tokio::select! {
            () = tokio::time::sleep(core.heartbeat_interval) => {}
            () = core.changed.notified() => {}
            Ok(()) = link.changed() => {}
            message = asked.next() => if message.is_none() { return Ok(()) },
        }
        tokio::time::sleep_until(sent + gap.min(core.heartbeat_interval)).await;
    }
}

/// Sends the last heartbeat and waits until it has left, for at most [`FAREWELL`].
pub(crate) async fn farewell(core: &Core) {
    let leave = async {
        publish(
            core,
            &Heartbeat {
                leaving: true,
                ..describe(core)
            },
        )
        .await;
        core.connection.client.flush().await
    };
    if !matches!(tokio::time::timeout(FAREWELL, leave).await, Ok(Ok(()))) {
        tracing::debug!("the farewell was not sent; backends will notice the missing heartbeats");
    }
}

async fn publish(core: &Core, heartbeat: &Heartbeat) {
    if !try_publish(core, heartbeat).await {
        // With thousands of slots, which operations run is more important than their progress.
        let mut short = heartbeat.clone();
        for running in &mut short.running {
            (running.report, running.progress) = (0, Progress::default());
        }
        if !try_publish(core, &short).await {
            tracing::warn!(
                running = short.running.len(),
                "a heartbeat could not be sent; it may be too large for the server"
            );
        }
    }
}

async fn try_publish(core: &Core, heartbeat: &Heartbeat) -> bool {
    let subject = core.names.heartbeat(&core.worker_type, &core.worker_id);
    match serde_json::to_vec(heartbeat) {
        Ok(payload) => core
            .connection
            .client
            .publish(subject, payload.into())
            .await
            .is_ok(),
        Err(error) => {
            tracing::error!(%error, "a heartbeat cannot be written as JSON");
            true
        }
    }
}
