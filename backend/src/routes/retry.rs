//! `POST /api/v1/operations/{id}/retry` and `…/resume`: the same request as a new operation.
//!
//! The operation that has ended does not change; the new one refers to it with `retry_of`. A resume
//! continues from the newest checkpoint of the old one, if its engine saves any.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue};
use ktrdr_http::body::NoBody;
use ktrdr_http::repeated::Asked;
use ktrdr_http::tokens::Principal;
use ktrdr_protocol::id::OperationId;
use ktrdr_protocol::start_request::StartRequest;
use ktrdr_protocol::state::Status;
use ktrdr_protocol::trace::TraceParent;

use super::{PathText, find};
use crate::catalogue::CatalogueEntry;
use crate::error::{ApiError, ErrorCode};
use crate::idempotency::id_from_key;
use crate::middleware::request_id::trace_of;
use crate::projection::record::{Record, View};
use crate::starts::{Requester, StartAnswer, admit, known_domains, publish, used_before};
use crate::state::AppState;

/// Runs a failed or cancelled operation again, from the beginning.
pub async fn retry(
    State(state): State<AppState>,
    principal: Principal,
    path: PathText,
    headers: HeaderMap,
    _: NoBody,
) -> Result<StartAnswer, ApiError> {
    again(state, principal, path, headers, false).await
}

/// Runs a failed or cancelled operation again, from its newest checkpoint.
pub async fn resume(
    State(state): State<AppState>,
    principal: Principal,
    path: PathText,
    headers: HeaderMap,
    _: NoBody,
) -> Result<StartAnswer, ApiError> {
    again(state, principal, path, headers, true).await
}

/// Operations of a chain of resumes that a start request names, at most.
const MAX_ANCESTORS: usize = 32;

/// The operations that `old` repeats, newest first: the checkpoint that a resume of it finds may be
/// one of theirs.
pub(super) fn ancestors(state: &AppState, old: &Record) -> Vec<OperationId> {
    let mut found = Vec::new();
    let mut next = old.retry_of().cloned();
    while let Some(id) = next.filter(|id| found.len() < MAX_ANCESTORS && !found.contains(id)) {
        let view = state.projection.get(id.as_str());
        next = view.and_then(|view| view.record.retry_of().cloned());
        found.push(id);
    }
    found
}

async fn again(
    state: AppState,
    principal: Principal,
    PathText(id): PathText,
    headers: HeaderMap,
    from_checkpoint: bool,
) -> Result<StartAnswer, ApiError> {
    state.need_nats()?;
    state.need_reader()?;
    let view = find(&state, &principal, &id).await?;
    let key = headers.get("idempotency-key").map(HeaderValue::as_bytes);
    let how = How {
        key: key.map_or(Key::None, Key::Client),
        from_checkpoint,
        trace: trace_of(&headers),
    };
    let again = prepare(&state, principal, &view, how).await?;
    match again {
        Prepared::Before(answer) => Ok(answer),
        Prepared::New(again) => {
            let id = &again.request.operation_id;
            tracing::Span::current().record("operation_id", id.as_str());
            let publisher = state.clone();
            state
                .detached(async move { again.publish(&publisher).await })
                .await
        }
    }
}

/// How an operation is to be run again.
pub(super) struct How<'a> {
    /// What the id of the new operation is made of.
    pub(super) key: Key<'a>,
    /// Whether from its newest checkpoint.
    pub(super) from_checkpoint: bool,
    /// The trace that the request belongs to.
    pub(super) trace: Option<TraceParent>,
}

/// What the id of the new operation is made of.
#[derive(Debug, Clone, Copy)]
pub(super) enum Key<'a> {
    /// Nothing: each request starts another operation.
    None,
    /// The `Idempotency-Key`.
    Client(&'a [u8]),
    /// The old operation alone, whoever asks: it is run again once.
    Once,
}

/// A retry or a resume that was checked.
pub(super) enum Prepared {
    /// It is to be published.
    New(Box<Again>),
    /// It was started before.
    Before(StartAnswer),
}

/// A retry or a resume that is to be published.
pub(super) struct Again {
    requester: Requester,
    entry: Arc<CatalogueEntry>,
    request: StartRequest,
    warning: Option<String>,
    trace: Option<TraceParent>,
}

impl Again {
    /// The operation that it starts.
    pub(super) fn operation_id(&self) -> &OperationId {
        &self.request.operation_id
    }

    /// Starts it.
    pub(super) async fn publish(self, state: &AppState) -> Result<StartAnswer, ApiError> {
        let Self {
            requester,
            entry,
            request,
            warning,
            trace,
        } = self;
        publish(state, &requester, &entry, request, warning, trace).await
    }
}

/// Checks that an operation has failed or was cancelled.
///
/// # Errors
/// 409 `not_repeatable`.
pub(super) fn check_repeatable(old: &Record) -> Result<(), ApiError> {
    let (id, status) = (&old.id, old.state.status);
    let hint = match status {
        Status::Failed | Status::Cancelled => return Ok(()),
        Status::Pending | Status::Running => "; cancel it first",
        Status::Completed => "",
    };
    let text = format!(
        "Operation {id} is {status}; only failed and cancelled operations can be run again{hint}"
    );
    Err(ApiError::new(ErrorCode::NotRepeatable, text)
        .with("operation_id", id.as_str())
        .with("status", status.as_str()))
}

/// The id that an `Idempotency-Key` gives to the retry of an operation.
pub(super) fn id_of_retry(
    principal: &Principal,
    old: &OperationId,
    key: &[u8],
) -> Result<OperationId, ApiError> {
    id_from_key(principal.token_name(), &format!("retry {old}"), key)
}

/// Checks that an operation can be run again, and makes the start request.
pub(super) async fn prepare(
    state: &AppState,
    principal: Principal,
    view: &View,
    how: How<'_>,
) -> Result<Prepared, ApiError> {
    let How {
        key,
        from_checkpoint,
        trace,
    } = how;
    let old = &view.record;
    let id = &old.id;
    let worker_type = &old.queue.worker_type;
    check_repeatable(old)?;

    let entry = state
        .catalogue
        .by_type(worker_type.as_str())
        .ok_or_else(|| {
            let text = format!(
                "Worker type {worker_type} is no longer known; start a worker of the type once"
            );
            ApiError::new(ErrorCode::UnknownDomain, text)
                .with("known_domains", known_domains(state, &principal))
        })?;
    state.dispatch.may_repeat(view).await?;
    // The parameters were checked before, but a type that nothing can be checked for takes no starts.
    entry.usable_schema().await?;

    let key_id = match key {
        Key::Client(key) => Some(id_of_retry(&principal, id, key)?),
        Key::None | Key::Once => None,
    };
    let new_id = match key {
        Key::Once => Some(id_from_key(
            None,
            &format!("retry by filter {id}"),
            b"once",
        )?),
        Key::None | Key::Client(_) => key_id.clone(),
    };
    let requester = Requester {
        principal,
        key: key_id,
    };
    let mut execution = old
        .rare
        .as_ref()
        .and_then(|rare| rare.execution.clone())
        .unwrap_or_default()
        .of_repetition();
    if let Some(priority) = old.priority()
        && priority != execution.priority.unwrap_or_default()
    {
        // It was changed since.
        execution.priority = Some(priority);
    }
    let known = match &new_id {
        Some(id) => used_before(state, &entry, id).await?,
        None => None,
    };
    let is_own = |known: &View| known.record.retry_of() == Some(id);
    // Everybody can work out the id of `Once`, so somebody may have taken it for another operation.
    let is_taken = matches!(key, Key::Once) && known.as_ref().is_some_and(|known| !is_own(known));
    let (new_id, known) = match is_taken {
        true => (None, None),
        false => (new_id, known),
    };
    if let Some(known) = known {
        let asked = Asked {
            parameters: &old.parameters,
            execution: &execution,
        };
        let answer = requester.repeated(&entry, &known, asked).await?;
        return Ok(Prepared::Before(answer));
    }
    if !execution.unknown.is_empty() {
        let text = format!(
            "Operation {id} has execution options that this backend does not know: {}. Ask a backend of a later version",
            execution.unknown.join(", ")
        );
        return Err(ApiError::new(ErrorCode::NotRepeatable, text)
            .with("operation_id", id.as_str())
            .with("status", old.state.status.as_str()));
    }
    let warning = admit(state, &entry, &execution)?;
    let request = StartRequest::new(
        new_id.unwrap_or_else(OperationId::generate),
        worker_type.clone(),
        old.parameters.clone(),
        execution,
    )
    .checked_against(old.schema_digest)
    .requested_by(requester.principal.token_name().cloned());
    let request = if from_checkpoint {
        request.resuming(old.id.clone(), ancestors(state, old))
    } else {
        request.retrying(old.id.clone())
    };

    Ok(Prepared::New(Box::new(Again {
        requester,
        entry,
        request,
        warning,
        trace,
    })))
}
