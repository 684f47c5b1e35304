//! An operation as a row of the archive, and back.
//!
//! The row holds the operation document, which the projection's record writes. To read it makes a
//! record again: then every route treats an archived operation like any other, and there is no
//! second fold.

use std::borrow::Cow;
use std::sync::Arc;

use ktrdr_protocol::rest::operation::OperationDocument;
use ktrdr_protocol::state::State;

use super::ArchiveError;
use crate::projection::record::{QueueInfo, RareFields, Record, StoredProgress, View};

/// The document of an operation that has ended, as it is stored.
pub fn write(record: &Arc<Record>) -> Result<String, ArchiveError> {
    let view = View {
        record: Arc::clone(record),
        queue_position: None,
        archived: false,
    };
    let mut document = view.document(record.result.as_deref());
    // Added again when it is shown: a parameter of this name must not get lost.
    document.metadata.worker_id = None;
    serde_json::to_string(&document).map_err(|error| ArchiveError::Damaged(error.to_string()))
}

/// The operation of a stored document.
pub fn read(text: &str, start_sequence: u64, end_sequence: u64) -> Result<View, ArchiveError> {
    let damaged = |error: serde_json::Error| ArchiveError::Damaged(error.to_string());
    let document: OperationDocument<'_> = serde_json::from_str(text).map_err(damaged)?;
    let progress = document.progress.to_progress().unwrap_or_default();
    let progress = serde_json::value::to_raw_value(&progress).map_err(damaged)?;

    let rare = RareFields {
        execution: document.execution.map(Cow::into_owned),
        retry_of: document.retry_of.map(Cow::into_owned),
        cancel_requested_at: document.cancel_requested_at,
        forced: document.forced,
        failure: document.error.map(Cow::into_owned),
        result_ref: document.result_ref.map(Cow::into_owned),
        ..RareFields::default()
    };
    let record = Record {
        id: document.operation_id.into_owned(),
        queue: Arc::new(QueueInfo {
            // It is in no index.
            number: u32::MAX,
            type_number: u32::MAX,
            worker_type: document.operation_type.into_owned(),
            origin: document.queue.into_owned(),
        }),
        state: State {
            status: document.status,
            attempt: document.attempt,
            last_sequence: end_sequence,
        },
        start_sequence,
        created_at: document.created_at,
        updated_at: document.updated_at,
        completed_at: document.completed_at,
        parameters: document.metadata.parameters.into_owned(),
        attempts: document.attempts.into_owned(),
        progress: StoredProgress::Ended(progress),
        result: document.result.map(Cow::into_owned),
        requested_by: document.requested_by.map(Cow::into_owned),
        rare: Some(Box::new(rare)),
    };
    Ok(View {
        record: Arc::new(record),
        queue_position: None,
        archived: true,
    })
}
