//! `POST /{domain}/start` on a worker: run here, now, or say that the worker is busy.
//!
//! Recorded on `start.<worker_type>.direct`, which has no consumer: every backend shows the operation, nobody redelivers it.

use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use ktrdr_bus::oplog::AppendError;
use ktrdr_http::start_body::{ReadBodyError, StartBody, read_body};
use ktrdr_protocol::claim::DeliveryInfo;
use ktrdr_protocol::id::OperationId;
use ktrdr_protocol::origin::Origin;
use ktrdr_protocol::problem::Problem;
use ktrdr_protocol::start_request::StartRequest;
use ktrdr_protocol::time::Timestamp;
use ktrdr_protocol::trace::{self, TraceParent};
use serde_json::json;
use tokio::sync::oneshot;

use super::HttpState;
use super::answers::Failed;
use crate::attempt::execute::{Assignment, run_assignment};
use crate::pulling::lease::Lease;

/// Largest start body, in bytes.
const MAX_BODY: usize = 512 * 1024;
/// How long a direct start may wait for NATS.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) async fn start(
    State(state): State<HttpState>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Failed> {
    let trace = headers
        .get(trace::HEADER)
        .and_then(|value| TraceParent::parse(value.to_str().ok()?));
    let body = read_body(body, MAX_BODY)
        .await
        .map_err(|error| match error {
            ReadBodyError::TooLarge { .. } => Failed::new(413, "body_too_large", error.to_string()),
            ReadBodyError::Broken => Failed::new(400, "invalid_body", error.to_string()),
        })?;
    // Finishes even if the caller hangs up: a start that is half-way recorded must be run.
    let work = state
        .operations
        .spawn(start_here(state.clone(), body, trace));
    work.await
        .unwrap_or_else(|_| Err(Failed::new(500, "internal", "the start was interrupted")))
}

async fn start_here(
    state: HttpState,
    body: Bytes,
    trace: Option<TraceParent>,
) -> Result<Response, Failed> {
    let core = state.core.clone();
    let body = StartBody::check(body, state.schema().cloned())
        .await
        .map_err(|error| Box::new(error.problem()))?;
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
        None => generated_id(core.info.short)?,
    };
    let request = StartRequest {
        operation_id: operation_id.clone(),
        operation_type: core.worker_type.clone(),
        parameters: body.parameters,
        execution: body.execution,
        created_at: Timestamp::now(),
        retry_of: None,
        resume_from: None,
    };
    let payload = serde_json::to_vec(&request)
        .map_err(|error| Failed::new(500, "internal", error.to_string()))?;
    let subject = core.names.start(&core.worker_type, &Origin::Direct);
    let (start_sequence, duplicate) = match core
        .oplog
        .publish_once_traced(
            &subject,
            operation_id.as_str(),
            payload.into(),
            PATIENCE,
            trace.as_ref(),
        )
        .await
    {
        Ok(stored) => stored,
        Err(AppendError::TooLarge) => {
            return Err(Failed::new(
                413,
                "too_large",
                "the parameters are too large",
            ));
        }
        Err(AppendError::Full(_)) => {
            return Err(Failed::new(
                507,
                "stream_full",
                "the operations stream is full; nothing was started",
            ));
        }
        Err(_) => return Err(unavailable()),
    };
    if duplicate {
        return Err(known(&operation_id));
    }
    let (sender, claimed) = oneshot::channel();
    let delivery = DeliveryInfo {
        start_sequence,
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
        Ok(true) => Ok(Json(json!({
            "success": true,
            "operation_id": operation_id,
            "status": "started",
            "worker_id": core.worker_id,
        }))
        .into_response()),
        _ => Err(unavailable()),
    }
}

/// `worker_dp_<12 hex>`, as in the guide.
fn generated_id(short: &str) -> Result<OperationId, Failed> {
    let random = uuid::Uuid::new_v4().simple().to_string();
    OperationId::new(format!("worker_{short}_{}", &random[..12]))
        .map_err(|error| Failed::new(500, "internal", error.to_string()))
}

async fn refuse_known(state: &HttpState, id: &OperationId) -> Result<(), Failed> {
    match state.core.oplog.read(&state.core.worker_type, id).await {
        Ok(log) if log.tail == 0 => Ok(()),
        Ok(_) => Err(known(id)),
        Err(_) => Err(unavailable()),
    }
}

fn known(id: &OperationId) -> Failed {
    Failed::new(
        409,
        "operation_exists",
        format!("operation {id} exists already; choose another task_id, or none"),
    )
}

fn busy(state: &HttpState) -> Failed {
    Failed(Box::new(
        Problem::new(503, "worker_busy", "Worker busy")
            .with("current_operation", json!(state.core.running.oldest())),
    ))
}

fn unavailable() -> Failed {
    Failed::new(
        503,
        "nats_unavailable",
        "NATS is away, so nothing can be recorded; try again with the same task_id",
    )
}
