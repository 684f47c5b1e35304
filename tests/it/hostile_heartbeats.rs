//! Heartbeats that are made up, or too large: others go on, and memory, answers and logs stay small.

use std::collections::BTreeSet;

use ktrdr_tests::process::peak_memory;
use ktrdr_tests::{LIMIT, Settings, Stack, wait_for};
use serde_json::{Value, json};

/// The most workers that a backend lists.
const MAX_WORKERS: usize = 10_000;

fn heartbeat(id: &str) -> Value {
    json!({
        "worker_id": id, "worker_type": "dummy", "instance": id,
        "endpoint_url": "http://127.0.0.1:1", "status": "AVAILABLE", "capabilities": {},
        "version": "1", "registered_at": "2026-01-01T00:00:00Z", "at": "2026-01-01T00:00:00Z",
        "interval_seconds": 3600.0, "slots": 1, "running": [],
    })
}

async fn beat(stack: &Stack, heartbeat: &Value) {
    let id = heartbeat["worker_id"].as_str().unwrap();
    let subject = format!("ktrdr.heartbeat.dummy.{id}");
    stack.bus.publish(subject, heartbeat.to_string()).await;
}

/// A sample of the backend's page; 0 while it is not there.
async fn sample(stack: &Stack, name: &str) -> f64 {
    let page = stack.api().get("/metrics").await.expect(200);
    let line = page.text.lines().find(|line| line.starts_with(name));
    line.and_then(|line| line.rsplit_once(' '))
        .map_or(0.0, |(_, value)| value.parse().unwrap())
}

async fn wait_for_sample(stack: &Stack, name: &str, wanted: f64) {
    wait_for(&format!("{name} to be {wanted}"), LIMIT, async || {
        let found = sample(stack, name).await;
        if found == wanted {
            Ok(())
        } else {
            Err(found.to_string())
        }
    })
    .await;
}

const REFUSED: &str = "ktrdr_refused_messages_total{kind=\"heartbeat\"}";

#[tokio::test]
async fn made_up_workers_are_bounded_and_known_ones_go_on() {
    let stack = Stack::start_with(|settings| Settings {
        heartbeat: std::time::Duration::from_secs(1),
        ..settings
    })
    .await;
    let _worker = stack.worker("dummy", "genuine").await;
    stack.api().wait_for_worker("genuine", "AVAILABLE").await;
    let before = peak_memory(stack.backend.process.pid());

    for number in 0..MAX_WORKERS + 50 {
        beat(&stack, &heartbeat(&format!("made-up-{number:05}"))).await;
    }
    wait_for_sample(&stack, REFUSED, 51.0).await;

    // Pages give every worker once, the genuine one among them, and it still takes work.
    let mut ids = BTreeSet::new();
    let mut path = "/api/v1/workers".to_owned();
    loop {
        let page = stack.api().get(&path).await.expect(200);
        assert!(page.text.len() < 10_000_000, "{} bytes", page.text.len());
        let workers = page.json.as_array().unwrap();
        assert!(!workers.is_empty());
        for worker in workers {
            assert!(ids.insert(worker["worker_id"].as_str().unwrap().to_owned()));
        }
        let Some(link) = page.headers.get("link") else {
            break;
        };
        let link = link.to_str().unwrap();
        path = link
            .trim_start_matches('<')
            .split('>')
            .next()
            .unwrap()
            .to_owned();
    }
    assert_eq!(ids.len(), MAX_WORKERS);
    assert!(ids.contains("genuine"));
    let id = stack.api().started("dummy", &json!({"steps": 0})).await;
    stack.api().wait_for_status(&id, "completed").await;

    // Few lines tell of ten thousand workers.
    let log = stack.backend.process.log();
    let lines = log
        .lines()
        .filter(|line| line.contains("worker") && line.contains("made-up"));
    assert!(lines.count() < 100);
    let grown = peak_memory(stack.backend.process.pid()) - before;
    assert!(grown < 150_000_000, "{grown} bytes");
}

#[tokio::test]
async fn parts_of_a_heartbeat_that_have_any_size_are_refused_or_shortened() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "genuine").await;
    let with = |id: &str, name: &str, value: Value| {
        let mut forged = heartbeat(id);
        forged[name] = value;
        forged
    };

    let too_large = [
        with(
            "a",
            "endpoint_url",
            json!("http://".to_owned() + &"x".repeat(3000)),
        ),
        with("b", "version", json!("x".repeat(300))),
        with("c", "instance", json!("x".repeat(300))),
        with("d", "capabilities", json!({"filler": "x".repeat(20_000)})),
    ];
    for forged in &too_large {
        beat(&stack, forged).await;
    }
    wait_for_sample(&stack, REFUSED, too_large.len() as f64).await;
    let running = json!([{
        "operation_id": "op", "attempt": 1, "report": 1,
        "progress": {"percentage": 7, "current_step": "s".repeat(5000), "log": "x".repeat(50_000)},
    }]);
    beat(&stack, &with("e", "running", running)).await;
    let shown = stack.api().wait_for_worker("e", "AVAILABLE").await;

    let listed: Vec<_> = stack.api().workers().await;
    let ids: Vec<_> = listed.iter().map(|one| one["worker_id"].clone()).collect();
    assert_eq!(ids, [json!("e"), json!("genuine")]);
    let progress = &shown["current_operations"][0]["progress"];
    assert_eq!(progress["percentage"], 7);
    assert_eq!(
        progress["current_step"].as_str().unwrap().chars().count(),
        1001
    );
    assert_eq!(progress.get("log"), None);
}

#[tokio::test]
async fn large_heartbeats_together_are_bounded_and_small_workers_still_come() {
    let stack = Stack::start().await;
    let before = peak_memory(stack.backend.process.pid());

    // Each lists as many running operations as a message holds.
    let running: Vec<Value> = (0..8000)
        .map(|number| json!({"operation_id": format!("op-{number:0>60}"), "attempt": 1}))
        .collect();
    for number in 0..200 {
        let mut forged = heartbeat(&format!("large-{number}"));
        forged["running"] = json!(running);
        beat(&stack, &forged).await;
    }
    beat(&stack, &heartbeat("small")).await;
    stack.api().wait_for_worker("small", "AVAILABLE").await;

    let refused = sample(&stack, REFUSED).await;
    assert!(refused > 50.0, "{refused} were refused");
    let page = stack.api().get("/api/v1/workers").await.expect(200);
    assert!(page.text.len() < 12_000_000, "{} bytes", page.text.len());
    let grown = peak_memory(stack.backend.process.pid()) - before;
    assert!(grown < 300_000_000, "{grown} bytes");
}

#[tokio::test]
async fn a_flood_of_refused_messages_writes_few_log_lines() {
    let stack = Stack::start().await;

    for number in 0..3000 {
        let subject = format!("ktrdr.heartbeat.dummy.made-up-{number}");
        stack.bus.publish(subject, "noise").await;
    }
    wait_for_sample(&stack, REFUSED, 3000.0).await;

    let log = stack.backend.process.log();
    let lines = log.lines().filter(|line| line.contains(" WARN ")).count();
    assert!((1..5).contains(&lines), "{lines} lines");
}
