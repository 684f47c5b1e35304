//! `GET /api/v1/stats`: what an overview shows, in one small answer.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use ktrdr_protocol::state::Status;
use ktrdr_protocol::time::Timestamp;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use crate::state::AppState;

/// Operations by status and type, queues, workers by status, and what happened in each of the last 60 minutes.
pub async fn show(State(state): State<AppState>) -> Json<Value> {
    let now = Timestamp::now();
    let mut types: BTreeMap<String, [u64; Status::ALL.len()]> = state
        .projection
        .counts()
        .into_iter()
        .map(|(name, counts)| (name.as_str().to_owned(), counts))
        .collect();
    for entry in state.catalogue.all() {
        types
            .entry(entry.published.worker_type.as_str().to_owned())
            .or_default();
    }
    let mut sums = [0; Status::ALL.len()];
    for counts in types.values() {
        sums.iter_mut()
            .zip(counts)
            .for_each(|(sum, count)| *sum += count);
    }
    let mut operations = named(&sums);
    operations.insert("total".to_owned(), sums.iter().sum::<u64>().into());
    let by_type: Vec<Value> = types
        .iter()
        .map(|(name, counts)| {
            let mut entry = named(counts);
            entry.insert("worker_type".to_owned(), name.as_str().into());
            entry.insert(
                "workers".to_owned(),
                state.registry.alive(name, Instant::now()).into(),
            );
            Value::Object(entry)
        })
        .collect();
    let mut queues = state.projection.queues();
    queues.sort_by(|a, b| {
        (&a.info.worker_type, &a.info.origin).cmp(&(&b.info.worker_type, &b.info.origin))
    });
    let queues: Vec<Value> = queues
        .iter()
        .map(|queue| {
            json!({
                "worker_type": queue.info.worker_type,
                "queue": queue.info.origin,
                "pending": queue.pending,
                "running": queue.running,
                "oldest_pending_seconds": queue.oldest_pending.map(|created| now.seconds_since(created)),
            })
        })
        .collect();
    let (mut available, mut busy, mut unavailable) = (0_u64, 0_u64, 0_u64);
    for worker in state.registry.list(None, None, Instant::now()) {
        use ktrdr_protocol::worker::WorkerStatus::{Available, Busy, TemporarilyUnavailable};
        match worker.status {
            Available => available += 1,
            Busy => busy += 1,
            TemporarilyUnavailable => unavailable += 1,
        }
    }
    let (streams, followed) = state.events.readers();
    Json(json!({"success": true, "data": {
        "operations": operations,
        "by_type": by_type,
        "queues": queues,
        "workers": {"AVAILABLE": available, "BUSY": busy, "TEMPORARILY_UNAVAILABLE": unavailable},
        "minutes": state.projection.minutes(now),
        "event_streams": {"all": streams, "operations_followed": followed},
        "sequence": state.projection.applied(),
    }}))
}

fn named(counts: &[u64; Status::ALL.len()]) -> Map<String, Value> {
    Status::ALL
        .iter()
        .zip(counts)
        .map(|(status, count)| (status.as_str().to_owned(), (*count).into()))
        .collect()
}
