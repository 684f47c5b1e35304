//! Retention counts from the end of an operation, and an operation that has not ended never expires.

use std::time::Duration;

use ktrdr_bus::oplog::{Ends, OpLog};
use ktrdr_protocol::id::{OperationId, WorkerType};
use ktrdr_tests::engines::GateEngine;
use ktrdr_tests::{BackendProcess, Bus, Client, LIMIT, Stack, wait_for};
use serde_json::json;

/// The retention of these tests.
const RETENTION: Duration = Duration::from_secs(3);

async fn stack() -> Stack {
    Stack::start_with(|settings| settings.with("KTRDR_RETENTION", "3s")).await
}

/// Waits until backends keep the streams for longer than `age`, because an operation needs it.
async fn kept_for(bus: &Bus, age: Duration) {
    for stream in [
        "KTRDR",
        "KTRDR_METRICS",
        "KTRDR_LOGS",
        "KV_KTRDR_CHECKPOINTS",
    ] {
        wait_for(
            &format!("{stream} to be kept for {age:?}"),
            LIMIT,
            async || {
                let found = bus.jetstream.get_stream(stream).await;
                let found = found.map_err(|error| error.to_string())?;
                match found.cached_info().config.max_age {
                    kept if kept > age => Ok(()),
                    kept => Err(format!("{kept:?}")),
                }
            },
        )
        .await;
    }
}

async fn forgotten(api: &Client, id: &str) {
    wait_for(
        &format!("{id} to be forgotten"),
        LIMIT,
        async || match api.operation(id).await.status {
            404 => Ok(()),
            status => Err(status.to_string()),
        },
    )
    .await;
}

#[tokio::test]
async fn what_waits_or_runs_for_longer_than_the_retention_ends_and_is_shown_afterwards() {
    let stack = stack().await;
    let (engine, gate) = GateEngine::new();
    let _worker = stack.local_worker(engine, "g1", &[]).await;
    let running = stack.api().running("gate", &json!({})).await;
    let waiting = stack.api().started("gate", &json!({})).await;

    // Three times the retention.
    kept_for(&stack.bus, 3 * RETENTION).await;
    let backend = BackendProcess::start(&stack.settings).await;
    for api in [stack.api(), &backend.api] {
        api.wait_for_status(&running, "running").await;
        api.wait_for_status(&waiting, "pending").await;
    }

    gate.open_for_all();
    for api in [stack.api(), &backend.api] {
        for id in [&running, &waiting] {
            let done = api.wait_for_status(id, "completed").await;
            assert_eq!(done["attempt"], 1, "{done}");
        }
    }
    assert_eq!(
        stack.bus.event_names("gate", &waiting).await,
        ["started", "completed"]
    );

    // Then retention goes its way, in both backends, and the streams are kept for less again.
    for api in [stack.api(), &backend.api] {
        forgotten(api, &running).await;
        forgotten(api, &waiting).await;
    }
    wait_for("the streams to be kept for less", LIMIT, async || {
        let stream = stack.bus.jetstream.get_stream("KTRDR").await.unwrap();
        match stream.cached_info().config.max_age {
            kept if kept < 2 * RETENTION => Ok(()),
            kept => Err(format!("{kept:?}")),
        }
    })
    .await;
    let page = stack.api().get("/metrics").await.text;
    assert!(
        page.contains("ktrdr_operations_expired_total{status=\"pending\"} 0"),
        "{page}"
    );
}

#[tokio::test]
async fn one_old_operation_does_not_keep_those_that_are_over() {
    let stack = stack().await;
    let other = BackendProcess::start(&stack.settings).await;
    let (engine, gate) = GateEngine::new();
    let _gate = stack.local_worker(engine, "g1", &[]).await;
    let _dummy = stack.worker("dummy", "d1").await;
    let old = stack.api().running("gate", &json!({})).await;
    kept_for(&stack.bus, 2 * RETENTION).await;

    let mut ids = Vec::new();
    for _ in 0..10 {
        let body = json!({"steps": 2, "step_ms": 0, "metrics_per_step": 1});
        ids.push(stack.api().started("dummy", &body).await);
    }
    let cancelled = stack.api().started("dummy", &json!({"steps": 6000})).await;
    stack.api().cancel(&cancelled).await.expect(200);
    for id in &ids {
        other.api.wait_for_status(id, "completed").await;
    }

    let names = &stack.bus.names;
    wait_for("their messages to be removed", LIMIT, async || {
        for (stream, filter) in [
            (names.stream(), "ktrdr.start.dummy.*"),
            (names.stream(), "ktrdr.op.dummy.*"),
            (names.stream(), "ktrdr.cancel.dummy.*"),
            (names.metrics_stream(), "ktrdr.metrics.dummy.*"),
            (names.logs_stream(), "ktrdr.logs.dummy.*"),
        ] {
            let left = stack.bus.stored_in(&stream, filter).await.len();
            if left > 0 {
                return Err(format!("{left} of {filter}"));
            }
        }
        Ok(())
    })
    .await;

    assert_eq!(stack.bus.stored("ktrdr.start.gate.*").await.len(), 1);
    let fresh = BackendProcess::start(&stack.settings).await;
    for api in [stack.api(), &other.api, &fresh.api] {
        forgotten(api, &ids[0]).await;
        let all = api.operations("").await.expect(200);
        assert_eq!(all.at("/data/total"), &json!(1), "{all}");
        api.wait_for_status(&old, "running").await;
    }

    // An id of an operation that is over may be used again.
    let again = json!({"task_id": ids[0], "steps": 0});
    assert_eq!(stack.api().started("dummy", &again).await, ids[0]);
    stack.api().wait_for_status(&ids[0], "completed").await;
    gate.open_for_all();
    stack.api().wait_for_status(&old, "completed").await;
    stack.bus.settled().await;
}

#[tokio::test]
async fn what_is_dropped_all_the_same_is_named_and_counted() {
    let stack = Stack::start().await;
    let (engine, _gate) = GateEngine::new();
    let _worker = stack.local_worker(engine, "g1", &[]).await;
    let running = stack.api().running("gate", &json!({})).await;
    let waiting = stack.api().started("gate", &json!({})).await;

    let stream = stack.bus.jetstream.get_stream("KTRDR").await.unwrap();
    stream.purge().await.unwrap();

    forgotten(stack.api(), &waiting).await;
    forgotten(stack.api(), &running).await;
    let log = stack.backend.process.log();
    let line = log
        .lines()
        .find(|line| line.contains("left the stream before their retention was over"))
        .unwrap_or_else(|| panic!("{log}"));
    // The one that waited has lost its start request, so it may have ended as failed before.
    assert!(
        line.contains("WARN") && line.contains("dropped=2"),
        "{line}"
    );
    assert!(line.contains(&running), "{line}");
    let page = stack.api().get("/metrics").await.text;
    let sample = "ktrdr_operations_expired_total{status=\"running\"} 1";
    assert!(page.contains(sample), "{page}");
}

/// The messages of a purge are chosen by the server, at a moment when the id may have been used again.
#[tokio::test]
async fn what_follows_the_end_of_an_operation_that_is_over_is_not_removed() {
    let stack = Stack::start().await;
    let (worker_type, id) = (
        WorkerType::new("ghost").unwrap(),
        OperationId::new("again").unwrap(),
    );
    let names = &stack.bus.names;
    let subjects = [
        (names.stream(), names.operation(&worker_type, &id)),
        (names.stream(), names.cancel(&worker_type, &id)),
        (names.metrics_stream(), names.metrics(&worker_type, &id)),
        (names.logs_stream(), names.logs(&worker_type, &id)),
    ];
    let store_all = async || {
        let start = stack.bus.store("ktrdr.start.ghost.any", "{}").await;
        let mut ends = [0; 4];
        for (end, (_, subject)) in ends.iter_mut().zip(&subjects) {
            *end = stack.bus.store(subject.as_str(), "{}").await;
        }
        (start, ends)
    };
    let (start, [_, operations, metrics, logs]) = store_all().await;
    let (later_start, later) = store_all().await;

    let log = OpLog::new(stack.bus.jetstream.clone(), names.clone());
    let ends = Ends {
        operations,
        metrics: Some(metrics),
        logs: Some(logs),
    };
    let removed = log.remove(&worker_type, &id, &[start], ends).await;

    assert!(removed.unwrap());
    let starts = stack.bus.stored("ktrdr.start.ghost.any").await;
    assert_eq!(starts.len(), 1);
    assert_eq!(starts[0].sequence, later_start);
    for ((stream, subject), later) in subjects.iter().zip(later) {
        let left = stack.bus.stored_in(stream, subject).await;
        assert_eq!(left.len(), 1, "{subject}");
        assert_eq!(left[0].sequence, later, "{subject}");
    }
}
