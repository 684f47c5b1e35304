//! Outages of NATS: backends and workers reconnect, and results that were finished meanwhile are
//! stored afterwards.

use std::time::Duration;

use ktrdr_tests::{
    BackendProcess, LIMIT, NatsServer, Proxy, Settings, Stack, WorkerProcess, wait_for,
};
use serde_json::{Value, json};

#[tokio::test]
async fn everybody_survives_an_outage_of_nats_and_finished_results_arrive_afterwards() {
    let mut stack = Stack::start().await;
    let worker = stack.worker("dummy", "w1").await;

    let failed = stack
        .api()
        .started("dummy", &json!({"steps": 1, "fail_at_step": 1}))
        .await;
    stack.api().wait_for_status(&failed, "failed").await;
    let id = stack
        .api()
        .running("dummy", &json!({"steps": 10, "step_ms": 100}))
        .await;
    stack.nats.kill();
    stack
        .api()
        .wait_for_answer("/ready", "not ready", |ready| ready.status == 503)
        .await;

    let refused = stack
        .api()
        .start("dummy", &json!({"task_id": "refused"}))
        .await;
    assert_eq!(refused.status, 503, "{refused}");
    assert_ne!(refused.header("retry-after"), "");

    let again = stack
        .api()
        .post(&format!("/api/v1/operations/{failed}/retry"), &json!({}))
        .await;
    again.expect_problem(503, "nats_unavailable");

    stack.api().get("/health").await.expect(200);

    // The engine finishes while NATS is away.
    wait_for("the engine's end", LIMIT, async || {
        let health = worker.api.get("/api/v1/operations").await;
        match health.at("/data/operations/0/progress/percentage").as_f64() {
            Some(100.0) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    stack.nats.run().await;

    let done = stack.api().wait_for_status(&id, "completed").await;
    assert_eq!(done["result"]["steps"], 10);

    stack.api().wait_for_worker("w1", "AVAILABLE").await;
    let next = stack.api().started("dummy", &json!({"steps": 0})).await;
    stack.api().wait_for_status(&next, "completed").await;

    stack.bus.settled().await;
}

/// A worker whose nats-server was stopped in order, so that the server ended its open pull.
async fn worker_without_nats() -> WorkerProcess {
    let mut nats = NatsServer::start().await;
    let settings = Settings::fast(nats.url());
    // Workers make no streams and no queues.
    let _backend = BackendProcess::start(&settings).await;
    let worker = WorkerProcess::start(&settings, "dummy", "w1").await;

    let health = async |wanted: &str| {
        wait_for(&format!("the worker to be {wanted}"), LIMIT, async || {
            let page = worker.api.try_get("/health").await?;
            if page.at("/status") == wanted {
                Ok(())
            } else {
                Err(page.to_string())
            }
        })
        .await;
    };
    health("operational").await;
    wait_for("a pull", LIMIT, async || {
        let page = worker.api.try_get("/metrics").await?.text;
        if page.contains("ktrdr_worker_last_pull_age_seconds{") {
            Ok(())
        } else {
            Err(page)
        }
    })
    .await;
    nats.stop().await;
    health("degraded").await;
    worker
}

#[tokio::test]
async fn a_worker_rests_while_nats_is_away() {
    let worker = worker_without_nats().await;
    wait_for(
        "the worker to use next to no CPU",
        LIMIT,
        async || match worker.process.cpu_share().await {
            0.0..0.1 => Ok(()),
            share => Err(format!("{:.0} % of a core", share * 100.0)),
        },
    )
    .await;
}

#[tokio::test]
async fn a_worker_can_be_stopped_while_nats_is_away() {
    let mut worker = worker_without_nats().await;
    let status = worker.process.stop().await;
    assert!(status.success(), "{status}: {}", worker.process.log());
}

#[tokio::test]
async fn an_outage_that_is_longer_than_the_lease_costs_no_attempt() {
    let mut stack = Stack::start().await;
    let holder = stack.worker("dummy", "w1").await;

    let id = stack
        .api()
        .running("dummy", &json!({"steps": 600, "step_ms": 10}))
        .await;
    let _other = stack.worker("dummy", "w2").await;

    stack.nats.kill();

    // Three leases later. The other worker is idle and pulls as soon as NATS is back.
    wait_for("the engine to get on", LIMIT, async || {
        let page = holder.api.get("/api/v1/operations").await;
        match page.at("/data/operations/0/progress/step").as_u64() {
            Some(300..) => Ok(()),
            _ => Err(page.text),
        }
    })
    .await;
    stack.nats.run().await;

    let done = stack.api().wait_for_status(&id, "completed").await;
    assert_eq!(
        (done["attempt"].as_u64(), done["worker_id"].as_str()),
        (Some(1), Some("w1")),
        "{done}"
    );
    stack.bus.settled().await;
}

#[tokio::test]
async fn metric_points_of_an_outage_are_stored_once() {
    let nats = NatsServer::start().await;
    let proxy = Proxy::start(nats.port()).await;
    let settings = Settings {
        lease: Duration::from_secs(60),
        ..Settings::fast(nats.url())
    };
    let backend = BackendProcess::start(&settings).await;
    let worker = WorkerProcess::start(
        &Settings {
            nats_url: proxy.url(),
            ..settings
        },
        "dummy",
        "w1",
    )
    .await;
    backend.api.wait_for_worker("w1", "AVAILABLE").await;

    let id = backend
        .api
        .started(
            "dummy",
            &json!({"steps": 800, "step_ms": 10, "metrics_per_step": 1}),
        )
        .await;
    let path = format!("/api/v1/operations/{id}/metrics?limit=1000");
    let names = async |api: &ktrdr_tests::Client| {
        let page = api.get(&path).await.expect(200);
        page.at("/data/metrics").as_array().unwrap().clone()
    };
    wait_for("the first points", LIMIT, async || {
        match names(&backend.api).await.len() {
            0 => Err("none".to_owned()),
            _ => Ok(()),
        }
    })
    .await;

    // The outage outlasts the publish timeout, so batches are published again. Then everything
    // arrives at once.
    proxy.hold();
    wait_for(
        "more points than are stored",
        LIMIT,
        async || match names(&worker.api).await.len() {
            700.. => Ok(()),
            few => Err(few.to_string()),
        },
    )
    .await;
    proxy.restore();

    let done = backend.api.wait_for_status(&id, "completed").await;
    assert_eq!(done["attempt"], 1);
    for api in [&backend.api, &worker.api] {
        let points = names(api).await;
        let distinct: std::collections::BTreeSet<String> =
            points.iter().map(Value::to_string).collect();
        assert_eq!((points.len(), distinct.len()), (800, 800));
    }
}

#[tokio::test]
async fn backend_and_workers_wait_for_nats_at_start() {
    let mut nats = NatsServer::start().await;
    let settings = Settings::fast(nats.url());

    nats.stop().await;
    let mut backend = BackendProcess::launch(&settings);
    let _worker = WorkerProcess::start(&settings, "dummy", "w1").await;

    wait_for("an honest answer", LIMIT, async || {
        match backend.api.try_get("/ready").await?.status {
            503 => Ok(()),
            other => Err(other.to_string()),
        }
    })
    .await;
    nats.run().await;
    backend.ready().await;
    backend.api.wait_for_worker("w1", "AVAILABLE").await;
    let id = backend.api.started("dummy", &json!({"steps": 0})).await;
    backend.api.wait_for_status(&id, "completed").await;
}
