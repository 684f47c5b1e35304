//! Several backends, and backends that are killed and restarted: all give the same answers.

use ktrdr_tests::{BackendProcess, LIMIT, Stack, wait_for};
use serde_json::{Value, json};

/// An operation without the fields that may differ between two requests.
fn stable(mut operation: Value) -> Value {
    if !operation["status"]
        .as_str()
        .is_some_and(|s| matches!(s, "completed" | "failed" | "cancelled"))
    {
        for key in ["updated_at", "duration_seconds", "progress"] {
            operation.as_object_mut().unwrap().remove(key);
        }
    }
    operation
}

async fn all_operations(backend: &BackendProcess) -> Vec<Value> {
    let answer = backend.api.operations("limit=1000").await.expect(200);
    answer
        .at("/data/operations")
        .as_array()
        .unwrap()
        .iter()
        .cloned()
        .map(stable)
        .collect()
}

#[tokio::test]
async fn a_killed_backend_gives_the_same_answers_when_it_is_back() {
    let mut stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;

    let done = stack
        .api()
        .started("dummy", &json!({"steps": 1, "step_ms": 1}))
        .await;
    let failed = stack
        .api()
        .started(
            "dummy",
            &json!({"steps": 10, "step_ms": 1, "fail_at_step": 8}),
        )
        .await;
    stack.api().wait_for_status(&done, "completed").await;

    let how_far =
        stack.api().wait_for_status(&failed, "failed").await["progress"]["percentage"].clone();
    assert_eq!(
        how_far, 70,
        "what was reported last, not what was heard last"
    );

    let cancelled = stack
        .api()
        .started("dummy", &json!({"steps": 100, "step_ms": 20}))
        .await;
    stack
        .api()
        .wait_for_operation(&cancelled, "progress", |operation| {
            operation.at("/progress/percentage").as_f64() > Some(0.0)
        })
        .await;
    stack.api().cancel(&cancelled).await.expect(200);
    stack.api().wait_for_status(&cancelled, "cancelled").await;
    let running = stack
        .api()
        .running("dummy", &json!({"steps": 1000, "step_ms": 50}))
        .await;
    let pending = stack.api().started("dummy", &json!({"steps": 0})).await;

    let before = all_operations(&stack.backend).await;
    assert_eq!(before.len(), 5);

    stack.backend.restart().await;

    assert_eq!(all_operations(&stack.backend).await, before);

    // Workers and live progress are known again without waiting for the next regular heartbeat.
    stack.api().wait_for_worker("w1", "BUSY").await;
    wait_for("progress", LIMIT, async || {
        let operation = stack.api().operation(&running).await;
        match operation.at("/progress/percentage").as_f64() {
            Some(percentage) if percentage > 0.0 => Ok(()),
            _ => Err(operation.text),
        }
    })
    .await;
    stack.api().cancel(&running).await.expect(200);
    stack.api().wait_for_status(&pending, "completed").await;
}

#[tokio::test]
async fn an_operation_continues_while_the_backend_is_dead() {
    let mut stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;

    let id = stack
        .api()
        .running("dummy", &json!({"steps": 5, "step_ms": 100}))
        .await;
    stack.backend.process.kill();
    stack
        .bus
        .wait_for_events("dummy", &id, &["started", "completed"])
        .await;
    stack.backend.restart().await;

    assert_eq!(
        stack.api().operation(&id).await.expect(200).json["status"],
        "completed"
    );
}

#[tokio::test]
async fn several_backends_agree() {
    let stack = Stack::start().await;
    let second = BackendProcess::start(&stack.settings).await;
    let _worker = stack.worker("dummy", "w1").await;
    second.api.wait_for_worker("w1", "AVAILABLE").await;

    let here = stack
        .api()
        .started("dummy", &json!({"steps": 1, "step_ms": 1}))
        .await;
    let there = second
        .api
        .started("dummy", &json!({"steps": 1, "step_ms": 1}))
        .await;
    for api in [stack.api(), &second.api] {
        api.wait_for_any_status(&here, &["completed"]).await;
        api.wait_for_any_status(&there, &["completed"]).await;
    }

    // Cancelled through one, seen by the other; a repeated task_id is the same operation on both.
    let long = second
        .api
        .started(
            "dummy",
            &json!({"task_id": "long", "steps": 1000, "step_ms": 50}),
        )
        .await;
    let again = wait_for("the other backend to know it", LIMIT, async || {
        let answer = stack
            .api()
            .start(
                "dummy",
                &json!({"task_id": "long", "steps": 1000, "step_ms": 50}),
            )
            .await;
        if answer.status == 200 {
            Ok(answer)
        } else {
            Err(answer.text)
        }
    })
    .await;
    assert_eq!(again.json["operation_id"], "long");

    stack.api().cancel(&long).await.expect(200);
    second.api.wait_for_status(&long, "cancelled").await;
    stack.api().wait_for_status(&long, "cancelled").await;

    assert_eq!(
        all_operations(&stack.backend).await,
        all_operations(&second).await
    );
    stack.bus.settled().await;
}
