//! Entries of keys that nobody needs, holders that are gone, and starts that end in the middle.

use ktrdr_bus::oplog::OpLog;
use ktrdr_protocol::id::{OperationId, WorkerType};
use ktrdr_protocol::keys::{Key, KeyEntry, KeyKind, VOID_AFTER};
use ktrdr_tests::{BackendProcess, LIMIT, Proxy, Stack, wait_for};
use reqwest::Method;
use serde_json::json;

use crate::keys::{holders, subject, unique};

/// Entries that a backend leaves before it removes the old ones.
const MANY: usize = 64;

/// Removes the first start request of an operation from the stream.
async fn remove_start(stack: &Stack, id: &str) {
    let starts = stack.bus.stored("ktrdr.start.*.*").await;
    let mut starts = starts.iter().filter(|message| {
        let request: serde_json::Value = serde_json::from_slice(&message.payload).unwrap();
        request["operation_id"] == id
    });
    let sequence = starts.next().expect("a start request").sequence;
    let stream = stack.bus.jetstream.get_stream("KTRDR").await.unwrap();
    stream.delete_message(sequence).await.unwrap();
}

#[tokio::test]
async fn old_entries_are_removed_and_the_last_one_stays_what_the_next_must_follow() {
    let stack = Stack::start().await;
    let _other = BackendProcess::start(&stack.settings).await;
    let _worker = stack.worker("dummy", "w1").await;
    let log = OpLog::new(stack.bus.jetstream.clone(), stack.bus.names.clone());
    let worker_type = WorkerType::new("dummy").unwrap();

    for kind in [KeyKind::Concurrency, KeyKind::Unique] {
        let entry = |number: usize| KeyEntry {
            key: Key::new("k"),
            holders: vec![OperationId::new(format!("gone-{number}")).unwrap()],
        };
        let mut last = 0;
        for number in 0..3 * MANY {
            let next = entry(number);
            let stored = log.replace_key(&worker_type, kind, &next, last, LIMIT);
            last = stored.await.unwrap().unwrap();
        }

        wait_for(
            "the old entries to be removed",
            LIMIT,
            async || match holders(&stack, "dummy", kind, "k").await {
                left if left.len() <= MANY => Ok(()),
                left => Err(format!("{} entries", left.len())),
            },
        )
        .await;

        // Nothing has changed for whoever writes the next one.
        let read = log.read_key(&worker_type, kind, &Key::new("k")).await;
        assert_eq!(read.unwrap().sequence, last);
        let next = entry(3 * MANY);
        let wrong = log.replace_key(&worker_type, kind, &next, last - 1, LIMIT);
        assert_eq!(wrong.await.unwrap(), Err(last));
        let right = log.replace_key(&worker_type, kind, &next, last, LIMIT);
        let next = right.await.unwrap().unwrap();
        let left = holders(&stack, "dummy", kind, "k").await;
        assert_eq!(left.last().unwrap().holders[0].as_str(), "gone-192");
        assert!(next > last);
    }
}

#[tokio::test]
async fn a_holder_that_the_stream_has_dropped_keeps_its_permit_only_while_a_worker_runs_it() {
    let mut stack = Stack::start().await;
    let mut worker = stack.worker("dummy", "w1").await;
    let body = |id: &str, steps: u32| {
        json!({
            "task_id": id, "steps": steps, "step_ms": 50,
            "execution": {"concurrency": {"key": "k", "limit": 1}},
        })
    };
    let dropped = stack
        .api()
        .running("dummy", &body("dropped", 100_000))
        .await;

    // Its start request is gone, and the backend that begins anew knows nothing of it.
    stack.backend.process.kill();
    remove_start(&stack, &dropped).await;
    stack.backend.restart().await;
    stack.api().wait_for_worker("w1", "BUSY").await;
    stack.api().operation(&dropped).await.expect(404);
    let waiting = stack.api().started("dummy", &body("waiting", 0)).await;
    let _second = stack.worker("dummy", "w2").await;

    // Longer than a worker's silence would have to last.
    let mut heartbeats = stack.bus.subscribe("ktrdr.heartbeat.dummy.w1").await;
    for _ in 0..5 * (stack.settings.lease.as_millis() / stack.settings.heartbeat.as_millis()) {
        stack.bus.next(&mut heartbeats).await;
    }
    let shown = stack.api().operation(&waiting).await.expect(200);
    let permit = shown.at("/data/waits_for_permit");
    assert_eq!(
        *permit,
        json!({"key": "k", "limit": 1, "held": 1}),
        "{shown}"
    );

    worker.process.kill();

    stack.api().wait_for_status(&waiting, "completed").await;
    let entries = holders(&stack, "dummy", KeyKind::Concurrency, "k").await;
    let last = entries.last().unwrap();
    assert!(
        last.holders.iter().all(|id| id.as_str() == waiting),
        "{entries:?}"
    );
}

#[tokio::test]
async fn an_only_holder_that_nobody_knows_is_taken_out_once_and_nobody_is_said_to_wait_for_it() {
    let stack = Stack::start().await;
    let other = BackendProcess::start(&stack.settings).await;
    drop(stack.worker("dummy", "w0").await);
    let log = OpLog::new(stack.bus.jetstream.clone(), stack.bus.names.clone());
    let worker_type = WorkerType::new("dummy").unwrap();

    // The second one gives the duty the time in which it would complain of the first one again.
    for key in ["first", "second"] {
        let entry = KeyEntry {
            key: Key::new(key),
            holders: vec![OperationId::new(format!("gone-{key}")).unwrap()],
        };
        let stored = log.replace_key(&worker_type, KeyKind::Concurrency, &entry, 0, LIMIT);
        stored.await.unwrap().unwrap();
        let body = json!({
            "steps": 0, "execution": {"concurrency": {"key": key, "limit": 1}},
        });
        let waiting = stack.api().started("dummy", &body).await;

        wait_for("the holder to be taken out", LIMIT, async || match holders(
            &stack,
            "dummy",
            KeyKind::Concurrency,
            key,
        )
        .await
        {
            left if left.is_empty() => Ok(()),
            left => Err(format!("{left:?}")),
        })
        .await;
        for api in [stack.api(), &other.api] {
            wait_for("nobody to wait for a permit", LIMIT, async || {
                let shown = api.operation(&waiting).await.expect(200);
                match shown.json["data"].get("waits_for_permit") {
                    None | Some(serde_json::Value::Null) => Ok(()),
                    permit => Err(format!("{permit:?}")),
                }
            })
            .await;
        }
    }

    let logs = [stack.backend.process.log(), other.process.log()].concat();
    let warnings = logs.lines().filter(|line| line.contains("gone-first"));
    let warnings: Vec<_> = warnings
        .filter(|line| line.contains("holds none any more"))
        .collect();
    assert_eq!(warnings.len(), 1, "{warnings:#?}");
}

#[tokio::test]
async fn an_open_operation_whose_request_is_gone_is_ended_and_its_unique_key_is_free() {
    let stack = Stack::start().await;
    drop(stack.worker("dummy", "w0").await);
    let api = stack.api();
    let body = json!({"steps": 0, "execution": {"unique": {"key": "k"}}});
    let gone = api.started("dummy", &body).await;
    remove_start(&stack, &gone).await;
    api.start("dummy", &body)
        .await
        .expect_problem(409, "not_unique");

    // The queue delivers what is behind it.
    let behind = api.started("dummy", &json!({"steps": 0})).await;
    let _worker = stack.worker("dummy", "w1").await;
    api.wait_for_status(&behind, "completed").await;

    let ended = api.wait_for_status(&gone, "failed").await;
    assert_eq!(ended["error"]["code"], "worker_lost", "{ended}");
    let next = api.started("dummy", &body).await;
    api.wait_for_status(&next, "completed").await;
}

#[tokio::test]
async fn a_backend_killed_between_the_entry_and_the_start_keeps_its_key_for_ten_seconds() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    let proxy = Proxy::start(stack.nats.port()).await;
    let mut settings = stack.settings.clone();
    settings.nats_url = proxy.url();
    let mut doomed = BackendProcess::start(&settings).await;
    doomed.api.wait_for_worker("w1", "AVAILABLE").await;
    let body = |id: &str| json!({"task_id": id, "steps": 0, "execution": {"unique": {"key": "k"}}});

    // The entry is stored, and the start request never leaves the machine.
    proxy.hold_before("HPUB ktrdr.start.");
    let api = doomed.api.clone();
    let start = api.request(Method::POST, "/api/v1/dummy/start");
    let start = start.json(&body("lost"));
    let start = tokio::spawn(async move { api.try_send(start).await });
    proxy.held().await;
    doomed.process.kill();
    proxy.cut();
    assert!(start.await.unwrap().is_err(), "an answer of a dead backend");
    let entries = holders(&stack, "dummy", KeyKind::Unique, "k").await;
    assert_eq!(entries.len(), 1, "{entries:?}");
    assert_eq!(entries[0].holders[0].as_str(), "lost");

    let next = stack.api().started("dummy", &body("next")).await;

    stack.api().wait_for_status(&next, "completed").await;
    stack.api().operation("lost").await.expect(404);
    // By the clock of the stream: from the entry of the dead backend to the one that replaces it.
    let stream = stack.bus.jetstream.get_stream("KTRDR").await.unwrap();
    let subject = subject(&stack, "dummy", KeyKind::Unique, "k");
    let mut times = Vec::new();
    for entry in stack.bus.stored(&subject).await {
        times.push(stream.get_raw_message(entry.sequence).await.unwrap().time);
    }
    let waited = (times[1] - times[0]).as_seconds_f64();
    let void_after = VOID_AFTER.as_secs_f64();
    assert!(waited >= void_after - 0.5, "{waited}");
    // A start that takes longer is refused.
    assert!(waited < void_after + 5.0, "{waited}");
    stack.bus.settled().await;
}

#[tokio::test]
async fn a_start_that_finds_no_room_replaces_nothing() {
    let stack =
        Stack::start_with(|settings| settings.with("KTRDR_STREAM_MAX_BYTES", "150000")).await;
    let (_worker, gate) = stack.gate_worker("g1").await;
    let api = stack.api();
    let first = api.running("gate", &unique("k", "replace")).await;
    while api.start("gate", &json!({})).await.status == 202 {}

    let refused = api.start("gate", &unique("k", "replace")).await;

    let refused = refused.expect_problem(507, "storage_full");
    assert!(refused.json.get("replaced").is_none(), "{refused}");
    let shown = api.operation(&first).await.expect(200);
    assert_eq!(
        *shown.at("/data/cancel_requested_at"),
        json!(null),
        "{shown}"
    );
    assert_eq!(shown.at("/data/status"), "running", "{shown}");
    gate.open_for_all();
    api.wait_for_status(&first, "completed").await;
}

#[tokio::test]
async fn a_start_that_is_refused_after_all_names_what_was_asked_to_stop_for_it() {
    let stack = Stack::start().await;
    let (_worker, _gate) = stack.gate_worker("g1").await;
    let api = stack.api();
    let first = api.running("gate", &unique("k", "replace")).await;
    // A limit that somebody has set by hand, and that no program knows of.
    let mut stream = stack.bus.jetstream.get_stream("KTRDR").await.unwrap();
    let mut config = stream.info().await.unwrap().config.clone();
    config.max_message_size = 2_000;
    stack.bus.jetstream.update_stream(config).await.unwrap();
    let mut body = unique("k", "replace");
    body["note"] = json!("x".repeat(4_000));

    let refused = api.start("gate", &body).await;

    let refused = refused.expect_problem(413, "body_too_large");
    assert_eq!(refused.json["replaced"], json!([first]), "{refused}");
    let text = refused.json["error"].as_str().unwrap();
    assert!(text.contains(&first), "{text}");
    api.wait_for_status(&first, "cancelled").await;
    // The key is free.
    let next = api.started("gate", &unique("k", "reject")).await;
    api.cancel(&next).await.expect(200);
}
