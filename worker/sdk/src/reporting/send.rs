//! Sends what an engine reports: the newest progress a few times a second, all metric points in
//! batches, and the newest checkpoint.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use ktrdr_bus::no_room::NoRoom;
use ktrdr_bus::oplog::AppendError;
use ktrdr_bus::telemetry::chain;
use ktrdr_protocol::metric::{MetricBatch, MetricPoint};
use ktrdr_protocol::progress::{Progress, ProgressMessage};
use ktrdr_protocol::time::Timestamp;

use crate::attempt::ownership::OwnedAttempt;
use crate::reporting::checkpoint;
use crate::reporting::report::Points;
use crate::worker::core::Core;
use crate::worker::history::LocalOperation;
use crate::worker::running::AttemptHandle;

/// How often reports are sent.
const INTERVAL: Duration = Duration::from_millis(200);

/// When they are first sent: sooner, so that short operations show progress too.
const FIRST: Duration = Duration::from_millis(50);
/// Points per message, about 80 bytes each.
const MAX_BATCH: usize = 1000;
/// How long storing one batch may take before it is put back, to be sent again later.
const PATIENCE: Duration = Duration::from_secs(2);

/// Sends reports until dropped.
pub(crate) async fn send_reports(
    core: &Arc<Core>,
    handle: &AttemptHandle,
    owned: &OwnedAttempt,
    local: &LocalOperation,
) -> Infallible {
    let mut pause = FIRST;
    loop {
        tokio::time::sleep(pause).await;
        pause = INTERVAL;

        if let Some((report, mut progress)) = handle.report.take_unsent_progress() {
            progress.shorten(Progress::KEPT_STEP, Progress::KEPT_FIELDS);
            let message = ProgressMessage {
                operation_id: owned.operation_id.clone(),
                worker_id: core.worker_id.clone(),
                attempt: owned.attempt,
                at: Timestamp::now(),
                report,
                progress,
            };

            let subject = core.names.progress(&core.worker_type, &owned.operation_id);
            if let Ok(payload) = serde_json::to_vec(&message)
                && core.connection.is_up()
            {
                // Progress is not stored, and the next message replaces it: a loss is harmless.
                let _ = core
                    .connection
                    .client
                    .publish(subject, payload.into())
                    .await;
            }
        }

        flush_metrics(core, handle, owned, local, PATIENCE).await;
        flush_checkpoint(core, handle, owned).await;
    }
}

/// Saves the checkpoint that waits. One that cannot be saved is discarded: a newer one will follow.
pub(crate) async fn flush_checkpoint(
    core: &Arc<Core>,
    handle: &AttemptHandle,
    owned: &OwnedAttempt,
) {
    let Some((number, state)) = handle.report.take_checkpoint() else {
        return;
    };
    // Boxed, as below: most operations never do this, so it should not make their futures larger.
    match Box::pin(checkpoint::save(core, owned, state)).await {
        Ok(()) => handle.report.checkpoint_is_saved(number),
        Err(error) => {
            let advice = NoRoom::of(&*error)
                .map(|full| full.advice("KTRDR_CHECKPOINTS_MAX_BYTES", "--checkpoints-max-bytes"))
                .map_or_else(String::new, |advice| {
                    format!(". The bucket has no room: {advice}")
                });
            tracing::warn!(error = chain(&*error), "a checkpoint was not saved{advice}");
        }
    }
}

/// Stores all waiting points. Returns false when some still wait after `patience`.
pub(crate) async fn flush_metrics(
    core: &Arc<Core>,
    handle: &AttemptHandle,
    owned: &OwnedAttempt,
    local: &LocalOperation,
    patience: Duration,
) -> bool {
    let Points {
        points,
        mut before,
        uncertain,
        dropped,
    } = handle.report.take_points();
    if dropped > 0 {
        tracing::warn!(
            dropped,
            "more metric points than can be kept while NATS is away; the oldest were dropped"
        );
    }

    // The worker's own REST interface shows them also while NATS is away.
    local.record_points(before, &points);

    // If this future is dropped half-way, points that are not stored yet go back to the report.
    let mut waiting = Waiting {
        handle,
        points,
        uncertain,
    };

    while !waiting.points.is_empty() {
        // A batch whose outcome is unknown is sent again unchanged. With newer points in it, the
        // stream would not recognise the duplicate.
        let count = if waiting.uncertain > 0 {
            waiting.uncertain
        } else {
            waiting.points.len().min(MAX_BATCH)
        };
        waiting.uncertain = count;

        if !Box::pin(store_batch(
            core,
            owned,
            local,
            &waiting.points[..count],
            before,
            patience,
        ))
        .await
        {
            return false;
        }

        waiting.points.drain(..count);
        waiting.uncertain = 0;
        before += count as u64;
    }

    true
}

struct Waiting<'a> {
    handle: &'a AttemptHandle,
    points: Vec<MetricPoint>,
    /// How many of the first points were sent, with an unknown outcome.
    uncertain: usize,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if !self.points.is_empty() {
            self.handle
                .report
                .return_points(std::mem::take(&mut self.points), self.uncertain);
        }
    }
}

/// Stores one batch. The attempt measured `before` points before the first of them.
async fn store_batch(
    core: &Arc<Core>,
    owned: &OwnedAttempt,
    local: &LocalOperation,
    points: &[MetricPoint],
    before: u64,
    patience: Duration,
) -> bool {
    let batch = MetricBatch {
        operation_id: owned.operation_id.clone(),
        worker_id: core.worker_id.clone(),
        attempt: owned.attempt,
        points: points.to_vec(),
    };
    // The id makes a batch that is sent twice count once. It has the number of the first point and
    // not its time: two batches can begin at the same time.
    let id = format!("{}-{before}-{}", owned.claim_id, points.len());

    match core
        .oplog
        .store_metrics(&core.worker_type, &batch, &id, patience)
        .await
    {
        Ok(sequence) => {
            local.batch_is_stored(sequence, before, points.len());
            true
        }
        // A batch that cannot be written as JSON never will be.
        Err(AppendError::Encode(_)) => true,
        Err(AppendError::TooLarge) => {
            tracing::warn!(
                points = points.len(),
                "a batch of metric points is too large for the server; dropped"
            );
            true
        }
        Err(error) => {
            tracing::debug!(error = chain(&error), "metric points are not stored yet");
            false
        }
    }
}
