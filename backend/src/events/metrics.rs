//! Follows the metrics of one operation in the metrics stream, once for all who follow the operation.

use std::time::Duration;

use async_nats::jetstream::consumer::{DeliverPolicy, push};
use futures::StreamExt;
use ktrdr_bus::telemetry::short;
use ktrdr_protocol::id::{OperationId, WorkerType};
use ktrdr_protocol::metric::{MetricBatch, MetricPoint};
use ktrdr_protocol::rest::metrics::Cursor;
use serde::Serialize;
use tokio::sync::broadcast;

use super::frame::Frame;
use crate::state::AppState;

/// Most messages put into one event.
const CHUNK: usize = 64;

/// Pause after an event, in which further points gather, and before reading is tried again.
const PAUSE: Duration = Duration::from_millis(250);

#[derive(Serialize)]
struct Data<'a> {
    operation_id: &'a OperationId,
    metrics: Vec<MetricPoint>,
    /// The cursor after the event before this one; `null` for the first.
    from: Option<String>,
    /// The cursor after this one.
    cursor: String,
}

/// Sends what is measured to `topic`, until the task is aborted.
pub async fn follow(
    state: AppState,
    id: OperationId,
    worker_type: WorkerType,
    topic: broadcast::Sender<Frame>,
) {
    let mut last = None;
    loop {
        state.connection.up().await;
        if let Err(error) = read(&state, &id, &worker_type, &topic, &mut last).await {
            tracing::debug!(operation_id = %id, %error, "reading metrics was interrupted; going on");
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn read(
    state: &AppState,
    id: &OperationId,
    worker_type: &WorkerType,
    topic: &broadcast::Sender<Frame>,
    last: &mut Option<u64>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let connection = &state.connection;
    let mut link = connection.link.clone();
    link.mark_unchanged();
    let stream = connection
        .jetstream
        .get_stream_no_info(state.names.metrics_stream())
        .await?;
    let consumer = stream
        .create_consumer(push::OrderedConfig {
            deliver_subject: connection.client.new_inbox(),
            description: Some("KTRDR backend metrics".to_owned()),
            filter_subject: state.names.metrics(worker_type, id),
            // The newest message is read again: from it on nothing is missed, and readers learn where they are.
            deliver_policy: match last {
                Some(sequence) => DeliverPolicy::ByStartSequence {
                    start_sequence: *sequence + 1,
                },
                None => DeliverPolicy::Last,
            },
            ..push::OrderedConfig::default()
        })
        .await?;
    let mut messages = consumer.messages().await?.ready_chunks(CHUNK);
    loop {
        tokio::select! {
            chunk = messages.next() => {
                let Some(chunk) = chunk else { return Ok(()) };
                let from = last.map(|sequence| Cursor::after(sequence).to_string());
                let mut points = Vec::new();
                for message in chunk {
                    let message = message?;
                    let sequence = message.info()?.stream_sequence;
                    // The client library makes a consumer anew that was lost before it brought anything: from the first message on.
                    if last.is_some_and(|last| sequence <= last) {
                        continue;
                    }
                    match serde_json::from_slice::<MetricBatch>(&message.payload) {
                        Ok(batch) => points.extend(batch.into_points()),
                        Err(error) => tracing::warn!(sequence, error = short(&error), "skipping metrics that cannot be read"),
                    }
                    *last = Some(sequence);
                }
                if let Some(sequence) = *last {
                    let cursor = Cursor::after(sequence).to_string();
                    let data = Data { operation_id: id, metrics: points, from, cursor };
                    // Fails when the last reader has just left.
                    let _ = topic.send(Frame::metrics(id, worker_type, &data));
                }
                tokio::time::sleep(PAUSE).await;
            }
            // A consumer does not survive its connection.
            changed = link.changed() => {
                changed?;
                return Ok(());
            }
        }
    }
}
