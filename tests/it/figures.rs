//! What would otherwise fill up, grow old or disappear in silence: each has a figure, and a warning
//! when it is serious.

use std::process::Command;

use async_nats::jetstream::consumer::Config;
use ktrdr_tests::engines::GateEngine;
use ktrdr_tests::process::Process;
use ktrdr_tests::secure::{configuration, installation};
use ktrdr_tests::{
    BackendProcess, Client, LIMIT, NatsServer, Settings, Stack, WorkerProcess, wait_for,
};
use ktrdr_worker::Engine;
use serde_json::{Value, json};

/// Waits until a sample of a `/metrics` page is as wanted.
async fn wait_for_sample(api: &Client, name: &str, is_wanted: impl Fn(f64) -> bool) {
    wait_for(name, LIMIT, async || {
        let page = api.try_get("/metrics").await?.text;
        let mut lines = page.lines();
        let line = lines.find(|line| line.rsplit_once(' ').is_some_and(|(key, _)| key == name));
        let value = line.and_then(|line| line.rsplit_once(' ')?.1.parse().ok());
        if value.is_some_and(&is_wanted) {
            Ok(())
        } else {
            Err(format!("{line:?}"))
        }
    })
    .await;
}

async fn wait_for_line(process: &Process, parts: &[&str]) {
    wait_for("the warning", LIMIT, async || {
        let log = process.log();
        let mut lines = log.lines();
        if lines.any(|line| line.contains("WARN") && parts.iter().all(|part| line.contains(part))) {
            Ok(())
        } else {
            Err(log)
        }
    })
    .await;
}

/// Publishes on the operations stream until it takes nothing more.
async fn fill_stream(stack: &Stack) {
    for size in [4000, 200, 1] {
        let junk = || {
            let subject = "ktrdr.op.dummy.junk";
            stack
                .bus
                .jetstream
                .publish(subject, vec![b'x'; size].into())
        };
        while junk().await.unwrap().await.is_ok() {}
    }
}

#[tokio::test]
async fn a_stream_that_is_nearly_full_is_shown_and_told() {
    let stack =
        Stack::start_with(|settings| settings.with("KTRDR_STREAM_MAX_BYTES", "150000")).await;

    fill_stream(&stack).await;

    let limit = r#"ktrdr_stream_max_bytes{stream="KTRDR"}"#;
    wait_for_sample(stack.api(), limit, |bytes| bytes == 150_000.0).await;
    let bytes = r#"ktrdr_stream_bytes{stream="KTRDR"}"#;
    wait_for_sample(stack.api(), bytes, |bytes| bytes > 0.9 * 150_000.0).await;
    let bucket = r#"ktrdr_stream_bytes{stream="KV_KTRDR_CHECKPOINTS"}"#;
    wait_for_sample(stack.api(), bucket, |bytes| bytes == 0.0).await;
    wait_for_line(
        &stack.backend.process,
        &["the stream is nearly full", "KTRDR"],
    )
    .await;
}

#[tokio::test]
async fn an_end_that_cannot_be_stored_is_shown_by_its_worker() {
    let stack =
        Stack::start_with(|settings| settings.with("KTRDR_STREAM_MAX_BYTES", "150000")).await;
    let worker = stack.worker("dummy", "w1").await;
    let id = stack
        .api()
        .running("dummy", &json!({"steps": 20, "step_ms": 100}))
        .await;

    fill_stream(&stack).await;

    let unstored = r#"ktrdr_worker_unstored_ends{worker_type="dummy"}"#;
    wait_for_sample(&worker.api, unstored, |ends| ends == 1.0).await;

    let stream = stack.bus.jetstream.get_stream("KTRDR").await.unwrap();
    let mut config = stream.cached_info().config.clone();
    config.max_bytes = 1_000_000;
    stack.bus.jetstream.update_stream(config).await.unwrap();
    stack.api().wait_for_status(&id, "completed").await;
    wait_for_sample(&worker.api, unstored, |ends| ends == 0.0).await;
}

#[tokio::test]
async fn queues_and_the_age_of_unfinished_work_are_shown() {
    let stack = Stack::start().await;
    let (engine, gate) = GateEngine::new();
    let _worker = stack.local_worker(engine, "g1", &[]).await;

    for _ in 0..3 {
        stack.api().started("gate", &json!({})).await;
    }
    gate.started().await;

    let labels = format!(r#"{{worker_type="{}",queue="any"}}"#, GateEngine::NAME);
    let sample = |name: &str| format!("{name}{labels}");
    let api = stack.api();
    wait_for_sample(api, &sample("ktrdr_queue_unacknowledged"), |n| n == 1.0).await;
    wait_for_sample(api, &sample("ktrdr_queue_undelivered"), |n| n == 2.0).await;

    let of_type = format!(r#"{{worker_type="{}"}}"#, GateEngine::NAME);
    for name in [
        "ktrdr_unfinished_oldest_age_seconds",
        "ktrdr_running_progress_age_seconds",
    ] {
        wait_for_sample(api, &format!("{name}{of_type}"), |age| age > 0.0).await;
    }
    let limit = r#"ktrdr_stream_max_age_seconds{stream="KTRDR"}"#;
    wait_for_sample(api, limit, |age| age >= 7.0 * 86_400.0).await;

    gate.open_for_all();
    let oldest = format!("ktrdr_unfinished_oldest_age_seconds{of_type}");
    wait_for_sample(api, &oldest, |age| age == 0.0).await;
}

#[tokio::test]
async fn a_queue_that_is_nearly_full_is_shown_and_told() {
    let stack = Stack::start().await;
    let (engine, gate) = GateEngine::new();
    let _worker = stack
        .local_worker(engine, "g1", &["--concurrency", "4"])
        .await;
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(stack.api().running("gate", &json!({})).await);
    }

    // The real limit is a million. Backends set it back when they have seen it.
    let stream = stack.bus.jetstream.get_stream("KTRDR").await.unwrap();
    let info = stream.consumer_info("gate-any").await.unwrap();
    let lower = Config {
        max_ack_pending: 4,
        ..info.config
    };
    let jetstream = &stack.bus.jetstream;
    let changed = jetstream.update_consumer_on_stream(lower, "KTRDR").await;
    assert_eq!(changed.unwrap().cached_info().config.max_ack_pending, 4);

    wait_for_line(
        &stack.backend.process,
        &[
            "the queue nearly holds",
            "gate",
            "unacknowledged=4",
            "limit=4",
        ],
    )
    .await;
    let sample = r#"ktrdr_queue_unacknowledged{worker_type="gate",queue="any"}"#;
    wait_for_sample(stack.api(), sample, |n| n == 4.0).await;
    let limit = r#"ktrdr_queue_unacknowledged_limit{worker_type="gate",queue="any"}"#;
    wait_for_sample(stack.api(), limit, |n| n == 1_000_000.0).await;

    gate.open_for_all();
    for id in &ids {
        stack.api().wait_for_status(id, "completed").await;
    }
}

/// The server does not let the backend raise the age limit.
#[tokio::test]
async fn an_operation_that_is_about_to_expire_is_shown_and_told() {
    let users = configuration(&installation(&["dummy"]));
    let without = users.replacen("\"$JS.API.STREAM.UPDATE.KTRDR\"", "\"unused\"", 1);
    assert_ne!(users, without);
    let nats = NatsServer::start_with(&without).await;
    let settings = Settings {
        secure: true,
        ..Settings::fast(nats.url())
    };
    let settings = settings.with("KTRDR_RETENTION", "12s");
    let backend = BackendProcess::start(&settings).await;
    let worker = WorkerProcess::start(&settings, "dummy", "w1").await;
    backend.api.wait_for_worker("w1", "AVAILABLE").await;

    let slow = json!({"steps": 1000, "step_ms": 100});
    let id = backend.api.running("dummy", &slow).await;

    let oldest = r#"ktrdr_unfinished_oldest_age_seconds{worker_type="dummy"}"#;
    wait_for_sample(&backend.api, oldest, |age| age > 10.0).await;
    wait_for_line(&backend.process, &["about to leave the stream", &id]).await;
    drop(worker);
}

#[tokio::test]
async fn a_worker_that_does_not_pull_is_shown_and_told_by_backends() {
    let stack = Stack::start().await;
    let heartbeat = json!({
        "worker_id": "deaf", "worker_type": "dummy", "instance": "deaf",
        "endpoint_url": "http://127.0.0.1:1", "status": "AVAILABLE", "capabilities": {},
        "version": "1", "registered_at": "2026-01-01T00:00:00Z", "at": "2026-01-01T01:00:00Z",
        "last_pull_at": "2026-01-01T00:58:00Z",
        "interval_seconds": 3600.0, "slots": 1, "running": [],
    });

    stack
        .bus
        .publish("ktrdr.heartbeat.dummy.deaf", heartbeat.to_string())
        .await;

    let name = r#"ktrdr_workers_not_pulling{worker_type="dummy"}"#;
    wait_for_sample(stack.api(), name, |workers| workers == 1.0).await;
    wait_for_line(&stack.backend.process, &["asks for no work", "deaf"]).await;
}

#[tokio::test]
async fn a_stream_that_lost_its_newest_messages_is_told_and_counted() {
    let mut stack = Stack::start().await;
    let worker: WorkerProcess = stack.worker("dummy", "w1").await;
    let kept = stack.api().started("dummy", &json!({"steps": 0})).await;
    stack.api().wait_for_status(&kept, "completed").await;

    stack.nats.stop().await;
    let store = stack.nats.store();
    let copy = store.with_extension("copy");
    let run = |program: &str, arguments: &[&std::path::Path]| {
        let status = Command::new(program).arg("-r").args(arguments).status();
        assert!(status.unwrap().success());
    };
    run("cp", &[&store, &copy]);
    stack.nats.run().await;
    stack.backend.ready().await;
    let lost = stack.api().started("dummy", &json!({"steps": 0})).await;
    stack.api().wait_for_status(&lost, "completed").await;
    drop(worker);

    stack.nats.stop().await;
    run("rm", &[&store]);
    std::fs::rename(&copy, &store).unwrap();
    stack.nats.run().await;

    let losses = r#"ktrdr_stream_losses_total{lost="tail"}"#;
    wait_for_sample(stack.api(), losses, |count| count == 1.0).await;
    wait_for_line(
        &stack.backend.process,
        &["the stream has lost its newest messages"],
    )
    .await;
    stack.backend.ready().await;
    stack.api().operation(&lost).await.expect(404);
    assert_eq!(
        stack.api().operation(&kept).await.json["status"],
        "completed"
    );
}

#[tokio::test]
async fn figures_say_how_long_operations_took_and_why_they_failed() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    for (id, fail) in [("good", false), ("bad-1", true), ("bad-2", true)] {
        let mut body = json!({"task_id": id, "steps": 1, "step_ms": 1});
        if fail {
            body["fail_at_step"] = json!(1);
        }
        stack.api().started("dummy", &body).await;
        let status = if fail { "failed" } else { "completed" };
        stack.api().wait_for_status(id, status).await;
    }
    let gpu = json!({"execution": {"requirements": {"gpu": true, "memory_gb": 16}}});
    stack.api().started("dummy", &gpu).await;

    let stats = stack.api().get("/api/v1/stats?window_seconds=600").await;
    let stats = stats.expect(200);
    let ended = stats.at("/data/ended");
    assert_eq!(ended["window_seconds"], 600);
    assert_eq!(ended["operations"], 3);
    for name in ["waiting", "running"] {
        let [half, most] = ["p50", "p95"].map(|at| ended[name][at].as_f64().unwrap());
        assert!(0.0 <= half && half <= most && most < 60.0, "{ended}");
    }
    let failures = json!([
        {"operation_type": "dummy", "error_code": "engine_error", "operations": 2}
    ]);
    assert_eq!(ended["failures"], failures);
    let queues = stats.at("/data/queues").as_array().unwrap();
    let reasons: Vec<&Value> = queues.iter().map(|queue| &queue["nobody"]).collect();
    let reason = "The only dummy worker does not have a GPU and 16 GiB of memory";
    assert!(reasons.contains(&&json!(reason)), "{reasons:?}");
    assert!(reasons.contains(&&Value::Null), "{reasons:?}");
    let refused = stack.api().get("/api/v1/stats?window_seconds=0").await;
    refused.expect_problem(400, "invalid_query");
}
