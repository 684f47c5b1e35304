//! `WORKER_HTTP=health`: a worker whose own REST interface only says how it is.

use ktrdr_tests::engines::GateEngine;
use ktrdr_tests::{BackendProcess, LocalWorker, NatsServer, Settings, Stack, WorkerProcess};
use reqwest::Method;
use serde_json::json;

#[tokio::test]
async fn only_health_and_metrics_are_served() {
    let mut stack = Stack::start().await;
    stack.settings = stack.settings.with("WORKER_HTTP", "health");
    let worker = stack.worker("dummy", "w1").await;

    worker.api.get("/health").await.expect(200);
    worker.api.get("/metrics").await.expect(200);
    let document = worker.api.get("/openapi.json").await.expect(200);
    let paths: Vec<&String> = document.json["paths"].as_object().unwrap().keys().collect();
    assert_eq!(paths, ["/health", "/metrics", "/openapi.json"]);
    assert!(!document.text.contains("Start"), "{document}");

    for (method, path) in [
        (Method::GET, "/api/v1/operations"),
        (Method::GET, "/api/v1/operations/x"),
        (Method::GET, "/api/v1/operations/x/metrics"),
        (Method::DELETE, "/api/v1/operations/x"),
        (Method::DELETE, "/api/v1/operations/x/cancel"),
        (Method::POST, "/dummy/start"),
    ] {
        let request = worker.api.request(method, path).json(&json!({}));
        let answer = worker.api.send(request).await;

        let answer = answer.expect_problem(404, "unknown_route");
        assert!(
            answer.to_string().contains("WORKER_HTTP=health"),
            "{answer}"
        );
    }
    assert!(stack.bus.stored("ktrdr.start.dummy.>").await.is_empty());
}

#[tokio::test]
async fn such_a_worker_runs_and_cancels_what_backends_start() {
    let stack = Stack::start().await;
    let (engine, gate) = GateEngine::new();
    let arguments = ["--http", "health"];
    let _worker = LocalWorker::start(&stack.settings, engine, "g1", &arguments).await;

    stack.api().wait_for_worker("g1", "AVAILABLE").await;
    stack
        .api()
        .running("gate", &json!({"task_id": "stopped"}))
        .await;
    stack.api().cancel("stopped").await.expect(200);
    stack.api().wait_for_status("stopped", "cancelled").await;

    gate.open_for_all();
    let next = stack.api().started("gate", &json!({})).await;
    stack.api().wait_for_status(&next, "completed").await;
}

/// A server on which everybody may do everything, and the user `worker` may neither start nor
/// cancel anything.
const NARROW: &str = r#"
no_auth_user: all
authorization { users = [
  {user: all, password: all},
  {user: worker, password: worker, permissions: {publish: {deny: ["ktrdr.start.>", "ktrdr.cancel.>"]}}}
] }
"#;

#[tokio::test]
async fn such_a_worker_needs_no_right_to_start_or_cancel() {
    let nats = NatsServer::start_with(NARROW).await;
    let backend = BackendProcess::start(&Settings::fast(nats.url())).await;
    let settings = Settings::fast(nats.url())
        .with("NATS_USER", "worker")
        .with("NATS_PASSWORD", "worker");
    let health = settings.clone().with("WORKER_HTTP", "health");
    let worker = WorkerProcess::start(&health, "dummy", "w1").await;

    backend.api.wait_for_worker("w1", "AVAILABLE").await;
    let done = backend.api.started("dummy", &json!({"steps": 2})).await;
    backend.api.wait_for_status(&done, "completed").await;
    let long = json!({"steps": 1000, "step_ms": 100, "task_id": "long"});
    backend.api.running("dummy", &long).await;
    backend.api.cancel("long").await.expect(200);
    backend.api.wait_for_status("long", "cancelled").await;
    drop(worker);
    assert!(!nats.log().contains("Violation"), "{}", nats.log());

    // The rule works: the same worker with all its routes runs into it.
    let full = WorkerProcess::start(&settings, "dummy", "w2").await;
    backend.api.wait_for_worker("w2", "AVAILABLE").await;
    let refused = full.api.post("/dummy/start", &json!({"steps": 0})).await;
    assert_eq!(refused.status, 503, "{refused}");
    assert!(nats.log().contains("Violation"), "{}", nats.log());
}
