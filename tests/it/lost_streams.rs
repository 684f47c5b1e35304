//! Streams, buckets and consumers that somebody deletes or changes on a running system: backends
//! bring them back.

use std::fs;

use async_nats::jetstream::consumer::Config as ConsumerConfig;
use async_nats::jetstream::stream::Config;
use ktrdr_tests::{
    BackendProcess, Bus, LIMIT, NatsServer, Settings, Stack, WorkerProcess, wait_for,
};
use serde_json::{Value, json};

fn dummy() -> Value {
    json!({"steps": 1, "step_ms": 0, "metrics_per_step": 1})
}

async fn delete(bus: &Bus, stream: &str) {
    bus.jetstream.delete_stream(stream).await.unwrap();
}

/// Waits until a stream exists and its configuration meets the condition.
async fn wait_for_stream(bus: &Bus, name: &str, condition: impl Fn(&Config) -> bool) {
    wait_for(&format!("stream {name}"), LIMIT, async || {
        let stream = bus.jetstream.get_stream(name).await;
        let config = stream
            .map_err(|error| error.to_string())?
            .cached_info()
            .config
            .clone();
        if condition(&config) {
            Ok(())
        } else {
            Err(format!("{config:?}"))
        }
    })
    .await;
}

async fn consumer(bus: &Bus, name: &str) -> Result<ConsumerConfig, String> {
    let stream = bus.jetstream.get_stream("KTRDR").await;
    let stream = stream.map_err(|error| error.to_string())?;
    let info = stream.consumer_info(name).await;
    info.map(|info| info.config)
        .map_err(|error| error.to_string())
}

#[tokio::test]
async fn buckets_of_results_come_back_and_a_large_result_is_stored() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    for bucket in ["OBJ_KTRDR_RESULTS_of_dummy", "OBJ_KTRDR_RESULTS"] {
        wait_for_stream(&stack.bus, bucket, |_| true).await;
        delete(&stack.bus, bucket).await;
    }

    let large = json!({"steps": 1, "step_ms": 0, "result_bytes": 400_000});
    let id = stack.api().started("dummy", &large).await;

    stack.api().wait_for_status(&id, "completed").await;
    wait_for_stream(&stack.bus, "OBJ_KTRDR_RESULTS_of_dummy", |_| true).await;
    wait_for_stream(&stack.bus, "OBJ_KTRDR_RESULTS", |_| true).await;
}

#[tokio::test]
async fn metrics_and_checkpoints_have_their_stream_and_bucket_again() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;

    delete(&stack.bus, "KTRDR_METRICS").await;
    delete(&stack.bus, "KV_KTRDR_CHECKPOINTS").await;

    wait_for_stream(&stack.bus, "KTRDR_METRICS", |_| true).await;
    wait_for_stream(&stack.bus, "KV_KTRDR_CHECKPOINTS", |config| {
        !config.allow_rollup
    })
    .await;
    let id = stack.api().started("dummy", &dummy()).await;
    stack.api().wait_for_status(&id, "completed").await;
    let path = format!("/api/v1/operations/{id}/metrics");
    stack
        .api()
        .wait_for_answer(&path, "the metric points", |answer| {
            answer.status == 200 && answer.text.contains("\"step\"")
        })
        .await;
}

#[tokio::test]
async fn worker_types_are_known_again_also_to_a_backend_that_starts_afterwards() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;

    delete(&stack.bus, "KV_KTRDR_WORKER_TYPES").await;

    let other = BackendProcess::start(&stack.settings).await;
    for api in [stack.api(), &other.api] {
        wait_for("a start", LIMIT, async || {
            match api.start("dummy", &dummy()).await {
                answer if answer.status == 202 => Ok(()),
                answer => Err(answer.to_string()),
            }
        })
        .await;
    }
    wait_for("the list of queues", LIMIT, async || {
        let bucket = stack
            .bus
            .jetstream
            .get_key_value("KTRDR_WORKER_TYPES")
            .await;
        let bucket = bucket.map_err(|error| error.to_string())?;
        match bucket.get("queues.dummy").await {
            Ok(Some(_)) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

#[tokio::test]
async fn a_queue_whose_consumer_is_deleted_goes_on_without_another_start() {
    let stack = Stack::start().await;
    let worker = stack.worker("dummy", "w1").await;
    drop(worker);
    let mut waiting = Vec::new();
    for requirements in [json!({}), json!({"cores": 1})] {
        let mut body = dummy();
        body["execution"] = json!({"requirements": requirements});
        waiting.push(stack.api().started("dummy", &body).await);
    }

    let stream = stack.bus.jetstream.get_stream("KTRDR").await.unwrap();
    for name in ["dummy-any", "dummy-cores1"] {
        stream.delete_consumer(name).await.unwrap();
    }

    let _worker = stack.worker("dummy", "w2").await;
    for id in &waiting {
        let done = stack.api().wait_for_status(id, "completed").await;
        assert_eq!(done["attempt"], 1, "{done}");
    }
}

#[tokio::test]
async fn an_emptied_store_comes_back_with_the_settings_in_force() {
    let mut nats = NatsServer::start().await;
    let settings = Settings::fast(nats.url())
        .with("KTRDR_RETENTION", "1h")
        .with("KTRDR_STREAM_MAX_BYTES", "50MB");
    let backend = BackendProcess::start(&settings).await;
    // A worker with other settings, as in a deployment that sets them for backends alone.
    let plain = Settings::fast(nats.url());
    let _worker = WorkerProcess::start(&plain, "dummy", "w1").await;
    backend.api.wait_for_worker("w1", "AVAILABLE").await;

    nats.stop().await;
    fs::remove_dir_all(nats.store()).unwrap();
    nats.run().await;

    let bus = nats.bus().await;
    // The streams keep messages for a quarter longer than the retention.
    wait_for_stream(&bus, "KTRDR", |config| {
        config.max_age.as_secs() == 4_500 && config.max_bytes == 50_000_000
    })
    .await;
    wait_for_stream(&bus, "KTRDR_METRICS", |config| {
        config.max_age.as_secs() == 4_500
    })
    .await;
    wait_for("a start", LIMIT, async || {
        match backend.api.start("dummy", &dummy()).await {
            answer if answer.status == 202 => Ok(()),
            answer => Err(answer.to_string()),
        }
    })
    .await;
}

#[tokio::test]
async fn settings_that_somebody_changed_by_hand_are_set_back() {
    let stack = Stack::start().await;
    for name in ["KTRDR_METRICS", "KV_KTRDR_CHECKPOINTS"] {
        let stream = stack.bus.jetstream.get_stream(name).await.unwrap();
        let before = stream.cached_info().config.clone();
        let changed = Config {
            max_age: before.max_age / 7,
            ..before.clone()
        };
        stack.bus.jetstream.update_stream(&changed).await.unwrap();

        wait_for_stream(&stack.bus, name, |config| config.max_age == before.max_age).await;
    }
}

#[tokio::test]
async fn a_queue_of_an_earlier_version_may_hold_as_many_retries_as_a_new_one() {
    let stack = Stack::start().await;
    drop(stack.worker("dummy", "w1").await);
    let before = wait_for("the queue", LIMIT, async || {
        consumer(&stack.bus, "dummy-any").await
    })
    .await;
    assert!(before.max_ack_pending >= 1_000_000, "{before:?}");

    let lower = ConsumerConfig {
        max_ack_pending: 100_000,
        ..before
    };
    let jetstream = &stack.bus.jetstream;
    let changed = jetstream.update_consumer_on_stream(lower, "KTRDR").await;
    assert_eq!(
        changed.unwrap().cached_info().config.max_ack_pending,
        100_000
    );

    wait_for("the bound to be raised", LIMIT, async || {
        match consumer(&stack.bus, "dummy-any").await?.max_ack_pending {
            1_000_000.. => Ok(()),
            other => Err(other.to_string()),
        }
    })
    .await;
}
