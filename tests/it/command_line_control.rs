//! `ktrdr` beside single operations: schedules, queues, workers, many operations at once, and HTTPS.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Json;
use axum::body::to_bytes;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::post;
use ktrdr_tests::certificates::Authority;
use ktrdr_tests::engines::GateEngine;
use ktrdr_tests::process::program;
use ktrdr_tests::{LIMIT, Scratch, Settings, Stack, wait_for};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::client_control::https_backend;
use super::command_line::{json_of, ktrdr, output, run};

#[tokio::test]
async fn a_schedule_is_put_listed_run_and_deleted() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    let put = |id: &'static str| {
        let words = [
            "schedules",
            "put",
            id,
            "dummy",
            "steps=0",
            "--cron",
            "30 2 * * *",
        ];
        [
            &words[..],
            &["--time-zone", "Europe/Berlin", "--overlap", "queue"],
        ]
        .concat()
    };

    let (code, out, err) = run(&stack, &put("nightly")).await;
    assert_eq!(code, 0, "{err}");
    assert!(out.starts_with("nightly: dummy at 30 2 * * *"), "{out}");
    assert!(out.contains("next") && out.contains("(in "), "{out}");
    let shown = json_of(&stack, &["schedules", "show", "nightly", "--json"]).await;
    assert_eq!(shown["overlap"], "queue");

    // What is shown can be put again, under another id and with one thing changed.
    let scratch = Scratch::new("schedule");
    let file = scratch.join("schedule.json");
    std::fs::write(&file, shown.to_string()).unwrap();
    let file = file.to_str().unwrap();
    let copy = ["schedules", "put", "copy", "-f", file, "--paused", "--json"];
    let copy = json_of(&stack, &copy).await;
    assert_eq!(
        (&copy["cron"], &copy["paused"]),
        (&json!("30 2 * * *"), &json!(true))
    );

    let (_, table, _) = run(&stack, &["schedules"]).await;
    assert!(
        table.starts_with("ID ") && table.contains("paused"),
        "{table}"
    );
    for (verb, word) in [("pause", "paused"), ("resume", "next in")] {
        let (code, out, _) = run(&stack, &["schedules", verb, "nightly"]).await;
        assert_eq!(code, 0);
        assert!(out.contains(word), "{out}");
    }
    let (code, out, _) = run(&stack, &["schedules", "run", "nightly", "--wait"]).await;
    assert_eq!(code, 0, "{out}");
    assert!(out.contains("completed"), "{out}");

    let (code, _, _) = run(&stack, &["schedules", "delete", "nightly", "copy"]).await;
    assert_eq!(code, 0);
    assert_eq!(json_of(&stack, &["schedules", "--json"]).await, json!([]));

    for (words, reason) in [
        (&["schedules", "put", "x", "dummy"][..], "--cron"),
        (
            &["schedules", "put", "x", "dummy", "--cron", "always"],
            "cron",
        ),
        (&["schedules", "show", "x"], "x"),
    ] {
        let (code, _, err) = run(&stack, words).await;
        assert_eq!(code, 2, "{words:?}: {err}");
        assert!(err.contains(reason), "{words:?}: {err}");
    }
}

#[tokio::test]
async fn queues_are_paused_and_workers_drained() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;

    let (code, out, err) = run(&stack, &["queues", "pause", "dummy", "--until", "1h"]).await;
    assert_eq!(code, 0, "{err}");
    assert!(out.starts_with("dummy: paused until 2"), "{out}");
    let (_, out, _) = run(&stack, &["queues", "resume", "dummy"]).await;
    assert_eq!(out, "dummy: not paused\n");
    let (code, _, err) = run(&stack, &["queues", "pause", "nothing"]).await;
    assert_eq!(code, 2, "{err}");
    let (_, table, _) = run(&stack, &["queues"]).await;
    assert!(table.starts_with("TYPE"), "{table}");

    let drained = json_of(&stack, &["workers", "drain", "w1", "--json"]).await;
    assert_eq!(drained["draining"], true);
    let (_, out, _) = run(&stack, &["workers", "undrain", "w1"]).await;
    assert_eq!(out, "w1: takes work, runs 0\n");
    let (code, _, _) = run(&stack, &["workers", "drain", "nobody"]).await;
    assert_eq!(code, 2);
}

#[tokio::test]
async fn what_would_happen_to_all_that_match_is_said_before_it_happens() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    for id in ["a1", "a2"] {
        let gpu = r#"execution={"requirements":{"gpu":true}}"#;
        let words = [
            "start",
            "dummy",
            gpu,
            "--id",
            id,
            "--label",
            "group:a",
            "--priority",
            "2",
        ];
        let (code, _, err) = run(&stack, &words).await;
        assert_eq!(code, 0, "{err}");
    }
    let shown = json_of(&stack, &["show", "a1", "--json"]).await;
    assert_eq!(shown["execution"]["priority"], 2);
    let (_, listed, _) = run(&stack, &["list", "--label", "group:a", "--since", "1h"]).await;
    assert!(listed.contains("a1") && listed.contains("a2"), "{listed}");

    let all = ["cancel", "--status", "pending", "--label", "group:a"];
    let (code, out, err) = run(&stack, &all).await;
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("2 match") && out.contains("--yes"), "{out}");
    stack.api().wait_for_status("a1", "pending").await;

    let (code, out, _) = run(&stack, &[&all[..], &["--yes"]].concat()).await;
    assert_eq!(
        (code, out.as_str()),
        (0, "cancelled, or asked to stop: 2\n")
    );
    for id in ["a1", "a2"] {
        stack.api().wait_for_status(id, "cancelled").await;
    }

    let one = [
        "retry",
        "--status",
        "cancelled",
        "--type",
        "dummy",
        "--limit",
        "1",
        "--yes",
    ];
    let (code, out, _) = run(&stack, &one).await;
    assert_eq!(code, 0);
    assert!(out.ends_with("retried: 1\n"), "{out}");

    for (words, reason) in [
        (&["cancel"][..], "filter"),
        (&["cancel", "a1", "--status", "pending"], "not by both"),
        (&["cancel", "a1", "--yes"], "--yes"),
        (&["retry", "--status", "failed", "--resume"], "--resume"),
        (&["cancel", "--label", "nothing"], "name:value"),
        (&["list", "--since", "yesterday"], "2h"),
    ] {
        let (code, _, err) = run(&stack, words).await;
        assert_eq!(code, 2, "{words:?}: {err}");
        assert!(err.contains(reason), "{words:?}: {err}");
    }
}

#[tokio::test]
async fn more_than_one_request_may_name_are_cancelled_and_retried_once() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    let scratch = Scratch::new("lines");
    let file = scratch.join("bodies.jsonl");
    std::fs::write(&file, "{}\n".repeat(1001)).unwrap();
    let gpu = r#"execution={"requirements":{"gpu":true}}"#;
    let file = file.to_str().unwrap();
    let label = ["--label", "group:big"];
    let started = [&["start", "dummy", gpu, "--many", file][..], &label].concat();
    let (code, _, err) = run(&stack, &started).await;
    assert_eq!(code, 0, "{err}");

    // No status is named: what the first request has cancelled does not stand in the way of the second.
    let (code, out, err) = run(&stack, &[&["cancel", "--yes"][..], &label].concat()).await;
    assert_eq!(
        (code, out.as_str()),
        (0, "cancelled, or asked to stop: 1001\n"),
        "{err}"
    );
    let (code, out, err) = run(&stack, &[&["retry", "--yes"][..], &label].concat()).await;
    assert!(out.ends_with("retried: 1001\n"), "{code}: {err}");

    // All of them were retried before, and a repetition would not change that.
    let again = ["retry", "--yes", "--status", "cancelled"];
    let (code, out, err) = run(&stack, &[&again[..], &label].concat()).await;
    assert_eq!((code, out.as_str()), (2, "retried: 0\n"), "{err}");
}

#[tokio::test]
async fn more_than_one_request_may_name_that_ignore_a_cancel_are_all_asked_once() {
    let stack = Stack::start_with(|settings| Settings {
        cancel_grace: LIMIT * 10,
        lease: LIMIT,
        heartbeat: Duration::from_secs(1),
        ..settings
    })
    .await;
    let (engine, gate) = GateEngine::new();
    let slots = ["--concurrency", "1001"];
    let _worker = stack.local_worker(engine, "g1", &slots).await;
    let scratch = Scratch::new("lines");
    let file = scratch.join("bodies.jsonl");
    std::fs::write(&file, "{\"ignore_cancel\": true}\n".repeat(1001)).unwrap();
    let file = file.to_str().unwrap();
    let (code, _, err) = run(&stack, &["start", "gate", "--many", file]).await;
    assert_eq!(code, 0, "{err}");
    for _ in 0..1001 {
        gate.started().await;
    }
    wait_for("all of them to run", LIMIT, async || {
        let page = stack.api().operations("status=running&limit=1").await;
        match page.at("/data/total").as_u64() {
            Some(1001) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;

    let words = ["cancel", "--type", "gate", "--yes"];
    // One request takes 20 s at most. On a slow machine, another one asks the others.
    let cancelled = wait_for("the end of the cancels", LIMIT * 4, async || {
        match run(&stack, &words).await {
            (3, out, err) => Err(format!("{out}{err}")),
            (code, _, err) => Ok((code, err)),
        }
    });

    let (code, err) = cancelled.await;
    assert_eq!(code, 0, "{err}");
    let asked = stack.bus.stored("ktrdr.cancel.>").await;
    assert_eq!(asked.len(), 1001);

    // They go on all the same, and a repetition asks none of them again.
    let (_, out, err) = run(&stack, &words[..3]).await;
    assert!(out.contains("was asked to stop before"), "{out}{err}");
    let limited = [&words[..], &["--limit", "3"]].concat();
    let (code, out, err) = run(&stack, &limited).await;
    let wanted = "cancelled, or asked to stop: 0\nasked before: 3\n";
    assert_eq!((code, out.as_str()), (0, wanted), "{err}");
    gate.open(1001);
}

#[tokio::test]
async fn a_file_starts_an_operation_for_each_of_its_lines() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    let scratch = Scratch::new("lines");
    let file = scratch.join("bodies.jsonl");
    let lines = "{\"steps\": 1}\n\n{\"steps\": 2, \"task_id\": \"own\"}\n";
    std::fs::write(&file, lines).unwrap();
    let file = file.to_str().unwrap();

    let words = [
        "start",
        "dummy",
        "step_ms=0",
        "--many",
        file,
        "--label",
        "group:lines",
    ];
    let (code, out, err) = run(&stack, &[&words[..], &["--wait"]].concat()).await;
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("own: completed"), "{out}");
    let own = json_of(&stack, &["show", "own", "--json"]).await;
    assert_eq!(own["metadata"]["steps"], 2);
    assert_eq!(own["metadata"]["step_ms"], 0);

    // With an id, a file that is sent twice starts nothing twice.
    for _ in 0..2 {
        let (code, out, err) = run(&stack, &[&words[..], &["--id", "batch"]].concat()).await;
        assert_eq!((code, out.as_str()), (0, "batch-1\nbatch-3\n"), "{err}");
    }
    let listed = json_of(&stack, &["list", "--label", "group:lines", "--json"]).await;
    assert_eq!(listed["total"], 4);

    let bad = scratch.join("bad.jsonl");
    std::fs::write(&bad, "{\"steps\": 0}\n{\"steps\": -1}\n").unwrap();
    let (code, out, err) = run(&stack, &["start", "dummy", "--many", bad.to_str().unwrap()]).await;
    assert_eq!(code, 2);
    assert_eq!(out.lines().count(), 1, "the good one has started");
    assert!(err.contains("line 2: ") && err.contains("1 of 2"), "{err}");
    let path = bad.to_str().unwrap();
    let (code, out, _) = run(&stack, &["start", "dummy", "--many", path, "--wait"]).await;
    assert_eq!(code, 2);
    assert!(out.contains(": completed"), "the good one has ended: {out}");
}

#[tokio::test]
async fn a_line_that_is_no_json_keeps_none_of_the_others_and_they_are_waited_for() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    let scratch = Scratch::new("lines");
    let file = scratch.join("bodies.jsonl");
    let lines = b"{\"steps\": 0}\nsteps\n\xff\n{\"steps\": 2}\n";
    std::fs::write(&file, lines).unwrap();
    let file = file.to_str().unwrap();

    let words = ["start", "dummy", "step_ms=1", "--many", file, "--id", "b"];
    let (code, out, err) = run(&stack, &[&words[..], &["--wait"]].concat()).await;

    assert_eq!(code, 2, "{err}");
    for (number, reason) in [(2, "not JSON"), (3, "UTF-8")] {
        let wanted = format!("line {number}: {reason}");
        let found = err
            .lines()
            .any(|line| line.starts_with(&format!("line {number}: ")) && line.contains(reason));
        assert!(found, "{wanted}: {err}");
    }
    assert!(err.contains("2 of 4 starts were refused"), "{err}");
    for id in ["b-1", "b-4"] {
        assert!(out.contains(&format!("dummy {id}: completed")), "{out}");
    }

    let listed = run(&stack, &[&words[..], &["--json"]].concat()).await.1;
    let codes: Vec<u64> = listed
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .map(|result| result["status_code"].as_u64().unwrap())
        .collect();
    assert_eq!(codes, [200, 400, 400, 200], "in the order of the lines");
}

/// A backend that answers the first request, and refuses or does not answer the others.
async fn half_a_backend(after_that: Option<StatusCode>) -> String {
    let requests = Arc::new(AtomicUsize::new(0));
    let answer = async move |request: Request| {
        let body = to_bytes(request.into_body(), usize::MAX).await.unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap();
        let results = body["operations"].as_array().unwrap().iter().map(
            |one| json!({"operation_id": one["task_id"], "status": "pending", "status_code": 202}),
        );
        let results: Vec<Value> = results.collect();
        let data = json!({"accepted": results.len(), "refused": 0, "results": results});
        match (requests.fetch_add(1, Ordering::SeqCst), after_that) {
            (0, _) => Json(json!({"success": true, "data": data})).into_response(),
            (_, Some(status)) => {
                let refused = json!({"success": false, "error": "no more", "code": "forbidden"});
                (status, Json(refused)).into_response()
            }
            // Whatever this is, it was sent.
            (_, None) => "{}".into_response(),
        }
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, post(answer).into_make_service()).await });
    address
}

#[tokio::test]
async fn what_the_first_requests_have_started_is_printed_when_a_later_one_fails() {
    let scratch = Scratch::new("lines");
    let file = scratch.join("bodies.jsonl");
    // Four of these are in a request, which has 8 MiB at most.
    let large = format!("{{\"x\": \"{}\"}}\n", "y".repeat(1_900_000));
    let lines = [&large, &large, "steps\n", &large, &large, &large].concat();
    std::fs::write(&file, lines).unwrap();
    let start = async |address: &str| {
        let mut command = Command::new(program("ktrdr"));
        command.args(["start", "dummy", "--id", "b", "--url", address, "--many"]);
        command.arg(&file).env_remove("KTRDR_TOKEN");
        let ended = output(command).await;
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (ended.status.code(), text(ended.stdout), text(ended.stderr))
    };

    let answered = "b-1\nb-2\nb-4\nb-5\n";
    for (after_that, wanted, said) in [
        (
            Some(StatusCode::FORBIDDEN),
            2,
            "line 6 and all after it: not started",
        ),
        (None, 3, "line 6: it may have started"),
    ] {
        let (code, out, err) = start(&half_a_backend(after_that).await).await;
        assert_eq!((code, out.as_str()), (Some(wanted), answered), "{err}");
        assert!(
            err.contains("line 3: not JSON") && err.contains(said),
            "{err}"
        );
    }

    // Nobody is there.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let (code, out, err) = start(&address).await;
    assert_eq!((code, out.as_str()), (Some(3), ""), "{err}");
    assert!(
        err.contains("line 1 and all after it: not started"),
        "{err}"
    );
    assert!(!err.contains("may have started"), "{err}");
}

#[tokio::test]
async fn the_authority_of_a_backend_is_named_by_a_file() {
    let authority = Authority::new();
    let (_nats, _backend, address) = https_backend(&authority).await;
    let ask = async |ca: Option<&std::path::Path>| {
        let mut command = Command::new(program("ktrdr"));
        command.args(["types", "--url", &address]);
        command.env_remove("KTRDR_TOKEN").env_remove("KTRDR_CA");
        if let Some(path) = ca {
            command.env("KTRDR_CA", path);
        }
        let ended = output(command).await;
        (
            ended.status.code(),
            String::from_utf8(ended.stderr).unwrap(),
        )
    };

    let (code, err) = ask(Some(authority.certificate())).await;
    assert_eq!(code, Some(0), "{err}");
    let (code, err) = ask(None).await;
    assert_eq!(code, Some(3), "{err}");
    assert!(
        err.contains("UnknownIssuer") && err.contains("--ca"),
        "{err}"
    );

    let scratch = Scratch::new("ca");
    let empty = scratch.join("empty.pem");
    std::fs::write(&empty, "").unwrap();
    for path in [empty, scratch.join("missing.pem")] {
        let (code, err) = ask(Some(&path)).await;
        assert_eq!(code, Some(2), "{err}");
    }
}

#[tokio::test]
async fn completions_know_the_commands_below_a_command() {
    let stack = Stack::start().await;
    for shell in ["bash", "zsh", "fish"] {
        let mut command = ktrdr(&stack, &["completions", shell]);
        command.env_remove("KTRDR_URL");
        let script = output(command).await.stdout;
        let script = String::from_utf8(script).unwrap();
        for word in ["schedules", "undrain", "catch-up"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
}
