//! `GET /metrics`: figures for Prometheus. `docs/monitoring.md` says what they mean and what to alert on.

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use ktrdr_http::metrics::{CONTENT_TYPE, Page};
use ktrdr_protocol::state::Status;
use ktrdr_protocol::time::Timestamp;
use tokio::time::Instant;

use crate::projection::model::LaneState;
use crate::state::AppState;

/// Most types and queues shown. Queues come from requirements, which clients choose.
const MOST: usize = 200;

/// Always answered, also while nothing has been read yet or NATS is away.
pub async fn show(State(state): State<AppState>) -> Response {
    let mut page = Page::new();
    let version = vec![("version", env!("CARGO_PKG_VERSION"))];
    page.gauge(
        "ktrdr_backend_info",
        "The version of this backend.",
        [(version, 1.0)],
    );
    operations(&state, &mut page);
    for kind in state.catalogue.all() {
        state
            .projection
            .figures
            .know(kind.entry.worker_type.as_str());
    }
    state.projection.figures.write(&mut page);
    state.registry.write(&mut page, Instant::now());
    projection(&state, &mut page);
    let (streams, followed) = state.events.readers();
    page.single(
        "ktrdr_event_streams",
        "Clients that follow all live events.",
        streams as f64,
    );
    page.single(
        "ktrdr_event_operations_followed",
        "Operations that clients follow live.",
        followed as f64,
    );
    state.requests.write(&mut page);
    page.nats(&state.connection);
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], page.into_text()).into_response()
}

fn operations(state: &AppState, page: &mut Page) {
    let mut counts = state.projection.counts();
    counts.sort();
    counts.truncate(MOST);
    let series = counts.iter().flat_map(|(kind, counts)| {
        let one = |(status, count): (Status, &u64)| {
            (
                vec![("worker_type", kind.as_str()), ("status", status.as_str())],
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
    let mut lanes = state.projection.lanes();
    // Queues that hold nothing are left out, except where one is the rule: requirements make many.
    lanes.retain(|lane| lane.pending + lane.running > 0 || lane.lane.queue.as_str() == "any");
    lanes.sort_by(|a, b| {
        (&a.lane.worker_type, &a.lane.queue).cmp(&(&b.lane.worker_type, &b.lane.queue))
    });
    lanes.truncate(MOST);
    let now = Timestamp::now();
    let mut gauge = |name, help, value: &dyn Fn(&LaneState) -> f64| {
        let series = lanes.iter().map(|lane| {
            let names = &lane.lane;
            (
                vec![
                    ("worker_type", names.worker_type.as_str()),
                    ("queue", names.queue.as_str()),
                ],
                value(lane),
            )
        });
        page.gauge(name, help, series);
    };
    gauge("ktrdr_queue_depth", "Operations that wait.", &|lane| {
        lane.pending as f64
    });
    gauge("ktrdr_queue_running", "Operations that run.", &|lane| {
        lane.running as f64
    });
    gauge(
        "ktrdr_queue_oldest_age_seconds",
        "Age of the oldest operation that waits; 0 when none does.",
        &|lane| {
            lane.oldest_pending
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
