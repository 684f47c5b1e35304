//! A backend that lags behind: what was accepted elsewhere is found all the same.

use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::future::join_all;
use ktrdr_tests::process::Signal;
use ktrdr_tests::{BackendProcess, LIMIT, Stack, wait_for};
use serde_json::json;

#[tokio::test]
async fn a_start_at_one_backend_is_found_at_another_one_that_stood_still() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    let mut other = BackendProcess::start(&stack.settings).await;

    for round in 0..20 {
        other.process.signal(Signal::Stop);
        let id = stack
            .api()
            .started("dummy", &json!({"steps": 1000, "step_ms": 50}))
            .await;
        let (read, cancel) = (other.api.clone(), other.api.clone());
        let (read_id, cancel_id) = (id.clone(), id.clone());
        let read = tokio::spawn(async move { read.operation(&read_id).await });
        let cancel = tokio::spawn(async move { cancel.cancel(&cancel_id).await });
        other.process.signal(Signal::Cont);

        let (read, cancel) = (read.await.unwrap(), cancel.await.unwrap());

        assert_eq!(read.status, 200, "round {round}: {read}");
        assert_eq!(cancel.status, 200, "round {round}: {cancel}");
    }
}

#[tokio::test]
async fn an_unknown_id_is_not_denied_without_nats_and_answered_within_moments_while_it_is_frozen() {
    let mut stack = Stack::start().await;
    let unknown = async |id: &str| {
        let begun = Instant::now();
        let answer = stack.backend.api.operation(id).await;
        (answer, begun.elapsed())
    };

    stack.nats.signal(Signal::Stop);
    let (answer, frozen) = unknown("nobody-1").await;
    answer.expect_problem(503, "not_ready");
    stack.nats.signal(Signal::Cont);
    stack.nats.kill();
    wait_for("the backend to notice", LIMIT, async || {
        match stack.api().is_ready().await {
            Ok(()) => Err("ready".to_owned()),
            Err(_) => Ok(()),
        }
    })
    .await;
    let (answer, away) = unknown("nobody-2").await;
    let no_id = stack.api().operation("no%20operation%20has%20this").await;

    answer.expect_problem(503, "nats_unavailable");
    no_id.expect_problem(404, "operation_not_found");
    // Waiting for NATS takes a second at most; a busy machine may add some.
    assert!(frozen < Duration::from_secs(10), "{frozen:?}");
    assert!(away < Duration::from_millis(900), "{away:?}");
}

#[tokio::test]
async fn an_unknown_id_is_denied_although_the_newest_messages_were_removed() {
    let mut stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    let id = stack.api().started("dummy", &json!({"steps": 0})).await;
    stack.api().wait_for_status(&id, "completed").await;
    stack.bus.settled().await;

    // The stream still knows its last sequence. Nobody will ever deliver it.
    let stream = stack.bus.jetstream.get_stream("KTRDR").await.unwrap();
    stream.purge().await.unwrap();
    stack.backend.restart().await;

    stack
        .api()
        .operation(&id)
        .await
        .expect_problem(404, "operation_not_found");
}

#[tokio::test]
async fn made_up_ids_cost_nats_next_to_nothing() {
    let stack = Stack::start().await;
    let mut asked = stack.bus.subscribe("$JS.API.STREAM.INFO.KTRDR").await;
    let api = stack.api();
    let begun = Instant::now();

    for round in 0..10 {
        let made_up = (0..100).map(|number| format!("nobody-{round}-{number}"));
        let answers = join_all(made_up.map(|id| async move { api.operation(&id).await })).await;
        for answer in answers {
            answer.expect_problem(404, "operation_not_found");
        }
    }
    let no_id = api
        .operation("no%20operation%20can%20have%20this%20id")
        .await;

    no_id.expect_problem(404, "operation_not_found");
    // One in 20 ms, and those with which the backend looks after the stream by itself.
    let most = begun.elapsed().as_millis() / 20 + begun.elapsed().as_millis() / 200 + 20;
    stack.bus.publish("$JS.API.STREAM.INFO.KTRDR", "end").await;
    let mut count = 0;
    while let Some(message) = asked.next().await
        && message.payload != "end"
    {
        count += 1;
    }
    assert!(count >= 1, "nobody asked");
    assert!(count <= most, "{count} questions, at most {most} expected");
}
