//! Messages that others forge: what contradicts its subject, names what is not its own, or was
//! never stored is believed by nobody.

use std::fs;

use async_nats::jetstream::object_store;
use ktrdr_tests::process::Signal;
use ktrdr_tests::settings::repository;
use ktrdr_tests::{LIMIT, Scratch, Settings, Stack, wait_for};
use serde_json::{Value, json};

/// A counter of the backend's page; 0 while it is not there.
async fn counted(stack: &Stack, sample: &str) -> f64 {
    let page = stack.api().get("/metrics").await.expect(200);
    let line = page.text.lines().find(|line| line.starts_with(sample));
    line.and_then(|line| line.rsplit_once(' '))
        .map_or(0.0, |(_, value)| value.parse().unwrap())
}

/// How many messages of this kind the backend has refused.
async fn refused(stack: &Stack, kind: &str) -> f64 {
    let sample = format!("ktrdr_refused_messages_total{{kind=\"{kind}\"}}");
    counted(stack, &sample).await
}

/// A heartbeat that the worker has sent itself.
async fn heartbeat_of(stack: &Stack, worker_type: &str, id: &str) -> Value {
    let subject = format!("ktrdr.heartbeat.{worker_type}.{id}");
    let mut heartbeats = stack.bus.subscribe(subject).await;
    stack.bus.publish("ktrdr.heartbeat.request", "").await;
    let message = stack.bus.next(&mut heartbeats).await;
    serde_json::from_slice(&message.payload).unwrap()
}

fn changed(genuine: &Value, changes: &Value) -> String {
    let mut forged = genuine.clone();
    for (name, value) in changes.as_object().unwrap() {
        forged[name] = value.clone();
    }
    forged.to_string()
}

/// A stack whose workers stay listed as available for long after they were frozen.
async fn patient_stack() -> Stack {
    Stack::start_with(|settings| Settings {
        heartbeat: std::time::Duration::from_secs(5),
        ..settings
    })
    .await
}

#[tokio::test]
async fn a_heartbeat_counts_only_on_the_subject_of_its_worker() {
    let stack = patient_stack().await;
    let mut worker = stack.worker("dummy", "w1").await;
    let genuine = heartbeat_of(&stack, "dummy", "w1").await;
    // It says nothing more, so nothing repairs what a forged message does.
    worker.process.signal(Signal::Stop);

    let farewell = changed(&genuine, &json!({"leaving": true}));
    let elsewhere = changed(&genuine, &json!({"endpoint_url": "http://evil:1"}));
    let of_another_type = json!({"worker_type": "training", "instance": "evil"});
    let attacks = [
        ("heartbeat.training.evil", farewell.clone()),
        ("heartbeat.training.w1", farewell.clone()),
        ("heartbeat.dummy.evil", farewell),
        ("heartbeat.dummy.evil", elsewhere),
        (
            "heartbeat.dummy.evil",
            changed(&genuine, &json!({"worker_id": "made-up"})),
        ),
        (
            "heartbeat.dummy.made-up",
            changed(
                &genuine,
                &json!({"worker_id": "made-up", "worker_type": "training"}),
            ),
        ),
        // Each of these agrees with its subject, but the id belongs to a worker of another type.
        ("heartbeat.training.w1", changed(&genuine, &of_another_type)),
        (
            "heartbeat.training.w1",
            changed(
                &genuine,
                &json!({"worker_type": "training", "leaving": true}),
            ),
        ),
    ];
    for (subject, forged) in &attacks {
        let subject = format!("ktrdr.{subject}");
        stack.bus.publish(subject, forged.clone()).await;
    }
    // One that is in order: when it is listed, the ones before it have been read.
    let last = changed(&genuine, &json!({"worker_id": "last", "instance": "last"}));
    stack.bus.publish("ktrdr.heartbeat.dummy.last", last).await;
    stack.api().wait_for_worker("last", "AVAILABLE").await;

    let listed: Vec<_> = stack.api().workers().await;
    let ids: Vec<_> = listed.iter().map(|one| one["worker_id"].clone()).collect();
    assert_eq!(ids, [json!("last"), json!("w1")]);
    assert_eq!(listed[1]["endpoint_url"], genuine["endpoint_url"]);
    assert_eq!(listed[1]["worker_type"], "dummy");
    assert_eq!(refused(&stack, "heartbeat").await, attacks.len() as f64);
}

#[tokio::test]
async fn a_forged_farewell_ends_no_direct_operation() {
    let stack = Stack::start().await;
    let worker = stack.worker("dummy", "w1").await;
    let genuine = heartbeat_of(&stack, "dummy", "w1").await;
    let body = json!({"task_id": "direct", "steps": 30, "step_ms": 100});
    worker.api.post("/dummy/start", &body).await.expect(200);
    stack.api().wait_for_status("direct", "running").await;

    let farewell = changed(&genuine, &json!({"leaving": true}));
    wait_for("the end of the operation", LIMIT, async || {
        for subject in ["training.evil", "training.w1", "dummy.evil"] {
            let subject = format!("ktrdr.heartbeat.{subject}");
            stack.bus.publish(subject, farewell.clone()).await;
        }
        match stack.bus.event_names("dummy", "direct").await.len() {
            2 => Ok(()),
            _ => Err("it runs".to_owned()),
        }
    })
    .await;

    let done = stack.api().wait_for_status("direct", "completed").await;
    assert_eq!(done["result"]["steps"], 30);
    assert_eq!(
        stack.bus.event_names("dummy", "direct").await,
        ["started", "completed"]
    );
}

fn forged_progress(id: &str, report: u64) -> String {
    json!({
        "operation_id": id, "worker_id": "w1", "attempt": 1, "at": "2026-01-01T00:00:00Z", "report": report,
        "progress": {"percentage": 99, "current_step": "forged", "estimated_remaining_seconds": null},
    })
    .to_string()
}

/// Waits until the operation shows progress that its worker reported, beyond `percentage`.
async fn genuine_progress_beyond(stack: &Stack, id: &str, percentage: f64) -> f64 {
    let answer = stack
        .api()
        .wait_for_operation(id, "the worker's own progress", |operation| {
            operation.at("/data/progress/current_step") != "forged"
                && operation.at("/data/progress/percentage").as_f64() > Some(percentage)
        })
        .await;
    answer.at("/data/progress/percentage").as_f64().unwrap()
}

#[tokio::test]
async fn progress_of_another_type_or_another_operation_is_not_shown() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    let id = stack
        .api()
        .running("dummy", &json!({"steps": 100_000, "step_ms": 20}))
        .await;
    let before = genuine_progress_beyond(&stack, &id, 0.0).await;

    let mut heartbeat = heartbeat_of(&stack, "dummy", "w1").await;
    let running = json!({"operation_id": id, "attempt": 1, "report": u64::MAX, "progress": {"percentage": 99, "current_step": "forged"}});
    heartbeat["running"] = json!([running]);
    for subject in ["training.evil", "training.w1", "dummy.evil"] {
        let subject = format!("ktrdr.heartbeat.{subject}");
        stack.bus.publish(subject, heartbeat.to_string()).await;
    }
    for subject in [format!("training.{id}"), "dummy.other".to_owned()] {
        let subject = format!("ktrdr.progress.{subject}");
        stack
            .bus
            .publish(subject, forged_progress(&id, 1 << 63))
            .await;
    }

    wait_for("the refusals", LIMIT, async || {
        match (
            refused(&stack, "progress").await,
            refused(&stack, "heartbeat").await,
        ) {
            (2.0, 3.0) => Ok(()),
            seen => Err(format!("{seen:?}")),
        }
    })
    .await;
    genuine_progress_beyond(&stack, &id, before).await;
}

#[tokio::test]
async fn one_report_with_a_huge_number_does_not_freeze_an_operation() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    let id = stack
        .api()
        .running("dummy", &json!({"steps": 100_000, "step_ms": 20}))
        .await;
    let before = genuine_progress_beyond(&stack, &id, 0.0).await;

    let subject = format!("ktrdr.progress.dummy.{id}");
    stack
        .bus
        .publish(subject, forged_progress(&id, u64::MAX))
        .await;
    stack
        .api()
        .wait_for_operation(&id, "the forged report", |operation| {
            operation.at("/data/progress/current_step") == "forged"
        })
        .await;

    genuine_progress_beyond(&stack, &id, before).await;
}

#[tokio::test]
async fn metric_points_of_another_operation_are_not_shown() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    let id = stack
        .api()
        .started(
            "dummy",
            &json!({"steps": 1, "step_ms": 1, "metrics_per_step": 1}),
        )
        .await;
    stack.api().wait_for_status(&id, "completed").await;

    let batch = json!({
        "operation_id": "other", "worker_id": "w1", "attempt": 1,
        "points": [{"timestamp": "2026-01-01T00:00:00Z", "name": "forged", "value": 1.0}],
    });
    let subject = format!("ktrdr.metrics.dummy.{id}");
    stack.bus.store(subject, batch.to_string()).await;

    let path = format!("/api/v1/operations/{id}/metrics?limit=1000");
    let shown = stack.api().get(&path).await.expect(200);
    assert_eq!(shown.at("/data/metrics").as_array().unwrap().len(), 1);
    assert!(!shown.text.contains("forged"), "{shown}");
    assert_eq!(refused(&stack, "metrics").await, 1.0);
}

#[tokio::test]
async fn an_event_of_another_operation_is_believed_by_nobody() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    let id = stack
        .api()
        .running("dummy", &json!({"steps": 15, "step_ms": 100}))
        .await;
    let forged = json!({
        "event": "completed", "operation_id": "other", "attempt": 1, "at": "2026-01-01T00:00:00Z", "worker_id": "w1",
        "result": {"forged": true},
    });
    let subject = format!("ktrdr.op.dummy.{id}");
    stack.bus.store(subject, forged.to_string()).await;

    let done = stack.api().wait_for_status(&id, "completed").await;

    assert_eq!(done["result"]["steps"], 15);
    stack.bus.settled().await;
}

/// Makes an operation that completed with this reference, as a worker of its type could.
async fn completed_with(stack: &Stack, id: &str, reference: &Value) {
    stack.bus.store_completed(id, reference).await;
    stack.api().wait_for_any_status(id, &["completed"]).await;
}

async fn put(bucket: &object_store::ObjectStore, name: &str, content: &str) -> Value {
    bucket.put(name, &mut content.as_bytes()).await.unwrap();
    json!({"bucket": "KTRDR_RESULTS", "object": name, "size": content.len()})
}

#[tokio::test]
async fn a_result_reference_leads_only_to_the_result_of_its_own_operation() {
    let stack = Stack::start().await;
    let secrets = object_store::Config {
        bucket: "SECRETS".to_owned(),
        ..Default::default()
    };
    let secrets = stack.bus.jetstream.create_object_store(secrets).await;
    let secrets = secrets.unwrap();
    put(&secrets, "payroll", "\"secret\"").await;
    let results = stack.bus.jetstream.get_object_store("KTRDR_RESULTS").await;
    let results = results.unwrap();

    let target = secrets.info("payroll").await.unwrap();
    results.add_link("linked.1", &target).await.unwrap();
    let linked = json!({"bucket": "KTRDR_RESULTS", "object": "linked.1", "size": 8});
    let large = format!("[\"{}\"]", "é".repeat(200_000));
    let honest = put(&results, "honest.1", &large).await;
    let other = put(&results, "secret.1", "\"secret\"").await;
    let earlier = put(&results, "earlier.0", "\"secret\"").await;
    let breakout = r#"1},"status":"failed","secret":{"a":1"#;
    let breakout = put(&results, "breakout.1", breakout).await;
    let half = put(&results, "half.1", "[\"secret").await;
    let trailing = put(&results, "trailing.1", "{} \"secret\"").await;
    let mut resized = put(&results, "resized.1", "\"secret\"").await;
    resized["size"] = json!(9);

    let foreign = json!({"bucket": "SECRETS", "object": "payroll", "size": 8});
    let cases = [
        ("foreign", foreign),
        ("linked", linked),
        ("other", other),
        ("earlier", earlier),
        ("breakout", breakout),
        ("half", half),
        ("trailing", trailing),
        ("resized", resized),
    ];
    for (id, reference) in &cases {
        completed_with(&stack, id, reference).await;
        for _ in 0..3 {
            let path = format!("/api/v1/operations/{id}/results");
            let answer = stack.api().get(&path).await;
            let answer = answer.expect_problem(502, "invalid_result");
            assert_eq!(answer.json["operation_id"], *id);
            assert!(!answer.text.contains("secret"), "{answer}");
        }
    }
    completed_with(&stack, "honest", &honest).await;
    let path = "/api/v1/operations/honest/results";
    let answer = stack.api().get(path).await.expect(200);

    assert_eq!(answer.json["data"].to_string(), large);

    // Each of them is logged once, however often it is asked for.
    let log = stack.backend.process.log();
    let lines = log.lines().filter(|line| line.contains("cannot be served"));
    assert_eq!(lines.count(), cases.len(), "{log}");
}

#[tokio::test]
async fn a_large_result_that_turns_out_not_to_be_json_never_looks_like_a_whole_answer() {
    let stack = Stack::start().await;
    let results = stack.bus.jetstream.get_object_store("KTRDR_RESULTS").await;
    let content = format!(
        "\"{}\"}},\"status\":\"failed\",\"data\":{{}}",
        "x".repeat(1_000_000)
    );
    let reference = put(&results.unwrap(), "large.1", &content).await;
    completed_with(&stack, "large", &reference).await;

    let answer = stack
        .api()
        .try_get("/api/v1/operations/large/results")
        .await;

    let error = answer.expect_err("the connection breaks before the first wrong byte");
    assert!(!error.contains("failed"), "{error}");
}

#[tokio::test]
async fn a_cancel_is_believed_only_when_it_is_stored() {
    let stack = Stack::start_with(|settings| Settings {
        cancel_grace: LIMIT,
        ..settings
    })
    .await;
    let worker = stack.worker("dummy", "w1").await;
    let api = stack.api();
    let id = api
        .running("dummy", &json!({"steps": 25, "step_ms": 100}))
        .await;
    let subject = format!("ktrdr.cancel.dummy.{id}");
    let intent = json!({"operation_id": id, "requested_at": "2026-01-01T00:00:00Z"}).to_string();
    let of_another = json!({"operation_id": "other", "requested_at": "2026-01-01T00:00:00Z"});

    for garbage in ["", "\u{0}", "null", "{}", &of_another.to_string()] {
        stack.bus.publish(subject.clone(), garbage.to_owned()).await;
    }
    // The worker hears this one, but the stream refuses it.
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("Nats-Expected-Last-Sequence", "1000000");
    let client = &stack.bus.client;
    let payload = intent.clone().into();
    client
        .publish_with_headers(subject.clone(), headers, payload)
        .await
        .unwrap();
    client.flush().await.unwrap();

    let done = api.wait_for_status(&id, "completed").await;
    assert_eq!(done["result"]["steps"], 25);
    assert_eq!(done["cancel_requested_at"], Value::Null);

    // A real one is found among the garbage, by the worker that hears it and by one that takes
    // over.
    let id = api
        .running("dummy", &json!({"steps": 1000, "step_ms": 100}))
        .await;
    let subject = format!("ktrdr.cancel.dummy.{id}");
    stack.bus.store(subject.clone(), "garbage").await;
    api.cancel(&id).await.expect(200);
    stack.bus.store(subject, "garbage").await;

    let cancelled = api.wait_for_status(&id, "cancelled").await;
    assert!(cancelled["cancel_requested_at"].is_string(), "{cancelled}");
    assert_eq!(cancelled.get("forced"), None);
    assert!(worker.process.log().contains("cancel requested"));
}

#[tokio::test]
async fn garbage_does_not_make_a_worker_that_takes_over_cancel() {
    let stack = Stack::start().await;
    let mut first = stack.worker("dummy", "w1").await;
    let id = stack
        .api()
        .running("dummy", &json!({"steps": 10, "step_ms": 100}))
        .await;
    first.process.kill();
    let subject = format!("ktrdr.cancel.dummy.{id}");
    stack.bus.store(subject, "garbage").await;

    let _second = stack.worker("dummy", "w2").await;

    let done = stack.api().wait_for_status(&id, "completed").await;
    assert_eq!(done["attempt"], 2);
}

const ROWS: usize = 100_000;

#[tokio::test]
async fn a_forged_checkpoint_removes_no_files_of_other_operations() {
    let data = Scratch::new("forged");
    let rows: String = (0..ROWS).map(|n| format!("{n},{}\n", n % 7)).collect();
    fs::write(data.join("big.csv"), format!("n,x\n{rows}")).unwrap();
    let stack = Stack::start_with(|settings| {
        settings
            .data_dir(data.path())
            .with("KTRDR_CHECKPOINT_INTERVAL", "0s")
    })
    .await;
    let _worker = stack.worker("data_processing", "d1").await;
    let rules = vec![json!({"column": "x", "rule": "max", "value": 998}); 60];
    let body = json!({
        "task_id": "first", "source_file": "big.csv", "output_file": "out.csv",
        "operations": [{"op": "validate", "rules": rules, "max_errors": 3}],
    });
    let _ = stack
        .api()
        .start("data-processing", &body)
        .await
        .expect(202);
    let bucket = stack.bus.jetstream.get_key_value("KTRDR_CHECKPOINTS").await;
    let bucket = bucket.unwrap();
    wait_for("a checkpoint", LIMIT, async || {
        bucket.get("first").await.unwrap().ok_or("none".to_owned())
    })
    .await;
    stack.api().cancel("first").await.expect(200);
    stack.api().wait_for_status("first", "cancelled").await;
    let victims = ["victim", "ancestor"].map(|name| data.join(".unfinished").join(name));
    for victim in &victims {
        fs::create_dir_all(victim).unwrap();
        fs::write(victim.join("1.csv"), "n,x\n").unwrap();
    }

    for key in ["first", "data_processing.first"] {
        let Some(stored) = bucket.get(key).await.unwrap() else {
            continue;
        };
        let mut entry: Value = serde_json::from_slice(&stored).unwrap();
        entry["state"]["operation_id"] = json!("victim");
        entry["state"]["resumed"] = json!(["ancestor"]);
        bucket.put(key, entry.to_string().into()).await.unwrap();
    }
    let answer = stack
        .api()
        .post("/api/v1/operations/first/resume", &json!({}))
        .await
        .expect(202);
    let id = answer.json["operation_id"].as_str().unwrap();
    let done = stack.api().wait_for_status(id, "completed").await;

    assert_eq!(done["result"]["rows_processed"], ROWS);
    for victim in victims {
        assert!(victim.join("1.csv").exists(), "{}", victim.display());
    }
}

#[tokio::test]
async fn checkpoints_are_only_under_their_worker_type_when_no_old_workers_are_left() {
    let data = Scratch::new("keys");
    let bars = repository().join("data/GOOG_1d.csv");
    fs::copy(bars, data.join("GOOG_1d.csv")).unwrap();
    let stack = Stack::start_with(|settings| {
        settings
            .data_dir(data.path())
            .with("KTRDR_CHECKPOINT_INTERVAL", "0s")
            .with("KTRDR_OLD_CHECKPOINT_KEYS", "false")
    })
    .await;
    let bucket = stack.bus.jetstream.get_key_value("KTRDR_CHECKPOINTS").await;
    let bucket = bucket.unwrap();
    let _worker = stack.worker("training", "t1").await;
    let body = json!({
        "task_id": "typed", "symbol": "GOOG", "timeframe": "1d", "epochs": 100_000, "hidden_layers": [1],
        "model_file": "model.json",
    });
    let _ = stack.api().start("training", &body).await.expect(202);

    wait_for("a checkpoint", LIMIT, async || {
        bucket
            .get("training.typed")
            .await
            .unwrap()
            .ok_or("none".to_owned())
    })
    .await;

    assert!(bucket.get("typed").await.unwrap().is_none());
    stack.api().cancel("typed").await.expect(200);
    stack.api().wait_for_status("typed", "cancelled").await;
}

/// The stream drops a message whose id it has seen, on whichever of its subjects.
#[tokio::test]
async fn a_message_id_that_others_used_up_loses_no_start_and_no_cancel() {
    let stack = Stack::start().await;
    let _worker = stack.worker("training", "t1").await;
    for message_id in ["nightly", "cancel-nightly"] {
        let mut headers = async_nats::HeaderMap::new();
        headers.insert("Nats-Msg-Id", message_id);
        let noise = ("ktrdr.op.dummy.noise", headers, "{}".into());
        let sent = stack
            .bus
            .jetstream
            .publish_with_headers(noise.0, noise.1, noise.2);
        assert!(!sent.await.unwrap().await.unwrap().duplicate);
    }

    let body =
        json!({"task_id": "nightly", "symbol": "GOOG", "timeframe": "1d", "epochs": 100_000});
    let api = stack.api();
    api.start("training", &body).await.expect(202);
    api.wait_for_status("nightly", "running").await;
    // The id is known now: nothing is started twice.
    api.start("training", &body).await.expect(200);
    assert_eq!(stack.bus.stored("ktrdr.start.>").await.len(), 1);

    api.cancel("nightly").await.expect(200);
    let ended = api.wait_for_status("nightly", "cancelled").await;
    assert_ne!(ended["forced"], true, "the worker never read the cancel");
}
