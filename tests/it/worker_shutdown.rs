//! A worker that is asked to stop: it releases its operations, sends its farewell, and answers
//! until the end.

use std::collections::BTreeSet;
use std::time::Duration;

use ktrdr_protocol::worker::Heartbeat;
use ktrdr_tests::engines::GateEngine;
use ktrdr_tests::process::Signal;
use ktrdr_tests::{BackendProcess, LIMIT, LocalWorker, NatsServer, Settings, Stack, wait_for};
use serde_json::json;
use tokio::task::JoinSet;

#[tokio::test]
async fn a_stopping_worker_hands_its_operation_back_at_once_and_says_farewell() {
    // A lease so long that only the release can explain a quick second attempt.
    let stack = Stack::start_with(|mut settings| {
        settings.lease = Duration::from_secs(600);
        settings
    })
    .await;
    let mut first = stack.worker("dummy", "w1").await;

    let id = stack
        .api()
        .running("dummy", &json!({"steps": 10, "step_ms": 100}))
        .await;
    let _second = stack.worker("dummy", "w2").await;

    let status = first.process.stop().await;
    assert!(status.success(), "{status}: {}", first.process.log());

    let done = stack.api().wait_for_status(&id, "completed").await;
    assert_eq!(done["worker_id"], "w2");
    assert_eq!(done["attempts"][0]["outcome"], "released");
    assert_eq!(
        stack.bus.event_names("dummy", &id).await,
        ["started", "released", "started", "completed"]
    );

    // The farewell removes the worker at once; no heartbeat has to be missed.
    wait_for("the farewell to be heard", LIMIT, async || {
        match stack.api().workers().await.as_slice() {
            [only] if only["worker_id"] == "w2" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;

    stack.bus.settled().await;
}

#[tokio::test]
async fn a_closed_terminal_stops_worker_and_backend_in_order() {
    let mut stack = Stack::start().await;
    let mut worker = stack.worker("dummy", "w1").await;
    stack
        .api()
        .running("dummy", &json!({"steps": 1000, "step_ms": 100}))
        .await;

    worker.process.signal(Signal::Hangup);
    let status = worker.process.wait(LIMIT).await;
    assert!(status.success(), "{status}: {}", worker.process.log());

    // Only a worker that says farewell is removed at once.
    wait_for("the farewell to be heard", LIMIT, async || {
        match stack.api().workers().await.as_slice() {
            [] => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;

    let backend = &mut stack.backend.process;
    backend.signal(Signal::Hangup);
    let status = backend.wait(LIMIT).await;
    assert!(status.success(), "{status}: {}", backend.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_heard_of_a_worker_after_its_farewell() {
    const WORKERS: usize = 150;

    // A later heartbeat would make the worker appear again. With this many, some would be under
    // way.
    let nats = NatsServer::start().await;
    let settings = Settings {
        heartbeat: Duration::from_millis(1),
        ..Settings::fast(nats.url())
    };
    let bus = nats.bus().await;
    let (engine, _gate) = GateEngine::new();

    // Workers make no streams and no queues. Later the backend would only have to read heartbeats.
    let backend = BackendProcess::start(&settings).await;
    let mut workers = vec![LocalWorker::start(&settings, engine.clone(), "g0", &[]).await];
    backend.api.wait_for_worker("g0", "AVAILABLE").await;
    drop(backend);
    for number in 1..WORKERS {
        workers
            .push(LocalWorker::start(&settings, engine.clone(), &format!("g{number}"), &[]).await);
    }
    let mut heartbeats = bus.subscribe(bus.names.all_heartbeats()).await;
    let (mut seen, mut gone) = (BTreeSet::new(), BTreeSet::new());
    let mut stopping = JoinSet::new();
    while gone.len() < WORKERS {
        let message = bus.next(&mut heartbeats).await;
        let heartbeat: Heartbeat = serde_json::from_slice(&message.payload).unwrap();
        assert!(
            !gone.contains(&heartbeat.worker_id),
            "{heartbeat:?} after its farewell"
        );
        seen.insert(heartbeat.worker_id.clone());
        if heartbeat.leaving {
            gone.insert(heartbeat.worker_id);
        }
        if seen.len() == workers.len() {
            workers
                .drain(..)
                .for_each(|worker| drop(stopping.spawn(worker.stop())));
        }
    }
    stopping.join_all().await;
}

#[tokio::test]
async fn a_stopping_worker_answers_until_its_operations_have_ended() {
    let stack = Stack::start_with(|settings| settings.with("WORKER_SHUTDOWN_GRACE", "30s")).await;
    let mut worker = stack.worker("dummy", "w1").await;

    let id = stack
        .api()
        .running("dummy", &json!({"steps": 10000, "step_ms": 10}))
        .await;
    worker.process.signal(Signal::Term);
    wait_for("the worker to wait for its operation", LIMIT, async || {
        let log = worker.process.log();
        if log.contains("waiting for operations to finish") {
            Ok(())
        } else {
            Err(log)
        }
    })
    .await;

    let health = worker.api.get("/health").await.expect(200);
    assert_eq!(health.at("/current_operation"), &json!(id), "{health}");

    worker
        .api
        .delete(&format!("/api/v1/operations/{id}/cancel"))
        .await
        .expect(200);
    stack.api().wait_for_status(&id, "cancelled").await;

    let status = worker.process.wait(LIMIT).await;
    assert!(status.success(), "{status}: {}", worker.process.log());
}
