//! The wire contract: what an earlier version wrote is read and written again byte for byte, and
//! today's programs write the same shapes. `tests/README.md` says how the recording was made.

use std::collections::BTreeSet;

use ktrdr_protocol::cancel::CancelIntent;
use ktrdr_protocol::event::Event;
use ktrdr_protocol::metric::MetricBatch;
use ktrdr_protocol::progress::ProgressMessage;
use ktrdr_protocol::start_request::StartRequest;
use ktrdr_protocol::worker::{Heartbeat, OperationAnswer, OperationQuery, WorkerTypeEntry};
use ktrdr_tests::settings::repository;
use ktrdr_tests::wire::{Message, one_of_each_shape, record};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The recorded messages, one of each shape.
fn contract() -> Vec<Message> {
    let path = repository().join("tests/data/wire/messages.jsonl");
    let text = std::fs::read_to_string(path).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn read_and_written<T: DeserializeOwned + Serialize>(json: &str) -> String {
    let value: T = serde_json::from_str(json).unwrap_or_else(|error| panic!("{error}: {json}"));
    serde_json::to_string(&value).unwrap()
}

#[test]
fn recorded_messages_are_read_and_written_again_unchanged() {
    for message in contract() {
        let json = message.payload.get();

        let again = match message.kind.as_str() {
            "start_request" => read_and_written::<StartRequest>(json),
            "event" => read_and_written::<Event>(json),
            "cancel_intent" => read_and_written::<CancelIntent>(json),
            "metric_batch" => read_and_written::<MetricBatch>(json),
            "progress" => read_and_written::<ProgressMessage>(json),
            "heartbeat" => read_and_written::<Heartbeat>(json),
            "operation_query" => read_and_written::<OperationQuery>(json),
            "operation_answer" => read_and_written::<OperationAnswer>(json),
            "worker_type_entry" => read_and_written::<WorkerTypeEntry>(json),
            // No type of the protocol: empty, and private to the SDK. The shapes below cover them.
            "heartbeat_request" | "checkpoint" => continue,
            other => panic!("unknown kind {other}"),
        };

        assert_eq!(again, json, "{} changed", message.kind);
    }
}

#[test]
fn the_recording_holds_every_kind_of_message_and_event() {
    let messages = contract();

    let kinds: BTreeSet<&str> = messages.iter().map(|one| one.kind.as_str()).collect();
    let events: BTreeSet<&str> = messages
        .iter()
        .filter(|one| one.kind == "event")
        .map(|one| Event::decode(one.payload.get().as_bytes()).unwrap())
        .map(|event| event.kind.name())
        .collect();

    let all_kinds = [
        "cancel_intent",
        "checkpoint",
        "event",
        "heartbeat",
        "heartbeat_request",
        "metric_batch",
        "operation_answer",
        "operation_query",
        "progress",
        "start_request",
        "worker_type_entry",
    ];
    assert_eq!(kinds, BTreeSet::from(all_kinds));
    let all_events = ["cancelled", "completed", "failed", "released", "started"];
    assert_eq!(events, BTreeSet::from(all_events));
    assert!(
        messages
            .iter()
            .any(|one| one.payload.get().contains("\"result_ref\"")),
        "no result reference"
    );
}

#[tokio::test]
async fn todays_programs_write_the_recorded_shapes() {
    let shapes = |messages: &[Message]| -> BTreeSet<String> {
        messages.iter().map(Message::shape).collect()
    };
    let recorded = shapes(&contract());

    let today = shapes(&one_of_each_shape(record(None).await));

    let missing: Vec<_> = recorded.difference(&today).collect();
    let new: Vec<_> = today.difference(&recorded).collect();
    assert!(
        missing.is_empty() && new.is_empty(),
        "no longer written: {missing:#?}\nnot in the recording: {new:#?}"
    );
}
