//! `/metrics` of backends and workers, and the dashboards and alerts that use their names.

use std::collections::{BTreeMap, BTreeSet};

use ktrdr_tests::process::Signal;
use ktrdr_tests::settings::repository;
use ktrdr_tests::{Client, LIMIT, Scratch, Stack, wait_for};
use serde_json::{Value, json};

/// A scrape: every sample by its name and labels, and every name that was declared.
#[derive(Debug)]
struct Scraped {
    samples: BTreeMap<String, f64>,
    names: BTreeSet<String>,
}

/// Scrapes and checks the format: every sample belongs to the metric declared last, and no sample
/// appears twice.
async fn scrape(api: &Client) -> Scraped {
    let answer = api.get("/metrics").await.expect(200);
    assert_eq!(
        answer.header("content-type"),
        "text/plain; version=0.0.4; charset=utf-8"
    );

    let (mut samples, mut names) = (BTreeMap::new(), BTreeSet::new());
    let (mut name, mut kind) = ("", "");
    let mut lines = answer.text.lines();
    while let Some(line) = lines.next() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let announced = lines
                .next()
                .and_then(|line| line.strip_prefix("# TYPE "))
                .expect("a type after its help");
            (name, kind) = announced.split_once(' ').expect("a name and a type");
            assert_eq!(help.split(' ').next(), Some(name));
            assert!(names.insert(name.to_owned()), "{name} is announced twice");
            if kind == "histogram" {
                names.extend(["_bucket", "_sum", "_count"].map(|part| format!("{name}{part}")));
            }
            assert_eq!(
                kind == "counter",
                name.ends_with("_total"),
                "{name} is a {kind}"
            );
            continue;
        }
        let (key, value) = line.rsplit_once(' ').expect("a sample and its value");
        let own = key.split('{').next().unwrap_or_default();
        let parts = ["_bucket", "_sum", "_count"].map(|part| format!("{name}{part}"));
        assert!(
            if kind == "histogram" {
                parts.iter().any(|part| part == own)
            } else {
                own == name
            },
            "{line}"
        );
        let value = value
            .parse()
            .unwrap_or_else(|_| panic!("no number: {line}"));
        assert!(
            samples.insert(key.to_owned(), value).is_none(),
            "{key} is there twice"
        );
    }
    Scraped { samples, names }
}

impl Scraped {
    #[track_caller]
    fn at(&self, key: &str) -> f64 {
        *self
            .samples
            .get(key)
            .unwrap_or_else(|| panic!("no {key} in {:#?}", self.samples))
    }
}

#[tokio::test]
async fn what_happens_is_counted() {
    let mut stack = Stack::start().await;
    let worker = stack.worker("dummy", "w1").await;

    for body in [
        json!({"task_id": "a", "steps": 1, "step_ms": 1}),
        json!({"task_id": "b", "fail_at_step": 1}),
    ] {
        stack.api().started("dummy", &body).await;
    }
    stack.api().wait_for_status("a", "completed").await;
    stack.api().wait_for_status("b", "failed").await;
    stack
        .api()
        .started(
            "dummy",
            &json!({"task_id": "c", "steps": 10_000, "step_ms": 10}),
        )
        .await;
    stack.api().wait_for_status("c", "running").await;
    stack.api().started("dummy", &json!({"task_id": "d"})).await;
    stack.api().get("/api/v1/operations/a").await.expect(200);
    stack
        .api()
        .get("/api/v1/operations/nothing")
        .await
        .expect(404);
    stack.api().get("/nothing/here").await.expect(404);
    stack.api().wait_for_worker("w1", "BUSY").await;

    let backend = scrape(stack.api()).await;
    for (key, value) in [
        (
            r#"ktrdr_operations{worker_type="dummy",status="completed"}"#,
            1.0,
        ),
        (
            r#"ktrdr_operations{worker_type="dummy",status="failed"}"#,
            1.0,
        ),
        (
            r#"ktrdr_operations{worker_type="dummy",status="running"}"#,
            1.0,
        ),
        (
            r#"ktrdr_operations{worker_type="dummy",status="pending"}"#,
            1.0,
        ),
        (
            r#"ktrdr_operations_created_total{worker_type="dummy"}"#,
            4.0,
        ),
        (r#"ktrdr_attempts_started_total{worker_type="dummy"}"#, 3.0),
        (
            r#"ktrdr_operations_ended_total{worker_type="dummy",status="completed"}"#,
            1.0,
        ),
        (r#"ktrdr_queue_depth{worker_type="dummy",queue="any"}"#, 1.0),
        (
            r#"ktrdr_queue_running{worker_type="dummy",queue="any"}"#,
            1.0,
        ),
        (
            r#"ktrdr_operation_wait_seconds_count{worker_type="dummy"}"#,
            3.0,
        ),
        (
            r#"ktrdr_operation_run_seconds_count{worker_type="dummy",status="failed"}"#,
            1.0,
        ),
        (r#"ktrdr_workers{worker_type="dummy",status="BUSY"}"#, 1.0),
        (
            r#"ktrdr_workers{worker_type="dummy",status="AVAILABLE"}"#,
            0.0,
        ),
        ("ktrdr_projection_lag_messages", 0.0),
        ("ktrdr_projection_skipped_messages_total", 0.0),
        ("ktrdr_backend_ready", 1.0),
        ("ktrdr_nats_connected", 1.0),
        ("ktrdr_nats_reconnects_total", 0.0),
        (
            r#"ktrdr_http_requests_total{route="/api/v1/operations/{id}",method="GET",status="404"}"#,
            1.0,
        ),
        (
            r#"ktrdr_http_requests_total{route="unmatched",method="GET",status="404"}"#,
            1.0,
        ),
        (
            r#"ktrdr_http_requests_total{route="/api/v1/{domain}/start",method="POST",status="202"}"#,
            4.0,
        ),
    ] {
        assert_eq!(backend.at(key), value, "{key}");
    }

    assert!(
        backend.at(r#"ktrdr_queue_oldest_age_seconds{worker_type="dummy",queue="any"}"#) >= 0.0
    );
    assert!(backend.at("ktrdr_projection_applied_sequence") >= 9.0);
    assert!(backend.at(r#"ktrdr_heartbeats_total{worker_type="dummy",status="BUSY"}"#) >= 1.0);

    let own = scrape(&worker.api).await;
    for (key, value) in [
        (r#"ktrdr_worker_slots{worker_type="dummy"}"#, 1.0),
        (r#"ktrdr_worker_slots_busy{worker_type="dummy"}"#, 1.0),
        (
            r#"ktrdr_worker_attempts_started_total{worker_type="dummy"}"#,
            3.0,
        ),
        (
            r#"ktrdr_worker_attempt_seconds_count{worker_type="dummy",outcome="completed"}"#,
            1.0,
        ),
        (
            r#"ktrdr_worker_attempt_seconds_count{worker_type="dummy",outcome="failed"}"#,
            1.0,
        ),
        (r#"ktrdr_worker_fenced_total{worker_type="dummy"}"#, 0.0),
        (
            r#"ktrdr_worker_lease_extensions_failed_total{worker_type="dummy"}"#,
            0.0,
        ),
    ] {
        assert_eq!(own.at(key), value, "{key}");
    }

    assert!(own.at(r#"ktrdr_worker_pulls_total{worker_type="dummy"}"#) >= 3.0);
    assert!(own.at(r#"ktrdr_worker_last_pull_age_seconds{worker_type="dummy"}"#) < 60.0);

    // A restarted backend shows the current state and does not count past events again.
    stack.backend.restart().await;

    let again = scrape(stack.api()).await;
    assert_eq!(
        again.at(r#"ktrdr_operations{worker_type="dummy",status="completed"}"#),
        1.0
    );

    // Counters start at 0: Prometheus would see no increase in a series that appears as 1.
    assert_eq!(
        again.at(r#"ktrdr_operations_created_total{worker_type="dummy"}"#),
        0.0
    );
    assert_eq!(
        again.at(r#"ktrdr_takeovers_total{worker_type="dummy"}"#),
        0.0
    );
    assert_eq!(
        again.at(r#"ktrdr_operations_ended_total{worker_type="dummy",status="failed"}"#),
        0.0
    );
    assert_eq!(again.at("ktrdr_http_faults_total"), 0.0);

    // No sample carries an id.
    let ids = |scraped: &Scraped| {
        scraped
            .samples
            .keys()
            .any(|key| key.contains("task") || key.contains(r#"="a""#))
    };
    assert!(!ids(&again) && !ids(&own));
}

#[tokio::test]
async fn a_takeover_and_the_fenced_end_it_causes_are_counted() {
    let stack = Stack::start().await;
    let mut frozen = stack.worker("dummy", "w1").await;

    stack
        .api()
        .started(
            "dummy",
            &json!({"task_id": "long", "steps": 30, "step_ms": 100}),
        )
        .await;
    stack.api().wait_for_status("long", "running").await;
    let _other = stack.worker("dummy", "w2").await;

    frozen.process.signal(Signal::Stop);
    wait_for("the takeover to be counted", LIMIT, async || {
        let scraped = scrape(stack.api()).await;
        match scraped
            .samples
            .get(r#"ktrdr_takeovers_total{worker_type="dummy"}"#)
        {
            Some(1.0) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    frozen.process.signal(Signal::Cont);
    wait_for("the fenced end to be counted by both", LIMIT, async || {
        let (backend, own) = (scrape(stack.api()).await, scrape(&frozen.api).await);
        let counts = [
            backend
                .samples
                .get(r#"ktrdr_fenced_finishes_total{worker_type="dummy"}"#)
                .copied(),
            own.samples
                .get(r#"ktrdr_worker_attempt_seconds_count{worker_type="dummy",outcome="fenced"}"#)
                .copied(),
        ];
        if counts == [Some(1.0); 2] {
            Ok(())
        } else {
            Err(format!("{counts:?}"))
        }
    })
    .await;
}

/// Every word in a text that looks like a metric of the product.
fn named(text: &str) -> BTreeSet<String> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.split(|c| !word(c))
        // The network of docker compose is named alike.
        .filter(|name| name.starts_with("ktrdr_") && *name != "ktrdr_ktrdr")
        .map(str::to_owned)
        .collect()
}

/// The expressions in a Markdown table's second column: what stands between backticks.
fn expressions(page: &str) -> BTreeSet<&str> {
    let (_, section) = page.split_once("## What to alert on").expect("alerts");
    let (table, _) = section.split_once("\n## ").expect("a next section");
    let rows = table.lines().filter(|line| line.starts_with("| "));
    let cells = rows.filter_map(|row| {
        let (_, rest) = row.strip_prefix("| ")?.split_once(" | ")?;
        Some(rest.split_once(" | ")?.0)
    });
    cells
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .collect()
}

#[test]
fn the_rules_are_the_alerts_of_the_page() {
    let read = |name| std::fs::read_to_string(repository().join("docs").join(name)).unwrap();
    let (page, rules) = (read("monitoring.md"), read("alerts.yml"));

    let shown = expressions(&page);
    let ruled: BTreeSet<&str> = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("expr: '")?.strip_suffix('\''))
        .collect();

    assert!(shown.len() > 20, "{shown:?}");
    assert_eq!(shown, ruled);
}

#[tokio::test]
async fn dashboards_and_alerts_use_names_that_exist() {
    let archive = Scratch::new("archive");
    let archive = format!("sqlite:{}", archive.join("archive.db").display());
    let stack = Stack::start_with(|settings| settings.with("KTRDR_ARCHIVE", archive)).await;
    let worker = stack.worker("dummy", "w1").await;

    let (backend, own) = (scrape(stack.api()).await, scrape(&worker.api).await);
    // It is there with TLS only; `tls.rs` reads it.
    let with_tls = "ktrdr_tls_certificate_expiry_timestamp_seconds".to_owned();
    let known: BTreeSet<String> = backend
        .names
        .union(&own.names)
        .cloned()
        .chain([with_tls])
        .collect();

    let dashboard = std::fs::read_to_string(repository().join("docs/grafana.json")).unwrap();
    let parsed: Value = serde_json::from_str(&dashboard).unwrap();
    assert!(parsed["panels"].as_array().unwrap().len() > 10);

    let monitoring = std::fs::read_to_string(repository().join("docs/monitoring.md")).unwrap();
    for (file, text) in [("grafana.json", &dashboard), ("monitoring.md", &monitoring)] {
        let unknown: Vec<_> = named(text).difference(&known).cloned().collect();
        assert!(
            unknown.is_empty(),
            "docs/{file} uses names that do not exist: {unknown:?}"
        );
    }

    let parts = ["_bucket", "_sum", "_count"];
    let explained = named(&monitoring);
    let silent: Vec<_> = known
        .iter()
        .filter(|name| !parts.iter().any(|part| name.ends_with(part)) && !explained.contains(*name))
        .collect();
    assert!(
        silent.is_empty(),
        "docs/monitoring.md does not explain {silent:?}"
    );
}
