//! Schedules: each slot becomes exactly one operation, whatever dies meanwhile.

use std::time::Duration;

use ktrdr_protocol::id::ScheduleId;
use ktrdr_protocol::schedule::slot_id;
use ktrdr_protocol::time::Timestamp;
use ktrdr_tests::chaos::slots::every_second_once;
use ktrdr_tests::engines::GateEngine;
use ktrdr_tests::{
    BackendProcess, Client, Cluster, LIMIT, NatsServer, Proxy, Settings, Stack, TokensFile,
    WorkerProcess, wait_for,
};
use reqwest::Method;
use serde_json::{Value, json};

async fn put(api: &Client, id: &str, schedule: &Value) -> ktrdr_tests::Answer {
    let path = format!("/api/v1/schedules/{id}");
    let request = api.request(Method::PUT, &path).json(schedule);
    api.send(request).await
}

/// A schedule of no-ops, of which no slot is left out because the one before has not ended.
fn noops(cron: &str) -> Value {
    json!({"domain": "dummy", "body": {"steps": 0}, "cron": cron, "overlap": "replace"})
}

async fn show(api: &Client, id: &str) -> Value {
    let answer = api
        .get(&format!("/api/v1/schedules/{id}"))
        .await
        .expect(200);
    answer.at("/data").clone()
}

/// The operations of a schedule by id, each with how often it was started.
async fn operations(api: &Client, id: &str) -> Result<Vec<String>, String> {
    let path = format!("/api/v1/operations?schedule_id={id}&limit=1000&order=oldest");
    let answer = api.try_get(&path).await?;
    let all = answer.at("/data/operations").as_array();
    let all = all.ok_or_else(|| answer.to_string())?.iter();
    Ok(all
        .map(|one| one["operation_id"].as_str().unwrap().to_owned())
        .collect())
}

async fn wait_for_operations(api: &Client, id: &str, count: usize) -> Vec<String> {
    let what = format!("{count} operations of {id}");
    wait_for(&what, LIMIT, async || {
        let found = operations(api, id).await?;
        if found.len() >= count {
            Ok(found)
        } else {
            Err(format!("{found:?}"))
        }
    })
    .await
}

/// Asserts that the ids are those of all seconds from the first one to the last one.
fn assert_every_second_once(id: &str, operations: &[String]) {
    assert_eq!(every_second_once(id, operations), Ok(()));
}

/// How many start requests of a schedule are in the stream.
async fn starts(stack: &Stack, id: &str) -> usize {
    let stored = stack.bus.stored("ktrdr.start.*.*").await;
    let is_of = |payload: &[u8]| {
        let request: Value = serde_json::from_slice(payload).unwrap_or_default();
        request["schedule_id"] == id
    };
    stored.iter().filter(|one| is_of(&one.payload)).count()
}

#[tokio::test]
async fn each_slot_is_one_operation_with_two_backends_that_die_and_a_broker_that_is_away() {
    let mut stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    let mut second = BackendProcess::start(&stack.settings).await;
    put(stack.api(), "tick", &noops("* * * * * *"))
        .await
        .expect(201);
    wait_for_operations(stack.api(), "tick", 3).await;

    stack.backend.process.kill();
    let seen = wait_for_operations(&second.api, "tick", 5).await.len();
    stack.backend.restart().await;
    second.process.kill();
    let seen = wait_for_operations(stack.api(), "tick", seen + 3)
        .await
        .len();
    stack.nats.kill();
    second.relaunch();
    stack.nats.restart().await;
    second.ready().await;
    let seen = wait_for_operations(&second.api, "tick", seen + 3)
        .await
        .len();
    // Nobody but the server has heard of the slots that come meanwhile.
    stack.backend.process.kill();
    second.process.kill();
    second.restart().await;
    wait_for_operations(&second.api, "tick", seen + 4).await;

    let paused = second
        .api
        .post("/api/v1/schedules/tick/pause", &json!({}))
        .await;
    paused.expect(200);
    let all = operations(&second.api, "tick").await.unwrap();
    assert_every_second_once("tick", &all);
    assert_eq!(starts(&stack, "tick").await, all.len());
    let shown = show(&second.api, "tick").await;
    assert_eq!(
        shown["last_run"]["operation_id"],
        all.last().unwrap().as_str()
    );
    assert_eq!(
        (&shown["next_runs"], &shown["paused"]),
        (&json!([]), &json!(true))
    );
}

#[tokio::test]
async fn a_leader_that_dies_leaves_no_slot_out_and_starts_none_twice() {
    let mut cluster = Cluster::start().await;
    let settings = Settings::fast(cluster.url()).with("KTRDR_STREAM_REPLICAS", "3");
    let backend = BackendProcess::start(&settings).await;
    let _worker = WorkerProcess::start(&settings, "dummy", "w1").await;
    backend.api.wait_for_worker("w1", "AVAILABLE").await;
    put(&backend.api, "tick", &noops("* * * * * *"))
        .await
        .expect(201);
    let seen = wait_for_operations(&backend.api, "tick", 3).await.len();

    let bus = cluster.servers[0].bus().await;
    let leader = cluster.leader_of(&bus.jetstream, "KTRDR_SCHEDULES").await;
    cluster.servers[leader].kill();

    let all = wait_for_operations(&backend.api, "tick", seen + 6).await;
    assert_every_second_once("tick", &all);
}

#[tokio::test]
async fn a_schedule_is_made_changed_shown_run_and_deleted() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    let mut schedule = noops("30 9 * * MON-FRI");
    schedule["time_zone"] = json!("Europe/Berlin");
    // Systems without schedules have no stream of them.
    assert!(
        stack
            .bus
            .jetstream
            .get_stream("KTRDR_SCHEDULES")
            .await
            .is_err()
    );

    let made = put(stack.api(), "nightly", &schedule).await.expect(201);
    assert_eq!(made.at("/data/next_runs").as_array().unwrap().len(), 5);
    assert_eq!(made.at("/data/catch_up"), "skip");
    schedule["catch_up"] = json!("once");
    let changed = put(stack.api(), "nightly", &schedule).await.expect(200);
    assert_eq!(changed.at("/data/catch_up"), "once");
    assert_eq!(changed.at("/data/created_at"), made.at("/data/created_at"));

    let run = stack
        .api()
        .post("/api/v1/schedules/nightly/run", &json!({}))
        .await;
    let id = run.expect(202).json["operation_id"]
        .as_str()
        .unwrap()
        .to_owned();
    let done = stack.api().wait_for_status(&id, "completed").await;
    assert_eq!(done["schedule_id"], "nightly");
    assert_eq!(
        operations(stack.api(), "nightly").await.unwrap(),
        [id.as_str()]
    );
    assert_eq!(
        show(stack.api(), "nightly").await["last_run"]["operation_id"],
        id.as_str()
    );

    stack
        .api()
        .delete("/api/v1/schedules/nightly")
        .await
        .expect(200);
    let gone = stack.api().get("/api/v1/schedules/nightly").await;
    gone.expect_problem(404, "schedule_not_found");
    let list = stack.api().get("/api/v1/schedules").await.expect(200);
    assert_eq!(list.at("/data/schedules"), &json!([]));
}

#[tokio::test]
async fn overlapping_slots_are_skipped_replaced_or_queued() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    let _other = stack.worker("dummy", "w2").await;
    let slow = |overlap: &str| {
        json!({"domain": "dummy", "cron": "* * * * * *", "overlap": overlap,
            "body": {"steps": 25, "step_ms": 100, "metrics_per_step": 0}})
    };

    put(stack.api(), "skip", &slow("skip")).await.expect(201);
    wait_for("slots that are left out", LIMIT, async || {
        let shown = show(stack.api(), "skip").await;
        (shown["skipped"].as_u64() >= Some(2))
            .then_some(())
            .ok_or(shown.to_string())
    })
    .await;
    stack
        .api()
        .delete("/api/v1/schedules/skip")
        .await
        .expect(200);

    put(stack.api(), "replace", &slow("replace"))
        .await
        .expect(201);
    let found = wait_for_operations(stack.api(), "replace", 2).await;
    stack.api().wait_for_status(&found[0], "cancelled").await;
    stack
        .api()
        .delete("/api/v1/schedules/replace")
        .await
        .expect(200);

    put(stack.api(), "queue", &slow("queue")).await.expect(201);
    let found = wait_for_operations(stack.api(), "queue", 2).await;
    let first = stack.api().wait_for_status(&found[0], "completed").await;
    let second = stack.api().operation(&found[1]).await.expect(200);
    let time = |text: &Value| serde_json::from_value::<Timestamp>(text.clone()).unwrap();
    assert!(time(second.at("/data/created_at")) >= time(&first["completed_at"]));
    assert_every_second_once("queue", &found[..2]);
}

#[tokio::test]
async fn a_slot_that_finds_its_unique_key_taken_names_the_holder_and_leaves_it_alone() {
    let stack = Stack::start().await;
    let (_worker, _gate) = stack.gate_worker("g1").await;
    let api = stack.api();
    let body = json!({"execution": {"unique": {"key": "k", "on_conflict": "return"}}});
    let holder = api.running("gate", &body).await;
    let schedule =
        json!({"domain": "gate", "cron": "* * * * * *", "overlap": "replace", "body": body});

    put(api, "s", &schedule).await.expect(201);

    let mut slots = std::collections::HashSet::new();
    wait_for("two slots", LIMIT, async || {
        let shown = show(api, "s").await;
        if let Some(slot) = shown["last_run"]["slot"].as_str() {
            assert_eq!(shown["last_run"]["operation_id"], *holder, "{shown}");
            slots.insert(slot.to_owned());
        }
        (slots.len() >= 2).then_some(()).ok_or(shown.to_string())
    })
    .await;
    assert_eq!(starts(&stack, "s").await, 0);
    let shown = api.operation(&holder).await.expect(200);
    assert_eq!(shown.at("/data/status"), "running");
    let metrics = api.get("/metrics").await.text;
    let started = "ktrdr_schedule_slots_total{outcome=\"started\"} 0";
    assert!(metrics.contains(started), "{metrics}");
}

#[tokio::test]
async fn the_last_operation_is_replaced_also_when_the_schedule_is_of_another_type_since() {
    let stack = Stack::start().await;
    let (_gate_worker, _gate) = stack.gate_worker("g1").await;
    let _worker = stack.worker("dummy", "w1").await;
    let api = stack.api();
    let mut schedule = noops("0 0 1 1 *");
    (schedule["domain"], schedule["body"]) = (json!("gate"), json!({}));
    put(api, "moved", &schedule).await.expect(201);
    let run = api.post("/api/v1/schedules/moved/run", &json!({})).await;
    let first = run.expect(202).json["operation_id"]
        .as_str()
        .unwrap()
        .to_owned();
    api.wait_for_status(&first, "running").await;

    put(api, "moved", &noops("* * * * * *")).await.expect(200);

    api.wait_for_status(&first, "cancelled").await;
}

/// The id of a slot is known before, so others must not be able to take it.
#[tokio::test]
async fn the_ids_of_slots_are_kept_for_their_schedule() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    let (_gate_worker, _gate) = stack.gate_worker("g1").await;
    let api = stack.api();
    put(api, "yearly", &noops("0 0 1 1 *")).await.expect(201);
    let shown = show(api, "yearly").await;
    let slot = shown["next_runs"][0].as_str().unwrap();
    let slot: String = slot.replace(['-', ':'], "").replace(".000", "");
    let id = format!("yearly-{slot}");

    let taken = api.start("gate", &json!({"task_id": id})).await;
    let taken = taken.expect_problem(409, "task_id_conflict");
    assert_eq!(taken.at("/operation_id"), &*id);
    let many = json!({"operations": [{"task_id": id}]});
    let many = api.post("/api/v1/gate/start-many", &many).await.expect(200);
    assert_eq!(many.at("/data/results/0/code"), "task_id_conflict");
    // Its own type may, and an id that only looks like that is free.
    api.start("dummy", &json!({"task_id": id, "steps": 0}))
        .await
        .expect(202);
    let other = format!("monthly-{slot}");
    api.start("gate", &json!({"task_id": other}))
        .await
        .expect(202);
}

/// A worker of another type can publish a start request with the ids of coming slots, and say that the
/// schedule has started it.
#[tokio::test]
async fn a_forged_operation_of_another_type_counts_as_no_slot() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    let now = Timestamp::now().as_millis() / 1000;
    for second in now..now + 300 {
        let slot = Timestamp::from_millis(second * 1000);
        let id = slot_id(&ScheduleId::new("tick").unwrap(), slot).unwrap();
        let forged = json!({
            "operation_id": id, "operation_type": "gate", "parameters": {}, "created_at": slot,
            "schedule_id": "tick",
        });
        stack
            .bus
            .store("ktrdr.start.gate.any", forged.to_string())
            .await;
    }

    put(stack.api(), "tick", &noops("* * * * * *"))
        .await
        .expect(201);

    let shown = wait_for("a slot that is refused", LIMIT, async || {
        let shown = show(stack.api(), "tick").await;
        let is_decided = shown["last_error"].is_object() || shown["last_run"].is_object();
        is_decided.then_some(shown.clone()).ok_or(shown.to_string())
    })
    .await;
    assert_eq!(shown["last_error"]["code"], "task_id_conflict", "{shown}");
    assert_eq!(shown["last_run"], Value::Null, "{shown}");
}

#[tokio::test]
async fn a_refused_slot_is_the_last_error_and_the_server_is_told_again_what_it_lost() {
    let stack = Stack::start().await;
    let mut worker = stack.worker("dummy", "w1").await;
    put(stack.api(), "tick", &noops("* * * * * *"))
        .await
        .expect(201);
    let seen = wait_for_operations(stack.api(), "tick", 1).await.len();

    stack
        .bus
        .jetstream
        .delete_stream("KTRDR_SCHEDULES")
        .await
        .unwrap();
    wait_for("the message in a new stream", LIMIT, async || {
        let stream = stack.bus.jetstream.get_stream("KTRDR_SCHEDULES").await;
        let stream = stream.map_err(|error| error.to_string())?;
        let found = stream
            .get_last_raw_message_by_subject("ktrdr.schedule.tick")
            .await;
        found.map(drop).map_err(|error| error.to_string())
    })
    .await;
    wait_for_operations(stack.api(), "tick", seen + 4).await;

    worker.process.stop().await;
    stack.api().wait_to_forget("dummy").await;
    wait_for("the refused slot", LIMIT, async || {
        let shown = show(stack.api(), "tick").await;
        (shown["last_error"]["code"] == "unknown_domain")
            .then_some(())
            .ok_or(shown.to_string())
    })
    .await;
    let all = operations(stack.api(), "tick").await.unwrap();
    assert_every_second_once("tick", &all);
}

#[tokio::test]
async fn a_paused_schedule_starts_nothing_and_makes_up_for_nothing() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    let mut schedule = noops("* * * * * *");
    schedule["paused"] = json!(true);
    schedule["catch_up"] = json!("once");
    put(stack.api(), "still", &schedule).await.expect(201);
    let made = Timestamp::now();
    put(stack.api(), "clock", &noops("* * * * * *"))
        .await
        .expect(201);
    wait_for_operations(stack.api(), "clock", 3).await;

    assert_eq!(operations(stack.api(), "still").await.unwrap(), [""; 0]);
    let resumed = stack
        .api()
        .post("/api/v1/schedules/still/resume", &json!({}))
        .await;
    resumed.expect(200);
    let resumed_at = Timestamp::now();

    let first = wait_for_operations(stack.api(), "still", 1).await.remove(0);
    let first = stack.api().operation(&first).await.expect(200);
    let created: Timestamp = serde_json::from_value(first.at("/data/created_at").clone()).unwrap();
    assert!(created.plus(Duration::from_secs(1)) >= resumed_at && made < resumed_at);
}

/// Writes into the bucket of worker types what a backend writes down before it acts.
async fn write(stack: &Stack, key: &str, value: &Value) {
    let bucket = stack.bus.jetstream.get_key_value("KTRDR_WORKER_TYPES");
    let value = value.to_string().into();
    bucket.await.unwrap().put(key, value).await.unwrap();
}

#[tokio::test]
async fn what_a_backend_has_left_half_done_is_done_by_another() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    let mut schedule = noops("0 0 1 1 *");
    schedule["body"] = json!({"steps": 100_000, "step_ms": 10, "metrics_per_step": 0});
    put(stack.api(), "half", &schedule).await.expect(201);
    let run = stack
        .api()
        .post("/api/v1/schedules/half/run", &json!({}))
        .await;
    let first = run.expect(202).json["operation_id"]
        .as_str()
        .unwrap()
        .to_owned();
    stack.api().wait_for_status(&first, "running").await;
    let last_run = show(stack.api(), "half").await["last_run"].clone();

    // It died after it had written that the slot replaces what runs.
    let slot = "2026-01-01T00:00:00Z";
    let decided = json!({"slot": slot, "starting": true, "last_run": last_run});
    write(&stack, "schedule_run.half", &decided).await;

    stack.api().wait_for_status(&first, "cancelled").await;
    let next = "half-20260101T000000Z";
    stack.api().wait_for_status(next, "running").await;
    stack.api().cancel(next).await.expect(200);
    stack
        .api()
        .delete("/api/v1/schedules/half")
        .await
        .expect(200);

    // It died after it had deleted the schedule, and before it had forgotten the decisions.
    write(&stack, "schedule_run.half", &decided).await;
    wait_for("the decisions to be forgotten", LIMIT, async || {
        let bucket = stack.bus.jetstream.get_key_value("KTRDR_WORKER_TYPES");
        let found = bucket.await.unwrap().get("schedule_run.half").await;
        match found.map_err(|error| error.to_string())? {
            None => Ok(()),
            Some(value) => Err(format!("{value:?}")),
        }
    })
    .await;
}

#[tokio::test]
async fn a_schedule_starts_nothing_more_when_its_token_is_gone() {
    let tokens = TokensFile::new();
    let scopes = r#"scopes = ["read", "start"]"#;
    let leaver = tokens.set("leaver", scopes);
    let stack = Stack::start_with(|settings| settings.tokens(&tokens)).await;
    let _worker = stack.worker("dummy", "w1").await;
    let api = stack.api().with_token(&leaver);
    put(&api, "tick", &noops("* * * * * *")).await.expect(201);
    wait_for_operations(stack.api(), "tick", 1).await;
    let refused = async |code: &str| {
        wait_for("the refused slot", LIMIT, async || {
            let shown = show(stack.api(), "tick").await;
            let is_refused = shown["last_error"]["code"] == code;
            is_refused.then_some(()).ok_or(shown.to_string())
        })
        .await;
        show(stack.api(), "tick").await["last_error"]["message"].to_string()
    };

    tokens.remove("leaver");
    let why = refused("unauthorized").await;
    assert!(why.contains("the token leaver"), "{why}");
    tokens.set("leaver", r#"scopes = ["read"]"#);
    refused("forbidden").await;
    let other_types = format!("{scopes}\ntypes = [\"training\"]");
    tokens.remove("leaver");
    tokens.set("leaver", &other_types);
    refused("unknown_domain").await;

    let before = operations(stack.api(), "tick").await.unwrap().len();
    tokens.remove("leaver");
    tokens.set("leaver", scopes);
    wait_for_operations(stack.api(), "tick", before + 1).await;
}

#[tokio::test]
async fn the_bodies_of_all_schedules_are_bounded_and_listed() {
    let stack = Stack::start().await;
    let (engine, _gate) = GateEngine::new();
    let _worker = stack.local_worker(engine, "w1", &[]).await;
    let note = "x".repeat(500_000);
    let schedule = json!({"domain": "gate", "body": {"note": note}, "cron": "0 0 1 1 *"});

    for number in 0..33 {
        put(stack.api(), &format!("large-{number}"), &schedule)
            .await
            .expect(201);
    }
    let refused = put(stack.api(), "large-33", &schedule).await;
    let refused = refused.expect_problem(422, "invalid_request");
    assert_eq!(refused.at("/violations/0/path"), "/body");
    put(stack.api(), "large-0", &schedule).await.expect(200);

    let list = stack.api().get("/api/v1/schedules").await.expect(200);
    assert_eq!(list.at("/data/schedules").as_array().unwrap().len(), 33);
}

#[tokio::test]
async fn with_an_older_server_schedules_are_refused_and_everything_else_works() {
    let nats = NatsServer::start().await;
    let proxy = Proxy::start(nats.port()).await;
    proxy.pretend_version(Some("2.12.9"));
    let settings = Settings::fast(proxy.url());
    let backend = BackendProcess::start(&settings).await;
    let _worker = WorkerProcess::start(&settings, "dummy", "w1").await;
    let api = &backend.api;
    api.wait_for_worker("w1", "AVAILABLE").await;

    let refused = put(api, "s", &noops("* * * * *")).await;

    let refused = refused.expect_problem(501, "schedules_unsupported");
    let text = refused.json["error"].as_str().unwrap();
    assert!(text.contains("2.14") && text.contains("2.12.9"), "{text}");
    let list = api.get("/api/v1/schedules").await.expect(200);
    assert_eq!(list.at("/data/schedules"), &json!([]));
    let delayed = json!({"steps": 0, "execution": {"delay_seconds": 0.1}});
    let id = api.started("dummy", &delayed).await;
    api.wait_for_status(&id, "completed").await;

    // The server is upgraded.
    proxy.pretend_version(None);
    proxy.cut();
    proxy.restore();
    wait_for("schedules to be taken", LIMIT, async || {
        match put(api, "s", &noops("0 0 1 1 *")).await {
            answer if answer.status == 201 => Ok(()),
            answer => Err(answer.to_string()),
        }
    })
    .await;
}
