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
        ("ktrdr.logs.training.secret", "{}".to_owned()),
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
            "$JS.API.DIRECT.GET.KTRDR_LOGS",
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

/// Where a hostile program would like messages to go: to operations, queues, cancels, keys and
/// workers of another type, and to the administration of streams.
const TARGETS: [&str; 9] = [
    "ktrdr.op.training.victim",
    "ktrdr.start.training.any",
    "ktrdr.cancel.training.victim",
    "ktrdr.heartbeat.training.t1",
    "$KV.KTRDR_WORKER_TYPES.training",
    "$KV.KTRDR_WORKER_TYPES.domain.training",
    "$JS.API.STREAM.PURGE.KTRDR",
    "$JS.API.STREAM.DELETE.KTRDR",
    "$JS.API.STREAM.DELETE.KTRDR_METRICS",
];

/// A running operation of another type than the hostile programs have.
async fn with_a_victim(secure: &Secure) {
    let api = &secure.backend.api;
    let body = json!({"task_id": "victim", "symbol": "GOOG", "timeframe": "1d", "epochs": 100_000});
    api.start("training", &body).await.expect(202);
    api.wait_for_status("victim", "running").await;
}

/// Nothing has reached the targets.
async fn assert_unharmed(secure: &Secure) {
    let bus = &secure.bus;
    assert_eq!(bus.event_names("training", "victim").await, ["started"]);
    assert_eq!(bus.stored("ktrdr.op.training.*").await.len(), 1);
    assert_eq!(bus.stored("ktrdr.start.training.*").await.len(), 1);
    assert!(bus.stored("ktrdr.cancel.training.*").await.is_empty());
    for stream in ["KTRDR", "KTRDR_METRICS"] {
        bus.jetstream.get_stream(stream).await.unwrap();
    }

    let types = bus.jetstream.get_key_value("KTRDR_WORKER_TYPES");
    let types = types.await.unwrap();
    let owner = types.get("domain.training").await.unwrap().unwrap();
    assert_eq!(owner, "training");
    let entry = types.get("training").await.unwrap().unwrap();
    let entry: serde_json::Value = serde_json::from_slice(&entry).unwrap();
    assert_eq!(entry["worker_type"], "training");

    let operation = secure.backend.api.operation("victim").await.expect(200);
    assert_eq!(operation.json["status"], "running");
}

/// The server publishes its answers wherever a request says, without asking what the user may do.
#[tokio::test]
async fn answers_of_the_server_carry_nothing_to_other_types() {
    let secure = Secure::start("").await;
    let _training = secure.worker("training", "t1").await;
    let _dummy = secure.worker("dummy", "d1").await;
    with_a_victim(&secure).await;
    let hostile = secure.intruder(&worker_of("dummy")).await;
    let event = json!({"event": "completed", "operation_id": "victim", "attempt": 1, "at": "2026-01-01T00:00:00Z"});
    let mut headers = HeaderMap::new();
    // What the server believes in requests about streams.
    headers.insert("Nats-Request-Info", r#"{"acc":"KTRDR","svc":"KTRDR"}"#);
    for (id, payload) in [("victim", event.to_string()), ("empty", String::new())] {
        let subject = format!("ktrdr.op.dummy.{id}");
        let stored =
            hostile
                .jetstream
                .publish_with_headers(subject, headers.clone(), payload.into());
        stored.await.unwrap().await.unwrap();
    }

    for target in TARGETS {
        for (request, payload) in [
            ("$JS.API.DIRECT.GET.KTRDR.ktrdr.op.dummy.victim", ""),
            ("$JS.API.DIRECT.GET.KTRDR.ktrdr.op.dummy.empty", ""),
            ("$JS.API.CONSUMER.INFO.KTRDR.dummy-any", ""),
            (
                "$JS.API.CONSUMER.MSG.NEXT.KTRDR.dummy-any",
                r#"{"batch":1,"no_wait":true}"#,
            ),
            ("ktrdr.op.dummy.noise", "{}"),
        ] {
            let sent = hostile
                .client
                .publish_with_reply(request, target, payload.into());
            sent.await.unwrap();
        }
    }
    // The answers before this one have left.
    let last = hostile.jetstream.publish("ktrdr.op.dummy.last", "".into());
    last.await.unwrap().await.unwrap();

    assert_unharmed(&secure).await;
    secure.backend.api.wait_for_worker("t1", "BUSY").await;
}

/// Who may answer what it is asked can ask itself, with any subject for the answer.
#[tokio::test]
async fn a_worker_that_asks_itself_reaches_nobody_else() {
    let secure = Secure::start("").await;
    let _training = secure.worker("training", "t1").await;
    let _dummy = secure.worker("dummy", "d1").await;
    with_a_victim(&secure).await;
    let hostile = secure.intruder(&worker_of("dummy")).await;
    let own = "ktrdr.op.dummy.own";
    let mut heard = hostile.client.subscribe(own).await.unwrap();

    for target in TARGETS {
        let asked = hostile.client.publish_with_reply(own, target, "{}".into());
        asked.await.unwrap();
        secure.bus.next(&mut heard).await;
        hostile.client.publish(target, "".into()).await.unwrap();
    }
    let last = hostile.jetstream.publish("ktrdr.op.dummy.last", "".into());
    last.await.unwrap().await.unwrap();

    assert_unharmed(&secure).await;
}

#[tokio::test]
async fn answers_to_an_observer_change_nothing() {
    let secure = Secure::start("").await;
    let _training = secure.worker("training", "t1").await;
    let _dummy = secure.worker("dummy", "d1").await;
    let api = &secure.backend.api;
    let done = api.started("dummy", &json!({"steps": 0})).await;
    api.wait_for_status(&done, "completed").await;
    with_a_victim(&secure).await;
    let observer = secure.intruder(&Role::Observer).await;

    let end = format!("$JS.API.DIRECT.GET.KTRDR.ktrdr.op.dummy.{done}");
    for target in TARGETS {
        for (request, payload) in [
            (end.as_str(), ""),
            ("$JS.API.STREAM.MSG.GET.KTRDR", r#"{"seq":1}"#),
            ("$JS.API.STREAM.INFO.KTRDR", ""),
            ("ktrdr.worker.d1.health", ""),
        ] {
            let sent =
                observer
                    .client
                    .publish_with_reply(request.to_owned(), target, payload.into());
            sent.await.unwrap();
        }
    }
    let last = observer.client.request(end, "".into());
    last.await.unwrap();

    assert_unharmed(&secure).await;
}

/// The server acts on some headers: it publishes by the clock, or removes what a message replaces.
#[tokio::test]
async fn headers_that_the_server_acts_on_reach_nobody_else() {
    let secure = Secure::start("").await;
    let _training = secure.worker("training", "t1").await;
    let _dummy = secure.worker("dummy", "d1").await;
    let logs = "ktrdr.logs.training.other";
    secure.bus.store(logs, "{}").await;
    let forged = json!({
        "operation_id": "forged", "operation_type": "training", "parameters": {},
        "created_at": "2026-01-01T00:00:00Z",
    });

    let hostile = secure.intruder(&worker_of("dummy")).await;
    let scheduled = [
        ("Nats-Schedule", "@at 2020-01-01T00:00:00Z"),
        ("Nats-Schedule-Target", "ktrdr.start.training.any"),
    ];
    let every_second = [
        ("Nats-Schedule", "@every 1s"),
        ("Nats-Schedule-Target", "ktrdr.cancel.training.other"),
    ];
    for subject in [
        "ktrdr.op.dummy.x",
        "ktrdr.key.dummy.concurrency.x",
        "ktrdr.start.dummy.direct",
        "ktrdr.cancel.dummy.x",
        "ktrdr.logs.dummy.x",
        "ktrdr.metrics.dummy.x",
        "$KV.KTRDR_WORKER_TYPES.dummy",
        "$KV.KTRDR_WORKER_TYPES.version.dummy.x",
        "$KV.KTRDR_CHECKPOINTS.dummy.x",
        "$O.KTRDR_RESULTS_of_dummy.M.x",
    ] {
        let rolled_up = [("Nats-Rollup", "all")];
        let attacks = [&scheduled[..], &every_second[..], &rolled_up[..]];
        for attack in attacks {
            // The bucket of its large results is its own.
            if subject.starts_with("$O.") && attack == rolled_up {
                continue;
            }
            let mut headers = HeaderMap::new();
            for (name, value) in attack {
                headers.insert(*name, *value);
            }
            let payload = forged.to_string().into();
            let sent = hostile
                .jetstream
                .publish_with_headers(subject, headers, payload)
                .await;
            let answer = sent.unwrap().await;
            assert!(answer.is_err(), "{subject} took {attack:?}: {answer:?}");
        }
    }

    assert_eq!(secure.bus.stored("ktrdr.start.>").await.len(), 0);
    assert_eq!(secure.bus.stored("ktrdr.cancel.>").await.len(), 0);
    assert_eq!(secure.bus.stored_in("KTRDR_LOGS", logs).await.len(), 1);
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
