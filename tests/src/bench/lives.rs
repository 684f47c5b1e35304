//! Complete operation logs, published by one publisher.

use async_nats::header::{NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, NATS_MESSAGE_ID};
use async_nats::{HeaderMap, HeaderValue};
use ktrdr_protocol::event::{Event, EventKind, ResultPayload};
use ktrdr_protocol::id::WorkerId;
use ktrdr_protocol::labels::Labels;
use ktrdr_protocol::progress::Progress;
use ktrdr_protocol::requirements::Requirements;
use ktrdr_protocol::subject::SubjectNames;
use ktrdr_protocol::time::Timestamp;
use serde_json::value::RawValue;

use super::load::{Message, WINDOW, publish_all, raw_stream, remove_stream};
use super::world::{dummy, start_request};
use crate::bus::Bus;

const PARAMETERS: &str = r#"{"steps":3,"step_ms":10}"#;

/// The three messages of each operation, as backend and worker publish them. Each event names the
/// sequence that it follows, so the stream must hold `after` messages and get no others meanwhile.
pub(super) fn whole_lives(
    names: &SubjectNames,
    count: u64,
    after: u64,
) -> impl Iterator<Item = Message> {
    labelled_lives(names, count, after, |_| Labels::default())
}

/// The same, the n-th operation with these labels.
pub(super) fn labelled_lives(
    names: &SubjectNames,
    count: u64,
    after: u64,
    labels: impl Fn(u64) -> Labels,
) -> impl Iterator<Item = Message> {
    let names = names.clone();
    let origin = ktrdr_protocol::origin::Origin::Queued(Requirements::default().queue());

    (0..count).flat_map(move |i| {
        let start_sequence = after + 3 * i + 1;
        let mut request = start_request(PARAMETERS);
        request.execution.labels = labels(i);
        let claim = uuid::Uuid::now_v7().simple().to_string();
        let event = |kind| Event {
            operation_id: request.operation_id.clone(),
            at: Timestamp::now(),
            worker_id: Some(
                WorkerId::new(format!("dummy-worker-host-{}", i % 10)).expect("a valid name"),
            ),
            attempt: 1,
            claim_id: Some(claim.clone()),
            kind,
        };
        let result = RawValue::from_string(r#"{"steps":3}"#.to_owned()).expect("JSON");
        let progress = Progress::new(100.0)
            .step("Step 3/3")
            .field("step", 3)
            .field("steps", 3)
            .finished();
        let subject = names.operation(&dummy(), &request.operation_id);
        let started = event(EventKind::Started {
            start_sequence,
            delivery: 1,
        });
        let completed = event(EventKind::Completed {
            result: ResultPayload::Inline(result),
            progress: Some(progress),
        });
        let header = |name, value: &str| HeaderMap::from_iter([(name, HeaderValue::from(value))]);
        let follows =
            |sequence: u64| header(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, &sequence.to_string());
        let start = serde_json::to_vec(&request).expect("JSON").into();
        [
            (
                names.start(&dummy(), &origin),
                header(NATS_MESSAGE_ID, request.operation_id.as_str()),
                start,
            ),
            (subject.clone(), follows(0), started.encode().expect("JSON")),
            (
                subject,
                follows(start_sequence + 1),
                completed.encode().expect("JSON"),
            ),
        ]
    })
}

/// The floor under whole operations: how many a second the server can store, with the product's
/// messages and every check of the server, but without pulling requests, reading events, or waiting
/// for one confirmation before the next message.
pub(super) async fn stored_lives_rate(bus: &Bus, count: usize) -> f64 {
    raw_stream(bus, "raw").await;
    // Made in advance, so that only publishing is measured.
    let messages: Vec<Message> = whole_lives(
        &SubjectNames::new("raw").expect("a prefix"),
        count as u64,
        0,
    )
    .collect();
    let took = publish_all(&bus.client, WINDOW, messages).await;
    remove_stream(bus, "raw").await;
    count as f64 / took.as_secs_f64()
}
