//! Programs in other languages (`ktrdr-worker --exec`): they complete, fail, crash, hang and speak
//! nonsense, and the worker lives.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use ktrdr_protocol::time::Timestamp;
use ktrdr_tests::settings::repository;
use ktrdr_tests::{LIMIT, Scratch, Settings, Stack, WorkerProcess, wait_for};
use serde_json::{Value, json};

/// The command line of the program of these tests.
fn odd_job() -> String {
    let program = repository().join("tests/data/exec/odd_job.py");
    format!("python3 {}", program.display())
}

/// Backends that force no cancel meanwhile, and workers that kill soon.
fn patient(mut settings: Settings) -> Settings {
    settings.cancel_grace = Duration::from_secs(600);
    settings.with("WORKER_STOP_GRACE", "200ms")
}

async fn stack() -> Stack {
    Stack::start_with(patient).await
}

/// A worker that runs the program, and takes work.
async fn worker(stack: &Stack, id: &str) -> WorkerProcess {
    worker_with(stack, id, &stack.settings).await
}

async fn worker_with(stack: &Stack, id: &str, settings: &Settings) -> WorkerProcess {
    let command = ["ktrdr-worker", "--exec", &odd_job()];
    let worker = WorkerProcess::launch_program(settings, &command, "odd_job", id);
    stack.api().wait_for_worker(id, "AVAILABLE").await;
    worker
}

/// Starts an operation and waits for this end.
async fn ends(stack: &Stack, body: Value, status: &str) -> Value {
    let id = stack.api().started("odd-job", &body).await;
    stack.api().wait_for_status(&id, status).await
}

/// The result of an operation that completes.
async fn result(stack: &Stack, body: Value) -> Value {
    let done = ends(stack, body, "completed").await;
    let id = done["operation_id"].as_str().unwrap();
    let path = format!("/api/v1/operations/{id}/results");
    let answer = stack.api().get(&path).await.expect(200);
    answer.at("/data").clone()
}

fn is_alive(pid: u64) -> bool {
    // A process that nobody has waited for yet is dead, too.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

async fn wait_for_end_of(pid: u64) {
    wait_for("the end of the process", LIMIT, async || {
        if is_alive(pid) {
            Err(format!("{pid} lives"))
        } else {
            Ok(())
        }
    })
    .await;
}

#[tokio::test]
async fn a_program_describes_itself_and_its_operations_end_as_it_says() {
    let stack = stack().await;
    let worker = worker(&stack, "e1").await;

    let types = stack.api().get("/api/v1/worker-types").await;
    let described = types.at("/data/worker_types/0");
    assert_eq!(described["description"], "Does what it is told.");
    assert_eq!(described["version"], "1.2.3");
    let refused = stack.api().start("odd-job", &json!({"do": 7})).await;
    refused.expect(422);

    let first = result(&stack, json!({"do": "pid"})).await;
    let failure = json!({"message": "no such file", "code": "no_file", "permanent": true});
    let failed = ends(&stack, json!({"do": "fail", "failure": failure}), "failed").await;
    assert_eq!(failed["error"]["code"], "no_file");
    assert_eq!(failed["error"]["permanent"], true);
    assert_eq!(failed["error_message"], "no such file");

    let again = json!({"message": "busy", "retry_after_seconds": 0.1});
    let body = json!({"do": "fail", "failure": again, "execution": {"max_attempts": 2}});
    assert_eq!(ends(&stack, body, "failed").await["attempt"], 2);
    let owner = result(&stack, json!({"do": "owner"})).await;
    assert_eq!(owner, json!({"is_owner": true}));
    assert_eq!(result(&stack, json!({"do": "pid"})).await, first);
    drop(worker);
    wait_for_end_of(first.as_u64().unwrap()).await;
}

#[tokio::test]
async fn a_crash_fails_its_operation_and_nothing_else() {
    let stack = stack().await;
    let settings = stack.settings.clone().with("WORKER_CONCURRENCY", "2");
    let mut worker = worker_with(&stack, "e1", &settings).await;
    let neighbour = stack.api().running("odd-job", &json!({"do": "wait"})).await;

    let crashed = ends(&stack, json!({"do": "segfault"}), "failed").await;
    let message = crashed["error_message"].as_str().unwrap();
    assert_eq!(crashed["error"]["code"], "process_ended");
    for part in [
        "signal: 11 (SIGSEGV)",
        "about to crash",
        "Fatal Python error",
        "in work",
    ] {
        assert!(message.contains(part), "{message}");
    }
    let log = worker.process.log();
    assert!(log.contains("process_ended") && log.contains("SIGSEGV"));

    let left = ends(&stack, json!({"do": "exit"}), "failed").await;
    let message = left["error_message"].as_str().unwrap();
    assert!(message.contains("exit status: 3"), "{message}");
    let retried = json!({"do": "exit", "execution": {"max_attempts": 2, "retry_delay": 0.01}});
    assert_eq!(ends(&stack, retried, "failed").await["attempt"], 2);

    assert!(result(&stack, json!({"do": "pid"})).await.is_u64());
    worker.process.check_alive().unwrap();

    // What runs in the other slot goes on with its first attempt: it would have failed, too, if its program had ended.
    stack.api().cancel(&neighbour).await.expect(200);
    let stopped = stack.api().wait_for_status(&neighbour, "cancelled").await;
    assert_eq!(stopped["attempt"], 1);
    stack.bus.settled().await;
}

#[tokio::test]
async fn what_is_printed_without_an_end_of_line_is_of_its_operation() {
    let stack = stack().await;
    let _worker = worker(&stack, "e1").await;

    let first = json!({"do": "say_part", "text": "secret of A"});
    let first = ends(&stack, first, "completed").await;
    let second = json!({"do": "say_part", "text": "B says hello\nand more"});
    let second = ends(&stack, second, "completed").await;

    assert_eq!(stack.api().log_texts(&first).await, ["secret of A"]);
    assert_eq!(
        stack.api().log_texts(&second).await,
        ["B says hello", "and more"]
    );
}

#[tokio::test]
async fn a_crash_in_deep_code_says_where_it_was() {
    let stack = stack().await;
    let _worker = worker(&stack, "e1").await;

    let crashed = ends(&stack, json!({"do": "deep_segfault"}), "failed").await;

    let message = crashed["error_message"].as_str().unwrap();
    for part in ["Fatal Python error", "in innermost", "in deep"] {
        assert!(message.contains(part), "{message}");
    }
}

#[tokio::test]
async fn a_question_is_a_sign_of_life() {
    let stack = stack().await;
    let _worker = worker(&stack, "e1").await;

    let body = json!({"do": "ask", "execution": {"stall_timeout_seconds": 0.5, "max_attempts": 1}});

    assert_eq!(result(&stack, body).await, "asked");
}

#[tokio::test]
async fn an_absurd_delay_of_a_retry_is_a_day() {
    let stack = stack().await;
    let _worker = worker(&stack, "e1").await;

    // Somebody took milliseconds since 1970 for a delay in seconds.
    let failure = json!({"message": "busy", "retry_after_seconds": 1_795_000_000_000_u64});
    let body = json!({"do": "fail", "failure": failure, "execution": {"max_attempts": 2}});
    let id = stack.api().started("odd-job", &body).await;
    let waiting = stack
        .api()
        .wait_for_operation(&id, "a retry", |operation| {
            operation.at("/data/retry_at").is_string()
        })
        .await;

    let day = Duration::from_secs(24 * 3600);
    let due = waiting.at("/data/retry_at").clone();
    let due: Timestamp = serde_json::from_value(due).unwrap();
    assert!(due.after(Timestamp::now()) <= day, "{due:?}");
}

#[tokio::test]
async fn a_cancel_is_noticed_or_else_the_program_is_killed() {
    let stack = stack().await;
    let _worker = worker(&stack, "e1").await;
    let pid = result(&stack, json!({"do": "pid"})).await;

    let id = stack.api().running("odd-job", &json!({"do": "wait"})).await;
    stack.api().cancel(&id).await.expect(200);
    stack.api().wait_for_status(&id, "cancelled").await;
    assert_eq!(result(&stack, json!({"do": "pid"})).await, pid, "it stayed");

    let id = stack.api().running("odd-job", &json!({"do": "hang"})).await;
    stack.api().cancel(&id).await.expect(200);
    stack.api().wait_for_status(&id, "cancelled").await;
    assert_ne!(result(&stack, json!({"do": "pid"})).await, pid);
    assert!(!is_alive(pid.as_u64().unwrap()));

    let body = json!({"do": "hang", "execution": {"timeout_seconds": 0.3}});
    let failed = ends(&stack, body, "failed").await;
    assert_eq!(failed["error"]["code"], "timeout");
    let stalled =
        json!({"do": "hang", "execution": {"stall_timeout_seconds": 0.3, "max_attempts": 1}});
    let failed = ends(&stack, stalled, "failed").await;
    assert_eq!(failed["error"]["code"], "stalled");
    stack.bus.settled().await;
}

/// The process id that a program writes into this file.
async fn written_pid(file: &Path) -> u64 {
    wait_for("the pid", LIMIT, async || {
        let text = std::fs::read_to_string(file).map_err(|error| error.to_string())?;
        text.trim().parse().map_err(|_| text)
    })
    .await
}

/// The process id of the guard of a worker's programs.
fn guard_of(worker: u32) -> String {
    let parent = format!(" {worker} ");
    let is_guard = |pid: &String| {
        let read = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}"));
        let stat = read("stat").unwrap_or_default();
        let behind_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let of_worker = behind_name
            .get(2..)
            .is_some_and(|rest| rest.starts_with(&parent));
        of_worker && read("cmdline").is_ok_and(|words| words.contains("--guard-programs"))
    };
    let processes = std::fs::read_dir("/proc").unwrap();
    let mut names = processes.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.find(is_guard).expect("a guard")
}

#[tokio::test]
async fn what_a_killed_program_has_started_ends_with_it() {
    let stack = stack().await;
    let scratch = Scratch::new("left");
    let file = scratch.join("pid");
    let mut worker = worker(&stack, "e1").await;
    let body = json!({"do": "leave", "seconds": 3600, "file": file});
    let id = stack.api().running("odd-job", &body).await;
    let pid = written_pid(&file).await;
    assert!(is_alive(pid));

    stack.api().cancel(&id).await.expect(200);

    stack.api().wait_for_status(&id, "cancelled").await;
    wait_for_end_of(pid).await;

    // The same when the worker is killed, and can kill nobody any more. What stops a whole service
    // signals the guard, too.
    let guard = guard_of(worker.process.pid());
    for signal in ["-TERM", "-INT", "-HUP"] {
        let sent = Command::new("kill").args([signal, &guard]).status();
        assert!(sent.unwrap().success());
    }
    std::fs::remove_file(&file).unwrap();
    stack.api().running("odd-job", &body).await;
    let pid = written_pid(&file).await;
    worker.process.kill();
    wait_for_end_of(pid).await;
}

#[tokio::test]
async fn the_program_of_a_killed_worker_ends_and_another_worker_goes_on_from_the_checkpoint() {
    let stack =
        Stack::start_with(|settings| settings.with("KTRDR_CHECKPOINT_INTERVAL", "0s")).await;
    let mut first = worker(&stack, "e1").await;
    let pid = result(&stack, json!({"do": "pid"})).await.as_u64().unwrap();
    let body = json!({"do": "steps", "steps": 30, "step_ms": 100});
    let id = stack.api().started("odd-job", &body).await;
    stack
        .api()
        .wait_for_operation(&id, "some steps", |operation| {
            operation
                .at("/data/progress/percentage")
                .as_f64()
                .is_some_and(|done| done > 20.0)
        })
        .await;

    first.process.kill();
    wait_for_end_of(pid).await;
    let _second = worker(&stack, "e2").await;

    let done = stack.api().wait_for_status(&id, "completed").await;
    assert_eq!(done["attempt"], 2);
    let path = format!("/api/v1/operations/{id}/results");
    let found = stack.api().get(&path).await.expect(200);
    let from = found.at("/data/first").as_u64().unwrap();
    assert!(from >= 4, "it began at step {from}");
}

#[tokio::test]
async fn a_program_that_holds_its_interpreter_for_three_leases_keeps_its_attempt() {
    let stack = stack().await;
    let _worker = worker(&stack, "e1").await;

    let attempt = result(&stack, json!({"do": "hold", "seconds": 3.2})).await;

    assert_eq!(attempt, 1);
    stack.bus.settled().await;
}

#[tokio::test]
async fn nonsense_fails_its_operation_with_the_reason() {
    let stack = stack().await;
    let _worker = worker(&stack, "e1").await;
    let deep = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
    let deep = format!("{{\"type\":\"completed\",\"run\":9,\"result\":{deep}}}");
    let long = "x".repeat(2 * 1024 * 1024);
    let texts = [
        ("Traceback: hello", "no JSON object"),
        ("\u{0}\u{1b}[2J", "no JSON object"),
        (deep.as_str(), "nested deeper"),
    ];
    for (text, why) in texts {
        let failed = ends(&stack, json!({"do": "garbage", "text": text}), "failed").await;
        let message = failed["error_message"].as_str().unwrap();
        assert_eq!(failed["error"]["code"], "protocol_error");
        assert!(message.contains(why), "{message}");
        assert!(message.contains("docs/exec.md"), "{message}");
    }

    let says = [
        (json!({"type": "done"}), "\"done\" is unknown"),
        (
            json!({"type": "progress", "percent": 1}),
            "unknown field `percent`",
        ),
        (json!({"type": "alive", "run": 99}), "about run 99"),
        (json!({"type": "failed", "message": long}), "no message"),
        (
            json!({"type": "describe", "protocol": 1, "worker_type": "x"}),
            "no message",
        ),
    ];
    for (message, why) in says {
        // A parameter of two megabytes is more than a start body may have.
        if message.to_string().len() > 100_000 {
            continue;
        }
        let failed = ends(&stack, json!({"do": "say", "message": message}), "failed").await;
        let told = failed["error_message"].as_str().unwrap();
        assert!(told.contains(why), "{told}");
    }
    assert!(result(&stack, json!({"do": "pid"})).await.is_u64());
}

#[tokio::test]
async fn large_and_slow_pipes_lose_nothing() {
    let stack = stack().await;
    let deaf = stack.settings.clone().with("ODD_DEAF_SECONDS", "0.5");
    let _worker = worker_with(&stack, "e1", &deaf).await;

    // The parameters are larger than a pipe, and the program does not read yet.
    let filler = "y".repeat(300_000);
    let big = json!({"do": "big", "bytes": 3_000_000, "filler": filler});
    let done = ends(&stack, big, "completed").await;

    let path = format!(
        "/api/v1/operations/{}/results",
        done["operation_id"].as_str().unwrap()
    );
    let answer = stack.api().get(&path).await.expect(200);
    assert!(answer.text.len() > 3_000_000, "{}", answer.text.len());
    // A checkpoint that is too large is not saved, and nothing else happens.
    let saved = result(&stack, json!({"do": "save", "bytes": 2_000_000})).await;
    assert_eq!(saved, "went on");
    let printed = result(&stack, json!({"do": "print", "lines": 20_000})).await;
    assert_eq!(printed, "printed");
}

#[tokio::test]
async fn a_fork_inside_a_run_cannot_end_another_one() {
    let stack = stack().await;
    let _worker = worker(&stack, "e1").await;

    let forked = result(&stack, json!({"do": "fork", "seconds": 0.5})).await;
    assert_eq!(forked, "from the parent");

    // The fork says its end while this one runs.
    let held = result(&stack, json!({"do": "hold", "seconds": 1.0})).await;
    assert_eq!(held, 1);
}

#[tokio::test]
async fn each_slot_has_its_limits_and_programs_are_replaced() {
    let stack = stack().await;
    let settings = stack
        .settings
        .clone()
        .with("WORKER_EXEC_MEMORY", "2GiB")
        .with("WORKER_EXEC_GPUS", "5,6")
        .with("WORKER_EXEC_RECYCLE", "2")
        .with("NATS_CONTEXT", "secret");
    let _worker = worker_with(&stack, "e1", &settings).await;

    let names = json!([
        "CUDA_VISIBLE_DEVICES",
        "KTRDR_SLOT",
        "NATS_CONTEXT",
        "KTRDR_EXEC"
    ]);
    let found = result(&stack, json!({"do": "environment", "names": names})).await;
    assert_eq!(found["CUDA_VISIBLE_DEVICES"], "5");
    assert_eq!(found["KTRDR_SLOT"], "0");
    assert_eq!(found["KTRDR_EXEC"], "1");
    assert!(
        found["NATS_CONTEXT"].is_null(),
        "the bus is not its business"
    );

    let body = json!({"do": "memory", "bytes": 3_000_000_000_u64});
    let failed = ends(&stack, body, "failed").await;
    let message = failed["error_message"].as_str().unwrap();
    assert!(message.contains("MemoryError"), "{message}");

    // Two operations each: a new one has begun.
    let pids = [
        result(&stack, json!({"do": "pid"})).await,
        result(&stack, json!({"do": "pid"})).await,
        result(&stack, json!({"do": "pid"})).await,
    ];
    assert_eq!(pids[0], pids[1]);
    assert_ne!(pids[1], pids[2]);
}

#[tokio::test]
async fn a_program_is_replaced_when_the_one_before_has_ended() {
    let scratch = Scratch::new("alone");
    let stack = stack().await;
    let settings = stack.settings.clone().with("WORKER_EXEC_RECYCLE", "1");
    // The path tells the programs of this test from those of others.
    let own = scratch.join("odd_job.py");
    std::fs::copy(repository().join("tests/data/exec/odd_job.py"), &own).unwrap();
    let command = format!("python3 {} alone", own.display());
    let words = ["ktrdr-worker", "--exec", &command];
    let _worker = WorkerProcess::launch_program(&settings, &words, "odd_job", "e1");
    stack.api().wait_for_worker("e1", "AVAILABLE").await;

    let mut before = json!(0);
    for _ in 0..3 {
        let found = result(&stack, json!({"do": "overlap"})).await;
        assert_eq!(found[0], json!([]), "{found}");
        assert_ne!(found[1], before);
        before = found[1].clone();
    }
}

#[tokio::test]
async fn a_program_that_cannot_be_served_ends_the_worker_with_the_reason() {
    let stack = stack().await;
    let ends = async |command: &str, worker_type: &str, why: &str| {
        let words = ["ktrdr-worker", "--exec", command];
        let mut worker = WorkerProcess::launch_program(&stack.settings, &words, worker_type, "e1");
        let status = worker.process.wait(LIMIT).await;
        assert_eq!(status.code(), Some(1), "{}", worker.process.log());
        assert!(
            worker.process.log().contains(why),
            "{}",
            worker.process.log()
        );
    };

    ends(
        &format!("{} silent", odd_job()),
        "odd_job",
        "no licence for this machine",
    )
    .await;
    ends("/nowhere/job", "odd_job", "was not found").await;
    let scratch = Scratch::new("plain");
    let plain = scratch.join("job");
    std::fs::write(&plain, "#!/bin/sh\n").unwrap();
    let plain = plain.display().to_string();
    ends(&plain, "odd_job", &format!("chmod +x {plain}")).await;
    ends("echo hello", "odd_job", "ended before it described itself").await;
    ends("python3 'job", "odd_job", "a quote is not closed").await;
    ends(&odd_job(), "another", "WORKER_TYPE is another").await;
}
