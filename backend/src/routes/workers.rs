//! `GET /api/v1/workers` and `GET /api/v1/workers/{id}`, `POST /api/v1/workers/{id}/drain` and
//! `…/undrain`.

use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use ktrdr_http::answer::RenderedJson;
use ktrdr_http::body::NoBody;
use ktrdr_http::openapi::{Describe, Description};
use ktrdr_http::query::Query;
use ktrdr_http::tokens::Principal;
use ktrdr_protocol::rest::query::ListWorkers;
use ktrdr_protocol::rest::worker::{DrainResponse, DrainedWorker, WorkerDocument};
use ktrdr_protocol::worker::{DRAIN, DrainAnswer, UNDRAIN};
use tokio::time::Instant;

use super::{PathText, known_types, shown_types};
use crate::error::{ApiError, ErrorCode};
use crate::registry::{PageBounds, Wanted};
use crate::state::AppState;

/// Bytes of one page, about. A page of workers with much to tell ends early.
const MAX_PAGE: usize = 8 * 1024 * 1024;

/// How long a worker may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// A page of workers: a bare array, as in the guide. So the address of the next page is in a header.
pub struct WorkersAnswer {
    workers: RenderedJson<Vec<WorkerDocument>>,
    next: Option<HeaderValue>,
}

impl IntoResponse for WorkersAnswer {
    fn into_response(self) -> Response {
        let mut response = self.workers.into_response();
        if let Some(next) = self.next {
            response.headers_mut().insert(header::LINK, next);
        }
        response
    }
}

impl Describe for WorkersAnswer {
    fn describe(description: &mut Description<'_>) {
        RenderedJson::<Vec<WorkerDocument>>::describe(description);
        let text = "`<address>; rel=\"next\"`: the next page. Missing on the last one.";
        description.answer_header(200, "Link", text);
    }
}

/// All workers by id.
pub async fn list(
    State(state): State<AppState>,
    principal: Principal,
    Query(query): Query<ListWorkers>,
) -> Result<WorkersAnswer, ApiError> {
    known_types::check(
        &state,
        &principal,
        "worker_type",
        query.worker_type.as_deref(),
    )
    .await?;
    let types = shown_types(&principal, query.worker_type.as_deref());
    let wanted = Wanted {
        types: types.as_deref(),
        status: query.status,
    };
    let page = PageBounds {
        offset: query.offset.map_or(0, in_memory),
        limit: query.limit.map_or(usize::MAX, in_memory),
        bytes: MAX_PAGE,
    };
    // Asked first, so that nothing is copied while the request waits for its share.
    let now = Instant::now();
    let share = state
        .answers
        .share(&principal, state.registry.page_size(&wanted, page, now))
        .await?;
    let page = state.registry.list(&wanted, page, now);

    let seen = query
        .offset
        .unwrap_or(0)
        .saturating_add(page.workers.len() as u64);
    let next = page.has_more.then(|| next_page(&query, seen));
    let empty: [WorkerDocument; 0] = [];
    Ok(WorkersAnswer {
        workers: RenderedJson::list(&empty, page.workers, page.bytes, share)?,
        next: next.transpose()?,
    })
}

fn in_memory(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// The header `Link` of a page that others follow. The next one begins at `offset`.
fn next_page(query: &ListWorkers, offset: u64) -> Result<HeaderValue, ApiError> {
    let next = ListWorkers {
        offset: Some(offset),
        ..query.clone()
    };
    let query = serde_urlencoded::to_string(&next).map_err(ApiError::internal)?;
    let link = format!("</api/v1/workers?{query}>; rel=\"next\"");
    HeaderValue::try_from(link).map_err(ApiError::internal)
}

/// One worker.
pub async fn show(
    State(state): State<AppState>,
    principal: Principal,
    PathText(id): PathText,
) -> Result<Json<WorkerDocument>, ApiError> {
    listed(&state, &principal, &id).map(Json)
}

fn listed(state: &AppState, principal: &Principal, id: &str) -> Result<WorkerDocument, ApiError> {
    state
        .registry
        .get(id, Instant::now())
        .filter(|worker| principal.sees(worker.worker_type.as_str()))
        .ok_or_else(|| {
            let shown: String = id.chars().take(128).collect();
            let text = format!(
                "Worker {shown} not found: it has left, was silent for too long, or never was here"
            );
            ApiError::new(ErrorCode::WorkerNotFound, text).with("worker_id", shown)
        })
}

/// The answer of a worker that was asked to drain, or to go on.
pub struct DrainAccepted(DrainResponse);

impl IntoResponse for DrainAccepted {
    fn into_response(self) -> Response {
        (StatusCode::ACCEPTED, Json(self.0)).into_response()
    }
}

impl Describe for DrainAccepted {
    fn describe(description: &mut Description<'_>) {
        description.json::<DrainResponse>(202, "The worker does it.");
    }
}

/// Lets a worker finish what it runs and take nothing more.
pub async fn drain(
    State(state): State<AppState>,
    principal: Principal,
    PathText(id): PathText,
    _: NoBody,
) -> Result<DrainAccepted, ApiError> {
    ask(&state, &principal, &id, DRAIN).await
}

/// Lets a drained worker go on.
pub async fn undrain(
    State(state): State<AppState>,
    principal: Principal,
    PathText(id): PathText,
    _: NoBody,
) -> Result<DrainAccepted, ApiError> {
    ask(&state, &principal, &id, UNDRAIN).await
}

async fn ask(
    state: &AppState,
    principal: &Principal,
    id: &str,
    verb: &str,
) -> Result<DrainAccepted, ApiError> {
    let worker_id = listed(state, principal, id)?.worker_id;
    state.need_nats()?;

    let subject = state.names.worker(&worker_id, verb);
    let request = state.connection.client.request(subject, Bytes::new());
    let answered = match tokio::time::timeout(PATIENCE, request).await {
        Ok(Ok(message)) => serde_json::from_slice::<DrainAnswer>(&message.payload)
            .map_err(|error| error.to_string()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("no answer in time".to_owned()),
    };
    let answer = answered.map_err(|why| {
        tracing::info!(%worker_id, verb, why, "the worker did not answer");
        let text = format!(
            "Worker {worker_id} does not answer: it is silent, or of a version that cannot be drained. Look at its log, or stop it"
        );
        ApiError::new(ErrorCode::WorkerNotAnswering, text).with("worker_id", worker_id.as_str())
    })?;

    tracing::info!(%worker_id, verb, running = answer.running, requested_by = principal.name(), "the worker was asked");
    let data = DrainedWorker {
        worker_id,
        draining: answer.draining,
        running: answer.running,
    };
    Ok(DrainAccepted(DrainResponse {
        success: true,
        data,
    }))
}
