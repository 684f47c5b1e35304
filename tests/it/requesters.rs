//! Who asked: `requested_by` in operations and their history, and the ids behind `Idempotency-Key`,
//! which each token has for itself.

use ktrdr_protocol::id::{OperationId, WorkerType};
use ktrdr_protocol::origin::Origin;
use ktrdr_protocol::time::Timestamp;
use ktrdr_tests::{Answer, Client, Stack};
use reqwest::Method;
use serde_json::{Value, json};

use super::narrowed_tokens::{ALL, Parties};

#[tokio::test]
async fn one_client_never_gets_the_operation_behind_another_ones_key() {
    let parties = Parties::meet().await;
    let alice = parties.client("alice", ALL).await;
    let bob = parties.client("bob", ALL).await;
    let start = async |api: &Client, path: &str, key: &str, body: &Value| {
        let request = api.request(Method::POST, path).json(body);
        api.send(request.header("idempotency-key", key)).await
    };
    let path = "/api/v1/dummy/start";
    let body = json!({"steps": 1, "step_ms": 0, "fail_at_step": 1});

    let hers = start(&alice, path, "monday", &body).await.expect(202);
    let again = start(&alice, path, "monday", &body).await.expect(200);
    let his = start(&bob, path, "monday", &body).await.expect(202);

    let id = |answer: &Answer| answer.json["operation_id"].as_str().unwrap().to_owned();
    assert_eq!(id(&hers), id(&again));
    assert_ne!(id(&hers), id(&his));

    // The keys of retries, too.
    let failed = id(&hers);
    alice.wait_for_status(&failed, "failed").await;
    let retry = format!("/api/v1/operations/{failed}/retry");
    let hers = start(&alice, &retry, "again", &json!({})).await.expect(202);
    let his = start(&bob, &retry, "again", &json!({})).await.expect(202);
    assert_ne!(id(&hers), id(&his));
}

/// Whoever knows how ids are made from keys could take the id first.
#[tokio::test]
async fn an_operation_that_waits_at_the_id_of_a_key_is_not_taken_for_its_own() {
    let parties = Parties::meet().await;
    let alice = parties.client("alice", ALL).await;
    let mallory = parties.client("mallory", ALL).await;
    let namespace = uuid::uuid!("6f4e0c5a-5f0b-4a0e-9b8e-3d1c1b0f7a52");
    let of_alice = uuid::Uuid::new_v5(&namespace, b"alice");
    let id = uuid::Uuid::new_v5(&of_alice, b"dummy\0monday").simple();
    let body = json!({"task_id": id.to_string(), "steps": 0});
    mallory.started("dummy", &body).await;

    let request = alice
        .request(Method::POST, "/api/v1/dummy/start")
        .json(&json!({"steps": 0}))
        .header("idempotency-key", "monday");

    alice
        .send(request)
        .await
        .expect_problem(409, "task_id_conflict");
}

/// The entries of an operation's history: the event and who asked for it.
pub(super) async fn askers(api: &Client, id: &str) -> Vec<(String, Option<String>)> {
    let history = api.get(&format!("/api/v1/operations/{id}/history")).await;
    let history = history.expect(200);
    let text = |value: &Value| value.as_str().map(str::to_owned);
    history
        .at("/data/history")
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| (text(&entry["event"]).unwrap(), text(&entry["requested_by"])))
        .filter(|(event, _)| event != "started")
        .collect()
}

pub(super) fn entry(event: &str, by: &str) -> (String, Option<String>) {
    (event.to_owned(), Some(by.to_owned()))
}

#[tokio::test]
async fn who_asked_stands_in_the_operation_and_its_history() {
    let parties = Parties::meet().await;
    let alice = parties.client("Alice of team A", ALL).await;
    let bob = parties.client("bob", ALL).await;
    let by = async |id: &str| {
        alice
            .operation(id)
            .await
            .expect(200)
            .at("/data/requested_by")
            .clone()
    };

    // One that runs: the cancel intent says who.
    let body = json!({"task_id": "ran", "steps": 100_000, "step_ms": 20});
    alice.running("dummy", &body).await;
    bob.cancel("ran").await.expect(200);
    alice.wait_for_status("ran", "cancelled").await;
    assert_eq!(by("ran").await, "Alice of team A");
    let entries = askers(&bob, "ran").await;
    assert_eq!(entries[0], entry("start_requested", "Alice of team A"));
    assert_eq!(entries[1], entry("cancel_requested", "bob"));
    assert_eq!(entries.last().unwrap(), &("cancelled".to_owned(), None));

    // One that nobody runs: the event says who.
    let gpu = json!({"task_id": "waited", "execution": {"requirements": {"gpu": true}}});
    alice.started("dummy", &gpu).await;
    bob.cancel("waited").await.expect(200);
    let expected = [
        entry("start_requested", "Alice of team A"),
        entry("cancelled", "bob"),
    ];
    assert_eq!(askers(&bob, "waited").await, expected);

    // A retry is asked for by whoever asks for it.
    let again = bob
        .post("/api/v1/operations/waited/retry", &json!({}))
        .await
        .expect(202);
    assert_eq!(
        by(again.json["operation_id"].as_str().unwrap()).await,
        "bob"
    );

    // A list and the log show it, and a restart does not forget it.
    let list = alice.operations("limit=1").await.expect(200);
    assert_eq!(list.at("/data/operations/0/requested_by"), "bob");
    let mut parties = parties;
    let log = parties.stack.backend.process.log();
    assert!(log.contains("Alice of team A"), "{log}");
    parties.stack.backend.restart().await;
    assert_eq!(by("ran").await, "Alice of team A");
}

/// Messages of programs that know no `requested_by`, and of programs that write something else
/// there.
#[tokio::test]
async fn messages_without_a_requester_are_read() {
    let stack = Stack::start().await;
    // Before the messages: it is busy from the first one on.
    let _worker = stack.worker("dummy", "w1").await;
    let worker_type = WorkerType::new("dummy").unwrap();
    let queue = Origin::from_token("any").unwrap();
    let subject = stack.bus.names.start(&worker_type, &queue);
    let message = |id: &str| {
        json!({
            "operation_id": id, "operation_type": "dummy", "created_at": Timestamp::now(),
            "parameters": {"steps": 100_000, "step_ms": 20},
        })
    };

    for (number, odd) in [
        json!(7),
        json!([]),
        json!("x".repeat(10_000)),
        json!("two\nlines"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut message = message(&format!("odd-{number}"));
        message["requested_by"] = odd;
        stack.bus.store(subject.clone(), message.to_string()).await;
    }
    stack
        .bus
        .store(subject.clone(), message("old").to_string())
        .await;

    for id in ["odd-0", "odd-1", "odd-2", "odd-3", "old"] {
        let running = stack.api().wait_for_status(id, "running").await;
        assert_eq!(running.get("requested_by"), None, "{id}");
        let cancel =
            json!({"operation_id": id, "requested_at": Timestamp::now(), "requested_by": {}});
        let id = OperationId::new(id).unwrap();
        let subject = stack.bus.names.cancel(&worker_type, &id);
        stack.bus.store(subject, cancel.to_string()).await;
        stack.api().wait_for_status(id.as_str(), "cancelled").await;
    }
}
