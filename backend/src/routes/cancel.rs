//! `DELETE /api/v1/operations/{id}/cancel`, also without `/cancel`.

use std::borrow::Cow;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use ktrdr_http::body::OptionalBody;
use ktrdr_http::tokens::Principal;
use ktrdr_protocol::cancel::CancelIntent;
use ktrdr_protocol::rest::cancel::CancelResponse;
use ktrdr_protocol::rest::query::CancelOperation;
use ktrdr_protocol::state::Status;
use serde_json::Value;

use super::query::{Query, patience};
use super::{PathText, find, wait};
use crate::dispatch::Cancel;
use crate::error::{ApiError, ErrorCode};
use crate::projection::record::View;
use crate::state::AppState;

/// How long the answer waits for this backend's projection to apply the cancel.
const READ_YOUR_WRITES: Duration = Duration::from_secs(5);

/// Longest reason kept, in characters.
const MAX_REASON: usize = 1000;

/// Cancels an operation: a pending one at once, a running one by asking its worker. Repeating it is
/// harmless.
pub async fn cancel(
    State(state): State<AppState>,
    principal: Principal,
    PathText(id): PathText,
    Query(query): Query<CancelOperation>,
    body: OptionalBody,
) -> Result<Json<CancelResponse<'static>>, ApiError> {
    let patience = query.wait.map(patience);
    let reason = query.reason.or_else(|| reason_in(&body.bytes));
    // The request may wait for minutes.
    drop(body);
    // The body may have taken a while.
    principal.check_still_valid()?;

    let view = find(&state, &principal, &id).await?;
    match view.status() {
        Status::Cancelled => return Ok(answer(&view)),
        status @ (Status::Completed | Status::Failed) => return Err(finished(&view, status)),
        Status::Pending | Status::Running => {}
    }
    state.need_nats()?;

    let reason = reason.map(|reason| reason.chars().take(MAX_REASON).collect());
    let intent = CancelIntent::new(view.record.id.clone(), reason)
        .requested_by(principal.token_name().cloned());
    let publisher = state.clone();
    let record = view.record;
    let outcome = state
        .detached(async move {
            let outcome = publisher.dispatch.cancel(&record, intent).await?;
            if let Cancel::Done(sequence) | Cancel::Asked(sequence) = outcome {
                publisher
                    .projection
                    .reached(sequence, READ_YOUR_WRITES)
                    .await;
            }
            Ok(outcome)
        })
        .await?;
    let view = find(&state, &principal, &id).await?;
    if let Cancel::Ended(status) = outcome {
        return Err(finished(&view, status));
    }
    tracing::debug!(operation_id = %view.record.id, ?outcome, requested_by = principal.name(), "cancel");
    if let Err(error) = wait::until_ended(&state, &principal, &view.record.id, patience).await {
        // The cancel is stored; its answer is worth more than the wait.
        tracing::debug!(?error, "not waiting for the end");
    }
    principal.check_still_valid()?;

    let view = find(&state, &principal, &id).await?;
    match view.status() {
        // The operation ended before the worker noticed the cancel.
        status @ (Status::Completed | Status::Failed) => Err(finished(&view, status)),
        _ => Ok(answer(&view)),
    }
}

fn answer(view: &View) -> Json<CancelResponse<'static>> {
    Json(CancelResponse::new(
        Cow::Owned(view.record.id.clone()),
        view.status(),
        view.record.cancel_requested_at(),
    ))
}

fn finished(view: &View, status: Status) -> ApiError {
    let id = &view.record.id;
    ApiError::new(
        ErrorCode::AlreadyFinished,
        format!(
            "Operation {id} cannot be cancelled: it has already {}",
            past(status)
        ),
    )
    .with("operation_id", id.as_str())
    .with("status", status.as_str())
}

fn past(status: Status) -> &'static str {
    match status {
        Status::Failed => "failed",
        _ => "completed",
    }
}

/// Reads `{"reason": "…"}`. Any other body is ignored, so that a cancel is never refused for its
/// body.
fn reason_in(body: &[u8]) -> Option<String> {
    let body: Value = serde_json::from_slice(body).ok()?;
    body.get("reason")?.as_str().map(str::to_owned)
}
