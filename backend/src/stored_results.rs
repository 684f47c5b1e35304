//! Large results, read from the object store piece by piece and checked.

use std::collections::VecDeque;
use std::io;

use async_nats::jetstream::object_store::{InfoErrorKind, ObjectInfo};
use axum::body::Bytes;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use futures::{Stream, stream};
use ktrdr_bus::nats::Connection;
use ktrdr_protocol::event::ResultRef;
use ktrdr_protocol::id::is_name;
use ktrdr_protocol::subject::SubjectNames;
use sha2::{Digest, Sha256};

use crate::json_check::{JsonCheck, NotJson};
use crate::projection::record::Record;
use crate::result_buckets::ResultBuckets;
use crate::subject_pager::{PageError, Source, Subject};

/// Parts of a large result that are read with one request, at most.
const PARTS: usize = 64;

/// Why a stored result cannot be served.
#[derive(Debug)]
pub enum Unservable {
    /// It is not the result that the operation's own worker stores.
    Invalid(String),
    /// It is no longer there.
    Gone,
    /// NATS did not answer.
    Unreachable(String),
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

/// Opens the object of a result. The reference comes from a worker, so it is followed only into the
/// buckets of results, and only to the object of this operation.
///
/// # Errors
/// [`Unservable`].
pub async fn open(
    (connection, names, results): (&Connection, &SubjectNames, &ResultBuckets),
    record: &Record,
    stored: &ResultRef,
) -> Result<CheckedResult, Unservable> {
    let invalid = |why: &str| Err(Unservable::Invalid(why.to_owned()));
    let unreachable = |error: &dyn std::error::Error| Unservable::Unreachable(error.to_string());
    let name = SubjectNames::result_object(&record.id, record.state.attempt);
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
    if !connection.is_up() {
        return Err(Unservable::Unreachable("no connection".to_owned()));
    }

    let store = results.open(connection, &bucket).await;
    let store = store.map_err(|error| unreachable(&error))?;
    let info = match store.info(&name).await {
        Ok(info) => info,
        Err(error) if error.kind() == InfoErrorKind::NotFound => {
            // The copy of the bucket that answered may lag.
            let found = description_at_leader(connection, &bucket, &name).await?;
            found.ok_or(Unservable::Gone)?
        }
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
        parts: Parts::of(connection, &bucket, &info),
        check: JsonCheck::default(),
        digest: Sha256::new(),
        expected: info.digest,
        left: stored.size,
    })
}

/// The description of an object, by the word of the bucket's leader.
async fn description_at_leader(
    connection: &Connection,
    bucket: &str,
    name: &str,
) -> Result<Option<ObjectInfo>, Unservable> {
    let source = Subject {
        connection,
        stream: &SubjectNames::objects_stream(bucket),
        subject: &SubjectNames::object_description(bucket, &URL_SAFE.encode(name)),
    };
    let unreachable = |error: PageError| Unservable::Unreachable(error.to_string());
    // A bucket keeps one description of an object.
    let Some(found) = source.next(1).await.map_err(unreachable)? else {
        return Ok(None);
    };
    let read = serde_json::from_slice(&found.payload);
    read.map(Some)
        .map_err(|error| Unservable::Invalid(error.to_string()))
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
            let source = Subject {
                connection: &self.connection,
                stream: &self.stream,
                subject: &self.subject,
            };
            let page = source.page(self.from, PARTS).await;
            let mut messages = page.map_err(io::Error::other)?.messages;
            // It is asked for only while parts are missing, so the copy that answered lags.
            if messages.is_empty() {
                let next = source.next(self.from).await;
                messages.extend(next.map_err(io::Error::other)?);
            }
            if let Some(last) = messages.last() {
                self.from = last.sequence + 1;
            }
            self.read = messages.into_iter().map(|part| part.payload).collect();
        }
        Ok(self.read.pop_front())
    }
}

/// A stored result while it is read. What it returns is always the beginning of a JSON value.
pub struct CheckedResult {
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
    pub async fn next(&mut self) -> io::Result<Option<Bytes>> {
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
    pub fn pieces(self) -> impl Stream<Item = io::Result<Bytes>> {
        stream::try_unfold(self, |mut result| async move {
            Ok(result.next().await?.map(|piece| (piece, result)))
        })
    }
}
