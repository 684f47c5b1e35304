//! Workers that die: the next one takes over, and every operation has one end.

use ktrdr_protocol::event::EventKind;
use ktrdr_tests::engines::GateEngine;
use ktrdr_tests::{LIMIT, LocalWorker, Stack, wait_for};
use serde_json::json;

#[tokio::test]
async fn a_killed_worker_is_taken_over_and_marked_unavailable_until_it_is_back() {
    let stack = Stack::start().await;
    let mut first = stack.worker("dummy", "w1").await;

    let id = stack
        .api()
        .running("dummy", &json!({"steps": 20, "step_ms": 100}))
        .await;
    let _second = stack.worker("dummy", "w2").await;

    first.process.kill();

    let lost = stack
        .api()
        .wait_for_worker("w1", "TEMPORARILY_UNAVAILABLE")
        .await;
    assert!(
        lost["health_check_failures"].as_u64().unwrap() >= 3,
        "{lost}"
    );

    let done = stack.api().wait_for_status(&id, "completed").await;
    assert_eq!(done["attempt"], 2);
    assert_eq!(done["worker_id"], "w2");
    assert_eq!(done["attempts"][0]["outcome"], "lost");
    assert_eq!(
        stack.bus.event_names("dummy", &id).await,
        ["started", "started", "completed"]
    );

    first.restart().await;

    let back = stack.api().wait_for_worker("w1", "AVAILABLE").await;
    assert_eq!(back["health_check_failures"], 0);
    stack.bus.settled().await;
}

#[tokio::test]
async fn a_request_that_loses_three_workers_fails_and_takes_no_fourth() {
    let stack = Stack::start().await;
    let mut worker = stack.worker("dummy", "w1").await;

    let id = stack
        .api()
        .started("dummy", &json!({"steps": 600, "step_ms": 100}))
        .await;
    for attempt in 1..=3 {
        wait_for("the attempt", LIMIT, async || {
            let operation = stack.api().operation(&id).await;
            match operation.at("/data/attempt").as_u64() {
                Some(n) if n == attempt && operation.json["status"] == "running" => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
        // The same worker id each time, as with a supervisor that restarts the worker.
        worker.restart().await;
    }

    let failed = stack.api().wait_for_status(&id, "failed").await;
    assert!(
        failed["error_message"]
            .as_str()
            .unwrap()
            .contains("worker lost 3 times"),
        "{failed}"
    );
    assert_eq!(
        stack.bus.event_names("dummy", &id).await,
        ["started", "started", "started", "failed"]
    );
    stack.bus.settled().await;
}

#[tokio::test]
async fn a_second_copy_of_a_running_request_does_not_take_it_over() {
    let stack = Stack::start().await;
    let (engine, gate) = GateEngine::new();
    let _one = LocalWorker::start(&stack.settings, engine.clone(), "g1", &[]).await;
    let _two = stack.local_worker(engine, "g2", &[]).await;

    let id = stack.api().started("gate", &json!({})).await;

    assert_eq!(gate.started().await.1, 1);

    // Like a start repeated after the duplicate window: the same payload, no message id.
    let request = stack.bus.stored("ktrdr.start.gate.any").await.remove(0);
    stack.bus.store(request.subject, request.payload).await;
    wait_for("one request left", LIMIT, async || {
        match stack.bus.backlog().await.as_slice() {
            [queue] if queue.pending == 0 && queue.unacknowledged == 1 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    gate.open(1);
    stack.api().wait_for_status(&id, "completed").await;

    assert!(gate.unseen().await.is_empty());
    assert_eq!(
        stack.bus.event_names("gate", &id).await,
        ["started", "completed"]
    );
    stack.bus.settled().await;
}

#[tokio::test]
async fn an_engine_that_blocks_its_thread_for_longer_than_the_lease_runs_once() {
    let stack = Stack::start().await;
    let _worker = LocalWorker::start(
        &stack.settings,
        ktrdr_tests::engines::BlockingEngine,
        "b1",
        &[],
    )
    .await;
    let _other = stack
        .local_worker(ktrdr_tests::engines::BlockingEngine, "b2", &[])
        .await;

    let id = stack
        .api()
        .started("blocking", &json!({"millis": 3500}))
        .await;
    stack.api().wait_for_status(&id, "completed").await;

    let events = stack.bus.events("blocking", &id).await;
    assert!(matches!(events[0].kind, EventKind::Started { .. }));
    assert_eq!(events.len(), 2, "{events:?}");
}
