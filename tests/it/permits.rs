//! Operations that wait for a permit of their concurrency key say so.

use ktrdr_tests::engines::GateEngine;
use ktrdr_tests::{BackendProcess, Client, LIMIT, Stack, wait_for};
use serde_json::{Value, json};

use crate::keys::limited;

/// Waits until an operation says this of the permit that it waits for.
async fn wait_for_permit_of(api: &Client, id: &str, expected: &Value) {
    wait_for("what it says of its permit", LIMIT, async || {
        let shown = api.operation(id).await.expect(200);
        match shown.json["data"].get("waits_for_permit") {
            found if found.unwrap_or(&Value::Null) == expected => Ok(()),
            found => Err(format!("{found:?}")),
        }
    })
    .await;
}

/// How many operations wait for a permit, by the page of queues.
async fn waiting_for_permit(api: &Client) -> u64 {
    let queues = api.get("/api/v1/queues").await.expect(200);
    let queues = queues.at("/data/queues").as_array().unwrap();
    let waiting = queues.iter().map(|queue| &queue["waiting_for_permit"]);
    waiting.map(|waiting| waiting.as_u64().unwrap()).sum()
}

async fn wait_for_metric(api: &Client, line: &str) {
    wait_for(line, LIMIT, async || {
        let metrics = api.get("/metrics").await.expect(200).text;
        match metrics.lines().any(|one| one == line) {
            true => Ok(()),
            false => {
                let named = metrics.lines().filter(|one| one.contains("permit"));
                Err(named.collect::<Vec<_>>().join("\n"))
            }
        }
    })
    .await;
}

#[tokio::test]
async fn an_operation_that_waits_for_a_permit_says_so_at_every_backend() {
    let stack = Stack::start().await;
    let (engine, gate) = GateEngine::new();
    let _worker = stack
        .local_worker(engine, "g1", &["--concurrency", "3"])
        .await;
    let api = stack.api();
    let first = api.running("gate", &limited("licence", 1)).await;

    let second = api.started("gate", &limited("licence", 1)).await;

    let expected = json!({"key": "licence", "limit": 1, "held": 1});
    wait_for_permit_of(api, &second, &expected).await;
    wait_for_permit_of(api, &first, &Value::Null).await;
    let list = api.operations("status=pending").await.expect(200);
    let shown = list.at("/data/operations/0/waits_for_permit");
    assert_eq!(*shown, expected, "{list}");
    assert_eq!(waiting_for_permit(api).await, 1);
    for line in [
        "ktrdr_operations_waiting_for_permit{worker_type=\"gate\"} 1.0",
        "ktrdr_concurrency_keys_held{worker_type=\"gate\"} 1.0",
    ] {
        wait_for_metric(api, line).await;
    }

    // A backend that reads all of it later shows the same.
    let other = BackendProcess::start(&stack.settings).await;
    wait_for_permit_of(&other.api, &second, &expected).await;
    assert_eq!(waiting_for_permit(&other.api).await, 1);

    // Another one has a higher limit, so it waits for nothing; and there is one more holder then.
    let third = api.running("gate", &limited("licence", 2)).await;
    let expected = json!({"key": "licence", "limit": 1, "held": 2});
    wait_for_permit_of(&other.api, &second, &expected).await;
    wait_for_permit_of(&other.api, &third, &Value::Null).await;

    gate.open_for_all();
    for id in [&first, &second, &third] {
        other.api.wait_for_status(id, "completed").await;
        wait_for_permit_of(&other.api, id, &Value::Null).await;
    }
    assert_eq!(waiting_for_permit(&other.api).await, 0);
    for line in [
        "ktrdr_operations_waiting_for_permit{worker_type=\"gate\"} 0.0",
        "ktrdr_concurrency_keys_held{worker_type=\"gate\"} 0.0",
        "ktrdr_permit_stuck_seconds{worker_type=\"gate\"} 0.0",
    ] {
        wait_for_metric(&other.api, line).await;
    }
    stack.bus.settled().await;
}

#[tokio::test]
async fn unique_keys_that_are_held_are_counted() {
    let stack = Stack::start().await;
    let (_worker, gate) = stack.gate_worker("g1").await;
    let api = stack.api();
    let mut ids = Vec::new();
    for key in ["a", "b"] {
        ids.push(
            api.started("gate", &crate::keys::unique(key, "reject"))
                .await,
        );
    }

    wait_for_metric(api, "ktrdr_unique_keys_held{worker_type=\"gate\"} 2.0").await;

    gate.open_for_all();
    for id in ids {
        api.wait_for_status(&id, "completed").await;
    }
    wait_for_metric(api, "ktrdr_unique_keys_held{worker_type=\"gate\"} 0.0").await;
}
