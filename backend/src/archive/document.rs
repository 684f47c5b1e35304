//! An operation as a row of the archive, and back.
//!
//! The row holds the operation document, which the projection's record writes, and what a record
//! knows beside it. To read it makes a record again: then every route treats an archived operation
//! like any other, and there is no second fold.

use std::borrow::Cow;
use std::sync::Arc;

use ktrdr_protocol::cancel::kept_reason;
use ktrdr_protocol::rest::operation::OperationDocument;
use ktrdr_protocol::rest::summary::MAX_SUMMARY;
use ktrdr_protocol::schema_digest::SchemaDigest;
use ktrdr_protocol::state::State;
use serde::{Deserialize, Serialize};

use super::ArchiveError;
use crate::projection::record::{Extent, QueueInfo, RareFields, Record, StoredProgress, View};

/// What is stored.
#[derive(Serialize)]
struct Stored<'a> {
    #[serde(flatten)]
    document: OperationDocument<'a>,
    #[serde(flatten)]
    beside: Beside,
}

/// What the document does not show, but a retry needs. Earlier versions stored none of it.
#[derive(Default, Serialize, Deserialize)]
struct Beside {
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "ktrdr_protocol::if_valid::read"
    )]
    schema_digest: Option<SchemaDigest>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    unknown_options: Vec<String>,
}

/// The document of an operation that has ended, as it is stored.
pub fn write(record: &Arc<Record>) -> Result<String, ArchiveError> {
    let view = View {
        record: Arc::clone(record),
        queue_position: None,
        waits_for_permit: None,
        retried_as: None,
        archived: false,
        turn: None,
    };
    let mut document = view.document(Extent::Whole);
    // Added again when it is shown: a parameter of this name must not get lost.
    document.metadata.worker_id = None;

    let execution = record
        .rare
        .as_ref()
        .and_then(|rare| rare.execution.as_ref());
    let beside = Beside {
        schema_digest: record.schema_digest,
        unknown_options: execution.map_or_else(Vec::new, |options| options.unknown.clone()),
    };
    let stored = Stored { document, beside };
    serde_json::to_string(&stored).map_err(|error| ArchiveError::Damaged(error.to_string()))
}

/// The operation of a stored document.
pub fn read(text: &str, start_sequence: u64, end_sequence: u64) -> Result<View, ArchiveError> {
    let damaged = |error: serde_json::Error| ArchiveError::Damaged(error.to_string());
    // Read twice: raw members cannot be flattened.
    let document: OperationDocument<'_> = serde_json::from_str(text).map_err(damaged)?;
    let beside: Beside = serde_json::from_str(text).map_err(damaged)?;
    let progress = document.progress.to_progress().unwrap_or_default();
    let progress = serde_json::value::to_raw_value(&progress).map_err(damaged)?;

    let mut execution = document.execution.map(Cow::into_owned);
    if !beside.unknown_options.is_empty() {
        execution.get_or_insert_default().unknown = beside.unknown_options;
    }
    let rare = RareFields {
        execution,
        retry_of: document.retry_of.map(Cow::into_owned),
        schedule_id: document.schedule_id.map(Cow::into_owned),
        cancel_requested_at: document.cancel_requested_at,
        cancel_reason: document
            .cancel_reason
            .map(|reason| kept_reason(&reason).into()),
        forced: document.forced,
        failure: document.error.map(Cow::into_owned),
        result_ref: document.result_ref.map(Cow::into_owned),
        summary: document.summary.map(|summary| {
            // A damaged row may say anything.
            let shown: String = summary.chars().take(MAX_SUMMARY).collect();
            shown.into()
        }),
        ..RareFields::default()
    };
    let record = Record {
        id: document.operation_id.into_owned(),
        queue: Arc::new(QueueInfo::lone(
            document.operation_type.into_owned(),
            document.queue.into_owned(),
        )),
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
        schema_digest: beside.schema_digest,
        requested_by: document.requested_by.map(Cow::into_owned),
        rare: Some(Box::new(rare)),
    };
    Ok(View {
        record: Arc::new(record),
        queue_position: None,
        waits_for_permit: None,
        retried_as: None,
        archived: true,
        turn: None,
    })
}
