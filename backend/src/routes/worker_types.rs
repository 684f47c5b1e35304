//! `GET /api/v1/worker-types`: the catalogue, with how many operations wait and run in each queue.
//! `DELETE /api/v1/worker-types/{type}` forgets a type that nobody serves.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use ktrdr_bus::key_values::KeyError;
use ktrdr_bus::telemetry::chain;
use ktrdr_http::answer::RenderedJson;
use ktrdr_http::body::NoBody;
use ktrdr_http::tokens::Principal;
use ktrdr_protocol::rest::worker_type::{
    ForgottenWorkerType, ForgottenWorkerTypeResponse, QueueDocument, WorkerTypeDocument,
    WorkerTypeList, WorkerTypesResponse,
};
use ktrdr_protocol::time::Timestamp;
use tokio::time::Instant;

use super::PathText;
use crate::error::{ApiError, ErrorCode};
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
    let share = state.answers.share(&principal, bytes).await?;
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

/// How long a backend must have heard workers before it knows who serves a type. When it begins, it
/// asks all of them.
const HEARD_ENOUGH: Duration = Duration::from_secs(2);

/// Forgets a worker type that nobody serves.
pub async fn forget(
    State(state): State<AppState>,
    principal: Principal,
    PathText(worker_type): PathText,
    _: NoBody,
) -> Result<Json<ForgottenWorkerTypeResponse>, ApiError> {
    state.need_nats()?;
    let shown: String = worker_type.chars().take(128).collect();
    let held = state.catalogue.held(&worker_type).ok_or_else(|| {
        let text = format!("Worker type {shown} is not known; GET /api/v1/worker-types lists all");
        ApiError::new(ErrorCode::WorkerTypeNotFound, text).with("worker_type", &*shown)
    })?;
    let now = Instant::now();
    let workers = state.registry.alive(&worker_type, now) as u64;
    if workers > 0 {
        let text = format!(
            "Worker type {shown} has live workers ({workers}), which would register it again. Stop them first"
        );
        return Err(in_use(&shown, workers, text));
    }
    if state.registry.listening_for(now) < HEARD_ENOUGH {
        let text = "This backend has not heard workers for long enough to know that nobody serves the type. Try again";
        return Err(ApiError::new(ErrorCode::NotReady, text));
    }

    let forgetting = state.clone();
    let domains = state
        .detached(async move {
            let jetstream = forgetting.connection.jetstream.clone();
            let forgotten = forgetting
                .catalogue
                .forget(jetstream, &forgetting.names, held);
            Ok(forgotten.await)
        })
        .await?;
    let domains = domains.map_err(|error| match error {
        KeyError::Changed { .. } => {
            let text = format!("Somebody has just registered worker type {shown}. Try again");
            in_use(&shown, workers, text)
        }
        error => ApiError::nats_read(chain(&error)),
    })?;
    tracing::info!(
        worker_type = shown,
        ?domains,
        requested_by = principal.name(),
        "worker type forgotten"
    );

    let queues = state.projection.queues();
    let of_type = queues
        .iter()
        .filter(|queue| queue.info.worker_type.as_str() == worker_type);
    let data = ForgottenWorkerType {
        open_operations: of_type.map(|queue| queue.pending + queue.running).sum(),
        worker_type,
        domains,
    };
    Ok(Json(ForgottenWorkerTypeResponse {
        success: true,
        data,
    }))
}

fn in_use(worker_type: &str, workers: u64, text: String) -> ApiError {
    ApiError::new(ErrorCode::WorkerTypeInUse, text)
        .with("worker_type", worker_type)
        .with("workers", workers)
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
