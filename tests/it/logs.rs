//! Logs as one JSON object per line, with fields that connect the lines of one operation across
//! programs.

use ktrdr_tests::process::Process;
use ktrdr_tests::{LIMIT, Settings, Stack, WorkerProcess, wait_for};
use reqwest::Method;
use serde_json::{Value, json};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// The lines with this `message`, each with the fields of its span.
fn lines(process: &Process, message: &str) -> Vec<Value> {
    let log = process.log();
    let lines = log.lines().map(|line| {
        serde_json::from_str::<Value>(line)
            .unwrap_or_else(|error| panic!("a line that is no JSON ({error}): {line}"))
    });
    lines.filter(|line| line["message"] == message).collect()
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

    for message in ["operation started", "the attempt failed"] {
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
