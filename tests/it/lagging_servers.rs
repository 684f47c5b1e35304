//! A cluster in which one server stands still: nobody says what is not true.

use std::time::{Duration, Instant};

use async_nats::jetstream::consumer;
use futures::TryStreamExt;
use ktrdr_tests::process::Signal;
use ktrdr_tests::{
    Answer, BackendProcess, Bus, Client, Cluster, LIMIT, Settings, WorkerProcess, wait_for,
};
use serde_json::json;

/// Backends that are started until the reader of one is on a follower. Each of three servers may get it.
const MAX_TRIES: usize = 20;

/// The server on which the one consumer is that reads the stream for a backend, but is not in `old`.
async fn reader(bus: &Bus, old: &[String]) -> (String, usize) {
    wait_for("the consumer of the backend", LIMIT, async || {
        let stream = bus.jetstream.get_stream_no_info("KTRDR").await;
        let stream = stream.map_err(|error| error.to_string())?;
        let all: Vec<consumer::Info> = stream
            .consumers()
            .try_collect()
            .await
            .map_err(|error| error.to_string())?;
        let mut readers = all.into_iter().filter(|info| {
            let description = info.config.description.as_deref();
            description == Some("KTRDR backend projection") && !old.contains(&info.name)
        });
        let info = readers.next().ok_or("no consumer")?;
        let server = info.cluster.and_then(|cluster| cluster.leader);
        let server = server.ok_or("no server")?;
        let number = server.trim_start_matches('n').parse();
        Ok((info.name, number.map_err(|_| server)?))
    })
    .await
}

/// Asks a backend for an operation that was accepted. It may not know, but it must not deny it.
async fn is_shown(api: &Client, id: &str) -> Result<(), String> {
    let path = format!("/api/v1/operations/{id}");
    let answer: Answer = api.try_get(&path).await?;
    match answer.status {
        200 => Ok(()),
        503 => Err(answer.to_string()),
        _ => panic!("an operation that was accepted: {answer}"),
    }
}

async fn wait_until_shown(api: &Client, id: &str) {
    wait_for("the operation", LIMIT, async || is_shown(api, id).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_stands_still_makes_no_backend_deny_what_was_accepted() {
    let mut cluster = Cluster::start().await;
    let settings = Settings::fast(cluster.url()).with("KTRDR_STREAM_REPLICAS", "3");
    let mut near = BackendProcess::start(&settings).await;
    let _worker = WorkerProcess::start(&settings, "dummy", "w1").await;
    near.api.wait_for_worker("w1", "AVAILABLE").await;
    let bus = cluster.servers[0].bus().await;
    let leader = cluster.leader_of(&bus.jetstream, "KTRDR").await;
    let at = |server: usize| Settings {
        nats_url: cluster.servers[server].url(),
        ..settings.clone()
    };

    // A backend at the leader whose reader is on one of the followers.
    let mut old = vec![reader(&bus, &[]).await.0];
    let frozen = loop {
        assert!(
            old.len() <= MAX_TRIES,
            "server {leader} leads the stream, and had the reader of each of {MAX_TRIES} backends"
        );
        near.process.stop().await;
        near = BackendProcess::start(&at(leader)).await;
        let (name, server) = reader(&bus, &old).await;
        if server != leader {
            break server;
        }
        old.push(name);
    };
    let far = BackendProcess::start(&at(frozen)).await;
    for api in [&near.api, &far.api] {
        api.wait_for_worker("w1", "AVAILABLE").await;
    }

    cluster.servers[frozen].signal(Signal::Stop);
    let stopped = Instant::now();
    let mut ids = Vec::new();
    while stopped.elapsed() < Duration::from_secs(3) {
        let body = json!({"steps": 0, "task_id": format!("op-{}", ids.len())});
        let answer = near.api.start("dummy", &body).await;
        assert!([202, 503].contains(&answer.status), "{answer}");
        if answer.status == 202 {
            let id = answer.json["operation_id"].as_str().unwrap().to_owned();
            let (one, other) = tokio::join!(is_shown(&near.api, &id), is_shown(&far.api, &id));
            drop((one, other));
            ids.push(id);
        }
    }
    assert!(!ids.is_empty(), "nothing was accepted");

    // It is connected to a server that says nothing.
    let unready = far
        .api
        .wait_for_answer("/ready", "not ready", |ready| ready.status == 503);
    unready.await.expect_problem(503, "nats_unavailable");
    // Its reader is on that server, and is given up.
    for id in &ids {
        wait_until_shown(&near.api, id).await;
    }
    println!("read on after {:?}", stopped.elapsed());
    near.api
        .wait_for_answer("/ready", "ready", |ready| ready.status == 200)
        .await;

    cluster.servers[frozen].signal(Signal::Cont);
    for id in &ids {
        wait_until_shown(&far.api, id).await;
        near.api.wait_for_status(id, "completed").await;
    }
}
