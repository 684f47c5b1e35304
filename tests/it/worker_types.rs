//! Worker types: their domains, and how they are forgotten.

use ktrdr_tests::{
    Answer, BackendProcess, Client, LIMIT, LocalWorker, Stack, WorkerProcess, wait_for,
};
use ktrdr_worker::{BadDeclaration, Context, Engine, OperationError, Worker, WorkerError};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

/// A worker type with the domain of the type `dummy`.
struct Clash;

#[derive(Deserialize, JsonSchema)]
struct NoParameters {}

impl Engine for Clash {
    const NAME: &'static str = "clash";
    const DOMAIN: Option<&'static str> = Some("dummy");
    type Request = NoParameters;
    type Output = ();

    async fn run(&self, _: Context, _: NoParameters) -> Result<(), OperationError> {
        Ok(())
    }
}

async fn bucket(stack: &Stack) -> async_nats::jetstream::kv::Store {
    let name = stack.bus.names.worker_types_bucket();
    stack.bus.jetstream.get_key_value(name).await.unwrap()
}

/// Waits until the record says who has the domain `dummy`.
async fn wait_for_owner(stack: &Stack, owner: &str) {
    let bucket = bucket(stack).await;
    wait_for("the owner to be recorded", LIMIT, async || {
        match bucket.get("domain.dummy").await.unwrap() {
            Some(found) if *found == *owner.as_bytes() => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

async fn forget(api: &Client, worker_type: &str) -> Answer {
    api.delete(&format!("/api/v1/worker-types/{worker_type}"))
        .await
}

/// The names of all worker types.
async fn listed(api: &Client) -> Vec<String> {
    let types = api.get("/api/v1/worker-types").await.expect(200);
    let types = types.at("/data/worker_types").as_array().unwrap().clone();
    let names = types.iter().map(|one| one["worker_type"].as_str().unwrap());
    names.map(str::to_owned).collect()
}

async fn wait_until_forgotten(api: &Client) {
    wait_for("the type to be forgotten", LIMIT, async || {
        match listed(api).await {
            types if types.is_empty() => Ok(()),
            types => Err(format!("{types:?}")),
        }
    })
    .await;
}

/// What a worker with the engine [`Clash`] ends with.
async fn end_of_clash(stack: &Stack) -> WorkerError {
    let config = LocalWorker::config(&stack.settings, "clash", &[]);
    let builder = Worker::builder().engine(Clash).config(config);
    let mut worker = builder.mounted_at("http://here").start().await.unwrap();
    worker.wait().await.unwrap_err()
}

#[tokio::test]
async fn a_worker_type_that_nobody_serves_is_forgotten_by_all_backends() {
    let stack = Stack::start().await;
    let other = BackendProcess::start(&stack.settings).await;
    let mut worker = stack.worker("dummy", "w1").await;
    wait_for_owner(&stack, "dummy").await;
    other.api.wait_for_worker("w1", "AVAILABLE").await;

    let refused = forget(&other.api, "dummy").await;
    assert_eq!(refused.at("/workers"), 1);
    refused.expect_problem(409, "worker_type_in_use");
    worker.process.stop().await;
    let waiting = stack.api().started("dummy", &json!({"steps": 0})).await;
    let forgotten = wait_for("the type to be forgotten", LIMIT, async || {
        match forget(&other.api, "dummy").await {
            answer if answer.status == 200 => Ok(answer),
            answer => Err(answer.to_string()),
        }
    })
    .await;

    let expected = json!({"worker_type": "dummy", "domains": ["dummy"], "open_operations": 1});
    assert_eq!(*forgotten.at("/data"), expected);
    assert_eq!(listed(&other.api).await, Vec::<String>::new());
    wait_until_forgotten(stack.api()).await;
    let start = stack.api().start("dummy", &json!({})).await;
    start.expect_problem(404, "unknown_domain");
    let again = forget(stack.api(), "dummy").await;
    again.expect_problem(404, "worker_type_not_found");

    // Whoever serves it makes it known again, and what waited runs.
    let _worker = stack.worker("dummy", "w2").await;
    stack.api().wait_for_status(&waiting, "completed").await;
    wait_for("a start", LIMIT, async || {
        match stack.api().start("dummy", &json!({"steps": 0})).await {
            answer if answer.status == 202 => Ok(()),
            answer => Err(answer.to_string()),
        }
    })
    .await;
}

#[tokio::test]
async fn a_type_that_is_forgotten_while_a_worker_serves_it_comes_back() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;

    bucket(&stack).await.delete("dummy").await.unwrap();

    wait_for("the entry", LIMIT, async || {
        match bucket(&stack).await.get("dummy").await.unwrap() {
            Some(_) => Ok(()),
            None => Err("removed".to_owned()),
        }
    })
    .await;
}

#[tokio::test]
async fn a_worker_whose_domain_belongs_to_another_type_ends_at_start() {
    let stack = Stack::start().await;
    let mut worker = stack.worker("dummy", "w1").await;
    wait_for_owner(&stack, "dummy").await;

    let refused = end_of_clash(&stack).await;

    assert!(
        matches!(
            &refused,
            WorkerError::Declaration { fault: BadDeclaration::TakenDomain { owner, .. }, .. }
                if owner == "dummy"
        ),
        "{refused:?}"
    );
    // It has left no trace.
    assert_eq!(listed(stack.api()).await, ["dummy"]);

    // The other way round, as a program; with the advice that it gives, it starts.
    worker.process.stop().await;
    let store = bucket(&stack).await;
    store.delete("dummy").await.unwrap();
    wait_until_forgotten(stack.api()).await;
    store.put("domain.dummy", "thief".into()).await.unwrap();
    let mut worker = WorkerProcess::launch(&stack.settings, "dummy", "w2");
    let status = worker.process.wait(LIMIT).await;
    assert_eq!(status.code(), Some(1));
    let log = worker.process.log();
    let told = log
        .lines()
        .filter(|line| line.contains("belongs to the worker type thief"));
    assert_eq!(told.count(), 1, "{log}");
    assert!(log.contains("DELETE /api/v1/worker-types/thief"), "{log}");

    let forgotten = wait_for("the thief to be forgotten", LIMIT, async || {
        match forget(stack.api(), "thief").await {
            answer if answer.status == 200 => Ok(answer),
            answer => Err(answer.to_string()),
        }
    })
    .await;
    assert_eq!(*forgotten.at("/data/domains"), json!(["dummy"]));
    stack.worker("dummy", "w3").await;
}

#[tokio::test]
async fn of_two_types_that_register_at_the_same_time_one_ends() {
    let stack = Stack::start().await;
    let mut dummy = WorkerProcess::launch(&stack.settings, "dummy", "w1");

    let clash = end_of_clash(&stack);
    let ended = async { dummy.process.wait(LIMIT).await };
    tokio::select! {
        refused = clash => {
            assert!(matches!(refused, WorkerError::Declaration { .. }), "{refused:?}");
            wait_for_owner(&stack, "dummy").await;
        }
        status = ended => {
            assert_eq!(status.code(), Some(1));
            wait_for_owner(&stack, "clash").await;
        }
    }
}

#[tokio::test]
async fn a_schema_keeps_the_order_of_its_author_and_limits_of_large_types_are_not_shown() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;

    let types = stack.api().get("/api/v1/worker-types").await.expect(200);
    let properties = types.at("/data/worker_types/0/request_schema/properties");
    let names: Vec<&String> = properties.as_object().unwrap().keys().collect();
    assert_eq!(names[..3], ["steps", "step_ms", "fail_at_step"]);
    assert_eq!(properties["step_ms"]["maximum"], json!(null));

    // They are checked all the same.
    let body = json!({"step_ms": 18_446_744_073_709_551_616_f64});
    let refused = stack.api().post("/api/v1/dummy/start", &body).await;
    refused.expect_problem(422, "invalid_request");
}
