//! `POST /{domain}/start` on a worker: it runs the operation at once, or answers that it is busy.
//!
//! The start request goes to `start.<worker_type>.direct`, which has no consumer: every backend
//! shows the operation, and no other worker gets it.

use std::borrow::Cow;
use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::HeaderMap;
use ktrdr_bus::oplog::AppendError;
use ktrdr_http::body::{BodyShare, read_body};
use ktrdr_http::error::ApiError;
use ktrdr_http::repeated::{Asked, check_same};
use ktrdr_http::start_body::{BodyError, StartBody};
use ktrdr_http::tokens::Principal;
use ktrdr_protocol::claim::DeliveryInfo;
use ktrdr_protocol::id::OperationId;
use ktrdr_protocol::origin::Origin;
use ktrdr_protocol::rest::start::{DirectStartResponse, DirectStartStatus};
use ktrdr_protocol::rest::{ErrorCode, Violation};
use ktrdr_protocol::start_request::StartRequest;
use ktrdr_protocol::trace::{self, TraceParent};
use serde_json::json;
use tokio::sync::oneshot;

use super::HttpState;
use crate::attempt::execute::{Assignment, run_assignment};
use crate::pulling::lease::Lease;
use crate::worker::core::Core;

/// Largest start body, in bytes.
const MAX_BODY: usize = 512 * 1024;
/// How long a direct start may wait for NATS.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) async fn start(
    State(state): State<HttpState>,
    principal: Principal,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<DirectStartResponse<'static>>, ApiError> {
    let trace = headers
        .get(trace::HEADER)
        .and_then(|value| TraceParent::parse(value.to_str().ok()?));
    let (body, share) = read_body(body, MAX_BODY, &state.bodies).await?;
    // The body may have taken a while.
    principal.check_still_valid()?;

    // Runs to its end even when the client disconnects: a start that is half recorded must be run.
    let work = state
        .operations
        .spawn(start_here(state.clone(), principal, body, share, trace));
    work.await
        .unwrap_or_else(|_| Err(ApiError::internal("the start was interrupted")))
}

async fn start_here(
    state: HttpState,
    principal: Principal,
    body: Bytes,
    _held_to_the_end: BodyShare,
    trace: Option<TraceParent>,
) -> Result<Json<DirectStartResponse<'static>>, ApiError> {
    let core = state.core.clone();
    let body = StartBody::check(body, Some(state.schema().await?)).await?;
    if let Some(id) = &body.task_id
        && let Some(local) = core.local.get(id)
    {
        return repeated(&core, &local.request, &body).await;
    }

    refuse_what_backends_do(&body)?;

    if !core.connection.is_up() {
        return Err(unavailable());
    }
    let Some(slot) = state.slots.take().await else {
        return Err(busy(&state));
    };

    let operation_id = match body.task_id {
        Some(id) => {
            refuse_known(&state, &id).await?;
            id
        }
        None => generated_id(&core.info.short)?,
    };

    let request = StartRequest::new(
        operation_id.clone(),
        core.worker_type.clone(),
        body.parameters,
        body.execution,
    )
    .checked_against(Some(core.info.schema_digest))
    .requested_by(principal.token_name().cloned());
    let stored = match core
        .oplog
        .start(&request, &Origin::Direct, trace.as_ref(), None, PATIENCE)
        .await
    {
        Ok(stored) => stored,
        Err(AppendError::TooLarge) => return Err(ApiError::too_large(None)),
        Err(error @ AppendError::Full(_)) => return Err(ApiError::append(error, &operation_id)),
        Err(error @ AppendError::Encode(_)) => return Err(ApiError::internal(error)),
        Err(_) => return Err(unavailable()),
    };
    if stored.was_known {
        return Err(known(&operation_id));
    }

    tracing::info!(%operation_id, requested_by = principal.name(), "started here");
    let (sender, claimed) = oneshot::channel();
    let delivery = DeliveryInfo {
        start_sequence: stored.sequence,
        count: 1,
    };
    let lease = Lease::none(core.default_lease);
    let assignment = Assignment {
        slot,
        origin: Origin::Direct,
        request,
        delivery,
        lease,
        claimed: Some(sender),
        trace,
    };
    state
        .operations
        .spawn(run_assignment(core.clone(), assignment));
    match claimed.await {
        Ok(true) => Ok(Json(DirectStartResponse {
            success: true,
            operation_id: Cow::Owned(operation_id),
            status: DirectStartStatus::Started,
            worker_id: Cow::Owned(core.worker_id.clone()),
            existed: false,
        })),
        _ => Err(unavailable()),
    }
}

/// The answer to a `task_id` of an operation that this worker runs or has run. Nothing is started.
///
/// # Errors
/// 409 `idempotency_mismatch` when it was started with another body.
async fn repeated(
    core: &Core,
    first: &StartRequest,
    body: &StartBody,
) -> Result<Json<DirectStartResponse<'static>>, ApiError> {
    let id = &first.operation_id;
    let asked_first = Asked {
        parameters: &first.parameters,
        execution: &first.execution,
    };
    let asked_now = Asked {
        parameters: &body.parameters,
        execution: &body.execution,
    };
    check_same(id, "task_id", asked_first, asked_now).await?;
    Ok(Json(DirectStartResponse {
        success: true,
        operation_id: Cow::Owned(id.clone()),
        status: DirectStartStatus::Started,
        worker_id: Cow::Owned(core.worker_id.clone()),
        existed: true,
    }))
}

/// A direct start is run at once, and without a look at the keys of other operations.
fn refuse_what_backends_do(body: &StartBody) -> Result<(), ApiError> {
    const DELAY: &str =
        "a worker runs what it is sent at once; ask a backend for a start that is delayed";
    const KEY: &str = "a worker runs what it is sent at once; ask a backend for a start with a key";
    let execution = &body.execution;
    let options = [
        ("start_at", execution.start_at.is_some(), DELAY),
        ("delay_seconds", execution.delay_seconds.is_some(), DELAY),
        ("unique", execution.unique.is_some(), KEY),
        ("concurrency", execution.concurrency.is_some(), KEY),
    ];
    let found: Vec<Violation> = options
        .into_iter()
        .filter(|(_, is_given, _)| *is_given)
        .map(|(option, _, message)| Violation {
            path: format!("/execution/{option}"),
            message: message.to_owned(),
        })
        .collect();
    if found.is_empty() {
        Ok(())
    } else {
        Err(BodyError::Violations(found).into())
    }
}

/// `worker_dp_<12 hex>`, as in the guide.
fn generated_id(short: &str) -> Result<OperationId, ApiError> {
    let random = uuid::Uuid::new_v4().simple().to_string();
    OperationId::new(format!("worker_{short}_{}", &random[..12])).map_err(ApiError::internal)
}

async fn refuse_known(state: &HttpState, id: &OperationId) -> Result<(), ApiError> {
    match state.core.oplog.read(&state.core.worker_type, id).await {
        Ok(log) if log.tail == 0 => Ok(()),
        Ok(_) => Err(known(id)),
        Err(_) => Err(unavailable()),
    }
}

fn known(id: &OperationId) -> ApiError {
    ApiError::new(
        ErrorCode::TaskIdConflict,
        format!("Operation {id} exists already; choose another task_id, or none"),
    )
    .with("operation_id", id.as_str())
}

fn busy(state: &HttpState) -> ApiError {
    let text = if *state.core.draining.borrow() {
        "Worker busy: it drains and takes no more work"
    } else {
        "Worker busy"
    };
    ApiError::new(ErrorCode::WorkerBusy, text)
        .with("current_operation", json!(state.core.running.oldest()))
}

fn unavailable() -> ApiError {
    ApiError::new(
        ErrorCode::NatsUnavailable,
        "NATS is not reachable, so nothing can be recorded; try again with the same task_id",
    )
}
