//! `/openapi.json` and `/docs`: every route is described, and its answers match the description.
//!
//! Longer than 600 lines: one test calls every route, and its list is the longest part.

use ktrdr_tests::contract::Contract;
use ktrdr_tests::events::EventStream;
use ktrdr_tests::{Answer, LIMIT, Settings, Stack, wait_for};
use reqwest::Method;
use serde_json::{Value, json};

/// The router takes no route without a description; this finds a way around it.
#[test]
fn no_route_goes_around_the_table() {
    let router = include_str!("../../backend/src/router.rs");
    assert!(
        !router.contains(".route(") && !router.contains(".nest"),
        "add routes with Routes, which documents them"
    );
}

fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(map) => {
            if let Some(Value::String(target)) = map.get("$ref") {
                found.push(target);
            }
            map.values().for_each(|value| references(value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

#[tokio::test]
async fn a_new_worker_type_appears_with_its_schemas() {
    let stack = Stack::start().await;
    let before = stack.api().get("/openapi.json").await.expect(200).json;
    assert_eq!(before["openapi"], "3.1.0");
    assert!(before["paths"]["/api/v1/{domain}/start"]["post"].is_object());
    assert!(before["paths"].get("/api/v1/backtests/start").is_none());
    for worker_type in ["dummy", "backtesting", "training", "data_processing"] {
        stack
            .worker(worker_type, worker_type)
            .await
            .process
            .stop()
            .await;
    }
    let document = stack.api().get("/openapi.json").await.expect(200).json;
    let start = &document["paths"]["/api/v1/backtests/start"]["post"];
    let schema = &start["requestBody"]["content"]["application/json"]["schema"]["$ref"];
    assert_eq!(schema, "#/components/schemas/backtesting_start");
    let schemas = &document["components"]["schemas"];
    for name in ["task_id", "execution", "symbol", "strategy"] {
        assert!(
            schemas["backtesting_start"]["properties"][name].is_object(),
            "{name}"
        );
    }
    assert!(schemas["backtesting_result"]["properties"].is_object());
    satisfies_generators(&document);
}

/// What generators of clients need: references that lead somewhere, unique names, declared tags,
/// answers whose schemas have names, and an error document for every operation.
fn satisfies_generators(document: &Value) {
    let mut targets = Vec::new();
    references(document, &mut targets);
    assert!(targets.len() > 30, "{}", targets.len());
    for target in targets {
        let pointer = target
            .strip_prefix('#')
            .unwrap_or_else(|| panic!("{target} leads outside"));
        assert!(
            document.pointer(pointer).is_some(),
            "{target} leads nowhere"
        );
    }

    let tags: Vec<&Value> = document["tags"]
        .as_array()
        .unwrap()
        .iter()
        .map(|tag| &tag["name"])
        .collect();
    let methods = document["paths"]
        .as_object()
        .unwrap()
        .values()
        .flat_map(|methods| methods.as_object().unwrap().values());
    let mut ids = Vec::new();
    for operation in methods {
        let id = operation["operationId"].as_str().unwrap();
        assert!(tags.contains(&&operation["tags"][0]), "{id}: its tag");
        for parameter in operation["parameters"].as_array().unwrap() {
            let schema = &parameter["schema"];
            assert!(schema["type"].is_string(), "{id}: {parameter} has no type");
        }
        for (status, response) in operation["responses"].as_object().unwrap() {
            let schema = &response["content"]["application/json"]["schema"];
            let reference = &schema["$ref"];
            if status.as_str() >= "400" {
                assert_eq!(reference, "#/components/schemas/Problem", "{id} {status}");
            } else if schema.is_object() && id != "getOpenApi" {
                let item = &schema["items"]["$ref"];
                assert!(
                    reference.is_string() || item.is_string(),
                    "{id} {status}: {schema} has no name"
                );
            }
        }
        assert!(operation["responses"]["500"].is_object(), "{id}: no error");
        ids.push(id);
    }
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), count, "an operationId is there twice");
}

#[tokio::test]
async fn a_worker_answers_as_its_own_document_says() {
    let stack = Stack::start().await;
    let worker = stack.worker("dummy", "w1").await;
    let contract = Contract::read(&worker.api).await;
    satisfies_generators(contract.document());
    let refused = |answer: Answer, status: u16| assert_eq!(answer.status, status, "{answer}");

    for path in ["/health", "/metrics", "/openapi.json"] {
        contract.get(path).await.expect(200);
    }

    let body = json!({"task_id": "one", "steps": 10_000, "step_ms": 10});
    contract.post("/dummy/start", &body).await.expect(200);
    refused(contract.post("/dummy/start", &json!({})).await, 503);
    for path in [
        "/api/v1/operations?status=running&limit=1&offset=0",
        "/api/v1/operations?include=result",
        "/api/v1/operations/one",
        "/api/v1/operations/one/metrics?limit=1",
    ] {
        contract.get(path).await.expect(200);
    }
    contract
        .delete("/api/v1/operations/one/cancel")
        .await
        .expect(200);
    stack.api().wait_for_status("one", "cancelled").await;
    contract.delete("/api/v1/operations/one").await.expect(200);
    contract.get("/api/v1/operations/one").await.expect(200);

    let short = json!({"task_id": "two", "steps": 0});
    wait_for("a free slot", LIMIT, async || {
        let answer = contract.post("/dummy/start", &short).await;
        match answer.status {
            200 => Ok(()),
            _ => Err(answer.to_string()),
        }
    })
    .await;
    stack.api().wait_for_status("two", "completed").await;
    contract.get("/api/v1/operations/two").await.expect(200);
    contract.post("/dummy/start", &short).await.expect(200);
    let other = json!({"task_id": "two", "steps": 1});
    refused(contract.post("/dummy/start", &other).await, 409);
    refused(contract.delete("/api/v1/operations/two").await, 409);
    refused(contract.get("/api/v1/operations/none").await, 404);
    refused(contract.get("/api/v1/operations?status=odd").await, 400);
    refused(contract.get("/api/v1/operations?stat=odd").await, 400);
    refused(
        contract
            .get("/api/v1/operations/two/metrics?cursor=x")
            .await,
        400,
    );
    refused(contract.post("/dummy/start", &json!([])).await, 400);
    refused(
        contract.post("/dummy/start", &json!({"steps": -1})).await,
        422,
    );
    refused(
        contract
            .post("/dummy/start", &json!({"x": "y".repeat(600_000)}))
            .await,
        413,
    );

    assert_eq!(
        contract.unseen(),
        Vec::<String>::new(),
        "documented, and never asked for"
    );
}

#[tokio::test]
async fn every_route_answers_as_documented() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    let _data = stack.worker("data_processing", "w2").await;
    let contract = Contract::read(stack.api()).await;
    let api = |path: &str| format!("/api/v1/{path}");
    let refused = |answer: Answer, status: u16| assert_eq!(answer.status, status, "{answer}");

    for path in [
        "/",
        "/docs",
        "/openapi.json",
        "/health",
        "/ready",
        "/metrics",
    ] {
        contract.get(path).await.expect(200);
    }
    let known = contract.get("/docs").await.header("etag").to_owned();
    refused(
        contract
            .send(Method::GET, "/docs", |request| {
                request.header("if-none-match", known)
            })
            .await,
        304,
    );
    // The files of the pages are served, but no client needs to know them.
    for (file, status) in [
        ("/dashboard/app.js", 200),
        ("/docs/docs.js", 200),
        ("/dashboard/nothing", 404),
        ("/docs/nothing", 404),
    ] {
        let answer = stack.api().get(file).await;
        assert_eq!(answer.status, status, "{answer}");
    }

    // A life from its start to its end, and everything that can be asked on the way.
    let body = json!({"task_id": "one", "steps": 2, "step_ms": 1, "result_bytes": 10});
    contract.post(&api("dummy/start"), &body).await.expect(202);
    contract.post(&api("dummy/start"), &body).await.expect(200);
    contract
        .get(&api("operations/one?wait=30&force_refresh=true"))
        .await
        .expect(200);
    for part in [
        "",
        "/results",
        "/metrics",
        "/logs",
        "/history",
        "/checkpoint",
        "/metrics?limit=1",
    ] {
        contract
            .get(&api(&format!("operations/one{part}")))
            .await
            .expect(200);
    }
    refused(contract.delete(&api("operations/one/cancel")).await, 409);
    refused(
        contract
            .post(&api("operations/one/retry"), &json!({}))
            .await,
        409,
    );
    let large = json!({"task_id": "large", "steps": 0, "result_bytes": 400_000});
    contract.post(&api("dummy/start"), &large).await.expect(202);
    contract
        .get(&api("operations/large?wait=30"))
        .await
        .expect(200);
    contract
        .get(&api("operations/large/results"))
        .await
        .expect(200);
    let clean = json!({"source_file": "messy/titanic.csv", "operations": ["validate"]});
    let id = contract
        .post(&api("data-processing/start"), &clean)
        .await
        .expect(202)
        .json["operation_id"]
        .clone();
    let id = id.as_str().unwrap();
    contract
        .get(&api(&format!("operations/{id}?wait=30")))
        .await
        .expect(200);
    contract
        .get(&api(&format!("operations/{id}/results")))
        .await
        .expect(200);

    // One that is cancelled while it runs, with one that waits behind it; one that fails.
    contract
        .post(
            &api("dummy/start"),
            &json!({"task_id": "two", "steps": 10_000, "step_ms": 10}),
        )
        .await
        .expect(202);
    stack.api().wait_for_status("two", "running").await;
    let waiting = json!({"task_id": "three", "execution": {"requirements": {"gpu": true}, "max_attempts": 2}});
    contract
        .post(&api("dummy/start"), &waiting)
        .await
        .expect(202);
    contract
        .get(&api("operations/two?force_refresh=true"))
        .await
        .expect(200);
    contract.get(&api("operations/three")).await.expect(200);
    contract.get(&api("stats")).await.expect(200);
    contract
        .get(&api("stats?window_seconds=60"))
        .await
        .expect(200);
    contract.get(&api("workers")).await.expect(200);
    contract
        .get(&api("workers?status=busy&worker_type=dummy"))
        .await
        .expect(200);
    contract.get(&api("workers/w1")).await.expect(200);
    contract.get(&api("worker-types")).await.expect(200);
    refused(contract.delete(&api("worker-types/dummy")).await, 409);
    refused(contract.delete(&api("worker-types/none")).await, 404);
    refused(contract.get(&api("operations/two/results")).await, 409);
    contract.delete(&api("operations/three")).await.expect(200);
    contract
        .delete(&api("operations/two/cancel?wait=30&reason=enough"))
        .await
        .expect(200);
    refused(contract.get(&api("operations/two/results")).await, 409);
    contract
        .post(&api("operations/three/resume"), &json!({}))
        .await
        .expect(202);
    let again = contract
        .post(&api("operations/two/retry"), &json!({}))
        .await
        .expect(202)
        .json["operation_id"]
        .clone();
    contract
        .post(
            &api("dummy/start"),
            &json!({"task_id": "four", "fail_at_step": 1}),
        )
        .await
        .expect(202);
    // It takes long, and the only worker.
    contract
        .delete(&api(&format!("operations/{}", again.as_str().unwrap())))
        .await
        .expect(200);
    stack.api().wait_for_status("four", "failed").await;
    contract
        .get(&api("operations?limit=1000&offset=0&status=failed"))
        .await
        .expect(200);
    contract
        .get(&api(
            "operations?include=result&search=a&worker_id=w1&error_code=x&created_before=2030-01-01T00:00:00Z",
        ))
        .await
        .expect(200);
    contract.get(&api("operations/four")).await.expect(200);
    refused(contract.get(&api("operations/four/results")).await, 409);

    // What is refused.
    for part in [
        "",
        "/results",
        "/metrics",
        "/logs",
        "/history",
        "/checkpoint",
        "/events",
    ] {
        refused(
            contract.get(&api(&format!("operations/none{part}"))).await,
            404,
        );
    }
    for path in [
        "operations?limit=0",
        "operations?status=odd",
        "operations?stat=odd",
        "operations?created_after=odd",
        "operations?operation_type=odd",
        "stats?x=1",
        "workers?status=odd",
        "operations/one?wait=x",
    ] {
        refused(contract.get(&api(path)).await, 400);
    }
    refused(
        contract.get(&api("operations/one/metrics?cursor=x")).await,
        400,
    );
    refused(contract.get(&api("operations/%ff")).await, 404);
    refused(contract.get(&api("workers/none")).await, 404);
    refused(contract.delete(&api("operations/none/cancel")).await, 404);
    refused(contract.delete(&api("operations/none")).await, 404);
    refused(
        contract
            .post(&api("operations/none/retry"), &json!({}))
            .await,
        404,
    );
    refused(
        contract
            .post(&api("operations/none/resume"), &json!({}))
            .await,
        404,
    );
    refused(contract.post(&api("nothing/start"), &json!({})).await, 404);
    for (id, status) in [("none", 404), ("two", 409)] {
        let path = api(&format!("operations/{id}"));
        let changed = contract.send(Method::PATCH, &path, |request| {
            request.json(&json!({"priority": 1}))
        });
        refused(changed.await, status);
    }
    for (path, body) in [
        (
            "dummy/start-many",
            json!({"operations": [{"task_id": "five", "steps": 0}, 7]}),
        ),
        (
            "operations/cancel",
            json!({"filter": {"search": "fiv"}, "dry_run": true}),
        ),
        (
            "operations/retry",
            json!({"filter": {"search": "fiv"}, "dry_run": true}),
        ),
    ] {
        contract.post(&api(path), &body).await.expect(200);
        refused(contract.post(&api(path), &json!({})).await, 422);
    }
    refused(contract.post(&api("dummy/start"), &json!([])).await, 400);
    refused(
        contract
            .post(&api("dummy/start"), &json!({"steps": -1, "task_id": "a b"}))
            .await,
        422,
    );
    refused(
        contract
            .post(
                &api("data-processing/start"),
                &json!({"task_id": "one", "source_file": "x", "operations": ["validate"]}),
            )
            .await,
        409,
    );
    refused(
        contract
            .post(&api("dummy/start"), &json!({"x": "y".repeat(600_000)}))
            .await,
        413,
    );
    let bad = |request: reqwest::RequestBuilder| request.body("{").header("idempotency-key", "k");
    refused(
        contract.send(Method::POST, &api("dummy/start"), bad).await,
        400,
    );
    let key =
        |request: reqwest::RequestBuilder| request.json(&json!({})).header("idempotency-key", "");
    refused(
        contract.send(Method::POST, &api("dummy/start"), key).await,
        400,
    );

    // A schedule, from its making to its end.
    let schedule = json!({"domain": "dummy", "body": {"steps": 0}, "cron": "0 0 1 1 *"});
    let path = api("schedules/yearly");
    for status in [201, 200] {
        let answer = contract
            .send(Method::PUT, &path, |request| request.json(&schedule))
            .await;
        answer.expect(status);
    }
    contract.get(&path).await.expect(200);
    contract.get(&api("schedules")).await.expect(200);
    for (verb, status) in [("pause", 200), ("resume", 200), ("run", 202)] {
        let path = api(&format!("schedules/yearly/{verb}"));
        contract.post(&path, &json!({})).await.expect(status);
        let path = api(&format!("schedules/none/{verb}"));
        refused(contract.post(&path, &json!({})).await, 404);
    }
    contract.delete(&path).await.expect(200);
    refused(contract.get(&path).await, 404);

    // The queues of a type, and one worker.
    contract.get(&api("queues")).await.expect(200);
    contract
        .post(&api("queues/dummy/pause"), &json!({"until": null}))
        .await
        .expect(200);
    contract
        .post(&api("queues/dummy/resume"), &json!({}))
        .await
        .expect(200);
    let wrong = json!({"until": "2001-01-01T00:00:00Z"});
    refused(contract.post(&api("queues/dummy/pause"), &wrong).await, 422);
    refused(
        contract
            .post(&api("queues/nothing/pause"), &json!({}))
            .await,
        404,
    );
    for verb in ["drain", "undrain"] {
        let path = api(&format!("workers/w1/{verb}"));
        contract.post(&path, &json!({})).await.expect(202);
        let path = api(&format!("workers/nobody/{verb}"));
        refused(contract.post(&path, &json!({})).await, 404);
    }

    // Live streams never end: their beginning is looked at by a client that can stop.
    for path in [api("events"), api("operations/one/events")] {
        let mut events = EventStream::open(stack.api(), &path, None).await;
        if path.ends_with("one/events") {
            assert!(events.next().await.is_some());
        }
        let answer = Answer {
            status: 200,
            headers: [(
                reqwest::header::CONTENT_TYPE,
                "text/event-stream".parse().unwrap(),
            )]
            .into_iter()
            .collect(),
            json: Value::Null,
            text: String::new(),
        };
        contract.check(&Method::GET, &path, &answer);
    }
    let end = |request: reqwest::RequestBuilder| request.header("last-event-id", "999999");
    refused(
        contract
            .send(Method::GET, &api("operations/one/events"), end)
            .await,
        204,
    );
    let odd = |request: reqwest::RequestBuilder| request.header("last-event-id", "x");
    refused(contract.send(Method::GET, &api("events"), odd).await, 400);

    assert_eq!(
        contract.unseen(),
        ["post /api/v1/{domain}/start"; 0],
        "documented, and never asked for"
    );
}

#[tokio::test]
async fn without_nats_and_before_the_stream_is_read_answers_are_as_documented_too() {
    let mut stack =
        Stack::start_with(|settings: Settings| settings.with("KTRDR_ADMISSION", "strict")).await;
    stack.worker("dummy", "w1").await.process.stop().await;

    let contract = Contract::read(stack.api()).await;
    wait_for("the farewell", LIMIT, async || {
        match stack.api().workers().await.len() {
            0 => Ok(()),
            n => Err(format!("{n} workers")),
        }
    })
    .await;

    let refusal = contract
        .post("/api/v1/dummy/start", &json!({}))
        .await
        .expect_problem(503, "no_workers_available");
    assert_eq!(refusal.header("retry-after"), "1");

    stack.nats.stop().await;
    wait_for("the loss to be noticed", LIMIT, async || {
        match contract.get("/ready").await.status {
            503 => Ok(()),
            other => Err(other.to_string()),
        }
    })
    .await;
    for path in [
        "/health",
        "/api/v1/operations",
        "/api/v1/stats",
        "/openapi.json",
    ] {
        contract.get(path).await.expect(200);
    }
    contract
        .post("/api/v1/dummy/start", &json!({}))
        .await
        .expect_problem(503, "nats_unavailable");
    // A backend that starts now has read nothing yet.
    stack.backend.process.kill();
    let backend = ktrdr_tests::BackendProcess::launch(&stack.settings);
    wait_for("it to listen", LIMIT, async || {
        backend.api.try_get("/health").await.map(drop)
    })
    .await;
    for path in [
        "/api/v1/operations",
        "/api/v1/stats",
        "/api/v1/operations/x/history",
        "/ready",
    ] {
        let answer = backend.api.get(path).await.expect(503);
        contract.check(&Method::GET, path, &answer);
    }
}
