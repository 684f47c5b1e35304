//! `POST /api/v1/{domain}/start`: accepted starts, refused starts, and repeated starts.

use std::time::Duration;

use ktrdr_tests::{BackendProcess, Client, LIMIT, Settings, Stack, wait_for};
use reqwest::Method;
use serde_json::{Value, json};

#[tokio::test]
async fn answers_with_the_id_and_where_it_is_found() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;

    let answer = stack
        .api()
        .start("dummy", &json!({"steps": 1, "step_ms": 1}))
        .await
        .expect(202);
    let id = answer.json["operation_id"].as_str().unwrap().to_owned();

    assert_eq!(answer.json["success"], true);
    assert_eq!(
        answer.header("location"),
        format!("/api/v1/operations/{id}")
    );

    // Read your writes: the next answer knows the operation.
    stack.api().operation(&id).await.expect(200);

    let done = stack.api().wait_for_status(&id, "completed").await;
    assert_eq!(done["progress"]["percentage"], 100);
    assert_eq!(done["result"]["steps"], 1);
    assert_eq!(
        stack.bus.event_names("dummy", &id).await,
        ["started", "completed"]
    );
    stack.bus.settled().await;
}

#[tokio::test]
async fn the_same_task_id_starts_nothing_twice() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;

    let body = json!({"task_id": "mine-1", "steps": 1, "step_ms": 1});
    let first = stack.api().start("dummy", &body).await.expect(202);
    assert_eq!(first.json["operation_id"], "mine-1");

    stack.api().wait_for_status("mine-1", "completed").await;

    let again = stack.api().start("dummy", &body).await.expect(200);
    assert_eq!(again.json["operation_id"], "mine-1");
    assert_eq!(again.json["status"], "completed");
    assert_eq!(stack.bus.stored("ktrdr.start.*.*").await.len(), 1);
    assert_eq!(
        stack.bus.event_names("dummy", "mine-1").await,
        ["started", "completed"]
    );
}

#[tokio::test]
async fn the_same_idempotency_key_replays_the_first_answer() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;

    let start = async |body| {
        let request = stack
            .api()
            .request(Method::POST, "/api/v1/dummy/start")
            .header("idempotency-key", "key 1");
        stack.api().send(request.json(&body)).await
    };
    let first = start(json!({"steps": 0})).await.expect(202);

    // Also with an id in the body, if that id is new.
    for body in [
        json!({"steps": 0}),
        json!({"steps": 0, "task_id": "another"}),
    ] {
        assert_eq!(
            start(body).await.expect(200).json["operation_id"],
            first.json["operation_id"]
        );
    }

    assert_eq!(stack.bus.stored("ktrdr.start.*.*").await.len(), 1);
}

#[tokio::test]
async fn the_same_id_with_another_body_is_refused_and_names_the_operation() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    let second = BackendProcess::start(&stack.settings).await;
    let keyed = async |api: &Client, body: &Value| {
        let request = api.request(Method::POST, "/api/v1/dummy/start");
        let request = request.header("idempotency-key", "monday").json(body);
        api.send(request).await
    };
    let named =
        json!({"task_id": "mine-1", "steps": 1, "step_ms": 1, "execution": {"max_attempts": 2}});
    let unnamed = json!({"steps": 1, "step_ms": 1});
    stack.api().start("dummy", &named).await.expect(202);
    let key_id = keyed(stack.api(), &unnamed).await.expect(202).json["operation_id"].clone();

    // While it waits or runs, and when it has ended; at the same backend and at another one.
    for round in ["begun", "ended"] {
        for api in [stack.api(), &second.api] {
            for other in [
                json!({"task_id": "mine-1", "steps": 2, "step_ms": 1, "execution": {"max_attempts": 2}}),
                json!({"task_id": "mine-1", "step_ms": 1, "execution": {"max_attempts": 2}}),
                json!({"task_id": "mine-1", "steps": 1, "step_ms": 1}),
            ] {
                let answer = api.start("dummy", &other).await;
                let answer = answer.expect_problem(409, "idempotency_mismatch");
                assert_eq!(answer.json["operation_id"], "mine-1", "{round} {answer}");
                assert!(answer.text.contains("this task_id"), "{round} {answer}");
            }
            let answer = keyed(api, &json!({"steps": 2, "step_ms": 1})).await;
            let answer = answer.expect_problem(409, "idempotency_mismatch");
            assert_eq!(answer.json["operation_id"], key_id, "{round} {answer}");
            assert_eq!(
                answer.json["differing"],
                json!(["steps"]),
                "{round} {answer}"
            );
            assert!(answer.text.contains("this Idempotency-Key"), "{answer}");

            // The same, written in another way.
            let same = json!({"execution": {"max_attempts": 2.0, "requirements": {}}, "step_ms": 1.0, "steps": 1, "task_id": "mine-1"});
            let answer = api.start("dummy", &same).await.expect(200);
            assert_eq!(answer.json["existed"], true, "{round} {answer}");
            keyed(api, &unnamed).await.expect(200);
        }
        stack.api().wait_for_status("mine-1", "completed").await;
    }
    assert_eq!(stack.bus.stored("ktrdr.start.*.*").await.len(), 2);
}

#[tokio::test]
async fn of_two_bodies_with_one_id_at_a_time_one_is_started_and_the_other_refused() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    let second = BackendProcess::start(&stack.settings).await;

    for round in 0..10 {
        let body = |steps| json!({"task_id": format!("race-{round}"), "steps": steps});
        let (one, two) = (body(0), body(1));
        let (here, there) = tokio::join!(
            stack.api().start("dummy", &one),
            second.api.start("dummy", &two)
        );

        let mut statuses = [here.status, there.status];
        statuses.sort_unstable();
        assert_eq!(statuses, [202, 409], "{here} {there}");
        let refused = if here.status == 409 { here } else { there };
        refused.expect_problem(409, "idempotency_mismatch");
    }
}

/// The end of the tour in the README.
#[tokio::test]
async fn what_is_started_and_cancelled_a_second_time_is_told_plainly() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    let body = json!({"task_id": "long-one", "steps": 600, "step_ms": 100});
    stack.api().start("dummy", &body).await.expect(202);
    let first = stack.api().cancel("long-one").await.expect(200);

    let again = stack.api().start("dummy", &body).await.expect(200);
    let second = stack.api().cancel("long-one").await.expect(200);

    assert_eq!(first.json["message"], "Operation cancelled successfully");
    assert_eq!(first.json["status"], "cancelled");
    assert_eq!(again.json["existed"], true, "{again}");
    assert_eq!(again.json["status"], "cancelled", "{again}");
    let message = again.json["message"].as_str().unwrap();
    let told = "Operation long-one was started before and is cancelled; nothing was started.";
    assert!(message.starts_with(told), "{message}");
    assert_eq!(second.json["message"], "Operation was cancelled before");
}

#[tokio::test]
async fn concurrent_starts_with_one_task_id_are_one_operation() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;

    let body = json!({"task_id": "race", "steps": 0});
    let answers =
        futures::future::join_all((0..16).map(|_| stack.api().start("dummy", &body))).await;
    let fresh = answers.iter().filter(|answer| answer.status == 202).count();
    assert_eq!(
        fresh,
        1,
        "{:?}",
        answers.iter().map(|a| a.status).collect::<Vec<_>>()
    );
    assert!(
        answers
            .iter()
            .all(|answer| matches!(answer.status, 200 | 202))
    );
    assert_eq!(stack.bus.stored("ktrdr.start.*.*").await.len(), 1);
}

#[tokio::test]
async fn a_request_that_does_not_fit_its_schema_names_each_path() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;

    let body = json!({"steps": -1, "stepz": 3});
    let answer = stack
        .api()
        .start("dummy", &body)
        .await
        .expect_problem(422, "invalid_request");
    let paths: Vec<&Value> = answer.json["violations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|v| &v["path"])
        .collect();
    assert!(paths.contains(&&json!("/steps")), "{answer}");

    for body in [
        json!({"task_id": "a.b"}),
        json!({"task_id": ""}),
        json!({"execution": {"max_attempts": 0}}),
        json!({"execution": {"requirements": {"gpus": 1}}}),
        json!({"execution": []}),
        // More than the engine's type holds: the backend refuses it, not the worker.
        json!({"steps": 1e30}),
    ] {
        stack.api().start("dummy", &body).await.expect(422);
    }

    assert!(stack.bus.stored("ktrdr.start.*.*").await.is_empty());
}

#[tokio::test]
async fn labels_are_shown_with_the_operation_and_kept_by_a_retry() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    let labels = json!({"symbol": "GOOG", "run.2": "größer", "empty": ""});
    let body = json!({
        "steps": 1, "step_ms": 0, "fail_at_step": 1,
        "execution": {"labels": labels, "max_attempts": 1},
    });

    let id = stack.api().started("dummy", &body).await;
    let failed = stack.api().wait_for_status(&id, "failed").await;
    let path = format!("/api/v1/operations/{id}/retry");
    let retry = stack.api().post(&path, &Value::Null).await.expect(202);
    let retry = retry.json["operation_id"].as_str().unwrap();
    let retried = stack.api().wait_for_status(retry, "failed").await;

    assert_eq!(failed["execution"]["labels"], labels);
    assert_eq!(retried["execution"], failed["execution"]);
    let listed = stack.api().operations("limit=1").await.expect(200);
    assert_eq!(listed.at("/data/operations/0/execution/labels"), &labels);
    let stored = stack.bus.stored("ktrdr.start.dummy.any").await;
    let first: Value = serde_json::from_slice(&stored[0].payload).unwrap();
    assert_eq!(first["labels"], labels);
    assert_eq!(first["execution"], json!({"max_attempts": 1}));
}

#[tokio::test]
async fn labels_outside_the_rules_are_refused_with_their_path() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    let many: serde_json::Map<String, Value> = (0..17)
        .map(|number| (format!("label{number}"), json!("x")))
        .collect();

    for (labels, path) in [
        (json!({"symbol": 7}), "/execution/labels/symbol"),
        (
            json!({"symbol": "x".repeat(257)}),
            "/execution/labels/symbol",
        ),
        (json!({"two words": "x"}), "/execution/labels"),
        (json!({"n".repeat(64): "x"}), "/execution/labels"),
        (Value::Object(many), "/execution/labels"),
        (json!(["x"]), "/execution/labels"),
    ] {
        let body = json!({"steps": 0, "execution": {"labels": labels}});
        let answer = stack.api().start("dummy", &body).await;
        let answer = answer.expect_problem(422, "invalid_request");
        let violations = answer.json["violations"].as_array().unwrap();
        let is_told = violations.iter().any(|found| found["path"] == path);
        assert!(is_told, "{path}: {answer}");
    }
    assert!(stack.bus.stored("ktrdr.start.*.*").await.is_empty());
}

#[tokio::test]
async fn a_whole_number_with_a_point_is_an_integer() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;

    let body = json!({"steps": 2.0, "step_ms": 1.0, "execution": {"max_attempts": 2.0}});
    let id = stack.api().started("dummy", &body).await;
    let done = stack.api().wait_for_status(&id, "completed").await;
    assert_eq!(
        (&done["result"]["steps"], &done["execution"]["max_attempts"]),
        (&json!(2), &json!(2))
    );

    let keyed = stack
        .api()
        .request(Method::POST, "/api/v1/dummy/start")
        .header("idempotency-key", "ü");
    let keyed = keyed.json(&json!({"task_id": "with-both"}));
    stack
        .api()
        .send(keyed)
        .await
        .expect_problem(400, "invalid_header");
}

#[tokio::test]
async fn bytes_that_are_no_json_object_are_400_and_too_many_are_413() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;

    let api = stack.api();
    let post = |body: Vec<u8>| {
        let request = api.request(Method::POST, "/api/v1/dummy/start").body(body);
        async move { api.send(request).await }
    };
    for body in [
        &b"{"[..],
        b"[]",
        b"7",
        b"null",
        b"\xff\xfe",
        b"{\"a\":1}{}",
        b"{\"steps\":1,\"steps\":2}",
    ] {
        let answer = post(body.to_vec()).await;
        assert_eq!(
            answer.status,
            400,
            "{:?}: {answer}",
            String::from_utf8_lossy(body)
        );
        assert_eq!(answer.json["success"], false);
    }

    let large = format!("{{\"x\":\"{}\"}}", "y".repeat(2_000_000));
    let answer = post(large.into_bytes()).await.expect(413);
    assert_eq!(answer.json["status_code"], 413);

    // Deeply nested input must not take the process down.
    post("[".repeat(100_000).into_bytes()).await.expect(400);
    stack.api().get("/health").await.expect(200);
}

#[tokio::test]
async fn an_unknown_domain_lists_the_known_ones() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    let answer = stack.api().start("nothing", &json!({})).await.expect(404);
    assert!(answer.text.contains("dummy"), "{answer}");
}

#[tokio::test]
async fn a_start_before_its_worker_waits_and_says_so() {
    let stack = Stack::start().await;
    let mut worker = stack.worker("dummy", "w1").await;

    worker.process.stop().await;
    wait_for("the farewell", LIMIT, async || {
        match stack.api().workers().await.len() {
            0 => Ok(()),
            n => Err(format!("{n} workers")),
        }
    })
    .await;

    let answer = stack
        .api()
        .start(
            "dummy",
            &json!({"task_id": "early", "steps": 1, "step_ms": 1}),
        )
        .await
        .expect(202);
    assert!(answer.json["warning"].is_string(), "{answer}");

    let operation = stack.api().operation("early").await.expect(200);
    assert_eq!(operation.json["status"], "pending");
    assert_eq!(operation.at("/data/queue_position"), &json!(1));

    let _worker = stack.worker("dummy", "w2").await;

    stack.api().wait_for_status("early", "completed").await;
}

#[tokio::test]
async fn strict_admission_refuses_without_workers() {
    let stack =
        Stack::start_with(|settings: Settings| settings.with("KTRDR_ADMISSION", "strict")).await;
    let mut worker = stack.worker("dummy", "w1").await;

    stack
        .api()
        .start("dummy", &json!({"steps": 0}))
        .await
        .expect(202);
    worker.process.stop().await;
    wait_for("a refusal", LIMIT, async || {
        let answer = stack.api().start("dummy", &json!({"steps": 0})).await;
        if answer.status == 503 && answer.text.contains("No workers available") {
            Ok(())
        } else {
            Err(answer.text)
        }
    })
    .await;
}

#[tokio::test]
async fn wait_answers_as_soon_as_the_operation_has_ended() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;

    let id = stack
        .api()
        .started("dummy", &json!({"steps": 2, "step_ms": 100}))
        .await;
    let answer = stack
        .api()
        .get(&format!("/api/v1/operations/{id}?wait=30"))
        .await
        .expect(200);
    assert_eq!(answer.json["status"], "completed");

    let slow = stack
        .api()
        .started("dummy", &json!({"steps": 1000, "step_ms": 100}))
        .await;
    let answer = stack
        .api()
        .get(&format!("/api/v1/operations/{slow}?wait=0.2"))
        .await
        .expect(200);
    assert_ne!(answer.json["status"], "completed");

    let cancel = tokio::time::timeout(Duration::from_secs(20), stack.api().cancel(&slow))
        .await
        .unwrap();
    cancel.expect(200);
}

#[tokio::test]
async fn an_id_whose_start_has_left_the_stream_is_refused_and_not_left_pending() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;

    let body = json!({"task_id": "old", "steps": 0});
    let _ = stack.api().start("dummy", &body).await.expect(202);
    stack.api().wait_for_status("old", "completed").await;

    stack.bus.settled().await;

    // Retention removes the oldest message first: the start request.
    let stream = stack.bus.jetstream.get_stream("KTRDR").await.unwrap();
    stream
        .purge()
        .filter("ktrdr.start.dummy.any")
        .await
        .unwrap();
    wait_for("the backend to forget it", LIMIT, async || {
        match stack.api().operation("old").await.status {
            404 => Ok(()),
            other => Err(other.to_string()),
        }
    })
    .await;

    stack
        .api()
        .start("dummy", &body)
        .await
        .expect_problem(409, "task_id_conflict");
}

#[tokio::test]
async fn a_start_is_stored_again_when_the_stream_was_purged_since() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    let body = json!({"task_id": "again", "steps": 1, "step_ms": 0});
    let _ = stack.api().start("dummy", &body).await.expect(202);
    stack.api().wait_for_status("again", "completed").await;

    let stream = stack.bus.jetstream.get_stream("KTRDR").await.unwrap();
    stream.purge().await.unwrap();
    wait_for("the backend to forget it", LIMIT, async || {
        match stack.api().operation("again").await.status {
            404 => Ok(()),
            other => Err(other.to_string()),
        }
    })
    .await;

    let _ = stack.api().start("dummy", &body).await.expect(202);
    stack.api().wait_for_status("again", "completed").await;
}

#[tokio::test]
async fn a_start_is_stored_although_another_message_has_its_message_id() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    stack
        .bus
        .store_under("taken", "ktrdr.op.ghost.other", "{}")
        .await;

    let body = json!({"task_id": "taken", "steps": 1, "step_ms": 0});
    let _ = stack.api().start("dummy", &body).await.expect(202);

    stack.api().wait_for_status("taken", "completed").await;
    stack.api().start("dummy", &body).await.expect(200);
}
