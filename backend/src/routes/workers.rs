//! `GET /api/v1/workers` and `GET /api/v1/workers/{id}`.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use ktrdr_http::answer::RenderedJson;
use ktrdr_http::openapi::{Describe, Description};
use ktrdr_http::tokens::Principal;
use ktrdr_protocol::rest::query::ListWorkers;
use ktrdr_protocol::rest::worker::WorkerDocument;
use tokio::time::Instant;

use super::query::Query;
use super::{PathText, shown_types};
use crate::error::{ApiError, ErrorCode};
use crate::registry::{PageBounds, Wanted};
use crate::state::AppState;

/// Bytes of one page, about. A page of workers with much to tell ends early.
const MAX_PAGE: usize = 8 * 1024 * 1024;

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
        .share(state.registry.page_size(&wanted, page, now))
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
    state
        .registry
        .get(&id, Instant::now())
        .filter(|worker| principal.sees(worker.worker_type.as_str()))
        .map(Json)
        .ok_or_else(|| {
            let shown: String = id.chars().take(128).collect();
            let text = format!(
                "Worker {shown} not found: it has left, was silent for too long, or never was here"
            );
            ApiError::new(ErrorCode::WorkerNotFound, text).with("worker_id", shown)
        })
}
