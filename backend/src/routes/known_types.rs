//! Refuses filters by a worker type that nobody knows: a misspelt name would otherwise find nothing,
//! in silence.

use ktrdr_http::tokens::Principal;
use serde_json::Value;

use super::archive_unavailable;
use crate::error::{ApiError, ErrorCode};
use crate::state::AppState;

/// Characters of a name that an error repeats, at most.
const MAX_SHOWN: usize = 128;

/// Checks the types that the query parameter `parameter` names. A type is known when a worker of it
/// was ever started, or when there is an operation of it; one that the client does not see is
/// unknown.
///
/// # Errors
/// 400 `invalid_query`, naming the known types; 503 when only the archive could tell.
pub async fn check<'a>(
    state: &AppState,
    principal: &Principal,
    parameter: &str,
    names: impl IntoIterator<Item = &'a str>,
) -> Result<(), ApiError> {
    for name in names {
        if !principal.sees(name) || !is_known(state, name).await? {
            return Err(unknown(state, principal, parameter, name));
        }
    }
    Ok(())
}

async fn is_known(state: &AppState, name: &str) -> Result<bool, ApiError> {
    if state.catalogue.by_type(name).is_some() || state.projection.knows_type(name) {
        return Ok(true);
    }
    match &state.archive {
        // Boxed because it is rare: otherwise every request would have room for it.
        Some(archive) => Box::pin(archive.knows_type(name))
            .await
            .map_err(archive_unavailable),
        None => Ok(false),
    }
}

fn unknown(state: &AppState, principal: &Principal, parameter: &str, name: &str) -> ApiError {
    let shown: String = name.chars().take(MAX_SHOWN).collect();
    let entries = state.catalogue.all();
    let names = entries.iter().map(|entry| &entry.published.worker_type);
    let known: Vec<Value> = names
        .filter(|name| principal.sees(name.as_str()))
        .map(|name| name.as_str().into())
        .collect();

    let list: Vec<&str> = known.iter().filter_map(Value::as_str).collect();
    let text = match list.as_slice() {
        [] => format!("{parameter}: no worker type {shown:?} is known, and no other one"),
        list => format!(
            "{parameter}: no worker type {shown:?} is known; known types: {}",
            list.join(", ")
        ),
    };
    ApiError::new(ErrorCode::InvalidQuery, text)
        .with("parameter", parameter)
        .with("known_types", known)
}
