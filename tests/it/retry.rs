//! Running an operation again: retry from the beginning, resume and takeover from a checkpoint.

use ktrdr_shared::id::OperationId;
use ktrdr_tests::{LIMIT, Stack, wait_for};
use reqwest::Method;
use serde_json::{Value, json};

/// A training long enough to be interrupted, with a checkpoint after every epoch.
async fn training_stack() -> Stack {
    Stack::start_with(|settings| {
        let data = std::env::temp_dir().join(format!("ktrdr-retry-{}", OperationId::generate()));
        std::fs::create_dir_all(&data).unwrap();
        std::fs::copy(settings.data_dir.join("GOOG_1d.csv"), data.join("GOOG_1d.csv")).unwrap();
        settings.data_dir(data).with("KTRDR_CHECKPOINT_INTERVAL", "0s")
    })
    .await
}

fn training(id: &str) -> Value {
    json!({"task_id": id, "symbol": "GOOG", "timeframe": "1d", "epochs": 150, "model_file": format!("models/{id}.json")})
}

async fn epochs_saved(stack: &Stack, id: &str) -> u64 {
    let bucket = stack.bus.jetstream.get_key_value("KTRDR_CHECKPOINTS").await.unwrap();
    let entry = bucket.get(id).await.unwrap();
    entry.map_or(0, |bytes| {
        let entry: Value = serde_json::from_slice(&bytes).unwrap();
        entry["state"]["history"].as_array().map_or(0, |epochs| epochs.len() as u64)
    })
}

async fn wait_for_checkpoint(stack: &Stack, id: &str) {
    wait_for("a checkpoint", LIMIT, async || match epochs_saved(stack, id).await {
        0 => Err("none".to_owned()),
        _ => Ok(()),
    })
    .await;
}

async fn metric_epochs(stack: &Stack, id: &str) -> usize {
    let metrics = stack.api().get(&format!("/api/v1/operations/{id}/metrics?limit=10000")).await.expect(200);
    let points = metrics.at("/data/metrics").as_array().unwrap().clone();
    points.iter().filter(|point| point["name"] == "val_loss").count()
}

#[tokio::test]
async fn a_training_whose_worker_is_killed_goes_on_at_its_checkpoint_with_the_same_numbers() {
    let stack = training_stack().await;
    let mut first = stack.worker("training", "t1").await;
    let _ = stack.api().start("training", &training("undisturbed")).await.expect(202);
    let whole = stack.api().wait_for_status("undisturbed", "completed").await;
    let _ = stack.api().start("training", &training("killed")).await.expect(202);
    wait_for_checkpoint(&stack, "killed").await;
    first.process.kill();
    let saved = epochs_saved(&stack, "killed").await as usize;
    let _second = stack.worker("training", "t2").await;
    let done = stack.api().wait_for_status("killed", "completed").await;
    assert_eq!(done["attempt"], 2);
    assert_eq!(done["result"]["history"], whole["result"]["history"]);
    let weights = |id: &str| {
        let file = std::fs::read(stack.settings.data_dir.join(format!("models/{id}.json"))).unwrap();
        serde_json::from_slice::<Value>(&file).unwrap()["layers"].take()
    };
    assert!(weights("killed").is_array());
    assert!(weights("killed") == weights("undisturbed"), "the models differ");
    // The second attempt did not measure the saved epochs again.
    let second_attempt = metric_epochs(&stack, "killed").await;
    assert!(second_attempt < 300 - saved, "{second_attempt} epochs were measured, {saved} were saved");
    wait_for("the checkpoint's removal", LIMIT, async || match epochs_saved(&stack, "killed").await {
        0 => Ok(()),
        n => Err(format!("{n} epochs")),
    })
    .await;
    std::fs::remove_dir_all(&stack.settings.data_dir).unwrap();
}

#[tokio::test]
async fn a_cancelled_training_is_resumed_as_a_new_operation() {
    let stack = training_stack().await;
    let _worker = stack.worker("training", "t1").await;
    let _ = stack.api().start("training", &training("first")).await.expect(202);
    wait_for_checkpoint(&stack, "first").await;
    stack.api().cancel("first").await.expect(200);
    stack.api().wait_for_status("first", "cancelled").await;
    let saved = epochs_saved(&stack, "first").await as usize;
    assert!(saved > 0);
    let answer = stack.api().post("/api/v1/operations/first/resume", &json!({})).await.expect(202);
    let id = answer.json["operation_id"].as_str().unwrap().to_owned();
    let done = stack.api().wait_for_status(&id, "completed").await;
    assert_eq!(done["retry_of"], "first");
    assert_eq!(done["result"]["history"].as_array().unwrap().len(), 150);
    assert_eq!(metric_epochs(&stack, &id).await, 150 - saved);
    // What has ended stays as it ended.
    assert_eq!(stack.api().operation("first").await.json["status"], "cancelled");
    std::fs::remove_dir_all(&stack.settings.data_dir).unwrap();
}

#[tokio::test]
async fn a_failed_operation_is_retried_with_its_own_parameters() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    let body = json!({"steps": 3, "step_ms": 1, "fail_at_step": 2, "execution": {"timeout_seconds": 60}});
    let id = stack.api().started("dummy", &body).await;
    stack.api().wait_for_status(&id, "failed").await;
    let path = format!("/api/v1/operations/{id}/retry");
    let retry = || stack.api().send(stack.api().request(Method::POST, &path).header("idempotency-key", "once"));
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
        let answer = stack.api().post(&format!("/api/v1/operations/{id}/{verb}"), &json!({})).await;
        answer.expect_problem(409, "not_repeatable");
        stack.api().post(&format!("/api/v1/operations/none/{verb}"), &json!({})).await.expect(404);
    }
}
