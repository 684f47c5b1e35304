//! `GET /health`: the process lives. `GET /ready`: it can serve.

use axum::Json;
use axum::extract::State;
use ktrdr_http::tokens::Principal;
use ktrdr_protocol::rest::health::{
    BackendHealth, BackendNats, HealthStatus, ProjectionHealth, ReadyResponse,
};
use ktrdr_protocol::time::Timestamp;
use serde_json::json;

use crate::error::{ApiError, ErrorCode};
use crate::state::AppState;

/// Answers 200 while the process lives; `status` says whether something is wrong.
pub async fn health(
    State(state): State<AppState>,
    principal: Principal,
) -> Json<BackendHealth<'static>> {
    let shows_figures = principal.reads_everything();
    let figure = |value: u64| shows_figures.then_some(value);
    let connected = state.connection.is_up();
    let ready = state.is_ready();
    let status = if ready {
        HealthStatus::Operational
    } else {
        HealthStatus::Degraded
    };

    Json(BackendHealth {
        healthy: true,
        service: "ktrdr-backend".into(),
        timestamp: Timestamp::now(),
        status,
        version: env!("CARGO_PKG_VERSION").into(),
        ready,
        nats: BackendNats {
            connected,
            connections: state.connection.link.borrow().epoch,
        },
        projection: ProjectionHealth {
            caught_up: state.projection.is_caught_up(),
            sequence: figure(state.projection.applied()),
            operations: figure(state.projection.len() as u64),
            skipped_messages: figure(state.projection.skipped()),
        },
    })
}

/// Answers 200 when everything that was in the stream at start has been read, the stream is still
/// being read, and NATS is reachable and answers.
pub async fn ready(
    State(state): State<AppState>,
    principal: Principal,
) -> Result<Json<ReadyResponse>, ApiError> {
    if !state.has_nats() {
        return Err(ApiError::nats_away().with("ready", false));
    }
    // Their subjects may name operations.
    let missing = match principal.reads_everything() {
        true => state.connection.refusals.all(),
        false => Vec::new(),
    };
    if !state.is_loaded() && !missing.is_empty() {
        let text = format!(
            "The NATS user of the backend may not {}. Give it the permissions of docs/security.md",
            missing.join(", ")
        );
        return Err(ApiError::new(ErrorCode::NotReady, text)
            .with("ready", false)
            .with("missing_permissions", json!(missing)));
    }
    // First: a backend that cannot read the stream does not load either.
    if let Some(cause) = state.projection.reader.trouble() {
        let text = "This backend cannot read the operations";
        // The cause is not for everybody.
        let error = match principal.reads_everything() {
            true => {
                ApiError::new(ErrorCode::NotReady, format!("{text}: {cause}")).with("cause", cause)
            }
            false => ApiError::new(ErrorCode::NotReady, text),
        };
        return Err(error.with("ready", false));
    }
    if !state.is_loaded() {
        let text = "The backend has just started and is still reading the operations";
        return Err(ApiError::new(ErrorCode::NotReady, text).with("ready", false));
    }

    Ok(Json(ReadyResponse {
        ready: true,
        sequence: principal
            .reads_everything()
            .then(|| state.projection.applied()),
        missing_permissions: missing,
    }))
}
