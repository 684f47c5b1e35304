//! Workers inside another program: several engines, start and stop, an engine's own defaults.

use axum::Router;
use ktrdr_tests::engines::{BlockingEngine, FlakyEngine, GateEngine, LimitedEngine};
use ktrdr_tests::{Client, LIMIT, LocalWorker, Stack, wait_for};
use ktrdr_worker::Worker;
use serde_json::json;
use tokio::net::TcpListener;

async fn listener() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    (listener, base)
}

#[tokio::test]
async fn two_engines_in_one_process_are_two_workers() {
    let stack = Stack::start().await;
    let (listener, base) = listener().await;
    let mut worker = Worker::builder()
        .engine(FlakyEngine)
        .engine(BlockingEngine)
        .config(LocalWorker::config(&stack.settings, "both", &[]))
        .listener(listener)
        .start()
        .await
        .unwrap();
    worker.ready().await.unwrap();

    let ids: Vec<String> = worker
        .worker_ids()
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(ids, ["both-flaky", "both-blocking"]);
    for (domain, id) in [("flaky", "both-flaky"), ("blocking", "both-blocking")] {
        let registered = stack.api().wait_for_worker(id, "AVAILABLE").await;
        assert_eq!(registered["endpoint_url"], format!("{base}/{domain}"));

        let operation = stack.api().started(domain, &json!({})).await;
        let done = stack.api().wait_for_status(&operation, "completed").await;
        assert_eq!(done["worker_id"], id);

        let own = Client::new(format!("{base}/{domain}"));
        own.get("/health").await.expect(200);
        let document = own.get("/openapi.json").await.expect(200).json;
        assert_eq!(document["servers"][0]["url"], format!("/{domain}"));
        own.get(&format!("/api/v1/operations/{operation}"))
            .await
            .expect(200);
    }

    worker.stop().await.unwrap();
    stack.bus.settled().await;
}

#[tokio::test]
async fn an_embedded_worker_is_served_by_the_program_and_hands_back_what_it_runs_when_it_stops() {
    let stack = Stack::start().await;
    let (listener, base) = listener().await;
    let url = format!("{base}/worker");
    let (engine, gate) = GateEngine::new();
    let mut worker = Worker::builder()
        .engine(engine.clone())
        .config(LocalWorker::config(&stack.settings, "inside", &[]))
        .mounted_at(&url)
        .start()
        .await
        .unwrap();
    let app = Router::new().nest("/worker", worker.router());
    let server = tokio::spawn(async move { axum::serve(listener, app).await });

    worker.ready().await.unwrap();
    let registered = stack.api().wait_for_worker("inside", "AVAILABLE").await;
    assert_eq!(registered["endpoint_url"], url);
    let operation = stack.api().running("gate", &json!({})).await;
    let own = Client::new(&url);
    let seen = own.get(&format!("/api/v1/operations/{operation}")).await;
    assert_eq!(seen.expect(200).at("/data/status"), "running");

    worker.stop().await.unwrap();
    let waiting = stack.api().wait_for_status(&operation, "pending").await;
    assert_eq!(waiting["attempts"][0]["outcome"], "released");

    // The process lives on, and can start another worker.
    let mut again = Worker::builder()
        .engine(engine)
        .config(LocalWorker::config(&stack.settings, "inside", &[]))
        .mounted_at(&url)
        .start()
        .await
        .unwrap();
    gate.open_for_all();
    stack.api().wait_for_status(&operation, "completed").await;
    again.stop().await.unwrap();
    server.abort();
}

#[tokio::test]
async fn a_worker_that_cannot_run_says_so() {
    let stack = Stack::start().await;
    let one = LocalWorker::config(
        &stack.settings,
        "one",
        &["--capabilities", "{\"gpu\":true}"],
    );

    let refused = Worker::builder()
        .engine(FlakyEngine)
        .config(one)
        .mounted_at("http://here")
        .start()
        .await;

    assert!(refused.unwrap_err().to_string().contains("gpu"));
}

#[tokio::test]
async fn an_engine_has_defaults_that_a_request_overrides() {
    let stack = Stack::start().await;
    let _worker = stack.local_worker(LimitedEngine, "p1", &[]).await;
    let end = async |body: serde_json::Value, status: &str| {
        let id = stack.api().started("limited", &body).await;
        stack.api().wait_for_status(&id, status).await
    };

    // The engine's defaults: two attempts of 0.2 s.
    assert_eq!(end(json!({}), "failed").await["attempt"], 2);
    let too_long = end(json!({"millis": 60_000}), "failed").await;
    assert_eq!(too_long["attempt"], 2);
    assert_eq!(too_long["error"]["code"], "timeout");

    // The request's own options.
    let once = json!({"execution": {"max_attempts": 1}});
    assert_eq!(end(once, "failed").await["attempt"], 1);
    let longer = json!({"millis": 400, "execution": {"timeout_seconds": 60}});
    assert_eq!(end(longer, "completed").await["attempt"], 1);
    stack.bus.settled().await;
}

#[tokio::test]
async fn the_catalogue_shows_an_engines_defaults() {
    let stack = Stack::start().await;
    let _worker = stack.local_worker(LimitedEngine, "p1", &[]).await;

    let shown = wait_for("the worker type", LIMIT, async || {
        let answer = stack.api().try_get("/api/v1/worker-types").await?;
        let types = answer.at("/data/worker_types").as_array().cloned();
        types
            .unwrap_or_default()
            .into_iter()
            .find(|entry| entry["worker_type"] == "limited")
            .ok_or_else(|| answer.to_string())
    })
    .await;

    assert_eq!(
        shown["execution_defaults"],
        json!({"timeout_seconds": 0.2, "max_attempts": 2, "retry_delay": 0.01})
    );
}
