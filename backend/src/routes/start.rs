//! `POST /api/v1/{domain}/start`.

use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use ktrdr_http::body::read_body;
use ktrdr_http::start_body::StartBody;
use ktrdr_http::tokens::Principal;

use super::PathText;
use crate::error::ApiError;
use crate::idempotency::id_from_key;
use crate::middleware::request_id::trace_of;
use crate::starts::{Prepared, Requester, StartAnswer, entry_of, prepare, publish};
use crate::state::AppState;

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
    let entry = entry_of(&state, &principal, &domain)?;

    let (body, share) = read_body(body, state.config.max_body, &state.bodies).await?;
    // The body may have taken a while.
    principal.check_still_valid()?;
    let body = StartBody::check(body, Some(entry.usable_schema().await?)).await?;

    let key = headers
        .get("idempotency-key")
        .map(|key| id_from_key(principal.token_name(), &domain, key.as_bytes()))
        .transpose()?;
    let requester = Requester { principal, key };
    let (request, warning) = match prepare(&state, &requester, &entry, body).await? {
        Prepared::New(request, warning) => (*request, warning),
        Prepared::Before(answer) => return Ok(answer),
    };

    let (publisher, trace) = (state.clone(), trace_of(&headers));
    state
        .detached(async move {
            let _held_to_the_end = share;
            publish(&publisher, &requester, &entry, request, warning, trace).await
        })
        .await
}
