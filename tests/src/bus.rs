//! The messages on NATS: publish anything, read every event of an operation, look at the queues.

use async_nats::header::NATS_MESSAGE_ID;
use async_nats::jetstream;
use async_nats::jetstream::stream::RawMessageErrorKind;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use ktrdr_protocol::event::Event;
use ktrdr_protocol::id::{OperationId, WorkerType};
use ktrdr_protocol::subject::SubjectNames;
use serde_json::{Value, json};

use crate::wait::{LIMIT, wait_for};

/// A message of a stream.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Its place in the stream.
    pub sequence: u64,
    /// Its subject.
    pub subject: String,
    /// Its payload.
    pub payload: Bytes,
}

/// The start requests that a queue still holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backlog {
    /// The durable consumer.
    pub consumer: String,
    /// Not yet given to a worker.
    pub pending: u64,
    /// Given to a worker and not acknowledged.
    pub unacknowledged: usize,
}

/// A connection of the test's own.
#[derive(Clone)]
pub struct Bus {
    /// The client.
    pub client: async_nats::Client,
    /// JetStream over it.
    pub jetstream: jetstream::Context,
    /// The names in use.
    pub names: SubjectNames,
}

impl Bus {
    /// Connects to a server, or to one of several (`a,b,c`).
    ///
    /// # Panics
    /// When it does not answer.
    pub async fn connect(url: &str, names: SubjectNames) -> Self {
        let servers: Vec<String> = url.split(',').map(str::to_owned).collect();
        let connected = async_nats::connect(servers).await;
        let client = connected.unwrap_or_else(|error| panic!("cannot connect to {url}: {error}"));
        Self {
            jetstream: jetstream::new(client.clone()),
            client,
            names,
        }
    }

    /// Publishes anything anywhere, and waits until the server has it.
    ///
    /// # Panics
    /// When the connection is lost.
    pub async fn publish(&self, subject: impl Into<String>, payload: impl Into<Bytes>) {
        self.client
            .publish(subject.into(), payload.into())
            .await
            .expect("a connection");
        self.client.flush().await.expect("a connection");
    }

    /// Publishes into a stream and returns the sequence given.
    ///
    /// # Panics
    /// When no stream takes it.
    pub async fn store(&self, subject: impl Into<String>, payload: impl Into<Bytes>) -> u64 {
        let ack = self
            .jetstream
            .publish(subject.into(), payload.into())
            .await
            .expect("a connection");
        ack.await.expect("a stream that takes the message").sequence
    }

    /// Publishes into a stream under a message id that is new to it.
    ///
    /// # Panics
    /// When no stream takes it, or the id is known.
    pub async fn store_under(&self, message_id: &str, subject: &str, payload: impl Into<Bytes>) {
        let mut headers = async_nats::HeaderMap::new();
        headers.insert(NATS_MESSAGE_ID, message_id);
        let ack = self
            .jetstream
            .publish_with_headers(subject.to_owned(), headers, payload.into())
            .await
            .expect("a connection");
        let ack = ack.await.expect("a stream that takes the message");
        assert!(!ack.duplicate, "{message_id} was known");
    }

    /// Stores an operation of the worker type `ghost` that completed with this result reference, as
    /// a worker of the type could.
    pub async fn store_completed(&self, id: &str, reference: &Value) {
        let at = "2026-01-01T00:00:00Z";
        let request = json!({
            "operation_id": id, "operation_type": "ghost", "parameters": {}, "created_at": at,
        });
        let started = json!({
            "event": "started", "operation_id": id, "attempt": 1, "at": at, "worker_id": "g1", "claim": "c",
            "start_sequence": 1, "delivery": 1,
        });
        let completed = json!({
            "event": "completed", "operation_id": id, "attempt": 1, "at": at, "worker_id": "g1", "claim": "c",
            "result_ref": reference,
        });

        let log = format!("ktrdr.op.ghost.{id}");
        self.store("ktrdr.start.ghost.any", request.to_string())
            .await;
        self.store(log.clone(), started.to_string()).await;
        self.store(log, completed.to_string()).await;
    }

    /// Everything published from now on under `subject`, which may hold wildcards.
    ///
    /// # Panics
    /// When the connection is lost.
    pub async fn subscribe(&self, subject: impl Into<String>) -> async_nats::Subscriber {
        let subscriber = self
            .client
            .subscribe(subject.into())
            .await
            .expect("a connection");
        self.client.flush().await.expect("a connection");
        subscriber
    }

    /// The next message of a subscription.
    ///
    /// # Panics
    /// When none comes within [`LIMIT`].
    pub async fn next(&self, subscriber: &mut async_nats::Subscriber) -> async_nats::Message {
        let message = tokio::time::timeout(LIMIT, subscriber.next()).await;
        message
            .expect("a message in time")
            .expect("an open subscription")
    }

    /// All messages retained in the operations stream under `filter`, in order.
    ///
    /// # Panics
    /// When the stream cannot be read.
    pub async fn stored(&self, filter: &str) -> Vec<Stored> {
        self.stored_in(&self.names.stream(), filter).await
    }

    /// All messages retained in `stream` under `filter`, in order.
    ///
    /// # Panics
    /// When the stream cannot be read.
    pub async fn stored_in(&self, stream: &str, filter: &str) -> Vec<Stored> {
        let stream = self
            .jetstream
            .get_stream_no_info(stream)
            .await
            .expect("a connection");

        let mut found: Vec<Stored> = Vec::new();
        loop {
            let from = found.last().map_or(1, |message| message.sequence + 1);
            match stream
                .raw_message_builder()
                .sequence(from)
                .next_by_subject(filter)
                .send()
                .await
            {
                Ok(message) => found.push(Stored {
                    sequence: message.sequence,
                    subject: message.subject.to_string(),
                    payload: message.payload,
                }),
                Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => return found,
                Err(error) => panic!("cannot read the stream: {error}"),
            }
        }
    }

    /// All messages retained in the operations stream under `filters`, in order, read in one go.
    /// For thousands of messages.
    ///
    /// # Errors
    /// What the server or the client says.
    pub async fn dump(&self, filters: &[String]) -> Result<Vec<Stored>, async_nats::Error> {
        let stream = self
            .jetstream
            .get_stream_no_info(self.names.stream())
            .await?;
        let config = jetstream::consumer::pull::OrderedConfig {
            filter_subjects: filters.to_vec(),
            ..Default::default()
        };
        let consumer = stream.create_consumer(config).await?;
        let mut found = Vec::new();

        if consumer.cached_info().num_pending == 0 {
            return Ok(found);
        }

        let mut messages = consumer.messages().await?;
        while let Some(message) = messages.next().await {
            let message = message?;
            let info = message.info()?;
            let (sequence, pending) = (info.stream_sequence, info.pending);
            let (subject, payload) = (message.subject.to_string(), message.payload.clone());
            found.push(Stored {
                sequence,
                subject,
                payload,
            });
            if pending == 0 {
                break;
            }
        }

        Ok(found)
    }

    /// All events of an operation, in order.
    ///
    /// # Panics
    /// When its log cannot be read, or holds something that is not an event.
    pub async fn events(&self, worker_type: &str, operation_id: &str) -> Vec<Event> {
        let worker_type = WorkerType::new(worker_type).expect("a worker type");
        let id = OperationId::new(operation_id).expect("an operation id");
        let stored = self.stored(&self.names.operation(&worker_type, &id)).await;
        stored
            .iter()
            .map(|message| Event::decode(&message.payload).expect("an event"))
            .collect()
    }

    /// The names of the events of an operation: `["started", "completed"]`.
    pub async fn event_names(&self, worker_type: &str, operation_id: &str) -> Vec<&'static str> {
        self.events(worker_type, operation_id)
            .await
            .iter()
            .map(|event| event.kind.name())
            .collect()
    }

    /// Waits until the log of an operation holds exactly these events.
    ///
    /// # Panics
    /// When it does not within [`LIMIT`].
    pub async fn wait_for_events(&self, worker_type: &str, operation_id: &str, names: &[&str]) {
        wait_for(&format!("the events {names:?}"), LIMIT, async || match self
            .event_names(worker_type, operation_id)
            .await
        {
            seen if seen == names => Ok(()),
            seen => Err(format!("{seen:?}")),
        })
        .await;
    }

    /// Waits until a second attempt has claimed an operation, or something else has followed the
    /// first `started`.
    ///
    /// # Panics
    /// When nothing has within [`LIMIT`].
    pub async fn wait_for_takeover(&self, worker_type: &str, operation_id: &str) {
        wait_for("the takeover", LIMIT, async || {
            match self.event_names(worker_type, operation_id).await.len() {
                0 | 1 => Err("not taken over".to_owned()),
                _ => Ok(()),
            }
        })
        .await;
    }

    /// Every queue that is not empty.
    ///
    /// # Panics
    /// When the stream cannot be read.
    pub async fn backlog(&self) -> Vec<Backlog> {
        self.try_backlog()
            .await
            .expect("the consumers of the operations stream")
    }

    /// The same, for a server that may be away.
    ///
    /// # Errors
    /// What the server or the client says.
    pub async fn try_backlog(&self) -> Result<Vec<Backlog>, String> {
        let stream = self
            .jetstream
            .get_stream_no_info(self.names.stream())
            .await
            .map_err(|error| error.to_string())?;
        let consumers: Vec<_> = stream
            .consumers()
            .try_collect()
            .await
            .map_err(|error| error.to_string())?;
        let durable = consumers
            .into_iter()
            .filter(|info| info.config.durable_name.is_some());
        let backlog = durable.map(|info| Backlog {
            consumer: info.name,
            pending: info.num_pending,
            unacknowledged: info.num_ack_pending,
        });

        Ok(backlog
            .filter(|queue| queue.pending > 0 || queue.unacknowledged > 0)
            .collect())
    }

    /// Waits until no queue holds anything: every start request was acknowledged.
    ///
    /// # Panics
    /// When some queue still does after [`LIMIT`].
    pub async fn settled(&self) {
        wait_for(
            "all start requests to be acknowledged",
            LIMIT,
            async || match self.try_backlog().await? {
                queues if queues.is_empty() => Ok(()),
                queues => Err(format!("{queues:?}")),
            },
        )
        .await;
    }
}
