//! `ktrdr`: what it says about an operation, what it prints for programs, and how it names things.

use std::fs::File;
use std::process::Stdio;

use ktrdr_tests::{Scratch, Stack};
use serde_json::{Value, json};

use super::command_line::{json_of, ktrdr, run};

/// The documents of an output with one a line.
fn documents(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

#[tokio::test]
async fn errors_are_documents_with_json_and_have_their_code_without() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    let free = ktrdr_tests::process::free_port();
    let nowhere = format!("http://127.0.0.1:{free}");

    for (words, wanted, code, status) in [
        (
            &["show", "nobody"][..],
            2,
            "operation_not_found",
            json!(404),
        ),
        (
            &["start", "dummy", "steps=x"],
            2,
            "invalid_request",
            json!(422),
        ),
        (&["start", "dummy", "steps"], 2, "usage", json!(null)),
        (&["start", "dummy", "-f", "/nope"], 2, "file", json!(null)),
        (&["list", "--url", &nowhere], 3, "unreachable", json!(null)),
    ] {
        let (exit, out, err) = run(&stack, &[words, &["--json"]].concat()).await;
        assert_eq!((exit, out.as_str()), (wanted, ""), "{words:?}: {err}");
        let errors = documents(&err);
        assert_eq!(errors.len(), 1, "{err}");
        assert_eq!(errors[0]["success"], false);
        assert_eq!(errors[0]["code"], code, "{err}");
        assert_eq!(errors[0]["status_code"], status, "{err}");
    }

    let (_, _, err) = run(&stack, &["show", "nobody"]).await;
    assert!(err.contains("(operation_not_found)\n"), "{err}");
}

#[tokio::test]
async fn several_documents_stand_in_a_line_each() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    for id in ["a", "b"] {
        let body = json!({"task_id": id, "steps": 1, "fail_at_step": 1});
        stack.api().started("dummy", &body).await;
        stack.api().wait_for_status(id, "failed").await;
    }

    let (code, out, _) = run(&stack, &["watch", "a", "b", "--json"]).await;
    assert_eq!(code, 1);
    let watched = documents(&out);
    assert_eq!(watched.len(), 2, "{out}");
    assert_eq!(watched[0]["status"], "failed");

    let (code, out, err) = run(&stack, &["retry", "a", "b", "--json"]).await;
    assert_eq!(code, 0, "{err}");
    assert_eq!(documents(&out).len(), 2, "{out}");

    let put = ["schedules", "put", "s", "dummy", "--cron", "0 0 1 1 *"];
    assert_eq!(run(&stack, &put).await.0, 0);
    let deleted = json_of(&stack, &["schedules", "delete", "s", "--json"]).await;
    assert_eq!(deleted["schedule_id"], "s");
}

#[tokio::test]
async fn each_result_of_a_file_names_its_line() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    let scratch = Scratch::new("numbered");
    let file = scratch.join("bodies.jsonl");
    std::fs::write(&file, "{\"steps\": 0}\n\n{bad}\n{\"steps\": 0}\n").unwrap();

    let words = ["start", "dummy", "--many", file.to_str().unwrap(), "--json"];
    let (code, out, err) = run(&stack, &words).await;

    assert_eq!(code, 2, "{err}");
    let results = documents(&out);
    let lines: Vec<&Value> = results.iter().map(|result| &result["line"]).collect();
    assert_eq!(lines, [&json!(1), &json!(3), &json!(4)]);
    let error = results[1]["error"].as_str().unwrap();
    assert!(
        error.starts_with("not JSON: ") && !error.contains("line"),
        "{error}"
    );
    assert_eq!(documents(&err).len(), 1, "{err}");
}

#[tokio::test]
async fn why_an_operation_waits_is_shown_and_its_priority_can_be_changed() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    let execution = r#"execution={"delay_seconds":3600,"queue_timeout_seconds":7200,"concurrency":{"key":"symbol","limit":2}}"#;
    let words = [
        "start", "dummy", execution, "--id", "later", "--label", "batch:7",
    ];
    assert_eq!(run(&stack, &words).await.0, 0);

    let (_, shown, _) = run(&stack, &["show", "later"]).await;
    for part in [
        "for its time: 2",
        "expires ",
        "priority    3",
        "labels      batch:7",
        "concurrency symbol, at most 2 run",
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }

    let (code, out, err) = run(&stack, &["priority", "later", "1"]).await;
    assert_eq!(code, 0, "{err}");
    assert!(
        out.starts_with("later: priority 1, waits for its time: "),
        "{out}"
    );
    let shown = json_of(&stack, &["show", "later", "--json"]).await;
    assert_eq!(shown["priority"], 1);
    assert_eq!(run(&stack, &["priority", "later", "6"]).await.0, 2);
    assert_eq!(run(&stack, &["cancel", "later"]).await.0, 0);
    let (code, _, err) = run(&stack, &["priority", "later", "1"]).await;
    assert_eq!(code, 2);
    assert!(err.contains("(not_waiting)"), "{err}");
}

#[tokio::test]
async fn a_domain_is_taken_for_its_worker_type() {
    let stack = Stack::start().await;
    let _worker = stack.worker("data_processing", "w1").await;

    for name in ["data_processing", "data-processing"] {
        let (code, out, err) = run(&stack, &["list", "--type", name]).await;
        assert_eq!(code, 0, "{name}: {out}{err}");
        let (code, out, _) = run(&stack, &["queues", "pause", name]).await;
        assert_eq!((code, out.as_str()), (0, "data_processing: paused\n"));
    }
    let (code, _, err) = run(&stack, &["list", "--type", "no-such-thing"]).await;
    assert_eq!(code, 2);
    assert!(err.contains("known types: data_processing"), "{err}");
}

#[tokio::test]
async fn a_result_is_printed_however_large_it_is() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    let words = [
        "start",
        "dummy",
        "steps=1",
        "step_ms=0",
        "result_bytes=600000",
    ];
    let words = [&words[..], &["--id", "large", "--wait"]].concat();
    let (code, out, err) = run(&stack, &words).await;
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("ktrdr result large"), "{out}");

    let result = json_of(&stack, &["result", "large"]).await;

    assert!(result.to_string().len() > 600_000);
}

#[tokio::test]
async fn what_this_machine_cannot_do_has_an_exit_code_of_its_own() {
    let stack = Stack::start().await;

    let mut list = ktrdr(&stack, &["list"]);
    list.stdout(File::options().write(true).open("/dev/full").unwrap());
    list.stderr(Stdio::null());
    let status = tokio::task::spawn_blocking(move || list.status().unwrap());

    assert_eq!(status.await.unwrap().code(), Some(4));
}

#[tokio::test]
async fn a_label_is_given_once() {
    let stack = Stack::start().await;

    let words = ["start", "dummy", "--label", "a:1", "--label", "a:2"];
    let (code, _, err) = run(&stack, &words).await;

    assert_eq!(code, 2, "{err}");
    assert!(err.contains("the label a is given twice"), "{err}");
}
