//! `GET /metrics`: Prometheus metrics of this backend. `docs/monitoring.md` explains them and says
//! what to alert on.
//!
//! The problem: most figures are sizes of the projection, registry and queues, which change all the
//! time, while Prometheus asks every few seconds. And there may be many queues, but the number of
//! series must have a bound.
//!
//! How it is solved: each scrape fills a new registry from the current state. Only counters and
//! histograms of events (requests, ends of operations) live on between scrapes. Series per worker
//! type or queue are cut off at 200; empty queues are left out first.
//!
//! Rejected: gauges that every state change updates. They cost time on the hot path and can drift
//! away from the state that they describe.

use axum::extract::State;
use ktrdr_http::answer::PrometheusText;
use ktrdr_http::metrics::{register_counter, register_gauge, register_gauges, text};
use ktrdr_protocol::state::Status;
use ktrdr_protocol::time::Timestamp;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::registry::Registry;
use tokio::time::Instant;

use crate::projection::model::{KeyFigures, QueueState};
use crate::state::AppState;

/// At most this many worker types and queues are shown.
const MAX_SHOWN: usize = 200;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VersionLabels {
    version: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StatusLabels {
    worker_type: String,
    status: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TypeLabels {
    worker_type: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct QueueLabels {
    worker_type: String,
    queue: String,
}

/// Answers at any time, also while the stream is being replayed or NATS is unreachable.
pub async fn show(State(state): State<AppState>) -> PrometheusText {
    let mut registry = Registry::default();
    let version = VersionLabels {
        version: env!("CARGO_PKG_VERSION"),
    };
    register_gauges(
        &mut registry,
        "ktrdr_backend_info",
        "The version of this backend.",
        [(version, 1.0)],
    );

    register_operations(&state, &mut registry);
    register_queues(&state, &mut registry);
    register_pauses(&state, &mut registry);
    register_keys(&state, &mut registry);
    state.schedules.register(&mut registry);

    let counters = &state.projection.counters;
    for entry in state.catalogue.all() {
        counters.add_worker_type(entry.published.worker_type.as_str());
    }
    counters.register(&mut registry);

    state
        .registry
        .register_metrics(&mut registry, Instant::now());
    register_projection(&state, &mut registry);
    state.figures.register(&mut registry);
    state.projection.losses.register(&mut registry);
    register_followers(&state, &mut registry);
    if let Some(archive) = &state.archive {
        archive.register(&state.projection, &mut registry);
    }
    state.refused.register(&mut registry);
    state.connections.register(&mut registry);
    if let Some(tls) = &state.tls {
        tls.register(&mut registry);
    }
    state.tokens.register(&mut registry);
    state.requests.register(&mut registry);
    register_gauge(
        &mut registry,
        "ktrdr_nats_answers",
        "Whether NATS answered the last question.",
        f64::from(u8::from(state.has_nats())),
    );
    ktrdr_bus::metrics::register(&mut registry, &state.connection);

    PrometheusText(text(&registry))
}

fn register_operations(state: &AppState, registry: &mut Registry) {
    let mut counts = state.projection.counts();
    counts.sort();
    counts.truncate(MAX_SHOWN);

    let series = counts.iter().flat_map(|(worker_type, counts)| {
        let of_status = |(status, count): (Status, &u64)| {
            let labels = StatusLabels {
                worker_type: worker_type.to_string(),
                status: status.as_str(),
            };
            (labels, *count as f64)
        };
        Status::ALL.into_iter().zip(counts).map(of_status)
    });
    register_gauges(
        registry,
        "ktrdr_operations",
        "Retained operations, by type and status.",
        series,
    );
}

fn register_pauses(state: &AppState, registry: &mut Registry) {
    let pauses = state.queues.lists.pauses.all();
    let paused = pauses.into_keys().take(MAX_SHOWN).map(|worker_type| {
        let worker_type = worker_type.to_string();
        (TypeLabels { worker_type }, 1.0)
    });
    register_gauges(
        registry,
        "ktrdr_queues_paused",
        "Whether somebody has paused the queues of the worker type.",
        paused,
    );
}

fn register_queues(state: &AppState, registry: &mut Registry) {
    let mut queues = state.projection.queues();
    // There may be many queues, so empty ones are left out, except the queue without requirements.
    queues.retain(|queue| queue.pending + queue.running > 0 || queue.info.origin.as_str() == "any");
    queues.sort_by(|a, b| {
        (&a.info.worker_type, &a.info.origin).cmp(&(&b.info.worker_type, &b.info.origin))
    });
    queues.truncate(MAX_SHOWN);

    let now = Timestamp::now();
    let mut register = |name, help, value: &dyn Fn(&QueueState) -> f64| {
        let series = queues.iter().map(|queue| {
            let labels = QueueLabels {
                worker_type: queue.info.worker_type.to_string(),
                queue: queue.info.origin.as_str().to_owned(),
            };
            (labels, value(queue))
        });
        register_gauges(registry, name, help, series);
    };
    register("ktrdr_queue_depth", "Operations that wait.", &|queue| {
        queue.pending as f64
    });
    register("ktrdr_queue_running", "Operations that run.", &|queue| {
        queue.running as f64
    });
    register(
        "ktrdr_queue_oldest_age_seconds",
        "Seconds for which the oldest operation has waited, since it was created or due; 0 when none waits. Delayed ones do not count.",
        &|queue| {
            let since = queue.oldest_pending.filter(|_| !queue.info.is_delayed());
            since.map_or(0.0, |since| now.seconds_since(since))
        },
    );
}

fn register_keys(state: &AppState, registry: &mut Registry) {
    let mut keys = state
        .projection
        .key_figures(state.projection.now(), Instant::now());
    keys.sort_by(|a, b| a.worker_type.cmp(&b.worker_type));
    keys.truncate(MAX_SHOWN);

    let mut register = |name, help, value: &dyn Fn(&KeyFigures) -> f64| {
        let series = keys.iter().map(|found| {
            let worker_type = found.worker_type.to_string();
            (TypeLabels { worker_type }, value(found))
        });
        register_gauges(registry, name, help, series);
    };
    register(
        "ktrdr_unique_keys_held",
        "Operations with a unique key that have not ended.",
        &|found| found.unique as f64,
    );
    register(
        "ktrdr_concurrency_keys_held",
        "Concurrency keys of which an operation holds a permit.",
        &|found| found.held as f64,
    );
    register(
        "ktrdr_operations_waiting_for_permit",
        "Operations that wait for a permit of their concurrency key.",
        &|found| found.waiting as f64,
    );
    register(
        "ktrdr_permit_stuck_seconds",
        "Longest time for which operations have waited for a permit while no holder of the key reported anything new; 0 when none waits.",
        &|found| found.stuck.as_secs_f64(),
    );
}

fn register_projection(state: &AppState, registry: &mut Registry) {
    let projection = &state.projection;
    register_gauge(
        registry,
        "ktrdr_backend_ready",
        "Whether everything can be served.",
        f64::from(u8::from(state.is_ready())),
    );
    let room = &state.queues.room;
    register_gauge(
        registry,
        "ktrdr_stream_consumers",
        "Consumers of the operations stream.",
        room.consumers() as f64,
    );
    register_gauge(
        registry,
        "ktrdr_stream_consumers_limit",
        "How many consumers the operations stream may have.",
        room.limit() as f64,
    );
    register_gauge(
        registry,
        "ktrdr_projection_operations",
        "Operations held in memory.",
        projection.len() as f64,
    );
    register_gauge(
        registry,
        "ktrdr_projection_applied_sequence",
        "Stream sequence of the last message applied.",
        projection.applied() as f64,
    );
    register_gauge(
        registry,
        "ktrdr_projection_lag_messages",
        "Messages in the stream not applied yet.",
        projection.lag() as f64,
    );
    register_counter(
        registry,
        "ktrdr_projection_skipped_messages_total",
        "Messages that could not be read, or could not follow.",
        projection.skipped(),
    );
}

fn register_followers(state: &AppState, registry: &mut Registry) {
    let followers = state.events.followers(|_| true);
    register_gauge(
        registry,
        "ktrdr_event_streams",
        "Clients that follow all live events.",
        followers.all as f64,
    );
    register_gauge(
        registry,
        "ktrdr_event_operations_followed",
        "Operations that clients follow live.",
        followers.operations as f64,
    );
}
