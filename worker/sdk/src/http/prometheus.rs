//! `GET /metrics`: Prometheus metrics of a worker, built from `worker/metrics.rs` at each request.
//! `docs/monitoring.md` explains them and says what to alert on.

use std::time::Duration;

use axum::extract::State;
use ktrdr_http::answer::PrometheusText;
use ktrdr_http::metrics::{register, register_gauges, text};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::HttpState;
use crate::worker::core::Core;

/// How long storing an end may take before it counts as unstored.
const UNSTORED_AFTER: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct InfoLabels {
    worker_id: String,
    worker_type: String,
    version: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TypeLabels {
    worker_type: String,
}

pub(super) async fn show(State(state): State<HttpState>) -> PrometheusText {
    let core = &state.core;
    let mut registry = Registry::default();
    let info = InfoLabels {
        worker_id: core.worker_id.to_string(),
        worker_type: core.worker_type.to_string(),
        version: env!("CARGO_PKG_VERSION"),
    };
    register_gauges(
        &mut registry,
        "ktrdr_worker_info",
        "Who this worker is.",
        [(info, 1.0)],
    );
    register_slots(core, &mut registry);
    register_counters(core, &mut registry);
    register(
        &mut registry,
        "ktrdr_worker_attempt_seconds",
        "Attempts that ended, by how, and how long they took.",
        core.attempt_durations.0.clone(),
    );
    state.tokens.register(&mut registry);
    ktrdr_bus::metrics::register(&mut registry, &core.connection);
    if let Some(tls) = &core.tls {
        tls.register(&mut registry);
    }

    PrometheusText(text(&registry))
}

fn labels(core: &Core) -> TypeLabels {
    TypeLabels {
        worker_type: core.worker_type.to_string(),
    }
}

fn register_slots(core: &Core, registry: &mut Registry) {
    let mut register = |name, help, value| {
        register_gauges(registry, name, help, [(labels(core), value)]);
    };
    register(
        "ktrdr_worker_slots",
        "Operations that can run at a time.",
        f64::from(core.slots),
    );
    register(
        "ktrdr_worker_slots_busy",
        "Slots that are taken: by an operation, or lost.",
        core.running.len() as f64 + f64::from(core.lost_slots.count()),
    );
    register(
        "ktrdr_worker_slots_lost",
        "Slots whose engine does not return although its attempt is over.",
        f64::from(core.lost_slots.count()),
    );
    register(
        "ktrdr_worker_unstored_ends",
        "Attempts that are over and whose end could not be stored for 5 seconds or more.",
        core.running.unstored_ends(UNSTORED_AFTER) as f64,
    );
    if let Some(at) = *core.last_pull.lock() {
        register(
            "ktrdr_worker_last_pull_age_seconds",
            "Seconds since work was last asked for.",
            at.elapsed().as_secs_f64(),
        );
    }
}

fn register_counters(core: &Core, registry: &mut Registry) {
    let counters = &core.counters;
    let mut register = |name, help, counter: &Counter| {
        let family = Family::<TypeLabels, Counter>::default();
        family.get_or_create(&labels(core)).inc_by(counter.get());
        register(registry, name, help, family);
    };
    register(
        "ktrdr_worker_attempts_started_total",
        "Operations claimed.",
        &counters.started,
    );
    register(
        "ktrdr_worker_fenced_total",
        "Attempts whose end was discarded: the operation had gone on without them.",
        &counters.fenced,
    );
    register(
        "ktrdr_worker_malformed_requests_total",
        "Messages in a queue that are no start request.",
        &counters.malformed,
    );
    register(
        "ktrdr_worker_refused_cancels_total",
        "Cancels that were heard and are no intent, or are not stored.",
        &counters.refused_cancels,
    );
    register(
        "ktrdr_worker_refused_starts_total",
        "Deliveries of start requests that were not run because of their signature.",
        &counters.refused_starts,
    );
    register(
        "ktrdr_worker_permit_waits_total",
        "Start requests handed back because no permit of their concurrency key was free.",
        &counters.permit_waits,
    );
    register(
        "ktrdr_worker_pulls_total",
        "Times that work was asked for.",
        &counters.pulls,
    );
    register(
        "ktrdr_worker_lease_extensions_total",
        "Lease extensions tried.",
        &counters.extensions,
    );
    register(
        "ktrdr_worker_lease_extensions_failed_total",
        "Lease extensions that NATS did not confirm.",
        &counters.failed_extensions,
    );
}
