//! Not before and not after: delayed operations, and operations that expire while they wait.

use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE;
use ktrdr_protocol::time::Timestamp;
use ktrdr_tests::{BackendProcess, Client, LIMIT, Stack, WorkerProcess, wait_for};
use serde_json::{Value, json};

/// A start body of an operation that is done at once, with these execution options.
fn when(execution: Value) -> Value {
    json!({"steps": 0, "execution": execution})
}

fn time(document: &Value, field: &str) -> Timestamp {
    serde_json::from_value(document[field].clone())
        .unwrap_or_else(|error| panic!("{field}: {error} in {document}"))
}

/// A stack in which the type `dummy` is known, and no worker runs.
async fn without_workers() -> Stack {
    let stack = Stack::start().await;
    drop(stack.worker("dummy", "w0").await);
    stack
}

/// What a queue's consumer has delivered and has waiting.
async fn delivered_and_waiting(stack: &Stack, consumer: &str) -> (u64, u64) {
    let stream = stack.bus.names.stream();
    let stream = stack.bus.jetstream.get_stream_no_info(stream).await;
    let info = stream.unwrap().consumer_info(consumer).await.unwrap();
    (info.delivered.consumer_sequence, info.num_pending)
}

async fn document(api: &Client, id: &str) -> Value {
    api.operation(id).await.expect(200).at("/data").clone()
}

#[tokio::test]
async fn a_delayed_operation_starts_when_it_is_due_although_everything_was_restarted() {
    let mut stack = Stack::start().await;
    let mut worker = stack.worker("dummy", "w1").await;

    let id = stack
        .api()
        .started("dummy", &when(json!({"delay_seconds": 3})))
        .await;

    let waiting = document(stack.api(), &id).await;
    let due = time(&waiting, "start_at");
    assert_eq!(
        due.after(time(&waiting, "created_at")),
        Duration::from_secs(3)
    );
    assert_eq!(waiting["queue_position"], Value::Null, "{waiting}");
    assert_eq!(waiting["queue"], "any-later");
    worker.process.kill();
    stack.backend.process.kill();
    stack.backend.restart().await;
    let _worker = stack.worker("dummy", "w2").await;
    let done = stack.api().wait_for_status(&id, "completed").await;
    assert!(time(&done, "started_at") >= due, "{done}");
    assert_eq!(done["queue"], "any");
    assert_eq!(done["attempt"], 1);
    assert_eq!(
        stack.bus.event_names("dummy", &id).await,
        ["moved", "started", "completed"]
    );
    stack.bus.settled().await;
}

#[tokio::test]
async fn two_backends_move_each_delayed_operation_once() {
    let stack = Stack::start().await;
    let second = BackendProcess::start(&stack.settings).await;
    let _worker = stack.worker("dummy", "w1").await;
    let due = Timestamp::now().plus(Duration::from_secs(1));

    let mut ids = Vec::new();
    for _ in 0..20 {
        let body = when(json!({"start_at": due}));
        ids.push(stack.api().started("dummy", &body).await);
        ids.push(second.api.started("dummy", &body).await);
    }

    for id in &ids {
        stack.api().wait_for_status(id, "completed").await;
        assert_eq!(
            stack.bus.event_names("dummy", id).await,
            ["moved", "started", "completed"]
        );
    }
    let copies = stack.bus.stored("ktrdr.start.dummy.any").await;
    assert_eq!(copies.len(), ids.len());
}

#[tokio::test]
async fn a_delayed_operation_is_cancelled_like_any_other() {
    let stack = without_workers().await;
    let body = when(json!({"delay_seconds": 3600}));
    let id = stack.api().started("dummy", &body).await;

    stack.api().cancel(&id).await.expect(200);

    stack.api().wait_for_status(&id, "cancelled").await;
    assert_eq!(stack.bus.event_names("dummy", &id).await, ["cancelled"]);
}

#[tokio::test]
async fn fifty_thousand_delayed_operations_are_given_to_no_worker() {
    const DELAYED: u64 = 50_000;
    let stack = Stack::start().await;
    let due = Timestamp::now().plus(Duration::from_secs(3600));
    for n in 0..DELAYED {
        let request = json!({
            "operation_id": format!("later-{n}"), "operation_type": "dummy", "parameters": {},
            "start_at": due, "created_at": "2026-01-01T00:00:00Z",
        });
        let subject = "ktrdr.start.dummy.any-later";
        stack.bus.publish(subject, request.to_string()).await;
    }
    wait_for("all of them", LIMIT, async || {
        let answer = stack.api().try_get("/api/v1/operations?limit=1").await?;
        match answer.at("/data/total").as_u64() {
            Some(DELAYED) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    let worker = stack.worker("dummy", "w1").await;

    for _ in 0..10 {
        let id = stack.api().started("dummy", &when(json!({}))).await;
        stack.api().wait_for_status(&id, "completed").await;
    }
    drop(worker);
    let next = stack.api().started("dummy", &when(json!({}))).await;

    assert_eq!(delivered_and_waiting(&stack, "dummy-any").await, (10, 1));
    assert_eq!(document(stack.api(), &next).await["queue_position"], 1);
}

#[tokio::test]
async fn a_worker_hands_back_what_is_not_due_whatever_the_clock_of_its_publisher_says() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    let request = json!({
        "operation_id": "by-hand", "operation_type": "dummy", "parameters": {"steps": 0},
        "delay_seconds": 1, "created_at": "2001-01-01T00:00:00Z",
    });

    stack
        .bus
        .store("ktrdr.start.dummy.any", request.to_string())
        .await;

    let done = stack.api().wait_for_status("by-hand", "completed").await;
    let waited = time(&done, "started_at").after(time(&done, "created_at"));
    assert!(waited >= Duration::from_secs(1), "{done}");
    assert_eq!(
        time(&done, "start_at").after(time(&done, "created_at")),
        Duration::from_secs(1)
    );
    assert_eq!(
        stack.bus.event_names("dummy", "by-hand").await,
        ["started", "completed"]
    );
    stack.bus.settled().await;
}

#[tokio::test]
async fn a_move_that_a_backend_did_not_finish_is_finished() {
    let stack = without_workers().await;
    let body = when(json!({"delay_seconds": 3600, "queue_timeout_seconds": 7200}));
    let id = stack.api().started("dummy", &body).await;

    // A backend dies right after this.
    let event = json!({
        "event": "moved", "operation_id": id, "attempt": 0, "at": "2026-01-01T00:00:00Z",
        "claim": "b1", "queue": "any-p1", "copy": "c1",
    });
    let mut headers = HeaderMap::new();
    headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, "0");
    let subject = format!("ktrdr.op.dummy.{id}");
    let stored =
        stack
            .bus
            .jetstream
            .publish_with_headers(subject, headers, event.to_string().into());
    stored.await.unwrap().await.unwrap();

    let copy = wait_for("the copy", LIMIT, async || {
        let copies = stack.bus.stored("ktrdr.start.dummy.any-p1").await;
        let copy = copies.first().ok_or("none")?;
        serde_json::from_slice::<Value>(&copy.payload).map_err(|error| error.to_string())
    })
    .await;
    let moved = document(stack.api(), &id).await;
    assert_eq!(copy["copy"]["id"], "c1");
    assert_eq!(copy["start_at"], moved["start_at"]);
    assert_eq!(copy["expires_at"], moved["expires_at"]);
    assert_eq!(copy["delay_seconds"], Value::Null);
    assert_eq!(moved["priority"], 1);
    assert_eq!(moved["queue_position"], 1);
}

#[tokio::test]
async fn what_no_worker_takes_in_time_ends_as_expired() {
    let stack = without_workers().await;
    let second = BackendProcess::start(&stack.settings).await;
    let timeout = json!({"queue_timeout_seconds": 0.5});
    let waiting = stack.api().started("dummy", &when(timeout)).await;
    let delayed = json!({"delay_seconds": 0.2, "queue_timeout_seconds": 0.5});
    let delayed = second.api.started("dummy", &when(delayed)).await;

    for id in [&waiting, &delayed] {
        let failed = stack.api().wait_for_status(id, "failed").await;
        assert_eq!(failed["error"]["code"], "expired", "{failed}");
        assert_eq!(failed["attempt"], 0);
        assert!(time(&failed, "completed_at") >= time(&failed, "expires_at"));
        let events = stack.bus.event_names("dummy", id).await;
        assert_eq!(events.iter().filter(|name| **name == "failed").count(), 1);
    }

    // A worker that comes later runs none of them.
    let _worker = stack.worker("dummy", "w1").await;
    stack.bus.settled().await;
    assert_eq!(stack.bus.event_names("dummy", &waiting).await, ["failed"]);
}

#[tokio::test]
async fn a_worker_that_is_given_an_expired_operation_ends_it() {
    let mut stack = without_workers().await;
    let body = when(json!({"queue_timeout_seconds": 0.5}));
    let id = stack.api().started("dummy", &body).await;
    let expires = time(&document(stack.api(), &id).await, "expires_at");
    stack.backend.process.kill();
    wait_for("the deadline", LIMIT, async || match Timestamp::now() {
        now if now > expires => Ok(()),
        now => Err(now.to_string()),
    })
    .await;

    let _worker = WorkerProcess::start(&stack.settings, "dummy", "w1").await;
    stack.bus.wait_for_events("dummy", &id, &["failed"]).await;

    let events = stack.bus.events("dummy", &id).await;
    assert_eq!(events[0].worker_id.as_ref().unwrap().as_str(), "w1");
    stack.bus.settled().await;
    stack.backend.restart().await;
    let failed = stack.api().wait_for_status(&id, "failed").await;
    assert_eq!(failed["error"]["code"], "expired", "{failed}");
}

#[tokio::test]
async fn an_operation_that_has_started_in_time_does_not_expire() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    let body = json!({
        "steps": 1, "step_ms": 0, "fail_at_step": 1,
        "execution": {"max_attempts": 2, "retry_delay": 1, "queue_timeout_seconds": 0.5},
    });

    let id = stack.api().started("dummy", &body).await;

    let failed = stack.api().wait_for_status(&id, "failed").await;
    assert_eq!(failed["attempt"], 2, "{failed}");
    assert_eq!(failed["error"]["code"], "engine_error");
}

#[tokio::test]
async fn times_that_make_no_sense_are_refused_with_their_place() {
    let stack = Stack::start().await;
    let worker = stack.worker("dummy", "w1").await;
    let year = 366 * 86_400;

    for (execution, path) in [
        (json!({"start_at": "soon"}), "start_at"),
        (json!({"delay_seconds": -1}), "delay_seconds"),
        (json!({"delay_seconds": 31_000_000}), "delay_seconds"),
        (
            json!({"start_at": Timestamp::now().plus(Duration::from_secs(year))}),
            "start_at",
        ),
        (
            json!({"start_at": Timestamp::now(), "delay_seconds": 1}),
            "delay_seconds",
        ),
        (json!({"queue_timeout_seconds": 0}), "queue_timeout_seconds"),
        (
            json!({"delay_seconds": 9, "queue_timeout_seconds": 9}),
            "queue_timeout_seconds",
        ),
    ] {
        let answer = stack.api().start("dummy", &when(execution)).await;
        let answer = answer.expect_problem(422, "invalid_request");
        assert_eq!(
            answer.json["violations"][0]["path"],
            format!("/execution/{path}"),
            "{answer}"
        );
    }

    // Sent to a worker, an operation starts at once.
    let body = when(json!({"delay_seconds": 9}));
    let answer = worker.api.post("/dummy/start", &body).await;
    answer.expect_problem(422, "invalid_request");
}

#[tokio::test]
async fn a_repeated_start_is_the_same_and_a_retry_has_no_times() {
    let stack = without_workers().await;
    let body = json!({
        "task_id": "once", "steps": 0,
        "execution": {"delay_seconds": 0.1, "queue_timeout_seconds": 0.2, "max_attempts": 2},
    });
    stack.api().start("dummy", &body).await.expect(202);
    stack.api().wait_for_status("once", "failed").await;

    stack.api().start("dummy", &body).await.expect(200);
    let again = stack
        .api()
        .post("/api/v1/operations/once/retry", &json!({}))
        .await
        .expect(202);

    let again = again.json["operation_id"].as_str().unwrap();
    let again = document(stack.api(), again).await;
    assert_eq!(again["execution"], json!({"max_attempts": 2}));
    assert_eq!(
        (&again["start_at"], &again["expires_at"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(again["queue"], "any");
}

/// Whoever may publish can use the id of an operation that has ended for another one.
#[tokio::test]
async fn an_operation_with_a_log_that_has_ended_before_it_is_told_of_and_not_ended_again_and_again()
{
    let stack = without_workers().await;
    let ended = json!({
        "event": "cancelled", "operation_id": "old", "attempt": 0, "at": "2026-01-01T00:00:00Z",
    });
    stack
        .bus
        .store("ktrdr.op.dummy.old", ended.to_string())
        .await;
    let request = json!({
        "operation_id": "old", "operation_type": "dummy", "parameters": {},
        "created_at": "2026-01-01T00:00:00Z", "expires_at": "2026-01-01T00:00:01Z",
    });
    let subject = "ktrdr.start.dummy.any";
    stack.bus.store(subject, request.to_string()).await;

    wait_for("the log to say so", LIMIT, async || {
        let log = stack.backend.process.log();
        let is_told = log.contains("could not be moved or ended");
        is_told.then_some(()).ok_or(log)
    })
    .await;
}
