//! Priorities: the order in which waiting operations are started, and that every one is.

use ktrdr_tests::engines::{Gate, GateEngine};
use ktrdr_tests::{Answer, BackendProcess, Client, LIMIT, LocalWorker, Stack, wait_for};
use reqwest::Method;
use serde_json::{Value, json};

fn with_priority(priority: u8) -> Value {
    json!({"execution": {"priority": priority}})
}

/// A worker with one slot, which is taken. It serves the queues of these priorities already.
async fn busy_worker(stack: &Stack, priorities: &[u8]) -> (LocalWorker, Gate) {
    let (engine, gate) = GateEngine::new();
    let first = stack.local_worker(engine.clone(), "g0", &[]).await;
    for priority in priorities {
        started_with(stack.api(), *priority).await;
        gate.open(1);
        gate.started().await;
    }
    first.stop().await;

    let worker = stack.local_worker(engine, "g1", &[]).await;
    let running = stack.api().started("gate", &json!({})).await;
    gate.started().await;
    stack.api().wait_for_status(&running, "running").await;
    (worker, gate)
}

async fn started_with(api: &Client, priority: u8) -> String {
    api.started("gate", &with_priority(priority)).await
}

/// The next operations that start, in their order. Each ends at once.
async fn next_started(gate: &Gate, count: usize) -> Vec<String> {
    let mut order = Vec::new();
    for _ in 0..count {
        gate.open(1);
        order.push(gate.started().await.0.to_string());
    }
    order
}

async fn position(api: &Client, id: &str) -> Value {
    let answer = api.operation(id).await.expect(200);
    answer.at("/data/queue_position").clone()
}

#[tokio::test]
async fn a_free_slot_takes_the_first_priority_first_and_the_oldest_of_each() {
    let stack = Stack::start().await;
    let (_worker, gate) = busy_worker(&stack, &[1, 2, 4, 5]).await;

    let mut wanted = Vec::new();
    for priority in [5, 3, 1, 4, 2, 3, 1, 5] {
        wanted.push((priority, started_with(stack.api(), priority).await));
    }

    // All of a higher priority are before it.
    for (priority, id) in &wanted {
        let place = wanted.iter().filter(|(other, _)| other < priority).count();
        let same = wanted.iter().filter(|(other, _)| other == priority);
        let before = same.take_while(|(_, other)| other != id).count();
        let position = position(stack.api(), id).await;
        assert_eq!(position, (place + before + 1) as u64, "{priority}");
    }
    wanted.sort_by_key(|(priority, _)| *priority);
    let ids: Vec<_> = wanted.into_iter().map(|(_, id)| id).collect();
    assert_eq!(next_started(&gate, ids.len()).await, ids);
    gate.open_for_all();
    stack.bus.settled().await;
}

#[tokio::test]
async fn the_last_priority_goes_on_however_much_there_is_of_the_first() {
    let stack = Stack::start().await;
    let (_worker, gate) = busy_worker(&stack, &[1, 5]).await;
    for _ in 0..4 {
        started_with(stack.api(), 5).await;
    }
    for _ in 0..64 {
        started_with(stack.api(), 1).await;
    }

    let started = next_started(&gate, 64).await;

    let mut of_the_last = Vec::new();
    for (place, id) in started.iter().enumerate() {
        let operation = stack.api().operation(id).await.expect(200);
        if operation.at("/data/priority") == 5 {
            of_the_last.push(place);
        }
    }
    assert_eq!(of_the_last.len(), 4, "{of_the_last:?}");
    for (n, place) in of_the_last.iter().enumerate() {
        assert!(n * 16 <= *place && *place < (n + 1) * 16, "{of_the_last:?}");
    }
    gate.open_for_all();
    stack.bus.settled().await;
}

#[tokio::test]
async fn without_priorities_there_is_one_pull_for_each_operation() {
    let stack = Stack::start().await;
    let (worker, gate) = busy_worker(&stack, &[]).await;
    for _ in 0..20 {
        stack.api().started("gate", &json!({})).await;
    }

    next_started(&gate, 20).await;

    let metrics = worker.api.get("/metrics").await.expect(200).text;
    let pulls = metrics
        .lines()
        .find_map(|line| line.strip_prefix("ktrdr_worker_pulls_total"))
        .and_then(|rest| rest.split_whitespace().last())
        .map(|count| count.parse::<f64>().unwrap());
    assert_eq!(pulls, Some(21.0), "{metrics}");
}

#[tokio::test]
async fn the_queue_of_a_priority_goes_when_nobody_uses_it() {
    let stack = Stack::start_with(|settings| settings.with("KTRDR_QUEUE_IDLE", "500ms")).await;
    let (engine, gate) = GateEngine::new();
    gate.open_for_all();
    let _worker = stack.local_worker(engine, "g1", &[]).await;

    let id = started_with(stack.api(), 1).await;
    let done = stack.api().wait_for_status(&id, "completed").await;
    assert_eq!(done["queue"], "any-p1");

    wait_for("its consumer to be gone", LIMIT, async || {
        let stream = stack.bus.names.stream();
        let stream = stack.bus.jetstream.get_stream_no_info(stream).await;
        match stream.unwrap().consumer_info("gate-any-p1").await {
            Ok(info) => Err(format!("{info:?}")),
            Err(_) => Ok(()),
        }
    })
    .await;
    let again = started_with(stack.api(), 1).await;
    stack.api().wait_for_status(&again, "completed").await;
}

#[tokio::test]
async fn a_priority_that_there_is_not_is_refused() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;

    for wrong in [json!(0), json!(6), json!(1.5), json!("high")] {
        let body = json!({"execution": {"priority": wrong}});
        let answer = stack.api().start("dummy", &body).await;
        let answer = answer.expect_problem(422, "invalid_request");
        assert_eq!(answer.json["violations"][0]["path"], "/execution/priority");
    }
}

async fn change(api: &Client, id: &str, priority: Value) -> Answer {
    let request = api.request(Method::PATCH, &format!("/api/v1/operations/{id}"));
    api.send(request.json(&json!({"priority": priority}))).await
}

#[tokio::test]
async fn a_waiting_operation_is_moved_up_and_down() {
    let stack = Stack::start().await;
    let other = BackendProcess::start(&stack.settings).await;
    let (_worker, gate) = busy_worker(&stack, &[1, 5]).await;
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(stack.api().started("gate", &json!({})).await);
    }

    let up = change(stack.api(), &ids[3], json!(1)).await.expect(200);
    change(&other.api, &ids[0], json!(5)).await.expect(200);

    assert_eq!(up.at("/data/priority"), 1);
    assert_eq!(up.at("/data/queue_position"), 1);
    // Again, and back.
    change(&other.api, &ids[3], json!(1)).await.expect(200);
    change(stack.api(), &ids[1], json!(5)).await.expect(200);
    change(stack.api(), &ids[1], json!(3)).await.expect(200);
    let order = [3, 2, 1, 0].map(|n: usize| ids[n].clone());
    assert_eq!(next_started(&gate, 4).await, order);
    gate.open_for_all();
    for (n, moves) in [(3, 1), (2, 0), (1, 2), (0, 1)] {
        stack.api().wait_for_status(&ids[n], "completed").await;
        let events = stack.bus.event_names("gate", &ids[n]).await;
        let moved = events.iter().filter(|name| **name == "moved").count();
        assert_eq!((moved, events.len()), (moves, moves + 2), "{events:?}");
    }
    stack.bus.settled().await;
}

#[tokio::test]
async fn a_delayed_operation_keeps_its_time_when_its_priority_changes() {
    let stack = Stack::start().await;
    let (engine, gate) = GateEngine::new();
    let _worker = stack.local_worker(engine, "g1", &[]).await;
    let body = json!({"execution": {"delay_seconds": 1}});
    let id = stack.api().started("gate", &body).await;

    let changed = change(stack.api(), &id, json!(2)).await.expect(200);

    assert_eq!(changed.at("/data/queue"), "any-p2-later");
    gate.open_for_all();
    let done = stack.api().wait_for_status(&id, "completed").await;
    assert_eq!(
        (&done["queue"], &done["priority"]),
        (&json!("any-p2"), &json!(2))
    );
    let text = |field: &str| done[field].as_str().unwrap().to_owned();
    assert!(text("started_at") >= text("start_at"), "{done}");
    assert_eq!(done["start_at"], changed.at("/data/start_at").clone());
}

#[tokio::test]
async fn only_what_waits_can_be_given_another_priority() {
    let stack = Stack::start().await;
    let (_worker, gate) = busy_worker(&stack, &[]).await;
    let list = stack.api().operations("status=running").await.expect(200);
    let running = list.at("/data/operations/0/operation_id").as_str().unwrap();

    let answer = change(stack.api(), running, json!(1)).await;
    answer.expect_problem(409, "not_waiting");
    gate.open_for_all();
    stack.api().wait_for_status(running, "completed").await;
    let answer = change(stack.api(), running, json!(1)).await;
    answer.expect_problem(409, "not_waiting");
    let answer = change(stack.api(), "nobody", json!(1)).await;
    answer.expect_problem(404, "operation_not_found");
    for wrong in [json!(0), json!("x"), Value::Null] {
        let answer = change(stack.api(), running, wrong).await;
        answer.expect_problem(422, "invalid_request");
    }
}

#[tokio::test]
async fn a_move_whose_start_request_is_not_stored_yet_says_so() {
    let stack = Stack::start().await;
    let (_worker, gate) = busy_worker(&stack, &[1]).await;
    let body = json!({"note": "x".repeat(4_000)});
    let id = stack.api().started("gate", &body).await;
    // A limit that somebody has set by hand, and that no program knows of.
    let mut stream = stack.bus.jetstream.get_stream("KTRDR").await.unwrap();
    let mut config = stream.info().await.unwrap().config.clone();
    config.max_message_size = 2_000;
    stack.bus.jetstream.update_stream(&config).await.unwrap();

    let changed = change(stack.api(), &id, json!(1)).await.expect(200);

    assert_eq!(changed.at("/data/priority"), 1);
    let warning = changed.json["warning"].as_str().unwrap();
    assert!(warning.contains("The priority is stored"), "{changed}");
    config.max_message_size = -1;
    stack.bus.jetstream.update_stream(&config).await.unwrap();
    gate.open_for_all();
    stack.api().wait_for_status(&id, "completed").await;
}

#[tokio::test]
async fn a_changed_priority_is_shown_and_kept_by_a_retry() {
    let stack = Stack::start().await;
    let (_worker, gate) = busy_worker(&stack, &[]).await;
    let id = started_with(stack.api(), 1).await;

    let usual = change(stack.api(), &id, json!(3)).await.expect(200);
    let last = change(stack.api(), &id, json!(5)).await.expect(200);

    assert_eq!(usual.at("/data/priority"), 3, "{usual}");
    assert_eq!(last.at("/data/priority"), 5, "{last}");
    stack.api().cancel(&id).await.expect(200);
    let path = format!("/api/v1/operations/{id}/retry");
    let again = stack.api().post(&path, &Value::Null).await.expect(202);
    let again = again.json["operation_id"].as_str().unwrap();
    let again = stack.api().operation(again).await.expect(200);
    assert_eq!(again.at("/data/priority"), 5, "{again}");
    assert_eq!(again.at("/data/queue"), "any-p5", "{again}");
    gate.open_for_all();
}
