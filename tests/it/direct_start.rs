//! Operations that are started on a worker's own REST interface.

use ktrdr_tests::engines::GateEngine;
use ktrdr_tests::{LocalWorker, Stack};
use serde_json::json;

#[tokio::test]
async fn a_direct_start_takes_the_slot_and_a_busy_worker_says_so() {
    let stack = Stack::start().await;
    let (engine, gate) = GateEngine::new();
    let worker = stack.local_worker(engine.clone(), "g1", &[]).await;

    let answer = worker
        .api
        .post("/gate/start", &json!({"task_id": "direct-1"}))
        .await
        .expect(200);
    assert_eq!(answer.json["operation_id"], "direct-1");
    assert_eq!(answer.json["status"], "started");
    assert_eq!(answer.json["worker_id"], "g1");

    gate.started().await;

    let busy = worker.api.post("/gate/start", &json!({})).await.expect(503);
    assert_eq!(busy.json["error"], "Worker busy");
    assert_eq!(busy.json["current_operation"], "direct-1");
    assert_eq!(busy.json["status_code"], 503);

    // The busy worker does not take a request that is queued meanwhile; another worker does.
    let queued = stack.api().started("gate", &json!({})).await;
    let _other = LocalWorker::start(&stack.settings, engine, "g2", &[]).await;

    assert_eq!(gate.started().await.0.as_str(), queued);

    gate.open_for_all();

    let direct = stack.api().wait_for_status("direct-1", "completed").await;
    assert_eq!(direct["worker_id"], "g1");
    assert_eq!(
        stack.api().wait_for_status(&queued, "completed").await["worker_id"],
        "g2"
    );

    stack.bus.settled().await;
}

#[tokio::test]
async fn a_repeated_direct_start_is_answered_and_another_body_is_refused() {
    let stack = Stack::start().await;
    let (engine, gate) = GateEngine::new();
    let worker = stack.local_worker(engine.clone(), "g1", &[]).await;
    let start = async |body| worker.api.post("/gate/start", &body).await;
    let first = json!({"task_id": "direct-1"});
    let other = json!({"task_id": "direct-1", "ignore_cancel": true});
    start(first.clone()).await.expect(200);
    gate.started().await;

    // Also while it has the only slot.
    let again = start(first.clone()).await.expect(200);
    assert_eq!(again.json["existed"], true, "{again}");
    start(other.clone())
        .await
        .expect_problem(409, "idempotency_mismatch");

    gate.open_for_all();
    stack.api().wait_for_status("direct-1", "completed").await;
    start(first.clone()).await.expect(200);

    // A backend answers in the same way about it, and the worker about what a backend started.
    stack.api().start("gate", &first).await.expect(200);
    let refused = stack.api().start("gate", &other).await;
    refused.expect_problem(409, "idempotency_mismatch");
    let queued = json!({"task_id": "queued-1"});
    stack.api().started("gate", &queued).await;
    stack.api().wait_for_status("queued-1", "completed").await;
    start(queued).await.expect(200);
    let changed = start(json!({"task_id": "queued-1", "execution": {"max_attempts": 2}})).await;
    changed.expect_problem(409, "idempotency_mismatch");

    // What another worker ran, this one does not know.
    let elsewhere = stack.local_worker(engine, "g2", &[]).await;
    let taken = elsewhere.api.post("/gate/start", &first).await;
    taken.expect_problem(409, "task_id_conflict");
    assert_eq!(stack.bus.stored("ktrdr.start.*.*").await.len(), 2);
}

#[tokio::test]
async fn a_direct_start_whose_worker_is_gone_is_closed_by_the_backend() {
    let stack = Stack::start().await;
    let mut worker = stack.worker("dummy", "w1").await;

    worker
        .api
        .post(
            "/dummy/start",
            &json!({"task_id": "lost", "steps": 1000, "step_ms": 100}),
        )
        .await
        .expect(200);
    stack.api().wait_for_status("lost", "running").await;
    worker.process.kill();

    let failed = stack.api().wait_for_status("lost", "failed").await;
    assert!(
        failed["error_message"]
            .as_str()
            .unwrap()
            .contains("worker lost"),
        "{failed}"
    );
}
