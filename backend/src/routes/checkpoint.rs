//! `GET /api/v1/operations/{id}/checkpoint`: whether a resume would begin with a checkpoint.

use std::borrow::Cow;
use std::collections::BTreeMap;

use async_nats::jetstream::response::Response;
use axum::Json;
use axum::extract::State;
use ktrdr_http::tokens::Principal;
use ktrdr_protocol::id::{OperationId, WorkerType};
use ktrdr_protocol::rest::checkpoint::{CheckpointPlace, CheckpointResponse};
use ktrdr_protocol::subject::SubjectNames;
use serde::Deserialize;
use serde_json::json;

use super::retry::ancestors;
use super::{PathText, find};
use crate::error::ApiError;
use crate::state::AppState;

/// Whose checkpoint a resume of the operation would begin with.
pub async fn show(
    State(state): State<AppState>,
    principal: Principal,
    PathText(id): PathText,
) -> Result<Json<CheckpointResponse<'static>>, ApiError> {
    let view = find(&state, &principal, &id).await?;
    state.need_nats_to_read()?;
    let record = &view.record;
    let worker_type = &record.queue.worker_type;

    // As a worker looks for it when it resumes.
    let mut resumes_from = None;
    for id in std::iter::once(record.id.clone()).chain(ancestors(&state, record)) {
        if is_saved(&state, worker_type, &id).await? {
            resumes_from = Some(Cow::Owned(id));
            break;
        }
    }

    Ok(Json(CheckpointResponse {
        success: true,
        data: CheckpointPlace {
            operation_id: Cow::Owned(record.id.clone()),
            resumes_from,
        },
    }))
}

/// The part of a stream's description that is read.
#[derive(Deserialize)]
struct Info {
    state: StreamState,
}

#[derive(Deserialize)]
struct StreamState {
    /// How many messages each subject of the filter has. Absent when there are none.
    #[serde(default)]
    subjects: Option<BTreeMap<String, u64>>,
}

/// Whether the operation has a checkpoint. It is not read: it may be large.
async fn is_saved(
    state: &AppState,
    worker_type: &WorkerType,
    id: &OperationId,
) -> Result<bool, ApiError> {
    let names = &state.names;
    let stream = SubjectNames::key_values_stream(&names.checkpoints_bucket());
    let keys = [
        SubjectNames::checkpoint(worker_type, id),
        // Workers of version 0.1.0 know only this one.
        id.to_string(),
    ];

    for key in keys {
        let filter = SubjectNames::key_value(&names.checkpoints_bucket(), &key);
        let question = json!({"subjects_filter": filter});
        let asked = state
            .connection
            .jetstream
            .request::<_, _, Response<Info>>(format!("STREAM.INFO.{stream}"), &question);
        match asked.await.map_err(ApiError::nats_read)? {
            Response::Ok(info) => {
                let subjects = info.state.subjects.unwrap_or_default();
                if subjects.get(&filter).is_some_and(|count| *count > 0) {
                    return Ok(true);
                }
            }
            Response::Err { error } => return Err(ApiError::nats_read(error)),
        }
    }
    Ok(false)
}
