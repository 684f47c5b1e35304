//! Paused queues: nothing of the type starts, what runs goes on, and the pause holds until it ends.

use std::time::Duration;

use futures::TryStreamExt;
use ktrdr_protocol::time::Timestamp;
use ktrdr_tests::engines::GateEngine;
use ktrdr_tests::{BackendProcess, LIMIT, Stack, wait_for};
use reqwest::Method;
use serde_json::{Value, json};

/// The consumers of the worker type `gate`, each with whether it is paused.
async fn consumers(stack: &Stack) -> Result<Vec<(String, bool)>, String> {
    let stream = stack.bus.jetstream.get_stream("KTRDR").await;
    let stream = stream.map_err(|error| error.to_string())?;
    let infos: Result<Vec<_>, _> = stream.consumers().try_collect().await;
    let mut found: Vec<_> = infos
        .map_err(|error| error.to_string())?
        .into_iter()
        .filter(|info| info.name.starts_with("gate-"))
        .map(|info| (info.name, info.paused))
        .collect();
    found.sort();
    Ok(found)
}

async fn wait_for_consumers(stack: &Stack, wanted: &[(&str, bool)]) {
    wait_for("the consumers", LIMIT, async || {
        let found = consumers(stack).await?;
        let is_so = found.len() == wanted.len()
            && wanted
                .iter()
                .zip(&found)
                .all(|((name, paused), found)| found.0 == *name && found.1 == *paused);
        if is_so {
            Ok(())
        } else {
            Err(format!("{found:?}"))
        }
    })
    .await;
}

/// What `GET /api/v1/queues` says about one queue of the worker type `gate`.
async fn queue(stack: &Stack, name: &str) -> Value {
    let answer = stack.api().get("/api/v1/queues").await.expect(200);
    let queues = answer.at("/data/queues").as_array().unwrap().clone();
    let mut found = queues
        .into_iter()
        .filter(|queue| queue["worker_type"] == "gate" && queue["queue"] == name);
    found.next().unwrap_or_default()
}

#[tokio::test]
async fn what_runs_goes_on_and_nothing_else_starts_until_the_type_is_resumed() {
    let mut stack = Stack::start().await;
    let (engine, gate) = GateEngine::new();
    let _worker = stack
        .local_worker(engine, "w1", &["--capabilities", r#"{"cores":2}"#])
        .await;
    let first = stack.api().started("gate", &json!({})).await;
    gate.started().await;

    let answer = stack
        .api()
        .post("/api/v1/queues/gate/pause", &json!({}))
        .await;
    assert_eq!(answer.expect(200).at("/data/paused_until"), &Value::Null);
    let waiting = stack.api().started("gate", &json!({})).await;
    gate.open(1);
    stack.api().wait_for_status(&first, "completed").await;
    // A queue that is made later is paused, too.
    let needs = json!({"execution": {"requirements": {"cores": 2}}});
    let later = stack.api().started("gate", &needs).await;
    wait_for_consumers(&stack, &[("gate-any", true), ("gate-cores2", true)]).await;

    // So is a queue whose consumer was lost, and a restart changes nothing.
    stack.backend.process.kill();
    let stream = stack.bus.jetstream.get_stream("KTRDR").await.unwrap();
    stream.delete_consumer("gate-any").await.unwrap();
    stack.backend.restart().await;
    wait_for_consumers(&stack, &[("gate-any", true), ("gate-cores2", true)]).await;
    let shown = queue(&stack, "any").await;
    assert_eq!(
        (&shown["paused"], &shown["waiting"], &shown["running"]),
        (&json!(true), &json!(1), &json!(0))
    );
    assert!(gate.unseen().await.is_empty(), "nothing has started");

    gate.open_for_all();
    stack
        .api()
        .post("/api/v1/queues/gate/resume", &json!({}))
        .await
        .expect(200);

    stack.api().wait_for_status(&waiting, "completed").await;
    stack.api().wait_for_status(&later, "completed").await;
    assert_eq!(queue(&stack, "any").await["paused"], false);
}

#[tokio::test]
async fn a_pause_with_an_end_ends_by_itself() {
    let stack = Stack::start().await;
    let (_worker, gate) = stack.gate_worker("w1").await;
    gate.open_for_all();
    let until = Timestamp::now().plus(Duration::from_secs(2));

    let body = json!({"until": until});
    let answer = stack.api().post("/api/v1/queues/gate/pause", &body).await;
    assert_eq!(answer.expect(200).at("/data/paused_until"), &json!(until));
    let id = stack.api().started("gate", &json!({})).await;

    let done = stack.api().wait_for_status(&id, "completed").await;
    let started: Timestamp = serde_json::from_value(done["started_at"].clone()).unwrap();
    assert!(started >= until, "{started} is before {until}");
    assert_eq!(queue(&stack, "any").await["paused"], false);
}

#[tokio::test]
async fn a_pause_holds_on_every_backend_and_in_a_new_bucket_and_others_are_ended() {
    let stack = Stack::start().await;
    let (_worker, gate) = stack.gate_worker("w1").await;
    gate.open_for_all();
    let second = BackendProcess::start(&stack.settings).await;
    let pause = stack
        .api()
        .post("/api/v1/queues/gate/pause", &json!({}))
        .await;
    pause.expect(200);
    let id = second.api.started("gate", &json!({})).await;

    stack
        .bus
        .jetstream
        .delete_key_value("KTRDR_WORKER_TYPES")
        .await
        .unwrap();
    let bucket = wait_for("the pause in the new bucket", LIMIT, async || {
        let bucket = stack
            .bus
            .jetstream
            .get_key_value("KTRDR_WORKER_TYPES")
            .await;
        let bucket = bucket.map_err(|error| error.to_string())?;
        match bucket.get("pause.gate").await {
            Ok(Some(_)) => Ok(bucket),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    // Somebody ends the pause of a consumer by hand, against the wish.
    let stream = stack.bus.jetstream.get_stream("KTRDR").await.unwrap();
    stream.resume_consumer("gate-any").await.unwrap();
    bucket.put("pause.other", "{}".into()).await.unwrap();
    wait_for_consumers(&stack, &[("gate-any", true)]).await;

    let resume = second
        .api
        .post("/api/v1/queues/gate/resume", &json!({}))
        .await;
    resume.expect(200);
    second.api.wait_for_status(&id, "completed").await;

    // A long pause that nobody wanted ends.
    let far = async_nats::datetime::from_nanos(4_102_444_800_000_000_000).unwrap();
    stream.pause_consumer("gate-any", far).await.unwrap();
    wait_for_consumers(&stack, &[("gate-any", false)]).await;
}

#[tokio::test]
async fn wrong_pauses_are_refused() {
    let stack = Stack::start().await;
    let _worker = stack.gate_worker("w1").await;
    let refuse = async |worker_type: &str, body: Value, status: u16, code: &str| {
        let path = format!("/api/v1/queues/{worker_type}/pause");
        let answer = stack.api().post(&path, &body).await;
        answer.expect_problem(status, code)
    };

    refuse("nothing", json!({}), 404, "worker_type_not_found").await;
    for (body, path) in [
        (json!({"until": "2001-01-01T00:00:00Z"}), "/until"),
        (json!({"until": 7}), "/until"),
        (json!({"since": null}), ""),
    ] {
        let answer = refuse("gate", body, 422, "invalid_request").await;
        assert_eq!(answer.at("/violations/0/path"), path, "{answer}");
    }
    let request = stack
        .api()
        .request(Method::POST, "/api/v1/queues/gate/pause")
        .body("{");
    let answer = stack.api().send(request).await;
    answer.expect_problem(400, "bad_json");
    assert_eq!(queue(&stack, "any").await["paused"], false);
}

#[tokio::test]
async fn a_start_into_a_paused_type_says_so() {
    let stack = Stack::start().await;
    let (_worker, gate) = stack.gate_worker("w1").await;
    gate.open_for_all();
    let path = "/api/v1/queues/gate/pause";
    stack.api().post(path, &json!({})).await.expect(200);

    let answer = stack.api().start("gate", &json!({})).await.expect(202);

    let warning = answer.json["warning"].as_str().unwrap_or_default();
    let wanted = "the worker type gate is paused until somebody resumes it";
    assert!(warning.contains(wanted), "{answer}");
    let stats = stack.api().get("/api/v1/stats").await.expect(200);
    let nobody = "The worker type gate is paused until somebody resumes it";
    assert_eq!(stats.at("/data/queues/0/nobody"), nobody, "{stats}");
}
