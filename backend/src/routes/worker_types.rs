//! `GET /api/v1/worker-types`: the catalogue, with how many operations wait and run in each queue.

use axum::extract::State;
use ktrdr_http::answer::RenderedJson;
use ktrdr_http::tokens::Principal;
use ktrdr_protocol::rest::worker_type::{
    QueueDocument, WorkerTypeDocument, WorkerTypeList, WorkerTypesResponse,
};
use ktrdr_protocol::time::Timestamp;
use tokio::time::Instant;

use crate::error::ApiError;
use crate::projection::model::QueueState;
use crate::state::AppState;

/// What stands for the name of a worker type that the client does not see.
const HIDDEN: &str = "(hidden)";

/// All worker types by name.
pub async fn list(
    State(state): State<AppState>,
    principal: Principal,
) -> Result<RenderedJson<WorkerTypesResponse>, ApiError> {
    let mut listed = state.catalogue.all();
    listed.retain(|entry| principal.sees(entry.published.worker_type.as_str()));
    let bytes = listed.iter().map(|entry| entry.size()).sum();
    let share = state.answers.share(bytes).await?;
    let queues = state.projection.queues();
    let (now, monotonic_now) = (Timestamp::now(), Instant::now());

    let worker_types = listed
        .iter()
        .map(|listed| {
            let entry = &listed.published;
            let queues = queues
                .iter()
                .filter(|queue| queue.info.worker_type == entry.worker_type)
                .map(|queue| queue_document(queue, now))
                .collect();
            WorkerTypeDocument {
                worker_type: entry.worker_type.clone(),
                domain: entry.domain.clone(),
                description: entry.description.clone(),
                version: entry.version.clone(),
                start: format!("/api/v1/{}/start", entry.domain),
                domain_owner: listed.domain_owner.as_ref().map(|owner| {
                    if principal.sees(owner.as_str()) {
                        owner.to_string()
                    } else {
                        HIDDEN.to_owned()
                    }
                }),
                schema_error: listed.schema_error().map(ToString::to_string),
                request_schema: entry.request_schema.clone(),
                result_schema: entry.result_schema.clone(),
                execution_defaults: entry.execution_defaults,
                queues,
                workers: state
                    .registry
                    .alive(entry.worker_type.as_str(), monotonic_now)
                    as u64,
            }
        })
        .collect();

    let answer = WorkerTypesResponse {
        success: true,
        data: WorkerTypeList { worker_types },
    };
    RenderedJson::write(&answer, share)
}

/// One queue at `now`.
pub(super) fn queue_document(queue: &QueueState, now: Timestamp) -> QueueDocument {
    QueueDocument {
        queue: queue.info.origin.clone(),
        pending: queue.pending,
        running: queue.running,
        oldest_pending_seconds: queue
            .oldest_pending
            .map(|created| now.seconds_since(created)),
    }
}
