//! Programs whose output nobody reads any more, as in `ktrdr list 2>&1 | head -3`: they do what they were
//! asked to do all the same.

use std::process::{Command, ExitStatus, Stdio};

use ktrdr_tests::process::program;
use ktrdr_tests::{Scratch, Stack};

use super::command_line::ktrdr;

/// A pipe that nobody reads.
fn closed() -> std::io::PipeWriter {
    let (_, writer) = std::io::pipe().unwrap();
    writer
}

/// How a command ends whose standard error nobody reads.
async fn ended(mut command: Command) -> ExitStatus {
    command.stderr(closed()).stdout(Stdio::null());
    let ended = tokio::task::spawn_blocking(move || command.status().unwrap());
    ended.await.unwrap()
}

#[tokio::test]
async fn all_lines_are_started_when_nobody_reads_the_complaints_about_others() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    let scratch = Scratch::new("closed");
    let file = scratch.join("mixed.jsonl");
    std::fs::write(&file, "bad\n".repeat(1500) + "{\"steps\": 0}\n").unwrap();
    let file = file.to_str().unwrap();

    let words = ["start", "dummy", "--many", file, "--id", "many"];
    let status = ended(ktrdr(&stack, &words)).await;

    assert_eq!(status.code(), Some(2), "{status}");
    stack.api().wait_for_status("many-1501", "completed").await;
}

#[tokio::test]
async fn an_error_that_nobody_reads_keeps_its_exit_code() {
    let free = ktrdr_tests::process::free_port();
    let mut list = Command::new(program("ktrdr"));
    list.args(["list", "--url", &format!("http://127.0.0.1:{free}")]);
    let mut token = Command::new(program("ktrdr-backend"));
    token.args([
        "token", "new", "x", "--scopes", "nonsense", "--file", "/nope",
    ]);
    let mut serve = Command::new(program("ktrdr-backend"));
    serve.args(["--nats-ca", "/nope", "--api-addr", "127.0.0.1:0"]);
    let mut work = Command::new(program("ktrdr-worker"));
    work.args([
        "--worker-type",
        "dummy",
        "--nats-ca",
        "/nope",
        "--port",
        "0",
    ]);

    for command in [list, token, serve, work] {
        let name = format!("{command:?}");
        let status = ended(command).await;
        assert!(matches!(status.code(), Some(1..=3)), "{name}: {status}");
    }
}
