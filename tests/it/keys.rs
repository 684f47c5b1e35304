//! Unique keys and concurrency keys: races, crashes at every point, and that nobody is blocked for
//! longer than he must be.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::join_all;
use ktrdr_bus::oplog::{AppendError, Behind, OpLog, StartMessage};
use ktrdr_protocol::event::EventKind;
use ktrdr_protocol::id::{OperationId, WorkerType};
use ktrdr_protocol::keys::{Key, KeyEntry, KeyKind, VOID_AFTER};
use ktrdr_protocol::origin::Origin;
use ktrdr_protocol::start_request::StartRequest;
use ktrdr_protocol::time::Timestamp;
use ktrdr_tests::tokens::TokensFile;
use ktrdr_tests::{BackendProcess, LIMIT, Stack, wait_for};
use serde_json::{Value, json};

pub(crate) fn unique(key: &str, on_conflict: &str) -> Value {
    json!({"execution": {"unique": {"key": key, "on_conflict": on_conflict}}})
}

pub(crate) fn limited(key: &str, limit: u32) -> Value {
    json!({"execution": {"concurrency": {"key": key, "limit": limit}}})
}

pub(crate) fn subject(stack: &Stack, worker_type: &str, kind: KeyKind, key: &str) -> String {
    let worker_type = WorkerType::new(worker_type).unwrap();
    stack.bus.names.key(&worker_type, kind, &Key::new(key))
}

/// Whom the entries of a key have named, in order.
pub(crate) async fn holders(
    stack: &Stack,
    worker_type: &str,
    kind: KeyKind,
    key: &str,
) -> Vec<KeyEntry> {
    let subject = subject(stack, worker_type, kind, key);
    let stored = stack.bus.stored(&subject).await;
    let entries = stored.iter();
    entries
        .map(|message| serde_json::from_slice(&message.payload).unwrap())
        .collect()
}

/// The sequences of the first `started` and of the end.
async fn span(stack: &Stack, worker_type: &str, id: &str) -> (u64, u64) {
    let subject = format!("{}.op.{worker_type}.{id}", stack.bus.names.prefix());
    let stored = stack.bus.stored(&subject).await;
    let (first, last) = (stored.first(), stored.last());
    (first.unwrap().sequence, last.unwrap().sequence)
}

/// The most operations that held a permit at the same time.
async fn most_at_a_time(stack: &Stack, worker_type: &str, ids: &[String]) -> usize {
    let mut changes = BTreeMap::new();
    for id in ids {
        let (started, ended) = span(stack, worker_type, id).await;
        changes.insert(started, 1_i32);
        changes.insert(ended, -1);
    }
    let running = changes.values().scan(0, |running, change| {
        *running += change;
        Some(*running)
    });
    running.max().unwrap_or_default() as usize
}

#[tokio::test]
async fn while_one_with_a_unique_key_is_open_others_are_refused_or_answered_with_it() {
    let stack = Stack::start().await;
    let (_worker, gate) = stack.gate_worker("g1").await;
    let api = stack.api();
    let first = api.running("gate", &unique("nightly", "reject")).await;

    let refused = api.start("gate", &unique("nightly", "reject")).await;
    let refused = refused.expect_problem(409, "not_unique");
    assert_eq!(refused.json["operation_id"], first.as_str());
    let returned = api.start("gate", &unique("nightly", "return")).await;
    let returned = returned.expect(200);
    assert_eq!(returned.json["operation_id"], first.as_str());
    assert_eq!(returned.json["existed"], true);
    let shown = api.operation(&first).await.expect(200);
    let key = shown.at("/data/execution/unique/key");
    assert_eq!(key, "nightly", "{shown}");

    // Another key, the same one for another purpose, or none.
    for other in [unique("other", "reject"), limited("nightly", 1), json!({})] {
        api.start("gate", &other).await.expect(202);
    }

    gate.open_for_all();
    api.wait_for_status(&first, "completed").await;
    let second = api.started("gate", &unique("nightly", "reject")).await;
    api.wait_for_status(&second, "completed").await;
    stack.bus.settled().await;
}

#[tokio::test]
async fn a_repeated_start_of_the_holder_is_answered_as_before() {
    let stack = Stack::start().await;
    let other = BackendProcess::start(&stack.settings).await;
    let (_worker, gate) = stack.gate_worker("g1").await;
    let mut body = unique("nightly", "reject");
    body["task_id"] = json!("one");

    stack.api().start("gate", &body).await.expect(202);
    for api in [stack.api(), &other.api] {
        let again = api.start("gate", &body).await.expect(200);
        assert_eq!(again.json["existed"], true, "{again}");
    }

    assert_eq!(
        holders(&stack, "gate", KeyKind::Unique, "nightly")
            .await
            .len(),
        1
    );
    gate.open_for_all();
    stack.bus.settled().await;
}

#[tokio::test]
async fn a_replaced_operation_is_cancelled_whether_it_waits_or_runs() {
    let stack = Stack::start().await;
    let (_worker, gate) = stack.gate_worker("g1").await;
    let api = stack.api();

    let running = api.running("gate", &unique("k", "replace")).await;
    let waiting = api.started("gate", &unique("k", "replace")).await;
    let last = api.started("gate", &unique("k", "replace")).await;

    for id in [&running, &waiting] {
        api.wait_for_status(id, "cancelled").await;
    }
    let entries = holders(&stack, "gate", KeyKind::Unique, "k").await;
    assert_eq!(
        entries.last().unwrap().holders.last().unwrap().as_str(),
        last
    );
    let refused = api.start("gate", &unique("k", "reject")).await;
    let refused = refused.expect_problem(409, "not_unique");
    assert_eq!(refused.json["operation_id"], last.as_str());
    gate.open_for_all();
    api.wait_for_status(&last, "completed").await;
    stack.bus.settled().await;
}

#[tokio::test]
async fn starts_that_race_through_two_backends_leave_one_open() {
    let stack = Stack::start().await;
    let other = BackendProcess::start(&stack.settings).await;
    let (_worker, gate) = stack.gate_worker("g1").await;
    let body = unique("k", "reject");
    for api in [stack.api(), &other.api] {
        api.wait_for_worker("g1", "AVAILABLE").await;
    }

    let starts = (0..24).map(|n| {
        let api = [stack.api(), &other.api][n % 2];
        api.start("gate", &body)
    });
    let answers = join_all(starts).await;

    let accepted: Vec<_> = answers.iter().filter(|one| one.status == 202).collect();
    assert_eq!(accepted.len(), 1, "{answers:#?}");
    let id = &accepted[0].json["operation_id"];
    for answer in answers.iter().filter(|one| one.status != 202) {
        assert_eq!(answer.json["code"], "not_unique", "{answer}");
        assert_eq!(&answer.json["operation_id"], id, "{answer}");
    }

    let many = json!({"operations": [body, body, json!({})]});
    let many = other.api.post("/api/v1/gate/start-many", &many).await;
    let many = many.expect(200);
    assert_eq!(many.at("/data/accepted"), 1, "{many}");
    assert_eq!(many.at("/data/results/0/code"), "not_unique", "{many}");
    gate.open_for_all();
    stack.bus.settled().await;
}

/// A start request of the type `dummy` with a unique key.
fn start_request(id: &str, key: &str) -> StartRequest {
    let request = json!({
        "operation_id": id, "operation_type": "dummy", "parameters": {"steps": 0},
        "unique": {"key": key}, "created_at": Timestamp::now(),
    });
    serde_json::from_value(request).unwrap()
}

#[tokio::test]
async fn an_entry_whose_operation_never_appears_is_void_and_a_late_start_behind_it_is_refused() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    let log = OpLog::new(stack.bus.jetstream.clone(), stack.bus.names.clone());
    // A backend is suspended or dies between the entry and the start request.
    let entry = KeyEntry {
        key: Key::new("k"),
        holders: vec![OperationId::new("ghost").unwrap()],
    };
    let worker_type = WorkerType::new("dummy").unwrap();
    let stored = log.replace_key(&worker_type, KeyKind::Unique, &entry, 0, LIMIT);
    let sequence = stored.await.unwrap().unwrap();

    let began = std::time::Instant::now();
    let body = json!({"steps": 0, "execution": {"unique": {"key": "k"}}});
    let id = stack.api().started("dummy", &body).await;

    let waited = began.elapsed();
    let least = VOID_AFTER.saturating_sub(Duration::from_secs(1));
    assert!(waited >= least, "it took {waited:?}");
    stack.api().wait_for_status(&id, "completed").await;
    let (request, origin) = (start_request("ghost", "k"), Origin::Direct);
    let behind = Behind {
        subject: subject(&stack, "dummy", KeyKind::Unique, "k"),
        sequence,
    };
    let message = StartMessage {
        behind: Some(&behind),
        ..StartMessage::of(&request, &origin, None).unwrap()
    };
    let late = log.store_start(message, None, LIMIT).await;
    assert!(matches!(late, Err(AppendError::Superseded)), "{late:?}");
    stack.api().operation("ghost").await.expect(404);
    stack.bus.settled().await;
}

#[tokio::test]
async fn a_retry_of_an_operation_is_a_start_with_its_unique_key() {
    let stack = Stack::start().await;
    let (_worker, gate) = stack.gate_worker("g1").await;
    let api = stack.api();
    let old = api.running("gate", &unique("k", "reject")).await;
    api.cancel(&old).await.expect(200);
    api.wait_for_status(&old, "cancelled").await;
    let open = api.running("gate", &unique("k", "reject")).await;
    let retry = format!("/api/v1/operations/{old}/retry");

    let refused = api.post(&retry, &json!({})).await;
    let refused = refused.expect_problem(409, "not_unique");
    assert_eq!(refused.json["operation_id"], open.as_str());

    gate.open_for_all();
    api.wait_for_status(&open, "completed").await;
    let again = api.post(&retry, &json!({})).await.expect(202);
    let again = again.json["operation_id"].as_str().unwrap().to_owned();
    api.wait_for_status(&again, "completed").await;
    stack.bus.settled().await;
}

#[tokio::test]
async fn no_more_run_than_the_limit_and_others_are_not_kept_waiting() {
    let stack = Stack::start().await;
    let (engine, gate) = ktrdr_tests::engines::GateEngine::new();
    let slots = ["--concurrency", "3"];
    let _first = stack.local_worker(engine.clone(), "g1", &slots).await;
    let _second = stack.local_worker(engine, "g2", &slots).await;
    let api = stack.api();

    let mut ids = Vec::new();
    for _ in 0..6 {
        ids.push(api.started("gate", &limited("licence", 2)).await);
    }
    for _ in 0..2 {
        let (id, _) = gate.started().await;
        assert!(ids.contains(&id.to_string()), "{id}");
    }
    // Four slots are free, and each operation without the key gets one.
    for _ in 0..4 {
        let other = api.started("gate", &json!({})).await;
        assert_eq!(gate.started().await.0.as_str(), other);
    }

    // Nothing is recorded of those that wait.
    let mut recorded = 0;
    for id in &ids {
        recorded += usize::from(!stack.bus.events("gate", id).await.is_empty());
    }
    assert_eq!(recorded, 2);
    gate.open_for_all();
    for id in &ids {
        api.wait_for_status(id, "completed").await;
    }
    assert_eq!(most_at_a_time(&stack, "gate", &ids).await, 2);
    let entries = holders(&stack, "gate", KeyKind::Concurrency, "licence").await;
    assert_eq!(entries.len(), 6, "{entries:?}");
    assert!(entries.iter().all(|entry| entry.holders.len() <= 2));
    stack.bus.settled().await;
}

#[tokio::test]
async fn the_permit_of_a_killed_worker_stays_with_its_operation() {
    let stack = Stack::start().await;
    let mut first = stack.worker("dummy", "w1").await;
    let api = stack.api();
    let body = |task_id: &str| {
        json!({
            "task_id": task_id, "steps": 100, "step_ms": 50,
            "execution": {"concurrency": {"key": "k", "limit": 1}},
        })
    };
    let held = api.running("dummy", &body("held")).await;
    let waiting = api.started("dummy", &body("waiting")).await;

    first.process.kill();
    let _second = stack.worker("dummy", "w2").await;

    let done = api.wait_for_status(&held, "completed").await;
    assert_eq!(done["attempt"], 2, "{done}");
    api.wait_for_status(&waiting, "completed").await;
    let ids = [held, waiting];
    assert_eq!(most_at_a_time(&stack, "dummy", &ids).await, 1);
    let entries = holders(&stack, "dummy", KeyKind::Concurrency, "k").await;
    assert_eq!(entries.len(), 2, "{entries:?}");
    stack.bus.settled().await;
}

#[tokio::test]
async fn a_permit_without_an_attempt_belongs_to_its_operation_and_goes_with_its_end() {
    let stack = Stack::start().await;
    drop(stack.worker("dummy", "w0").await);
    let api = stack.api();
    let mut body = limited("k", 1);
    body["steps"] = json!(0);
    let first = api.started("dummy", &body).await;
    let second = api.started("dummy", &body).await;
    // A worker dies between the entry and `started`.
    let entry = json!({"key": "k", "holders": [second]});
    let subject = subject(&stack, "dummy", KeyKind::Concurrency, "k");
    stack.bus.store(subject, entry.to_string()).await;

    let _worker = stack.worker("dummy", "w1").await;

    for id in [&first, &second] {
        api.wait_for_status(id, "completed").await;
    }
    let (first, second) = (
        span(&stack, "dummy", &first).await,
        span(&stack, "dummy", &second).await,
    );
    assert!(second.1 < first.0, "{second:?} {first:?}");

    // The same, and the operation is cancelled before it is delivered again.
    let gone = api
        .started(
            "dummy",
            &json!({"execution": {"requirements": {"gpu": true}}}),
        )
        .await;
    let entry = json!({"key": "other", "holders": [gone]});
    let subject = self::subject(&stack, "dummy", KeyKind::Concurrency, "other");
    stack.bus.store(subject, entry.to_string()).await;
    api.cancel(&gone).await.expect(200);
    let next = json!({"steps": 0, "execution": {"concurrency": {"key": "other", "limit": 1}}});
    let next = api.started("dummy", &next).await;
    api.wait_for_status(&next, "completed").await;
}

#[tokio::test]
async fn a_retry_keeps_the_permit() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    let api = stack.api();
    let failing = json!({
        "steps": 1, "step_ms": 0, "fail_at_step": 1,
        "execution": {"max_attempts": 2, "retry_delay": 1.0, "concurrency": {"key": "k", "limit": 1}},
    });
    let mut next = limited("k", 1);
    next["steps"] = json!(0);

    let failing = api.started("dummy", &failing).await;
    let released = ["started", "released"];
    stack
        .bus
        .wait_for_events("dummy", &failing, &released)
        .await;
    let next = api.started("dummy", &next).await;

    api.wait_for_status(&next, "completed").await;
    let (failing, next) = (
        span(&stack, "dummy", &failing).await,
        span(&stack, "dummy", &next).await,
    );
    assert!(failing.1 < next.0, "{failing:?} {next:?}");
    stack.bus.settled().await;
}

#[tokio::test]
async fn operations_that_are_over_leave_the_entries_of_their_keys() {
    let stack = Stack::start_with(|settings| settings.with("KTRDR_RETENTION", "3s")).await;
    let (_worker, gate) = stack.gate_worker("g1").await;
    let api = stack.api();
    let body = json!({
        "execution": {"unique": {"key": "k"}, "concurrency": {"key": "k", "limit": 2}},
    });
    let id = api.running("gate", &body).await;
    let entries = stack.bus.stored(&stack.bus.names.all_keys()).await;
    assert_eq!(entries.len(), 2, "{entries:?}");
    gate.open_for_all();
    api.wait_for_status(&id, "completed").await;

    for kind in [KeyKind::Unique, KeyKind::Concurrency] {
        wait_for("the key to have no entry", LIMIT, async || {
            match holders(&stack, "gate", kind, "k").await.as_slice() {
                [] => Ok(()),
                entries => Err(format!("{entries:?}")),
            }
        })
        .await;
    }
    let again = api.started("gate", &body).await;
    api.wait_for_status(&again, "completed").await;
}

#[tokio::test]
async fn a_start_that_cannot_be_stored_replaces_nothing() {
    let stack = Stack::start_with(|settings| settings.with("KTRDR_MAX_BODY", "2MiB")).await;
    let (_worker, gate) = stack.gate_worker("g1").await;
    let api = stack.api();
    let first = api.running("gate", &unique("k", "replace")).await;
    // A REST interface takes a body of this size, and NATS takes no such message.
    let mut body = unique("k", "replace");
    body["note"] = json!("x".repeat(1_048_000));

    let refused = api.start("gate", &body).await;

    assert_eq!(refused.status / 100, 4, "{refused}");
    let shown = api.operation(&first).await.expect(200);
    assert_eq!(shown.at("/data/status"), "running", "{shown}");
    gate.open_for_all();
    api.wait_for_status(&first, "completed").await;
}

#[tokio::test]
async fn an_entry_with_too_many_holders_is_not_believed() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    let holders: Vec<_> = (0..2001).map(|number| format!("o{number}")).collect();
    let entry = json!({"key": "k", "holders": holders});
    let subject = subject(&stack, "dummy", KeyKind::Unique, "k");
    stack.bus.store(subject, entry.to_string()).await;

    let refused = stack.api().start("dummy", &unique("k", "reject")).await;
    assert_eq!(refused.status, 500, "{refused}");
}

#[tokio::test]
async fn what_is_no_key_is_refused_with_its_place() {
    let stack = Stack::start().await;
    let worker = stack.worker("dummy", "w1").await;
    let long = "é".repeat(257);

    for (execution, path) in [
        (json!({"unique": {"key": ""}}), "/execution/unique/key"),
        (json!({"unique": {"key": long}}), "/execution/unique/key"),
        (json!({"unique": {"key": 7}}), "/execution/unique/key"),
        (json!({"unique": {}}), "/execution/unique"),
        (
            json!({"unique": {"key": "k", "on_conflict": "wait"}}),
            "/execution/unique/on_conflict",
        ),
        (
            json!({"concurrency": {"key": "k"}}),
            "/execution/concurrency",
        ),
        (
            json!({"concurrency": {"key": "k", "limit": 0}}),
            "/execution/concurrency/limit",
        ),
        (
            json!({"concurrency": {"key": "k", "limit": 1001}}),
            "/execution/concurrency/limit",
        ),
        (
            json!({"concurrency": {"key": "k", "limit": 1, "more": 1}}),
            "/execution/concurrency",
        ),
    ] {
        let refused = stack
            .api()
            .start("dummy", &json!({"execution": execution}))
            .await
            .expect_problem(422, "invalid_request");
        let found = refused.at("/violations/0/path");
        assert_eq!(found, path, "{refused}");
    }

    let fits = json!({"steps": 0, "execution": {"unique": {"key": "é".repeat(256)}}});
    stack.api().start("dummy", &fits).await.expect(202);
    for (option, body) in [
        ("unique", unique("k", "reject")),
        ("concurrency", limited("k", 1)),
    ] {
        let refused = worker.api.post("/dummy/start", &body).await;
        let refused = refused.expect_problem(422, "invalid_request");
        let path = refused.at("/violations/0/path");
        assert_eq!(*path, format!("/execution/{option}"));
    }
}

#[tokio::test]
async fn a_token_that_may_not_cancel_replaces_nothing() {
    let tokens = TokensFile::new();
    let starter = tokens.set("starter", r#"scopes = ["start", "read"]"#);
    let stack = Stack::start_with(|settings| settings.tokens(&tokens)).await;
    let (_worker, gate) = stack.gate_worker("g1").await;
    let api = stack.api().with_token(&starter);
    let first = api.running("gate", &unique("k", "replace")).await;

    let refused = api.start("gate", &unique("k", "replace")).await;
    let refused = refused.expect_problem(403, "forbidden");
    assert_eq!(refused.json["scope"], "cancel");

    gate.open_for_all();
    api.wait_for_status(&first, "completed").await;
    let next = api.started("gate", &unique("k", "replace")).await;
    api.wait_for_status(&next, "completed").await;
}

#[tokio::test]
async fn who_uses_no_key_writes_none() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    let id = stack.api().started("dummy", &json!({"steps": 0})).await;
    stack.api().wait_for_status(&id, "completed").await;

    let prefix = stack.bus.names.prefix();
    let all = stack.bus.stored(&format!("{prefix}.>")).await;
    let subjects: Vec<_> = all.iter().map(|message| &message.subject).collect();
    assert_eq!(subjects.len(), 3, "{subjects:?}");
    let events = stack.bus.events("dummy", &id).await;
    assert!(matches!(events[0].kind, EventKind::Started { .. }));
}
