//! `PATCH /api/v1/operations/{id}`: changes the priority of an operation that waits.

use axum::extract::State;
use ktrdr_http::answer::RenderedJson;
use ktrdr_http::body::BodyOf;
use ktrdr_http::tokens::Principal;
use ktrdr_protocol::id::OperationId;
use ktrdr_protocol::priority::Priority;
use ktrdr_protocol::rest::operation::{ChangeOperation, OperationResponse};
use ktrdr_protocol::state::Status;

use super::operations::rendered;
use super::{PathText, find};
use crate::dispatch::Moved;
use crate::error::{ApiError, ErrorCode};
use crate::projection::READ_YOUR_WRITES;
use crate::projection::record::View;
use crate::starts::check_room;
use crate::state::AppState;

/// Largest body, in bytes.
const MAX_BODY: usize = 4 * 1024;

/// How often the change is tried while other events come first.
const TRIES: usize = 8;

/// The warning about a move whose event alone is stored.
const COPY_FOLLOWS: &str = "The priority is stored, but the start request could not be moved into its queue yet; the operation starts after the backends have done so";

/// The warning about a move that the answer does not show.
const NOT_SHOWN: &str =
    "The priority is stored, but this backend lags behind and does not show it yet";

/// Gives an operation that waits another priority. Repeating it is harmless.
pub async fn change(
    State(state): State<AppState>,
    principal: Principal,
    PathText(id): PathText,
    body: BodyOf<ChangeOperation>,
) -> Result<RenderedJson<OperationResponse<'static>>, ApiError> {
    let view = find(&state, &principal, &id).await?;
    let (ChangeOperation { priority }, _share) = body.read(MAX_BODY, &state.bodies).await?;
    // The body may have taken a while.
    principal.check_still_valid()?;

    state.need_nats()?;
    let (publisher, mover) = (state.clone(), principal.clone());
    let warning = state
        .detached(async move { give(&publisher, &mover, view, priority).await })
        .await?;
    let view = find(&state, &principal, &id).await?;
    tracing::debug!(operation_id = %view.record.id, %priority, requested_by = principal.name(), "changed the priority");
    rendered(&state, &principal, &view, warning).await
}

/// Moves the operation into the queue of this priority, and decides again whenever another event came
/// first. Returns what the client should know about a move that is not finished.
async fn give(
    state: &AppState,
    principal: &Principal,
    mut view: View,
    priority: Priority,
) -> Result<Option<String>, ApiError> {
    let id = view.record.id.clone();
    for _ in 0..TRIES {
        let record = &view.record;
        let name = match (record.state.status, record.queue.name) {
            (Status::Pending, Some(name)) if !view.archived => name,
            _ => return Err(not_waiting(&view)),
        };
        if name.priority == priority {
            return Ok(None);
        }

        check_room(state, &id, &record.parameters)?;
        let moved = state.dispatch.try_move(record, name.with(priority)).await?;
        let (Moved::Done(sequence) | Moved::CopyFollows(sequence) | Moved::Late(sequence)) = moved;
        let is_read = state.projection.reached(sequence, READ_YOUR_WRITES).await;
        match moved {
            Moved::CopyFollows(_) => return Ok(Some(COPY_FOLLOWS.to_owned())),
            Moved::Done(_) => return Ok((!is_read).then(|| NOT_SHOWN.to_owned())),
            Moved::Late(_) if !is_read => return Err(not_read(&id)),
            Moved::Late(_) => {}
        }
        view = find(state, principal, id.as_str()).await?;
    }
    Err(ApiError::internal(format!(
        "operation {id} changed {TRIES} times while its priority was being changed"
    )))
}

fn not_read(id: &OperationId) -> ApiError {
    let text = format!(
        "Operation {id} has changed, and this backend has not read how. Its priority was not changed; try again"
    );
    ApiError::new(ErrorCode::NotReady, text).with("operation_id", id.as_str())
}

fn not_waiting(view: &View) -> ApiError {
    let (id, status) = (&view.record.id, view.status());
    let text = format!(
        "Operation {id} is {status}; only an operation that waits in a queue can be given another priority"
    );
    ApiError::new(ErrorCode::NotWaiting, text)
        .with("operation_id", id.as_str())
        .with("status", status.as_str())
}
