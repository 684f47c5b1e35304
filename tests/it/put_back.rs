//! Operations that no queue holds any more: a backend puts them back, or ends them.

use std::fs::{self, File};

use async_nats::HeaderMap;
use async_nats::header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE;
use async_nats::jetstream::consumer::PullConsumer;
use futures::StreamExt;
use ktrdr_bus::signing::write_new_seed;
use ktrdr_protocol::event::EventKind;
use ktrdr_protocol::start_request::StartRequest;
use ktrdr_protocol::subject::PRIORITY_GROUP;
use ktrdr_tests::engines::{Gate, GateEngine};
use ktrdr_tests::{
    BackendProcess, LIMIT, LocalWorker, NatsServer, Scratch, Settings, Stack, wait_for,
};
use serde_json::{Value, json};

/// Takes the next request out of a queue and acknowledges it, as if its operation had ended. Waits for
/// the end of its lease if a worker had it.
async fn steal(stack: &Stack, consumer: &str) {
    let stream = stack.bus.names.stream();
    let consumer: PullConsumer = stack
        .bus
        .jetstream
        .get_consumer_from_stream(consumer, stream)
        .await
        .unwrap();
    let mut messages = consumer
        .batch()
        .max_messages(1)
        .expires(LIMIT)
        .group(PRIORITY_GROUP)
        .messages()
        .await
        .unwrap();
    let message = messages.next().await.unwrap().unwrap();
    message.double_ack().await.unwrap();
}

/// The `released` events of an operation.
async fn put_backs(stack: &Stack, worker_type: &str, id: &str) -> usize {
    let names = stack.bus.event_names(worker_type, id).await;
    names.iter().filter(|name| **name == "released").count()
}

fn dummy() -> Value {
    json!({"steps": 1, "step_ms": 0})
}

#[tokio::test]
async fn a_waiting_operation_that_its_queue_has_lost_is_put_back_and_uses_no_attempt() {
    let stack = Stack::start().await;
    drop(stack.worker("dummy", "w0").await);
    let id = stack.api().started("dummy", &dummy()).await;

    steal(&stack, "dummy-any").await;

    stack.bus.wait_for_events("dummy", &id, &["released"]).await;
    let _worker = stack.worker("dummy", "w1").await;
    let done = stack.api().wait_for_status(&id, "completed").await;
    assert_eq!(done["attempt"], 1, "{done}");
    assert_eq!(
        stack.bus.event_names("dummy", &id).await,
        ["released", "started", "completed"]
    );
    assert!(
        stack
            .backend
            .process
            .log()
            .contains("no queue held operations")
    );
    stack.bus.settled().await;
}

#[tokio::test]
async fn a_running_operation_that_its_queue_has_lost_is_put_back_with_the_next_attempt() {
    let stack = Stack::start().await;
    let mut first = stack.worker("dummy", "w1").await;
    let body = json!({"steps": 30, "step_ms": 100});
    let id = stack.api().running("dummy", &body).await;

    first.process.kill();
    steal(&stack, "dummy-any").await;

    let _second = stack.worker("dummy", "w2").await;
    let done = stack.api().wait_for_status(&id, "completed").await;
    assert_eq!(done["attempt"], 2, "{done}");
    assert_eq!(done["attempts"][0]["outcome"], "lost");
    assert_eq!(
        stack.bus.event_names("dummy", &id).await,
        ["started", "released", "started", "completed"]
    );
    stack.bus.settled().await;
}

#[tokio::test]
async fn an_operation_without_attempts_left_that_its_queue_has_lost_ends_as_worker_lost() {
    let stack = Stack::start().await;
    let mut worker = stack.worker("dummy", "w1").await;
    let body = json!({"steps": 600, "step_ms": 100, "execution": {"max_attempts": 1}});
    let id = stack.api().running("dummy", &body).await;

    worker.process.kill();
    steal(&stack, "dummy-any").await;

    let failed = stack.api().wait_for_status(&id, "failed").await;
    assert_eq!(failed["error"]["code"], "worker_lost", "{failed}");
    assert_eq!(
        stack.bus.event_names("dummy", &id).await,
        ["started", "failed"]
    );
}

#[tokio::test]
async fn an_operation_whose_end_the_stream_has_lost_ends_again() {
    let mut nats = NatsServer::start().await;
    let settings = Settings::fast(nats.url());
    let backend = BackendProcess::start(&settings).await;
    let (engine, gate) = GateEngine::new();
    gate.open_for_all();
    let _worker = LocalWorker::start(&settings, engine, "g1", &[]).await;
    backend.api.wait_for_worker("g1", "AVAILABLE").await;
    let id = backend.api.started("gate", &json!({})).await;
    backend.api.wait_for_status(&id, "completed").await;
    nats.bus().await.settled().await;

    // What a power cut without a flush leaves behind, or a copy that is a moment old.
    nats.stop().await;
    cut_last_message(&nats);
    nats.run().await;

    let bus = nats.bus().await;
    wait_for("the end", LIMIT, async || {
        match bus.event_names("gate", &id).await {
            names if names == ["started", "released", "started", "completed"] => Ok(()),
            names => Err(format!("{names:?}")),
        }
    })
    .await;
    backend.api.wait_for_status(&id, "completed").await;

    // The queue goes on with what is started from now on, although it has seen higher sequences.
    let next = backend.api.started("gate", &json!({})).await;
    backend.api.wait_for_status(&next, "completed").await;
    bus.settled().await;
}

/// Cuts some bytes off the end of the operations stream.
fn cut_last_message(nats: &NatsServer) {
    let folder = nats.store().join("jetstream/$G/streams/KTRDR/msgs");
    let blocks = fs::read_dir(&folder).unwrap().flatten();
    let mut blocks: Vec<_> = blocks
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "blk"))
        .collect();
    blocks.sort();

    let last = File::options()
        .write(true)
        .open(blocks.last().unwrap())
        .unwrap();
    last.set_len(last.metadata().unwrap().len() - 20).unwrap();
    // The server would believe its summary of the stream otherwise.
    let _ = fs::remove_file(folder.join("index.db"));
}

#[tokio::test]
async fn a_copy_that_a_backend_named_and_did_not_publish_is_published() {
    let stack = Stack::start().await;
    let (engine, gate, id) = waiting_in_its_queue(&stack).await;
    steal(&stack, "gate-any").await;

    name_copy(&stack, &id, "c1").await;

    gate.open_for_all();
    let _worker = stack.local_worker(engine, "g1", &[]).await;
    stack.api().wait_for_status(&id, "completed").await;
    let requests = stack.bus.stored("ktrdr.start.gate.any").await;
    let copies: Vec<_> = requests
        .iter()
        .filter_map(|stored| {
            serde_json::from_slice::<StartRequest>(&stored.payload)
                .ok()?
                .copy
        })
        .collect();
    assert_eq!(copies.len(), 1, "{copies:?}");
    assert_eq!(copies[0].id.as_str(), "c1");
    assert_eq!(put_backs(&stack, "gate", &id).await, 1);
}

/// An engine of a known type that no worker has, its gate, and an operation that waits for it.
async fn waiting_in_its_queue(stack: &Stack) -> (GateEngine, Gate, String) {
    let (engine, gate) = GateEngine::new();
    stack
        .local_worker(engine.clone(), "g0", &[])
        .await
        .stop()
        .await;

    let id = stack.api().started("gate", &json!({})).await;
    (engine, gate, id)
}

/// Stores the event that names a copy, as a backend does that dies right afterwards.
async fn name_copy(stack: &Stack, id: &str, copy: &str) {
    let event = json!({
        "event": "released", "operation_id": id, "attempt": 0, "at": "2026-01-01T00:00:00Z",
        "claim": "b1", "reason": "retry", "copy": copy,
    });
    let mut headers = HeaderMap::new();
    headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, "0");
    let subject = format!("ktrdr.op.gate.{id}");
    let stored = stack
        .bus
        .jetstream
        .publish_with_headers(subject, headers, event.to_string().into())
        .await
        .unwrap();
    stored.await.unwrap();
}

#[tokio::test]
async fn a_request_that_the_queue_holds_after_all_is_dropped_and_the_copy_runs() {
    let stack = Stack::start().await;
    let (engine, gate, id) = waiting_in_its_queue(&stack).await;

    // The queue still holds the first request.
    name_copy(&stack, &id, "c1").await;
    let _worker = stack.local_worker(engine, "g1", &[]).await;

    assert_eq!(gate.started().await.1, 1);
    gate.open(1);
    stack.api().wait_for_status(&id, "completed").await;
    assert!(gate.unseen().await.is_empty());
    let events = stack.bus.events("gate", &id).await;
    let EventKind::Started { start_sequence, .. } = events[1].kind else {
        panic!("{events:?}");
    };
    let requests = stack.bus.stored("ktrdr.start.gate.any").await;
    assert_eq!(start_sequence, requests[1].sequence);
    stack.bus.settled().await;
}

#[tokio::test]
async fn what_waits_in_a_queue_is_left_alone() {
    let stack = Stack::start().await;
    let worker = stack.worker("dummy", "w1").await;
    let retry = json!({
        "steps": 1, "step_ms": 0, "fail_at_step": 1,
        "execution": {"max_attempts": 2, "retry_delay": 60},
    });
    let retried = stack.api().started("dummy", &retry).await;
    stack
        .bus
        .wait_for_events("dummy", &retried, &["started", "released"])
        .await;
    drop(worker);
    let waiting = stack.api().started("dummy", &dummy()).await;
    let lost = stack.api().started("dummy", &dummy()).await;

    // Later than both, one is lost and put back: the others have been left alone for as long.
    steal(&stack, "dummy-any").await;
    wait_for("a put-back", LIMIT, async || {
        match put_backs(&stack, "dummy", &waiting).await + put_backs(&stack, "dummy", &lost).await {
            1 => Ok(()),
            other => Err(other.to_string()),
        }
    })
    .await;

    assert_eq!(
        stack.bus.event_names("dummy", &retried).await,
        ["started", "released"]
    );
    assert_eq!(
        stack.bus.event_names("dummy", &lost).await,
        Vec::<&str>::new()
    );
}

#[tokio::test]
async fn two_backends_put_an_operation_back_once() {
    let stack = Stack::start().await;
    let _other = BackendProcess::start(&stack.settings).await;
    let (engine, gate, id) = waiting_in_its_queue(&stack).await;

    steal(&stack, "gate-any").await;

    stack.bus.wait_for_events("gate", &id, &["released"]).await;
    gate.open_for_all();
    let _worker = stack.local_worker(engine, "g1", &[]).await;
    stack.api().wait_for_status(&id, "completed").await;
    assert_eq!(
        stack.bus.event_names("gate", &id).await,
        ["released", "started", "completed"]
    );
    assert_eq!(stack.bus.stored("ktrdr.start.gate.any").await.len(), 2);
}

#[tokio::test]
async fn a_copy_is_signed_and_what_nobody_signed_is_not_put_back() {
    let scratch = Scratch::new("put-back-key");
    let seed = scratch.join("seed");
    let public = write_new_seed(&seed).unwrap();
    let stack = Stack::start_with(|settings| {
        settings
            .with("KTRDR_SIGNING_KEY", seed.display().to_string())
            .with("KTRDR_VERIFY_KEYS", public)
    })
    .await;
    drop(stack.worker("dummy", "w0").await);
    let signed = stack.api().started("dummy", &dummy()).await;
    let unsigned = json!({
        "operation_id": "unsigned", "operation_type": "dummy", "parameters": {"steps": 1, "step_ms": 0},
        "created_at": "2026-01-01T00:00:00Z",
    });
    stack
        .bus
        .store("ktrdr.start.dummy.any", unsigned.to_string())
        .await;

    steal(&stack, "dummy-any").await;
    steal(&stack, "dummy-any").await;

    let refused = stack.api().wait_for_status("unsigned", "failed").await;
    assert_eq!(refused["error"]["code"], "not_signed", "{refused}");
    stack
        .bus
        .wait_for_events("dummy", &signed, &["released"])
        .await;
    let _worker = stack.worker("dummy", "w1").await;
    stack.api().wait_for_status(&signed, "completed").await;
}
