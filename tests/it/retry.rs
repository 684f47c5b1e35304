//! Running an operation again from the beginning: failed attempts, and `POST …/retry`.

use ktrdr_tests::engines::FlakyEngine;
use ktrdr_tests::{BackendProcess, LIMIT, Stack, wait_for};
use reqwest::Method;
use serde_json::{Value, json};

#[tokio::test]
async fn failed_attempts_are_retried_when_asked_for() {
    let stack = Stack::start().await;
    let _worker = stack.local_worker(FlakyEngine, "f1", &[]).await;

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
    let _worker = stack.local_worker(FlakyEngine, "f1", &[]).await;

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
async fn a_failed_operation_is_retried_with_its_own_parameters() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;

    let body =
        json!({"steps": 3, "step_ms": 1, "fail_at_step": 2, "execution": {"timeout_seconds": 60}});
    let id = stack.api().started("dummy", &body).await;
    stack.api().wait_for_status(&id, "failed").await;

    let path = format!("/api/v1/operations/{id}/retry");
    let retry = || {
        stack.api().send(
            stack
                .api()
                .request(Method::POST, &path)
                .header("idempotency-key", "once"),
        )
    };
    let (first, again) = (retry().await.expect(202), retry().await.expect(200));
    assert_eq!(first.json["operation_id"], again.json["operation_id"]);

    let new = first.json["operation_id"].as_str().unwrap();
    assert_ne!(new, id);

    let failed = stack.api().wait_for_status(new, "failed").await;
    assert_eq!(failed["retry_of"], Value::String(id));
    assert_eq!(failed["metadata"]["fail_at_step"], 2);
    assert_eq!(failed["execution"]["timeout_seconds"], 60.0);
}

#[tokio::test]
async fn only_failed_and_cancelled_operations_are_run_again() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;

    let id = stack.api().started("dummy", &json!({"steps": 0})).await;
    stack.api().wait_for_status(&id, "completed").await;

    for verb in ["retry", "resume"] {
        let answer = stack
            .api()
            .post(&format!("/api/v1/operations/{id}/{verb}"), &json!({}))
            .await;
        answer.expect_problem(409, "not_repeatable");
        stack
            .api()
            .post(&format!("/api/v1/operations/none/{verb}"), &json!({}))
            .await
            .expect(404);
    }

    // An operation that is open is to be cancelled first, and the answer says so.
    let open = json!({"steps": 10_000, "step_ms": 10});
    let open = stack.api().started("dummy", &open).await;
    let answer = stack
        .api()
        .post(&format!("/api/v1/operations/{open}/retry"), &json!({}))
        .await
        .expect_problem(409, "not_repeatable");
    assert!(answer.text.contains("cancel it first"), "{answer}");
}

#[tokio::test]
async fn a_retry_whose_first_one_has_left_the_stream_is_refused_and_not_left_pending() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    let body = json!({"steps": 2, "step_ms": 1, "fail_at_step": 1});
    let id = stack.api().started("dummy", &body).await;
    stack.api().wait_for_status(&id, "failed").await;
    let path = format!("/api/v1/operations/{id}/retry");
    let retry = async || {
        let request = stack.api().request(Method::POST, &path);
        let request = request.header("idempotency-key", "once");
        stack.api().send(request).await
    };
    let first = retry().await.expect(202).json["operation_id"].clone();
    let first = first.as_str().unwrap();
    stack.api().wait_for_status(first, "failed").await;

    // Its start request goes, and its log stays.
    let starts = stack.bus.stored("ktrdr.start.dummy.any").await;
    let last = starts.last().unwrap().sequence;
    let stream = stack.bus.jetstream.get_stream("KTRDR").await.unwrap();
    stream.delete_message(last).await.unwrap();
    let backend = BackendProcess::start(&stack.settings).await;
    backend.api.operation(first).await.expect(404);

    let request = backend.api.request(Method::POST, &path);
    let again = backend.api.send(request.header("idempotency-key", "once"));

    again.await.expect_problem(409, "task_id_conflict");
    assert_eq!(stack.bus.stored("ktrdr.start.dummy.any").await.len(), 1);
}
