//! Workers of two versions of one type at the same time: nothing fails because the wrong one took
//! it, the accepted parameters do not change to and fro, and nothing waits in silence.

use std::time::Duration;

use ktrdr_protocol::execution::ExecutionOptions;
use ktrdr_protocol::id::{OperationId, WorkerType};
use ktrdr_protocol::origin::Origin;
use ktrdr_protocol::start_request::StartRequest;
use ktrdr_tests::{Client, LIMIT, Settings, Stack, wait_for};
use ktrdr_worker::{Context, Engine, OperationError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;

/// The older version of the type `versioned`. It ignores what it does not know.
struct Older;

/// The newer one, with one more parameter.
struct Newer;

#[derive(Deserialize, JsonSchema)]
struct OlderRequest {
    #[expect(dead_code, reason = "only in the schema")]
    #[serde(default)]
    steps: u32,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct NewerRequest {
    #[expect(dead_code, reason = "only in the schema")]
    #[serde(default)]
    steps: u32,
    #[serde(default)]
    turbo: bool,
}

/// Which version ran it, and with what.
#[derive(Serialize, Deserialize, JsonSchema)]
struct Ran {
    version: String,
    turbo: bool,
}

impl Engine for Older {
    const NAME: &'static str = "versioned";
    type Request = OlderRequest;
    type Output = Ran;

    async fn run(&self, _: Context, _: OlderRequest) -> Result<Ran, OperationError> {
        let version = "older".to_owned();
        Ok(Ran {
            version,
            turbo: false,
        })
    }
}

impl Engine for Newer {
    const NAME: &'static str = "versioned";
    type Request = NewerRequest;
    type Output = Ran;

    async fn run(&self, _: Context, request: NewerRequest) -> Result<Ran, OperationError> {
        let version = "newer".to_owned();
        Ok(Ran {
            version,
            turbo: request.turbo,
        })
    }
}

/// Waits until backends check starts against the schema of the newer version, or of the older one.
async fn wait_for_schema(api: &Client, is_newer: bool) {
    wait_for("the schema to count", LIMIT, async || {
        let types = api.try_get("/api/v1/worker-types").await?;
        let schema = types.at("/data/worker_types/0/request_schema/properties");
        let names_turbo = schema.get("turbo").is_some();
        (types.status == 200 && names_turbo == is_newer)
            .then_some(())
            .ok_or(types.text)
    })
    .await;
}

/// Starts what only the newer version can run.
async fn start_turbo(api: &Client) -> String {
    api.started("versioned", &json!({"turbo": true})).await
}

/// Waits until the schema of the newer version counts, and a worker of it has run something.
async fn newer_has_run(api: &Client) {
    wait_for_schema(api, true).await;
    let id = start_turbo(api).await;
    let done = api.wait_for_status(&id, "completed").await;
    assert_eq!(done["result"]["version"], "newer");
}

/// Waits until the operation shows a warning with this text in it.
async fn wait_for_warning(api: &Client, id: &str, text: &str) {
    wait_for(&format!("a warning about {id}"), LIMIT, async || {
        let found = api.operation(id).await;
        let warning = found.json["warning"].as_str().unwrap_or_default();
        match (found.at("/data/status").as_str(), warning.contains(text)) {
            (Some("pending"), true) => Ok(()),
            _ => Err(found.text),
        }
    })
    .await;
}

/// The revision of the entry at the key of the type.
async fn revision(stack: &Stack) -> u64 {
    let bucket = stack.bus.names.worker_types_bucket();
    let bucket = stack.bus.jetstream.get_key_value(bucket).await.unwrap();
    bucket.entry("versioned").await.unwrap().unwrap().revision
}

/// A stack in which a version counts for three seconds after its last worker has left.
async fn patient_stack() -> Stack {
    Stack::start_with(|settings| Settings {
        heartbeat: Duration::from_secs(1),
        ..settings
    })
    .await
}

#[tokio::test]
async fn an_older_worker_hands_back_what_only_a_newer_one_can_run() {
    let stack = Stack::start().await;
    let _older = stack.local_worker(Older, "older", &[]).await;
    stack
        .api()
        .start("versioned", &json!({"steps": 1}))
        .await
        .expect(202);

    let _newer = stack.local_worker(Newer, "newer", &[]).await;
    wait_for_schema(stack.api(), true).await;
    let mut ids = vec![start_turbo(stack.api()).await];
    for _ in 0..10 {
        let body = json!({"turbo": true, "execution": {"max_attempts": 1}});
        ids.push(stack.api().started("versioned", &body).await);
    }

    for id in &ids {
        let done = stack.api().wait_for_status(id, "completed").await;
        assert_eq!(done["result"], json!({"version": "newer", "turbo": true}));
        let events = stack.bus.event_names("versioned", id).await;
        assert_eq!(events, ["started", "completed"]);
    }
}

#[tokio::test]
async fn an_older_worker_runs_what_was_checked_against_a_newer_schema_and_fits_its_own() {
    let stack = Stack::start().await;
    let _older = stack.local_worker(Older, "older", &[]).await;
    let newer = stack.local_worker(Newer, "newer", &[]).await;
    newer_has_run(stack.api()).await;

    newer.stop().await;
    let id = stack.api().started("versioned", &json!({"steps": 2})).await;

    let done = stack.api().wait_for_status(&id, "completed").await;
    assert_eq!(done["result"]["version"], "older");
}

#[tokio::test]
async fn the_newer_schema_stays_when_all_workers_connect_again() {
    let mut stack = Stack::start().await;
    let _older = stack.local_worker(Older, "older", &[]).await;
    let _newer = stack.local_worker(Newer, "newer", &[]).await;
    newer_has_run(stack.api()).await;
    let before = revision(&stack).await;

    for _ in 0..3 {
        stack.nats.kill();
        stack.nats.run().await;
        wait_for("the backend to be ready", LIMIT, async || {
            stack.api().is_ready().await
        })
        .await;
        for _ in 0..4 {
            newer_has_run(stack.api()).await;
        }
    }

    assert_eq!(revision(&stack).await, before);
}

#[tokio::test]
async fn after_a_step_back_the_older_schema_counts_and_what_waits_says_why() {
    let stack = patient_stack().await;
    let _older = stack.local_worker(Older, "older", &[]).await;
    let newer = stack.local_worker(Newer, "newer", &[]).await;
    newer_has_run(stack.api()).await;

    newer.stop().await;
    // The newer schema still counts for a moment, so this one is accepted.
    let waiting = start_turbo(stack.api()).await;
    wait_for_warning(stack.api(), &waiting, "has the version").await;

    wait_for_schema(stack.api(), false).await;
    // The older version ignores what it does not know, for its clients as well.
    let id = start_turbo(stack.api()).await;
    let done = stack.api().wait_for_status(&id, "completed").await;
    assert_eq!(done["result"]["version"], "older");
    let still = stack.api().operation(&waiting).await;
    assert_eq!(still.at("/data/status"), "pending");

    // Forward again: nothing was lost.
    let _newer = stack.local_worker(Newer, "newer", &[]).await;
    let done = stack.api().wait_for_status(&waiting, "completed").await;
    assert_eq!(done["result"]["version"], "newer");
    newer_has_run(stack.api()).await;
}

#[tokio::test]
async fn a_request_that_waits_for_another_version_can_be_cancelled() {
    let stack = patient_stack().await;
    let _older = stack.local_worker(Older, "older", &[]).await;
    let newer = stack.local_worker(Newer, "newer", &[]).await;
    newer_has_run(stack.api()).await;
    newer.stop().await;
    let waiting = start_turbo(stack.api()).await;
    wait_for_warning(stack.api(), &waiting, "has the version").await;

    stack.api().cancel(&waiting).await.expect(200);

    // The older worker takes it out of the queue.
    wait_for("the queue to be empty", LIMIT, async || {
        let (jetstream, names) = (&stack.bus.jetstream, &stack.bus.names);
        let consumer = ktrdr_bus::queues::info(jetstream, names, "versioned-any").await;
        let consumer = consumer.unwrap();
        match consumer.num_pending + consumer.num_ack_pending as u64 {
            0 => Ok(()),
            some => Err(format!("{some} wait")),
        }
    })
    .await;
}

#[tokio::test]
async fn a_request_with_execution_options_of_a_later_version_waits_and_says_so() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    let refused = stack
        .api()
        .start("dummy", &json!({"steps": 0, "execution": {"nice": 5}}))
        .await;
    refused.expect_problem(422, "invalid_request");

    // As a backend of a later version stores it.
    let id = OperationId::new("from-the-future").unwrap();
    let dummy = WorkerType::new("dummy").unwrap();
    let parameters = RawValue::from_string("{\"steps\":0}".to_owned()).unwrap();
    let request = StartRequest::new(
        id.clone(),
        dummy.clone(),
        parameters,
        ExecutionOptions::default(),
    );
    let mut request = serde_json::to_value(request).unwrap();
    request["execution"] = json!({"nice": 5, "max_attempts": 2});
    let any = Origin::from_token("any").unwrap();
    let subject = stack.bus.names.start(&dummy, &any);
    let payload = request.to_string();
    let stored = stack.bus.jetstream.publish(subject, payload.into()).await;
    stored.unwrap().await.unwrap();

    wait_for_warning(stack.api(), id.as_str(), "nice").await;
    let next = stack.api().started("dummy", &json!({"steps": 0})).await;
    stack.api().wait_for_status(&next, "completed").await;
    let still = stack.api().operation(id.as_str()).await;
    assert_eq!(still.at("/data/status"), "pending");
    stack.api().cancel(id.as_str()).await.expect(200);
    let path = format!("/api/v1/operations/{id}/retry");
    let retried = stack.api().post(&path, &json!({})).await;
    retried.expect_problem(409, "not_repeatable");
}
