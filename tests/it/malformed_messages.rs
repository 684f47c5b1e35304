//! Malformed and forged messages on the bus: skipped, counted, and never believed.

use ktrdr_tests::Stack;
use serde_json::json;

#[tokio::test]
async fn garbage_on_every_subject_harms_nobody() {
    let stack = Stack::start().await;
    let worker = stack.worker("dummy", "w1").await;

    // Almost a start request: no program accepts it.
    let numbers = json!({"operation_id": "n", "operation_type": "dummy", "parameters": 7, "created_at": "2026-01-01T00:00:00Z"});
    let (numbers, long) = (
        numbers.to_string().into_bytes(),
        json!("x".repeat(100_000)).to_string().into_bytes(),
    );
    let blobs: [&[u8]; 9] = [
        b"",
        b"\xff\x00",
        b"null",
        b"[]",
        b"{}",
        b"{\"event\":\"exploded\"}",
        &[b'['; 5000],
        &numbers,
        &long,
    ];
    for blob in blobs {
        for subject in [
            "start.dummy.any",
            "start.dummy.direct",
            "start.dummy.nonsense",
            "op.dummy.x",
            "cancel.dummy.x",
        ] {
            stack
                .bus
                .store(format!("ktrdr.{subject}"), blob.to_vec())
                .await;
        }
        for subject in [
            "progress.dummy.x",
            "heartbeat.dummy.w9",
            "heartbeat.request",
            "worker.w1.operation",
        ] {
            stack
                .bus
                .publish(format!("ktrdr.{subject}"), blob.to_vec())
                .await;
        }
        stack
            .bus
            .store("ktrdr.metrics.dummy.x", blob.to_vec())
            .await;
    }
    let id = stack
        .api()
        .started("dummy", &json!({"steps": 1, "step_ms": 1}))
        .await;
    stack.api().wait_for_status(&id, "completed").await;

    let all = stack.api().operations("").await.expect(200);
    assert_eq!(all.at("/data/total"), &json!(1));

    // The queue no longer holds the malformed requests, and none was claimed.
    stack.bus.settled().await;
    assert_eq!(stack.bus.stored("ktrdr.op.dummy.n").await.len(), 0);

    // A log line does not quote all of it.
    for log in [stack.backend.process.log(), worker.process.log()] {
        let longest = log.lines().map(str::len).max();
        assert!(longest < Some(5_000), "{longest:?}");
    }
}

#[tokio::test]
async fn events_that_cannot_follow_are_believed_by_nobody() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;

    let id = stack
        .api()
        .running("dummy", &json!({"steps": 12, "step_ms": 100}))
        .await;
    let forged = json!({
        "event": "completed", "operation_id": id, "attempt": 7, "at": "2026-01-01T00:00:00Z", "worker_id": "evil",
        "result": {"forged": true},
    });
    stack
        .bus
        .store(format!("ktrdr.op.dummy.{id}"), forged.to_string())
        .await;
    stack
        .bus
        .store(format!("ktrdr.op.dummy.{id}"), "noise")
        .await;

    let done = stack.api().wait_for_status(&id, "completed").await;
    assert_eq!(done["result"]["steps"], 12);
    assert_eq!(done["attempt"], 1);
    assert_eq!(done["worker_id"], "w1");
    stack.bus.settled().await;
}

#[tokio::test]
async fn an_operation_started_by_hand_on_the_bus_is_like_any_other() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;

    let request = json!({
        "operation_id": "by-hand", "operation_type": "dummy", "parameters": {"steps": 1, "step_ms": 1},
        "created_at": "2026-01-01T00:00:00Z",
    });
    stack
        .bus
        .store("ktrdr.start.dummy.any", request.to_string())
        .await;
    stack
        .api()
        .wait_for_any_status("by-hand", &["completed"])
        .await;

    // The worker refuses parameters that do not fit its schema.
    let request = json!({
        "operation_id": "wrong", "operation_type": "dummy", "parameters": {"stepz": 1}, "created_at": "2026-01-01T00:00:00Z",
    });
    stack
        .bus
        .store("ktrdr.start.dummy.any", request.to_string())
        .await;

    let failed = stack.api().wait_for_any_status("wrong", &["failed"]).await;
    assert_eq!(failed["error"]["code"], "invalid_request");
}
