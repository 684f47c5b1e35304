//! The commands of `ktrdr` that wait: what they print meanwhile, and with which code they end.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use ktrdr_tests::talk::TalkEngine;
use ktrdr_tests::{LIMIT, Scratch, Stack, free_port, wait_for};
use serde_json::{Value, json};

use super::command_line::{json_of, ktrdr, run};

/// A command that runs.
fn spawn(stack: &Stack, words: &[&str]) -> Child {
    ktrdr(stack, words)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Exit code, standard output and standard error of a command, which ends within [`LIMIT`].
async fn ended(child: Child) -> (i32, String, String) {
    let output = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap());
    let output = tokio::time::timeout(LIMIT, output)
        .await
        .expect("the command ends")
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code().unwrap(),
        text(output.stdout),
        text(output.stderr),
    )
}

/// What `talk` says with `ctx.log`, without time and level.
fn said(output: &str) -> Vec<&str> {
    output
        .lines()
        .filter_map(|line| Some(line.split_once(" INFO  ")?.1))
        .collect()
}

fn numbered(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("line {number}")).collect()
}

#[tokio::test]
async fn log_lines_are_printed_over_many_pages_and_by_level() {
    let stack = Stack::start().await;
    let _worker = stack.local_worker(TalkEngine, "t1", &[]).await;
    let body = json!({"task_id": "much", "lines": 2500, "ways": true});
    stack.api().started("talk", &body).await;
    stack.api().wait_for_status("much", "completed").await;

    let (code, out, err) = run(&stack, &["logs", "much"]).await;
    assert_eq!((code, err.as_str()), (0, ""));
    assert_eq!(
        said(&out).split_off(said(&out).len() - 2500),
        numbered(2500)
    );
    assert!(out.contains(" WARN  with fields rows=7\n"), "{out}");

    let (code, out, _) = run(&stack, &["logs", "much", "--level", "warn", "--follow"]).await;
    assert_eq!(code, 0);
    assert!(out.contains("with fields"), "{out}");
    assert_eq!(said(&out), [""; 0], "{out}");

    let (_, out, _) = run(&stack, &["logs", "much", "--json"]).await;
    let last: Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
    assert_eq!(last["text"], "line 2499");
    assert_eq!(last["attempt"], 1);
}

#[tokio::test]
async fn log_lines_are_followed_until_the_operation_ends() {
    let stack = Stack::start().await;
    let one = ["--concurrency", "1"];
    let _worker = stack.local_worker(TalkEngine, "t1", &one).await;
    let silence = json!({"lines": 1_000_000, "pause_ms": 25, "silent": true});
    let before = stack.api().running("talk", &silence).await;
    let endless = json!({"task_id": "endless", "lines": 1_000_000, "pause_ms": 5});
    stack.api().started("talk", &endless).await;
    let fails = json!({"task_id": "fails", "lines": 1200, "fail": true});
    stack.api().started("talk", &fails).await;

    // Both wait in the queue when they begin to be followed.
    let mut endless = spawn(&stack, &["logs", "endless", "-f"]);
    let failing = spawn(&stack, &["logs", "fails", "-f"]);
    stack.api().cancel(&before).await.expect(200);

    let mut lines = BufReader::new(endless.stdout.take().unwrap()).lines();
    let (first, mut lines) = tokio::task::spawn_blocking(move || {
        let first: Vec<String> = lines.by_ref().take(3).map(Result::unwrap).collect();
        (first, lines)
    })
    .await
    .unwrap();
    assert_eq!(said(&first.join("\n")), numbered(3), "while it runs");
    let status = stack.api().operation("endless").await.expect(200);
    assert_eq!(status.at("/data/status"), "running");
    stack.api().cancel("endless").await.expect(200);
    let rest: Vec<String> = tokio::task::spawn_blocking(move || {
        let rest = lines.by_ref().map(Result::unwrap).collect();
        (rest, lines)
    })
    .await
    .unwrap()
    .0;
    let all = [first, rest].concat().join("\n");
    assert_eq!(said(&all), numbered(said(&all).len()));
    assert_eq!(ended(endless).await.0, 0, "the lines were read to the end");

    let (code, out, err) = ended(failing).await;
    assert_eq!(
        (code, err.as_str()),
        (0, ""),
        "how it ended is no matter here"
    );
    assert_eq!(said(&out), numbered(1200));
}

/// The words of every command that waits. They are about operations with these parameters, in `file` and in
/// the schedule `id`; `watch` and `logs` are about the operation `id`.
fn waiting<'a>(parameters: &'a str, file: &'a str, id: &'a str) -> [Vec<&'a str>; 5] {
    [
        vec!["start", "dummy", parameters, "--wait"],
        vec!["start", "dummy", "--many", file, "--wait"],
        vec!["schedules", "run", id, "--wait"],
        vec!["watch", id],
        vec!["logs", id, "--follow"],
    ]
}

/// An operation, a schedule and a file of lines, all with these parameters.
async fn prepare(stack: &Stack, scratch: &Scratch, id: &str, parameters: &Value) -> String {
    let file = scratch.join(id);
    std::fs::write(&file, format!("{{\"steps\": 0}}\n{parameters}\n")).unwrap();
    let mut body = parameters.clone();
    body["task_id"] = json!(id);
    stack.api().started("dummy", &body).await;
    let text = parameters.to_string();
    let cron = ["--cron", "30 2 1 1 *", "--json"];
    let put = ["schedules", "put", id, "dummy", text.as_str()];
    json_of(stack, &[&put[..], &cron[..]].concat()).await;
    file.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn every_command_that_waits_ends_with_the_code_of_the_outcome() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    let scratch = Scratch::new("waits");
    let good = json!({"steps": 1, "step_ms": 1});
    let bad = json!({"steps": 2, "step_ms": 1, "fail_at_step": 1});

    for (id, parameters, code) in [("good", &good, 0), ("bad", &bad, 1)] {
        let file = prepare(&stack, &scratch, id, parameters).await;
        let text = parameters.to_string();
        for words in waiting(&text, &file, id) {
            // `logs` says what was said, and not how it ended.
            let wanted = if words[0] == "logs" { 0 } else { code };
            let (code, out, err) = run(&stack, &words).await;
            assert_eq!(code, wanted, "{words:?}: {out}{err}");
        }
    }

    let nonsense = scratch.join("nonsense");
    std::fs::write(&nonsense, "nonsense").unwrap();
    for words in waiting("steps=x", nonsense.to_str().unwrap(), "nobody") {
        let (code, out, err) = run(&stack, &words).await;
        assert_eq!((code, out.as_str()), (2, ""), "{words:?}: {err}");
        assert_ne!(err, "", "{words:?}");
    }

    let nowhere = format!("http://127.0.0.1:{}", free_port());
    let file = scratch.join("good");
    let words = waiting("steps=0", file.to_str().unwrap(), "good");
    let commands = words.map(|words| {
        let address = ["--url", nowhere.as_str()];
        spawn(&stack, &[&address[..], &words[..]].concat())
    });
    for command in commands {
        let (code, out, err) = ended(command).await;
        assert_eq!((code, out.as_str()), (3, ""), "{err}");
        assert!(err.contains("KTRDR_URL"), "{err}");
    }
}

/// Every command that waits, while its operations wait for a GPU that nobody has.
async fn all_waiting(stack: &Stack, scratch: &Scratch) -> Vec<Child> {
    let gpu = json!({"steps": 0, "execution": {"requirements": {"gpu": true}}});
    let file = prepare(stack, scratch, "waits", &gpu).await;
    // Nothing that ends by itself is left in it.
    std::fs::write(&file, gpu.to_string()).unwrap();
    let text = gpu.to_string();
    let words = waiting(&text, &file, "waits");
    let commands = words.iter().map(|words| spawn(stack, words)).collect();

    wait_for("all operations", LIMIT, async || {
        let page = stack.api().operations("status=pending").await.expect(200);
        match page.at("/data/total").as_u64() {
            Some(4) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    commands
}

#[tokio::test]
async fn every_command_that_waits_notices_that_its_operation_was_cancelled() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    let scratch = Scratch::new("waits");
    let commands = all_waiting(&stack, &scratch).await;

    let (code, out, err) = run(&stack, &["cancel", "--type", "dummy", "--yes"]).await;
    assert_eq!(
        (code, out.as_str()),
        (0, "cancelled, or asked to stop: 4\n"),
        "{err}"
    );

    let mut codes = Vec::new();
    for command in commands {
        codes.push(ended(command).await.0);
    }
    assert_eq!(codes, [1, 1, 1, 1, 0]);
}

#[tokio::test]
async fn every_command_that_waits_says_when_the_backend_is_gone() {
    let mut stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    let scratch = Scratch::new("waits");
    let commands = all_waiting(&stack, &scratch).await;

    stack.backend.process.kill();

    for command in commands {
        let (code, _, err) = ended(command).await;
        assert_eq!(code, 3, "{err}");
        assert!(err.contains("error: "), "{err}");
    }
}
