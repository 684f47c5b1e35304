//! The Rust client against a real backend and a real worker.

use std::time::Duration;

use ktrdr_client::{
    Client, Error, ErrorCode, ExecutionOptions, ListOperations, ListWorkers, OperationFilter,
    OperationId, Status,
};
use ktrdr_tests::{LIMIT, Stack, TokensFile, wait_for};
use serde::{Deserialize, Serialize};
use serde_json::json;

#[derive(Serialize)]
struct Steps {
    steps: u32,
    step_ms: u64,
    result_bytes: usize,
}

#[derive(Debug, PartialEq, Deserialize)]
struct Done {
    steps: u32,
    #[serde(default)]
    filler: String,
}

fn steps(steps: u32) -> Steps {
    Steps {
        steps,
        step_ms: 1,
        result_bytes: 0,
    }
}

fn client_of(stack: &Stack) -> Client {
    Client::new(stack.api().base()).unwrap()
}

fn id(text: &str) -> OperationId {
    OperationId::new(text).unwrap()
}

#[tokio::test]
async fn a_result_comes_typed_however_large_it_is() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    let client = client_of(&stack);

    let small: Done = client.run("dummy", &steps(2)).await.unwrap();
    let large = Steps {
        result_bytes: 400_000,
        ..steps(0)
    };
    let large: Done = client.run("dummy", &large).await.unwrap();

    assert_eq!(
        small,
        Done {
            steps: 2,
            filler: String::new()
        }
    );
    assert_eq!(large.filler.len(), 400_000);
}

#[tokio::test]
async fn an_operation_is_listed_read_cancelled_and_retried() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    let client = client_of(&stack);
    let endless = json!({"steps": 100_000, "step_ms": 10});
    let execution = ExecutionOptions {
        max_attempts: Some(2),
        ..ExecutionOptions::default()
    };

    let started = client
        .start("dummy", &endless)
        .operation_id(id("one"))
        .execution(execution.clone())
        .await
        .unwrap();
    stack.api().wait_for_status("one", "running").await;
    let operation = client.get(&started.operation_id).await.unwrap();
    let running = ListOperations {
        filter: OperationFilter {
            status: vec![Status::Pending, Status::Running],
            operation_type: vec!["dummy".to_owned()],
            worker_id: Some("w1".to_owned()),
            ..OperationFilter::default()
        },
        limit: Some(10),
        ..ListOperations::default()
    };
    let listed = client.list(&running).await.unwrap();
    let workers = client.workers(&ListWorkers::default()).await.unwrap();

    assert_eq!(started.operation_id.as_str(), "one");
    assert_eq!(operation.execution.as_deref(), Some(&execution));
    assert_eq!(operation.attempts.len(), 1);
    assert_eq!(listed.total, 1);
    assert_eq!(*listed.operations[0].operation_id, id("one"));
    assert_eq!(workers[0].worker_id.as_str(), "w1");

    client.cancel(&id("one"), Some("enough")).await.unwrap();
    let cancelled = client.wait(&id("one")).await.unwrap();
    assert_eq!(cancelled.status, Status::Cancelled);
    let outcome = client.wait_for_result::<Done>(&id("one")).await;
    assert!(matches!(outcome, Err(Error::Cancelled(_))), "{outcome:?}");

    let again = client.retry(&id("one")).await.unwrap();
    assert_ne!(again.operation_id.as_str(), "one");
    let repeated = client.get(&again.operation_id).await.unwrap();
    assert_eq!(repeated.retry_of.as_deref(), Some(&id("one")));
    client.cancel(&again.operation_id, None).await.unwrap();
}

#[tokio::test]
async fn errors_say_what_happened() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    let client = client_of(&stack);

    let failed = client
        .run::<Done>("dummy", &json!({"fail_at_step": 1}))
        .await
        .unwrap_err();
    let refused = client
        .start("dummy", &json!({"steps": -1}))
        .await
        .unwrap_err();
    let unknown = client.get(&id("none")).await.unwrap_err();
    let parameters = client.start("dummy", &[1]).await.unwrap_err();
    let other_type = client.run::<String>("dummy", &steps(0)).await.unwrap_err();

    assert!(matches!(failed, Error::Failed { .. }), "{failed:?}");
    let Error::Refused(refusal) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(refusal.status, 422);
    assert_eq!(refusal.code, Some(ErrorCode::InvalidRequest));
    assert_eq!(refusal.violations[0].path, "/steps");
    assert_eq!(unknown.code(), Some(ErrorCode::OperationNotFound));
    assert!(
        matches!(parameters, Error::InvalidParameters(_)),
        "{parameters:?}"
    );
    assert!(
        matches!(other_type, Error::UnexpectedAnswer(_)),
        "{other_type:?}"
    );
}

#[tokio::test]
async fn a_start_is_repeated_until_nats_is_back_and_starts_once() {
    let mut stack = Stack::start().await;
    stack.worker("dummy", "w1").await.process.stop().await;
    let client = client_of(&stack).give_up_after(Duration::from_secs(60));
    stack.nats.stop().await;

    let starting = tokio::spawn(async move {
        let parameters = steps(0);
        let started = client.start("dummy", &parameters).await?;
        let listed = client.list(&ListOperations::default()).await?;
        Ok::<_, Error>((started, listed))
    });
    wait_for("a refused start", LIMIT, async || {
        let page = stack.api().get("/metrics").await.text;
        let refused = |line: &&str| line.contains("/start") && line.contains("status=\"503\"");
        page.lines()
            .find(refused)
            .map(drop)
            .ok_or_else(|| "none yet".to_owned())
    })
    .await;
    stack.nats.restart().await;
    let (started, listed) = starting.await.unwrap().unwrap();

    assert_eq!(listed.total, 1);
    assert_eq!(listed.operations[0].operation_id, started.operation_id);
}

#[tokio::test]
async fn a_backend_that_is_not_there_is_given_up() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let client = Client::new(&address)
        .unwrap()
        .give_up_after(Duration::from_millis(300));

    let outcome = client.get(&id("one")).await;

    assert!(matches!(outcome, Err(Error::Unreachable(_))), "{outcome:?}");
}

#[tokio::test]
async fn a_token_opens_a_backend_that_asks_for_one() {
    let file = TokensFile::new();
    let reader = file.set("reader", "scopes = [\"read\"]");
    let stack = Stack::start_with(|settings| settings.tokens(&file)).await;
    let _worker = stack.worker("dummy", "w1").await;
    let code = |error: Error| error.code().unwrap();

    let done: Done = client_of(&stack)
        .token(&file.token("test"))
        .unwrap()
        .run("dummy", &steps(1))
        .await
        .unwrap();
    let refused = client_of(&stack).workers(&ListWorkers::default()).await;
    let reader = client_of(&stack).token(&reader).unwrap();
    let forbidden = reader.run::<Done>("dummy", &steps(1)).await;

    assert_eq!(done.steps, 1);
    assert_eq!(code(refused.unwrap_err()), ErrorCode::Unauthorized);
    assert_eq!(code(forbidden.unwrap_err()), ErrorCode::Forbidden);
    assert_eq!(
        reader.workers(&ListWorkers::default()).await.unwrap().len(),
        1
    );
}

#[tokio::test]
async fn all_pages_of_workers_are_read() {
    let stack = Stack::start().await;
    // More than fit into one page of about 8 MiB.
    let note = "x".repeat(6000);
    for number in 0..1600 {
        let worker = format!("made-up-{number:04}");
        let heartbeat = json!({
            "worker_id": worker, "worker_type": "dummy", "instance": worker,
            "endpoint_url": "http://127.0.0.1:1", "status": "AVAILABLE",
            "capabilities": {"note": note}, "version": "1",
            "registered_at": "2026-01-01T00:00:00Z", "at": "2026-01-01T00:00:00Z",
            "interval_seconds": 3600.0, "slots": 1, "running": [],
        });
        let subject = format!("ktrdr.heartbeat.dummy.{worker}");
        stack.bus.publish(subject, heartbeat.to_string()).await;
    }
    stack
        .api()
        .wait_for_worker("made-up-1599", "AVAILABLE")
        .await;
    let first_page = stack.api().get("/api/v1/workers").await.expect(200);
    assert_ne!(first_page.header("link"), "", "one page holds them all");
    let client = client_of(&stack);

    let all = client.workers(&ListWorkers::default()).await.unwrap();
    let some = ListWorkers {
        limit: Some(1500),
        offset: Some(50),
        ..ListWorkers::default()
    };
    let some = client.workers(&some).await.unwrap();

    assert_eq!(all.len(), 1600);
    assert!(all.is_sorted_by(|a, b| a.worker_id < b.worker_id));
    assert_eq!(some.len(), 1500);
    assert_eq!(some[0].worker_id, all[50].worker_id);
}
