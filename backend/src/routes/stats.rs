//! `GET /api/v1/stats`: the figures of an overview, in one small answer.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use ktrdr_http::query::Query;
use ktrdr_http::tokens::Principal;
use ktrdr_protocol::id::WorkerType;
use ktrdr_protocol::rest::query::ReadStats;
use ktrdr_protocol::rest::stats::{
    EndedStats, EventStreamCounts, OperationTotals, QueueStats, Stats, StatsResponse, StatusCounts,
    TypeStats, WorkerCounts,
};
use ktrdr_protocol::state::Status;
use ktrdr_protocol::time::Timestamp;
use ktrdr_protocol::worker::WorkerStatus;
use tokio::time::Instant;

use super::shown_types;
use super::worker_types::queue_document;
use crate::error::ApiError;
use crate::projection::model::QueueState;
use crate::state::AppState;

type CountsByStatus = [u64; Status::ALL.len()];

/// Operations by status and type, queues, workers by status, and the last 60 minutes. All figures
/// are of the worker types that the client sees.
pub async fn show(
    State(state): State<AppState>,
    principal: Principal,
    Query(query): Query<ReadStats>,
) -> Result<Json<StatsResponse>, ApiError> {
    let now = Timestamp::now();
    let window = query.window_seconds.unwrap_or(3600);
    let since = now.minus(Duration::from_secs(window));
    let types = shown_types(&principal, None);
    let counts = counts_by_type(&state, &principal);
    let followers = state
        .events
        .followers(|worker_type| principal.sees(worker_type.as_str()));

    Ok(Json(StatsResponse {
        success: true,
        data: Stats {
            operations: totals(&counts),
            by_type: by_type(&state, counts),
            queues: queues(&state, &principal, now),
            workers: workers(&state, types.as_deref()),
            minutes: state.projection.minutes(types.as_deref(), now),
            event_streams: EventStreamCounts {
                all: followers.all as u64,
                operations_followed: followers.operations as u64,
            },
            ended: EndedStats {
                window_seconds: window,
                ..state.projection.ended_since(types.as_deref(), since)
            },
            sequence: state.projection.applied(),
        },
    }))
}

/// Operations by worker type and status; types without operations included.
fn counts_by_type(state: &AppState, principal: &Principal) -> BTreeMap<WorkerType, CountsByStatus> {
    let mut types: BTreeMap<WorkerType, CountsByStatus> =
        state.projection.counts().into_iter().collect();
    for entry in state.catalogue.all() {
        types
            .entry(entry.published.worker_type.clone())
            .or_default();
    }
    types.retain(|worker_type, _| principal.sees(worker_type.as_str()));
    types
}

fn totals(counts: &BTreeMap<WorkerType, CountsByStatus>) -> OperationTotals {
    let mut sums = CountsByStatus::default();
    for counts in counts.values() {
        sums.iter_mut()
            .zip(counts)
            .for_each(|(sum, count)| *sum += count);
    }

    OperationTotals {
        by_status: StatusCounts::from(sums),
        total: sums.iter().sum(),
    }
}

fn by_type(state: &AppState, counts: BTreeMap<WorkerType, CountsByStatus>) -> Vec<TypeStats> {
    counts
        .into_iter()
        .map(|(worker_type, counts)| TypeStats {
            workers: state.registry.alive(worker_type.as_str(), Instant::now()) as u64,
            worker_type,
            by_status: StatusCounts::from(counts),
        })
        .collect()
}

/// All queues by worker type and name.
fn queues(state: &AppState, principal: &Principal, now: Timestamp) -> Vec<QueueStats> {
    let mut queues = state.projection.queues();
    queues.retain(|queue| principal.sees(queue.info.worker_type.as_str()));
    queues.sort_by(|a, b| {
        (&a.info.worker_type, &a.info.origin).cmp(&(&b.info.worker_type, &b.info.origin))
    });

    queues
        .iter()
        .map(|queue| QueueStats {
            worker_type: queue.info.worker_type.clone(),
            queue: queue_document(queue, now),
            nobody: nobody(state, queue),
        })
        .collect()
}

/// Why nobody takes what waits in the queue, when its type is paused or no live worker can.
fn nobody(state: &AppState, queue: &QueueState) -> Option<String> {
    let worker_type = &queue.info.worker_type;
    if queue.pending == 0 || queue.info.origin.is_direct() {
        return None;
    }
    // Queues of the release before may have other names; nothing is said about these.
    let class = queue.info.name.filter(|name| !name.is_delayed)?.class;
    let paused = state.queues.lists.pauses.why(worker_type);
    let missing = || {
        let now = Instant::now();
        let candidates = (state.registry).candidates(worker_type.as_str(), &class, now);
        candidates.why_none(worker_type, &class)
    };
    paused.or_else(missing).map(as_sentence)
}

/// With a capital letter.
fn as_sentence(text: String) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|letter| letter.to_ascii_uppercase());
    first.into_iter().chain(letters).collect()
}

fn workers(state: &AppState, types: Option<&[&str]>) -> WorkerCounts {
    let mut counts = WorkerCounts::default();
    for ((_, status), count) in state.registry.counts(types, Instant::now()) {
        match status {
            WorkerStatus::Available => counts.available += count,
            WorkerStatus::Busy => counts.busy += count,
            WorkerStatus::Draining => counts.draining += count,
            WorkerStatus::TemporarilyUnavailable => counts.temporarily_unavailable += count,
        }
    }
    counts
}
