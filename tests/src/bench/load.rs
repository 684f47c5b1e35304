//! Publishing as fast as the server confirms, and reading as fast as it delivers.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use async_nats::jetstream::consumer::{DeliverPolicy, push};
use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use ktrdr_protocol::id::WorkerType;
use ktrdr_protocol::start_request::StartRequest;

use super::world::{dummy, start_request};
use crate::bus::Bus;

/// The most messages that may be unconfirmed.
pub(super) const WINDOW: usize = 1024;

/// A message to be published.
pub(super) type Message = (String, HeaderMap, Bytes);

/// Publishes everything into streams, with at most `window` messages unconfirmed, and waits for all
/// confirmations. They arrive on one inbox and are only counted, which is cheaper than anything the
/// client library offers.
pub(super) async fn publish_all(
    client: &async_nats::Client,
    window: usize,
    messages: impl IntoIterator<Item = Message>,
) -> Duration {
    let inbox = client.new_inbox();

    let mut acks = client.subscribe(inbox.clone()).await.expect("a connection");
    let mut messages = messages.into_iter();
    let started = Instant::now();
    let mut under_way = 0;
    loop {
        while under_way < window
            && let Some((subject, headers, payload)) = messages.next()
        {
            let sent = if headers.is_empty() {
                client
                    .publish_with_reply(subject, inbox.clone(), payload)
                    .await
            } else {
                client
                    .publish_with_reply_and_headers(subject, inbox.clone(), headers, payload)
                    .await
            };
            sent.expect("a connection");
            under_way += 1;
        }
        if under_way == 0 {
            return started.elapsed();
        }
        let mut ack = Some(acks.next().await);
        while let Some(message) = ack {
            let message = message.expect("an open subscription");
            let text = &message.payload;
            assert!(
                !text.starts_with(b"{\"error\"") && !text.is_empty(),
                "refused: {message:?}"
            );
            under_way -= 1;
            ack = acks.next().now_or_never();
        }
    }
}

/// `count` start requests for the dummy worker.
pub(super) fn starts(bus: &Bus, count: usize, parameters: &str) -> impl Iterator<Item = Message> {
    starts_of(bus, dummy(), count, parameters)
}

/// `count` start requests for workers of one type.
pub(super) fn starts_of(
    bus: &Bus,
    operation_type: WorkerType,
    count: usize,
    parameters: &str,
) -> impl Iterator<Item = Message> + use<> {
    let (names, parameters) = (bus.names.clone(), parameters.to_owned());
    let origin = ktrdr_protocol::origin::Origin::Queued(
        ktrdr_protocol::requirements::Requirements::default().queue(),
    );

    (0..count).map(move |_| {
        let request = StartRequest {
            operation_type: operation_type.clone(),
            ..start_request(&parameters)
        };
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Msg-Id", request.operation_id.as_str());
        (
            names.start(&operation_type, &origin),
            headers,
            serde_json::to_vec(&request).expect("JSON").into(),
        )
    })
}

/// Messages of the sizes that an operation has, on `subjects` different subjects under `prefix`.
pub(super) fn plain(prefix: &str, count: usize, subjects: usize) -> impl Iterator<Item = Message> {
    let payload = Bytes::from(vec![b'x'; 250]);
    let prefix = prefix.to_owned();
    (0..count).map(move |i| {
        (
            format!("{prefix}.{}", i % subjects),
            HeaderMap::new(),
            payload.clone(),
        )
    })
}

/// A stream for the floors, with the settings of the product's stream.
pub(super) async fn raw_stream(bus: &Bus, name: &str) {
    let config = async_nats::jetstream::stream::Config {
        name: name.to_uppercase(),
        subjects: vec![format!("{name}.>")],
        allow_direct: true,
        ..Default::default()
    };
    bus.jetstream
        .create_stream(config)
        .await
        .expect("a new stream");
}

pub(super) async fn remove_stream(bus: &Bus, name: &str) {
    bus.jetstream
        .delete_stream(name.to_uppercase())
        .await
        .expect("the stream that was made");
}

/// The floor under everything that is stored: messages a second into an empty stream, from one
/// publisher, on one subject.
pub(super) async fn raw_publish_rate(bus: &Bus, count: usize) -> f64 {
    raw_stream(bus, "raw").await;
    let took = publish_all(&bus.client, WINDOW, plain("raw", count, 1)).await;
    remove_stream(bus, "raw").await;
    count as f64 / took.as_secs_f64()
}

/// The same through the client library's own publish function, which returns each confirmation to
/// its caller. A program that needs the confirmation has to use it. At most [`WINDOW`] messages are
/// unconfirmed.
pub(super) async fn confirmed_publish_rate(bus: &Bus, count: usize) -> f64 {
    raw_stream(bus, "raw").await;

    let started = Instant::now();
    let mut under_way = VecDeque::with_capacity(WINDOW);
    for (subject, _, payload) in plain("raw", count, 1) {
        if under_way.len() == WINDOW
            && let Some(oldest) = under_way.pop_front()
        {
            confirmed(oldest).await;
        }
        under_way.push_back(
            bus.jetstream
                .publish(subject, payload)
                .await
                .expect("a connection"),
        );
    }

    for publish in under_way {
        confirmed(publish).await;
    }
    let rate = count as f64 / started.elapsed().as_secs_f64();
    remove_stream(bus, "raw").await;

    rate
}

async fn confirmed(publish: async_nats::jetstream::context::PublishAckFuture) {
    publish.await.expect("a confirmation");
}

/// The floor under a replay: messages a second of an ordered consumer that only counts them.
pub(super) async fn raw_read_rate(bus: &Bus, stream: &str) -> f64 {
    let stream = bus.jetstream.get_stream(stream).await.expect("the stream");
    let count = stream.cached_info().state.messages;
    let started = Instant::now();
    let consumer = stream
        .create_consumer(push::OrderedConfig {
            deliver_subject: bus.client.new_inbox(),
            deliver_policy: DeliverPolicy::All,
            ..push::OrderedConfig::default()
        })
        .await
        .expect("a consumer");

    let mut messages = consumer
        .messages()
        .await
        .expect("its messages")
        .ready_chunks(512);
    let mut read = 0;

    while read < count {
        read += messages.next().await.expect("an open subscription").len() as u64;
    }
    count as f64 / started.elapsed().as_secs_f64()
}
