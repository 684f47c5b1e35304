//! Queues are a closed set that only backends make: whatever clients ask for, whatever was removed,
//! and whatever the release before has left.

use std::collections::BTreeSet;
use std::time::Duration;

use async_nats::jetstream::consumer::{DeliverPolicy, pull};
use futures::{StreamExt, TryStreamExt, stream};
use ktrdr_bus::queues;
use ktrdr_protocol::id::WorkerType;
use ktrdr_protocol::origin::Origin;
use ktrdr_protocol::queue_class::CLASSES;
use ktrdr_protocol::time::Timestamp;
use ktrdr_tests::engines::GateEngine;
use ktrdr_tests::{
    BackendProcess, Bus, Client, LIMIT, NatsServer, Proxy, Settings, Stack, WorkerProcess, wait_for,
};
use serde_json::{Value, json};

/// Every consumer of the operations stream.
async fn consumers(bus: &Bus) -> BTreeSet<String> {
    let stream = bus
        .jetstream
        .get_stream_no_info(bus.names.stream())
        .await
        .unwrap();
    stream.consumer_names().try_collect().await.unwrap()
}

/// The queues that the list of a worker type names; `None` without a list that can be read.
async fn listed(bus: &Bus, worker_type: &str) -> Option<Vec<String>> {
    let bucket = bus.names.worker_types_bucket();
    let bucket = bus.jetstream.get_key_value(bucket).await.unwrap();
    let list = bucket.get(format!("queues.{worker_type}")).await.unwrap()?;
    let list: Value = serde_json::from_slice(&list).ok()?;
    let names = list["queues"].as_array().unwrap().iter().map(|queue| {
        let name = queue["queue"].as_str().unwrap().to_owned();
        assert_eq!(queue["consumer"], format!("{worker_type}-{name}"));
        name
    });
    Some(names.collect())
}

/// Waits until the list of a worker type names exactly these queues.
async fn wait_for_list(bus: &Bus, worker_type: &str, queues: &[&str]) {
    wait_for(
        &format!("the list {queues:?}"),
        LIMIT * 2,
        async || match listed(bus, worker_type).await {
            Some(found) if found == queues => Ok(()),
            found => Err(format!("{found:?}")),
        },
    )
    .await;
}

fn needs(requirements: Value) -> Value {
    json!({"steps": 0, "execution": {"requirements": requirements}})
}

/// Makes the consumer of a queue, as a backend of the release before does.
async fn make_old_queue(bus: &Bus, queue: &str) -> Result<(), String> {
    let dummy = WorkerType::new("dummy").unwrap();
    let config = pull::Config {
        durable_name: Some(format!("dummy-{queue}")),
        filter_subject: bus.names.start(&dummy, &Origin::from_token(queue).unwrap()),
        ..pull::Config::default()
    };
    let made = bus
        .jetstream
        .create_consumer_strict_on_stream(config, bus.names.stream())
        .await;
    made.map(drop).map_err(|error| error.to_string())
}

#[tokio::test]
async fn a_thousand_different_requirements_make_a_bounded_number_of_queues() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;

    let bodies = (0..1000).map(|n| needs(json!({"cores": 1 + n % 256, "memory_gb": 1 + 2 * n})));
    let api = stack.api();
    let statuses: Vec<u16> = stream::iter(bodies)
        .map(|body| async move { api.start("dummy", &body).await.status })
        .buffer_unordered(50)
        .collect()
        .await;

    assert!(statuses.iter().all(|status| *status == 202), "{statuses:?}");
    let found = consumers(&stack.bus).await;
    assert!(found.len() <= CLASSES + 5, "{} consumers", found.len());
    let second = BackendProcess::start(&stack.settings).await;
    let seen = second.api.operations("limit=1").await.expect(200);
    assert_eq!(seen.at("/data/total"), &json!(1000));
}

#[tokio::test]
async fn requirements_beyond_the_largest_class_are_refused_with_the_limit() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    let before = consumers(&stack.bus).await;

    for (requirements, field, limit) in [
        (json!({"cores": 257}), "cores", "256"),
        (json!({"cores": 60_000, "memory_gb": 7}), "cores", "256"),
        (json!({"memory_gb": 2049}), "memory_gb", "2048"),
    ] {
        let body = needs(requirements);
        let answer = stack.api().start("dummy", &body).await;
        let answer = answer.expect_problem(422, "invalid_request");
        let violation = &answer.json["violations"][0];
        assert_eq!(
            violation["path"],
            format!("/execution/requirements/{field}")
        );
        assert!(
            violation["message"].as_str().unwrap().contains(limit),
            "{violation}"
        );
    }
    assert_eq!(consumers(&stack.bus).await, before);
}

#[tokio::test]
async fn a_request_waits_in_the_smallest_class_and_shows_what_was_asked_for() {
    let stack = Stack::start().await;
    let (engine, gate) = GateEngine::new();
    gate.open_for_all();
    let middle = r#"{"cores":12,"memory_gb":24}"#;
    let _middle = stack
        .local_worker(engine, "middle", &["--capabilities", middle])
        .await;

    // The worker meets the request, and not the class that covers it.
    let requirements = json!({"cores": 10, "memory_gb": 10});
    let body = json!({"execution": {"requirements": requirements}});
    let answer = stack.api().start("gate", &body).await.expect(202);
    let warning = answer.json["warning"].as_str().unwrap();
    assert!(warning.contains("cores16-mem16"), "{warning}");
    let id = answer.json["operation_id"].as_str().unwrap();
    let waiting = stack.api().operation(id).await;
    assert_eq!(waiting.at("/data/queue"), "cores16-mem16");
    assert_eq!(waiting.at("/data/execution/requirements"), &requirements);

    let body = json!({"execution": {"requirements": {"cores": 7, "memory_gb": 9}}});
    let id = stack.api().started("gate", &body).await;
    let done = stack.api().wait_for_status(&id, "completed").await;
    assert_eq!(done["queue"], "cores8-mem16");
}

#[tokio::test]
async fn a_worker_needs_no_right_to_make_or_list_consumers() {
    let nats = NatsServer::start_with(
        r#"
        authorization { users = [
            {user: admin, password: admin}
            {user: worker, password: worker, permissions: {
                publish: {deny: [
                    "$JS.API.CONSUMER.CREATE.>", "$JS.API.CONSUMER.DURABLE.>", "$JS.API.CONSUMER.DELETE.>",
                    "$JS.API.CONSUMER.PAUSE.>", "$JS.API.CONSUMER.LIST.>", "$JS.API.CONSUMER.NAMES.>",
                    "$JS.API.CONSUMER.INFO.>", "$KV.KTRDR_WORKER_TYPES.queues.>"
                ]}
                subscribe: {deny: ["$JS.EVENT.>"]}
            }}
        ] }
        no_auth_user: admin
        "#,
    )
    .await;
    let settings = Settings::fast(nats.url());
    let limited = settings
        .clone()
        .with("NATS_USER", "worker")
        .with("NATS_PASSWORD", "worker");
    let backend = BackendProcess::start(&settings).await;

    let worker = WorkerProcess::start(&limited, "dummy", "w1").await;
    backend.api.wait_for_worker("w1", "AVAILABLE").await;
    for requirements in [json!({}), json!({"cores": 1}), json!({"memory_gb": 1})] {
        let id = backend.api.started("dummy", &needs(requirements)).await;
        backend.api.wait_for_status(&id, "completed").await;
    }

    drop(worker);
    let log = nats.log();
    assert!(!log.contains("Violation"), "{log}");
}

#[tokio::test]
async fn the_list_and_the_consumers_are_made_again_when_somebody_removes_them() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    let id = stack
        .api()
        .started("dummy", &needs(json!({"cores": 1})))
        .await;
    stack.api().wait_for_status(&id, "completed").await;
    wait_for_list(&stack.bus, "dummy", &["any", "cores1"]).await;

    let bucket = stack.bus.names.worker_types_bucket();
    let bucket = stack.bus.jetstream.get_key_value(bucket).await.unwrap();
    bucket.delete("queues.dummy").await.unwrap();
    wait_for_list(&stack.bus, "dummy", &["any", "cores1"]).await;

    bucket.put("queues.dummy", "nonsense".into()).await.unwrap();
    wait_for_list(&stack.bus, "dummy", &["any", "cores1"]).await;

    let stream = stack.bus.names.stream();
    let jetstream = &stack.bus.jetstream;
    for consumer in ["dummy-any", "dummy-cores1"] {
        jetstream
            .delete_consumer_from_stream(consumer, &stream)
            .await
            .unwrap();
    }
    for requirements in [json!({}), json!({"cores": 1})] {
        let id = stack.api().started("dummy", &needs(requirements)).await;
        stack.api().wait_for_status(&id, "completed").await;
    }
}

/// A cluster can lose the entry of a consumer and keep the consumer, which accepts no other begin.
#[tokio::test]
async fn a_consumer_that_is_made_again_begins_where_it_began() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    let completed = async || {
        let body = needs(json!({"cores": 1}));
        let id = stack.api().started("dummy", &body).await;
        stack.api().wait_for_status(&id, "completed").await;
    };

    completed().await;
    let first = begin_of(&stack.bus, "dummy-cores1").await;
    completed().await;

    stack
        .bus
        .jetstream
        .delete_consumer_from_stream("dummy-cores1", stack.bus.names.stream())
        .await
        .unwrap();
    completed().await;

    assert_eq!(begin_of(&stack.bus, "dummy-cores1").await, first);
}

async fn begin_of(bus: &Bus, consumer: &str) -> DeliverPolicy {
    queues::info(&bus.jetstream, &bus.names, consumer)
        .await
        .unwrap()
        .config
        .deliver_policy
}

#[tokio::test]
async fn an_unused_queue_disappears_and_the_next_start_brings_it_back() {
    let stack = Stack::start_with(|settings| settings.with("KTRDR_QUEUE_IDLE", "300ms")).await;
    let _worker = stack.worker("dummy", "w1").await;

    for _ in 0..2 {
        let id = stack
            .api()
            .started("dummy", &needs(json!({"cores": 1})))
            .await;
        stack.api().wait_for_status(&id, "completed").await;
        wait_for_list(&stack.bus, "dummy", &["any"]).await;
        wait_for(
            "the consumer to be removed",
            LIMIT,
            async || match consumers(&stack.bus).await {
                found if found.contains("dummy-cores1") => Err(format!("{found:?}")),
                _ => Ok(()),
            },
        )
        .await;
    }

    // A queue that nobody can serve stays while its operation waits.
    let id = stack
        .api()
        .started("dummy", &needs(json!({"cores": 256})))
        .await;
    wait_for_list(&stack.bus, "dummy", &["any", "cores256"]).await;
    stack.api().cancel(&id).await.expect(200);
    wait_for_list(&stack.bus, "dummy", &["any"]).await;
    assert!(consumers(&stack.bus).await.contains("dummy-any"));
}

/// A queue that is to be removed delivers nothing for a moment. When a start comes in that moment,
/// the queue stays, and the pulls that wait get the start at once.
#[tokio::test]
async fn a_start_that_came_while_its_queue_was_paused_is_run_as_soon_as_it_goes_on() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    let id = stack.api().started("dummy", &needs(json!({}))).await;
    stack.api().wait_for_status(&id, "completed").await;
    let (jetstream, names) = (&stack.bus.jetstream, &stack.bus.names);
    let before = queues::info(jetstream, names, "dummy-any").await.unwrap();
    let until = Timestamp::now().plus(Duration::from_secs(45));
    queues::pause(jetstream, names, "dummy-any", until)
        .await
        .unwrap();

    let id = stack.api().started("dummy", &needs(json!({}))).await;
    wait_for("the start to wait in its queue", LIMIT, async || {
        let found = queues::info(jetstream, names, "dummy-any").await.unwrap();
        let waiting = found.num_pending;
        (waiting == 1).then_some(()).ok_or(waiting.to_string())
    })
    .await;
    queues::resume(jetstream, names, "dummy-any").await.unwrap();

    // Far less than the 20 seconds after which a pull is sent again.
    let soon = Duration::from_secs(8);
    wait_for("the start to be run", soon, async || {
        let found = stack.api().operation(&id).await;
        (found.at("/data/status") == "completed")
            .then_some(())
            .ok_or(found.text)
    })
    .await;
    let after = queues::info(jetstream, names, "dummy-any").await.unwrap();
    assert_eq!(after.config.max_ack_pending, before.config.max_ack_pending);
}

/// Starts come at any moment of a removal, at both backends, and each of them is run once.
#[tokio::test]
async fn no_start_is_lost_while_queues_are_removed() {
    let stack = Stack::start_with(|settings| settings.with("KTRDR_QUEUE_IDLE", "1ms")).await;
    let second = BackendProcess::start(&stack.settings).await;
    let _workers = [
        stack.worker("dummy", "w1").await,
        stack.worker("dummy", "w2").await,
    ];

    let clients: [&Client; 2] = [stack.api(), &second.api];
    let dummy = WorkerType::new("dummy").unwrap();
    let lane = async |lane: usize| {
        let (requirements, queue) = [
            (json!({"cores": 1}), "\"cores1\""),
            (json!({"memory_gb": 1}), "\"mem1\""),
            (json!({"cores": 1, "memory_gb": 1}), "\"cores1-mem1\""),
        ][lane]
            .clone();
        let mut ids = Vec::new();
        let mut lists = stack
            .bus
            .subscribe(stack.bus.names.queue_list(&dummy))
            .await;
        for n in 0..20 {
            let body = needs(requirements.clone());
            let api = clients[(n + lane) % 2];
            // One alone, then several at once.
            let starts = (0..=n % 3).map(|_| api.started("dummy", &body));
            let started = futures::future::join_all(starts).await;
            for id in &started {
                api.wait_for_status(id, "completed").await;
            }
            ids.extend(started);

            // The next one comes right when the queue leaves the list, or a little later.
            loop {
                let list = stack.bus.next(&mut lists).await;
                if !String::from_utf8_lossy(&list.payload).contains(queue) {
                    break;
                }
            }
            for _ in 0..n % 7 {
                stack.bus.client.flush().await.unwrap();
            }
        }
        ids
    };
    let ids = futures::future::join_all([lane(0), lane(1), lane(2)]).await;

    for id in ids.iter().flatten() {
        let events = stack.bus.event_names("dummy", id).await;
        assert_eq!(events.last(), Some(&"completed"), "{id}: {events:?}");
    }
    let removals = |log: String| log.matches("removed the queue").count();
    let removed = removals(stack.backend.process.log()) + removals(second.process.log());
    assert!(
        removed >= 10,
        "only {removed} removals: it was not hammered"
    );
    wait_for_list(&stack.bus, "dummy", &["any"]).await;
}

#[tokio::test]
async fn a_backend_starts_although_queues_of_the_release_before_take_all_consumers() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    let waiting = stack
        .api()
        .started("dummy", &needs(json!({"cores": 256})))
        .await;
    let mut backend = stack.backend;
    backend.process.kill();

    // Numbers that are no class; the server says when there are too many.
    let refused: Vec<String> = stream::iter(0..1100)
        .map(|n| {
            let bus = stack.bus.clone();
            async move { make_old_queue(&bus, &format!("cores60000-mem{}", 3 + 4 * n)).await }
        })
        .buffer_unordered(50)
        .filter_map(async |made| made.err())
        .collect()
        .await;
    let first = refused.first().expect("the server has a limit");
    assert!(first.contains("maximum consumers"), "{first}");

    let settings = stack.settings.clone().with("KTRDR_QUEUE_IDLE", "300ms");
    let backend = BackendProcess::start(&settings).await;
    let id = backend.api.started("dummy", &json!({"steps": 0})).await;
    backend.api.wait_for_status(&id, "completed").await;
    assert_eq!(
        backend.api.operation(&waiting).await.at("/data/status"),
        "pending"
    );

    wait_for(
        "the old queues to disappear",
        LIMIT * 4,
        async || match consumers(&stack.bus).await.len() {
            0..=10 => Ok(()),
            many => Err(format!("{many} consumers")),
        },
    )
    .await;
    wait_for_list(&stack.bus, "dummy", &["any", "cores256"]).await;
}

#[tokio::test]
async fn a_backend_that_cannot_read_the_stream_says_so() {
    let nats = NatsServer::start().await;
    let bus = nats.bus().await;
    let proxy = Proxy::start(nats.port()).await;
    let settings = Settings::fast(nats.url());
    let behind = Settings::fast(proxy.url());
    let backend = BackendProcess::start(&behind).await;
    let _worker = WorkerProcess::start(&settings, "dummy", "w1").await;
    backend.api.wait_for_worker("w1", "AVAILABLE").await;

    // While it is away, others take all consumers, the backend's own included.
    proxy.cut();
    let audit = |n: usize| format!("audit-{n}");
    wait_for("the server to be full", LIMIT, async || {
        let stream = bus.jetstream.get_stream_no_info(bus.names.stream()).await;
        let stream = stream.map_err(|error| error.to_string())?;
        let known = consumers(&bus).await;
        for own in known.iter().filter(|name| !name.contains('-')) {
            let _ = bus
                .jetstream
                .delete_consumer_from_stream(own, bus.names.stream())
                .await;
        }
        let missing = (0..1000).map(audit).filter(|name| !known.contains(name));
        stream::iter(missing)
            .map(|name| {
                let config = pull::Config {
                    durable_name: Some(name),
                    ..pull::Config::default()
                };
                let stream = &stream;
                async move { stream.create_consumer(config).await.map(drop) }
            })
            .buffer_unordered(50)
            .collect::<Vec<_>>()
            .await;

        let known = consumers(&bus).await;
        let others = known.iter().filter(|name| !name.starts_with("dummy-"));
        let is_full = known.len() >= 1000 && others.clone().all(|name| name.starts_with("audit-"));
        if is_full {
            Ok(())
        } else {
            Err(format!("{} consumers", known.len()))
        }
    })
    .await;
    proxy.restore();

    let told = wait_for(
        "the backend to say that it cannot read",
        LIMIT,
        async || {
            let answer = backend.api.get("/ready").await;
            match answer.status {
                503 if answer.json["cause"].is_string() => Ok(answer),
                _ => Err(answer.text),
            }
        },
    )
    .await;
    let cause = told.json["cause"].as_str().unwrap();
    assert!(cause.contains("maximum consumers limit"), "{cause}");
    let body = json!({"steps": 0});
    let refused = backend.api.start("dummy", &body).await;
    refused.expect_problem(503, "not_ready");
    let health = backend.api.get("/health").await.expect(200);
    assert_eq!(health.json["ready"], false);

    let stream = bus.names.stream();
    for n in 0..5 {
        bus.jetstream
            .delete_consumer_from_stream(audit(n), &stream)
            .await
            .unwrap();
    }
    wait_for("the backend to be ready again", LIMIT, async || {
        backend.api.is_ready().await
    })
    .await;
    let id = backend.api.started("dummy", &body).await;
    backend.api.wait_for_status(&id, "completed").await;
}

#[tokio::test]
async fn starts_that_need_a_new_queue_are_refused_when_few_consumers_are_left() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    let stream = stack.bus.names.stream();
    let stream = stack.bus.jetstream.get_stream(stream).await.unwrap();
    for n in 0..710 {
        let config = pull::Config {
            durable_name: Some(format!("audit-{n}")),
            ..pull::Config::default()
        };
        stream.create_consumer(config).await.unwrap();
    }

    wait_for("a start to be refused", LIMIT, async || {
        let metrics = stack.api().get("/metrics").await.text;
        let measured = metrics
            .lines()
            .filter_map(|line| line.strip_prefix("ktrdr_stream_consumers "))
            .any(|count| count.parse::<f64>().unwrap() > 710.0);
        measured.then_some(()).ok_or(metrics)
    })
    .await;

    let refused = stack
        .api()
        .start("dummy", &needs(json!({"cores": 64})))
        .await;
    refused.expect_problem(503, "too_many_queues");
    let refused = stack
        .api()
        .start("dummy", &needs(json!({"cores": 32})))
        .await;
    refused.expect_problem(503, "too_many_queues");
    let id = stack.api().started("dummy", &json!({"steps": 0})).await;
    stack.api().wait_for_status(&id, "completed").await;

    let log = stack.backend.process.log();
    let warnings = log.matches("has few consumers left").count();
    assert_eq!(warnings, 1, "{log}");
}
