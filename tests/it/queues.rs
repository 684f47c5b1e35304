//! Workers that share queues: each operation runs once, on a worker that meets its requirements.

use std::collections::HashMap;

use async_nats::jetstream::consumer::pull;
use ktrdr_protocol::id::WorkerType;
use ktrdr_protocol::origin::Origin;
use ktrdr_tests::engines::GateEngine;
use ktrdr_tests::{LIMIT, LocalWorker, Stack, wait_for};
use serde_json::{Value, json};

#[tokio::test]
async fn a_thousand_operations_over_four_workers_complete_once_each() {
    let stack = Stack::start().await;

    let mut workers = Vec::new();
    for n in 1..=4 {
        workers.push(stack.worker("dummy", &format!("w{n}")).await);
    }

    let body = json!({"steps": 1, "step_ms": 1, "metrics_per_step": 0});
    for _ in 0..20 {
        let answers =
            futures::future::join_all((0..50).map(|_| stack.api().start("dummy", &body))).await;
        assert!(answers.iter().all(|answer| answer.status == 202));
    }

    wait_for("all to complete", LIMIT * 3, async || {
        let done = stack.api().operations("status=completed&limit=1").await;
        match done.at("/data/total").as_u64() {
            Some(1000) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;

    stack.bus.settled().await;

    let mut lives: HashMap<String, Vec<String>> = HashMap::new();
    let mut per_worker: HashMap<String, u32> = HashMap::new();
    for message in stack.bus.stored("ktrdr.op.dummy.*").await {
        let event: Value = serde_json::from_slice(&message.payload).unwrap();
        let name = event["event"].as_str().unwrap().to_owned();
        if name == "completed" {
            *per_worker
                .entry(event["worker_id"].as_str().unwrap().to_owned())
                .or_default() += 1;
        }
        lives.entry(message.subject).or_default().push(name);
    }

    assert_eq!(lives.len(), 1000);
    assert!(lives.values().all(|life| *life == ["started", "completed"]));
    assert_eq!(
        per_worker.len(),
        4,
        "every worker took its share: {per_worker:?}"
    );
}

#[tokio::test]
async fn an_operation_waits_for_a_worker_that_meets_its_requirements() {
    let stack = Stack::start().await;
    let (engine, gate) = GateEngine::new();

    gate.open_for_all();
    let small = r#"{"cores":2,"memory_gb":4}"#;
    let _small = stack
        .local_worker(engine.clone(), "small", &["--capabilities", small])
        .await;

    let body = json!({"execution": {"requirements": {"cores": 8, "memory_gb": 16}}});
    let answer = stack.api().start("gate", &body).await.expect(202);
    assert!(
        answer.json["warning"].is_string(),
        "nobody can run it now: {answer}"
    );

    let id = answer.json["operation_id"].as_str().unwrap().to_owned();

    // The small worker keeps taking operations that it can run.
    let easy = stack.api().started("gate", &json!({})).await;
    stack.api().wait_for_status(&easy, "completed").await;

    let waiting = stack.api().operation(&id).await;
    assert_eq!(waiting.json["status"], "pending");
    assert_eq!(waiting.at("/data/queue"), "cores8-mem16");

    let large = r#"{"cores":16,"memory_gb":64}"#;
    let _large =
        LocalWorker::start(&stack.settings, engine, "large", &["--capabilities", large]).await;

    let done = stack.api().wait_for_status(&id, "completed").await;
    assert_eq!(done["worker_id"], "large");
    stack.bus.settled().await;
}

#[tokio::test]
async fn a_worker_of_one_slot_and_many_queues_takes_one_request_at_a_time() {
    let stack = Stack::start().await;
    let (engine, gate) = GateEngine::new();
    let large = r#"{"cores":16,"memory_gb":64}"#;
    let _worker = stack
        .local_worker(engine, "one", &["--capabilities", large])
        .await;

    let mut ids = Vec::new();
    for round in 0..10 {
        let requirements = match round % 3 {
            0 => json!({}),
            1 => json!({"cores": 2}),
            _ => json!({"memory_gb": 2}),
        };
        ids.push(
            stack
                .api()
                .started(
                    "gate",
                    &json!({"execution": {"requirements": requirements}}),
                )
                .await,
        );
    }
    for _ in 0..10 {
        let (id, attempt) = gate.started().await;
        assert_eq!(attempt, 1);
        assert!(gate.unseen().await.is_empty(), "two at a time");
        gate.open(1);
        stack.api().wait_for_status(id.as_str(), "completed").await;
    }

    for id in &ids {
        assert_eq!(
            stack.bus.event_names("gate", id).await,
            ["started", "completed"]
        );
    }
    stack.bus.settled().await;
}

#[tokio::test]
async fn slots_run_side_by_side() {
    let stack = Stack::start().await;
    let (engine, gate) = GateEngine::new();
    let _worker = stack
        .local_worker(engine, "many", &["--concurrency", "3"])
        .await;

    for _ in 0..4 {
        stack.api().started("gate", &json!({})).await;
    }
    for _ in 0..3 {
        gate.started().await;
    }
    stack.api().wait_for_worker("many", "BUSY").await;

    assert!(gate.unseen().await.is_empty());

    gate.open_for_all();
    wait_for("all four", LIMIT, async || {
        let done = stack.api().operations("status=completed").await;
        if done.at("/data/total") == &json!(4) {
            Ok(())
        } else {
            Err(done.text)
        }
    })
    .await;

    stack.bus.settled().await;
}

#[tokio::test]
async fn somebody_elses_consumer_on_the_subject_of_a_queue_is_left_alone() {
    let stack = Stack::start().await;

    let bus = &stack.bus;
    let filter = bus.names.start(
        &WorkerType::new("dummy").unwrap(),
        &Origin::from_token("any").unwrap(),
    );
    let stream = bus.jetstream.get_stream(bus.names.stream()).await.unwrap();
    let mut others = Vec::new();

    // In any order of the server's list.
    for name in ["audit", "zebra"] {
        let config = pull::Config {
            durable_name: Some(name.to_owned()),
            filter_subject: filter.clone(),
            ..Default::default()
        };
        others.push(stream.create_consumer(config).await.unwrap());
    }
    let _worker = stack.worker("dummy", "w1").await;

    for _ in 0..2 {
        let id = stack.api().started("dummy", &json!({"steps": 0})).await;
        stack.api().wait_for_status(&id, "completed").await;
    }

    for mut other in others {
        let info = other.info().await.unwrap();
        assert_eq!(
            (
                info.num_pending,
                info.num_waiting,
                info.delivered.stream_sequence
            ),
            (2, 0, 0)
        );
    }
}
