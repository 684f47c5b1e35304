//! Programs of an earlier version beside today's programs: old backends with new workers, new
//! backends with old workers, and all of them on one NATS server.
//!
//! `KTRDR_TEST_OLD_BIN` names the directory with `ktrdr-backend` and `ktrdr-worker` of the earlier
//! version. Without it these tests are skipped.

use async_nats::jetstream::consumer::pull;
use ktrdr_bus::signing::write_new_seed;
use ktrdr_protocol::time::Timestamp;
use ktrdr_tests::Version::{self, New, Old};
use ktrdr_tests::{BackendProcess, Bus, Client, LIMIT, Mixed, Scratch, WorkerProcess, wait_for};
use serde_json::{Value, json};

/// A start body of a dummy operation that runs until it is stopped.
fn endless(id: &str) -> Value {
    json!({"task_id": id, "steps": 100_000, "step_ms": 20})
}

/// Waits until a backend shows progress that the worker reported.
async fn wait_for_progress(api: &Client, id: &str) {
    api.wait_for_operation(id, "progress", |operation| {
        operation.at("/data/progress/percentage").as_f64() > Some(0.0)
            || operation.at("/data/progress/step").as_u64() > Some(0)
    })
    .await;
}

async fn an_operation_completes(api: &Client, id: &str) {
    let body = json!({"task_id": id, "steps": 20, "step_ms": 50, "metrics_per_step": 1});
    api.started("dummy", &body).await;
    wait_for_progress(api, id).await;

    let done = api.wait_for_status(id, "completed").await;
    assert_eq!(done["result"]["steps"], 20);
    assert_eq!(done["progress"]["percentage"], 100);
    let metrics = api
        .get(&format!("/api/v1/operations/{id}/metrics?limit=1000"))
        .await
        .expect(200);
    assert_eq!(metrics.at("/data/metrics").as_array().unwrap().len(), 20);
}

async fn a_large_result_is_read(api: &Client, id: &str) {
    let body = json!({"task_id": id, "steps": 0, "result_bytes": 400_000});
    api.started("dummy", &body).await;

    let done = api.wait_for_status(id, "completed").await;
    assert_eq!(done["result"], Value::Null, "it is too large for the event");
    let result = api
        .get(&format!("/api/v1/operations/{id}/results"))
        .await
        .expect(200);
    let filler = result.at("/data/filler").as_str().map(str::len);
    assert_eq!(filler, Some(400_000));
}

async fn running_and_pending_operations_are_cancelled(api: &Client, prefix: &str) {
    let (running, pending) = (format!("{prefix}-running"), format!("{prefix}-pending"));
    api.started("dummy", &endless(&running)).await;
    wait_for_progress(api, &running).await;
    // Nobody has a GPU, so this one waits.
    let body = json!({"task_id": pending, "execution": {"requirements": {"gpu": true}}});
    api.started("dummy", &body).await;

    for id in [&pending, &running] {
        api.cancel(id).await.expect(200);
        api.wait_for_status(id, "cancelled").await;
    }

    // By the worker itself, not by a backend that lost patience.
    let cancelled = api.operation(&running).await.expect(200);
    assert_eq!(cancelled.at("/data/forced"), &Value::Null);
}

async fn failed_operations_are_tried_again(api: &Client, id: &str) {
    let body = json!({
        "task_id": id, "steps": 2, "step_ms": 1, "fail_at_step": 2,
        "execution": {"max_attempts": 2, "retry_delay": 0.01},
    });
    api.started("dummy", &body).await;
    let failed = api.wait_for_status(id, "failed").await;
    assert_eq!(failed["attempt"], 2);
    assert_eq!(failed["error"]["code"], "engine_error");

    let again = api
        .post(&format!("/api/v1/operations/{id}/retry"), &json!({}))
        .await
        .expect(202);

    let again = again.json["operation_id"].as_str().unwrap();
    let failed = api.wait_for_status(again, "failed").await;
    assert_eq!(failed["retry_of"], id);
}

async fn a_direct_start_is_shown(worker: &WorkerProcess, api: &Client, id: &str) {
    api.wait_for_worker(&worker.id, "AVAILABLE").await;
    let body = json!({"task_id": id, "steps": 5, "step_ms": 20});
    worker.api.post("/dummy/start", &body).await.expect(200);

    let done = api.wait_for_status(id, "completed").await;
    assert_eq!(done["worker_id"], Value::String(worker.id.clone()));
    assert_eq!(done["queue"], "direct");
}

/// Waits until the queue that every worker serves is empty. The one for GPUs keeps what nobody
/// pulls.
async fn all_requests_are_acknowledged(bus: &Bus) {
    wait_for("an empty queue", LIMIT, async || {
        let backlog = bus.try_backlog().await?;
        match backlog.iter().find(|queue| queue.consumer == "dummy-any") {
            None => Ok(()),
            Some(queue) => Err(format!("{queue:?}")),
        }
    })
    .await;
}

/// Removes what backends of the release before do not show.
fn remove_news(operation: &mut Value) {
    if let Some(fields) = operation.as_object_mut() {
        for news in ["summary", "retried_as"] {
            fields.remove(news);
        }
    }
}

/// The answers that two backends must give alike once everything has ended.
async fn shown_by(api: &Client) -> Vec<Value> {
    let mut shown = Vec::new();
    // One of the release before ignores the parameter, and always shows the results.
    let all = api.operations("limit=1000&include=result").await;
    let all = all.expect(200);

    // A backend of the release before does not say whether there are more.
    let mut list = all.at("/data").clone();
    if let Some(fields) = list.as_object_mut() {
        fields.remove("has_more");
        fields.remove("next_cursor");
    }
    for operation in list["operations"].as_array_mut().into_iter().flatten() {
        remove_news(operation);
    }
    shown.push(list);

    // A backend of the release before shows the schemas of the worker that registered last.
    let mut types = api.get("/api/v1/worker-types").await.expect(200).json;
    for one in types["data"]["worker_types"].as_array_mut().unwrap() {
        for schema in ["request_schema", "result_schema"] {
            one.as_object_mut().unwrap().remove(schema);
        }
    }
    shown.push(types);
    for operation in all.at("/data/operations").as_array().unwrap() {
        let id = operation["operation_id"].as_str().unwrap();
        for path in ["", "/history", "/metrics?limit=1000"] {
            let answer = api.get(&format!("/api/v1/operations/{id}{path}")).await;
            let mut document = answer.expect(200).json;
            if path.is_empty() {
                remove_news(&mut document["data"]);
            }
            shown.push(document);
        }
        // 200 with the result, or 409 because there is none.
        let results = api.get(&format!("/api/v1/operations/{id}/results")).await;
        shown.push(json!({"status": results.status, "data": results.at("/data")}));
    }
    shown
}

async fn assert_same_documents(one: &Client, other: &Client) {
    let shown = shown_by(one).await;
    wait_for("both backends to show the same", LIMIT, async || {
        let other = shown_by(other).await;
        match shown.iter().zip(&other).find(|(one, other)| one != other) {
            None if shown.len() == other.len() => Ok(()),
            difference => Err(format!("{difference:#?}")),
        }
    })
    .await;
}

async fn one_backend_with_one_worker(mixed: &Mixed, backend: Version, worker: Version) {
    let backend = mixed.backend(backend).await;
    let api = &backend.api;
    let mut worker = mixed.worker(worker, "dummy", "w1").await;
    let listed = api.wait_for_worker("w1", "AVAILABLE").await;
    assert_eq!(listed["worker_type"], "dummy");
    let types = api.get("/api/v1/worker-types").await.expect(200);
    assert!(types.text.contains("\"dummy\""), "{types}");
    api.start("dummy", &json!({"stepz": 1})).await.expect(422);

    an_operation_completes(api, "small").await;
    let requirements = json!({"requirements": {"cores": 1}});
    let body = json!({"task_id": "with-requirements", "steps": 1, "execution": requirements});
    api.started("dummy", &body).await;
    api.wait_for_status("with-requirements", "completed").await;
    a_large_result_is_read(api, "large").await;
    running_and_pending_operations_are_cancelled(api, "cancel").await;
    failed_operations_are_tried_again(api, "failing").await;
    a_direct_start_is_shown(&worker, api, "direct").await;

    all_requests_are_acknowledged(&mixed.bus).await;

    // The farewell is understood: the worker is gone at once, and its operation waits.
    api.running("dummy", &endless("handed-back")).await;
    assert!(worker.process.stop().await.success());
    api.wait_for_answer("/api/v1/workers", "no worker", |workers| {
        workers.json == json!([])
    })
    .await;
    api.wait_for_status("handed-back", "pending").await;
    api.cancel("handed-back").await.expect(200);
    api.wait_for_status("handed-back", "cancelled").await;
}

/// Each version has its own queues: an old backend one for each combination of requirements.
#[tokio::test]
async fn queues_of_both_versions_are_served_and_disappear() {
    let Some(mixed) = Mixed::start().await else {
        return;
    };
    let impatient = mixed.settings(New).with("KTRDR_QUEUE_IDLE", "300ms");
    let old = mixed.backend(Old).await;
    let new = BackendProcess::start(&impatient).await;
    let large = r#"{"cores":16,"memory_gb":64}"#;

    for version in [New, Old] {
        let settings = mixed.settings(version).with("WORKER_CAPABILITIES", large);
        let mut worker = WorkerProcess::start(&settings, "dummy", "w1").await;
        for backend in [&old, &new] {
            backend.api.wait_for_worker("w1", "AVAILABLE").await;
        }
        for (api, cores, queue) in [(&old.api, 3, "cores3"), (&new.api, 3, "cores4")] {
            // Twice, with a removal in between, of which the old backend knows nothing.
            for _ in 0..2 {
                let requirements = json!({"requirements": {"cores": cores}});
                let body = json!({"steps": 1, "execution": requirements});
                let id = api.started("dummy", &body).await;
                let done = new.api.wait_for_status(&id, "completed").await;
                assert_eq!(done["queue"], queue);
                wait_for("the queue to be removed", LIMIT, async || {
                    let bus = &mixed.bus;
                    let gone = bus
                        .jetstream
                        .get_consumer_from_stream::<pull::Config, _, _>(
                            format!("dummy-{queue}"),
                            bus.names.stream(),
                        )
                        .await;
                    gone.err().map(drop).ok_or_else(|| "it is there".to_owned())
                })
                .await;
            }
        }
        assert!(worker.process.stop().await.success());
    }
}

#[tokio::test]
async fn an_old_backend_runs_with_a_new_worker() {
    let Some(mixed) = Mixed::start().await else {
        return;
    };

    one_backend_with_one_worker(&mixed, Old, New).await;
}

#[tokio::test]
async fn a_new_backend_runs_with_an_old_worker() {
    let Some(mixed) = Mixed::start().await else {
        return;
    };

    one_backend_with_one_worker(&mixed, New, Old).await;
}

#[tokio::test]
async fn backends_and_workers_of_both_versions_share_one_server() {
    let Some(mixed) = Mixed::start().await else {
        return;
    };
    let (old, new) = tokio::join!(mixed.backend(Old), mixed.backend(New));
    let old_worker = mixed.worker(Old, "dummy", "old").await;
    let new_worker = mixed.worker(New, "dummy", "new").await;
    for backend in [&old, &new] {
        for worker in ["old", "new"] {
            backend.api.wait_for_worker(worker, "AVAILABLE").await;
        }
    }

    for (name, backend) in [("old", &old), ("new", &new)] {
        let api = &backend.api;
        an_operation_completes(api, &format!("small-{name}")).await;
        a_large_result_is_read(api, &format!("large-{name}")).await;
        running_and_pending_operations_are_cancelled(api, &format!("cancel-{name}")).await;
        failed_operations_are_tried_again(api, &format!("failing-{name}")).await;
        for worker in [&old_worker, &new_worker] {
            let id = format!("direct-{}-{name}", worker.id);
            a_direct_start_is_shown(worker, api, &id).await;
        }
    }
    // Started through one, cancelled through the other.
    for (here, there, id) in [(&old, &new, "crossed-1"), (&new, &old, "crossed-2")] {
        here.api.running("dummy", &endless(id)).await;
        wait_for_progress(&there.api, id).await;
        there.api.cancel(id).await.expect(200);
        here.api.wait_for_status(id, "cancelled").await;
    }

    all_requests_are_acknowledged(&mixed.bus).await;
    assert_same_documents(&old.api, &new.api).await;
}

async fn a_killed_worker_is_taken_over(first: Version, second: Version) {
    let Some(mixed) = Mixed::start().await else {
        return;
    };
    let (old, new) = tokio::join!(mixed.backend(Old), mixed.backend(New));
    let mut lost = mixed.worker(first, "dummy", "w1").await;
    new.api.wait_for_worker("w1", "AVAILABLE").await;
    let body = json!({"task_id": "moved", "steps": 60, "step_ms": 50});
    new.api.running("dummy", &body).await;
    let _heir = mixed.worker(second, "dummy", "w2").await;

    lost.process.kill();

    for backend in [&old, &new] {
        let done = backend.api.wait_for_status("moved", "completed").await;
        assert_eq!(done["worker_id"], "w2");
        assert_eq!(done["attempt"], 2);
        assert_eq!(done["attempts"][0]["outcome"], "lost");
    }
    assert_eq!(
        mixed.bus.event_names("dummy", "moved").await,
        ["started", "started", "completed"]
    );
    mixed.bus.settled().await;
    assert_same_documents(&old.api, &new.api).await;
}

#[tokio::test]
async fn a_new_worker_takes_over_from_an_old_one() {
    a_killed_worker_is_taken_over(Old, New).await;
}

#[tokio::test]
async fn an_old_worker_takes_over_from_a_new_one() {
    a_killed_worker_is_taken_over(New, Old).await;
}

const EPOCHS: usize = 400;

fn training(id: &str) -> Value {
    json!({
        "task_id": id, "symbol": "GOOG", "timeframe": "1d", "epochs": EPOCHS,
        "model_file": format!("models/{id}.json"),
    })
}

/// How many epochs the stored checkpoint of an operation holds.
async fn epochs_saved(bus: &Bus, id: &str) -> usize {
    let bucket = bus
        .jetstream
        .get_key_value("KTRDR_CHECKPOINTS")
        .await
        .unwrap();
    let entry = bucket.get(id).await.unwrap();
    entry.map_or(0, |bytes| {
        let entry: Value = serde_json::from_slice(&bytes).unwrap();
        entry["state"]["history"].as_array().map_or(0, Vec::len)
    })
}

async fn wait_for_checkpoint(bus: &Bus, id: &str) {
    wait_for("a checkpoint", LIMIT, async || {
        match epochs_saved(bus, id).await {
            0 => Err("none".to_owned()),
            _ => Ok(()),
        }
    })
    .await;
}

/// How many epochs an attempt measured.
async fn epochs_measured(api: &Client, id: &str, attempt: u32) -> usize {
    let metrics = api
        .get(&format!("/api/v1/operations/{id}/metrics?limit=10000"))
        .await
        .expect(200);
    let points = metrics.at("/data/metrics").as_array().unwrap();
    points
        .iter()
        .filter(|point| point["name"] == "val_loss" && point["attempt"] == attempt)
        .count()
}

/// The rules of a training have changed since version 0.1.0: continued by the other version, it would
/// mix both. So it starts over.
async fn a_training_of_the_other_version_starts_over(first: Version, second: Version) {
    let Some(mixed) = Mixed::start().await else {
        return;
    };
    let backend = mixed.backend(second).await;
    let api = &backend.api;

    // On a takeover.
    let mut lost = mixed.worker(first, "training", "t1").await;
    api.wait_for_worker("t1", "AVAILABLE").await;
    api.started("training", &training("killed")).await;
    wait_for_checkpoint(&mixed.bus, "killed").await;
    lost.process.kill();
    let mut heir = mixed.worker(second, "training", "t2").await;
    let done = api.wait_for_status("killed", "completed").await;
    assert_eq!(done["attempt"], 2);
    assert_eq!(done["result"]["history"].as_array().unwrap().len(), EPOCHS);
    assert_eq!(epochs_measured(api, "killed", 2).await, EPOCHS);
    assert!(heir.process.stop().await.success());

    // And on a resume.
    lost.restart().await;
    api.started("training", &training("cancelled")).await;
    wait_for_checkpoint(&mixed.bus, "cancelled").await;
    api.cancel("cancelled").await.expect(200);
    api.wait_for_status("cancelled", "cancelled").await;
    assert!(lost.process.stop().await.success());
    heir.restart().await;
    let resumed = api
        .post("/api/v1/operations/cancelled/resume", &json!({}))
        .await
        .expect(202);
    let id = resumed.json["operation_id"].as_str().unwrap();
    let done = api.wait_for_status(id, "completed").await;
    assert_eq!(done["retry_of"], "cancelled");
    assert_eq!(done["result"]["history"].as_array().unwrap().len(), EPOCHS);
    assert_eq!(epochs_measured(api, id, 1).await, EPOCHS);
}

#[tokio::test]
async fn a_new_worker_starts_a_training_of_an_old_one_over() {
    a_training_of_the_other_version_starts_over(Old, New).await;
}

#[tokio::test]
async fn an_old_worker_starts_a_training_of_a_new_one_over() {
    a_training_of_the_other_version_starts_over(New, Old).await;
}

#[tokio::test]
async fn old_workers_ignore_signatures_and_what_old_backends_start_is_not_signed() {
    let Some(mixed) = Mixed::start().await else {
        return;
    };
    let scratch = Scratch::new("signing");
    let seed = scratch.join("seed");
    let public = write_new_seed(&seed).unwrap();
    let signing = mixed
        .settings(New)
        .with("KTRDR_SIGNING_KEY", seed.display().to_string());
    let new = BackendProcess::start(&signing).await;

    let mut worker = mixed.worker(Old, "dummy", "w1").await;
    new.api.wait_for_worker("w1", "AVAILABLE").await;
    let signed = new.api.started("dummy", &json!({"steps": 1})).await;
    new.api.wait_for_status(&signed, "completed").await;
    worker.process.stop().await;

    let old = mixed.backend(Old).await;
    let checking = mixed.settings(New).with("KTRDR_VERIFY_KEYS", public);
    let _worker = WorkerProcess::start(&checking, "dummy", "w2").await;
    old.api.wait_for_worker("w2", "AVAILABLE").await;
    let unsigned = old.api.started("dummy", &json!({"steps": 1})).await;
    let failed = old.api.wait_for_status(&unsigned, "failed").await;
    assert_eq!(failed["error"]["code"], "not_signed", "{failed}");
    let signed = new.api.started("dummy", &json!({"steps": 1})).await;
    old.api.wait_for_status(&signed, "completed").await;
}

#[tokio::test]
async fn the_streams_of_an_old_backend_keep_their_settings_under_a_new_one() {
    let Some(mixed) = Mixed::start().await else {
        return;
    };
    let old = mixed.settings(Old).with("KTRDR_RETENTION", "20d");
    let old_backend = BackendProcess::start(&old).await;
    let _old_worker = WorkerProcess::start(&mixed.settings(Old), "dummy", "w1").await;
    old_backend.api.wait_for_worker("w1", "AVAILABLE").await;
    let id = old_backend
        .api
        .running("dummy", &json!({"steps": 6000}))
        .await;

    let new = mixed.settings(New).with("KTRDR_RETENTION", "2d");
    let new_backend = BackendProcess::start(&new).await;

    let stream = mixed.bus.jetstream.get_stream("KTRDR").await.unwrap();
    let config = &stream.cached_info().config;
    assert_eq!(config.metadata["ktrdr-retention"], "20days");
    assert_eq!(config.metadata["ktrdr-lease"], "1s");
    let twenty_days = std::time::Duration::from_secs(20 * 86_400);
    assert!(config.max_age > twenty_days, "{:?}", config.max_age);
    new_backend.api.cancel(&id).await.expect(200);
    for backend in [&old_backend, &new_backend] {
        let cancelled = backend.api.wait_for_status(&id, "cancelled").await;
        assert_eq!(cancelled["attempt"], 1, "{cancelled}");
    }
}

#[tokio::test]
async fn old_workers_run_delayed_operations_when_they_are_due_and_none_that_has_expired() {
    let Some(mixed) = Mixed::start().await else {
        return;
    };
    let (old, new) = (mixed.backend(Old).await, mixed.backend(New).await);
    let _worker = mixed.worker(Old, "dummy", "w1").await;
    new.api.wait_for_worker("w1", "AVAILABLE").await;

    let delayed = json!({"steps": 0, "execution": {"delay_seconds": 1.5}});
    let delayed = new.api.started("dummy", &delayed).await;

    let done = new.api.wait_for_status(&delayed, "completed").await;
    let time = |field: &str| -> Timestamp { serde_json::from_value(done[field].clone()).unwrap() };
    assert!(time("started_at") >= time("start_at"), "{done}");
    old.api.wait_for_status(&delayed, "completed").await;

    let busy = new.api.running("dummy", &endless("busy")).await;
    let late = json!({"steps": 0, "execution": {"queue_timeout_seconds": 0.5}});
    let late = new.api.started("dummy", &late).await;
    for api in [&new.api, &old.api] {
        let failed = api.wait_for_status(&late, "failed").await;
        assert_eq!(failed["error"]["code"], "expired", "{failed}");
    }
    new.api.cancel(&busy).await.expect(200);
    all_requests_are_acknowledged(&mixed.bus).await;
    assert_eq!(mixed.bus.event_names("dummy", &late).await, ["failed"]);
}

#[tokio::test]
async fn old_workers_are_given_no_operation_of_another_priority() {
    let Some(mixed) = Mixed::start().await else {
        return;
    };
    let backend = mixed.backend(New).await;
    let _old = mixed.worker(Old, "dummy", "w1").await;
    backend.api.wait_for_worker("w1", "AVAILABLE").await;

    let urgent = json!({"steps": 0, "execution": {"priority": 1}});
    let urgent = backend.api.started("dummy", &urgent).await;
    an_operation_completes(&backend.api, "usual").await;

    let waiting = backend.api.operation(&urgent).await.expect(200);
    assert_eq!(waiting.at("/data/status"), "pending");
    let _new = mixed.worker(New, "dummy", "w2").await;
    let done = backend.api.wait_for_status(&urgent, "completed").await;
    assert_eq!(done["worker_id"], "w2");
    assert_eq!(done["attempt"], 1);
}
