//! The settings in force live with the streams: no process changes them because it was started, and
//! `ktrdr-backend configure` changes them without a restart.

use std::time::Duration;

use async_nats::jetstream::stream::Config;
use ktrdr_bus::permissions::Role;
use ktrdr_protocol::subject::SubjectNames;
use ktrdr_tests::{
    BackendProcess, Bus, Cluster, LIMIT, NatsServer, Settings, Stack, WorkerProcess, wait_for,
};
use serde_json::json;

/// The streams that every backend makes.
const STREAMS: [&str; 6] = [
    "KTRDR",
    "KTRDR_METRICS",
    "KV_KTRDR_WORKER_TYPES",
    "KV_KTRDR_CHECKPOINTS",
    "OBJ_KTRDR_RESULTS",
    "KTRDR_LOGS",
];

const DAY: Duration = Duration::from_secs(86_400);

async fn config(bus: &Bus, stream: &str) -> Config {
    let stream = bus.jetstream.get_stream(stream).await.unwrap();
    stream.cached_info().config.clone()
}

async fn configs(bus: &Bus) -> Vec<Config> {
    let mut found = Vec::new();
    for stream in STREAMS {
        found.push(config(bus, stream).await);
    }
    found
}

/// The lease of the only queue of a worker type.
async fn lease_of(bus: &Bus, worker_type: &str) -> Duration {
    let stream = bus.jetstream.get_stream("KTRDR").await.unwrap();
    let consumer = format!("{worker_type}-any");
    let info = stream.consumer_info(&consumer).await.unwrap();
    info.config.ack_wait
}

/// Runs `ktrdr-backend configure` and returns what it prints.
fn configure(settings: &Settings, arguments: &[&str]) -> String {
    let mut command = settings.command("ktrdr-backend");
    command
        .arg("configure")
        .args(arguments)
        .env("NATS_URL", &settings.nats_url)
        .envs(settings.user_env(&Role::Backend));
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}{errors}");
    text
}

#[tokio::test]
async fn a_backend_with_defaults_takes_nothing_away() {
    let stack = Stack::start_with(|settings| {
        settings
            .with("KTRDR_RETENTION", "30d")
            .with("KTRDR_STREAM_MAX_BYTES", "500MB")
            .with("KTRDR_RESULTS_MAX_BYTES", "1GiB")
    })
    .await;
    let before = configs(&stack.bus).await;
    assert!(before[0].max_age >= 30 * DAY, "{:?}", before[0]);
    assert_eq!(before[0].max_bytes, 500_000_000);
    assert_eq!(before[4].max_bytes, 1 << 30);

    let other = BackendProcess::start(&Settings::fast(stack.nats.url())).await;

    assert_eq!(configs(&stack.bus).await, before);
    let log = other.process.log();
    assert!(!log.contains("follows the settings in force"), "{log}");
}

#[tokio::test]
async fn a_backend_that_is_asked_for_less_follows_what_is_stored_and_says_so() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    let id = stack.api().started("dummy", &json!({"steps": 0})).await;
    stack.api().wait_for_status(&id, "completed").await;
    let before = configs(&stack.bus).await;

    let settings = stack.settings.clone().with("KTRDR_RETENTION", "100ms");
    let other = BackendProcess::start(&settings).await;

    other.api.operation(&id).await.expect(200);
    assert_eq!(configs(&stack.bus).await, before);
    let log = other.process.log();
    let line = log
        .lines()
        .find(|line| line.contains("follows the settings in force"))
        .unwrap_or_else(|| panic!("{log}"));
    assert!(line.contains("WARN"), "{line}");
    assert!(
        line.contains("KTRDR_RETENTION is 7days, not 100ms"),
        "{line}"
    );
    assert!(
        line.contains("ktrdr-backend configure --retention 100ms --apply"),
        "{line}"
    );
}

#[tokio::test]
async fn a_stream_of_an_earlier_version_keeps_what_it_does() {
    let nats = NatsServer::start().await;
    let bus = nats.bus().await;
    let old = Config {
        name: "KTRDR".to_owned(),
        subjects: SubjectNames::new("ktrdr").unwrap().stream_subjects(),
        max_age: 30 * DAY,
        max_bytes: 77_000_000,
        ..Config::default()
    };
    bus.jetstream.create_stream(old).await.unwrap();

    let settings = Settings::fast(nats.url()).with("KTRDR_RETENTION", "7d");
    let backend = BackendProcess::start(&settings).await;

    let now = config(&bus, "KTRDR").await;
    assert_eq!(now.max_bytes, 77_000_000);
    assert!(now.max_age >= 30 * DAY, "{now:?}");
    assert_eq!(now.metadata["ktrdr-retention"], "30days");
    let log = backend.process.log();
    assert!(
        log.contains("KTRDR_RETENTION is 30days, not 7days"),
        "{log}"
    );
}

#[tokio::test]
async fn a_worker_makes_no_streams_and_waits_for_a_backend() {
    let nats = NatsServer::start().await;
    let bus = nats.bus().await;
    let settings = Settings::fast(nats.url());

    let worker = WorkerProcess::launch(&settings, "dummy", "w1");
    wait_for("the worker to say that it waits", LIMIT, async || {
        let log = worker.process.log();
        match log.contains("a backend makes it when it starts") {
            true => Ok(()),
            false => Err(log),
        }
    })
    .await;

    assert!(bus.jetstream.get_stream("KTRDR").await.is_err());
    let backend = BackendProcess::start(&settings.with("KTRDR_STREAM_MAX_BYTES", "50MB")).await;
    backend.api.wait_for_worker("w1", "AVAILABLE").await;
    let id = backend.api.started("dummy", &json!({"steps": 0})).await;
    backend.api.wait_for_status(&id, "completed").await;
    assert_eq!(config(&bus, "KTRDR").await.max_bytes, 50_000_000);
}

#[tokio::test]
async fn configure_prints_what_would_change_and_changes_it_only_when_told() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    let id = stack.api().started("dummy", &json!({"steps": 0})).await;
    stack.api().wait_for_status(&id, "completed").await;
    let waiting = stack.api().started("dummy", &json!({"steps": 6000})).await;
    stack.api().wait_for_status(&waiting, "running").await;
    let before = configs(&stack.bus).await;

    let shown = configure(&stack.settings, &[]);
    assert!(shown.contains("KTRDR_RETENTION"), "{shown}");
    assert!(!shown.contains("->"), "{shown}");

    let asked = [
        "--retention",
        "1h",
        "--stream-max-bytes",
        "10MB",
        "--results-max-bytes",
        "20MB",
    ];
    let shown = configure(&stack.settings, &asked);
    assert!(shown.contains("7days -> 1h"), "{shown}");
    assert!(shown.contains("no limit -> 10000000"), "{shown}");
    assert!(
        shown.contains("0 of 2 operations ended longer ago"),
        "{shown}"
    );
    assert!(shown.contains("1 operations are open"), "{shown}");
    assert!(shown.contains("Nothing was changed"), "{shown}");
    assert_eq!(configs(&stack.bus).await, before);

    let applied = [asked.as_slice(), &["--apply"]].concat();
    let shown = configure(&stack.settings, &applied);
    assert!(shown.contains("Changed."), "{shown}");
    wait_for("every stream to follow", LIMIT, async || {
        let own = config(&stack.bus, "OBJ_KTRDR_RESULTS_of_dummy").await;
        let now = configs(&stack.bus).await;
        let retention = &now[0].metadata["ktrdr-retention"];
        if now[0].max_bytes == 10_000_000
            && retention == "1h"
            && now[4].max_bytes == 20_000_000
            && own.max_bytes == 20_000_000
            && own.max_age < 2 * Duration::from_secs(3600)
        {
            Ok(())
        } else {
            Err(format!("{own:?} {now:?}"))
        }
    })
    .await;

    let shown = configure(&stack.settings, &[]);
    assert!(shown.contains("1h"), "{shown}");
    stack.api().operation(&id).await.expect(200);
    let log = stack.backend.process.log();
    assert!(log.contains("a setting in force has changed"), "{log}");
}

#[tokio::test]
async fn a_lease_is_shortened_without_taking_work_from_a_healthy_worker() {
    let stack = Stack::start_with(|settings| Settings {
        lease: Duration::from_secs(4),
        ..settings
    })
    .await;
    let worker = stack.worker("dummy", "w1").await;
    let endless = json!({"steps": 6000, "execution": {"max_attempts": 1}});
    let id = stack.api().running("dummy", &endless).await;
    assert_eq!(lease_of(&stack.bus, "dummy").await, Duration::from_secs(4));

    configure(&stack.settings, &["--lease", "1s", "--apply"]);

    wait_for(
        "the queue to have the shorter lease",
        LIMIT,
        async || match lease_of(&stack.bus, "dummy").await {
            lease if lease == Duration::from_secs(1) => Ok(()),
            lease => Err(format!("{lease:?}")),
        },
    )
    .await;
    // Longer than both leases.
    let mut heartbeats = stack.bus.subscribe("ktrdr.heartbeat.dummy.w1").await;
    for _ in 0..25 {
        stack.bus.next(&mut heartbeats).await;
    }
    let running = stack.api().operation(&id).await;
    assert_eq!(running.at("/data/status"), "running", "{running}");
    assert_eq!(running.at("/data/attempt"), 1, "{running}");
    assert_eq!(stack.bus.event_names("dummy", &id).await, ["started"]);

    // A worker that dies is now noticed within the shorter lease.
    let other = stack.worker("dummy", "w2").await;
    drop(worker);
    stack.api().wait_for_status(&id, "failed").await;
    drop(other);
}

#[tokio::test]
async fn a_lease_is_lengthened_at_once() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    let id = stack.api().running("dummy", &json!({"steps": 6000})).await;

    configure(&stack.settings, &["--lease", "20s", "--apply"]);

    wait_for(
        "the queue to have the longer lease",
        LIMIT,
        async || match lease_of(&stack.bus, "dummy").await {
            lease if lease == Duration::from_secs(20) => Ok(()),
            lease => Err(format!("{lease:?}")),
        },
    )
    .await;
    stack.api().cancel(&id).await.expect(200);
    let cancelled = stack.api().wait_for_status(&id, "cancelled").await;
    assert_eq!(cancelled["attempt"], 1, "{cancelled}");
}

/// Waits for a line in the log of a worker.
async fn says(worker: &WorkerProcess, parts: &[&str]) {
    wait_for(&format!("the worker to say {parts:?}"), LIMIT, async || {
        let log = worker.process.log();
        let is_said = |line: &str| parts.iter().all(|part| line.contains(part));
        match log.lines().any(is_said) {
            true => Ok(()),
            false => Err(log),
        }
    })
    .await;
}

#[tokio::test]
async fn a_result_that_does_not_fit_names_the_limit_and_waits_for_room() {
    let stack =
        Stack::start_with(|settings| settings.with("KTRDR_RESULTS_MAX_BYTES", "200kB")).await;
    let worker = stack.worker("dummy", "w1").await;

    let body = json!({"steps": 0, "result_bytes": 300_000});
    let id = stack.api().started("dummy", &body).await;
    says(
        &worker,
        &[
            "WARN",
            "KTRDR_RESULTS_MAX_BYTES",
            "configure --results-max-bytes",
        ],
    )
    .await;
    configure(&stack.settings, &["--results-max-bytes", "10MB", "--apply"]);

    let done = stack.api().wait_for_status(&id, "completed").await;
    assert_eq!(done["attempt"], 1, "{done}");
}

#[tokio::test]
async fn an_end_that_does_not_fit_is_said_and_waits_for_room() {
    let stack =
        Stack::start_with(|settings| settings.with("KTRDR_STREAM_MAX_BYTES", "150000")).await;
    let worker = stack.worker("dummy", "w1").await;
    let body = json!({"steps": 30, "step_ms": 100});
    let id = stack.api().running("dummy", &body).await;

    for size in [4000, 200, 1] {
        let junk = || {
            let payload = vec![b'x'; size].into();
            stack.bus.jetstream.publish("ktrdr.op.dummy.junk", payload)
        };
        while junk().await.unwrap().await.is_ok() {}
    }
    says(
        &worker,
        &[
            "WARN",
            "events cannot be stored",
            "configure --stream-max-bytes",
        ],
    )
    .await;
    configure(&stack.settings, &["--stream-max-bytes", "1MB", "--apply"]);

    let done = stack.api().wait_for_status(&id, "completed").await;
    assert_eq!(done["attempt"], 1, "{done}");
}

#[tokio::test]
async fn copies_are_never_removed_by_a_default_and_made_or_removed_by_configure() {
    let cluster = Cluster::start().await;
    let bus = Bus::connect(&cluster.url(), SubjectNames::new("ktrdr").unwrap()).await;
    let three = Settings::fast(cluster.url()).with("KTRDR_STREAM_REPLICAS", "3");
    let first = BackendProcess::start(&three).await;
    let copies = async |wanted: usize| {
        wait_for(&format!("{wanted} copies"), LIMIT, async || {
            for stream in STREAMS {
                let found = bus.jetstream.get_stream(stream).await;
                let found = found.map_err(|error| error.to_string())?;
                let found = found.cached_info().config.num_replicas;
                if found != wanted {
                    return Err(format!("{found} of {stream}"));
                }
            }
            Ok(())
        })
        .await;
    };
    copies(3).await;

    let settings = Settings::fast(cluster.url());
    let _other = BackendProcess::start(&settings).await;
    let asked = settings.clone().with("KTRDR_STREAM_REPLICAS", "1");
    let asked = BackendProcess::start(&asked).await;

    copies(3).await;
    let log = asked.process.log();
    assert!(log.contains("KTRDR_STREAM_REPLICAS is 3, not 1"), "{log}");
    drop(asked);

    let shown = configure(&settings, &["--stream-replicas", "1"]);
    assert!(
        shown.contains("2 of 3 copies of every stream are removed"),
        "{shown}"
    );
    copies(3).await;
    configure(&settings, &["--stream-replicas", "1", "--apply"]);
    copies(1).await;
    configure(&settings, &["--stream-replicas", "3", "--apply"]);
    copies(3).await;
    drop(first);
}
