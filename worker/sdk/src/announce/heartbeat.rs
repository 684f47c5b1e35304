//! Heartbeats: at every interval, at once on every change, on request, and a farewell.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use ktrdr_protocol::progress::Progress;
use ktrdr_protocol::time::Timestamp;
use ktrdr_protocol::worker::{Heartbeat, WorkerStatus};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::pulling::queue_pulls::ServedQueue;
use crate::worker::core::Core;

/// Shortest time between two heartbeats: a worker may finish thousands of operations a second.
const MIN_GAP: Duration = Duration::from_millis(50);

/// Added to the shortest time for each running operation: a heartbeat lists them all.
const GAP_PER_OPERATION: Duration = Duration::from_millis(2);

/// Bytes of a heartbeat beyond [`LISTED`] for each running operation. In a larger one the progress
/// is shortened. The list itself never is: backends end and cancel operations by it.
const MAX_FREE: usize = 64 * 1024;

/// Bytes that one running operation may take without counting, about those of an ordinary one.
const LISTED: usize = 256;

/// What is left of the progress of an operation in a shortened heartbeat: characters of the step,
/// and bytes of the engine's own counters.
const SHORT_STEP: usize = 100;
const SHORT_FIELDS: usize = 100;

/// How long sending the farewell may take.
const FAREWELL: Duration = Duration::from_secs(1);

/// The heartbeat of this moment.
pub(crate) fn describe(core: &Core) -> Heartbeat {
    let (at, draining) = (Timestamp::now(), *core.draining.borrow());
    let time_of = |since: Instant| at.minus(since.elapsed());
    Heartbeat {
        worker_id: core.worker_id.clone(),
        worker_type: core.worker_type.clone(),
        instance: core.instance.clone(),
        endpoint_url: core.endpoint_url.clone(),
        status: if draining || core.is_busy() {
            WorkerStatus::Busy
        } else {
            WorkerStatus::Available
        },
        capabilities: core.capabilities.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        schema_digest: Some(core.info.schema_digest),
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
        draining,
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
    let mut is_registered = false;

    loop {
        let mut gap = MIN_GAP;
        if core.connection.is_up() {
            let heartbeat = describe(&core);
            gap += GAP_PER_OPERATION
                .saturating_mul(u32::try_from(heartbeat.running.len()).unwrap_or(u32::MAX));
            publish(&core, &heartbeat).await;
            if !std::mem::replace(&mut is_registered, true) {
                tracing::info!(worker_id = %core.worker_id, worker_type = %core.worker_type, "Worker registered successfully");
            }
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

/// Publishes a heartbeat, as large as backends and the server accept it.
async fn publish(core: &Core, heartbeat: &Heartbeat) {
    let client = &core.connection.client;
    let payload = match write(heartbeat, client.max_payload()) {
        Ok(payload) => payload,
        Err(error) => {
            if let Some(count) = core.unsent_heartbeats.note() {
                tracing::error!(%error, count, "a heartbeat cannot be sent");
            }
            return;
        }
    };

    let subject = core.names.heartbeat(&core.worker_type, &core.worker_id);
    if let Err(error) = client.publish(subject, payload.into()).await {
        tracing::debug!(%error, "a heartbeat was not sent");
    }
}

/// Why there is no message for a heartbeat.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unwritable {
    #[error(
        "it has {length} bytes because {running} operations run, and the server takes {most}; raise its max_payload, or set a lower WORKER_CONCURRENCY"
    )]
    TooLarge {
        length: usize,
        running: usize,
        most: usize,
    },
    #[error("it cannot be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

/// The heartbeat as a message of at most `most` bytes. The progress in a large one is shortened, and
/// left out when that is not enough.
pub(crate) fn write(heartbeat: &Heartbeat, most: usize) -> Result<Vec<u8>, Unwritable> {
    let running = heartbeat.running.len();
    let room = most.min(MAX_FREE + LISTED * running);
    let whole = serde_json::to_vec(heartbeat)?;
    if whole.len() <= room {
        return Ok(whole);
    }

    let mut short = heartbeat.clone();
    for running in &mut short.running {
        running.progress.shorten(SHORT_STEP, SHORT_FIELDS);
    }
    let shortened = serde_json::to_vec(&short)?;
    if shortened.len() <= room {
        return Ok(shortened);
    }

    for running in &mut short.running {
        (running.report, running.progress) = (0, Progress::default());
    }
    let bare = serde_json::to_vec(&short)?;
    let length = bare.len();
    if length <= most {
        Ok(bare)
    } else {
        Err(Unwritable::TooLarge {
            length,
            running,
            most,
        })
    }
}

#[cfg(test)]
mod tests {
    use ktrdr_protocol::id::OperationId;
    use ktrdr_protocol::worker::RunningOperation;
    use serde_json::json;

    use super::*;

    const MIB: usize = 1024 * 1024;

    fn heartbeat(operations: usize, progress: &Progress) -> Heartbeat {
        let mut heartbeat: Heartbeat = serde_json::from_value(json!({
            "worker_id": "w", "worker_type": "dummy", "instance": "i", "endpoint_url": "http://h:1",
            "status": "BUSY", "capabilities": {}, "version": "1", "registered_at": "2025-11-10T10:30:00Z",
            "at": "2025-11-10T10:30:00Z",
            "interval_seconds": 10.0, "slots": operations, "running": [],
        }))
        .unwrap();
        heartbeat.running = (0..operations)
            .map(|number| RunningOperation {
                operation_id: OperationId::new(format!("op_{number:032}")).unwrap(),
                attempt: 1,
                report: 7,
                progress: progress.clone(),
            })
            .collect();
        heartbeat
    }

    fn sent(heartbeat: &Heartbeat, most: usize) -> Heartbeat {
        let payload = write(heartbeat, most).unwrap();
        assert!(payload.len() <= most, "{} bytes", payload.len());
        serde_json::from_slice(&payload).unwrap()
    }

    #[test]
    fn the_progress_of_a_large_heartbeat_is_shortened_and_its_list_never() {
        let ordinary = Progress::new(50.0)
            .step("Cleaning: 4500 of 10000 rows")
            .field("rows", 4500);
        let talkative = Progress::new(50.0)
            .step("x".repeat(10_000))
            .field("log", "y".repeat(10_000));

        // Thousands of ordinary operations are sent as they are.
        let many = heartbeat(2000, &ordinary);
        assert_eq!(sent(&many, MIB).running, many.running);
        let one = heartbeat(1, &talkative);
        assert_eq!(sent(&one, MIB).running, one.running);

        let shortened = sent(&heartbeat(100, &talkative), MIB);
        assert_eq!(shortened.running.len(), 100);
        let progress = &shortened.running[99].progress;
        assert_eq!(progress.percentage, 50.0);
        assert!(progress.fields.is_empty());
        assert_eq!(
            progress.current_step.as_ref().unwrap().chars().count(),
            SHORT_STEP + 1
        );

        let bare = sent(&many, 400_000);
        assert_eq!(bare.running.len(), 2000);
        assert_eq!(bare.running[0].progress, Progress::default());
        assert_eq!(bare.running[0].report, 0);

        let error = write(&many, 100_000).unwrap_err().to_string();
        assert!(error.contains("max_payload"), "{error}");
    }
}
