//! Logs as one JSON object per line, with fields that connect the lines of one operation across
//! programs.

use ktrdr_tests::process::Process;
use ktrdr_tests::{LIMIT, Settings, Stack, WorkerProcess, wait_for};
use reqwest::Method;
use serde_json::{Value, json};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// The lines whose message begins with `message`, each with the fields of its span.
fn lines(process: &Process, message: &str) -> Vec<Value> {
    let log = process.log();
    let lines = log.lines().map(|line| {
        serde_json::from_str::<Value>(line)
            .unwrap_or_else(|error| panic!("a line that is no JSON ({error}): {line}"))
    });
    let is_wanted = |line: &Value| {
        let text = line["message"].as_str().unwrap_or_default();
        text.starts_with(message)
    };
    lines.filter(is_wanted).collect()
}

#[tokio::test]
async fn an_operation_is_followed_from_the_request_into_the_worker() {
    let stack =
        Stack::start_with(|settings: Settings| settings.with("KTRDR_LOG_JSON", "true")).await;
    let worker = stack.worker("dummy", "w1").await;

    let request = stack.api().request(Method::POST, "/api/v1/dummy/start");
    let request = request
        .header("traceparent", format!("00-{TRACE}-00f067aa0ba902b7-01"))
        .header("x-request-id", "mine");
    let body = json!({"task_id": "followed", "steps": 1, "fail_at_step": 1});
    stack.api().send(request.json(&body)).await.expect(202);
    stack.api().wait_for_status("followed", "failed").await;

    let accepted = lines(&stack.backend.process, "accepted");
    assert_eq!(accepted.len(), 1, "{accepted:?}");

    let span = &accepted[0]["span"];
    assert_eq!(
        (&span["request_id"], &span["trace_id"]),
        (&json!("mine"), &json!(TRACE)),
        "{accepted:?}"
    );
    assert_eq!(accepted[0]["operation_id"], "followed");

    // Also the last line of the HTTP request.
    let answered = lines(&stack.backend.process, "request");
    assert!(
        answered
            .iter()
            .any(|line| line["span"]["operation_id"] == "followed"),
        "{answered:?}"
    );

    for message in ["Starting operation: followed", "the attempt failed"] {
        wait_for("the worker's line", LIMIT, async || {
            match lines(&worker.process, message).first() {
                Some(line)
                    if line["span"]["operation_id"] == "followed"
                        && line["span"]["trace_id"] == TRACE =>
                {
                    Ok(())
                }
                other => Err(format!("{message}: {other:?}")),
            }
        })
        .await;
    }
}

#[tokio::test]
async fn the_lines_of_the_guide_are_there_and_a_backend_writes_one_for_an_operation() {
    let stack = Stack::start_with(|settings: Settings| {
        let log = "info".to_owned();
        Settings { log, ..settings }
    })
    .await;
    let mut worker = stack.worker("dummy", "w1").await;

    let body = json!({"task_id": "seen", "steps": 0});
    stack.api().started("dummy", &body).await;
    stack.api().wait_for_status("seen", "completed").await;
    worker.process.kill();
    stack
        .api()
        .wait_for_worker("w1", "TEMPORARILY_UNAVAILABLE")
        .await;

    let own = worker.process.log();
    for line in [
        "Registering worker with backend at nats://",
        "Worker registered successfully",
        "Starting operation: seen",
        "Operation completed: seen",
    ] {
        assert!(own.contains(line), "no {line:?} in {own}");
    }

    wait_for("the backend's lines", LIMIT, async || {
        let log = stack.backend.process.log();
        let lines = [
            "Worker registered: w1",
            "Selected worker: w1",
            "Health check failed: w1",
        ];
        if lines.iter().all(|line| log.contains(line)) {
            Ok(())
        } else {
            Err(log)
        }
    })
    .await;
    let log = stack.backend.process.log();
    let about: Vec<&str> = log.lines().filter(|line| line.contains("seen")).collect();
    assert_eq!(about.len(), 1, "{log}");
}

#[tokio::test]
async fn two_workers_with_one_id_are_told_of() {
    let stack = Stack::start().await;
    let _first = stack.worker("dummy", "same").await;
    let _second = WorkerProcess::start(&stack.settings, "dummy", "same").await;

    wait_for("a warning", LIMIT, async || {
        let log = stack.backend.process.log();
        if log.contains("two workers have this id") {
            Ok(())
        } else {
            Err(log)
        }
    })
    .await;
}
