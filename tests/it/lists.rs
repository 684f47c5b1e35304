//! Lists of operations: what they show, and which filters they take.

use ktrdr_tests::Stack;
use ktrdr_tests::events::EventStream;
use serde_json::{Value, json};

#[tokio::test]
async fn a_list_leaves_out_results_and_large_parameters_and_says_so() {
    let stack = Stack::start().await;
    let worker = stack.worker("dummy", "w1").await;
    let small = json!({"task_id": "small", "steps": 1, "step_ms": 0, "fail_at_step": 1});
    let large = json!({"task_id": "large", "steps": 1, "step_ms": 0, "result_bytes": 9000});
    for body in [&small, &large] {
        stack.api().started("dummy", body).await;
    }
    stack.api().wait_for_status("small", "failed").await;
    stack.api().wait_for_status("large", "completed").await;

    for api in [stack.api(), &worker.api] {
        let list = api.operations("").await.expect(200);
        assert!(list.text.len() < 4000, "{} bytes", list.text.len());
        let shown = &list.at("/data/operations/0");
        assert_eq!(shown["operation_id"], "large");
        assert_eq!(shown["result"], Value::Null);
        assert_eq!(shown["truncated"], json!(["result"]));
        assert_eq!(shown["metadata"]["result_bytes"], 9000);
        assert_eq!(list.at("/data/operations/1/truncated"), &Value::Null);

        let whole = api.operations("include=result").await.expect(200);
        let one = api.operation("large").await.expect(200);
        assert_eq!(whole.at("/data/operations/0"), one.at("/data"));
        assert_eq!(one.at("/data/truncated"), &Value::Null);
        let filler = one.at("/data/result/filler").as_str().unwrap();
        assert_eq!(filler.len(), 9000);
    }
}

#[tokio::test]
async fn a_list_shows_the_small_ones_of_many_parameters() {
    let stack = Stack::start().await;
    let text = "x".repeat(10_000);
    let request = json!({
        "operation_id": "one", "operation_type": "other", "created_at": "2026-01-01T00:00:00Z",
        "parameters": {"symbol": "GOOG", "notes": text, "strategy": {"type": "cross"}},
    });
    stack
        .bus
        .store("ktrdr.start.other.any", request.to_string())
        .await;
    let list = stack.api();
    let list = list.wait_for_answer("/api/v1/operations", "the operation", |answer| {
        answer.at("/data/total") == 1
    });
    let list = list.await;

    let shown = list.at("/data/operations/0");
    assert_eq!(shown["truncated"], json!(["parameters"]));
    let metadata = json!({"symbol": "GOOG", "strategy": {"type": "cross"}});
    assert_eq!(shown["metadata"], metadata);
    let whole = stack.api().operations("include=result").await.expect(200);
    assert_eq!(whole.at("/data/operations/0/metadata/notes"), &json!(text));
    assert_eq!(whole.at("/data/operations/0/truncated"), &Value::Null);
}

#[tokio::test]
async fn parameters_that_a_route_does_not_know_are_refused() {
    let stack = Stack::start().await;
    let worker = stack.worker("dummy", "w1").await;
    let id = stack.api().started("dummy", &json!({"steps": 0})).await;
    stack.api().wait_for_status(&id, "completed").await;

    for (api, path, names) in [
        (stack.api(), "operations?stat=done", "status"),
        (stack.api(), "operations?limit=1&sort=asc", "limit"),
        (stack.api(), "workers?type=dummy", "worker_type"),
        (stack.api(), "worker-types?x=1", "none"),
        (stack.api(), "stats?x=1", "takes"),
        (stack.api(), "events?type=dummy", "operation_type"),
        (stack.api(), &format!("operations/{id}?waits=1"), "wait"),
        (stack.api(), &format!("operations/{id}/history?x"), "none"),
        (
            stack.api(),
            &format!("operations/{id}/metrics?from=1"),
            "cursor",
        ),
        (&worker.api, "operations?stat=done", "status"),
        (&worker.api, &format!("operations/{id}?wait=1"), "none"),
        (
            &worker.api,
            &format!("operations/{id}/metrics?x=1"),
            "cursor",
        ),
    ] {
        let refused = api.get(&format!("/api/v1/{path}")).await;
        let refused = refused.expect_problem(400, "unknown_parameter");
        let text = refused.json["error"].as_str().unwrap();
        assert!(text.contains(names), "{path}: {refused}");
        assert!(
            refused.json["known_parameters"].is_array(),
            "{path}: {refused}"
        );
    }
    let body = json!({"steps": 0, "task_id": "never"});
    let start = stack.api().post("/api/v1/dummy/start?wait=1", &body).await;
    start.expect_problem(400, "unknown_parameter");
    stack.api().operation("never").await.expect(404);

    // Pages and probes are asked by programs that nobody can change quickly.
    for path in ["/health?x=1", "/ready?x=1", "/?utm=1", "/docs?x=1"] {
        stack.api().get(path).await.expect(200);
    }
    worker.api.get("/health?x=1").await.expect(200);
}

#[tokio::test]
async fn worker_types_that_nobody_knows_are_refused() {
    let stack = Stack::start().await;
    let worker = stack.worker("dummy", "w1").await;
    let request = json!({
        "operation_id": "old", "operation_type": "gone", "created_at": "2026-01-01T00:00:00Z",
        "parameters": {},
    });
    stack
        .bus
        .store("ktrdr.start.gone.any", request.to_string())
        .await;
    stack.api().wait_for_status("old", "pending").await;

    for path in [
        "operations?operation_type=nosuch",
        "workers?worker_type=nosuch",
    ] {
        let refused = stack.api().get(&format!("/api/v1/{path}")).await;
        let refused = refused.expect_problem(400, "invalid_query");
        assert_eq!(refused.json["known_types"], json!(["dummy"]), "{refused}");
    }
    let other = worker.api.operations("operation_type=training").await;
    other.expect_problem(400, "invalid_query");

    // A type is known as long as there is an operation of it, and a worker may be gone.
    for (query, total) in [("operation_type=dummy", 0), ("operation_type=gone", 1)] {
        let list = stack.api().operations(query).await.expect(200);
        assert_eq!(list.at("/data/total"), &json!(total), "{query}");
    }
    worker
        .api
        .operations("operation_type=dummy")
        .await
        .expect(200);
}

#[tokio::test]
async fn an_operation_says_in_one_line_what_it_is_about() {
    let stack = Stack::start().await;
    let worker = stack.worker("data_processing", "w1").await;
    let _dummy = stack.worker("dummy", "w2").await;
    let body = json!({
        "task_id": "clean", "operations": [{"op": "validate"}], "source_file": "messy/titanic.csv",
    });
    let started = stack
        .api()
        .post("/api/v1/data-processing/start", &body)
        .await;
    started.expect(202);
    stack.api().wait_for_status("clean", "completed").await;
    let steps = json!({"task_id": "steps", "steps": 0, "ignore_cancel": true});
    stack.api().started("dummy", &steps).await;

    let about = "messy/titanic.csv · validate";
    for api in [stack.api(), &worker.api] {
        let one = api.operation("clean").await.expect(200);
        assert_eq!(one.at("/data/summary"), about);
    }
    let list = stack
        .api()
        .operations("operation_type=data_processing")
        .await;
    assert_eq!(list.at("/data/operations/0/summary"), about);
    // Its schema names no parameters, so the first ones speak.
    let steps = stack.api().operation("steps").await.expect(200);
    let summary = steps.at("/data/summary").as_str().unwrap();
    assert!(summary.contains("steps=0"), "{summary}");
}

#[tokio::test]
async fn a_retry_and_the_operation_that_it_repeats_name_each_other() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    let body = json!({"task_id": "first", "steps": 1, "step_ms": 0, "fail_at_step": 1});
    stack.api().started("dummy", &body).await;
    let failed = stack.api().wait_for_status("first", "failed").await;
    assert_eq!(failed.get("retried_as"), None, "{failed}");
    let mut events = EventStream::open(stack.api(), "/api/v1/events", None).await;

    let again = stack
        .api()
        .post("/api/v1/operations/first/retry", &json!({}))
        .await;
    let again = again.expect(202).json["operation_id"].clone();
    let id = again.as_str().unwrap();

    // Whoever shows the old one hears of it.
    let event = events.operation("first", "failed").await;
    assert_eq!(event.data["retried_as"], again, "{event:?}");
    let retry = stack.api().wait_for_status(id, "failed").await;
    assert_eq!(retry["retry_of"], "first");
    let list = stack.api().operations("").await.expect(200);
    assert_eq!(list.at("/data/operations/1/retried_as"), &again);
    let one = stack.api().operation("first").await.expect(200);
    assert_eq!(one.at("/data/retried_as"), &again);
}

#[tokio::test]
async fn a_list_takes_every_filter() {
    let stack = Stack::start().await;
    let _first = stack.worker("dummy", "w1").await;
    let _second = stack.worker("data_processing", "w2").await;
    for (id, steps) in [("done-1", 0), ("done-2", 0), ("bad-1", 7)] {
        let body = json!({
            "task_id": id, "steps": steps, "step_ms": 0, "fail_at_step": 7,
            "execution": {"labels": {"steps": steps.to_string(), "at": "09:30, today"}},
        });
        stack.api().started("dummy", &body).await;
        let status = if steps == 0 { "completed" } else { "failed" };
        stack.api().wait_for_status(id, status).await;
    }
    let body = json!({"task_id": "clean", "source_file": "nope.csv", "operations": ["clean"]});
    let started = stack
        .api()
        .post("/api/v1/data-processing/start", &body)
        .await;
    started.expect(202);
    let clean = stack.api().wait_for_status("clean", "failed").await;
    let code = clean["error"]["code"].as_str().unwrap();
    let bad = stack.api().operation("bad-1").await.expect(200);
    let time = bad.at("/data/created_at").as_str().unwrap();
    let end = bad.at("/data/completed_at").as_str().unwrap();

    let all = ["clean", "bad-1", "done-2", "done-1"];
    let cases: &[(String, &[&str])] = &[
        (String::new(), &all),
        ("status=failed".to_owned(), &all[..2]),
        ("status=failed,completed".to_owned(), &all),
        ("status=failed&status=running".to_owned(), &all[..2]),
        ("operation_type=dummy,data_processing".to_owned(), &all),
        ("operation_type=dummy&status=failed".to_owned(), &["bad-1"]),
        ("worker_id=w1".to_owned(), &all[1..]),
        (
            "worker_id=w1&status=completed&limit=1".to_owned(),
            &["done-2"],
        ),
        ("worker_id=nobody".to_owned(), &[]),
        (format!("error_code={code}"), &["clean"]),
        (format!("error_code={code},engine_error"), &all[..2]),
        ("label=steps:0".to_owned(), &all[2..]),
        (
            "label=steps:0&label=at:09:30,%20today".to_owned(),
            &all[2..],
        ),
        ("label=steps:0&label=steps:7".to_owned(), &[]),
        (
            "label=at:09:30,%20today&status=failed".to_owned(),
            &["bad-1"],
        ),
        ("label=at:09:30,%20today&search=done".to_owned(), &all[2..]),
        ("label=at:&order=oldest".to_owned(), &[]),
        ("label=steps:0&order=oldest&limit=1".to_owned(), &["done-1"]),
        (format!("created_after={time}"), &all[..2]),
        (format!("created_before={time}"), &all[2..]),
        (format!("ended_after={end}"), &all[..2]),
        (format!("ended_after={end}&error_code={code}"), &["clean"]),
        ("search=done-".to_owned(), &all[2..]),
        ("search=STEPS%3D7".to_owned(), &["bad-1"]),
        ("search=nope.csv&status=failed".to_owned(), &["clean"]),
        ("search=done&status=failed".to_owned(), &[]),
        ("search=done&offset=1".to_owned(), &["done-1"]),
    ];
    for (query, expected) in cases {
        let list = stack.api().operations(query).await.expect(200);
        let shown = list.at("/data/operations").as_array().unwrap();
        let ids: Vec<&str> = shown
            .iter()
            .map(|one| one["operation_id"].as_str().unwrap())
            .collect();
        assert_eq!(&ids, expected, "{query}");
    }
    for bad in [
        "status=failed,odd",
        "created_after=yesterday",
        "ended_after=15m",
        "label=steps",
        "label=a%20b:c",
        "operation_type=dummy,nosuch",
    ] {
        let refused = stack.api().operations(bad).await;
        refused.expect_problem(400, "invalid_query");
    }
}

#[tokio::test]
async fn pages_by_cursor_neither_skip_nor_repeat_while_operations_come() {
    let stack = Stack::start().await;
    let mut worker = stack.worker("dummy", "w1").await;
    worker.process.stop().await;
    let start = async |number: usize| {
        let id = format!("op-{number:02}");
        let body = json!({"task_id": id});
        stack.api().started("dummy", &body).await;
        id
    };
    let mut ids = Vec::new();
    for number in 0..10 {
        ids.push(start(number).await);
    }

    for (order, mut expected) in [
        ("newest", ids.iter().rev().collect::<Vec<_>>()),
        ("oldest", ids.iter().collect()),
    ] {
        let (mut query, mut shown) = (format!("limit=3&order={order}"), Vec::new());
        for number in 0.. {
            let page = stack.api().operations(&query).await.expect(200);
            let operations = page.at("/data/operations").as_array().unwrap().clone();
            shown.extend(
                operations
                    .iter()
                    .map(|one| one["operation_id"].as_str().unwrap().to_owned()),
            );
            let next = page.at("/data/next_cursor");
            assert_eq!(page.at("/data/has_more"), &json!(!next.is_null()), "{page}");
            let Some(next) = next.as_str() else { break };
            query = format!("limit=3&order={order}&cursor={next}");
            // More come meanwhile. Newest first, they are before the first page.
            if number == 0 && order == "newest" {
                start(90).await;
            }
        }
        let last = "op-90".to_owned();
        if order == "oldest" {
            expected.push(&last);
        }
        assert_eq!(shown.iter().collect::<Vec<_>>(), expected, "{order}");
    }
    let odd = stack.api().operations("cursor=odd").await;
    odd.expect_problem(400, "invalid_cursor");
    let both = stack.api().operations("cursor=1-1&offset=2").await;
    both.expect_problem(400, "invalid_query");
}
