//! Follows the metric points of one operation, once for all clients that follow the operation.

use std::time::Duration;

use async_nats::jetstream::Message;
use async_nats::jetstream::consumer::{Consumer, DeliverPolicy, push};
use futures::StreamExt;
use ktrdr_protocol::id::{OperationId, WorkerType};
use ktrdr_protocol::metric::{MetricBatch, MetricPoint};
use ktrdr_protocol::rest::metrics::Cursor;
use serde::Serialize;
use tokio::sync::broadcast;

use super::frame::Frame;
use super::{Broadcaster, Sources};

/// Messages put into one event, at most.
const MAX_CHUNK: usize = 64;

/// Pause after an event, in which further points gather, and before an interrupted read is tried
/// again.
const PAUSE: Duration = Duration::from_millis(250);

type Error = Box<dyn std::error::Error + Send + Sync>;

#[derive(Serialize)]
struct Data<'a> {
    operation_id: &'a OperationId,
    metrics: Vec<MetricPoint>,
    /// The cursor after the event before this one; `null` for the first.
    from: Option<String>,
    /// The cursor after this event.
    cursor: String,
}

/// Sends metric points of the operation to `frames`, until the task is aborted.
pub async fn follow(
    broadcaster: Broadcaster,
    id: OperationId,
    worker_type: WorkerType,
    frames: broadcast::Sender<Frame>,
) {
    let mut follower = Follower {
        broadcaster: &broadcaster,
        id: &id,
        worker_type: &worker_type,
        frames: &frames,
        last: None,
    };
    loop {
        // A consumer does not survive its connection.
        let connection = &broadcaster.0.sources.connection;
        if let Some(Err(error)) = connection.while_up(Box::pin(follower.read())).await {
            tracing::debug!(operation_id = %id, %error, "reading metric points was interrupted; trying again");
        }
        tokio::time::sleep(PAUSE).await;
    }
}

struct Follower<'a> {
    broadcaster: &'a Broadcaster,
    id: &'a OperationId,
    worker_type: &'a WorkerType,
    frames: &'a broadcast::Sender<Frame>,
    /// Sequence of the last message that was sent.
    last: Option<u64>,
}

impl Follower<'_> {
    /// Reads until the consumer ends.
    async fn read(&mut self) -> Result<(), Error> {
        let consumer = self.create_consumer().await?;
        let mut messages = consumer.messages().await?.ready_chunks(MAX_CHUNK);
        while let Some(chunk) = messages.next().await {
            let chunk = chunk.into_iter().collect::<Result<Vec<_>, _>>()?;
            self.send(&chunk)?;
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    async fn create_consumer(&self) -> Result<Consumer<push::OrderedConfig>, Error> {
        let sources = &self.broadcaster.0.sources;
        let deliver_policy = match self.last {
            Some(sequence) => DeliverPolicy::ByStartSequence {
                start_sequence: sequence + 1,
            },
            // From the newest message on nothing is missed, and clients learn their cursor from it.
            None => DeliverPolicy::Last,
        };

        let stream = sources
            .connection
            .jetstream
            .get_stream_no_info(sources.names.metrics_stream())
            .await?;
        let consumer = stream
            .create_consumer(push::OrderedConfig {
                deliver_subject: sources.connection.client.new_inbox(),
                description: Some("KTRDR backend metrics".to_owned()),
                filter_subject: sources.names.metrics(self.worker_type, self.id),
                deliver_policy,
                ..push::OrderedConfig::default()
            })
            .await?;
        Ok(consumer)
    }

    /// Sends the points of these messages as one event.
    fn send(&mut self, chunk: &[Message]) -> Result<(), Error> {
        let from = self
            .last
            .map(|sequence| Cursor::after(sequence).to_string());
        let mut points = Vec::new();
        for message in chunk {
            let sequence = message.info()?.stream_sequence;
            // A consumer that was lost before it delivered anything is recreated by the client
            // library, and then starts from the first message.
            if self.last.is_some_and(|last| sequence <= last) {
                continue;
            }
            let Sources { refused, names, .. } = &self.broadcaster.0.sources;
            let read = refused.read::<MetricBatch>(names, &message.subject, &message.payload);
            points.extend(read.into_iter().flat_map(|(_, batch)| batch.into_points()));
            self.last = Some(sequence);
        }

        if let Some(sequence) = self.last {
            let data = Data {
                operation_id: self.id,
                metrics: points,
                from,
                cursor: Cursor::after(sequence).to_string(),
            };
            // Fails when the last client has just left.
            let _ = self
                .frames
                .send(Frame::metrics(self.id, self.worker_type, &data));
        }
        Ok(())
    }
}
