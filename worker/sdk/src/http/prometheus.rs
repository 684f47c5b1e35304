//! `GET /metrics`: figures for Prometheus. `docs/monitoring.md` says what they mean and what to alert on.

use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::State;
use ktrdr_http::answer::PrometheusText;
use ktrdr_http::metrics::{Histograms, OPERATION_BUCKETS, Page};

use super::HttpState;

/// Attempts by how they ended: `completed`, `failed`, `retried`, `cancelled`, `released`, `fenced`.
pub(crate) fn attempts() -> Histograms<2> {
    Histograms::new(
        "ktrdr_worker_attempt_seconds",
        "Attempts that ended, by how, and how long they took.",
        ["worker_type", "outcome"],
        OPERATION_BUCKETS,
    )
}

pub(super) async fn show(State(state): State<HttpState>) -> PrometheusText {
    let core = &state.core;
    let kind = core.worker_type.as_str();
    let mut page = Page::new();
    let info = vec![
        ("worker_id", core.worker_id.as_str()),
        ("worker_type", kind),
        ("version", env!("CARGO_PKG_VERSION")),
    ];
    page.gauge("ktrdr_worker_info", "Who this worker is.", [(info, 1.0)]);
    let mut gauge =
        |name, help, value| page.gauge(name, help, [(vec![("worker_type", kind)], value)]);
    gauge(
        "ktrdr_worker_slots",
        "Operations that can run at a time.",
        f64::from(core.slots),
    );
    gauge(
        "ktrdr_worker_slots_busy",
        "Slots that are taken.",
        core.running.len() as f64,
    );
    if let Some(at) = *core.last_pull.lock() {
        let age = at.elapsed().as_secs_f64();
        gauge(
            "ktrdr_worker_last_pull_age_seconds",
            "Since work was last asked for.",
            age,
        );
    }
    let counters = &core.counters;
    let mut count = |name, help, counter: &AtomicU64| {
        page.count_of(
            name,
            help,
            &[("worker_type", kind)],
            counter.load(Ordering::Relaxed),
        );
    };
    count(
        "ktrdr_worker_attempts_started_total",
        "Operations claimed.",
        &counters.started,
    );
    count(
        "ktrdr_worker_fenced_total",
        "Attempts whose end was discarded: the operation had gone on without them.",
        &counters.fenced,
    );
    count(
        "ktrdr_worker_malformed_requests_total",
        "Messages in a queue that are no start request.",
        &counters.malformed,
    );
    count(
        "ktrdr_worker_pulls_total",
        "Times that work was asked for.",
        &counters.pulls,
    );
    count(
        "ktrdr_worker_lease_extensions_total",
        "Lease extensions tried.",
        &counters.extensions,
    );
    count(
        "ktrdr_worker_lease_extensions_failed_total",
        "Lease extensions that NATS did not confirm.",
        &counters.failed_extensions,
    );
    core.attempts.write(&mut page);
    page.nats(&core.connection);
    PrometheusText(page.into_text())
}
