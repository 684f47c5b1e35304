//! The test snippets and curl commands of the guide, run against this system.

use ktrdr_tests::{LIMIT, Scratch, Stack, wait_for};
use reqwest::Method;
use serde_json::{Value, json};

/// `test_start_endpoint_accepts_task_id`, `test_start_endpoint_generates_id_if_not_provided`.
#[tokio::test]
async fn a_workers_start_endpoint_takes_a_task_id_or_makes_one() {
    let stack = Stack::start().await;

    let worker = stack
        .worker("data_processing", "data-processing-worker-1")
        .await;
    let body = json!({
        "task_id": "test-operation-123", "source_file": "messy/titanic.csv", "operations": ["validate"],
    });
    let answer = worker
        .api
        .post("/data-processing/start", &body)
        .await
        .expect(200);
    assert_eq!(answer.json["operation_id"], "test-operation-123");
    assert_eq!(answer.json["status"], "started");

    stack
        .api()
        .wait_for_status("test-operation-123", "completed")
        .await;

    let body = json!({"source_file": "messy/titanic.csv", "operations": ["validate"]});
    let answer = wait_for("a free worker", LIMIT, async || {
        let answer = worker.api.post("/data-processing/start", &body).await;
        if answer.status == 200 {
            Ok(answer)
        } else {
            Err(answer.text)
        }
    })
    .await;
    assert!(
        answer.json["operation_id"]
            .as_str()
            .unwrap()
            .starts_with("worker_dp_"),
        "{answer}"
    );
}

/// `test_health_endpoint_reports_idle`, `test_operations_endpoint_exists`.
#[tokio::test]
async fn a_workers_health_and_operations_are_as_documented() {
    let stack = Stack::start().await;

    let worker = stack
        .worker("data_processing", "data-processing-worker-1")
        .await;
    let health = worker.api.get("/health").await.expect(200);
    assert_eq!(health.json["healthy"], true);
    assert_eq!(health.json["service"], "data-processing-worker");
    assert_eq!(health.json["status"], "operational");
    assert_eq!(health.json["worker_status"], "idle");
    assert_eq!(health.json["current_operation"], Value::Null);

    let operations = worker.api.get("/api/v1/operations").await.expect(200);
    assert_eq!(operations.at("/data/total"), &json!(0));
    worker
        .api
        .get("/api/v1/operations/none")
        .await
        .expect_problem(404, "operation_not_found");
    worker
        .api
        .get("/nothing/here")
        .await
        .expect_problem(404, "unknown_route");
    worker
        .api
        .delete("/health")
        .await
        .expect_problem(405, "method_not_allowed");
}

/// `test_worker_registration`: the fields the guide prints.
#[tokio::test]
async fn a_worker_registers_itself_with_the_documented_fields() {
    let stack = Stack::start().await;

    let worker = stack
        .worker("data_processing", "data-processing-worker-1")
        .await;
    let workers = stack.api().workers().await;
    let mine = workers
        .iter()
        .find(|w| w["worker_type"] == "data_processing")
        .expect("a data_processing worker");
    assert_eq!(mine["worker_id"], "data-processing-worker-1");
    assert_eq!(mine["endpoint_url"], worker.api.base());
    assert_eq!(mine["status"], "AVAILABLE");
    assert!(mine["capabilities"]["cores"].as_u64().unwrap() >= 1);
    assert!(mine["last_health_check"].as_str().unwrap().ends_with('Z'));
    assert_eq!(mine["health_check_failures"], 0);

    let one = stack
        .api()
        .get("/api/v1/workers/data-processing-worker-1")
        .await
        .expect(200);
    assert_eq!(one.json["worker_id"], "data-processing-worker-1");

    stack.api().get("/api/v1/workers/nobody").await.expect(404);
}

/// `test_operation_dispatch_and_progress`: start through the backend, poll until done, 100 at the
/// end; then the same operation asked of the worker.
#[tokio::test]
async fn dispatch_execute_progress_complete() {
    let stack = Stack::start_with(|settings| {
        let data = std::env::temp_dir().join(format!("ktrdr-guide-{}", std::process::id()));
        std::fs::create_dir_all(&data).unwrap();
        std::fs::copy(settings.data_dir.join("test.csv"), data.join("test.csv")).unwrap();
        settings.data_dir(data)
    })
    .await;
    let worker = stack.worker("data_processing", "dp").await;

    let body = json!({"source_file": "test.csv", "operations": ["clean", "transform"], "estimated_rows": 10000});
    let id = stack.api().started("data-processing", &body).await;
    let done = stack.api().wait_for_status(&id, "completed").await;
    assert_eq!(done["progress"]["percentage"], 100);
    assert_eq!(done["operation_type"], "data_processing");
    assert_eq!(done["metadata"]["source_file"], "test.csv");
    assert_eq!(done["metadata"]["worker_id"], "dp");
    assert_eq!(done["result"]["rows_processed"], 15);
    assert_eq!(done["result"]["output_file"], "test.processed.csv");
    assert!(stack.settings.data_dir.join("test.processed.csv").exists());

    let polled = stack.api().operation(&id).await;
    assert_eq!(polled.json["status"], polled.json["data"]["status"]);
    assert_eq!(polled.at("/progress/percentage"), &json!(100));

    let own = worker.api.operation(&id).await.expect(200);
    assert_eq!(own.at("/data/status"), "completed");
    assert_eq!(own.at("/data/result"), &done["result"]);

    let metrics = stack
        .api()
        .get(&format!("/api/v1/operations/{id}/metrics"))
        .await
        .expect(200);
    let points = metrics.at("/data/metrics").as_array().unwrap().clone();
    assert!(
        points.iter().any(|point| point["name"] == "rows_processed"),
        "{metrics}"
    );
    assert!(
        points
            .iter()
            .all(|point| point["timestamp"].is_string() && point.get("value").is_some())
    );

    std::fs::remove_dir_all(&stack.settings.data_dir).unwrap();
}

/// The cursor of the metrics endpoint: every point comes once.
#[tokio::test]
async fn metrics_are_read_on_by_cursor_while_the_operation_runs() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;

    let id = stack
        .api()
        .started(
            "dummy",
            &json!({"steps": 30, "step_ms": 20, "metrics_per_step": 10}),
        )
        .await;
    let (mut cursor, mut values) = (String::new(), Vec::new());
    wait_for("all points", LIMIT, async || {
        let query = if cursor.is_empty() {
            String::new()
        } else {
            format!("&cursor={cursor}")
        };
        let page = stack
            .api()
            .get(&format!("/api/v1/operations/{id}/metrics?limit=7{query}"))
            .await
            .expect(200);
        let points = page.at("/data/metrics").as_array().unwrap().clone();
        assert!(points.len() <= 7);
        assert!(
            !points.is_empty() || page.at("/data/has_more") == &json!(false),
            "{page}"
        );
        values.extend(points.iter().map(|point| point["value"].as_f64().unwrap()));
        cursor = page
            .at("/data/cursor")
            .as_str()
            .expect("a cursor on every page")
            .to_owned();
        if values.len() == 300 {
            Ok(())
        } else {
            Err(format!("{} points", values.len()))
        }
    })
    .await;

    let expected: Vec<f64> = (1..=30)
        .flat_map(|step| std::iter::repeat_n(f64::from(step), 10))
        .collect();
    assert_eq!(values, expected);

    stack
        .api()
        .get(&format!("/api/v1/operations/{id}/metrics?cursor=rubbish"))
        .await
        .expect(400);
    stack
        .api()
        .get("/api/v1/operations/none/metrics")
        .await
        .expect(404);
}

/// A client may follow an operation at its worker, and go on at a backend when the worker is gone.
#[tokio::test]
async fn a_metrics_cursor_of_a_worker_is_taken_by_a_backend_and_the_other_way_round() {
    let stack = Stack::start().await;
    let worker = stack.worker("dummy", "w1").await;
    let body = json!({"steps": 30, "step_ms": 20, "metrics_per_step": 10});
    let id = stack.api().running("dummy", &body).await;
    let path = format!("/api/v1/operations/{id}/metrics?limit=7");
    let (mut cursor, mut values, mut turn) = (String::new(), Vec::new(), 0);

    wait_for("all points", LIMIT, async || {
        turn += 1;
        let api = [stack.api(), &worker.api][turn % 2];
        let query = match cursor.as_str() {
            "" => path.clone(),
            cursor => format!("{path}&cursor={cursor}"),
        };
        let page = api.get(&query).await.expect(200);
        let points = page.at("/data/metrics").as_array().unwrap();
        values.extend(points.iter().map(|point| point["value"].as_f64().unwrap()));
        cursor = page.at("/data/cursor").as_str().unwrap().to_owned();
        match values.len() {
            300 => Ok(()),
            count => Err(format!("{count} points")),
        }
    })
    .await;

    let steps = (1..=30).flat_map(|step| std::iter::repeat_n(f64::from(step), 10));
    assert_eq!(values, steps.collect::<Vec<_>>());
    for api in [stack.api(), &worker.api] {
        let end = api
            .get(&format!("{path}&cursor={cursor}"))
            .await
            .expect(200);
        assert_eq!(end.at("/data/metrics"), &json!([]), "{end}");
        assert_eq!(end.at("/data/has_more"), &json!(false), "{end}");
        let rubbish = api.get(&format!("{path}&cursor=7")).await;
        rubbish.expect_problem(400, "invalid_cursor");
    }
}

/// The registration of workers over REST, which the guide tells people to look for, is answered
/// with what to do here.
#[tokio::test]
async fn a_worker_that_registers_over_rest_is_told_that_nobody_does() {
    let stack = Stack::start().await;

    for path in ["/workers/register", "/api/v1/workers/register"] {
        let answer = stack.api().post(path, &json!({"worker_id": "w1"})).await;
        answer.expect_problem(410, "registration_not_used");
    }

    // A worker may have this id, and there is none.
    let answer = stack.api().get("/api/v1/workers/register").await;
    answer.expect_problem(404, "worker_not_found");
}

/// Health of the backend, and answers for unknown ids and paths.
#[tokio::test]
async fn everything_that_is_not_there_answers_in_the_one_error_shape() {
    let stack = Stack::start().await;

    stack.api().get("/health").await.expect(200);
    stack.api().get("/ready").await.expect(200);
    for (path, status) in [
        ("/nothing", 404),
        ("/api/v1/nothing", 404),
        ("/api/v1/operations/none", 404),
        ("/api/v1/operations/a.b", 404),
        ("/api/v1/operations/%00", 404),
        ("/api/v1/operations?status=nonsense", 400),
        ("/api/v1/operations?limit=-1", 400),
        ("/api/v1/operations?limit=x", 400),
        ("/api/v1/operations?offset=99999999999999999999999", 400),
        ("/api/v1/workers?status=nonsense", 400),
    ] {
        let answer = stack.api().get(path).await;
        assert_eq!(answer.status, status, "{path}: {answer}");
        assert_eq!(answer.json["success"], false, "{path}: {answer}");
        assert_eq!(answer.json["status_code"], status, "{path}: {answer}");
    }

    let answer = stack.api().delete("/api/v1/workers").await.expect(405);
    assert_eq!(answer.json["status_code"], 405);
}

#[tokio::test]
async fn metric_points_have_steps_and_come_as_a_table() {
    let data = Scratch::new("lists");
    let stack = Stack::start_with(|settings| {
        let bars = settings.data_dir.join("GOOG_1d.csv");
        std::fs::copy(bars, data.join("GOOG_1d.csv")).unwrap();
        settings.data_dir(data.path())
    })
    .await;
    let worker = stack.worker("training", "w1").await;
    let body = json!({
        "task_id": "net", "symbol": "GOOG", "timeframe": "1d", "epochs": 3, "hidden_layers": [2],
    });
    let started = stack.api().post("/api/v1/training/start", &body).await;
    started.expect(202);
    let done = stack
        .api()
        .wait_for_any_status("net", &["completed", "failed"])
        .await;
    assert_eq!(done["status"], "completed", "{done}");

    for api in [stack.api(), &worker.api] {
        let path = "/api/v1/operations/net/metrics";
        let two = format!("{path}?name=val_loss,train_loss");
        let page = api.get(&two).await.expect(200);
        let points = page.at("/data/metrics").as_array().unwrap();
        assert_eq!(points.len(), 6, "{page}");
        for point in points {
            assert!(
                point["step"].as_f64().is_some_and(|step| step >= 1.0),
                "{point}"
            );
        }

        let table = api
            .get(&format!("{path}?name=val_loss&format=csv&limit=2"))
            .await;
        let table = table.expect(200);
        assert!(table.header("content-type").starts_with("text/csv"));
        assert_eq!(table.header("x-ktrdr-has-more"), "true");
        let lines: Vec<&str> = table.text.lines().collect();
        assert_eq!(lines.len(), 3, "{table}");
        assert_eq!(lines[0], "name,step,value,attempt,timestamp");
        assert!(lines[2].starts_with("val_loss,2,"), "{table}");
        let cursor = table.header("x-ktrdr-cursor");
        let rest = format!("{path}?name=val_loss&cursor={cursor}");
        let request = api.request(Method::GET, &rest).header("accept", "text/csv");
        let rest = api.send(request).await.expect(200);
        assert!(rest.text.contains("\r\nval_loss,3,"), "{rest}");
        assert_eq!(rest.text.lines().count(), 2, "{rest}");
    }
}
