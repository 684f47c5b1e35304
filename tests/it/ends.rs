//! How operations end: failures, panics, time limits, retries, large results.

use std::collections::BTreeSet;
use std::time::Duration;

use ktrdr_protocol::worker::Heartbeat;
use ktrdr_tests::engines::{FlakyEngine, GateEngine};
use ktrdr_tests::process::Signal;
use ktrdr_tests::{LIMIT, LocalWorker, NatsServer, Settings, Stack, wait_for};
use serde_json::{Value, json};
use tokio::task::JoinSet;

#[tokio::test]
async fn failures_and_panics_fail_the_operation_and_leave_the_worker_alive() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    let failing = stack
        .api()
        .started("dummy", &json!({"step_ms": 1, "fail_at_step": 2}))
        .await;
    let failed = stack.api().wait_for_status(&failing, "failed").await;
    assert_eq!(failed["error_message"], "failed at step 2, as asked");
    assert_eq!(failed["attempts"][0]["outcome"], "failed");
    let panicking = stack
        .api()
        .started("dummy", &json!({"step_ms": 1, "panic_at_step": 1}))
        .await;
    let failed = stack.api().wait_for_status(&panicking, "failed").await;
    assert_eq!(failed["error"]["code"], "panic");
    let fine = stack.api().started("dummy", &json!({"steps": 0})).await;
    stack.api().wait_for_status(&fine, "completed").await;
    stack
        .api()
        .get(&format!("/api/v1/operations/{failing}/results"))
        .await
        .expect(409);
    stack.bus.settled().await;
}

#[tokio::test]
async fn a_time_limit_fails_the_attempt() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    let body = json!({"steps": 1000, "step_ms": 50, "execution": {"timeout_seconds": 0.3}});
    let id = stack.api().started("dummy", &body).await;
    let failed = stack.api().wait_for_status(&id, "failed").await;
    assert_eq!(failed["error"]["code"], "timeout");
    stack.api().wait_for_worker("w1", "AVAILABLE").await;
}

#[tokio::test]
async fn failed_attempts_are_retried_when_asked_for() {
    let stack = Stack::start().await;
    let _worker = LocalWorker::start(&stack.settings, FlakyEngine, "f1", &[]).await;
    stack.api().wait_for_worker("f1", "AVAILABLE").await;
    let retried = json!({"failures": 2, "execution": {"max_attempts": 3, "retry_delay": 0.1}});
    let id = stack.api().started("flaky", &retried).await;
    let done = stack.api().wait_for_status(&id, "completed").await;
    assert_eq!(done["attempt"], 3);
    let outcomes: Vec<&Value> = done["attempts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|a| &a["outcome"])
        .collect();
    assert_eq!(outcomes, ["failed", "failed", "completed"]);
    assert_eq!(
        stack.bus.event_names("flaky", &id).await,
        [
            "started",
            "released",
            "started",
            "released",
            "started",
            "completed"
        ]
    );
    let used_up = json!({"failures": 9, "execution": {"max_attempts": 2, "retry_delay": 0}});
    let id = stack.api().started("flaky", &used_up).await;
    assert_eq!(
        stack.api().wait_for_status(&id, "failed").await["attempt"],
        2
    );
    let permanent = json!({"failures": 9, "how": "permanent", "execution": {"max_attempts": 5}});
    let id = stack.api().started("flaky", &permanent).await;
    assert_eq!(
        stack.api().wait_for_status(&id, "failed").await["attempt"],
        1
    );
    let engines_own = json!({"failures": 1, "how": "retry_after"});
    let id = stack.api().started("flaky", &engines_own).await;
    assert_eq!(
        stack.api().wait_for_status(&id, "completed").await["attempt"],
        2
    );
    stack.bus.settled().await;
}

#[tokio::test]
async fn an_operation_that_waits_for_its_retry_can_be_cancelled() {
    let stack = Stack::start().await;
    let _worker = LocalWorker::start(&stack.settings, FlakyEngine, "f1", &[]).await;
    stack.api().wait_for_worker("f1", "AVAILABLE").await;
    let body = json!({"failures": 9, "execution": {"max_attempts": 9, "retry_delay": 3600}});
    let id = stack.api().started("flaky", &body).await;
    let waiting = wait_for("the hand-back", LIMIT, async || {
        let operation = stack.api().operation(&id).await.json["data"].clone();
        if operation["retry_at"].is_string() {
            Ok(operation)
        } else {
            Err(operation.to_string())
        }
    })
    .await;
    assert_eq!(waiting["status"], "pending");
    stack.api().cancel(&id).await.expect(200);
    stack.api().wait_for_status(&id, "cancelled").await;
}

#[tokio::test]
async fn a_large_result_travels_through_the_object_store() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    for bytes in [100_000_usize, 3_000_000] {
        let id = stack
            .api()
            .started("dummy", &json!({"steps": 0, "result_bytes": bytes}))
            .await;
        stack.api().wait_for_status(&id, "completed").await;
        let result = stack
            .api()
            .get(&format!("/api/v1/operations/{id}/results"))
            .await
            .expect(200);
        assert_eq!(
            result.at("/data/filler").as_str().map(str::len),
            Some(bytes)
        );
    }
}

#[tokio::test]
async fn results_are_409_until_there_is_one() {
    let stack = Stack::start().await;
    let (engine, gate) = GateEngine::new();
    let _worker = LocalWorker::start(&stack.settings, engine, "g1", &[]).await;
    stack.api().wait_for_worker("g1", "AVAILABLE").await;
    let id = stack.api().started("gate", &json!({})).await;
    gate.started().await;
    let path = format!("/api/v1/operations/{id}/results");
    stack.api().get(&path).await.expect(409);
    gate.open(1);
    stack.api().wait_for_status(&id, "completed").await;
    assert_eq!(
        stack.api().get(&path).await.expect(200).at("/data/attempt"),
        &json!(1)
    );
    let history = stack
        .api()
        .get(&format!("/api/v1/operations/{id}/history"))
        .await
        .expect(200);
    for word in ["started", "completed", "g1"] {
        assert!(history.text.contains(word), "{history}");
    }
}

#[tokio::test]
async fn a_stopping_worker_hands_its_operation_back_at_once_and_says_farewell() {
    // A lease so long that only the hand-back can explain a quick takeover.
    let stack = Stack::start_with(|mut settings| {
        settings.lease = Duration::from_secs(600);
        settings
    })
    .await;
    let mut first = stack.worker("dummy", "w1").await;
    let id = stack
        .api()
        .started("dummy", &json!({"steps": 10, "step_ms": 100}))
        .await;
    stack.api().wait_for_status(&id, "running").await;
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
    // No heartbeat has to be missed first: it said that it goes.
    wait_for("the farewell to be heard", LIMIT, async || {
        match stack.api().workers().await.as_slice() {
            [only] if only["worker_id"] == "w2" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    stack.bus.settled().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_heard_of_a_worker_after_its_farewell() {
    const WORKERS: usize = 150;
    // A heartbeat that came later would bring it back to life. So many and so often that some would be on their way.
    let nats = NatsServer::start().await;
    let settings = Settings {
        heartbeat: Duration::from_millis(1),
        ..Settings::fast(nats.url())
    };
    let bus = nats.bus().await;
    let (engine, _gate) = GateEngine::new();
    let mut workers = Vec::new();
    for number in 0..WORKERS {
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
        .started("dummy", &json!({"steps": 10000, "step_ms": 10}))
        .await;
    stack.api().wait_for_status(&id, "running").await;
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
