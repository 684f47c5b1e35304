//! Attempts that fail: errors, panics, time limits.

use ktrdr_tests::Stack;
use serde_json::json;

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
    let message = failed["error_message"].as_str().unwrap();
    let told = "the engine panicked: panicked at step 1, as asked, at worker/engines/src/dummy.rs:";
    assert!(message.starts_with(told), "{message}");

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
