//! Tokens that are removed while their requests go on: event streams, waits, downloads and bodies
//! that still arrive.

use std::time::Duration;

use ktrdr_tests::events::EventStream;
use ktrdr_tests::{LIMIT, wait_for};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::narrowed_tokens::{ALL, Parties};

#[tokio::test]
async fn a_token_that_is_removed_ends_what_it_waits_for() {
    let parties = Parties::meet().await;
    let leaver = parties.client("leaver", ALL).await;
    let body = json!({"task_id": "long", "steps": 100_000, "step_ms": 20});
    leaver.running("dummy", &body).await;
    let mut all = EventStream::open(&leaver, "/api/v1/events", None).await;
    let mut one = EventStream::open(&leaver, "/api/v1/operations/long/events", None).await;
    let mut kept = EventStream::open(&parties.admin, "/api/v1/events", None).await;
    let gpu = json!({"requirements": {"gpu": true}});
    let pending = json!({"task_id": "waited-for", "execution": gpu});
    leaver.started("dummy", &pending).await;
    let waiting = {
        let leaver = leaver.clone();
        tokio::spawn(async move { leaver.get("/api/v1/operations/waited-for?wait=60").await })
    };
    wait_for("the request to arrive", LIMIT, async || {
        let log = parties.stack.backend.process.log();
        match log.contains("/api/v1/operations/waited-for") {
            true => Ok(()),
            false => Err("it has not".to_owned()),
        }
    })
    .await;

    parties.tokens.remove("leaver");

    let ends = async |events: &mut EventStream| while events.next().await.is_some() {};
    let both = async {
        ends(&mut all).await;
        ends(&mut one).await;
    };
    tokio::time::timeout(Duration::from_secs(15), both)
        .await
        .expect("both streams to end");
    let answer = tokio::time::timeout(Duration::from_secs(15), waiting).await;
    let answer = answer.expect("an answer in time").unwrap();
    answer.expect_problem(401, "unauthorized");

    // Others are not disturbed.
    parties.admin.cancel("long").await.expect(200);
    kept.operation("long", "cancelled").await;
}

#[tokio::test]
async fn a_cancel_at_a_worker_waits_no_longer_than_its_token_is_valid() {
    let parties = Parties::meet().await;
    let leaver = parties.client("leaver", ALL).await;
    let body = json!({"task_id": "long", "steps": 500, "step_ms": 20, "ignore_cancel": true});
    leaver.running("dummy", &body).await;
    let token = parties.tokens.token("leaver");
    let at_worker = parties.visible.api.with_token(&token);
    let path = "/api/v1/operations/long/cancel?wait_seconds=60";
    let cancel = tokio::spawn(async move { at_worker.delete(path).await });
    let stored = "the cancel to be stored";
    leaver
        .wait_for_operation("long", stored, |operation| {
            operation.at("/data/cancel_requested_at").is_string()
        })
        .await;

    parties.tokens.remove("leaver");

    cancel.await.unwrap().expect_problem(401, "unauthorized");
}

/// A result of 30 MB does not fit into the buffers between server and client.
#[tokio::test]
async fn a_download_breaks_off_when_its_token_is_removed() {
    const BYTES: usize = 30_000_000;
    let parties = Parties::meet().await;
    let leaver = parties.client("leaver", ALL).await;
    let body = json!({"task_id": "large", "steps": 0, "result_bytes": BYTES});
    leaver.started("dummy", &body).await;
    leaver.wait_for_status("large", "completed").await;

    let token = parties.tokens.token("leaver");
    let address = leaver.base().strip_prefix("http://").unwrap();
    let mut download = TcpStream::connect(address).await.unwrap();
    let request = format!(
        "GET /api/v1/operations/large/results HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
    );
    download.write_all(request.as_bytes()).await.unwrap();
    let mut head = [0; 1024];
    download.read_exact(&mut head).await.unwrap();
    assert!(head.starts_with(b"HTTP/1.1 200"));

    parties.revoke("leaver", &leaver).await;

    let mut rest = Vec::new();
    // Cut off with or without an error.
    let _ = tokio::time::timeout(LIMIT, download.read_to_end(&mut rest))
        .await
        .expect("an end in time");
    assert!(rest.len() < BYTES, "{} bytes", rest.len());
    assert!(!rest.ends_with(b"0\r\n\r\n"), "it does not look complete");
}

/// A start body that drips in while the token is removed.
#[tokio::test]
async fn a_start_whose_token_is_removed_while_its_body_arrives_is_refused() {
    let parties = Parties::meet().await;
    let leaver = parties.client("leaver", ALL).await;
    let token = parties.tokens.token("leaver");
    let address = leaver.base().strip_prefix("http://").unwrap();
    let mut slow = TcpStream::connect(address).await.unwrap();
    let body = r#"{"task_id": "too-late", "steps": 0}"#;
    let head = format!(
        "POST /api/v1/dummy/start HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    let (first, last) = body.split_at(10);
    slow.write_all(head.as_bytes()).await.unwrap();
    slow.write_all(first.as_bytes()).await.unwrap();
    wait_for("the request to have begun", LIMIT, async || {
        match parties.stack.backend.process.log().contains("dummy/start") {
            true => Ok(()),
            false => Err("it has not".to_owned()),
        }
    })
    .await;

    parties.revoke("leaver", &leaver).await;
    slow.write_all(last.as_bytes()).await.unwrap();
    let mut answer = String::new();
    slow.read_to_string(&mut answer).await.unwrap();

    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    parties.admin.operation("too-late").await.expect(404);
}
