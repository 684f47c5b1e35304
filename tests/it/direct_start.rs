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

    let again = worker
        .api
        .post("/gate/start", &json!({"task_id": "direct-1"}))
        .await;
    assert_eq!(again.status, 409, "{again}");
    stack.bus.settled().await;
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
