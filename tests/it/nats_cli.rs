//! Every line of `docs/nats-cli.md`, as the requests that the nats CLI makes of it.

use std::collections::BTreeSet;
use std::sync::Mutex;

use async_nats::HeaderMap;
use futures::{StreamExt, TryStreamExt};
use ktrdr_tests::settings::repository;
use ktrdr_tests::{LIMIT, Stack, wait_for};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;

/// The lines that the test ran, to be compared with the page.
#[derive(Default)]
struct Tried(Mutex<BTreeSet<String>>);

impl Tried {
    fn line(&self, line: &str) {
        self.0.lock().unwrap().insert(line.to_owned());
    }
}

/// The commands of the page, without their comments.
fn documented() -> BTreeSet<String> {
    let page = std::fs::read_to_string(repository().join("docs/nats-cli.md")).unwrap();
    let commands = page.lines().filter(|line| line.starts_with("nats "));
    commands
        .map(|line| {
            line.split("  #")
                .next()
                .unwrap_or_default()
                .split("   #")
                .next()
                .unwrap_or_default()
                .trim()
                .to_owned()
        })
        .collect()
}

/// A request with one answer, as JSON: `nats request`.
async fn ask(stack: &Stack, subject: &str, payload: &str) -> Value {
    let answer = stack
        .bus
        .client
        .request(subject.to_owned(), payload.to_owned().into())
        .await
        .unwrap();
    serde_json::from_slice(&answer.payload).unwrap_or(Value::Null)
}

/// Stores a message with an id: `nats request … -H Nats-Msg-Id:…`.
async fn store_once(stack: &Stack, subject: &str, id: &str, payload: &Value) -> Value {
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Msg-Id", id);
    let request = async_nats::Request::new()
        .headers(headers)
        .payload(payload.to_string().into());
    let answer = stack
        .bus
        .client
        .send_request(subject.to_owned(), request)
        .await
        .unwrap();
    serde_json::from_slice(&answer.payload).unwrap()
}

/// All answers to a request that several workers may answer, as `nats micro` collects them. Waits
/// for `count` answers.
async fn ask_all(stack: &Stack, subject: &str, count: usize) -> Vec<Value> {
    wait_for(
        &format!("{count} answers to {subject}"),
        LIMIT,
        async || {
            let inbox = stack.bus.client.new_inbox();
            let mut answers = stack.bus.subscribe(inbox.clone()).await;
            stack
                .bus
                .client
                .publish_with_reply(subject.to_owned(), inbox, "".into())
                .await
                .map_err(|e| e.to_string())?;
            let mut found = Vec::new();
            while found.len() < count {
                let Ok(Some(answer)) =
                    tokio::time::timeout(std::time::Duration::from_secs(2), answers.next()).await
                else {
                    return Err(format!("{found:?}"));
                };
                found.push(
                    serde_json::from_slice(&answer.payload).map_err(|error| error.to_string())?,
                );
            }
            Ok(found)
        },
    )
    .await
}

#[tokio::test]
async fn every_line_of_the_page_shows_what_it_says() {
    let stack = Stack::start().await;
    let tried = Tried::default();
    let mut w1 = stack.worker("dummy", "w1").await;

    look_at_workers(&stack, &tried).await;
    pause_and_drain(&stack, &tried).await;
    start_and_follow(&stack, &tried).await;
    look_at_stores(&stack, &tried).await;
    keys(&stack, &tried).await;
    w1.process.stop().await;
    remove_a_type(&stack, &tried).await;

    let tried = tried.0.into_inner().unwrap();
    assert_eq!(
        tried,
        documented(),
        "tried here (left), and printed in docs/nats-cli.md (right)"
    );
}

async fn look_at_workers(stack: &Stack, tried: &Tried) {
    let mut second = stack.worker("dummy", "w2").await;

    let pings = ask_all(stack, "$SRV.PING", 2).await;
    assert!(
        pings
            .iter()
            .all(|ping| ping["name"] == "ktrdr-worker-dummy" && ping["type"].is_string()),
        "{pings:?}"
    );

    tried.line("nats micro ls");
    tried.line("nats micro ping");

    let infos = ask_all(stack, "$SRV.INFO.ktrdr-worker-dummy", 2).await;
    let ids: BTreeSet<_> = infos
        .iter()
        .map(|info| info["metadata"]["worker_id"].as_str().unwrap())
        .collect();
    assert_eq!(ids, BTreeSet::from(["w1", "w2"]));

    let subjects: Vec<_> = infos[0]["endpoints"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["subject"])
        .collect();
    assert_eq!(subjects.len(), 4, "{subjects:?}");

    tried.line("nats micro info ktrdr-worker-dummy");

    let health = ask(stack, "ktrdr.worker.w1.health", "").await;
    assert_eq!(
        (&health["worker_id"], &health["status"]),
        (&json!("w1"), &json!("AVAILABLE"))
    );

    tried.line("nats request ktrdr.worker.w1.health ''");

    let stats = ask_all(stack, "$SRV.STATS.ktrdr-worker-dummy", 2).await;
    let requests = |stats: &Value| -> u64 {
        let endpoints = stats["endpoints"].as_array().unwrap().iter();
        endpoints
            .map(|endpoint| endpoint["num_requests"].as_u64().unwrap())
            .sum()
    };
    assert!(stats.iter().map(requests).sum::<u64>() >= 1, "{stats:?}");

    tried.line("nats micro stats ktrdr-worker-dummy");

    let mut heartbeats = stack.bus.subscribe("ktrdr.heartbeat.*.*").await;
    stack.bus.publish("ktrdr.heartbeat.request", "").await;

    let beat: Value =
        serde_json::from_slice(&stack.bus.next(&mut heartbeats).await.payload).unwrap();
    assert!(beat["running"].is_array(), "{beat}");

    second.process.stop().await;
    tried.line("nats sub 'ktrdr.heartbeat.*.*'");
    tried.line("nats pub ktrdr.heartbeat.request ''");
}

async fn pause_and_drain(stack: &Stack, tried: &Tried) {
    let bucket = stack
        .bus
        .jetstream
        .get_key_value("KTRDR_WORKER_TYPES")
        .await;
    let bucket = bucket.unwrap();
    let paused = async |wanted: bool| {
        wait_for("the pause", LIMIT, async || {
            let stream = stack.bus.jetstream.get_stream("KTRDR").await.unwrap();
            let found = stream.consumer_info("dummy-any").await;
            let found = found.map_err(|error| error.to_string())?.paused;
            (found == wanted).then_some(()).ok_or(found.to_string())
        })
        .await;
    };
    bucket
        .put("pause.dummy", r#"{"until":null}"#.into())
        .await
        .unwrap();
    paused(true).await;
    bucket.delete("pause.dummy").await.unwrap();
    paused(false).await;
    tried.line(r#"nats kv put KTRDR_WORKER_TYPES pause.dummy '{"until":null}'"#);
    tried.line("nats kv del KTRDR_WORKER_TYPES pause.dummy -f");

    let schedule = json!({"domain": "dummy", "body": {"steps": 0}, "cron": "0 0 1 1 *"});
    let path = "/api/v1/schedules/ID";
    let put = stack
        .api()
        .request(reqwest::Method::PUT, path)
        .json(&schedule);
    stack.api().send(put).await.expect(201);
    let run = stack
        .api()
        .post("/api/v1/schedules/ID/run", &json!({}))
        .await;
    let run = run.expect(202);
    // It must not run any more when the worker is asked to drain, nor show its events later.
    let id = run.json["operation_id"].as_str().unwrap();
    stack.api().wait_for_status(id, "completed").await;
    for (key, field) in [("schedule.ID", "cron"), ("schedule_run.ID", "last_run")] {
        let found = wait_for("the key", LIMIT, async || {
            let found = bucket.get(key).await.map_err(|error| error.to_string())?;
            found.ok_or("nothing".to_owned())
        })
        .await;
        let found: Value = serde_json::from_slice(&found).unwrap();
        assert!(!found[field].is_null(), "{found}");
        tried.line(&format!("nats kv get KTRDR_WORKER_TYPES {key} --raw"));
    }
    let rings = stack
        .bus
        .stored_in("KTRDR_SCHEDULES", "ktrdr.schedule.ID")
        .await;
    assert_eq!(rings.len(), 1);
    tried.line("nats stream subjects KTRDR_SCHEDULES");
    stack.api().delete(path).await.expect(200);

    let answer = ask(stack, "ktrdr.worker.w1.drain", "").await;
    assert_eq!(answer, json!({"draining": true, "running": 0}));
    let answer = ask(stack, "ktrdr.worker.w1.undrain", "").await;
    assert_eq!(answer["draining"], false);
    tried.line("nats request ktrdr.worker.w1.drain ''");
    tried.line("nats request ktrdr.worker.w1.undrain ''");
}

async fn keys(stack: &Stack, tried: &Tried) {
    let concurrency = json!({"key": "nightly", "limit": 1});
    let body = json!({"steps": 0, "execution": {"concurrency": concurrency}});
    let id = stack.api().started("dummy", &body).await;
    stack.api().wait_for_status(&id, "completed").await;

    let subjects: Vec<(String, usize)> = stack_stream(stack)
        .await
        .info_with_subjects("ktrdr.key.*.*.*")
        .await
        .unwrap()
        .try_collect()
        .await
        .unwrap();
    let [(subject, 1)] = subjects.as_slice() else {
        panic!("{subjects:?}");
    };
    let stream = stack_stream(stack).await;
    let entry = stream.get_last_raw_message_by_subject(subject);
    let entry: Value = serde_json::from_slice(&entry.await.unwrap().payload).unwrap();
    assert_eq!(entry, json!({"key": "nightly", "holders": [id]}));
    tried.line("nats stream subjects KTRDR --filter 'ktrdr.key.*.*.*'");
    tried.line(&format!("nats stream get KTRDR --last-for {subject}"));
}

async fn start_and_follow(stack: &Stack, tried: &Tried) {
    let bus = &stack.bus;
    let mut everything = bus.subscribe("ktrdr.>").await;
    let mut events = bus.subscribe("ktrdr.op.>").await;
    let mut progress = bus.subscribe("ktrdr.progress.dummy.*").await;

    let request = json!({
        "operation_id": "ID", "operation_type": "dummy", "created_at": "2026-01-01T00:00:00Z",
        "parameters": {"steps": 10_000, "step_ms": 10, "metrics_per_step": 1},
    });
    let stored = store_once(stack, "ktrdr.start.dummy.any", "ID", &request).await;
    assert!(stored["seq"].as_u64().is_some(), "{stored}");
    assert_eq!(
        store_once(stack, "ktrdr.start.dummy.any", "ID", &request).await["duplicate"],
        true
    );

    tried.line(
        r#"nats request ktrdr.start.dummy.any '{"operation_id":"ID","operation_type":"dummy","parameters":{"steps":5},"created_at":"2026-01-01T00:00:00Z"}' -H Nats-Msg-Id:ID"#,
    );

    assert_eq!(
        bus.next(&mut events).await.subject.as_str(),
        "ktrdr.op.dummy.ID"
    );
    assert_eq!(
        bus.next(&mut progress).await.subject.as_str(),
        "ktrdr.progress.dummy.ID"
    );

    let _ = bus.next(&mut everything).await;
    for line in [
        "nats sub 'ktrdr.>'",
        "nats sub 'ktrdr.op.>'",
        "nats sub 'ktrdr.progress.dummy.*'",
    ] {
        tried.line(line);
    }

    // A live subscriber hears messages that the stream refuses.
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Expected-Last-Subject-Sequence", "0");

    let forged = async_nats::Request::new()
        .headers(headers)
        .payload("refused".into());
    let refusal = bus
        .client
        .send_request("ktrdr.op.dummy.ID", forged)
        .await
        .unwrap();
    assert!(
        String::from_utf8_lossy(&refusal.payload).contains("error"),
        "{refusal:?}"
    );
    assert_eq!(bus.next(&mut events).await.payload, "refused");
    assert!(
        bus.stored("ktrdr.op.dummy.ID")
            .await
            .iter()
            .all(|message| message.payload != "refused")
    );

    let running = stack.api().wait_for_status("ID", "running").await;
    let worker = running["worker_id"].as_str().unwrap();
    let fresh = ask(
        stack,
        &format!("ktrdr.worker.{worker}.operation"),
        r#"{"operation_id":"ID"}"#,
    )
    .await;
    assert_eq!(fresh["running"]["operation_id"], "ID");

    let other = ask(
        stack,
        &format!("ktrdr.worker.{worker}.operation"),
        r#"{"operation_id":"other"}"#,
    )
    .await;
    assert_eq!(other["running"], Value::Null);

    tried.line(r#"nats request ktrdr.worker.w1.operation '{"operation_id":"ID"}'"#);

    let consumers: Vec<_> = stack_stream(stack)
        .await
        .consumers()
        .try_collect()
        .await
        .unwrap();
    let queue = consumers
        .iter()
        .find(|one| one.name == "dummy-any")
        .expect("the queue");
    assert_eq!((queue.num_pending, queue.num_ack_pending), (0, 1));
    assert_eq!(queue.config.ack_wait, stack.settings.lease);

    tried.line("nats consumer report KTRDR");
    tried.line("nats consumer info KTRDR dummy-any");

    let subjects: Vec<(String, usize)> = stack_stream(stack)
        .await
        .info_with_subjects("ktrdr.start.*.*")
        .await
        .unwrap()
        .try_collect()
        .await
        .unwrap();
    assert_eq!(subjects, [("ktrdr.start.dummy.any".to_owned(), 2)]);

    tried.line("nats stream subjects KTRDR --filter 'ktrdr.start.*.*'");

    wait_for("points", LIMIT, async || {
        match bus
            .stored_in("KTRDR_METRICS", "ktrdr.metrics.*.ID")
            .await
            .len()
        {
            0 => Err("none".to_owned()),
            _ => Ok(()),
        }
    })
    .await;
    tried.line("nats stream view KTRDR_METRICS --subject 'ktrdr.metrics.*.ID'");

    let said =
        json!({"timestamp": "2026-01-01T00:00:00Z", "level": "info", "text": "said by hand"});
    let batch = json!({"operation_id": "ID", "worker_id": "w1", "attempt": 1, "lines": [said]});
    bus.store("ktrdr.logs.dummy.ID", batch.to_string()).await;
    tried.line("nats stream view KTRDR_LOGS --subject 'ktrdr.logs.*.ID'");
    let lines = stack.api().get("/api/v1/operations/ID/logs").await;
    assert!(lines.text.contains("said by hand"), "{lines}");

    let intent = json!({"operation_id": "ID", "requested_at": "2026-01-01T00:00:00Z"});
    store_once(stack, "ktrdr.cancel.dummy.ID", "cancel-ID", &intent).await;
    stack.api().wait_for_status("ID", "cancelled").await;
    tried.line(
        r#"nats request ktrdr.cancel.dummy.ID '{"operation_id":"ID","requested_at":"2026-01-01T00:00:00Z"}' -H Nats-Msg-Id:cancel-ID"#,
    );

    assert_eq!(bus.stored("ktrdr.cancel.*.ID").await.len(), 1);

    tried.line("nats stream view KTRDR --subject 'ktrdr.cancel.*.ID'");

    let life = bus.stored("ktrdr.op.*.ID").await;
    let started: Value = serde_json::from_slice(&life[0].payload).unwrap();
    assert_eq!(started["event"], "started");
    assert_eq!(life.len(), 2);

    tried.line("nats stream view KTRDR --subject 'ktrdr.op.*.ID'");

    let sequence = started["start_sequence"].as_u64().unwrap();
    let start = stack_stream(stack)
        .await
        .get_raw_message(sequence)
        .await
        .unwrap();
    assert_eq!(
        serde_json::from_slice::<Value>(&start.payload).unwrap()["operation_id"],
        "ID"
    );

    tried.line("nats stream get KTRDR 17");

    // A backend closes a pending operation that is cancelled by hand.
    let waiting = json!({"task_id": "waiting", "execution": {"requirements": {"gpu": true}}});
    stack.api().started("dummy", &waiting).await;
    let intent = json!({"operation_id": "waiting", "requested_at": "2026-01-01T00:00:00Z"});
    store_once(
        stack,
        "ktrdr.cancel.dummy.waiting",
        "cancel-waiting",
        &intent,
    )
    .await;
    stack.api().wait_for_status("waiting", "cancelled").await;
}

async fn stack_stream(stack: &Stack) -> async_nats::jetstream::stream::Stream {
    stack.bus.jetstream.get_stream("KTRDR").await.unwrap()
}

async fn look_at_stores(stack: &Stack, tried: &Tried) {
    let jetstream = &stack.bus.jetstream;
    stack
        .api()
        .started(
            "dummy",
            &json!({"task_id": "large", "steps": 0, "result_bytes": 400_000}),
        )
        .await;
    stack.api().wait_for_status("large", "completed").await;

    let results = jetstream
        .get_object_store("KTRDR_RESULTS_of_dummy")
        .await
        .unwrap();
    let names: Vec<String> = results
        .list()
        .await
        .unwrap()
        .map_ok(|object| object.name)
        .try_collect()
        .await
        .unwrap();
    assert_eq!(names, ["large.1"]);

    tried.line("nats object ls KTRDR_RESULTS_of_dummy");
    let mut text = String::new();
    results
        .get("large.1")
        .await
        .unwrap()
        .read_to_string(&mut text)
        .await
        .unwrap();

    assert!(text.len() >= 400_000 && serde_json::from_str::<Value>(&text).is_ok());

    tried.line("nats object get KTRDR_RESULTS_of_dummy ID.1 -O result.json");

    let checkpoints = jetstream.get_key_value("KTRDR_CHECKPOINTS").await.unwrap();
    assert!(checkpoints.get("dummy.ID").await.is_ok());

    tried.line("nats kv get KTRDR_CHECKPOINTS dummy.ID");

    let types = jetstream.get_key_value("KTRDR_WORKER_TYPES").await.unwrap();
    let keys: Vec<String> = types.keys().await.unwrap().try_collect().await.unwrap();
    assert!(keys.iter().any(|key| key == "dummy"), "{keys:?}");
    assert!(keys.iter().any(|key| key == "domain.dummy"), "{keys:?}");

    tried.line("nats kv ls KTRDR_WORKER_TYPES");

    let entry: Value = serde_json::from_slice(&types.get("dummy").await.unwrap().unwrap()).unwrap();
    assert!(entry["request_schema"].is_object() && entry["domain"] == "dummy");

    tried.line("nats kv get KTRDR_WORKER_TYPES dummy --raw");

    let streams: Vec<_> = jetstream.streams().try_collect().await.unwrap();
    assert!(
        streams
            .iter()
            .any(|stream| stream.config.name == "KTRDR" && stream.state.bytes > 0)
    );

    tried.line("nats stream report");

    assert!(stack_stream(stack).await.cached_info().state.last_sequence > 3);

    tried.line("nats stream info KTRDR");
}

async fn remove_a_type(stack: &Stack, tried: &Tried) {
    let types = stack
        .bus
        .jetstream
        .get_key_value("KTRDR_WORKER_TYPES")
        .await
        .unwrap();
    types.delete("dummy").await.unwrap();
    wait_for("the start route to be gone", LIMIT, async || {
        let answer = stack.api().start("dummy", &json!({})).await;
        if answer.status == 404 {
            Ok(())
        } else {
            Err(answer.to_string())
        }
    })
    .await;
    tried.line("nats kv del KTRDR_WORKER_TYPES dummy -f");
    stack_stream(stack)
        .await
        .delete_consumer("dummy-any")
        .await
        .unwrap();
    tried.line("nats consumer rm KTRDR dummy-any -f");

    // A worker creates the queue again and takes the waiting request.
    let request = json!({
        "operation_id": "later", "operation_type": "dummy", "parameters": {"steps": 0}, "created_at": "2026-01-01T00:00:00Z",
    });
    stack
        .bus
        .store("ktrdr.start.dummy.any", request.to_string())
        .await;
    let _worker = stack.worker("dummy", "w3").await;

    stack
        .api()
        .wait_for_any_status("later", &["completed"])
        .await;
}
