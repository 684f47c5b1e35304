//! The bare protocol: a worker pulls, publishes `started` expecting sequence 0 and `completed`
//! expecting that one, and acknowledges; a reader follows the stream and counts the ends. No
//! leases, takeovers or progress, and hardly any JSON.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::jetstream;
use async_nats::jetstream::consumer::{AckPolicy, push};
use async_nats::jetstream::message::PublishMessage;
use futures::StreamExt;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::load::{WINDOW, publish_all, raw_stream, remove_stream};
use crate::bus::Bus;

const PAYLOAD: &[u8] = &[b'x'; 250];

/// A running prototype; ends when dropped.
pub(super) struct Prototype {
    bus: Bus,
    completed: watch::Receiver<u64>,
    tasks: JoinSet<()>,
}

impl Prototype {
    pub(super) async fn start(bus: &Bus, url: &str, slots: usize) -> Self {
        raw_stream(bus, "proto").await;

        // Worker, projector and requester do not share a connection.
        let worker = Bus::connect(url, bus.names.clone()).await;
        let projector = Bus::connect(url, bus.names.clone()).await;
        let stream = projector
            .jetstream
            .get_stream("PROTO")
            .await
            .expect("the stream");
        let ordered = push::OrderedConfig {
            deliver_subject: projector.client.new_inbox(),
            filter_subject: "proto.op.>".to_owned(),
            ..push::OrderedConfig::default()
        };
        let reader = stream.create_consumer(ordered).await.expect("a consumer");
        let mut events = reader
            .messages()
            .await
            .expect("its messages")
            .ready_chunks(512);
        let (sender, completed) = watch::channel(0);
        let mut tasks = JoinSet::new();

        tasks.spawn(async move {
            let mut messages = 0;
            while let Some(chunk) = events.next().await {
                messages += chunk.len() as u64;
                // Two events for each operation.
                sender.send_replace(messages / 2);
            }
        });

        tasks.spawn(work(worker, slots));

        Self {
            bus: bus.clone(),
            completed,
            tasks,
        }
    }

    /// Whole operations a second.
    pub(super) async fn rate(&self, count: usize) -> f64 {
        let before = *self.completed.borrow();
        let started = Instant::now();
        let messages = (0..count).map(|_| {
            let mut headers = async_nats::HeaderMap::new();
            headers.insert("Nats-Msg-Id", uuid::Uuid::now_v7().simple().to_string());
            ("proto.start.any".to_owned(), headers, PAYLOAD.into())
        });

        publish_all(&self.bus.client, WINDOW, messages).await;
        let mut completed = self.completed.clone();
        completed
            .wait_for(|now| *now >= before + count as u64)
            .await
            .expect("a running projector");

        count as f64 / started.elapsed().as_secs_f64()
    }

    /// Milliseconds from a start until its end is seen, one at a time.
    pub(super) async fn closed_loop(&self, count: usize) -> Vec<f64> {
        let mut completed = self.completed.clone();
        let mut took = Vec::with_capacity(count);
        for _ in 0..count {
            let before = *completed.borrow_and_update();
            let started = Instant::now();
            self.bus.store("proto.start.any", PAYLOAD).await;
            completed
                .wait_for(|now| *now > before)
                .await
                .expect("a running projector");
            took.push(started.elapsed().as_secs_f64() * 1e3);
        }

        took
    }

    pub(super) async fn stop(mut self) {
        self.tasks.shutdown().await;
        remove_stream(&self.bus, "proto").await;
    }
}

async fn work(bus: Bus, slots: usize) {
    let stream = bus.jetstream.get_stream("PROTO").await.expect("the stream");
    let consumer = stream
        .create_consumer(jetstream::consumer::pull::Config {
            durable_name: Some("workers".to_owned()),
            ack_policy: AckPolicy::Explicit,
            filter_subject: "proto.start.any".to_owned(),
            max_ack_pending: 100_000,
            ..Default::default()
        })
        .await
        .expect("a consumer");

    let mut requests = consumer
        .stream()
        .max_messages_per_batch(slots)
        .expires(Duration::from_secs(20))
        .messages()
        .await
        .expect("its messages");

    let free = Arc::new(Semaphore::new(slots));
    while let Some(Ok(message)) = requests.next().await {
        let slot = free
            .clone()
            .acquire_owned()
            .await
            .expect("an open semaphore");
        let jetstream = bus.jetstream.clone();
        tokio::spawn(async move {
            let subject = format!("proto.op.{}", uuid::Uuid::now_v7().simple());
            let mut expected = 0;
            for _ in 0..2 {
                let event = PublishMessage::build()
                    .payload(PAYLOAD.into())
                    .expected_last_subject_sequence(expected);
                let sent = jetstream
                    .send_publish(subject.clone(), event)
                    .await
                    .expect("a connection");
                expected = sent.await.expect("a confirmation").sequence;
            }
            message.ack().await.expect("a connection");
            drop(slot);
        });
    }
}
