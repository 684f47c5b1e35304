//! Cancelling pending, running and ended operations, with engines that obey and engines that do
//! not.

use ktrdr_tests::engines::GateEngine;
use ktrdr_tests::{LIMIT, Settings, Stack};
use reqwest::Method;
use serde_json::{Value, json};

#[tokio::test]
async fn a_pending_operation_is_cancelled_at_once_and_never_run() {
    let stack = Stack::start().await;
    let (engine, gate) = GateEngine::new();
    let worker = stack.local_worker(engine.clone(), "g1", &[]).await;

    let blocker = stack.api().started("gate", &json!({})).await;
    gate.started().await;

    let id = stack.api().started("gate", &json!({})).await;
    let answer = stack.api().cancel(&id).await.expect(200);
    assert_eq!(answer.json["message"], "Operation cancelled successfully");

    let cancelled = stack.api().operation(&id).await.expect(200);
    assert_eq!(cancelled.json["status"], "cancelled");
    assert_eq!(cancelled.at("/data/attempt"), &json!(0));

    gate.open_for_all();
    stack.api().wait_for_status(&blocker, "completed").await;

    stack.bus.settled().await;
    assert!(
        gate.unseen().await.is_empty(),
        "the cancelled request was run"
    );
    assert_eq!(stack.bus.event_names("gate", &id).await, ["cancelled"]);

    worker.stop().await;
}

#[tokio::test]
async fn a_running_operation_stops_and_its_worker_is_free() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;

    let id = stack
        .api()
        .running("dummy", &json!({"steps": 1000, "step_ms": 100}))
        .await;
    let answer = stack.api().cancel(&id).await.expect(200);
    assert_eq!(answer.json["message"], "Operation cancelled successfully");
    assert_eq!(answer.json["status"], "cancelled");

    let cancelled = stack.api().operation(&id).await.expect(200);
    let cancelled = cancelled.at("/data");
    assert!(cancelled["cancel_requested_at"].is_string(), "{cancelled}");
    assert_eq!(cancelled["attempts"][0]["outcome"], "cancelled");
    assert_eq!(cancelled.get("forced"), None);

    stack.api().wait_for_worker("w1", "AVAILABLE").await;

    // A second cancel, also by the short path, adds nothing to the log.
    let second = stack.api().cancel(&id).await.expect(200);
    assert_eq!(second.json["message"], "Operation was cancelled before");
    stack
        .api()
        .delete(&format!("/api/v1/operations/{id}"))
        .await
        .expect(200);

    assert_eq!(
        stack.bus.event_names("dummy", &id).await,
        ["started", "cancelled"]
    );
    stack.bus.settled().await;
}

#[tokio::test]
async fn an_ended_operation_cannot_be_cancelled() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;

    let done = stack.api().started("dummy", &json!({"steps": 0})).await;
    let failed = stack
        .api()
        .started(
            "dummy",
            &json!({"steps": 1, "step_ms": 1, "fail_at_step": 1}),
        )
        .await;
    stack.api().wait_for_status(&done, "completed").await;
    stack.api().wait_for_status(&failed, "failed").await;

    for id in [done, failed] {
        let answer = stack.api().cancel(&id).await.expect(409);
        assert_eq!(answer.json["success"], false);
    }

    stack.api().cancel("never-was").await.expect(404);
    stack.api().cancel("no.name").await.expect(404);
}

#[tokio::test]
async fn an_engine_that_ignores_a_cancel_is_closed_by_the_backend_and_keeps_its_slot() {
    let stack = Stack::start().await;
    let (_worker, gate) = stack.gate_worker("g1").await;

    let id = stack
        .api()
        .started("gate", &json!({"ignore_cancel": true}))
        .await;
    gate.started().await;
    let path = format!("/api/v1/operations/{id}/cancel?wait_seconds=0");
    let requested = stack.api().delete(&path).await.expect(200);
    assert_eq!(
        requested.json["status"], "running",
        "requested is not confirmed: {requested}"
    );
    let message = requested.json["message"].as_str().unwrap();
    assert!(message.starts_with("Cancellation requested"), "{message}");

    let forced = stack.api().wait_for_status(&id, "cancelled").await;
    assert_eq!(forced["forced"], true);

    let worker = stack.api().wait_for_worker("g1", "BUSY").await;
    assert_eq!(worker["current_operation_id"], Value::String(id.clone()));

    gate.open(1);

    let worker = stack.api().wait_for_worker("g1", "AVAILABLE").await;
    assert_eq!(worker["fenced"], 1);
    assert_eq!(
        stack.bus.event_names("gate", &id).await,
        ["started", "cancelled"]
    );
    stack.bus.settled().await;
}

#[tokio::test]
async fn a_cancel_that_comes_too_late_says_so() {
    let stack = Stack::start_with(|settings| Settings {
        cancel_grace: LIMIT,
        ..settings
    })
    .await;
    let (_worker, gate) = stack.gate_worker("g1").await;

    let id = stack
        .api()
        .started("gate", &json!({"ignore_cancel": true}))
        .await;
    gate.started().await;

    let path = format!("/api/v1/operations/{id}/cancel?wait_seconds=30");
    let (late, ()) = tokio::join!(stack.api().delete(&path), async {
        stack
            .api()
            .wait_for_operation(&id, "the cancel to be stored", |operation| {
                operation.at("/data/cancel_requested_at").is_string()
            })
            .await;
        gate.open(1);
    });
    late.expect_problem(409, "already_finished");

    stack.api().wait_for_status(&id, "completed").await;
}

#[tokio::test]
async fn a_cancel_that_no_live_worker_heard_is_found_by_the_one_that_takes_over() {
    let stack = Stack::start_with(|mut settings| {
        // Long enough that the worker that takes over ends it, not the backend.
        settings.cancel_grace = LIMIT;
        settings
    })
    .await;
    let mut first = stack.worker("dummy", "w1").await;

    let id = stack
        .api()
        .running("dummy", &json!({"steps": 1000, "step_ms": 100}))
        .await;
    first.process.kill();
    stack.api().cancel(&id).await.expect(200);
    let _second = stack.worker("dummy", "w2").await;

    let cancelled = stack.api().wait_for_status(&id, "cancelled").await;
    assert_eq!(cancelled["attempt"], 1);
    assert_eq!(
        stack.bus.event_names("dummy", &id).await,
        ["started", "cancelled"]
    );
    stack.bus.settled().await;
}

#[tokio::test]
async fn cancelling_on_the_worker_itself_is_the_same_cancel() {
    let stack = Stack::start().await;
    let worker = stack.worker("dummy", "w1").await;

    let id = stack
        .api()
        .running("dummy", &json!({"steps": 1000, "step_ms": 100}))
        .await;

    let answer = worker.api.cancel(&id).await.expect(200);
    assert_eq!(answer.json["message"], "Operation cancelled successfully");
    assert_eq!(answer.json["status"], "cancelled");
    let second = worker.api.cancel(&id).await.expect(200);
    assert_eq!(second.json["message"], "Operation was cancelled before");

    let cancelled = stack.api().wait_for_status(&id, "cancelled").await;
    assert!(cancelled["cancel_requested_at"].is_string());

    worker
        .api
        .wait_for_operation(&id, "the worker to agree", |own| {
            own.json["status"] == "cancelled"
        })
        .await;
}

#[tokio::test]
async fn a_worker_stores_the_reason_in_the_body_of_a_cancel_as_a_backend_does() {
    let stack = Stack::start().await;
    let worker = stack.worker("dummy", "w1").await;

    for (api, reason) in [(stack.api(), "at a backend"), (&worker.api, "at a worker")] {
        let body = json!({"steps": 1000, "step_ms": 100});
        let id = stack.api().running("dummy", &body).await;
        let path = format!("/api/v1/operations/{id}/cancel");
        let cancel = api.request(Method::DELETE, &path);

        api.send(cancel.json(&json!({"reason": reason})))
            .await
            .expect(200);

        let filter = format!("ktrdr.cancel.dummy.{id}");
        let stored = stack.bus.stored(&filter).await;
        let intent: Value = serde_json::from_slice(&stored[0].payload).unwrap();
        assert_eq!(intent["reason"], reason);
    }
}

#[tokio::test]
async fn a_worker_says_that_its_engine_has_not_stopped_yet() {
    let stack = Stack::start_with(|settings| Settings {
        cancel_grace: LIMIT,
        ..settings
    })
    .await;
    let (worker, gate) = stack.gate_worker("g1").await;
    let id = stack
        .api()
        .started("gate", &json!({"ignore_cancel": true}))
        .await;
    gate.started().await;
    let cancel = async |wait: &str| {
        let path = format!("/api/v1/operations/{id}/cancel?wait_seconds={wait}");
        worker.api.delete(&path).await
    };

    let requested = cancel("0").await.expect(200);
    let refused = cancel("-1").await;
    gate.open(1);
    stack.api().wait_for_status(&id, "completed").await;
    let late = cancel("30").await;

    assert_eq!(requested.json["status"], "running", "{requested}");
    let message = requested.json["message"].as_str().unwrap();
    assert!(message.starts_with("Cancellation requested"), "{message}");
    refused.expect_problem(400, "invalid_query");
    late.expect_problem(409, "already_finished");
}

#[tokio::test]
async fn a_cancel_is_stored_although_another_message_has_its_message_id() {
    let stack = Stack::start_with(|settings| Settings {
        cancel_grace: LIMIT,
        ..settings
    })
    .await;
    let _worker = stack.worker("dummy", "w1").await;
    let body = json!({"steps": 1000, "step_ms": 100});
    let id = stack.api().running("dummy", &body).await;
    let message_id = format!("cancel-{id}");
    stack
        .bus
        .store_under(&message_id, "ktrdr.op.dummy.other", "{}")
        .await;

    stack.api().cancel(&id).await.expect(200);

    let cancelled = stack.api().wait_for_status(&id, "cancelled").await;
    assert_eq!(cancelled.get("forced"), None, "{cancelled}");
}

#[tokio::test]
async fn the_reason_of_a_cancel_is_kept_whether_the_operation_waits_or_runs() {
    let stack = Stack::start().await;
    let (_worker, gate) = stack.gate_worker("g1").await;
    let api = stack.api();
    let running = api.running("gate", &json!({})).await;
    let waiting = api.started("gate", &json!({})).await;

    for id in [&waiting, &running] {
        let path = format!("/api/v1/operations/{id}/cancel?reason=too+slow");
        api.delete(&path).await.expect(200);
    }

    for id in [&waiting, &running] {
        let cancelled = api.wait_for_status(id, "cancelled").await;
        assert_eq!(cancelled["cancel_reason"], "too slow", "{cancelled}");
    }
    let path = format!("/api/v1/operations/{waiting}/history");
    let history = api.get(&path).await.expect(200);
    assert!(
        history.text.contains(r#""cancel_reason":"too slow""#),
        "{history}"
    );
    gate.open_for_all();
}
