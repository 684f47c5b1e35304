//! Live events: their content, reconnecting after a cut, slow readers, and the end of the stream.

use ktrdr_protocol::id::WorkerType;
use ktrdr_protocol::origin::Origin;
use ktrdr_protocol::time::Timestamp;
use ktrdr_tests::events::EventStream;
use ktrdr_tests::{LIMIT, Stack, wait_for};
use reqwest::Method;
use serde_json::json;

const ALL: &str = "/api/v1/events";

fn path(id: &str) -> String {
    format!("/api/v1/operations/{id}/events")
}

/// Stores a start request of a type that no worker runs, as a backend would.
async fn store(stack: &Stack, worker_type: &str, id: &str, filler: usize) -> u64 {
    let subject = stack.bus.names.start(
        &WorkerType::new(worker_type).unwrap(),
        &Origin::from_token("any").unwrap(),
    );
    let request = json!({
        "operation_id": id, "operation_type": worker_type, "created_at": Timestamp::now(),
        "parameters": {"filler": "x".repeat(filler)},
    });
    stack.bus.store(subject, request.to_string()).await
}

#[tokio::test]
async fn one_operation_is_followed_to_its_end_and_no_further() {
    let stack = Stack::start().await;

    // A worker makes the type known. It stops again, so the operation waits.
    stack.worker("dummy", "w0").await.process.stop().await;

    let id = stack.api().started("dummy", &json!({"steps": 1})).await;
    let id = id.as_str();
    let mut events = EventStream::open(stack.api(), &path(id), None).await;

    let first = events.next().await.unwrap();
    assert_eq!(
        (first.name.as_str(), &first.data["status"]),
        ("operation", &json!("pending"))
    );

    let _worker = stack.worker("dummy", "w1").await;

    let done = events.operation(id, "completed").await;
    assert_eq!(done.data["progress"]["percentage"], 100);
    assert!(
        done.data["result"].is_null(),
        "results are fetched, not streamed"
    );
    assert!(events.next().await.is_none(), "nothing follows the end");

    let last = done.id.unwrap();
    let again = stack
        .api()
        .request(Method::GET, &path(id))
        .header("last-event-id", last.to_string());
    assert_eq!(stack.api().send(again).await.status, 204);

    // A later subscriber still gets the document and the end.
    let mut other = EventStream::open(stack.api(), &path(id), Some(last - 1)).await;

    assert_eq!(other.next().await.unwrap().data["status"], "completed");
    assert!(other.next().await.is_none());
    stack
        .api()
        .get(&path("never-was"))
        .await
        .expect_problem(404, "operation_not_found");
}

#[tokio::test]
async fn progress_and_metrics_arrive_while_it_runs() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;

    let body = json!({"steps": 10000, "step_ms": 20, "metrics_per_step": 2});
    let id = stack.api().started("dummy", &body).await;
    let mut events = EventStream::open(stack.api(), &path(&id), None).await;

    let progress = events
        .until("progress", |event| event.name == "progress")
        .await
        .data;
    assert_eq!(
        (
            &progress["operation_id"],
            &progress["attempt"],
            &progress["worker_id"]
        ),
        (&json!(id), &json!(1), &json!("w1"))
    );
    assert!(
        progress["progress"]["percentage"].is_number() && progress["at"].is_string(),
        "{progress}"
    );

    let later = events
        .until("progress", |event| {
            event.name == "progress" && event.data["at"] != progress["at"]
        })
        .await
        .data;
    assert!(
        later["at"].as_str() > progress["at"].as_str(),
        "{later} after {progress}"
    );

    // The cursors of consecutive events join, and the REST interface uses the same cursors.
    let first = events
        .until("metrics", |event| event.name == "metrics")
        .await
        .data;
    let second = events
        .until("metrics", |event| event.name == "metrics")
        .await
        .data;
    assert_eq!(first["cursor"], second["from"]);

    let limit = second["metrics"].as_array().unwrap().len();
    let cursor = second["from"].as_str().unwrap();
    let page = stack
        .api()
        .get(&format!(
            "/api/v1/operations/{id}/metrics?cursor={cursor}&limit={limit}"
        ))
        .await
        .expect(200);
    assert_eq!(page.at("/data/metrics"), &second["metrics"]);
    assert_eq!(page.at("/data/metrics/0/attempt"), &json!(1));

    stack.api().cancel(&id).await.expect(200);
    events.operation(&id, "cancelled").await;

    assert!(events.next().await.is_none());
}

/// Waits until the projection has read this many operations.
async fn wait_for_total(stack: &Stack, expected: usize) {
    wait_for("the projection to have read all", LIMIT, async || {
        let total = stack
            .api()
            .operations("limit=1")
            .await
            .at("/data/total")
            .clone();
        if total == expected {
            Ok(())
        } else {
            Err(total.to_string())
        }
    })
    .await;
}

#[tokio::test]
async fn a_cut_stream_continues_where_it_was_also_at_a_restarted_backend() {
    let mut stack = Stack::start().await;
    let mut events = EventStream::open(stack.api(), ALL, None).await;

    let before = store(&stack, "fake", "before", 1).await;
    let seen = events.operation("before", "pending").await;
    assert_eq!(seen.id, Some(before));

    drop(events);
    store(&stack, "fake", "first", 1).await;
    let second = store(&stack, "fake", "second", 1).await;
    wait_for_total(&stack, 3).await;
    stack.api().cancel("first").await.expect(200);
    let mut missed = EventStream::open(stack.api(), ALL, Some(before)).await;

    let one = missed.next().await.unwrap();
    assert_eq!(
        (&one.data["operation_id"], one.id),
        (&json!("second"), Some(second))
    );

    // Each operation once, as it is now, in the order of its newest change.
    let two = missed.next().await.unwrap();
    assert_eq!(
        (&two.data["operation_id"], &two.data["status"]),
        (&json!("first"), &json!("cancelled"))
    );

    // A backend that goes away ends the stream; the next one takes the same id.
    stack.backend.restart().await;

    assert!(missed.next().await.is_none());

    let mut resumed = EventStream::open(stack.api(), ALL, Some(second)).await;

    assert_eq!(resumed.next().await.unwrap().data["operation_id"], "first");

    store(&stack, "fake", "live", 1).await;

    assert_eq!(resumed.next().await.unwrap().data["operation_id"], "live");

    // An id from the future: the client must fetch everything again.
    let mut ahead = EventStream::open(stack.api(), ALL, Some(1_000_000)).await;

    assert_eq!(ahead.next().await.unwrap().name, "reset");

    let bad = stack
        .api()
        .request(Method::GET, ALL)
        .header("last-event-id", "yesterday");
    let _ = stack
        .api()
        .send(bad)
        .await
        .expect_problem(400, "invalid_header");
}

#[tokio::test]
async fn too_much_missed_is_a_reset() {
    let stack = Stack::start().await;

    let first = store(&stack, "fake", "op-0", 1).await;
    let mut last = 0;
    for number in 1..=1001 {
        last = store(&stack, "fake", &format!("op-{number}"), 1).await;
    }
    wait_for_total(&stack, 1002).await;
    let mut events = EventStream::open(stack.api(), ALL, Some(first)).await;

    let reset = events.next().await.unwrap();
    assert_eq!((reset.name.as_str(), reset.id), ("reset", Some(last)));

    let mut events = EventStream::open(stack.api(), ALL, Some(last - 1)).await;

    assert_eq!(events.next().await.unwrap().data["operation_id"], "op-1001");
}

#[tokio::test]
async fn followers_continue_when_the_stream_is_created_again() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;

    for _ in 0..3 {
        let id = stack.api().started("dummy", &json!({"steps": 0})).await;
        stack.api().wait_for_status(&id, "completed").await;
    }
    let mut events = EventStream::open(stack.api(), ALL, None).await;

    stack
        .bus
        .jetstream
        .delete_stream(stack.bus.names.stream())
        .await
        .unwrap();
    events.until("reset", |event| event.name == "reset").await;
    let id = wait_for("a start to be taken again", LIMIT, async || {
        let answer = stack.api().start("dummy", &json!({"steps": 0})).await;
        if answer.status == 202 {
            Ok(answer.json["operation_id"].as_str().unwrap().to_owned())
        } else {
            Err(answer.text)
        }
    })
    .await;

    // Its sequence is lower than sequences seen before.
    events.operation(&id, "completed").await;
}

#[tokio::test]
async fn filters_let_only_their_type_through() {
    let stack = Stack::start().await;
    let mut fakes = EventStream::open(
        stack.api(),
        "/api/v1/events?operation_type=fake&worker_type=none",
        None,
    )
    .await;
    let mut others =
        EventStream::open(stack.api(), "/api/v1/events?operation_type=other", None).await;
    let _worker = stack.worker("dummy", "w1").await;

    store(&stack, "other", "o1", 1).await;
    store(&stack, "fake", "f1", 1).await;
    store(&stack, "other", "o2", 1).await;

    assert_eq!(fakes.next().await.unwrap().data["operation_id"], "f1");

    let ids = [
        others.operation("o1", "pending").await.id,
        others.operation("o2", "pending").await.id,
    ];
    assert!(ids[0] < ids[1], "ids are sequences of the stream: {ids:?}");
}

#[tokio::test]
async fn workers_come_fall_silent_come_back_and_leave() {
    let stack = Stack::start().await;
    let mut events = EventStream::open(stack.api(), ALL, None).await;
    let mut worker = stack.worker("dummy", "w1").await;

    let status = |wanted: &'static str| {
        move |event: &ktrdr_tests::events::Event| {
            event.name == "worker" && event.data["status"] == wanted
        }
    };
    let came = events.until("the worker", status("AVAILABLE")).await;
    assert_eq!(
        (&came.data["worker_id"], &came.data["worker_type"]),
        (&json!("w1"), &json!("dummy"))
    );

    worker.process.kill();
    events
        .until("its silence", status("TEMPORARILY_UNAVAILABLE"))
        .await;
    worker.restart().await;
    events.until("its return", status("AVAILABLE")).await;
    worker.process.stop().await;

    let gone = events
        .until("its farewell", |event| {
            event.name == "worker" && event.data["removed"] == true
        })
        .await;
    assert_eq!(gone.data["worker_id"], "w1");
}

#[tokio::test]
async fn a_slow_reader_learns_that_it_missed_events_and_slows_nobody() {
    let stack = Stack::start().await;
    let mut slow = EventStream::open(stack.api(), ALL, None).await;
    let mut quick = EventStream::open(stack.api(), ALL, None).await;

    // More than the backend buffers for a subscription, plus the sockets' buffers.
    for number in 0..100 {
        let id = format!("big-{number}");
        store(&stack, "fake", &id, 900_000).await;
        let event = quick.next().await.unwrap();
        assert_eq!(
            (event.name.as_str(), &event.data["operation_id"]),
            ("operation", &json!(id))
        );
    }
    let mut read = 0;
    let reset = slow
        .until("the reset", |event| {
            read += 1;
            event.name == "reset"
        })
        .await;

    assert!(read < 100, "it read everything");
    assert_eq!(reset.id, quick.last_id());

    // From there on the subscription works as before.
    store(&stack, "fake", "small", 1).await;

    assert_eq!(slow.next().await.unwrap().data["operation_id"], "small");
    assert_eq!(quick.next().await.unwrap().data["operation_id"], "small");
}

#[tokio::test]
async fn a_backend_that_is_asked_to_stop_ends_its_streams() {
    let mut stack = Stack::start().await;
    let mut events = EventStream::open(stack.api(), ALL, None).await;
    assert!(stack.backend.process.stop().await.success());
    assert!(events.next().await.is_none());
}

#[tokio::test]
async fn figures_for_an_overview_add_up() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;

    let done = stack.api().started("dummy", &json!({"steps": 0})).await;
    let failed = stack
        .api()
        .started(
            "dummy",
            &json!({"steps": 1, "step_ms": 0, "fail_at_step": 1}),
        )
        .await;
    stack.api().wait_for_status(&done, "completed").await;
    stack.api().wait_for_status(&failed, "failed").await;
    store(&stack, "fake", "waits", 1).await;

    let stats = wait_for("the third operation", LIMIT, async || {
        let answer = stack.api().get("/api/v1/stats").await.expect(200);
        if answer.at("/data/operations/total") == 3 {
            Ok(answer)
        } else {
            Err(answer.to_string())
        }
    })
    .await;
    let operations = json!({"pending": 1, "running": 0, "completed": 1, "failed": 1, "cancelled": 0, "total": 3});
    assert_eq!(stats.at("/data/operations"), &operations);
    assert_eq!(stats.at("/data/by_type/0/worker_type"), "dummy");
    assert_eq!(stats.at("/data/by_type/0/workers"), 1);
    assert_eq!(stats.at("/data/by_type/1/pending"), 1);
    assert_eq!(stats.at("/data/workers/TEMPORARILY_UNAVAILABLE"), 0);

    let minutes = stats.at("/data/minutes").as_array().unwrap();
    let sum = |name: &str| {
        minutes
            .iter()
            .map(|minute| minute[name].as_u64().unwrap())
            .sum::<u64>()
    };
    assert_eq!(
        (
            minutes.len(),
            sum("created"),
            sum("completed"),
            sum("failed")
        ),
        (60, 3, 1, 1)
    );
}
