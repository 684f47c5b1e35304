//! Programs that know nothing of workers (`ktrdr-worker --exec-simple`), in bash, awk, Python and node.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use ktrdr_tests::process::program;
use ktrdr_tests::settings::repository;
use ktrdr_tests::{Scratch, Stack, WorkerProcess};
use serde_json::{Value, json};

async fn stack() -> Stack {
    Stack::start_with(|mut settings| {
        settings.cancel_grace = Duration::from_secs(600);
        settings.with("WORKER_STOP_GRACE", "200ms")
    })
    .await
}

/// A worker of the type `shell` that runs this command.
async fn worker(stack: &Stack, command: &str, more: &[&str]) -> WorkerProcess {
    let words = ["ktrdr-worker", "--exec-simple", command];
    let words: Vec<&str> = words.iter().chain(more).copied().collect();
    let worker = WorkerProcess::launch_program(&stack.settings, &words, "shell", "s1");
    stack.api().wait_for_worker("s1", "AVAILABLE").await;
    worker
}

async fn ends(stack: &Stack, body: Value, status: &str) -> Value {
    let id = stack.api().started("shell", &body).await;
    let mut operation = stack.api().wait_for_status(&id, status).await;
    if status == "completed" {
        let path = format!("/api/v1/operations/{id}/results");
        let answer = stack.api().get(&path).await.expect(200);
        operation["result"] = answer.at("/data").clone();
    }
    operation
}

#[tokio::test]
async fn the_exit_code_says_how_a_script_ended() {
    let stack = stack().await;
    let scratch = Scratch::new("script");
    let script = scratch.join("job.sh");
    std::fs::write(
        &script,
        r#"
        read -r parameters
        echo "ktrdr-progress 40 looking at it"
        case $parameters in
            *'"do":"list"'*) echo "one line"; echo '{"rows": 3}' ;;
            *'"do":"file"'*) echo "before the file"; printf 'a text' >"$KTRDR_RESULT_FILE" ;;
            *'"do":"fail"'*) echo "no such table" >&2; echo "told at last"; exit 1 ;;
            *'"do":"retry"'*) ((KTRDR_ATTEMPT > 1)) || exit 75; echo "$KTRDR_ATTEMPT" ;;
            *'"do":"crash"'*) kill -SEGV $$ ;;
            *'"do":"wait"'*) sleep 3600 & wait ;;
            *'"do":"hang"'*) trap '' TERM; sleep 3600 & wait; sleep 3600 ;;
        esac
        "#,
    )
    .unwrap();
    let schema = scratch.join("schema.json");
    std::fs::write(
        &schema,
        r#"{"type": "object", "properties": {"do": {"type": "string"}}, "required": ["do"]}"#,
    )
    .unwrap();
    let command = format!("bash {}", script.display());
    let schema = schema.display().to_string();
    let worker = worker(&stack, &command, &["--exec-schema", &schema]).await;
    stack.api().start("shell", &json!({})).await.expect(422);

    let done = ends(&stack, json!({"do": "list"}), "completed").await;
    assert_eq!(done["result"], json!({"rows": 3}));
    assert_eq!(done["progress"]["current_step"], "looking at it");
    let log = worker.process.log();
    assert!(log.contains("program: one line"), "{log}");
    assert_eq!(stack.api().log_texts(&done).await, ["one line"]);
    let done = ends(&stack, json!({"do": "file"}), "completed").await;
    assert_eq!(done["result"], "a text");
    let log = worker.process.log();
    assert!(log.contains("program: before the file"), "{log}");

    let failed = ends(&stack, json!({"do": "fail"}), "failed").await;
    let message = failed["error_message"].as_str().unwrap();
    assert!(
        message.contains("exit status: 1")
            && message.contains("no such table")
            && message.contains("told at last"),
        "{message}"
    );
    let retried = ends(&stack, json!({"do": "retry"}), "completed").await;
    assert_eq!(retried["result"], 2);
    let crashed = ends(&stack, json!({"do": "crash"}), "failed").await;
    assert_eq!(crashed["error"]["code"], "process_ended");

    for wanted in ["wait", "hang"] {
        let id = stack.api().running("shell", &json!({"do": wanted})).await;
        stack.api().cancel(&id).await.expect(200);
        stack.api().wait_for_status(&id, "cancelled").await;
    }
    stack.bus.settled().await;
}

#[tokio::test]
async fn awk_python_and_node_need_nothing_but_standard_input() {
    let python =
        "python3 -c 'import json,sys; print(json.dumps(sum(json.load(sys.stdin)[\"values\"])))'";
    let awk = "awk 'BEGIN { RS = \"[^0-9]+\" } $0 != \"\" { sum += $0 } END { print sum }'";
    let node = "node -e 'process.stdin.on(\"data\", (d) => console.log(JSON.parse(d).values.reduce((a, b) => a + b)))'";

    for (program, command) in [("python3", python), ("awk", awk), ("node", node)] {
        if !is_there(program) {
            eprintln!("SKIPPED: there is no {program}");
            continue;
        }
        let stack = stack().await;
        let _worker = worker(&stack, command, &[]).await;

        let done = ends(&stack, json!({"values": [1, 2, 39]}), "completed").await;

        assert_eq!(done["result"], 42, "{program}");
    }
}

#[tokio::test]
async fn a_long_line_is_logged_whole() {
    let stack = stack().await;
    let command = "python3 -c 'print(\"\u{e9}\" * 9000); print(\"x\" * 9000); print(1)'";
    let _worker = worker(&stack, command, &[]).await;

    let done = ends(&stack, json!({}), "completed").await;

    let said = stack.api().log_texts(&done).await;
    let lengths: Vec<usize> = said.iter().map(String::len).collect();
    assert_eq!(lengths, [8192, 8192, 1616, 8192, 808]);
    assert_eq!(said.concat(), "\u{e9}".repeat(9000) + &"x".repeat(9000));
}

#[tokio::test]
async fn a_program_without_messages_is_not_told_of_any() {
    let stack = stack().await;
    let command = "sh -c 'echo ${KTRDR_EXEC-none}'";
    let _worker = worker(&stack, command, &[]).await;

    let done = ends(&stack, json!({}), "completed").await;

    assert_eq!(done["result"], "none");
}

fn is_there(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(name).is_file())
}

/// What `--exec-check` says about a program.
fn check(command: &str, request: &str) -> (bool, String) {
    let output = Command::new(program("ktrdr-worker"))
        .args(["--exec", command, "--exec-check", request])
        .env_remove("WORKER_TYPE")
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.success(), told)
}

#[test]
fn the_examples_follow_the_page() {
    let examples = repository().join("worker/exec/examples");
    for (program, file) in [
        ("python3", "countdown.py"),
        ("bash", "countdown.sh"),
        ("node", "countdown.js"),
    ] {
        if !is_there(program) {
            eprintln!("SKIPPED: there is no {program}");
            continue;
        }
        let path: PathBuf = examples.join(file);

        let (is_good, told) = check(&format!("{program} {}", path.display()), "{\"steps\":5}");

        assert!(is_good, "{file}:\n{told}");
        assert!(told.lines().count() >= 9, "{told}");
    }
}

#[test]
fn the_check_finds_what_is_wrong() {
    let odd = repository().join("tests/data/exec/odd_job.py");
    let odd = format!("python3 {}", odd.display());

    let (is_good, told) = check(&odd, "{\"do\":\"exit\"}");
    assert!(!is_good && told.contains("FAILED it completes"), "{told}");
    assert!(told.contains("not tested: the other checks"), "{told}");
    assert!(!told.contains("it stops when it is cancelled"), "{told}");

    let (is_good, told) = check(&odd, "{\"do\":\"hold\",\"seconds\":2}");
    let line = "FAILED it stops when it is cancelled: it completed the request instead";
    assert!(!is_good && told.contains(line), "{told}");

    let (is_good, told) = check(&odd, "{\"do\":\"pid\"}");
    let line = "not tested: it stops when it is cancelled: it had ended";
    assert!(is_good && told.contains(line), "{told}");

    let (is_good, told) = check("echo hello", "{}");
    assert!(
        !is_good && told.contains("FAILED it describes itself"),
        "{told}"
    );
}
