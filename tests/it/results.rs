//! Results: small ones in the log, large ones in the object store, none before the end.

use ktrdr_tests::Stack;
use serde_json::json;

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
    let (_worker, gate) = stack.gate_worker("g1").await;

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
