//! The request handlers, one file per resource. Each handler extracts, calls and responds. It uses
//! NATS only through the handles in [`crate::state`].
//!
//! Files that are not a resource: [`known_types`] refuses worker types that nobody knows, [`wait`]
//! holds a request until an operation has ended, [`assets`] serves the files of the pages,
//! [`fallback`] answers requests that match no route.

pub mod api_docs;
mod assets;
pub mod by_filter;
pub mod cancel;
pub mod checkpoint;
pub mod dashboard;
pub mod events;
pub mod fallback;
pub mod health;
pub mod history;
mod known_types;
pub mod logs;
pub mod metrics;
pub mod operations;
pub mod priority;
pub mod prometheus;
pub mod queues;
pub mod results;
pub mod retry;
pub mod schedules;
pub mod start;
pub mod start_many;
pub mod stats;
pub mod wait;
pub mod worker_types;
pub mod workers;

use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use ktrdr_bus::telemetry::chain;
use ktrdr_http::openapi::{Describe, Description};
use ktrdr_http::tokens::Principal;
use ktrdr_protocol::id::{OperationId, WorkerType};

use crate::archive::ArchiveError;
use crate::error::{ApiError, ErrorCode};
use crate::middleware::loaded;
use crate::projection::record::View;
use crate::state::AppState;

/// The worker types that an answer is about: those that the client wants and may see. `None` for
/// all of them.
pub fn shown_types<'a>(principal: &'a Principal, wanted: Option<&'a str>) -> Option<Vec<&'a str>> {
    match (principal.types(), wanted) {
        (None, None) => None,
        (Some(visible), None) => Some(visible.iter().map(WorkerType::as_str).collect()),
        (_, Some(wanted)) => Some(Vec::from_iter(principal.sees(wanted).then_some(wanted))),
    }
}

/// The variable part of a path. A part that is not UTF-8 is an unknown route.
pub struct PathText(pub String);

impl<S: Send + Sync> FromRequestParts<S> for PathText {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match Path::<String>::from_request_parts(parts, state).await {
            Ok(Path(text)) => Ok(Self(text)),
            Err(_) => Err(ApiError::new(
                ErrorCode::UnknownRoute,
                "The path is not valid UTF-8",
            )),
        }
    }
}

/// The route's path names the parameter.
impl Describe for PathText {
    fn describe(_: &mut Description<'_>) {}
}

/// The operation in the stream or in the archive, or 404; 503 while the projection is not loaded. An operation of a type that the
/// client does not see is answered as if it did not exist.
///
/// An operation that was accepted before this call, by this backend or another one, is found:
/// before it says 404, this backend reads what it has not read yet. When it cannot, it says 503.
pub async fn find(state: &AppState, principal: &Principal, id: &str) -> Result<View, ApiError> {
    let view = match visible(state, principal, id) {
        Some(view) => view,
        // Boxed because it is rare: the future of every request would have room for it.
        None => Box::pin(find_after_reading(state, principal, id)).await?,
    };
    // Every log line of the request names the operation.
    tracing::Span::current().record("operation_id", view.record.id.as_str());
    Ok(view)
}

/// The operation in the projection, unless the client does not see its type.
fn visible(state: &AppState, principal: &Principal, id: &str) -> Option<View> {
    state
        .projection
        .get(id)
        .filter(|view| principal.sees(view.record.queue.worker_type.as_str()))
}

/// The same for an id that is not known yet. Everything that is not found takes this way, and so the
/// same time, whether it does not exist or is hidden.
async fn find_after_reading(
    state: &AppState,
    principal: &Principal,
    id: &str,
) -> Result<View, ApiError> {
    // No operation can have an id that is not valid.
    let has_read_all = OperationId::new(id).is_err() || state.has_read_all().await;
    if let Some(view) = visible(state, principal, id) {
        return Ok(view);
    }
    // The projection may be loading again, because the stream was replaced.
    if let Some(refusal) = loaded::refusal(state) {
        return Err(refusal);
    }
    let mut archived = match &state.archive {
        Some(archive) => match archive.find(id).await {
            // Nobody knows which type it was of.
            Err(ArchiveError::Damaged(_)) if principal.types().is_some() => None,
            Err(ArchiveError::Damaged(cause)) => return Err(damaged(id, &cause)),
            found => found.map_err(archive_unavailable)?,
        },
        None => None,
    };
    if let Some(view) = &mut archived
        && let Some(newest) = state.projection.retried_as(&view.record)
    {
        view.retried_as = Some(newest);
    }
    let archived = archived.filter(|view| principal.sees(view.record.queue.worker_type.as_str()));
    archived.ok_or_else(|| {
        if has_read_all {
            ApiError::operation_not_found(id)
        } else {
            not_read_yet(state, id)
        }
    })
}

/// The answer about an id that this backend does not know, while there may be operations that it has
/// not read.
fn not_read_yet(state: &AppState, id: &str) -> ApiError {
    let (code, why) = if state.has_nats() {
        (ErrorCode::NotReady, "it has not read the newest ones")
    } else {
        (ErrorCode::NatsUnavailable, "NATS is not reachable")
    };
    let text = format!(
        "This backend cannot tell whether there is an operation {id}: {why}. Try again, or ask another backend"
    );
    ApiError::new(code, text).with("operation_id", id)
}

/// The answer about an operation whose row in the archive cannot be read.
fn damaged(id: &str, cause: &str) -> ApiError {
    let text = format!(
        "Operation {id} is in the archive, but its row there is damaged ({cause}). Other operations are not touched"
    );
    ApiError::new(ErrorCode::OperationDamaged, text).with("operation_id", id)
}

/// The answer to a request that needs the archive, which cannot be read.
pub fn archive_unavailable(error: ArchiveError) -> ApiError {
    let text = format!(
        "The archive cannot be read: {}. The log of the backend says more",
        chain(&error)
    );
    ApiError::new(ErrorCode::ArchiveUnavailable, text)
}
