//! Fencing: a worker that lost its operation while it was frozen or cut off cannot end it.

use ktrdr_tests::process::Signal;
use ktrdr_tests::{
    BackendProcess, LIMIT, NatsServer, Proxy, Settings, Stack, WorkerProcess, wait_for,
};
use serde_json::json;

#[tokio::test]
async fn a_frozen_worker_that_comes_back_is_fenced() {
    let stack = Stack::start().await;
    let mut first = stack.worker("dummy", "w1").await;

    let id = stack
        .api()
        .running("dummy", &json!({"steps": 15, "step_ms": 100}))
        .await;
    first.process.signal(Signal::Stop);
    let _second = stack.worker("dummy", "w2").await;

    stack.bus.wait_for_takeover("dummy", &id).await;
    first.process.signal(Signal::Cont);

    let done = stack.api().wait_for_status(&id, "completed").await;
    assert_eq!(
        (done["attempt"].as_u64(), done["worker_id"].as_str()),
        (Some(2), Some("w2"))
    );

    // The woken worker has noticed: it is available, has counted the fenced attempt, and its late
    // end is not in the log.
    let freed = stack.api().wait_for_worker("w1", "AVAILABLE").await;
    assert_eq!(freed["fenced"], 1, "{freed}");
    assert_eq!(
        stack.bus.event_names("dummy", &id).await,
        ["started", "started", "completed"]
    );
    stack.bus.settled().await;
}

#[tokio::test]
async fn a_zombie_that_finishes_before_it_looks_is_refused_by_the_log() {
    // The frozen worker wakes up with its engine done and publishes its end before anything can
    // stop it.
    let stack = Stack::start().await;
    let mut first = stack.worker("dummy", "w1").await;

    let id = stack
        .api()
        .running("dummy", &json!({"steps": 1, "step_ms": 1500}))
        .await;
    first.process.signal(Signal::Stop);
    let _second = stack.worker("dummy", "w2").await;

    let done = stack.api().wait_for_status(&id, "completed").await;
    assert_eq!(done["worker_id"], "w2");

    first.process.signal(Signal::Cont);
    stack.api().wait_for_worker("w1", "AVAILABLE").await;

    assert_eq!(
        stack.bus.event_names("dummy", &id).await,
        ["started", "started", "completed"]
    );
    stack.bus.settled().await;
}

#[tokio::test]
async fn a_frozen_idle_worker_leaves_alone_what_it_was_given_and_somebody_else_runs() {
    let stack = Stack::start().await;
    let mut first = stack.worker("dummy", "w1").await;

    first.process.signal(Signal::Stop);

    // Delivered to the only open pull, into the socket of a process that does not read.
    let id = stack
        .api()
        .started("dummy", &json!({"steps": 30, "step_ms": 100}))
        .await;
    wait_for("the delivery", LIMIT, async || {
        match stack.bus.backlog().await.as_slice() {
            [queue] if queue.unacknowledged == 1 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    let _second = stack.worker("dummy", "w2").await;

    stack.api().wait_for_status(&id, "running").await;
    first.process.signal(Signal::Cont);
    stack.api().wait_for_worker("w1", "AVAILABLE").await;

    let done = stack.api().wait_for_status(&id, "completed").await;
    assert_eq!(
        (done["worker_id"].as_str(), done["attempt"].as_u64()),
        (Some("w2"), Some(1))
    );
    assert_eq!(
        stack.bus.event_names("dummy", &id).await,
        ["started", "completed"]
    );
    stack.bus.settled().await;
}

#[tokio::test]
async fn a_worker_that_is_cut_off_for_longer_than_its_lease_is_fenced() {
    let nats = NatsServer::start().await;
    let proxy = Proxy::start(nats.port()).await;
    let settings = Settings::fast(nats.url());
    let backend = BackendProcess::start(&settings).await;
    let behind = Settings {
        nats_url: proxy.url(),
        ..settings.clone()
    };
    let _first = WorkerProcess::start(&behind, "dummy", "w1").await;
    backend.api.wait_for_worker("w1", "AVAILABLE").await;

    let id = backend
        .api
        .running("dummy", &json!({"steps": 30, "step_ms": 100}))
        .await;
    let _second = WorkerProcess::start(&settings, "dummy", "w2").await;

    proxy.cut();
    backend
        .api
        .wait_for_operation(&id, "the takeover", |operation| {
            operation.at("/data/worker_id") == "w2"
        })
        .await;
    proxy.restore();

    let freed = backend.api.wait_for_worker("w1", "AVAILABLE").await;
    assert_eq!(freed["fenced"], 1, "{freed}");

    let done = backend.api.wait_for_status(&id, "completed").await;
    assert_eq!(
        (done["worker_id"].as_str(), done["attempt"].as_u64()),
        (Some("w2"), Some(2))
    );

    nats.bus().await.settled().await;
}
