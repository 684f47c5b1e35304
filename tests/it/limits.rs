//! Limits: full streams, oversized requests and results, slow backends, and a backend that is asked
//! to stop.

use ktrdr_tests::engines::GateEngine;
use ktrdr_tests::process::Signal;
use ktrdr_tests::{
    BackendProcess, Client, LIMIT, LocalWorker, NatsServer, Settings, Stack, WorkerProcess,
    wait_for,
};
use serde_json::{Value, json};

/// Starts operations until one is refused. Returns how many were accepted, and the refusal.
async fn fill(api: &Client) -> (usize, ktrdr_tests::Answer) {
    for accepted in 0..10_000 {
        let answer = api.start("gate", &json!({})).await;
        if answer.status != 202 {
            return (accepted, answer);
        }
    }
    panic!("the stream takes everything");
}

async fn completed(api: &Client, wanted: usize) {
    wait_for("everything accepted to complete", LIMIT, async || {
        let done = api.operations("status=completed&limit=1").await;
        if done.at("/data/total") == &json!(wanted) {
            Ok(())
        } else {
            Err(done.text)
        }
    })
    .await;
}

#[tokio::test]
async fn a_stream_at_its_limit_refuses_starts_and_has_room_for_the_ends_of_what_it_took() {
    let stack =
        Stack::start_with(|settings| settings.with("KTRDR_STREAM_MAX_BYTES", "150000")).await;
    let (_worker, gate) = stack.gate_worker("g1").await;

    let (accepted, refused) = fill(stack.api()).await;
    assert!(accepted > 20, "{accepted}: {refused}");
    refused.expect_problem(507, "storage_full");
    assert_eq!(
        stack.bus.stored("ktrdr.start.*.*").await.len(),
        accepted,
        "nothing is half-started"
    );

    // A start with an id is refused as well, and the id stays unknown.
    stack
        .api()
        .start("gate", &json!({"task_id": "full"}))
        .await
        .expect_problem(507, "storage_full");

    stack.api().operation("full").await.expect(404);

    // Every accepted operation ends in the room that was kept for it.
    gate.open_for_all();
    completed(stack.api(), accepted).await;

    stack.bus.settled().await;
}

#[tokio::test]
async fn a_result_waits_for_room_in_a_stream_that_others_filled_and_is_not_run_again() {
    let stack =
        Stack::start_with(|settings| settings.with("KTRDR_STREAM_MAX_BYTES", "150000")).await;
    let (engine, gate) = GateEngine::new();
    let _one = LocalWorker::start(&stack.settings, engine.clone(), "g1", &[]).await;
    let _two = stack.local_worker(engine, "g2", &[]).await;

    let id = stack.api().started("gate", &json!({})).await;
    gate.started().await;

    // Fills the stream to the last byte: first large messages, then small ones.
    for size in [4000, 200, 1] {
        let junk = || {
            stack
                .bus
                .jetstream
                .publish("ktrdr.op.gate.junk", vec![b'x'; size].into())
        };
        while junk().await.unwrap().await.is_ok() {}
    }

    stack
        .api()
        .start("gate", &json!({}))
        .await
        .expect_problem(507, "storage_full");

    gate.open_for_all();

    // Longer than the lease: a worker with a finished result keeps its request.
    let mut heartbeats = stack.bus.subscribe("ktrdr.heartbeat.gate.g1").await;
    for _ in 0..3 * (stack.settings.lease.as_millis() / stack.settings.heartbeat.as_millis()) {
        stack.bus.next(&mut heartbeats).await;
    }

    assert_eq!(stack.api().operation(&id).await.json["status"], "running");
    assert!(
        gate.unseen().await.is_empty(),
        "run again while its result waits"
    );

    // The operator gives the stream more room.
    let mut stream = stack
        .bus
        .jetstream
        .get_stream("KTRDR")
        .await
        .unwrap()
        .cached_info()
        .config
        .clone();
    stream.max_bytes = 1_000_000;
    stack.bus.jetstream.update_stream(stream).await.unwrap();

    let done = stack.api().wait_for_status(&id, "completed").await;
    assert_eq!(done["attempt"], 1);

    wait_for("starts to be accepted again", LIMIT, async || {
        match stack.api().start("gate", &json!({})).await {
            answer if answer.status == 202 => Ok(()),
            answer => Err(answer.text),
        }
    })
    .await;

    stack.bus.settled().await;
}

#[tokio::test]
async fn what_is_larger_than_nats_takes_is_413_and_a_large_result_goes_another_way() {
    let nats = NatsServer::start_with("max_payload: 65536\n").await;
    let settings = Settings::fast(nats.url());
    let backend = BackendProcess::start(&settings).await;
    let _dummy = WorkerProcess::start(&settings, "dummy", "w1").await;
    let _table = WorkerProcess::start(&settings, "data_processing", "t1").await;
    backend.api.wait_for_worker("w1", "AVAILABLE").await;
    backend.api.wait_for_worker("t1", "AVAILABLE").await;

    let body = json!({"task_id": "large", "source_file": "x".repeat(70_000), "operations": [{"op": "clean"}]});
    backend
        .api
        .start("data-processing", &body)
        .await
        .expect_problem(413, "body_too_large");

    backend.api.operation("large").await.expect(404);

    // In one piece, and in several: a piece is no larger than a message may be.
    for bytes in [60_000, 200_000] {
        let id = backend
            .api
            .started("dummy", &json!({"steps": 0, "result_bytes": bytes}))
            .await;
        let done = backend.api.wait_for_status(&id, "completed").await;
        assert_eq!(
            done["result_ref"]["size"].as_u64().map(|size| size > bytes),
            Some(true),
            "{done}"
        );
        let result = backend
            .api
            .get(&format!("/api/v1/operations/{id}/results"))
            .await
            .expect(200);
        assert_eq!(
            result
                .at("/data/filler")
                .as_str()
                .map(|text| text.len() as u64),
            Some(bytes)
        );
    }

    nats.bus().await.settled().await;
}

#[tokio::test]
async fn a_backend_that_stands_still_under_load_catches_up() {
    let nats = NatsServer::start_with("max_pending: 2MB\nwrite_deadline: \"300ms\"\n").await;
    let settings = Settings::fast(nats.url());
    let first = BackendProcess::start(&settings).await;
    let mut slow = BackendProcess::start(&settings).await;
    let _worker = WorkerProcess::start(
        &settings.clone().with("WORKER_CONCURRENCY", "8"),
        "dummy",
        "w1",
    )
    .await;
    first.api.wait_for_worker("w1", "AVAILABLE").await;
    slow.api.wait_for_worker("w1", "AVAILABLE").await;

    slow.process.signal(Signal::Stop);

    // More than the buffers between server and backend hold: the server stops sending, or drops the
    // backend as a slow consumer.
    let body = json!({"steps": 0, "result_bytes": 200_000});
    let mut ids = Vec::new();
    for _ in 0..10 {
        ids.extend(
            futures::future::join_all((0..10).map(|_| first.api.started("dummy", &body))).await,
        );
    }
    for id in &ids {
        first.api.wait_for_status(id, "completed").await;
    }
    slow.process.signal(Signal::Cont);
    wait_for("the same answers from both", LIMIT, async || {
        let all = async |backend: &BackendProcess| {
            backend
                .api
                .operations("limit=1000")
                .await
                .at("/data")
                .clone()
        };
        let (here, there): (Value, Value) = (all(&first).await, all(&slow).await);
        if here == there {
            Ok(())
        } else {
            Err(format!("{} of {}", there["total"], here["total"]))
        }
    })
    .await;

    // The backend takes starts again.
    let id = slow.api.started("dummy", &json!({"steps": 0})).await;
    slow.api.wait_for_status(&id, "completed").await;
}

#[tokio::test]
async fn a_backend_that_is_asked_to_stop_answers_what_it_has_accepted() {
    let mut stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;

    let long = stack
        .api()
        .running("dummy", &json!({"steps": 1000, "step_ms": 50}))
        .await;

    // Reads that wait for an end, and starts that wait for the server: all are under way when the
    // signal comes.
    let api = stack.api().clone();
    let looks_before = received(&stack, &long);
    let waiting = (0..8).map(|_| {
        let (api, path) = (api.clone(), format!("/api/v1/operations/{long}?wait=30"));
        tokio::spawn(async move { api.try_get(&path).await })
    });
    let waiting: Vec<_> = waiting.collect();
    stack.nats.signal(Signal::Stop);
    let starts = (0..20).map(|n| {
        let api = api.clone();
        tokio::spawn(async move {
            let body = json!({"task_id": format!("late-{n}"), "steps": 0});
            api.try_send(
                api.request(reqwest::Method::POST, "/api/v1/dummy/start")
                    .json(&body),
            )
            .await
        })
    });
    let starts: Vec<_> = starts.collect();

    // A connection is not enough: one whose request has not been read yet is simply closed.
    wait_for("the requests to be received", LIMIT, async || {
        match (
            received(&stack, "/api/v1/dummy/start"),
            received(&stack, &long),
        ) {
            // One start and some reads came before.
            (21.., looks) if looks >= looks_before + 8 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    stack.backend.process.signal(Signal::Term);
    wait_for("the signal to be heard", LIMIT, async || {
        match api.try_get("/health").await {
            Err(_) => Ok(()),
            Ok(answer) => Err(answer.text),
        }
    })
    .await;
    stack.nats.signal(Signal::Cont);

    for answer in futures::future::join_all(waiting).await {
        let answer = answer.unwrap().expect("an answer").expect(200);
        assert_eq!(answer.json["status"], "running", "{answer}");
    }

    for answer in futures::future::join_all(starts).await {
        answer.unwrap().expect("an answer").expect(202);
    }

    let status = stack.backend.process.wait(LIMIT).await;
    assert!(status.success(), "{status}");

    stack.backend.restart().await;
    for n in 0..20 {
        stack
            .api()
            .operation(&format!("late-{n}"))
            .await
            .expect(200);
    }
}

/// How many requests with `text` in their paths the backend has read.
fn received(stack: &Stack, text: &str) -> usize {
    let log = stack.backend.process.log();
    log.lines()
        .filter(|line| line.contains("request received") && line.contains(text))
        .count()
}

#[tokio::test]
async fn a_priority_is_not_changed_in_the_room_that_is_kept_for_ends() {
    let stack =
        Stack::start_with(|settings| settings.with("KTRDR_STREAM_MAX_BYTES", "150000")).await;
    let (_worker, gate) = stack.gate_worker("g1").await;
    let (accepted, _) = fill(stack.api()).await;
    let list = stack.api().operations("status=pending&limit=1").await;
    let list = list.expect(200);
    let id = list.at("/data/operations/0/operation_id").as_str().unwrap();

    let path = format!("/api/v1/operations/{id}");
    let request = stack.api().request(reqwest::Method::PATCH, &path);
    let refused = stack.api().send(request.json(&json!({"priority": 1})));

    let refused = refused.await.expect_problem(507, "storage_full");
    assert_eq!(refused.json["operation_id"], id, "{refused}");
    assert!(stack.bus.event_names("gate", id).await.is_empty());
    gate.open_for_all();
    completed(stack.api(), accepted).await;
}
