//! The lease is kept for the whole attempt, also before the engine starts and after it has ended.

use async_nats::jetstream::stream::Config;
use ktrdr_protocol::event::EventKind;
use ktrdr_tests::engines::{Gate, GateEngine};
use ktrdr_tests::{Client, LIMIT, LocalWorker, Stack, wait_for};
use serde_json::{Value, json};

/// Runs and cancels one operation on each of two workers. Afterwards both have created every stream
/// that was missing, and will create no more.
async fn both_at_work(stack: &Stack, domain: &str, endless: &Value) -> String {
    let (one, two) = (
        stack.api().started(domain, endless).await,
        stack.api().started(domain, endless).await,
    );
    for id in [&one, &two] {
        stack.api().wait_for_status(id, "running").await;
    }
    for id in [&one, &two] {
        stack.api().cancel(id).await.expect(200);
        stack.api().wait_for_status(id, "cancelled").await;
    }
    one
}

/// Deletes a stream and returns its configuration, to create it again.
async fn take_away(stack: &Stack, stream: &str) -> Config {
    let config = stack
        .bus
        .jetstream
        .get_stream(stream)
        .await
        .unwrap()
        .cached_info()
        .config
        .clone();
    stack.bus.jetstream.delete_stream(stream).await.unwrap();
    config
}

/// Waits until one of `workers` has extended its lease so often that the attempt would have been
/// taken over without.
async fn outlives_its_lease(workers: [&Client; 2]) {
    wait_for("the lease to be extended", LIMIT, async || {
        let mut count = 0.0;
        for worker in workers {
            let page = worker.try_get("/metrics").await?.text;
            let line = page
                .lines()
                .find(|line| line.starts_with("ktrdr_worker_lease_extensions_total"));
            count += line
                .and_then(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
                .unwrap_or_default();
        }
        // An extension is sent every third of the lease.
        if count >= 5.0 {
            Ok(())
        } else {
            Err(format!("{count} extensions"))
        }
    })
    .await;
}

/// Two workers, one of which runs operation `id` and cannot find its checkpoint.
struct Looking {
    stack: Stack,
    gate: Gate,
    workers: [LocalWorker; 2],
    /// The configuration of the bucket of checkpoints.
    bucket: Config,
    id: String,
}

async fn looking_for_a_checkpoint() -> Looking {
    let stack = Stack::start().await;
    let (engine, gate) = GateEngine::new();
    let first = LocalWorker::start(&stack.settings, engine.clone(), "g1", &[]).await;
    let second = LocalWorker::start(&stack.settings, engine, "g2", &[]).await;
    stack.api().wait_for_worker("g1", "AVAILABLE").await;
    stack.api().wait_for_worker("g2", "AVAILABLE").await;

    let old = both_at_work(&stack, "gate", &json!({})).await;
    for _ in 0..2 {
        gate.started().await;
    }

    // Without the bucket, a lookup neither finds a checkpoint nor learns that there is none.
    let bucket = take_away(&stack, "KV_KTRDR_CHECKPOINTS").await;
    let answer = stack
        .api()
        .post(&format!("/api/v1/operations/{old}/resume"), &json!({}))
        .await
        .expect(202);
    let id = answer.json["operation_id"].as_str().unwrap().to_owned();
    stack.api().wait_for_status(&id, "running").await;
    Looking {
        stack,
        gate,
        workers: [first, second],
        bucket,
        id,
    }
}

#[tokio::test]
async fn the_lease_is_kept_while_the_last_checkpoint_is_looked_for() {
    let Looking {
        stack,
        gate,
        workers: [first, second],
        bucket,
        id,
    } = looking_for_a_checkpoint().await;
    outlives_its_lease([&first.api, &second.api]).await;

    assert!(
        gate.unseen().await.is_empty(),
        "the engine started without its checkpoint"
    );

    stack.bus.jetstream.create_stream(bucket).await.unwrap();

    assert_eq!(gate.started().await.1, 1);

    gate.open(1);
    stack.api().wait_for_status(&id, "completed").await;

    assert_eq!(
        stack.bus.event_names("gate", &id).await,
        ["started", "completed"]
    );
    stack.bus.settled().await;
}

#[tokio::test]
async fn an_operation_that_is_cancelled_while_its_checkpoint_is_looked_for_ends_at_once() {
    let Looking {
        stack,
        gate,
        workers: _workers,
        id,
        ..
    } = looking_for_a_checkpoint().await;
    stack.api().cancel(&id).await.expect(200);
    stack.api().wait_for_status(&id, "cancelled").await;

    // Cancelled by the worker, before a backend forced it.
    let events = stack.bus.events("gate", &id).await;
    assert!(
        matches!(
            events.last().unwrap().kind,
            EventKind::Cancelled { forced: false, .. }
        ),
        "{events:?}"
    );
    assert!(gate.unseen().await.is_empty(), "the engine started");
    stack.bus.settled().await;
}

#[tokio::test]
async fn the_lease_is_kept_while_the_last_metric_points_are_stored() {
    let stack = Stack::start().await;
    let (first, second) = (
        stack.worker("dummy", "d1").await,
        stack.worker("dummy", "d2").await,
    );

    both_at_work(&stack, "dummy", &json!({"steps": 6000})).await;
    let metrics = take_away(&stack, "KTRDR_METRICS").await;
    let id = stack
        .api()
        .running("dummy", &json!({"steps": 1, "step_ms": 0}))
        .await;
    outlives_its_lease([&first.api, &second.api]).await;
    stack.bus.jetstream.create_stream(metrics).await.unwrap();
    stack.api().wait_for_status(&id, "completed").await;

    assert_eq!(
        stack.bus.event_names("dummy", &id).await,
        ["started", "completed"]
    );

    let points = stack
        .api()
        .get(&format!("/api/v1/operations/{id}/metrics"))
        .await
        .expect(200);
    assert_eq!(points.at("/data/metrics").as_array().unwrap().len(), 1);
    stack.bus.settled().await;
}

#[tokio::test]
async fn engines_that_run_beside_the_lease_keeping_give_way_to_it() {
    const SLOTS: usize = 4;

    let stack =
        Stack::start_with(|settings| settings.with("WORKER_CONCURRENCY", SLOTS.to_string())).await;
    let worker = stack.worker("dummy", "w1").await;

    let mut ids = Vec::new();
    for _ in 0..SLOTS {
        // Days of work without a wait, on more slots than the worker has threads.
        let body = json!({"steps": 4_000_000_000_u32, "step_ms": 0, "metrics_per_step": 0});
        ids.push(stack.api().started("dummy", &body).await);
    }
    wait_for("two extensions of each lease", LIMIT, async || {
        let page = worker.api.get("/metrics").await.text;
        let line = page
            .lines()
            .find(|line| line.starts_with("ktrdr_worker_lease_extensions_total"))
            .unwrap_or_default();
        let count = line
            .rsplit(' ')
            .next()
            .and_then(|count| count.parse::<usize>().ok())
            .unwrap_or_default();
        if count >= 2 * SLOTS {
            Ok(())
        } else {
            Err(line.to_owned())
        }
    })
    .await;
    for id in ids {
        stack.api().cancel(&id).await.expect(200);
        let cancelled = stack.api().wait_for_status(&id, "cancelled").await;
        assert_eq!(cancelled["attempt"], 1, "{cancelled}");
    }
}
