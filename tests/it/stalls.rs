//! Engines that hang: they end as stalled, are tried again, and the slots that they keep are shown.

use std::time::Duration;

use ktrdr_tests::engines::GateEngine;
use ktrdr_tests::{Client, LIMIT, Stack, wait_for};
use ktrdr_worker::{Context, Engine, LogLevel, OperationError};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

/// `quiet`: reports nothing, and says that it is alive, and then what it does.
struct QuietEngine;

/// The engine takes no parameters.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct NoParameters {}

impl Engine for QuietEngine {
    const NAME: &'static str = "quiet";
    const STALL_TIMEOUT: Option<Duration> = Some(Duration::from_secs(1));
    type Request = NoParameters;
    type Output = ();

    async fn run(&self, ctx: Context, _: NoParameters) -> Result<(), OperationError> {
        // Three times as long as the stall timeout.
        let mut ticks = tokio::time::interval(Duration::from_millis(100));
        for tick in 0..30 {
            ticks.tick().await;
            // A log line is a sign of life, too.
            if tick < 15 {
                ctx.alive();
            } else {
                ctx.log(LogLevel::Info, "at work");
            }
        }
        Ok(())
    }
}

/// Waits until the worker has lost this many slots; its document then.
async fn wait_for_lost_slots(api: &Client, worker: &str, slots: u64) -> Value {
    wait_for(&format!("{slots} lost slots"), LIMIT, async || {
        let answer = api.try_get(&format!("/api/v1/workers/{worker}")).await?;
        if answer.json["lost_slots"] == slots {
            Ok(answer.json)
        } else {
            Err(answer.to_string())
        }
    })
    .await
}

#[tokio::test]
async fn a_hanging_engine_ends_as_stalled_and_another_attempt_finishes() {
    let stack = Stack::start().await;
    let (engine, gate) = GateEngine::new();
    let hanging = stack.local_worker(engine.clone(), "g1", &[]).await;

    // One attempt would be the last after an ordinary failure.
    let body = json!({"ignore_cancel": true, "execution": {"stall_timeout_seconds": 0.2}});
    let id = stack.api().started("gate", &body).await;
    assert_eq!(gate.started().await.1, 1);

    // The engine ignores the request to stop, so its slot is lost and the operation is not.
    let worker = wait_for_lost_slots(stack.api(), "g1", 1).await;
    assert_eq!(worker["status"], "BUSY");
    assert_eq!(worker["current_operation_id"], Value::Null);

    let operation = stack.api().operation(&id).await;
    assert_eq!(operation.at("/data/attempts/0/outcome"), "failed");
    let error = operation.at("/data/attempts/0/error").to_string();
    assert!(error.contains("no sign of life for 0.2 s"), "{error}");

    let health = hanging.api.get("/health").await.expect(200);
    assert_eq!(health.json["lost_slots"], 1);
    assert_eq!(health.json["status"], "degraded");
    let metrics = hanging.api.get("/metrics").await.expect(200);
    assert!(
        metrics
            .text
            .contains("ktrdr_worker_slots_lost{worker_type=\"gate\"} 1"),
        "{}",
        metrics.text
    );
    let metrics = stack.api().get("/metrics").await.expect(200);
    assert!(
        metrics
            .text
            .contains("ktrdr_workers_slots_lost{worker_type=\"gate\"} 1"),
        "{}",
        metrics.text
    );

    // The result of the engine that returns late does not count.
    gate.open_for_all();
    let done = stack.api().wait_for_status(&id, "completed").await;
    assert_eq!(done["result"]["attempt"], 2);
    wait_for_lost_slots(stack.api(), "g1", 0).await;

    hanging.stop().await;
}

#[tokio::test]
async fn the_last_attempt_that_stalls_fails_the_operation() {
    let stack = Stack::start().await;
    let (_worker, gate) = stack.gate_worker("g1").await;

    let body = json!({"execution": {"stall_timeout_seconds": 0.2, "max_attempts": 1}});
    let id = stack.api().started("gate", &body).await;
    gate.started().await;

    let failed = stack.api().wait_for_status(&id, "failed").await;
    assert_eq!(failed["error"]["code"], "stalled");

    // This engine stops when it is asked to.
    let worker = stack.api().wait_for_worker("g1", "AVAILABLE").await;
    assert_eq!(worker["lost_slots"], 0);
}

#[tokio::test]
async fn signs_of_life_keep_an_attempt_going() {
    let stack = Stack::start().await;
    let _quiet = stack.local_worker(QuietEngine, "q1", &[]).await;
    let _dummy = stack.worker("dummy", "w1").await;

    let quiet = stack.api().started("quiet", &json!({})).await;
    let body = json!({"steps": 20, "step_ms": 100, "execution": {"stall_timeout_seconds": 1}});
    let reporting = stack.api().started("dummy", &body).await;

    for id in [quiet, reporting] {
        let done = stack.api().wait_for_status(&id, "completed").await;
        assert_eq!(done["attempt"], 1);
    }

    // The default of the engine can be read.
    let types = stack.api().get("/api/v1/worker-types").await.expect(200);
    assert!(
        types.text.contains("\"stall_timeout_seconds\":1"),
        "{types}"
    );
}

#[tokio::test]
async fn a_slot_that_is_lost_to_a_forced_cancel_is_shown_and_found_again() {
    let stack = Stack::start_with(|settings| settings.with("KTRDR_CANCEL_GRACE", "100ms")).await;
    let (_worker, gate) = stack.gate_worker("g1").await;

    let id = stack
        .api()
        .started("gate", &json!({"ignore_cancel": true}))
        .await;
    gate.started().await;
    stack.api().cancel(&id).await.expect(200);
    let cancelled = stack.api().wait_for_status(&id, "cancelled").await;
    assert_eq!(cancelled["forced"], true);

    let worker = wait_for_lost_slots(stack.api(), "g1", 1).await;
    assert_eq!(worker["current_operation_id"], Value::Null);

    let next = stack.api().start("gate", &json!({})).await.expect(202);
    let warning = next.json["warning"].as_str().unwrap_or_default();
    assert!(
        warning.contains("the only gate worker has no slot left"),
        "{next}"
    );

    gate.open_for_all();
    let next = next.json["operation_id"].as_str().unwrap();
    stack.api().wait_for_status(next, "completed").await;
}

#[tokio::test]
async fn a_worker_with_a_lost_slot_stops_without_waiting_for_it() {
    let stack = Stack::start().await;
    let (engine, gate) = GateEngine::new();
    let worker = stack
        .local_worker(engine, "g1", &["--shutdown-grace", "600s"])
        .await;

    let body = json!({"ignore_cancel": true, "execution": {"stall_timeout_seconds": 0.2, "max_attempts": 1}});
    let id = stack.api().started("gate", &body).await;
    gate.started().await;
    stack.api().wait_for_status(&id, "failed").await;
    wait_for_lost_slots(stack.api(), "g1", 1).await;

    tokio::time::timeout(LIMIT, worker.stop())
        .await
        .expect("an end before the grace");
}
