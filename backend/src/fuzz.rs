//! Attacks on what a backend reads from the bus, and on headers and queries.

use std::cell::RefCell;

use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::http::{HeaderMap, HeaderValue, Request};
use futures::executor::block_on;
use ktrdr_fuzz::Attack;
use ktrdr_http::query::{FromParams, Query};
use ktrdr_http::schema::cost::MAX_BYTES;
use ktrdr_protocol::id::is_name;
use ktrdr_protocol::rest::query::{
    CancelOperation, FollowEvents, FollowOperation, GetOperation, ListOperations, ListWorkers,
    ReadLogs, ReadMetrics,
};
use ktrdr_protocol::subject::SubjectNames;
use ktrdr_protocol::time::Timestamp;
use serde_json::value::RawValue;
use tokio::time::Instant;

use crate::catalogue::published;
use crate::changes::Changes;
use crate::idempotency::id_from_key;
use crate::json_check::JsonCheck;
use crate::projection::decode::{Content, decode};
use crate::projection::model::Model;
use crate::projection::record::Extent;
use crate::registry::Registry;
use crate::routes::events::Seen;

const STREAM: &[&str] = &[
    "acme.start.dummy.any\n{\"operation_id\":\"a\",\"operation_type\":\"dummy\",\"parameters\":{\"steps\":3},\"created_at\":\"2025-11-10T10:30:00Z\"}",
    "acme.start.dummy.direct\n{\"operation_id\":\"b\",\"operation_type\":\"dummy\",\"parameters\":{},\"created_at\":\"2025-11-10T10:30:00Z\",\"retry_of\":\"a\"}",
    "acme.op.dummy.a\n{\"event\":\"started\",\"operation_id\":\"a\",\"at\":\"2025-11-10T10:30:00Z\",\"worker_id\":\"w\",\"attempt\":1,\"claim_id\":\"c\",\"start_sequence\":1,\"delivery\":1}",
    "acme.op.dummy.a\n{\"event\":\"released\",\"operation_id\":\"a\",\"at\":\"2025-11-10T10:30:00Z\",\"worker_id\":\"w\",\"attempt\":1,\"claim_id\":\"c\",\"reason\":\"shutdown\"}",
    "acme.op.dummy.a\n{\"event\":\"completed\",\"operation_id\":\"a\",\"at\":\"2025-11-10T10:30:00Z\",\"worker_id\":\"w\",\"attempt\":1,\"claim_id\":\"c\",\"result\":{\"rows\":7},\"progress\":{\"percentage\":100}}",
    "acme.op.dummy.a\n{\"event\":\"failed\",\"operation_id\":\"a\",\"at\":\"2025-11-10T10:30:00Z\",\"attempt\":1,\"error\":{\"code\":\"x\",\"message\":\"why\",\"permanent\":true}}",
    "acme.op.dummy.a\n{\"event\":\"completed\",\"operation_id\":\"a\",\"at\":\"2025-11-10T10:30:00Z\",\"worker_id\":\"w\",\"attempt\":1,\"claim_id\":\"c\",\"result_ref\":{\"bucket\":\"B\",\"object\":\"a.1\",\"size\":7}}",
    "acme.key.dummy.concurrency.2a3b62b53ddb9f167b63d22202a36081\n{\"key\":\"nightly\",\"holders\":[\"a\",\"b\"]}",
    "acme.start.dummy.any\n{\"operation_id\":\"c\",\"operation_type\":\"dummy\",\"parameters\":{},\"concurrency\":{\"key\":\"nightly\",\"limit\":1},\"unique\":{\"key\":\"k\"},\"created_at\":\"2025-11-10T10:30:00Z\"}",
    "acme.cancel.dummy.a\n{\"operation_id\":\"a\",\"requested_at\":\"2025-11-10T10:30:00Z\",\"reason\":\"r\"}",
];

/// A model with two operations, one of them running.
fn model(names: &SubjectNames) -> Model {
    let mut model = Model::default();
    for (sequence, seed) in (1..).zip([STREAM[0], STREAM[1], STREAM[2]]) {
        apply(&mut model, names, sequence, seed.as_bytes());
    }
    assert_eq!(model.len(), 2, "the seeds are read");
    model
}

/// Applies a message of the stream, and renders what it leads to.
fn apply(model: &mut Model, names: &SubjectNames, sequence: u64, bytes: &[u8]) {
    let mut parts = bytes.splitn(2, |byte| *byte == b'\n');
    let subject = parts
        .next()
        .and_then(|subject| std::str::from_utf8(subject).ok());
    let (Some(subject), Some(payload)) = (subject, parts.next()) else {
        return;
    };
    let message = decode(names, sequence, Timestamp::EPOCH, subject, payload);
    let applied = match message.content {
        Ok(Content::Start { origin, request }) => model.start(sequence, origin, request),
        Ok(Content::Event { worker_type, event }) => model.event(sequence, worker_type, event),
        Ok(Content::Cancel {
            worker_type,
            intent,
        }) => model.cancel(worker_type, &intent),
        Ok(Content::Key {
            worker_type,
            kind,
            digest,
            entry,
        }) => return model.key_entry(sequence, &worker_type, (kind, digest), entry),
        Err(why) => return assert!(why.len() < 1000, "{} bytes of reason", why.len()),
    };

    let Ok(applied) = applied else { return };
    let view = model
        .get(applied.operation_id.as_str())
        .expect("the operation");
    let text = serde_json::to_vec(&view.document(Extent::Whole)).expect("a document");
    serde_json::from_slice::<&RawValue>(&text).expect("the document is JSON");
    assert!(
        text.len() <= 2 * view.record.size() + 4096,
        "{} bytes",
        text.len()
    );
}

/// As they stand in the bucket.
#[test]
fn worker_types() {
    let seeds = [
        r#"{"worker_type":"dummy","domain":"dummy","description":"d","request_schema":{"type":"object","properties":{"steps":{"type":"integer","format":"uint64","maximum":18446744073709551615}},"x-ktrdr-summary":["steps"]},"result_schema":{},"version":"0.1.0","schema_digest":"0123456789abcdef"}"#,
        r#"{"worker_type":"dummy","domain":"d-1","description":"","request_schema":true,"result_schema":[1e5],"version":""}"#,
    ];
    Attack::on("worker types")
        .with(seeds)
        .memory(16 * 1024 * 1024)
        .run(|bytes| {
            let Ok(read) = published::read("dummy", bytes) else {
                return;
            };
            let known = &read.published;
            assert_eq!(known.worker_type.as_str(), "dummy");
            for schema in [&known.request_schema, &known.result_schema] {
                assert!(schema.as_str().len() <= MAX_BYTES, "too large");
                schema.value().expect("JSON");
            }
            // What is written into a bucket that was lost is read again.
            let written = serde_json::to_vec(known).expect("an entry");
            let again = published::read("dummy", &written).expect("the entry");
            assert_eq!(again.published.domain, known.domain);
        });
}

#[test]
fn stream_messages() {
    let names = SubjectNames::new("acme").expect("a prefix");
    Attack::on("stream messages").with(STREAM).run(|bytes| {
        apply(&mut model(&names), &names, 9, bytes);
    });
}

/// The budget of a page is in bytes, so nothing of any size may be left out of them.
#[test]
fn sizes_count_codes_references_and_escapes() {
    let names = SubjectNames::new("acme").expect("a prefix");
    let event = |rest: &str| {
        format!(
            "acme.op.dummy.a\n{{\"operation_id\":\"a\",\"at\":\"2025-11-10T10:30:00Z\",\
             \"worker_id\":\"w\",\"attempt\":1,\"claim_id\":\"c\",{rest}}}"
        )
    };
    let long = "x".repeat(50_000);
    let escaped = "\\u0001".repeat(50_000);

    for rest in [
        format!(r#""event":"failed","error":{{"code":"{long}","message":"m"}}"#),
        format!(r#""event":"failed","error":{{"code":"c","message":"{escaped}"}}"#),
        format!(
            r#""event":"completed","result_ref":{{"bucket":"{long}","object":"{long}","size":1}}"#
        ),
    ] {
        let mut model = model(&names);
        apply(&mut model, &names, 9, event(&rest).as_bytes());
        let size = model.get("a").expect("the operation").record.size();
        assert!(size > 50_000, "{size}");
    }
}

#[test]
fn sequences_of_stream_messages() {
    // The model lives on, so messages meet operations in every state.
    let names = SubjectNames::new("acme").expect("a prefix");
    let state = RefCell::new((model(&names), 10_u64));
    Attack::on("sequences of stream messages")
        .with(STREAM)
        .memory(16 * 1024 * 1024)
        .run(|bytes| {
            let (model, sequence) = &mut *state.borrow_mut();
            *sequence += 1;
            apply(model, &names, *sequence, bytes);
            if sequence.is_multiple_of(50) {
                model.forget_before(*sequence - 30);
            }
        });
}

#[test]
fn heartbeats_in_the_registry() {
    let seed = r#"{"worker_id":"w","worker_type":"dummy","instance":"i","endpoint_url":"http://h:1","status":"BUSY","capabilities":{"cores":8},"version":"0.1.0","registered_at":"2025-11-10T10:30:00Z","at":"2025-11-10T10:30:00Z","interval_seconds":10.0,"slots":1,"running":[{"operation_id":"op","attempt":1,"report":3,"progress":{"percentage":7,"current_step":"x"}}],"leaving":false}"#;
    let registry = Registry::new(std::time::Duration::from_secs(300), Changes::default());
    Attack::on("heartbeats in the registry")
        .with([seed])
        .run(|bytes| {
            let now = Instant::now();
            let Ok(heartbeat) = serde_json::from_slice(bytes) else {
                return;
            };
            let _: Result<(), _> = registry.hear(heartbeat, now);
            registry.sweep(now);
            if let Some(worker) = registry.get("w", now) {
                serde_json::to_vec(&worker).expect("a document");
            }
        });
}

#[test]
fn results_from_the_object_store() {
    let seeds = [
        r#"{"rows":[1,-2.5e3,null,true],"text":"a\"\u00e9 b","o":{"x":{}}}"#,
        "[0]",
        "-0.5e-7 ",
    ];
    Attack::on("results from the object store")
        .with(seeds)
        .run(|bytes| {
            // However it is cut, it is accepted exactly when serde_json reads it.
            let is_json = std::str::from_utf8(bytes).is_ok()
                && serde_json::from_slice::<&RawValue>(bytes).is_ok();
            for size in [1, 7, bytes.len().max(1)] {
                let mut check = JsonCheck::default();
                let is_accepted = bytes.chunks(size).all(|piece| check.push(piece).is_ok())
                    && check.finish().is_ok();
                let depth = bytes
                    .iter()
                    .filter(|byte| matches!(byte, b'[' | b'{'))
                    .count();
                assert!(is_accepted == is_json || depth > 100, "in pieces of {size}");
            }
        });
}

#[test]
fn idempotency_keys() {
    Attack::on("idempotency keys")
        .with(["my key-1", "0af7651916cd43dd8448eb211c80319c"])
        .run(|bytes| {
            if let Ok(id) = id_from_key(None, "dummy", bytes) {
                assert!(is_name(id.as_str()) && bytes.len() <= 255 && bytes.is_ascii());
            }
        });
}

#[test]
fn event_ids() {
    Attack::on("event ids")
        .with(["17", "0", "18446744073709551615", "17/12-0"])
        .run(|bytes| {
            let Ok(value) = HeaderValue::from_bytes(bytes) else {
                return;
            };
            let mut headers = HeaderMap::new();
            headers.insert("last-event-id", value);
            if let Ok(Some(seen)) = Seen::of(&headers) {
                let text = std::str::from_utf8(bytes).expect("text");
                let (sequence, lines) = match text.split_once('/') {
                    Some((sequence, _)) => (sequence, true),
                    None => (text, false),
                };
                assert_eq!(
                    sequence.trim_start_matches(['+', '0']),
                    seen.sequence.to_string().trim_start_matches('0')
                );
                assert_eq!(seen.lines.is_some(), lines);
            }
        });
}

fn read<T: FromParams>(query: &str) -> Option<T> {
    let request = Request::get(format!("/x?{query}"))
        .body(Body::empty())
        .ok()?;
    let (mut parts, _) = request.into_parts();
    let read = block_on(Query::<T>::from_request_parts(&mut parts, &()));
    read.ok().map(|Query(read)| read)
}

#[test]
fn queries() {
    let seeds = [
        "limit=10&offset=3&status=running&operation_type=dummy",
        "wait=1.5&force_refresh=true&reason=a%20b",
        "cursor=17-3&limit=100&worker_type=x&status=BUSY",
    ];
    Attack::on("queries").with(seeds).run(|bytes| {
        let Ok(query) = std::str::from_utf8(bytes) else {
            return;
        };
        if let Some(list) = read::<ListOperations>(query) {
            assert!(list.limit.is_none_or(|limit| (1..=1000).contains(&limit)));
        }
        if let Some(list) = read::<ListWorkers>(query) {
            assert!(list.limit.is_none_or(|limit| (1..=10_000).contains(&limit)));
        }
        if let Some(get) = read::<GetOperation>(query) {
            assert!(get.wait.is_none_or(|seconds| seconds >= 0.0));
        }
        let _ = (read::<CancelOperation>(query), read::<FollowEvents>(query));
        let _ = read::<ReadMetrics>(query);
        let _ = (read::<ReadLogs>(query), read::<FollowOperation>(query));
    });
}
