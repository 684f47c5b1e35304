//! `/ready` while NATS is there and says nothing, or answers slowly.

use std::time::{Duration, Instant};

use ktrdr_tests::process::Signal;
use ktrdr_tests::{BackendProcess, LIMIT, Proxy, Settings, Stack, WorkerProcess, wait_for};
use serde_json::json;

#[tokio::test]
async fn a_frozen_server_makes_a_backend_unready_within_seconds_and_starts_are_refused_at_once() {
    let mut stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;

    stack.nats.signal(Signal::Stop);
    let frozen = Instant::now();
    stack
        .api()
        .wait_for_answer("/ready", "not ready", |ready| ready.status == 503)
        .await
        .expect_problem(503, "nats_unavailable");

    // The client library notices after 20 seconds at the earliest.
    let took = frozen.elapsed();
    assert!(took < Duration::from_secs(10), "{took:?}");
    let page = stack.api().get("/metrics").await.text;
    for line in [
        "ktrdr_nats_connected 1",
        "ktrdr_nats_answers 0",
        "ktrdr_backend_ready 0",
    ] {
        let mut lines = page.lines();
        assert!(lines.any(|found| found.starts_with(line)), "{line}: {page}");
    }
    stack
        .api()
        .start("dummy", &json!({"task_id": "refused"}))
        .await
        .expect_problem(503, "nats_unavailable");

    stack.nats.signal(Signal::Cont);
    stack
        .api()
        .wait_for_answer("/ready", "ready again", |ready| ready.status == 200)
        .await;
    let id = stack.api().started("dummy", &json!({"steps": 0})).await;
    stack.api().wait_for_status(&id, "completed").await;
    // For a moment after a silence, a backend denies nothing.
    stack
        .api()
        .wait_for_answer("/api/v1/operations/refused", "denied", |answer| {
            answer.status == 404
        })
        .await;
}

#[tokio::test]
async fn answers_that_are_held_for_a_moment_do_not_make_a_backend_unready() {
    let mut stack = Stack::start().await;

    for _ in 0..3 {
        stack.nats.signal(Signal::Stop);
        let until = Instant::now() + Duration::from_millis(1500);
        while Instant::now() < until {
            stack.api().get("/ready").await.expect(200);
        }
        stack.nats.signal(Signal::Cont);
        // Each pause begins with a server that answers.
        stack.bus.backlog().await;
        stack.api().operations("limit=1").await.expect(200);
    }

    let log = stack.backend.process.log();
    assert!(!log.contains("NATS does not answer"), "{log}");
}

#[tokio::test]
async fn a_lease_that_is_too_short_for_the_network_is_told_by_both_programs() {
    let stack = Stack::start().await;
    let proxy = Proxy::start(stack.nats.port()).await;
    proxy.delay(Duration::from_millis(150));
    let settings = Settings {
        lease: Duration::from_millis(1200),
        ..Settings::fast(proxy.url())
    };
    let backend = BackendProcess::start(&settings).await;
    let worker = WorkerProcess::start(&settings, "dummy", "w1").await;
    backend.api.wait_for_worker("w1", "AVAILABLE").await;
    backend
        .api
        .started("dummy", &json!({"steps": 10_000, "step_ms": 10}))
        .await;

    for process in [&backend.process, &worker.process] {
        wait_for("the warning", LIMIT, async || {
            let log = process.log();
            if log.contains("the lease is too short for this network") {
                Ok(())
            } else {
                Err(log)
            }
        })
        .await;
    }
}
