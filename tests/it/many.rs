//! Many operations in one request: starts, and cancels and retries by filter.

use std::collections::HashSet;

use ktrdr_tests::engines::GateEngine;
use ktrdr_tests::{BackendProcess, LIMIT, Settings, Stack, wait_for};
use serde_json::{Value, json};

const MANY: &str = "/api/v1/dummy/start-many";

/// A start that waits until it is cancelled, with a label.
fn waiting(id: &str, label: &str) -> Value {
    json!({
        "task_id": id, "steps": 1000, "step_ms": 100,
        "execution": {"labels": {"group": label}, "requirements": {"gpu": true}},
    })
}

/// A start that fails at once, with a label.
fn failing(id: &str, label: &str) -> Value {
    json!({
        "task_id": id, "steps": 1, "step_ms": 0, "fail_at_step": 1,
        "execution": {"labels": {"group": label}, "max_attempts": 1},
    })
}

/// How many start requests the stream has.
async fn start_requests(stack: &Stack) -> usize {
    stack.bus.stored("ktrdr.start.>").await.len()
}

fn ids(results: &Value) -> Vec<&str> {
    let results = results.as_array().unwrap().iter();
    results
        .map(|one| one["operation_id"].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn each_start_of_many_is_answered_like_one_of_its_own() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    let known = json!({"task_id": "known", "steps": 0});
    stack.api().started("dummy", &known).await;
    stack.api().wait_for_status("known", "completed").await;
    let operations = json!([
        {"task_id": "new-1", "steps": 0},
        known,
        {"task_id": "known", "steps": 1},
        {"task_id": "bad", "steps": -1},
        7,
        {"steps": 0, "execution": {"requirements": {"gpu": true}}},
        {"task_id": "twice", "steps": 2, "step_ms": 0},
        {"task_id": "twice", "steps": 2.0, "step_ms": 0},
        {"task_id": "twice", "steps": 3, "step_ms": 0},
        {"task_id": "a.b"},
    ]);

    let answer = stack
        .api()
        .post(MANY, &json!({"operations": operations}))
        .await
        .expect(200);

    let results = answer.at("/data/results").as_array().unwrap();
    let codes: Vec<_> = results
        .iter()
        .map(|one| (one["status_code"].as_u64().unwrap(), one["code"].as_str()))
        .collect();
    let expected = [
        (202, None),
        (200, None),
        (409, Some("idempotency_mismatch")),
        (422, Some("invalid_request")),
        (400, Some("invalid_body")),
        (202, None),
        (202, None),
        (200, None),
        (409, Some("idempotency_mismatch")),
        (422, Some("invalid_request")),
    ];
    assert_eq!(codes, expected, "{answer}");
    assert_eq!(answer.at("/data/accepted"), 5);
    assert_eq!(answer.at("/data/refused"), 5);
    assert_eq!(results[1]["status"], "completed");
    assert_eq!(results[3]["operation_id"], "bad");
    assert_eq!(results[4]["operation_id"], Value::Null);
    assert!(results[3]["error"].as_str().unwrap().contains("/steps"));
    assert!(results[5]["warning"].is_string(), "{answer}");
    // They are visible to the next request.
    let twice = stack.api().operation("twice").await.expect(200);
    assert_eq!(twice.at("/data/metadata/steps"), 2);
    stack.api().wait_for_status("twice", "completed").await;
}

#[tokio::test]
async fn a_body_without_1_to_1000_starts_is_refused() {
    let stack = Stack::start_with(|settings| settings.with("KTRDR_MAX_BODY", "1KiB")).await;
    let _worker = stack.worker("dummy", "w1").await;

    for (body, path) in [
        (json!({"operations": []}), "/operations"),
        (json!({"operations": vec![json!({}); 1001]}), "/operations"),
        (json!({"operations": {"steps": 0}}), "/operations"),
        (json!({}), "/operations"),
        (json!({"operations": [{}], "domain": "dummy"}), "/domain"),
    ] {
        let refused = stack.api().post(MANY, &body).await;
        let refused = refused.expect_problem(422, "invalid_request");
        assert_eq!(refused.at("/violations/0/path"), path, "{refused}");
    }
    let list = stack.api().post(MANY, &json!([{}])).await;
    list.expect_problem(400, "invalid_body");
    let unknown = stack
        .api()
        .post("/api/v1/nosuch/start-many", &json!({"operations": [{}]}))
        .await;
    unknown.expect_problem(404, "unknown_domain");

    // The limit of a body is that of each start.
    let long = json!({"steps": 0, "note": "x".repeat(2000)});
    let operations = json!({"operations": [{"steps": 0, "step_ms": 1}, long]});
    let answer = stack.api().post(MANY, &operations).await.expect(200);
    assert_eq!(answer.at("/data/results/0/status_code"), 202);
    assert_eq!(answer.at("/data/results/1/code"), "body_too_large");
    assert_eq!(start_requests(&stack).await, 1);
}

#[tokio::test]
async fn a_thousand_starts_that_a_killed_backend_interrupts_are_completed_by_a_repetition() {
    let mut stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    let operations: Vec<Value> = (0..1000)
        .map(|number| json!({"task_id": format!("op-{number}"), "steps": 0}))
        .collect();
    let body = json!({ "operations": operations });
    let api = stack.api().clone();
    let sent = body.clone();
    let interrupted = tokio::spawn(async move {
        let request = api.request(reqwest::Method::POST, MANY).json(&sent);
        api.try_send(request).await
    });
    wait_for("some starts", LIMIT, async || {
        match start_requests(&stack).await {
            0 => Err("none".to_owned()),
            _ => Ok(()),
        }
    })
    .await;

    stack.backend.process.kill();
    let _ = interrupted.await.unwrap();
    stack.backend = BackendProcess::start(&stack.settings).await;
    stack.api().wait_for_worker("w1", "AVAILABLE").await;
    let answer = stack.api().post(MANY, &body).await.expect(200);

    assert_eq!(
        answer.at("/data/accepted"),
        1000,
        "{}",
        answer.at("/data/refused")
    );
    let ids = ids(answer.at("/data/results"));
    assert_eq!(ids[0], "op-0");
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), 1000);
    stack
        .api()
        .wait_for_answer("/api/v1/operations?status=completed", "all", |answer| {
            answer.at("/data/total") == 1000
        })
        .await;
    assert_eq!(start_requests(&stack).await, 1000);
}

#[tokio::test]
async fn starts_with_an_idempotency_key_are_started_once() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    let send = async |key: &str, body: Value| {
        let request = stack.api().request(reqwest::Method::POST, MANY);
        let request = request.header("idempotency-key", key).json(&body);
        stack.api().send(request).await.expect(200)
    };
    let body = json!({"operations": [{"steps": 0}, {"steps": 0}, {"steps": 0, "task_id": "mine"}]});

    let first = send("night", body.clone()).await;
    let again = send("night", body.clone()).await;

    let codes = |answer: &ktrdr_tests::Answer| {
        let results = answer.at("/data/results").as_array().unwrap().clone();
        results
            .iter()
            .map(|one| one["status_code"].as_u64().unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!((codes(&first), codes(&again)), (vec![202; 3], vec![200; 3]));
    assert_eq!(
        ids(first.at("/data/results")),
        ids(again.at("/data/results"))
    );
    assert_eq!(ids(first.at("/data/results"))[2], "mine");
    assert_eq!(start_requests(&stack).await, 3);
}

#[tokio::test]
async fn operations_are_cancelled_by_filter_and_a_dry_run_changes_nothing() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    let operations = json!([
        waiting("a-1", "a"),
        waiting("a-2", "a"),
        waiting("a-3", "a"),
        waiting("b-1", "b"),
        failing("a-4", "a"),
    ]);
    let body = json!({"operations": operations});
    let started = stack.api().post(MANY, &body);
    assert_eq!(started.await.expect(200).at("/data/accepted"), 5);
    stack.api().wait_for_status("a-4", "failed").await;
    let cancel = async |body: Value| {
        let answer = stack.api().post("/api/v1/operations/cancel", &body).await;
        answer.expect(200).at("/data").clone()
    };
    let filter = json!({"label": ["group:a"]});

    let dry = cancel(json!({"filter": filter, "dry_run": true})).await;
    assert_eq!((&dry["matched"], &dry["done"]), (&json!(4), &json!(0)));
    let list = stack.api().operations("status=cancelled").await.expect(200);
    assert_eq!(list.at("/data/total"), 0);

    // Those that can be cancelled come first, and what the limit leaves out is said.
    let some = cancel(json!({"filter": filter, "limit": 2})).await;
    assert_eq!((&some["matched"], &some["done"]), (&json!(4), &json!(2)));
    assert_eq!(some["has_more"], true);
    let rest = cancel(json!({"filter": filter})).await;
    assert_eq!((&rest["matched"], &rest["done"]), (&json!(4), &json!(1)));
    assert_eq!(rest["has_more"], false);
    let codes: Vec<_> = rest["results"].as_array().unwrap().iter().collect();
    assert_eq!(codes.len(), 4);
    let failed = codes.iter().find(|one| one["operation_id"] == "a-4");
    assert_eq!(failed.unwrap()["code"], "already_finished");
    assert_eq!(failed.unwrap()["status_code"], 409);
    for id in ["a-1", "a-2", "a-3"] {
        stack.api().wait_for_status(id, "cancelled").await;
    }
    // Repeating it comes to an end: nothing is done to what is cancelled already.
    let again = cancel(json!({"filter": filter})).await;
    assert_eq!((&again["matched"], &again["done"]), (&json!(4), &json!(0)));
    for one in again["results"].as_array().unwrap() {
        assert_eq!(one["code"], "already_finished", "{one}");
    }
    let other = stack.api().operation("b-1").await.expect(200);
    assert_eq!(other.at("/data/status"), "pending");
}

#[tokio::test]
async fn operations_that_ignore_a_cancel_do_not_stand_in_the_way_of_others() {
    let stack = Stack::start_with(|settings| Settings {
        cancel_grace: LIMIT * 10,
        ..settings
    })
    .await;
    let (engine, gate) = GateEngine::new();
    let slots = ["--concurrency", "3"];
    let _worker = stack.local_worker(engine, "g1", &slots).await;
    let mut open = HashSet::new();
    for _ in 0..3 {
        let body = json!({"ignore_cancel": true});
        open.insert(stack.api().running("gate", &body).await);
    }
    let cancel = async || {
        let body = json!({"filter": {"operation_type": "gate"}, "limit": 2});
        let answer = stack.api().post("/api/v1/operations/cancel", &body).await;
        answer.expect(200).at("/data").clone()
    };

    let answers = [cancel().await, cancel().await, cancel().await];

    let done: Vec<_> = answers
        .iter()
        .map(|answer| answer["done"].clone())
        .collect();
    assert_eq!(
        done,
        [2, 1, 0],
        "whoever repeats it until done is 0 comes to an end"
    );
    let asked: HashSet<String> = answers[..2]
        .iter()
        .flat_map(|answer| ids(&answer["results"]))
        .map(str::to_owned)
        .collect();
    assert_eq!(asked, open, "each of them was asked to stop");
    assert_eq!(answers[2]["results"][0]["status_code"], 200);
    assert_eq!(answers[2]["results"][0]["asked_before"], true);
    assert_eq!(answers[0]["results"][0].get("asked_before"), None);
    assert_eq!(answers[2]["has_more"], true);
    gate.open(3);
}

#[tokio::test]
async fn failed_operations_are_retried_by_filter_once() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    let mut operations: Vec<Value> = (0..3).map(|n| failing(&format!("f-{n}"), "a")).collect();
    operations
        .push(json!({"task_id": "f-done", "steps": 0, "execution": {"labels": {"group": "a"}}}));
    let body = json!({"operations": operations});
    let started = stack.api().post(MANY, &body);
    started.await.expect(200);
    for id in ["f-0", "f-1", "f-2"] {
        stack.api().wait_for_status(id, "failed").await;
    }
    stack.api().wait_for_status("f-done", "completed").await;
    let retry = async |body: &Value| {
        let request = stack
            .api()
            .request(reqwest::Method::POST, "/api/v1/operations/retry")
            .header("idempotency-key", "again")
            .json(body);
        stack
            .api()
            .send(request)
            .await
            .expect(200)
            .at("/data")
            .clone()
    };
    // The new ones have other ids, so a repetition means the same operations.
    let body = json!({"filter": {"label": "group:a", "search": "f-"}});

    let dry = retry(&json!({"filter": body["filter"], "dry_run": true})).await;
    assert_eq!(start_requests(&stack).await, 4);
    let first = retry(&body).await;
    let again = retry(&body).await;

    assert_eq!((&dry["matched"], &dry["done"]), (&json!(4), &json!(0)));
    assert_eq!(dry["results"][0]["status_code"], 202);
    assert_eq!((&first["matched"], &first["done"]), (&json!(4), &json!(3)));
    assert_eq!(first["results"][3]["code"], "not_repeatable");
    for place in 0..3 {
        let (one, other) = (&first["results"][place], &again["results"][place]);
        assert_eq!(
            (&one["status_code"], &other["status_code"]),
            (&json!(202), &json!(200))
        );
        assert_eq!(one["retried_as"], other["retried_as"]);
        let id = one["retried_as"].as_str().unwrap();
        let retried = stack.api().wait_for_status(id, "failed").await;
        assert_eq!(retried["retry_of"], one["operation_id"]);
    }
    // Without the key, what was retried before is not retried once more.
    let answer = stack.api().post("/api/v1/operations/retry", &body).await;
    let answer = answer.expect(200);
    assert_eq!(answer.at("/data/done"), 0, "{answer}");
    assert_eq!(answer.at("/data/results/0/code"), "not_repeatable");
    assert_eq!(start_requests(&stack).await, 7);
}

#[tokio::test]
async fn a_retry_by_filter_says_when_another_operation_holds_the_unique_key() {
    let stack = Stack::start().await;
    let (_worker, gate) = stack.gate_worker("g1").await;
    let api = stack.api();
    let body = json!({"execution": {"unique": {"key": "k", "on_conflict": "return"}}});
    let old = api.running("gate", &body).await;
    api.cancel(&old).await.expect(200);
    api.wait_for_status(&old, "cancelled").await;
    let open = api.running("gate", &body).await;

    let path = "/api/v1/operations/retry";
    let wanted = json!({"filter": {"status": "cancelled"}});
    let answer = api.post(path, &wanted).await.expect(200);

    assert_eq!(answer.at("/data/done"), 0, "{answer}");
    let one = answer.at("/data/results/0");
    assert_eq!(
        (&one["operation_id"], &one["code"]),
        (&json!(old), &json!("not_unique"))
    );
    assert_eq!(one["retried_as"], Value::Null, "{answer}");

    gate.open_for_all();
    api.wait_for_status(&open, "completed").await;
    let answer = api.post(path, &wanted).await.expect(200);
    assert_eq!(answer.at("/data/done"), 1, "{answer}");
    let again = answer.at("/data/results/0/retried_as").as_str().unwrap();
    api.wait_for_status(again, "completed").await;
}

#[tokio::test]
async fn whoever_takes_the_id_of_a_retry_by_filter_prevents_nothing() {
    let retried = async |stack: &Stack| {
        let body = json!({"filter": {"label": "group:a"}});
        let answer = stack.api().post("/api/v1/operations/retry", &body).await;
        let answer = answer.expect(200);
        assert_eq!(answer.at("/data/results/0/status_code"), 202, "{answer}");
        let id = answer.at("/data/results/0/retried_as").as_str().unwrap();
        id.to_owned()
    };
    let mut usual = None;

    for _ in 0..2 {
        let stack = Stack::start().await;
        let _worker = stack.worker("dummy", "w1").await;
        stack.api().started("dummy", &failing("f", "a")).await;
        stack.api().wait_for_status("f", "failed").await;
        if let Some(taken) = &usual {
            let body = json!({"task_id": taken, "steps": 0});
            stack.api().start("dummy", &body).await.expect(202);
        }

        let id = retried(&stack).await;

        assert_ne!(usual.as_ref(), Some(&id));
        let retry = stack.api().wait_for_status(&id, "failed").await;
        assert_eq!(retry["retry_of"], "f");
        usual = Some(id);
    }
}

#[tokio::test]
async fn two_retries_by_filter_at_the_same_time_start_each_operation_once() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    let second = BackendProcess::start(&stack.settings).await;
    let operations: Vec<Value> = (0..50).map(|n| failing(&format!("f-{n}"), "a")).collect();
    let body = json!({"operations": operations});
    stack.api().post(MANY, &body).await.expect(200);
    for api in [stack.api(), &second.api] {
        let path = "/api/v1/operations?status=failed";
        let all_failed = |answer: &ktrdr_tests::Answer| answer.at("/data/total") == 50;
        api.wait_for_answer(path, "all to fail", all_failed).await;
    }

    let path = "/api/v1/operations/retry";
    // The new ones have other ids.
    let body = json!({"filter": {"label": "group:a", "search": "f-"}});
    let (one, other) = tokio::join!(stack.api().post(path, &body), second.api.post(path, &body));

    for answer in [one, other] {
        let answer = answer.expect(200);
        assert_eq!(answer.at("/data/results").as_array().unwrap().len(), 50);
    }
    assert_eq!(start_requests(&stack).await, 100);
}

#[tokio::test]
async fn a_filter_that_is_misspelled_or_empty_cancels_nothing() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    let started = stack.api().start("dummy", &waiting("one", "a")).await;
    started.expect(202);

    for (body, path) in [
        (json!({}), "/filter"),
        (json!({"filter": {}}), "/filter"),
        (json!({"filter": {"stat": ["pending"]}}), "/filter/stat"),
        (json!({"filter": {"status": ["odd"]}}), "/filter/status"),
        (json!({"filter": {"label": []}}), "/filter/label"),
        (
            json!({"filter": {"operation_type": ["nosuch"]}}),
            "/filter/operation_type",
        ),
        (
            json!({"filter": {"status": ["pending"]}, "dryrun": true}),
            "/dryrun",
        ),
        (
            json!({"filter": {"status": ["pending"]}, "limit": 1001}),
            "/limit",
        ),
    ] {
        for verb in ["cancel", "retry"] {
            let path_of_verb = format!("/api/v1/operations/{verb}");
            let refused = stack.api().post(&path_of_verb, &body).await;
            let refused = refused.expect_problem(422, "invalid_request");
            assert_eq!(refused.at("/violations/0/path"), path, "{refused}");
        }
    }
    let one = stack.api().operation("one").await.expect(200);
    assert_eq!(one.at("/data/status"), "pending");
}

fn replacing(id: &str) -> Value {
    json!({
        "task_id": id,
        "execution": {
            "labels": {"batch": "pl"},
            "unique": {"key": "pl", "on_conflict": "replace"},
        },
    })
}

const RETRY: &str = "/api/v1/operations/retry";

#[tokio::test]
async fn a_retry_by_filter_leaves_what_another_operation_has_replaced() {
    let stack = Stack::start().await;
    let (_worker, gate) = stack.gate_worker("g1").await;
    let api = stack.api();
    // The first one runs when it is replaced, and the second one waits.
    api.running("gate", &replacing("pl-0")).await;
    for id in ["pl-1", "pl-2"] {
        api.start("gate", &replacing(id)).await.expect(202);
    }
    gate.started().await;
    for (id, by) in [("pl-0", "pl-1"), ("pl-1", "pl-2")] {
        let cancelled = api.wait_for_status(id, "cancelled").await;
        assert_eq!(
            cancelled["cancel_reason"],
            format!("replaced by operation {by}")
        );
    }
    let body = json!({"filter": {"label": ["batch:pl"], "status": ["cancelled"]}});

    for _ in 0..2 {
        let answer = api.post(RETRY, &body).await.expect(200);

        assert_eq!(answer.at("/data/matched"), 2, "{answer}");
        assert_eq!(answer.at("/data/done"), 0, "{answer}");
        for place in 0..2 {
            let one = answer.at(&format!("/data/results/{place}"));
            assert_eq!(one["code"], "not_repeatable", "{answer}");
            assert_eq!(one["replaced"], true, "{answer}");
        }
    }
    let open = api.operation("pl-2").await.expect(200);
    assert_eq!(*open.at("/data/cancel_requested_at"), Value::Null, "{open}");
    // By hand it is possible.
    let again = api
        .post("/api/v1/operations/pl-0/retry", &Value::Null)
        .await;
    again.expect(202);
    api.wait_for_status("pl-2", "cancelled").await;
    gate.open_for_all();
}

#[tokio::test]
async fn a_retry_by_filter_keeps_the_order_and_tells_of_what_matched_alone() {
    let stack = Stack::start().await;
    let (_worker, gate) = stack.gate_worker("g1").await;
    let api = stack.api();
    let running = api.running("gate", &json!({})).await;
    for id in ["a", "b", "c"] {
        let body = json!({"task_id": id, "execution": {"labels": {"batch": "pl"}}});
        api.start("gate", &body).await.expect(202);
        api.cancel(id).await.expect(200);
    }
    // Cancelled by hand, not replaced.
    for id in ["pl-0", "pl-1"] {
        api.start("gate", &replacing(id)).await.expect(202);
        api.cancel(id).await.expect(200);
    }

    let body = json!({"filter": {"label": ["batch:pl"]}});
    let answer = api.post(RETRY, &body).await.expect(200);

    assert_eq!(answer.at("/data/matched"), 5, "{answer}");
    assert_eq!(answer.at("/data/done"), 5, "{answer}");
    let results = answer.at("/data/results");
    assert_eq!(ids(results), ["a", "b", "c", "pl-0", "pl-1"]);
    let retry_of = |n: usize| results[n]["retried_as"].as_str().unwrap().to_owned();
    // The later one has replaced the earlier one, and not the other way round.
    let earlier = api.wait_for_status(&retry_of(3), "cancelled").await;
    assert_eq!(
        earlier["cancel_reason"],
        format!("replaced by operation {}", retry_of(4))
    );
    let later = api.operation(&retry_of(4)).await.expect(200);
    assert_eq!(later.at("/data/status"), "pending", "{later}");
    gate.open_for_all();
    api.wait_for_status(&running, "completed").await;
}

#[tokio::test]
async fn cancels_by_filter_at_the_same_time_count_each_operation_once() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    let second = BackendProcess::start(&stack.settings).await;
    let operations: Vec<Value> = (0..200).map(|n| waiting(&format!("w-{n}"), "a")).collect();
    let body = json!({"operations": operations});
    stack.api().post(MANY, &body).await.expect(200);
    let path = "/api/v1/operations?status=pending";
    let all_wait = |answer: &ktrdr_tests::Answer| answer.at("/data/total") == 200;
    second
        .api
        .wait_for_answer(path, "all to wait", all_wait)
        .await;

    let path = "/api/v1/operations/cancel";
    let body = json!({"filter": {"label": "group:a"}});
    let (one, other) = tokio::join!(stack.api().post(path, &body), second.api.post(path, &body));

    let done = [one, other].map(|answer| answer.expect(200).at("/data/done").as_u64().unwrap());
    assert_eq!(done.iter().sum::<u64>(), 200, "{done:?}");
}
