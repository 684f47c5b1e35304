//! `POST /api/v1/{domain}/start`.

use std::borrow::Cow;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use ktrdr_bus::oplog::Stored;
use ktrdr_http::body::read_body;
use ktrdr_http::openapi::{Describe, Description};
use ktrdr_http::start_body::StartBody;
use ktrdr_http::tokens::Principal;
use ktrdr_protocol::execution::ExecutionOptions;
use ktrdr_protocol::id::OperationId;
use ktrdr_protocol::queue_class;
use ktrdr_protocol::rest::start::StartResponse;
use ktrdr_protocol::start_request::StartRequest;
use ktrdr_protocol::state::Status;
use ktrdr_protocol::trace::TraceParent;
use tokio::time::Instant;

use super::PathText;
use crate::catalogue::CatalogueEntry;
use crate::config::Admission;
use crate::error::{ApiError, ErrorCode};
use crate::idempotency::id_from_key;
use crate::middleware::request_id::trace_of;
use crate::projection::record::View;
use crate::registry::Candidates;
use crate::state::AppState;

/// How long the answer waits for this backend's projection to apply the start.
const READ_YOUR_WRITES: Duration = Duration::from_secs(5);

/// The answer to a start, with the operation's address in the header `Location`.
pub struct StartAnswer {
    status: StatusCode,
    response: StartResponse<'static>,
}

impl IntoResponse for StartAnswer {
    fn into_response(self) -> Response {
        let location = format!("/api/v1/operations/{}", self.response.operation_id);
        (
            self.status,
            [(header::LOCATION, location)],
            Json(self.response),
        )
            .into_response()
    }
}

impl Describe for StartAnswer {
    fn describe(description: &mut Description<'_>) {
        let answers = [
            (202, "Accepted: stored, and visible to the next request."),
            (200, "The operation was started before; this is its state."),
        ];
        for (status, text) in answers {
            description.json::<StartResponse<'_>>(status, text);
            description.answer_header(status, "Location", "The address of the operation.");
        }
    }
}

/// Starts an operation: 202 once it is stored and visible here, 200 when the same id was started
/// before.
pub async fn start(
    State(state): State<AppState>,
    principal: Principal,
    PathText(domain): PathText,
    headers: HeaderMap,
    body: Body,
) -> Result<StartAnswer, ApiError> {
    // Checked first: nothing below works without NATS, and the client gets its answer at once.
    state.need_nats()?;
    state.need_reader()?;
    let entry = state
        .catalogue
        .by_domain(&domain)
        .filter(|entry| principal.sees(entry.published.worker_type.as_str()))
        .ok_or_else(|| unknown_domain(&state, &principal, &domain))?;

    let (body, share) = read_body(body, state.config.max_body, &state.bodies).await?;
    // The body may have taken a while.
    principal.check_still_valid()?;
    let body = StartBody::check(body, Some(entry.usable_schema().await?)).await?;

    let key = headers
        .get("idempotency-key")
        .map(|key| id_from_key(principal.token_name(), &domain, key.as_bytes()))
        .transpose()?;
    let requester = Requester { principal, key };
    // Each of the two ids says whether the operation was started before.
    let known = [&body.task_id, &requester.key]
        .into_iter()
        .flatten()
        .find_map(|id| state.projection.get(id.as_str()));
    if let Some(known) = known {
        return requester.repeated(&entry, &known);
    }

    let chosen = body.task_id.or_else(|| requester.key.clone());
    if let Some(id) = &chosen
        && let Some(known) = used_before(&state, &entry, id).await?
    {
        return requester.repeated(&entry, &known);
    }

    let warning = admit(&state, &entry, &body.execution)?;
    let request = StartRequest::new(
        chosen.unwrap_or_else(OperationId::generate),
        entry.published.worker_type.clone(),
        body.parameters,
        body.execution,
    )
    .requested_by(requester.principal.token_name().cloned());

    let (publisher, trace) = (state.clone(), trace_of(&headers));
    state
        .detached(async move {
            let _held_to_the_end = share;
            publish(&publisher, &requester, &entry, request, warning, trace).await
        })
        .await
}

/// Looks for an operation that has a log although this projection does not know it. Either another
/// backend started it a moment ago, or it is so old that its start request has left the stream
/// before its events. The second case is refused: a worker would take a new start with this id for
/// the operation that has ended.
async fn used_before(
    state: &AppState,
    entry: &CatalogueEntry,
    id: &OperationId,
) -> Result<Option<View>, ApiError> {
    let tail = state
        .dispatch
        .log_tail(&entry.published.worker_type, id)
        .await?;
    if tail == 0 {
        return Ok(None);
    }

    let read = state.projection.reached(tail, READ_YOUR_WRITES).await;
    match state.projection.get(id.as_str()) {
        Some(known) => Ok(Some(known)),
        None if !read => {
            let text = format!(
                "The id {id} was used a moment ago, and this backend has not read that far. Try again"
            );
            Err(ApiError::new(ErrorCode::NotReady, text).with("operation_id", id.as_str()))
        }
        None => {
            let text = format!(
                "The id {id} was used before, by an operation that is no longer kept; choose another"
            );
            Err(ApiError::new(ErrorCode::TaskIdConflict, text).with("operation_id", id.as_str()))
        }
    }
}

pub(super) async fn publish(
    state: &AppState,
    requester: &Requester,
    entry: &CatalogueEntry,
    request: StartRequest,
    warning: Option<String>,
    trace: Option<TraceParent>,
) -> Result<StartAnswer, ApiError> {
    let id = &request.operation_id;
    tracing::Span::current().record("operation_id", id.as_str());
    if !state.projection.has_room(request.parameters.get().len()) {
        return Err(ApiError::storage_full().with("operation_id", id.as_str()));
    }

    let Stored {
        sequence,
        was_known,
    } = state.dispatch.start(&request, trace.as_ref()).await?;

    let seen = state.projection.reached(sequence, READ_YOUR_WRITES).await;
    let view = state.projection.get(id.as_str());
    if let Some(view) = view.as_ref()
        // Another request with the same id was faster, at this backend or at another one.
        && (was_known || view.record.start_sequence != sequence)
    {
        return requester.repeated(entry, view);
    }

    tracing::debug!(operation_id = %id, worker_type = %entry.published.worker_type, sequence, requested_by = requester.principal.name(), "accepted");
    let late = (!seen).then(|| {
        "The operation is stored, but this backend lags behind and does not show it yet".to_owned()
    });

    let view = view.as_ref();
    Ok(StartAnswer {
        status: StatusCode::ACCEPTED,
        response: StartResponse {
            success: true,
            operation_id: Cow::Owned(id.clone()),
            status: view.map_or(Status::Pending, View::status),
            worker_id: view
                .and_then(|view| view.record.worker_id())
                .map(|worker| Cow::Owned(worker.clone())),
            queue_position: view.and_then(|view| view.queue_position),
            warning: late.or(warning),
        },
    })
}

/// Who asks for a start.
pub(super) struct Requester {
    /// What it sees, and its name.
    pub(super) principal: Principal,
    /// The id that belongs to its `Idempotency-Key`, if it sent one.
    pub(super) key: Option<OperationId>,
}

impl Requester {
    /// The answer to an id that was started before: the operation now. Nothing is started.
    ///
    /// # Errors
    /// 409 `task_id_conflict` when it is another operation than the requester means.
    pub(super) fn repeated(
        &self,
        entry: &CatalogueEntry,
        view: &View,
    ) -> Result<StartAnswer, ApiError> {
        let record = &view.record;
        let known_type = &record.queue.worker_type;
        if !self.principal.sees(known_type.as_str()) || self.is_foreign(view) {
            let text = format!(
                "The id {} is taken; choose another task_id or Idempotency-Key",
                record.id
            );
            return Err(ApiError::new(ErrorCode::TaskIdConflict, text)
                .with("operation_id", record.id.as_str()));
        }
        if *known_type != entry.published.worker_type {
            let text = format!(
                "Operation {} exists already, as a {known_type} operation; choose another task_id",
                record.id
            );
            return Err(ApiError::new(ErrorCode::TaskIdConflict, text)
                .with("operation_id", record.id.as_str())
                .with("operation_type", known_type.as_str()));
        }

        Ok(StartAnswer {
            status: StatusCode::OK,
            response: StartResponse {
                success: true,
                operation_id: Cow::Owned(record.id.clone()),
                status: view.status(),
                worker_id: record.worker_id().map(|worker| Cow::Owned(worker.clone())),
                queue_position: view.queue_position,
                warning: None,
            },
        })
    }

    /// Whether the operation has the id of the key and was started by somebody else. That cannot
    /// come about by chance: somebody chose the id as `task_id`, to be taken for the operation of
    /// this token.
    fn is_foreign(&self, view: &View) -> bool {
        let (record, token) = (&view.record, self.principal.token_name());
        token.is_some()
            && self.key.as_ref() == Some(&record.id)
            && record.requested_by.as_ref() != token
    }
}

/// The domains that the client may use, in order.
pub(super) fn known_domains(state: &AppState, principal: &Principal) -> Vec<String> {
    state
        .catalogue
        .domains(|owner| principal.sees(owner.as_str()))
}

/// Checks whether a listed worker could run it. If none can: a warning, or a refusal with strict
/// admission.
pub(super) fn admit(
    state: &AppState,
    entry: &CatalogueEntry,
    execution: &ExecutionOptions,
) -> Result<Option<String>, ApiError> {
    let worker_type = &entry.published.worker_type;
    // A worker serves the queue of a class when it meets the class, not only the request.
    let class = queue_class::covering(&execution.requirements).map_err(ApiError::beyond_largest)?;
    let Candidates { alive, able } =
        state
            .registry
            .candidates(worker_type.as_str(), &class, Instant::now());
    let missing = match (alive, able) {
        (_, 1..) => return Ok(None),
        (0, _) => format!("no {worker_type} worker is registered"),
        _ => format!(
            "none of the {alive} registered {worker_type} workers meets the requirements of the queue {}",
            class.queue()
        ),
    };
    match state.config.admission {
        Admission::Queue => Ok(Some(format!(
            "The operation is queued, but {missing}; it waits until there is one"
        ))),
        Admission::Strict => Err(ApiError::new(
            ErrorCode::NoWorkers,
            format!("No workers available: {missing}"),
        )),
    }
}

fn unknown_domain(state: &AppState, principal: &Principal, domain: &str) -> ApiError {
    let domain: String = domain.chars().take(128).collect();
    let known = known_domains(state, principal);
    let list = match (known.is_empty(), principal.types()) {
        (false, _) => known.join(", "),
        (true, None) => "none: no worker was ever started".to_owned(),
        (true, Some(_)) => "none that this token may use".to_owned(),
    };
    ApiError::new(
        ErrorCode::UnknownDomain,
        format!("Unknown domain {domain}; known domains: {list}"),
    )
    .with("known_domains", known)
}
