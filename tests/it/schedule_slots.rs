//! Schedules: what is refused, what becomes of slots that cannot simply be started, and of a schedule that
//! is changed meanwhile.

use ktrdr_protocol::keys::{Key, KeyEntry, KeyKind};
use ktrdr_tests::{Answer, Client, LIMIT, Stack, wait_for};
use reqwest::Method;
use serde_json::{Value, json};

async fn put(api: &Client, id: &str, schedule: &Value) -> Answer {
    let path = format!("/api/v1/schedules/{id}");
    let request = api.request(Method::PUT, &path).json(schedule);
    api.send(request).await
}

async fn post(api: &Client, id: &str, verb: &str) -> Answer {
    let path = format!("/api/v1/schedules/{id}/{verb}");
    api.post(&path, &json!({})).await
}

/// A schedule of no-ops, of which no slot is left out because the one before has not ended.
fn noops(cron: &str) -> Value {
    json!({"domain": "dummy", "body": {"steps": 0}, "cron": cron, "overlap": "replace"})
}

async fn shown(api: &Client, id: &str) -> Result<Value, String> {
    let answer = api.try_get(&format!("/api/v1/schedules/{id}")).await?;
    Ok(answer.at("/data").clone())
}

/// The schedule, when it is shown like that.
async fn wait_to_show(
    api: &Client,
    id: &str,
    what: &str,
    is_shown: impl Fn(&Value) -> bool,
) -> Value {
    wait_for(what, LIMIT, async || {
        let shown = shown(api, id).await?;
        is_shown(&shown)
            .then_some(shown.clone())
            .ok_or(shown.to_string())
    })
    .await
}

/// How many operations a schedule has started.
async fn count(api: &Client, id: &str) -> Result<usize, String> {
    let path = format!("/api/v1/operations?schedule_id={id}&limit=1000");
    let answer = api.try_get(&path).await?;
    let all = answer.at("/data/operations").as_array();
    all.map(Vec::len).ok_or_else(|| answer.to_string())
}

async fn wait_for_count(api: &Client, id: &str, least: usize) -> usize {
    wait_for("operations of a schedule", LIMIT, async || {
        let found = count(api, id).await?;
        (found >= least)
            .then_some(found)
            .ok_or_else(|| found.to_string())
    })
    .await
}

/// Reads what the bucket of worker types has at a key.
async fn stored(stack: &Stack, key: &str) -> Option<Value> {
    let bucket = stack.bus.jetstream.get_key_value("KTRDR_WORKER_TYPES");
    let value = bucket.await.unwrap().get(key).await.unwrap()?;
    Some(serde_json::from_slice(&value).unwrap())
}

/// Writes into the bucket of worker types what a backend writes.
async fn write(stack: &Stack, key: &str, value: &Value) {
    let bucket = stack.bus.jetstream.get_key_value("KTRDR_WORKER_TYPES");
    let value = value.to_string().into();
    bucket.await.unwrap().put(key, value).await.unwrap();
}

#[tokio::test]
async fn a_slot_whose_last_operation_cannot_be_cancelled_is_refused() {
    let stack = Stack::start().await;
    let (_worker, gate) = stack.gate_worker("g1").await;
    let api = stack.api();
    let schedule = json!({"domain": "gate", "body": {}, "cron": "* * * * * *", "overlap": "replace",
        "paused": true});
    put(api, "s", &schedule).await.expect(201);
    let run = post(api, "s", "run").await.expect(202);
    let first = run.json["operation_id"].as_str().unwrap().to_owned();
    api.wait_for_status(&first, "running").await;
    // A limit that somebody has set by hand, and that no program knows of.
    let mut stream = stack.bus.jetstream.get_stream("KTRDR").await.unwrap();
    let mut config = stream.info().await.unwrap().config.clone();
    config.max_message_size = 10;
    stack
        .bus
        .jetstream
        .update_stream(config.clone())
        .await
        .unwrap();

    post(api, "s", "resume").await.expect(200);

    let refused = |shown: &Value| shown["last_error"]["slot"].is_string();
    let first_refusal = wait_to_show(api, "s", "a refused slot", refused).await;
    let slot = first_refusal["last_error"]["slot"].clone();
    let is_later = |shown: &Value| shown["last_error"]["slot"] != slot;
    wait_to_show(api, "s", "the next refused slot", is_later).await;
    config.max_message_size = -1;
    stack.bus.jetstream.update_stream(config).await.unwrap();
    api.wait_for_status(&first, "cancelled").await;
    gate.open_for_all();
}

#[tokio::test]
async fn a_slot_that_was_decided_before_the_pause_is_not_started_after_it() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    let mut schedule = noops("0 0 1 1 *");
    schedule["paused"] = json!(true);
    put(stack.api(), "half", &schedule).await.expect(201);

    // The backend died after it had written this, and then somebody paused the schedule.
    let slot = "2026-01-01T00:00:00.000Z";
    write(
        &stack,
        "schedule_run.half",
        &json!({"slot": slot, "starting": true}),
    )
    .await;

    let is_ended = |shown: &Value| shown["last_error"].is_object();
    let ended = wait_to_show(stack.api(), "half", "the end of the slot", is_ended).await;
    assert_eq!(ended["last_error"]["code"], "paused", "{ended}");
    assert_eq!(ended["last_error"]["slot"], slot, "{ended}");
    assert_eq!(ended["skipped"], 1, "{ended}");
    assert_eq!(count(stack.api(), "half").await, Ok(0));
}

#[tokio::test]
async fn a_repeated_run_does_not_take_the_place_of_the_last_operation() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    let api = stack.api();
    put(api, "yearly", &noops("0 0 1 1 *")).await.expect(201);
    let run = async |key: &str| {
        let request = api.request(Method::POST, "/api/v1/schedules/yearly/run");
        let request = request.header("idempotency-key", key).json(&json!({}));
        let answer = api.send(request).await;
        answer.json["operation_id"].as_str().unwrap().to_owned()
    };
    let first = run("first").await;
    api.wait_for_status(&first, "completed").await;
    let second = run("second").await;

    assert_eq!(run("first").await, first);

    let shown = shown(api, "yearly").await.unwrap();
    assert_eq!(shown["last_run"]["operation_id"], *second, "{shown}");
}

#[tokio::test]
async fn a_schedule_that_waits_for_its_unique_key_does_not_hold_up_the_others() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    let api = stack.api();
    put(api, "tick", &noops("* * * * * *")).await.expect(201);
    wait_for_count(api, "tick", 1).await;
    // Whoever wrote this entry has died: it counts for 10 s.
    let key = Key::new("k");
    let subject = stack
        .bus
        .names
        .key(&"dummy".parse().unwrap(), KeyKind::Unique, &key);
    let entry = KeyEntry {
        holders: vec!["never-stored".parse().unwrap()],
        ..KeyEntry::free(key)
    };
    let entry = serde_json::to_string(&entry).unwrap();
    stack.bus.store(&subject, entry).await;

    let mut held = noops("* * * * * *");
    held["body"]["execution"] = json!({"unique": {"key": "k", "on_conflict": "replace"}});
    put(api, "held", &held).await.expect(201);
    wait_for("a slot that waits for its key", LIMIT, async || {
        let run = stored(&stack, "schedule_run.held").await;
        let is_starting = run.as_ref().is_some_and(|run| run["starting"] == true);
        is_starting.then_some(()).ok_or(format!("{run:?}"))
    })
    .await;

    let seen = count(api, "tick").await.unwrap();
    wait_for_count(api, "tick", seen + 4).await;
    assert_eq!(count(api, "held").await, Ok(0));
    wait_for_count(api, "held", 1).await;
}

#[tokio::test]
async fn a_decision_that_cannot_be_read_stops_its_schedule_and_is_kept() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    let api = stack.api();
    put(api, "tick", &noops("* * * * * *")).await.expect(201);
    wait_for_count(api, "tick", 1).await;
    let foreign = json!({"slot": "in the words of a later version"});
    // Until no backend has written behind it.
    wait_for("the decision to stay", LIMIT, async || {
        write(&stack, "schedule_run.tick", &foreign).await;
        let shown = shown(api, "tick").await?;
        let is_stopped = shown["last_error"]["code"] == "internal";
        is_stopped.then_some(()).ok_or(shown.to_string())
    })
    .await;
    let before = count(api, "tick").await.unwrap();

    put(api, "clock", &noops("* * * * * *")).await.expect(201);
    wait_for_count(api, "clock", 3).await;

    assert_eq!(count(api, "tick").await, Ok(before));
    assert_eq!(stored(&stack, "schedule_run.tick").await, Some(foreign));
    api.delete("/api/v1/schedules/tick").await.expect(200);
    put(api, "tick", &noops("* * * * * *")).await.expect(201);
    wait_for_count(api, "tick", before + 1).await;
}

#[tokio::test]
async fn a_schedule_that_is_made_again_inherits_no_decisions() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    // The backend died after it had deleted the schedule, and before it had forgotten the decisions.
    let left = json!({"slot": "2026-01-01T00:00:00Z", "starting": true, "skipped": 7});
    write(&stack, "schedule_run.again", &left).await;

    put(stack.api(), "again", &noops("0 0 1 1 *"))
        .await
        .expect(201);

    let shown = shown(stack.api(), "again").await.unwrap();
    assert_eq!(shown["skipped"], 0, "{shown}");
    assert_eq!(count(stack.api(), "again").await, Ok(0));
}

#[tokio::test]
async fn the_last_error_stays_until_the_schedule_is_written_again() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    let api = stack.api();
    let mut schedule = noops("* * * * * *");
    schedule["paused"] = json!(true);
    put(api, "tick", &schedule).await.expect(201);
    let slot = "2026-01-01T00:00:00.000Z";
    let refused = json!({"slot": slot, "code": "unknown_domain", "message": "no", "at": slot});
    let run = json!({"slot": slot, "last_error": refused});
    write(&stack, "schedule_run.tick", &run).await;

    post(api, "tick", "resume").await.expect(200);

    let is_started = |shown: &Value| shown["last_run"].is_object();
    let shown = wait_to_show(api, "tick", "a slot that was started", is_started).await;
    assert_eq!(shown["last_error"]["slot"], slot, "{shown}");
    schedule["paused"] = json!(false);
    let written = put(api, "tick", &schedule).await.expect(200);
    assert_eq!(written.at("/data/last_error"), &Value::Null, "{written}");
}

#[tokio::test]
async fn slots_that_wait_are_shown_and_those_that_a_pause_drops_are_counted() {
    let stack = Stack::start().await;
    let (_worker, gate) = stack.gate_worker("g1").await;
    let api = stack.api();
    let schedule = json!({"domain": "gate", "body": {}, "cron": "* * * * * *", "overlap": "queue"});
    put(api, "queue", &schedule).await.expect(201);
    let is_waiting = |shown: &Value| shown["waiting_slots"].as_u64() >= Some(2);
    wait_to_show(api, "queue", "slots that wait", is_waiting).await;

    let paused = post(api, "queue", "pause").await.expect(200);

    let paused = paused.at("/data");
    assert!(paused["skipped"].as_u64() >= Some(2), "{paused}");
    assert_eq!(paused["waiting_slots"], 0, "{paused}");
    gate.open_for_all();
}

#[tokio::test]
async fn slots_that_nobody_could_start_are_counted() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    let api = stack.api();
    let mut schedule = noops("* * * * * *");
    schedule["paused"] = json!(true);
    put(api, "tick", &schedule).await.expect(201);

    // As if all backends had been away for long.
    let mut definition = stored(&stack, "schedule.tick").await.unwrap();
    definition["since"] = json!("2026-01-01T00:00:00Z");
    definition["paused"] = json!(false);
    write(&stack, "schedule.tick", &definition).await;

    let is_counted = |shown: &Value| shown["missed"].as_u64() >= Some(1_000);
    wait_to_show(api, "tick", "the missed slots", is_counted).await;
    let metrics = api.get("/metrics").await.text;
    let missed = "ktrdr_schedule_slots_total{outcome=\"missed\"} 1000";
    assert!(metrics.contains(missed), "{metrics}");
}

#[tokio::test]
async fn wrong_schedules_are_refused_with_the_place() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    let with = |name: &str, value: Value| {
        let mut schedule = noops("* * * * *");
        schedule[name] = value;
        schedule
    };

    let with_execution =
        |execution: Value| with("body", json!({"steps": 0, "execution": execution}));

    for (schedule, path) in [
        (noops("30 9 * * 7"), "/cron"),
        (noops("@hourly is not"), "/cron"),
        (noops("60 * * * *"), "/cron"),
        (noops("@daily"), "/cron"),
        (noops(""), "/cron"),
        (noops("0 0 31 2 *"), "/cron"),
        (with("time_zone", json!("Mars/Olympus")), "/time_zone"),
        (with("overlap", json!("often")), "/overlap"),
        (with("body", json!({"steps": -1})), "/body/steps"),
        (with("body", json!({"task_id": "a"})), "/body/task_id"),
        (
            with_execution(json!({"start_at": "2100-01-01T00:00:00Z"})),
            "/body/execution/start_at",
        ),
        (
            with_execution(json!({"expires_at": "2100-01-01T00:00:00Z"})),
            "/body/execution/expires_at",
        ),
        (
            with_execution(json!({"delay_seconds": 31_000_000})),
            "/body/execution/delay_seconds",
        ),
        (
            with_execution(json!({"delay_seconds": 100, "queue_timeout_seconds": 50})),
            "/body/execution/queue_timeout_seconds",
        ),
        (with("when", json!(1)), ""),
    ] {
        let answer = put(stack.api(), "wrong", &schedule).await;
        let answer = answer.expect_problem(422, "invalid_request");
        assert_eq!(answer.at("/violations/0/path"), path, "{answer}");
    }
    let daily = put(stack.api(), "wrong", &noops("@daily")).await;
    let text = daily.at("/violations/0/message").to_string();
    assert!(text.contains("must have 5 fields"), "{text}");
    let unknown = put(stack.api(), "wrong", &with("domain", json!("nothing"))).await;
    unknown.expect_problem(404, "unknown_domain");
    let id = "a".repeat(65);
    let long = put(stack.api(), &id, &noops("* * * * *")).await;
    long.expect_problem(422, "invalid_request");
}
