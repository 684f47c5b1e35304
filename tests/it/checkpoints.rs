//! Checkpoints: takeovers and resumes continue from them and do no work twice.

use std::fs::{self, File};
use std::path::Path;

use ktrdr_protocol::id::OperationId;
use ktrdr_tests::process::Signal;
use ktrdr_tests::{LIMIT, Scratch, Settings, Stack, WorkerProcess, wait_for};
use serde_json::{Value, json};

/// A training long enough to be interrupted, with a checkpoint after every epoch.
async fn training_stack() -> Stack {
    Stack::start_with(|settings| {
        let data = std::env::temp_dir().join(format!("ktrdr-retry-{}", OperationId::generate()));
        fs::create_dir_all(&data).unwrap();
        fs::copy(
            settings.data_dir.join("GOOG_1d.csv"),
            data.join("GOOG_1d.csv"),
        )
        .unwrap();
        settings
            .data_dir(data)
            .with("KTRDR_CHECKPOINT_INTERVAL", "0s")
    })
    .await
}

fn training(id: &str) -> Value {
    json!({"task_id": id, "symbol": "GOOG", "timeframe": "1d", "epochs": 150, "model_file": format!("models/{id}.json")})
}

async fn epochs_saved(stack: &Stack, id: &str) -> u64 {
    let bucket = stack
        .bus
        .jetstream
        .get_key_value("KTRDR_CHECKPOINTS")
        .await
        .unwrap();
    let entry = bucket.get(format!("training.{id}")).await.unwrap();
    entry.map_or(0, |bytes| {
        let entry: Value = serde_json::from_slice(&bytes).unwrap();
        entry["state"]["history"]
            .as_array()
            .map_or(0, |epochs| epochs.len() as u64)
    })
}

async fn wait_for_checkpoint(stack: &Stack, id: &str) {
    wait_for("a checkpoint", LIMIT, async || {
        match epochs_saved(stack, id).await {
            0 => Err("none".to_owned()),
            _ => Ok(()),
        }
    })
    .await;
}

async fn metric_epochs(stack: &Stack, id: &str) -> usize {
    let metrics = stack
        .api()
        .get(&format!("/api/v1/operations/{id}/metrics?limit=10000"))
        .await
        .expect(200);
    let points = metrics.at("/data/metrics").as_array().unwrap().clone();
    points
        .iter()
        .filter(|point| point["name"] == "val_loss")
        .count()
}

#[tokio::test]
async fn a_training_whose_worker_is_killed_resumes_from_its_checkpoint_with_the_same_numbers() {
    let stack = training_stack().await;
    let mut first = stack.worker("training", "t1").await;

    let whole = undisturbed(&stack, "training", training("undisturbed")).await;

    stack.api().started("training", &training("killed")).await;
    wait_for_checkpoint(&stack, "killed").await;
    first.process.kill();
    let saved = epochs_saved(&stack, "killed").await as usize;
    let _second = stack.worker("training", "t2").await;

    let done = stack.api().wait_for_status("killed", "completed").await;
    assert_eq!(done["attempt"], 2);
    assert_eq!(done["result"]["history"], whole["result"]["history"]);

    let weights = |id: &str| {
        let file = fs::read(stack.settings.data_dir.join(format!("models/{id}.json"))).unwrap();
        serde_json::from_slice::<Value>(&file).unwrap()["layers"].take()
    };
    assert!(weights("killed").is_array());
    assert!(
        weights("killed") == weights("undisturbed"),
        "the models differ"
    );

    // The second attempt did not measure the saved epochs again.
    let second_attempt = metric_epochs(&stack, "killed").await;
    assert!(
        second_attempt < 300 - saved,
        "{second_attempt} epochs were measured, {saved} were saved"
    );

    wait_for(
        "the checkpoint's removal",
        LIMIT,
        async || match epochs_saved(&stack, "killed").await {
            0 => Ok(()),
            n => Err(format!("{n} epochs")),
        },
    )
    .await;
    fs::remove_dir_all(&stack.settings.data_dir).unwrap();
}

#[tokio::test]
async fn a_cancelled_training_is_resumed_as_a_new_operation() {
    let stack = training_stack().await;
    let _worker = stack.worker("training", "t1").await;

    stack.api().started("training", &training("first")).await;
    wait_for_checkpoint(&stack, "first").await;
    stack.api().cancel("first").await.expect(200);
    stack.api().wait_for_status("first", "cancelled").await;

    let saved = epochs_saved(&stack, "first").await as usize;
    assert!(saved > 0);

    let answer = stack
        .api()
        .post("/api/v1/operations/first/resume", &json!({}))
        .await
        .expect(202);
    let id = answer.json["operation_id"].as_str().unwrap().to_owned();
    let done = stack.api().wait_for_status(&id, "completed").await;
    assert_eq!(done["retry_of"], "first");
    assert_eq!(done["result"]["history"].as_array().unwrap().len(), 150);
    assert_eq!(metric_epochs(&stack, &id).await, 150 - saved);

    // The cancelled operation stays as it was.
    assert_eq!(
        stack.api().operation("first").await.json["status"],
        "cancelled"
    );

    fs::remove_dir_all(&stack.settings.data_dir).unwrap();
}

/// A file that takes seconds to clean in a debug build, and a checkpoint as often as possible.
async fn data_stack() -> (Scratch, Stack) {
    let data = Scratch::new("resume");

    let rows: String = (0..ROWS)
        .map(|n| format!("{n},{},\"some text, {}\"\n", n * 7919 % 1000, n % 100))
        .collect();
    fs::write(data.join("big.csv"), format!("n,x,text\n{rows}")).unwrap();
    let change = |settings: Settings| {
        settings
            .data_dir(data.path())
            .with("KTRDR_CHECKPOINT_INTERVAL", "0s")
    };
    let stack = Stack::start_with(change).await;

    (data, stack)
}

const ROWS: usize = 200_000;

fn cleaning(id: &str) -> Value {
    // One pass; the rules only take time.
    let rules = vec![json!({"column": "x", "rule": "max", "value": 998}); 60];
    let operations = json!([{"op": "clean", "missing": {"text": "ffill"}}, {"op": "validate", "rules": rules, "max_errors": 3}]);
    json!({"task_id": id, "source_file": "big.csv", "output_file": format!("{id}.csv"), "operations": operations})
}

/// Where the stored checkpoint is in the source: row and byte.
async fn position_saved(stack: &Stack, id: &str) -> Option<(u64, u64)> {
    let bucket = stack
        .bus
        .jetstream
        .get_key_value("KTRDR_CHECKPOINTS")
        .await
        .unwrap();
    let entry: Value =
        serde_json::from_slice(&bucket.get(format!("data_processing.{id}")).await.unwrap()?)
            .unwrap();
    let position = &entry["state"]["position"];
    Some((
        position["rows"].as_u64().unwrap(),
        position["offset"].as_u64().unwrap(),
    ))
}

async fn wait_for_rows_saved(stack: &Stack, id: &str, least: u64) {
    wait_for("a checkpoint", LIMIT, async || {
        match position_saved(stack, id).await {
            Some((rows, _)) if rows >= least => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

/// Makes the rows before the checkpoint unreadable without changing the file's size or time: an
/// attempt that reads them again fails.
fn spoil_rows_before(source: &Path, offset: u64) {
    let modified = source.metadata().unwrap().modified().unwrap();
    let mut text = fs::read(source).unwrap();
    text["n,x,text\n".len()..usize::try_from(offset).unwrap()].fill(0xff);
    fs::write(source, text).unwrap();
    File::options()
        .write(true)
        .open(source)
        .unwrap()
        .set_modified(modified)
        .unwrap();
}

/// The operation `undisturbed`, run to its end: what an interrupted one must come to as well.
async fn undisturbed(stack: &Stack, domain: &str, body: Value) -> Value {
    stack.api().started(domain, &body).await;

    stack
        .api()
        .wait_for_status("undisturbed", "completed")
        .await
}

/// The result without the fields that differ between two runs.
fn figures(operation: &Value) -> Value {
    let mut result = operation["result"].clone();
    result["duration_seconds"].take();
    result["output_file"].take();
    result
}

/// Whether the worker's log says that it continued after this row.
fn continued_after(worker: &WorkerProcess, row: u64) -> bool {
    let log = worker.process.log();
    log.lines()
        .any(|line| line.contains("resuming after a row") && line.contains(&row.to_string()))
}

#[tokio::test]
async fn a_cleaning_whose_worker_is_killed_resumes_after_its_checkpoint_and_writes_the_same_table()
{
    let (data, stack) = data_stack().await;
    let mut first = stack.worker("data_processing", "d1").await;

    let whole = undisturbed(&stack, "data-processing", cleaning("undisturbed")).await;

    stack
        .api()
        .started("data-processing", &cleaning("killed"))
        .await;
    wait_for_rows_saved(&stack, "killed", 1000).await;
    first.process.kill();
    let (row, offset) = position_saved(&stack, "killed")
        .await
        .expect("the run was over before it was killed");

    assert!(!data.join("killed.csv").exists());

    spoil_rows_before(&data.join("big.csv"), offset);
    let second = stack.worker("data_processing", "d2").await;

    let done = stack.api().wait_for_status("killed", "completed").await;
    assert_eq!(done["attempt"], 2);
    assert_eq!(figures(&done), figures(&whole));
    assert!(
        fs::read(data.join("killed.csv")).unwrap()
            == fs::read(data.join("undisturbed.csv")).unwrap()
    );
    assert!(continued_after(&second, row), "{}", second.process.log());
    assert!(!data.join(".unfinished").exists());
}

#[tokio::test]
async fn a_cleaning_whose_worker_is_asked_to_stop_resumes_where_it_stopped() {
    let (data, stack) = data_stack().await;
    let mut first = stack.worker("data_processing", "d1").await;

    stack
        .api()
        .started("data-processing", &cleaning("handed-back"))
        .await;
    wait_for_rows_saved(&stack, "handed-back", 1000).await;

    assert!(
        first.process.stop().await.success(),
        "{}",
        first.process.log()
    );

    let (row, offset) = position_saved(&stack, "handed-back")
        .await
        .expect("the run was over before it was stopped");
    spoil_rows_before(&data.join("big.csv"), offset);
    let second = stack.worker("data_processing", "d2").await;

    let done = stack
        .api()
        .wait_for_status("handed-back", "completed")
        .await;
    assert_eq!(
        (
            &done["attempts"][0]["outcome"],
            &done["result"]["rows_processed"]
        ),
        (&json!("released"), &json!(ROWS))
    );
    assert_eq!(
        fs::read_to_string(data.join("handed-back.csv"))
            .unwrap()
            .lines()
            .count(),
        ROWS + 1
    );
    assert!(continued_after(&second, row), "{}", second.process.log());
    assert!(!data.join(".unfinished").exists());
}

#[tokio::test]
async fn a_cancelled_cleaning_is_resumed_as_a_new_operation() {
    let (data, stack) = data_stack().await;
    let worker = stack.worker("data_processing", "d1").await;

    stack
        .api()
        .started("data-processing", &cleaning("first"))
        .await;
    wait_for_rows_saved(&stack, "first", 1000).await;
    stack.api().cancel("first").await.expect(200);
    stack.api().wait_for_status("first", "cancelled").await;

    assert!(data.join(".unfinished/first").exists());

    let (row, offset) = position_saved(&stack, "first").await.expect("it is kept");
    spoil_rows_before(&data.join("big.csv"), offset);

    let answer = stack
        .api()
        .post("/api/v1/operations/first/resume", &json!({}))
        .await
        .expect(202);
    let id = answer.json["operation_id"].as_str().unwrap();
    let done = stack.api().wait_for_status(id, "completed").await;
    assert_eq!(
        (&done["retry_of"], &done["result"]["rows_processed"]),
        (&json!("first"), &json!(ROWS))
    );

    let written = fs::read_to_string(data.join("first.csv")).unwrap();
    assert_eq!(written.lines().count(), ROWS + 1);
    assert!(written.starts_with("n,x,text\n0,0,\"some text, 0\"\n1,919,"));
    assert!(continued_after(&worker, row), "{}", worker.process.log());
    assert!(!data.join(".unfinished").exists());
}

#[tokio::test]
async fn a_cleaning_that_was_frozen_disturbs_neither_the_one_that_took_over_nor_its_files() {
    let (data, stack) = data_stack().await;
    let mut first = stack.worker("data_processing", "d1").await;

    stack
        .api()
        .started("data-processing", &cleaning("frozen"))
        .await;
    wait_for_rows_saved(&stack, "frozen", 1000).await;
    first.process.signal(Signal::Stop);
    let _second = stack.worker("data_processing", "d2").await;

    stack
        .bus
        .wait_for_takeover("data_processing", "frozen")
        .await;

    // Both attempts run now.
    first.process.signal(Signal::Cont);

    let done = stack.api().wait_for_status("frozen", "completed").await;
    assert_eq!(
        (&done["worker_id"], &done["result"]["rows_processed"]),
        (&json!("d2"), &json!(ROWS))
    );

    let freed = stack.api().wait_for_worker("d1", "AVAILABLE").await;
    assert_eq!(freed["fenced"], 1, "{freed}");
    assert_eq!(
        fs::read_to_string(data.join("frozen.csv"))
            .unwrap()
            .lines()
            .count(),
        ROWS + 1
    );

    let left = || {
        fs::read_dir(data.join(".unfinished/frozen"))
            .map(|files| files.flatten().map(|f| f.path()).collect::<Vec<_>>())
    };
    wait_for("the files to be gone", LIMIT, async || match left() {
        Err(_) => Ok(()),
        Ok(files) => Err(format!("{files:?}")),
    })
    .await;
}

/// Whose checkpoint a resume would begin with.
async fn resumes_from(stack: &Stack, id: &str) -> Value {
    let path = format!("/api/v1/operations/{id}/checkpoint");
    let answer = stack.api().get(&path).await.expect(200);
    assert_eq!(answer.at("/data/operation_id"), id);
    answer.at("/data/resumes_from").clone()
}

#[tokio::test]
async fn it_is_told_whether_a_resume_would_begin_with_a_checkpoint() {
    let stack = training_stack().await;
    let worker = stack.worker("training", "t1").await;
    let _dummy = stack.worker("dummy", "d1").await;

    // Nothing was saved.
    let fails = json!({"task_id": "fails", "steps": 3, "step_ms": 1, "fail_at_step": 1});
    stack.api().started("dummy", &fails).await;
    stack.api().wait_for_status("fails", "failed").await;
    assert_eq!(resumes_from(&stack, "fails").await, Value::Null);
    stack
        .api()
        .get("/api/v1/operations/nobody/checkpoint")
        .await
        .expect_problem(404, "operation_not_found");

    // A cancelled training has one of its own.
    let mut long = training("first");
    long["epochs"] = json!(100_000);
    stack.api().started("training", &long).await;
    wait_for_checkpoint(&stack, "first").await;
    stack.api().cancel("first").await.expect(200);
    stack.api().wait_for_status("first", "cancelled").await;
    assert_eq!(resumes_from(&stack, "first").await, "first");

    // A resume that never ran would begin where the first one stopped.
    drop(worker);
    let answer = stack
        .api()
        .post("/api/v1/operations/first/resume", &json!({}))
        .await
        .expect(202);
    let second = answer.json["operation_id"].as_str().unwrap().to_owned();
    stack.api().cancel(&second).await.expect(200);
    stack.api().wait_for_status(&second, "cancelled").await;
    assert_eq!(resumes_from(&stack, &second).await, "first");

    fs::remove_dir_all(&stack.settings.data_dir).unwrap();
}
