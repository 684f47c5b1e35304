//! `GET /metrics`: figures for Prometheus. `docs/monitoring.md` says what they mean and what to alert on.

use axum::extract::State;
use ktrdr_http::answer::PrometheusText;
use ktrdr_http::metrics::Page;
use ktrdr_protocol::state::Status;
use ktrdr_protocol::time::Timestamp;
use tokio::time::Instant;

use crate::projection::model::QueueState;
use crate::state::AppState;

/// Most types and queues shown. Queues come from requirements, which clients choose.
const MOST: usize = 200;

/// Always answered, also while nothing has been read yet or NATS is away.
pub async fn show(State(state): State<AppState>) -> PrometheusText {
    let mut page = Page::new();
    let version = vec![("version", env!("CARGO_PKG_VERSION"))];
    page.gauge(
        "ktrdr_backend_info",
        "The version of this backend.",
        [(version, 1.0)],
    );
    operations(&state, &mut page);
    for entry in state.catalogue.all() {
        state
            .projection
            .counters
            .add_worker_type(entry.published.worker_type.as_str());
    }
    state.projection.counters.write(&mut page);
    state.registry.write(&mut page, Instant::now());
    projection(&state, &mut page);
    let followers = state.events.followers();
    page.single(
        "ktrdr_event_streams",
        "Clients that follow all live events.",
        followers.all as f64,
    );
    page.single(
        "ktrdr_event_operations_followed",
        "Operations that clients follow live.",
        followers.operations as f64,
    );
    state.requests.write(&mut page);
    page.nats(&state.connection);
    PrometheusText(page.into_text())
}

fn operations(state: &AppState, page: &mut Page) {
    let mut counts = state.projection.counts();
    counts.sort();
    counts.truncate(MOST);
    let series = counts.iter().flat_map(|(worker_type, counts)| {
        let one = |(status, count): (Status, &u64)| {
            (
                vec![
                    ("worker_type", worker_type.as_str()),
                    ("status", status.as_str()),
                ],
                *count as f64,
            )
        };
        Status::ALL.into_iter().zip(counts).map(one)
    });
    page.gauge(
        "ktrdr_operations",
        "Retained operations, by type and status.",
        series,
    );
    let mut queues = state.projection.queues();
    // Queues that hold nothing are left out, except where one is the rule: requirements make many.
    queues.retain(|queue| queue.pending + queue.running > 0 || queue.info.origin.as_str() == "any");
    queues.sort_by(|a, b| {
        (&a.info.worker_type, &a.info.origin).cmp(&(&b.info.worker_type, &b.info.origin))
    });
    queues.truncate(MOST);
    let now = Timestamp::now();
    let mut gauge = |name, help, value: &dyn Fn(&QueueState) -> f64| {
        let series = queues.iter().map(|queue| {
            let info = &queue.info;
            (
                vec![
                    ("worker_type", info.worker_type.as_str()),
                    ("queue", info.origin.as_str()),
                ],
                value(queue),
            )
        });
        page.gauge(name, help, series);
    };
    gauge("ktrdr_queue_depth", "Operations that wait.", &|queue| {
        queue.pending as f64
    });
    gauge("ktrdr_queue_running", "Operations that run.", &|queue| {
        queue.running as f64
    });
    gauge(
        "ktrdr_queue_oldest_age_seconds",
        "Age of the oldest operation that waits; 0 when none does.",
        &|queue| {
            queue
                .oldest_pending
                .map_or(0.0, |created| now.seconds_since(created))
        },
    );
}

fn projection(state: &AppState, page: &mut Page) {
    let projection = &state.projection;
    let loaded = f64::from(u8::from(state.is_loaded()));
    page.single(
        "ktrdr_backend_ready",
        "Whether the stream has been read to its end.",
        loaded,
    );
    page.single(
        "ktrdr_projection_operations",
        "Operations held in memory.",
        projection.len() as f64,
    );
    let applied = projection.applied() as f64;
    page.single(
        "ktrdr_projection_applied_sequence",
        "Stream sequence of the last message taken.",
        applied,
    );
    page.single(
        "ktrdr_projection_lag_messages",
        "Messages in the stream not taken yet.",
        projection.lag() as f64,
    );
    let help = "Messages that could not be read, or could not follow.";
    page.count(
        "ktrdr_projection_skipped_messages_total",
        help,
        projection.skipped(),
    );
}
