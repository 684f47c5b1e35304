//! `GET /api/v1/operations` and `GET /api/v1/operations/{id}`.

use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use ktrdr_protocol::id::OperationId;
use ktrdr_protocol::operation::ShownProgress;
use ktrdr_protocol::progress::Progress;
use ktrdr_protocol::state::Status;
use ktrdr_protocol::worker::{OperationAnswer, OperationQuery};
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::time::Instant;

use super::query::{Params, invalid};
use super::{PathText, find, wait};
use crate::error::ApiError;
use crate::projection::record::View;
use crate::registry::Presence;
use crate::state::AppState;

/// How long a worker may take to answer a `force_refresh`.
const REFRESH: Duration = Duration::from_secs(2);

#[derive(Serialize)]
struct ListAnswer {
    success: bool,
    data: ListData,
}

#[derive(Serialize)]
struct ListData {
    operations: Vec<View>,
    total: u64,
    limit: u64,
    offset: u64,
}

/// One page of operations, newest first.
pub async fn list(State(state): State<AppState>, params: Params) -> Result<Response, ApiError> {
    let limit = params.number("limit", 100, 1..=1000)?;
    let offset = params.number("offset", 0, 0..=u64::MAX)?;
    let status = match params.text("status") {
        None => None,
        Some(text) => Some(read_status(text)?),
    };
    let (total, operations) = state.projection.list(
        params.text("operation_type"),
        status,
        offset,
        limit as usize,
    );
    Ok(Json(ListAnswer {
        success: true,
        data: ListData {
            operations,
            total,
            limit,
            offset,
        },
    })
    .into_response())
}

fn read_status(text: &str) -> Result<Status, ApiError> {
    let lower = text.to_ascii_lowercase();
    Status::ALL
        .into_iter()
        .find(|status| status.as_str() == lower)
        .ok_or_else(|| {
            let names: Vec<&str> = Status::ALL.iter().map(|status| status.as_str()).collect();
            invalid("status", &format!("one of {}", names.join(", ")))
        })
}

#[derive(Serialize)]
struct Answer<'a> {
    success: bool,
    operation_id: &'a OperationId,
    // Beside `data` too: the guide's clients read either.
    status: Status,
    progress: ShownProgress<'a>,
    data: &'a View,
    #[serde(skip_serializing_if = "Option::is_none")]
    warning: Option<String>,
}

/// One operation; `wait` holds the answer until it has ended, `force_refresh` asks its worker first.
pub async fn show(
    State(state): State<AppState>,
    PathText(id): PathText,
    params: Params,
) -> Result<Response, ApiError> {
    let refresh = params.flag("force_refresh")?;
    let patience = params.wait()?;
    let mut view = find(&state, &id)?;
    if patience.is_some() && !view.status().is_terminal() {
        // Boxed, as below: the future of every other request would have room for it.
        Box::pin(wait::until_ended(&state, &view.record.id, patience)).await;
        view = find(&state, &id)?;
    }
    if refresh && view.status() == Status::Running {
        Box::pin(ask_worker(&state, &view)).await;
        view = find(&state, &id)?;
    }
    if let Some(text) = state.responses.find(&view.record) {
        return Ok(json(text));
    }
    let mut bare = Progress::default();
    let answer = Answer {
        success: true,
        operation_id: &view.record.id,
        status: view.status(),
        progress: view.record.progress_for_answer(&mut bare),
        data: &view,
        warning: warning(&state, &view),
    };
    let text = write(&answer, &view)?;
    state.responses.keep(&view.record, &text);
    Ok(json(text))
}

fn json(text: Bytes) -> Response {
    let mut response = Response::new(Body::from(text));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The answer as JSON, written at once into room that is large enough.
fn write(answer: &Answer<'_>, view: &View) -> Result<Bytes, ApiError> {
    let (record, len) = (&view.record, |text: &Option<Box<RawValue>>| {
        text.as_ref().map_or(0, |text| text.get().len())
    });
    let mut text = Vec::with_capacity(1024 + record.parameters.get().len() + len(&record.result));
    serde_json::to_writer(&mut text, answer).map_err(ApiError::internal)?;
    Ok(text.into())
}

/// Puts the worker's newest word into the projection. A worker that does not answer changes nothing.
async fn ask_worker(state: &AppState, view: &View) {
    let Some(worker) = view.record.worker_id() else {
        return;
    };
    if !state.connection.is_up() {
        return;
    }
    let id = &view.record.id;
    let Ok(query) = serde_json::to_vec(&OperationQuery {
        operation_id: id.clone(),
    }) else {
        return;
    };
    let request = state
        .connection
        .client
        .request(state.names.worker(worker, "operation"), query.into());
    let answer = match tokio::time::timeout(REFRESH, request).await {
        Ok(Ok(message)) => serde_json::from_slice::<OperationAnswer>(&message.payload)
            .map_err(|error| error.to_string()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("no answer in time".to_owned()),
    };
    match answer {
        Ok(OperationAnswer {
            running: Some(running),
        }) if running.operation_id == *id => {
            state.projection.apply_progress(worker, running);
        }
        Ok(_) => {
            tracing::debug!(operation_id = %id, worker_id = %worker, "the worker does not run it")
        }
        Err(error) => {
            tracing::debug!(operation_id = %id, worker_id = %worker, error, "the worker could not be asked")
        }
    }
}

/// What a user should know about an operation whose worker is not there.
fn warning(state: &AppState, view: &View) -> Option<String> {
    let record = &view.record;
    if view.status() != Status::Running {
        return None;
    }
    let worker = record.worker_id()?;
    let now = Instant::now();
    let what = match state
        .registry
        .presence(worker, &record.id, record.state.attempt, now)
    {
        Presence::Alive { .. } => return None,
        Presence::Silent => "does not answer",
        // A backend that has only just begun to listen knows nobody yet.
        Presence::Gone
            if state.registry.listening_for(now)
                <= state.config.protocol.heartbeat_interval * 3 =>
        {
            return None;
        }
        Presence::Gone => "is not listed",
    };
    let then = if record.queue.origin.is_direct() {
        "the operation was started directly on it and will be closed as failed"
    } else {
        "another one takes over when its lease ends"
    };
    Some(format!(
        "Worker {worker} {what}; unless it comes back, {then}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_future_of_a_read_is_small() {
        fn size<F: Future>(_: fn(State<AppState>, PathText, Params) -> F) -> usize {
            size_of::<F>()
        }
        // Moved into a box for every request.
        assert!(size(show) <= 512, "{} bytes", size(show));
    }
}
