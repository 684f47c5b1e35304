//! `DELETE /api/v1/operations/{id}/cancel`, also without `/cancel`.

use std::borrow::Cow;

use axum::Json;
use axum::extract::State;
use ktrdr_http::body::OptionalBody;
use ktrdr_http::query::{Query, patience};
use ktrdr_http::tokens::Principal;
use ktrdr_protocol::cancel::CancelIntent;
use ktrdr_protocol::rest::cancel::CancelResponse;
use ktrdr_protocol::rest::query::CancelOperation;
use ktrdr_protocol::state::Status;

use super::{PathText, find, wait};
use crate::dispatch::Cancel;
use crate::error::ApiError;
use crate::projection::READ_YOUR_WRITES;
use crate::projection::record::View;
use crate::state::AppState;

/// Cancels an operation: a pending one at once, a running one by asking its worker. The answer waits
/// a moment for the worker and says what happened. Repeating it is harmless.
pub async fn cancel(
    State(state): State<AppState>,
    principal: Principal,
    PathText(id): PathText,
    Query(query): Query<CancelOperation>,
    body: OptionalBody,
) -> Result<Json<CancelResponse<'static>>, ApiError> {
    let patience = patience(query.patience_seconds());
    let reason = query.reason.or_else(|| body.reason());
    // The request may wait for minutes.
    drop(body);
    // The body may have taken a while.
    principal.check_still_valid()?;

    let view = find(&state, &principal, &id).await?;
    match view.status() {
        Status::Cancelled => {
            let record = view.record;
            return Ok(Json(CancelResponse::cancelled_before(
                Cow::Owned(record.id.clone()),
                record.cancel_requested_at(),
            )));
        }
        status @ (Status::Completed | Status::Failed) => {
            return Err(ApiError::already_finished(&view.record.id, status));
        }
        Status::Pending | Status::Running => {}
    }
    state.need_nats()?;

    let intent = CancelIntent::new(view.record.id.clone(), reason)
        .requested_by(principal.token_name().cloned());
    let publisher = state.clone();
    let record = view.record;
    let outcome = state
        .detached(async move {
            let outcome = publisher.dispatch.cancel(&record, intent).await?;
            if let Cancel::Done(sequence) | Cancel::Before(sequence) | Cancel::Asked(sequence) =
                outcome
            {
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
        return Err(ApiError::already_finished(&view.record.id, status));
    }
    tracing::debug!(operation_id = %view.record.id, ?outcome, requested_by = principal.name(), "cancel");
    if let Err(error) = wait::until_ended(&state, &principal, &view.record.id, Some(patience)).await
    {
        // The cancel is stored; its answer is worth more than the wait.
        tracing::debug!(?error, "not waiting for the end");
    }
    principal.check_still_valid()?;

    let view = find(&state, &principal, &id).await?;
    match view.status() {
        // The operation ended before the worker noticed the cancel.
        status @ (Status::Completed | Status::Failed) => {
            Err(ApiError::already_finished(&view.record.id, status))
        }
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
