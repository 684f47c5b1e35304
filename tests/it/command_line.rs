//! `ktrdr`, the program for people, against a real system.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Output, Stdio};

use ktrdr_tests::process::program;
use ktrdr_tests::{LIMIT, NatsServer, Scratch, Stack, TokensFile, wait_for};
use serde_json::{Value, json};

/// The program with the address of the stack's backend.
pub(super) fn ktrdr(stack: &Stack, words: &[&str]) -> Command {
    let mut command = Command::new(program("ktrdr"));
    command
        .args(words)
        .env("KTRDR_URL", stack.api().base())
        .env_remove("KTRDR_TOKEN");
    command
}

pub(super) async fn output(mut command: Command) -> Output {
    tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap()
}

/// Exit code, standard output and standard error.
pub(super) async fn run(stack: &Stack, words: &[&str]) -> (i32, String, String) {
    let ended = output(ktrdr(stack, words)).await;
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        ended.status.code().unwrap(),
        text(ended.stdout),
        text(ended.stderr),
    )
}

pub(super) async fn json_of(stack: &Stack, words: &[&str]) -> Value {
    let (code, out, err) = run(stack, words).await;
    assert_eq!(code, 0, "{words:?}: {err}");
    serde_json::from_str(&out).unwrap()
}

#[tokio::test]
async fn an_operation_is_started_followed_and_shown() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;

    let words = [
        "start",
        "dummy",
        "steps=2",
        "step_ms=1",
        "--id",
        "op-1",
        "--wait",
    ];
    let (code, out, err) = run(&stack, &words).await;
    assert_eq!(code, 0, "{err}");
    assert!(out.starts_with("dummy op-1: completed in "), "{out}");

    let shown = json_of(&stack, &["show", "op-1", "--json"]).await;
    assert_eq!(shown["status"], "completed");
    assert_eq!(shown["metadata"]["steps"], 2);

    let listed = json_of(&stack, &["list", "--status", "completed", "--json"]).await;
    assert_eq!(listed["operations"][0]["operation_id"], "op-1");
    let (_, table, _) = run(&stack, &["list"]).await;
    assert!(table.starts_with("ID "), "{table}");
    assert!(table.contains("op-1"), "{table}");
}

#[tokio::test]
async fn parameters_come_from_a_file_or_standard_input_too() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    let scratch = Scratch::new("parameters");
    let file = scratch.join("body.json");
    std::fs::write(&file, r#"{"steps": 9, "step_ms": 0}"#).unwrap();

    let file = file.to_str().unwrap();
    let words = ["start", "dummy", "-f", file, "steps=1", "--wait", "--json"];
    let done = json_of(&stack, &words).await;
    assert_eq!(done["metadata"]["steps"], 1);
    assert_eq!(done["metadata"]["step_ms"], 0);

    let mut command = ktrdr(&stack, &["start", "dummy", "-f", "-", "--wait", "--json"]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(br#"{"steps": 0}"#).unwrap();
    drop(input);
    let ended = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap())
        .await
        .unwrap();
    let done: Value = serde_json::from_slice(&ended.stdout).unwrap();
    assert_eq!(done["status"], "completed");
}

#[tokio::test]
async fn the_exit_code_says_how_it_ended() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;

    let failing = [
        "start",
        "dummy",
        "steps=2",
        "step_ms=1",
        "fail_at_step=1",
        "--wait",
    ];
    let (code, out, _) = run(&stack, &failing).await;
    assert_eq!(code, 1);
    assert!(out.contains("failed at step 1"), "{out}");

    for (words, reason) in [
        (&["start", "dummy", "steps=x"][..], "/steps"),
        (&["start", "nothing"], "ktrdr types"),
        (&["start", "dummy", "steps"], "key=value"),
        (&["show", "nobody"], "nobody"),
        (&["list", "--status", "done"], "completed"),
        (&["--url", "nowhere", "list"], "http://host:port"),
    ] {
        let (code, _, err) = run(&stack, words).await;
        assert_eq!(code, 2, "{words:?}: {err}");
        assert!(err.contains(reason), "{words:?}: {err}");
    }

    let free = ktrdr_tests::process::free_port();
    let nowhere = format!("http://127.0.0.1:{free}");
    let (code, _, err) = run(&stack, &["--url", &nowhere, "list"]).await;
    assert_eq!(code, 3, "{err}");
    assert!(err.contains("KTRDR_URL"), "{err}");
}

#[tokio::test]
async fn operations_are_cancelled_and_run_again() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    let body = json!({"steps": 100_000, "step_ms": 10, "task_id": "long"});
    stack.api().started("dummy", &body).await;

    let (code, out, err) = run(&stack, &["cancel", "long", "--reason", "no time"]).await;
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.starts_with("long: "), "{out}");
    let (code, out, _) = run(&stack, &["watch", "long"]).await;
    assert_eq!(code, 1);
    assert!(out.contains("cancelled"), "{out}");

    let again = json_of(&stack, &["retry", "long", "--json"]).await;
    let again = again["operation_id"].as_str().unwrap();
    let document = json_of(&stack, &["show", again, "--json"]).await;
    assert_eq!(document["retry_of"], "long");
    run(&stack, &["cancel", again]).await;
}

#[tokio::test]
async fn whoever_watches_learns_what_was_not_seen_and_the_exit_code_is_right_without_a_reader() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    let body = json!({"steps": 100_000, "step_ms": 10, "task_id": "long"});
    stack.api().started("dummy", &body).await;

    let (code, _, err) = run(&stack, &["watch", "nothing", "long"]).await;
    assert_eq!(code, 2);
    assert!(err.contains("go on with: ktrdr watch long\n"), "{err}");

    stack.api().cancel("long").await.expect(200);
    stack.api().wait_for_status("long", "cancelled").await;
    let mut watch = ktrdr(&stack, &["watch", "long"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    drop(watch.stdout.take());
    let ended = tokio::task::spawn_blocking(move || watch.wait().unwrap()).await;
    assert_eq!(ended.unwrap().code(), Some(1));
}

#[tokio::test]
async fn workers_queues_and_types_are_listed() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;

    let workers = json_of(&stack, &["workers", "--json"]).await;
    assert_eq!(workers[0]["worker_id"], "w1");
    let (_, table, _) = run(&stack, &["workers"]).await;
    assert!(table.contains("AVAILABLE"), "{table}");

    let types = json_of(&stack, &["types", "--json"]).await;
    assert_eq!(types[0]["domain"], "dummy");
    let (_, table, _) = run(&stack, &["types", "dummy"]).await;
    assert!(table.contains("fail_at_step"), "{table}");
    let (code, _, _) = run(&stack, &["types", "nothing"]).await;
    assert_eq!(code, 2);

    json_of(&stack, &["queues", "--json"]).await;
}

/// What an operation carries is of anybody, and a terminal obeys control characters.
#[tokio::test]
async fn texts_of_operations_cannot_change_the_terminal() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    let body = json!({"steps": 0, "task_id": "hostile"});
    stack.api().started("dummy", &body).await;
    stack.api().wait_for_status("hostile", "completed").await;
    let waits = json!({"steps": 100_000, "task_id": "stopped"});
    stack.api().started("dummy", &waits).await;

    let reason = "\u{1b}[2J\u{7}gone";
    run(&stack, &["cancel", "stopped", "--reason", reason]).await;

    for words in [&["list"][..], &["show", "stopped"], &["show", "hostile"]] {
        let (code, out, _) = run(&stack, words).await;
        assert_eq!(code, 0);
        assert!(!out.contains('\u{1b}') && !out.contains('\u{7}'), "{out:?}");
    }
}

#[tokio::test]
async fn a_token_is_sent() {
    let file = TokensFile::new();
    let secret = file.set("reader", "scopes = [\"read\"]");
    let stack = Stack::start_with(|settings| settings.tokens(&file)).await;

    let (code, _, err) = run(&stack, &["list"]).await;
    assert_eq!(code, 2);
    assert!(err.contains("KTRDR_TOKEN"), "{err}");

    let mut with_token = ktrdr(&stack, &["list"]);
    with_token.env("KTRDR_TOKEN", secret);
    assert!(output(with_token).await.status.success());
}

/// `ktrdr dev`. It ends its programs only when it may stop in order, so it is interrupted also when
/// a test fails.
struct Dev(Child);

impl Dev {
    fn interrupt(&self) {
        let id = self.0.id().to_string();
        let sent = Command::new("kill").args(["-INT", &id]).status();
        assert!(sent.unwrap().success());
    }

    /// Interrupts it, and waits for its end.
    async fn ends_in_order(&mut self) {
        self.interrupt();
        wait_for("ktrdr dev to end", LIMIT, async || {
            match self.0.try_wait().unwrap() {
                Some(status) if status.success() => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        if let Ok(None) = self.0.try_wait() {
            self.interrupt();
            let _ = self.0.wait();
        }
    }
}

/// A system that is ready, and the address of its REST interface.
async fn dev(scratch: &Scratch) -> (Dev, String) {
    let log = std::fs::File::create(scratch.join("log")).unwrap();
    dev_that_writes(scratch, log.into()).await
}

async fn dev_that_writes(scratch: &Scratch, log: Stdio) -> (Dev, String) {
    let mut dev = Dev(Command::new(program("ktrdr"))
        .args(["dev", "--data-dir"])
        .arg(scratch.join("data"))
        .env("NATS_SERVER", NatsServer::program())
        .env("KTRDR_LEASE", "7s")
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .unwrap());

    let mut lines = BufReader::new(dev.0.stdout.take().unwrap()).lines();
    let url = tokio::task::spawn_blocking(move || {
        lines.by_ref().map_while(Result::ok).find_map(|line| {
            line.split_once("interface: ")
                .map(|(_, url)| url.to_owned())
        })
    })
    .await
    .unwrap();
    let log = || std::fs::read_to_string(scratch.join("log"));
    let url = url.unwrap_or_else(|| panic!("no address: {:?}", log()));
    (dev, url)
}

/// The processes that this one has started.
fn children(pid: u32) -> Vec<String> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let text = std::fs::read_to_string(path).unwrap();
    text.split_whitespace().map(str::to_owned).collect()
}

/// Whether a process runs: one that nobody has waited for yet has ended, too.
fn is_running(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name stands in brackets and may hold anything; the state follows it.
    let state = stat
        .rsplit_once(") ")
        .and_then(|(_, rest)| rest.chars().next());
    !matches!(state, None | Some('Z' | 'X'))
}

#[tokio::test]
async fn a_system_ends_also_when_its_command_is_killed() {
    let scratch = Scratch::new("dev-killed");
    let (mut dev, _) = dev(&scratch).await;
    let children = children(dev.0.id());
    assert_eq!(children.len(), 6, "a server, a backend, and four workers");

    dev.0.kill().unwrap();
    dev.0.wait().unwrap();

    wait_for("the end of all programs", LIMIT, async || {
        let is_left = |pid: &&String| is_running(pid);
        let left: Vec<&String> = children.iter().filter(is_left).collect();
        if left.is_empty() {
            Ok(())
        } else {
            Err(format!("{left:?}"))
        }
    })
    .await;
}

#[tokio::test]
async fn systems_that_start_together_take_ports_of_their_own() {
    let scratches = ["one", "two", "three"].map(|name| Scratch::new(&format!("dev-{name}")));

    let [one, two, three] = &scratches;
    let (one, two, three) = tokio::join!(dev(one), dev(two), dev(three));

    let urls: HashSet<String> = [one.1, two.1, three.1].into();
    assert_eq!(urls.len(), 3, "{urls:?}");
}

#[tokio::test]
async fn a_whole_system_runs_in_the_foreground_and_ends_with_its_command() {
    let scratch = Scratch::new("dev");
    let (mut dev, url) = dev(&scratch).await;
    let log = || std::fs::read_to_string(scratch.join("log")).unwrap();

    let mut start = Command::new(program("ktrdr"));
    start.args(["--url", &url, "start", "dummy", "steps=1", "--wait"]);
    let started = output(start).await;
    assert!(started.status.success(), "{started:?}: {}", log());

    // A person sees what happens, not the usual settings nor the banner of nats-server.
    assert!(log().contains("Operation completed"), "{}", log());
    assert!(!log().contains("setting="), "{}", log());
    assert!(!log().contains("[INF]"), "{}", log());
    let ignored = log().lines().next().unwrap_or_default().to_owned();
    assert!(
        ignored.contains("ignores") && ignored.contains("KTRDR_LEASE"),
        "{ignored}"
    );
    assert!(!ignored.contains("NATS_SERVER"), "{ignored}");

    dev.ends_in_order().await;
}

#[tokio::test]
async fn a_system_whose_lines_nobody_reads_runs_on_and_ends_in_order() {
    let scratch = Scratch::new("dev-unread");
    let (_, unread) = std::io::pipe().unwrap();
    let (mut dev, url) = dev_that_writes(&scratch, unread.into()).await;

    let mut start = Command::new(program("ktrdr"));
    start.args(["--url", &url, "start", "dummy", "steps=1", "--wait"]);
    let started = output(start).await;
    assert!(started.status.success(), "{started:?}");

    dev.ends_in_order().await;
}
