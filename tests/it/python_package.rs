//! Workers with the Python package (`clients/python`).

use std::process::Command;
use std::time::Duration;

use ktrdr_tests::process::{Process, program};
use ktrdr_tests::settings::repository;
use ktrdr_tests::{LIMIT, Scratch, Settings, Stack, wait_for};
use serde_json::{Value, json};

/// A Python program, started as a person would. It becomes `ktrdr-worker`.
fn start(settings: &Settings, file: &str, worker_type: &str, scratch: &Scratch) -> Process {
    let mut command = Command::new("python3");
    command
        .arg(repository().join(file))
        .args(["--concurrency", "2", "--stop-grace", "500ms"])
        .envs(settings.worker_env(worker_type))
        .envs(settings.extra.clone())
        .env("PYTHONPATH", repository().join("clients/python/src"))
        .env("KTRDR_WORKER_BIN", program("ktrdr-worker"))
        .env("WORKER_ID", "p1")
        .current_dir(scratch.path());
    Process::spawn("p1", command, &scratch.join("log"))
}

async fn result(stack: &Stack, domain: &str, body: Value) -> Value {
    let id = stack.api().started(domain, &body).await;
    stack.api().wait_for_status(&id, "completed").await;
    let path = format!("/api/v1/operations/{id}/results");
    let answer = stack.api().get(&path).await.expect(200);
    answer.at("/data").clone()
}

#[tokio::test]
async fn the_example_of_its_page_counts_words_and_what_does_not_fit_is_refused() {
    let stack = Stack::start().await;
    let scratch = Scratch::new("python");
    let example = "clients/python/examples/word_count.py";
    let _worker = start(&stack.settings, example, "word_count_py", &scratch);
    stack.api().wait_for_worker("p1", "AVAILABLE").await;

    let body = json!({"file": "messy/titanic.csv", "top": 1});
    let counted = result(&stack, "word-count-py", body).await;
    assert!(counted["words"].as_u64().unwrap() > 1000, "{counted}");
    assert_eq!(counted["most_frequent"].as_array().unwrap().len(), 1);

    for wrong in [
        json!({"file": 7}),
        json!({"file": "a", "topp": 1}),
        json!({"file": "a", "top": 0}),
        json!({}),
    ] {
        stack.api().start("word-count-py", &wrong).await.expect(422);
    }
    let outside = json!({"file": "../Cargo.toml"});
    let id = stack.api().started("word-count-py", &outside).await;
    let failed = stack.api().wait_for_status(&id, "failed").await;
    assert_eq!(failed["error"]["code"], "invalid_request");
    assert_eq!(failed["error"]["permanent"], true);
}

#[tokio::test]
async fn a_python_worker_is_cancelled_fails_forks_and_stops() {
    let stack = Stack::start_with(|mut settings| {
        settings.cancel_grace = Duration::from_secs(600);
        settings
    })
    .await;
    let scratch = Scratch::new("python");
    let job = "tests/data/exec/python_job.py";
    let mut worker = start(&stack.settings, job, "python_job", &scratch);
    stack.api().wait_for_worker("p1", "AVAILABLE").await;

    let id = stack
        .api()
        .running("python-job", &json!({"do": "loop"}))
        .await;
    stack.api().cancel(&id).await.expect(200);
    let cancelled = stack.api().wait_for_status(&id, "cancelled").await;
    assert!(!worker.log().contains("killing it"), "{cancelled}");

    let id = stack
        .api()
        .started("python-job", &json!({"do": "fail"}))
        .await;
    let failed = stack.api().wait_for_status(&id, "failed").await;
    let message = failed["error_message"].as_str().unwrap();
    assert!(
        message.starts_with("ValueError: no such column: age\n"),
        "{message}"
    );
    assert!(message.contains("python_job.py"), "{message}");

    assert_eq!(
        result(&stack, "python-job", json!({"do": "fork"})).await,
        "from the parent"
    );
    assert_eq!(
        result(&stack, "python-job", json!({"do": "print"})).await,
        json!({"nan": null})
    );
    wait_for("the line in the log", LIMIT, async || {
        let log = worker.log();
        if log.contains("program: printed by the job") {
            Ok(())
        } else {
            Err(log)
        }
    })
    .await;
    log_lines_are_kept(&stack).await;
    assert_eq!(
        result(&stack, "python-job", json!({"do": "steps", "steps": 4})).await,
        0
    );

    let id = stack
        .api()
        .running("python-job", &json!({"do": "loop"}))
        .await;
    assert!(worker.stop().await.success());
    let waiting = stack.api().wait_for_status(&id, "pending").await;
    assert_eq!(waiting["attempts"][0]["outcome"], "released");
}

/// What `logging`, the context and `print` say, as log lines of the operation.
async fn log_lines_are_kept(stack: &Stack) {
    let body = json!({"do": "log"});
    let id = stack.api().started("python-job", &body).await;
    stack.api().wait_for_status(&id, "completed").await;
    let answer = stack
        .api()
        .get(&format!("/api/v1/operations/{id}/logs"))
        .await;

    let lines = answer.at("/data/lines").as_array().unwrap();
    let of = |text: &str| {
        let mut found = lines.iter();
        let found = found.find(|line| line["text"].as_str().unwrap().starts_with(text));
        found.unwrap_or_else(|| panic!("no {text}: {answer}"))
    };
    assert_eq!(lines.len(), 5, "{answer}");
    for (text, level, fields) in [
        ("rows without a price: 3", "warn", json!({"logger": "job"})),
        ("plain", "info", Value::Null),
        ("by the context", "error", json!({"row": 7})),
        ("it failed\nTraceback", "error", Value::Null),
        ("printed", "info", Value::Null),
    ] {
        let line = of(text);
        assert_eq!((&line["level"], &line["fields"]), (&json!(level), &fields));
    }
}

/// Starts an operation, cancels it while it runs, and waits until it is cancelled.
async fn cancelled(stack: &Stack, domain: &str, body: Value) {
    let id = stack.api().running(domain, &body).await;
    stack.api().cancel(&id).await.expect(200);
    stack.api().wait_for_status(&id, "cancelled").await;
}

#[tokio::test]
async fn the_workers_of_a_file_are_cancelled_and_go_on_with_the_next_operation() {
    let stack = Stack::start_with(|mut settings| {
        settings.cancel_grace = Duration::from_secs(600);
        settings
    })
    .await;
    let scratch = Scratch::new("python");
    let mut command = Command::new(program("ktrdr"));
    command
        .arg("run")
        .arg(repository().join("tests/data/exec/python_jobs.py"))
        // Neither of them is ever killed.
        .args(["--stop-grace", "600s"])
        .envs(stack.settings.worker_env("python_deaf"))
        .envs(stack.settings.extra.clone())
        .env("PYTHONPATH", repository().join("clients/python/src"))
        .current_dir(scratch.path());
    let mut workers = Process::spawn("ktrdr run", command, &scratch.join("log"));
    wait_for("both worker types", LIMIT, async || {
        let types = stack.api().get("/api/v1/worker-types").await.to_string();
        if types.contains("python_deaf") && types.contains("python_async") {
            Ok(())
        } else {
            Err(types)
        }
    })
    .await;

    for _ in 0..3 {
        cancelled(&stack, "python-deaf", json!({"forever": true})).await;
        cancelled(&stack, "python-async", json!({"seconds": 600})).await;
    }
    let done = result(&stack, "python-deaf", json!({"forever": false})).await;
    assert_eq!(done, "done");
    let done = result(&stack, "python-async", json!({"seconds": 0})).await;
    assert_eq!(done, "done");

    assert!(workers.stop().await.success(), "{}", workers.log());
    assert!(
        !workers.log().contains("exiting at once"),
        "{}",
        workers.log()
    );
}
