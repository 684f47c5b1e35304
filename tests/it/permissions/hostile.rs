//! What programs in hostile hands are refused.

use async_nats::HeaderMap;
use async_nats::jetstream::kv;
use ktrdr_bus::permissions::Role;
use ktrdr_tests::secure::violations;
use serde_json::json;

use super::{Secure, worker_of};

#[tokio::test]
async fn a_hostile_worker_gets_no_further_than_its_own_type() {
    let secure = Secure::start("").await;
    let _training = secure.worker("training", "t1").await;
    let _dummy = secure.worker("dummy", "d1").await;
    let api = &secure.backend.api;
    let body = json!({"task_id": "secret", "symbol": "GOOG", "timeframe": "1d", "epochs": 3});
    api.start("training", &body).await.expect(202);
    api.wait_for_status("secret", "completed").await;

    let mut hostile = secure.intruder(&worker_of("dummy")).await;
    let event = json!({"event": "completed", "operation_id": "secret", "attempt": 1, "at": "2026-01-01T00:00:00Z"});
    let lost = json!({"worker_id": "t1", "worker_type": "training", "leaving": true});
    let intent = json!({"operation_id": "secret", "requested_at": "2026-01-01T00:00:00Z"});
    let consumer = json!({"stream_name": "KTRDR", "config": {"durable_name": "dummy-any", "ack_policy": "explicit", "ack_wait": 3_600_000_000_000_u64}});
    for (subject, payload) in [
        // Events, starts, cancels, heartbeats and progress of another type; starts of its own.
        ("ktrdr.op.training.secret", event.to_string()),
        ("ktrdr.start.training.any", "{}".to_owned()),
        ("ktrdr.start.training.direct", "{}".to_owned()),
        ("ktrdr.start.dummy.any", "{}".to_owned()),
        ("ktrdr.cancel.training.secret", intent.to_string()),
        ("ktrdr.heartbeat.training.t1", lost.to_string()),
        ("ktrdr.progress.training.secret", "{}".to_owned()),
        ("ktrdr.metrics.training.secret", "{}".to_owned()),
        // What others have stored.
        (
            "$JS.API.STREAM.MSG.GET.KTRDR",
            json!({"seq": 1}).to_string(),
        ),
        ("$JS.API.DIRECT.GET.KTRDR", json!({"seq": 1}).to_string()),
        (
            "$JS.API.DIRECT.GET.KTRDR.ktrdr.start.training.any",
            String::new(),
        ),
        (
            "$JS.API.DIRECT.GET.KTRDR.ktrdr.op.training.secret",
            String::new(),
        ),
        (
            "$JS.API.DIRECT.GET.KTRDR_METRICS",
            json!({"seq": 1}).to_string(),
        ),
        (
            "$JS.API.DIRECT.GET.KV_KTRDR_CHECKPOINTS.$KV.KTRDR_CHECKPOINTS.training.secret",
            String::new(),
        ),
        (
            "$JS.API.DIRECT.GET.KV_KTRDR_CHECKPOINTS",
            json!({"seq": 1}).to_string(),
        ),
        (
            "$JS.API.DIRECT.GET.OBJ_KTRDR_RESULTS_of_training.$O.KTRDR_RESULTS_of_training.M.x",
            String::new(),
        ),
        // Checkpoints, results, the catalogue.
        ("$KV.KTRDR_CHECKPOINTS.training.secret", "{}".to_owned()),
        ("$KV.KTRDR_CHECKPOINTS.secret", "{}".to_owned()),
        ("$KV.KTRDR_WORKER_TYPES.training", "{}".to_owned()),
        ("$KV.KTRDR_WORKER_TYPES.domain.training", "dummy".to_owned()),
        ("$KV.KTRDR_WORKER_TYPES.queues.dummy", "{}".to_owned()),
        ("$KV.KTRDR_WORKER_TYPES.queues.training", "{}".to_owned()),
        ("$O.KTRDR_RESULTS_of_training.M.x", "{}".to_owned()),
        ("$O.KTRDR_RESULTS_of_training.C.x", "{}".to_owned()),
        ("$O.KTRDR_RESULTS.M.x", "{}".to_owned()),
        // Queues of others, and acknowledging what others were given.
        (
            "$JS.API.CONSUMER.MSG.NEXT.KTRDR.training-any",
            "{}".to_owned(),
        ),
        ("$JS.ACK.KTRDR.training-any.1.1.1.1.0", "+TERM".to_owned()),
        ("$JS.API.CONSUMER.INFO.KTRDR.training-any", String::new()),
        // Administration.
        (
            "$JS.API.CONSUMER.CREATE.KTRDR.dummy-any.ktrdr.start.dummy.any",
            consumer.to_string(),
        ),
        ("$JS.API.CONSUMER.CREATE.KTRDR", consumer.to_string()),
        (
            "$JS.API.CONSUMER.DURABLE.CREATE.KTRDR.dummy-any",
            consumer.to_string(),
        ),
        ("$JS.API.CONSUMER.DELETE.KTRDR.training-any", String::new()),
        ("$JS.API.CONSUMER.LIST.KTRDR", "{}".to_owned()),
        ("$JS.API.CONSUMER.NAMES.KTRDR", "{}".to_owned()),
        ("$JS.API.STREAM.INFO.KTRDR", String::new()),
        ("$JS.API.STREAM.INFO.KV_KTRDR_CHECKPOINTS", String::new()),
        ("$JS.API.STREAM.LIST", String::new()),
        ("$JS.API.STREAM.NAMES", String::new()),
        ("$JS.API.STREAM.PURGE.KTRDR", String::new()),
        ("$JS.API.STREAM.PURGE.KV_KTRDR_WORKER_TYPES", String::new()),
        ("$JS.API.STREAM.DELETE.KTRDR", String::new()),
        ("$JS.API.STREAM.UPDATE.KTRDR", "{}".to_owned()),
        (
            "$JS.API.STREAM.MSG.DELETE.KTRDR",
            json!({"seq": 1}).to_string(),
        ),
        ("$JS.API.STREAM.SNAPSHOT.KTRDR", "{}".to_owned()),
        ("$JS.API.INFO", String::new()),
        // Answers to others, and requests to their services.
        ("_INBOX_backend.x", "{}".to_owned()),
        ("_INBOX_worker-training.x", "{}".to_owned()),
        ("_INBOX.x", "{}".to_owned()),
        ("ktrdr.heartbeat.request", String::new()),
        ("ktrdr.worker.t1.operation", "{}".to_owned()),
        ("$SRV.PING", String::new()),
        ("anything.else", String::new()),
    ] {
        hostile.may_not_publish(subject, payload).await;
    }
    for subject in [
        ">",
        "ktrdr.>",
        "ktrdr.op.*.*",
        "ktrdr.op.training.*",
        "ktrdr.start.dummy.*",
        "ktrdr.start.*.*",
        "ktrdr.progress.*.*",
        "ktrdr.heartbeat.*.*",
        "_INBOX.>",
        "_INBOX_backend.>",
        "_INBOX_worker-training.>",
        "_INBOX_observer.>",
        "$KV.>",
        "$KV.KTRDR_WORKER_TYPES.>",
        "$KV.KTRDR_CHECKPOINTS.>",
        "$O.>",
        "$JS.>",
        "$JS.API.>",
        "$JS.EVENT.ADVISORY.>",
        "$JS.ACK.>",
        "$SYS.>",
    ] {
        hostile.may_not_subscribe(subject).await;
    }

    // Nothing happened to anybody.
    let operation = api.operation("secret").await.expect(200);
    assert_eq!(operation.json["status"], "completed");
    api.wait_for_worker("t1", "AVAILABLE").await;
    let events = secure.bus.event_names("training", "secret").await;
    assert_eq!(events, ["started", "completed"]);
}

#[tokio::test]
async fn one_key_is_not_a_way_to_remove_all_others() {
    let secure = Secure::start("").await;
    let _training = secure.worker("training", "t1").await;
    let _dummy = secure.worker("dummy", "d1").await;
    let bucket = |name: &'static str| {
        let jetstream = secure.bus.jetstream.clone();
        async move { jetstream.get_key_value(name).await.unwrap() }
    };
    let checkpoints: kv::Store = bucket("KTRDR_CHECKPOINTS").await;
    checkpoints
        .put("training.other", "{}".into())
        .await
        .unwrap();

    // A message that rolls up replaces all others of its stream.
    let hostile = secure.intruder(&worker_of("dummy")).await;
    for subject in [
        "$KV.KTRDR_WORKER_TYPES.dummy",
        "$KV.KTRDR_CHECKPOINTS.dummy.x",
    ] {
        for how in ["all", "sub"] {
            let mut headers = HeaderMap::new();
            headers.insert("Nats-Rollup", how);
            let answer = hostile
                .jetstream
                .publish_with_headers(subject, headers, "{}".into())
                .await
                .unwrap()
                .await;
            assert!(answer.is_err(), "{subject} took a roll-up: {answer:?}");
        }
    }

    assert!(checkpoints.get("training.other").await.unwrap().is_some());
    let types = bucket("KTRDR_WORKER_TYPES").await;
    for key in ["training", "domain.training"] {
        assert!(types.get(key).await.unwrap().is_some(), "{key} is gone");
    }
}

#[tokio::test]
async fn an_observer_reads_and_changes_nothing() {
    let secure = Secure::start("").await;
    let _worker = secure.worker("dummy", "d1").await;
    let mut observer = secure.intruder(&Role::Observer).await;
    let mut heard = observer.client.subscribe("ktrdr.op.>").await.unwrap();
    observer.client.flush().await.unwrap();
    let id = secure
        .backend
        .api
        .running("dummy", &json!({"steps": 1000}))
        .await;
    secure.bus.next(&mut heard).await;

    let last = format!("$JS.API.DIRECT.GET.KTRDR.ktrdr.op.dummy.{id}");
    for (subject, payload) in [
        ("$JS.API.STREAM.INFO.KTRDR", ""),
        ("$JS.API.STREAM.INFO.KTRDR_METRICS", ""),
        ("$JS.API.CONSUMER.LIST.KTRDR", ""),
        ("$JS.API.CONSUMER.NAMES.KTRDR", ""),
        ("$JS.API.CONSUMER.INFO.KTRDR.dummy-any", ""),
        ("$JS.API.STREAM.MSG.GET.KTRDR", r#"{"seq":1}"#),
        (last.as_str(), ""),
        (
            "$JS.API.DIRECT.GET.KV_KTRDR_WORKER_TYPES.$KV.KTRDR_WORKER_TYPES.dummy",
            "",
        ),
        ("$SRV.PING", ""),
        ("$SRV.INFO.ktrdr-worker-dummy", ""),
        ("ktrdr.worker.d1.health", ""),
    ] {
        let answer = observer
            .client
            .request(subject.to_owned(), payload.into())
            .await;
        let answer = answer.unwrap_or_else(|error| panic!("{subject}: {error}"));
        let text = String::from_utf8_lossy(&answer.payload).into_owned();
        assert!(
            !text.is_empty() && !text.contains("\"error\":{"),
            "{subject}: {text}"
        );
    }

    let cancel = format!("ktrdr.cancel.dummy.{id}");
    let end = format!("ktrdr.op.dummy.{id}");
    for subject in [
        cancel.as_str(),
        end.as_str(),
        "ktrdr.start.dummy.any",
        "ktrdr.heartbeat.dummy.d1",
        "ktrdr.heartbeat.request",
        "$JS.API.CONSUMER.MSG.NEXT.KTRDR.dummy-any",
        "$JS.ACK.KTRDR.dummy-any.1.1.1.1.0",
        "$JS.API.CONSUMER.CREATE.KTRDR",
        "$JS.API.CONSUMER.DELETE.KTRDR.dummy-any",
        "$JS.API.STREAM.PURGE.KTRDR",
        "$JS.API.STREAM.DELETE.KTRDR",
        "$JS.API.STREAM.UPDATE.KTRDR",
        "$KV.KTRDR_WORKER_TYPES.dummy",
        "$KV.KTRDR_CHECKPOINTS.dummy.x",
        "$O.KTRDR_RESULTS_of_dummy.M.x",
    ] {
        observer.may_not_publish(subject, "{}").await;
    }
    observer.may_not_subscribe("_INBOX_backend.>").await;

    let operation = secure.backend.api.operation(&id).await.expect(200);
    assert_eq!(operation.json["status"], "running");
}

#[tokio::test]
async fn answers_reach_only_the_user_that_asked() {
    let secure = Secure::start("").await;
    let _dummy = secure.worker("dummy", "d1").await;
    let log = secure.nats.log();
    assert_eq!(violations(&log), Vec::<&str>::new());

    let mut hostile = secure.intruder(&worker_of("dummy")).await;
    let mut own = hostile
        .client
        .subscribe(format!("{}.>", worker_of("dummy").inbox_prefix()))
        .await
        .unwrap();
    hostile.client.flush().await.unwrap();
    let id = secure
        .backend
        .api
        .started("dummy", &json!({"steps": 1}))
        .await;
    secure.backend.api.wait_for_status(&id, "completed").await;

    // The inboxes of its own type are shared; a start request of its type is among them.
    secure.bus.next(&mut own).await;
    for prefix in ["_INBOX.>", "_INBOX_backend.>", "_INBOX_observer.>"] {
        hostile.may_not_subscribe(prefix).await;
    }
}
