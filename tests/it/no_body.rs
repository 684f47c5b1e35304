//! Routes that take no body refuse one: what it says would have no effect, and its sender would not know.

use ktrdr_tests::Stack;
use reqwest::Method;
use serde_json::json;

#[tokio::test]
async fn a_body_that_would_have_no_effect_is_refused() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    let schedule = json!({"domain": "dummy", "body": {}, "cron": "0 0 1 1 *"});
    let put = stack
        .api()
        .request(Method::PUT, "/api/v1/schedules/new-year");
    stack.api().send(put.json(&schedule)).await.expect(201);
    let send = async |method: &Method, path: &str, body: &'static str| {
        let request = stack.api().request(method.clone(), path).body(body);
        stack.api().send(request).await
    };

    for (method, path) in [
        (Method::POST, "/api/v1/schedules/new-year/pause"),
        (Method::POST, "/api/v1/schedules/new-year/resume"),
        (Method::POST, "/api/v1/schedules/new-year/run"),
        (Method::DELETE, "/api/v1/schedules/new-year"),
        (Method::POST, "/api/v1/operations/op/retry"),
        (Method::POST, "/api/v1/operations/op/resume"),
        (Method::POST, "/api/v1/workers/w1/drain"),
        (Method::POST, "/api/v1/workers/w1/undrain"),
        (Method::POST, "/api/v1/queues/dummy/resume"),
        (Method::DELETE, "/api/v1/worker-types/dummy"),
    ] {
        for body in [r#"{"until":"2030-01-01T00:00:00Z"}"#, "not json", "[]"] {
            let answer = send(&method, path, body).await;
            assert!(answer.text.contains("takes no body"), "{path}: {answer}");
            answer.expect_problem(422, "invalid_request");
        }
    }

    for body in ["", "{}", " {\n} ", "null"] {
        let path = "/api/v1/schedules/new-year/pause";
        let paused = send(&Method::POST, path, body).await.expect(200);
        assert_eq!(paused.at("/data/paused"), true);
    }
}
