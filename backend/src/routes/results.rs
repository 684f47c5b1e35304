//! `GET /api/v1/operations/{id}/results`.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::io;

use async_nats::jetstream::object_store::{InfoErrorKind, ObjectInfo};
use axum::body::{Body, Bytes};
use axum::extract::State;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use futures::{Stream, StreamExt, TryStreamExt, stream};
use ktrdr_bus::nats::Connection;
use ktrdr_http::answer::RenderedJson;
use ktrdr_http::tokens::Principal;
use ktrdr_protocol::event::ResultRef;
use ktrdr_protocol::id::{OperationId, is_name};
use ktrdr_protocol::rest::result::ResultResponse;
use ktrdr_protocol::state::Status;
use ktrdr_protocol::subject::SubjectNames;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::{PathText, find};
use crate::error::{ApiError, ErrorCode};
use crate::json_check::{JsonCheck, NotJson};
use crate::projection::record::{Record, View};
use crate::state::AppState;
use crate::subject_pager::{self, PAGE_BYTES};

/// Parts of a large result that are read with one request, at most.
const PARTS: usize = 64;

/// Bytes that a large result counts for while it is sent: those that were read, and buffers.
const DOWNLOAD: usize = 2 * PAGE_BYTES;

/// The result of a completed operation.
pub async fn show(
    State(state): State<AppState>,
    principal: Principal,
    PathText(id): PathText,
) -> Result<RenderedJson<ResultResponse<'static>>, ApiError> {
    let view = find(&state, &principal, &id).await?;
    let status = view.status();
    if status != Status::Completed {
        return Err(no_result(&view, status));
    }
    let record = &view.record;
    if let Some(stored) = record.result_ref() {
        return large(&state, record, stored).await;
    }
    let share = state.answers.share(record.size()).await?;
    let data = record.result.as_deref().unwrap_or(RawValue::NULL);
    let response = ResultResponse {
        success: true,
        operation_id: Cow::Borrowed(&record.id),
        status,
        data: Cow::Borrowed(data),
    };
    RenderedJson::write(&response, share)
}

fn no_result(view: &View, status: Status) -> ApiError {
    let id = &view.record.id;
    let error = match status {
        Status::Failed => {
            let why = view
                .record
                .failure()
                .map_or("", |failure| failure.message.as_str());
            ApiError::new(
                ErrorCode::NoResult,
                format!("Operation {id} failed and has no result: {why}"),
            )
            .with("error_message", why)
        }
        Status::Cancelled => ApiError::new(
            ErrorCode::NoResult,
            format!("Operation {id} was cancelled and has no result"),
        ),
        _ => ApiError::new(
            ErrorCode::NotFinished,
            format!("Operation {id} is {status}; there is no result yet"),
        ),
    };

    error
        .with("operation_id", id.as_str())
        .with("status", status.as_str())
}

/// A result from the object store, in the same document, sent chunk by chunk.
async fn large(
    state: &AppState,
    record: &Record,
    stored: &ResultRef,
) -> Result<RenderedJson<ResultResponse<'static>>, ApiError> {
    let id = &record.id;
    let share = state.answers.share(DOWNLOAD).await?;
    let opened = open(state, record, stored).await;
    let mut checked = opened.map_err(|error| error.answer(state, id))?;
    // The first piece decides between an answer and an error document. Many results have no other.
    let first = checked.next().await;
    let first = first.map_err(|error| Unservable::from(error).answer(state, id))?;

    let head = [before_data(id).into(), first.unwrap_or_default()];
    let (state, id) = (state.clone(), id.clone());
    let rest = checked.pieces().inspect_err(move |error| {
        if error.kind() == io::ErrorKind::InvalidData {
            log_invalid(&state, &id, &error.to_string());
        }
    });
    let tail = stream::once(async move {
        drop(share);
        Ok(Bytes::from_static(AFTER_DATA))
    });
    let body = stream::iter(head.map(Ok)).chain(rest).chain(tail);
    Ok(RenderedJson::new(Body::from_stream(body)))
}

/// Why a stored result cannot be served.
#[derive(Debug)]
enum Unservable {
    /// It is not the result that the operation's own worker stores.
    Invalid(String),
    /// It is no longer there.
    Gone,
    /// NATS did not answer.
    Unreachable(String),
}

impl Unservable {
    fn answer(self, state: &AppState, id: &OperationId) -> ApiError {
        let error = match self {
            Self::Invalid(why) => {
                log_invalid(state, id, &why);
                let text = format!(
                    "The stored result of operation {id} cannot be served: {why}. Run the operation again"
                );
                ApiError::new(ErrorCode::InvalidResult, text)
            }
            Self::Gone => ApiError::new(
                ErrorCode::ResultGone,
                format!("The result of operation {id} is no longer in the object store"),
            ),
            Self::Unreachable(cause) => return ApiError::nats_read(cause),
        };
        error.with("operation_id", id.as_str())
    }
}

impl From<io::Error> for Unservable {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::InvalidData {
            Self::Invalid(error.to_string())
        } else {
            Self::Unreachable(error.to_string())
        }
    }
}

fn log_invalid(state: &AppState, id: &OperationId, why: &str) {
    if state.invalid_results.is_first(id) {
        tracing::warn!(operation_id = %id, why, "a stored result cannot be served");
    }
}

/// Opens the object of a result. The reference comes from a worker, so it is followed only into the
/// buckets of results, and only to the object of this operation.
async fn open(
    state: &AppState,
    record: &Record,
    stored: &ResultRef,
) -> Result<CheckedResult, Unservable> {
    let invalid = |why: &str| Err(Unservable::Invalid(why.to_owned()));
    let unreachable = |error: &dyn std::error::Error| Unservable::Unreachable(error.to_string());
    let name = SubjectNames::result_object(&record.id, record.state.attempt);
    let names = &state.names;
    // Workers of version 0.1.0 use the bucket that all types share.
    let buckets = [
        names.results_bucket_of(&record.queue.worker_type),
        names.results_bucket(),
    ];
    let Some(bucket) = buckets.into_iter().find(|bucket| *bucket == stored.bucket) else {
        return invalid("the event names another bucket");
    };
    if stored.object != name {
        return invalid("the event names another object");
    }
    if !state.has_nats() {
        return Err(Unservable::Unreachable("no connection".to_owned()));
    }

    let store = state.results.open(&state.connection, &bucket).await;
    let store = store.map_err(|error| unreachable(&error))?;
    let info = match store.info(&name).await {
        Ok(info) => info,
        Err(error) if error.kind() == InfoErrorKind::NotFound => return Err(Unservable::Gone),
        Err(error) => return Err(unreachable(&error)),
    };
    if info.deleted {
        return Err(Unservable::Gone);
    }
    // The description names the parts, and may be a link into another bucket.
    let options = info.options.as_ref();
    let is_link = options.is_some_and(|options| options.link.is_some());
    if is_link || info.bucket != bucket || info.name != name || !is_name(&info.nuid) {
        return invalid("the object is not one of its own");
    }
    if info.size as u64 != stored.size || stored.size == 0 {
        return invalid("the object has another size than the event says");
    }
    Ok(CheckedResult {
        parts: Parts::of(&state.connection, &bucket, &info),
        check: JsonCheck::default(),
        digest: Sha256::new(),
        expected: info.digest,
        left: stored.size,
    })
}

/// The parts of an object, read page by page. A consumer would be sent megabytes ahead of a client
/// that does not read them.
struct Parts {
    connection: Connection,
    stream: String,
    subject: String,
    /// Where the next page begins.
    from: u64,
    read: VecDeque<Bytes>,
}

impl Parts {
    fn of(connection: &Connection, bucket: &str, info: &ObjectInfo) -> Self {
        Self {
            connection: connection.clone(),
            stream: SubjectNames::objects_stream(bucket),
            subject: SubjectNames::object_parts(bucket, &info.nuid),
            from: 1,
            read: VecDeque::new(),
        }
    }

    /// The next part; `None` behind the last one.
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        if self.read.is_empty() {
            let (stream, subject) = (&self.stream, &self.subject);
            let page =
                subject_pager::read_page(&self.connection, stream, subject, self.from, PARTS).await;
            let messages = page.map_err(io::Error::other)?.messages;
            if let Some(last) = messages.last() {
                self.from = last.sequence + 1;
            }
            self.read = messages.into_iter().map(|part| part.payload).collect();
        }
        Ok(self.read.pop_front())
    }
}

/// A stored result while it is read. What it returns is always the beginning of a JSON value.
struct CheckedResult {
    parts: Parts,
    check: JsonCheck,
    /// Of what was read.
    digest: Sha256,
    /// The digest in the description, as object stores write it.
    expected: Option<String>,
    /// Bytes that are missing.
    left: u64,
}

impl CheckedResult {
    /// The next piece; `None` behind the last one.
    ///
    /// # Errors
    /// `InvalidData` when the content is not JSON or has another length.
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        if self.left == 0 {
            return Ok(None);
        }
        let piece = self.parts.next().await?.unwrap_or_default();

        let invalid = |why| io::Error::new(io::ErrorKind::InvalidData, why);
        let left = self.left.checked_sub(piece.len() as u64);
        self.left = left.ok_or_else(|| invalid("the object is longer than it says"))?;
        if piece.is_empty() {
            return Err(invalid("the object is shorter than it says"));
        }
        self.digest.update(&piece);
        if self.left == 0 && !self.has_expected_digest() {
            return Err(invalid("the object has another digest than it says"));
        }
        let checked = self.check.push(&piece);
        let checked = checked.and_then(|()| match self.left {
            0 => self.check.finish(),
            _ => Ok(()),
        });
        checked.map_err(|NotJson| invalid("the content is not JSON"))?;
        Ok(Some(piece))
    }

    /// Whether all that was read is what the description is about.
    fn has_expected_digest(&self) -> bool {
        let digest = URL_SAFE.encode(self.digest.clone().finalize());
        let expected = self.expected.as_ref();
        expected.is_none_or(|expected| *expected == format!("SHA-256={digest}"))
    }

    /// The pieces that are left. An error breaks the connection, so that no client takes half a
    /// result for a whole one.
    fn pieces(self) -> impl Stream<Item = io::Result<Bytes>> {
        stream::try_unfold(self, |mut result| async move {
            Ok(result.next().await?.map(|piece| (piece, result)))
        })
    }
}

/// The text of a [`ResultResponse`] up to its data.
fn before_data(id: &OperationId) -> String {
    format!(r#"{{"success":true,"operation_id":"{id}","status":"completed","data":"#)
}

/// The text of a [`ResultResponse`] after its data.
const AFTER_DATA: &[u8] = b"}";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_streamed_result_is_the_same_document() {
        let id = OperationId::new("a").unwrap();
        let streamed = [before_data(&id).as_bytes(), br#"{"rows":29.0}"#, AFTER_DATA].concat();

        let read: ResultResponse<'_> = serde_json::from_slice(&streamed).unwrap();

        assert_eq!(serde_json::to_vec(&read).unwrap(), streamed);
    }
}
