//! One live event as bytes on the wire.

use std::fmt::Display;

use bytes::Bytes;
use ktrdr_protocol::id::{OperationId, WorkerType};
use ktrdr_protocol::progress::Progress;
use ktrdr_protocol::rest::metrics::Cursor;
use ktrdr_protocol::rest::worker::WorkerDocument;
use ktrdr_protocol::state::Status;
use ktrdr_protocol::time::Timestamp;
use serde::Serialize;

use crate::projection::record::{Extent, View};

/// The subject of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameKind {
    /// An operation changed.
    Operation,
    /// A running operation reported progress.
    Progress,
    /// An operation recorded metric points.
    Metrics,
    /// A worker appeared, changed its status, or left.
    Worker,
    /// Events were missed, so the client must fetch again.
    Reset,
    /// Keeps a quiet connection open.
    Comment,
}

/// One event. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Frame {
    /// What it is about.
    pub kind: FrameKind,
    /// The operation, when it is about one.
    pub operation: Option<OperationId>,
    /// The type of the operation or the worker.
    pub worker_type: Option<WorkerType>,
    /// Sequence of the change in the stream; 0 for changes that are not stored.
    pub sequence: u64,
    /// Whether the operation has ended, so that nothing follows.
    pub last: bool,
    /// The event.
    pub bytes: Bytes,
}

/// Frames that are sent together.
#[derive(Debug)]
pub struct Batch {
    /// The single frames, for clients that want only some of them.
    pub frames: Vec<Frame>,
    /// The bytes of all frames, for clients that want all of them.
    pub whole: Bytes,
    /// The lowest sequence among the frames that have one.
    pub first_sequence: Option<u64>,
}

impl Frame {
    /// The operation as it is now, after the change at `sequence`.
    pub fn operation(view: &View, sequence: u64) -> Self {
        let record = &view.record;
        let document = view.document(Extent::WithoutResult);
        Self {
            kind: FrameKind::Operation,
            operation: Some(record.id.clone()),
            worker_type: Some(record.queue.worker_type.clone()),
            sequence,
            last: view.status().is_terminal(),
            bytes: write("operation", Some(&sequence), &document),
        }
    }

    /// The progress of the operation. `None` when no worker runs it.
    pub fn progress(view: &View) -> Option<Self> {
        #[derive(Serialize)]
        struct Data<'a> {
            operation_id: &'a OperationId,
            attempt: u32,
            worker_id: &'a str,
            at: Timestamp,
            progress: &'a Progress,
        }
        let record = &view.record;
        let data = Data {
            operation_id: &record.id,
            attempt: record.state.attempt,
            worker_id: record.worker_id()?.as_str(),
            at: record.shown_updated_at(),
            progress: &record.shown_progress(),
        };
        Some(Self {
            operation: Some(record.id.clone()),
            worker_type: Some(record.queue.worker_type.clone()),
            bytes: write("progress", None, &data),
            ..Self::bare(FrameKind::Progress)
        })
    }

    /// Metric points of the operation.
    pub fn metrics(id: &OperationId, worker_type: &WorkerType, data: &impl Serialize) -> Self {
        Self {
            operation: Some(id.clone()),
            worker_type: Some(worker_type.clone()),
            bytes: write("metrics", None, data),
            ..Self::bare(FrameKind::Metrics)
        }
    }

    /// A worker as it is now. `document` is `None` when it has left.
    pub fn worker(id: &str, worker_type: WorkerType, document: Option<&WorkerDocument>) -> Self {
        #[derive(Serialize)]
        struct Gone<'a> {
            worker_id: &'a str,
            worker_type: &'a WorkerType,
            removed: bool,
        }

        let bytes = match document {
            Some(document) => write("worker", None, document),
            None => write(
                "worker",
                None,
                &Gone {
                    worker_id: id,
                    worker_type: &worker_type,
                    removed: true,
                },
            ),
        };

        Self {
            worker_type: Some(worker_type),
            bytes,
            ..Self::bare(FrameKind::Worker)
        }
    }

    /// Tells clients that they missed events up to `sequence`, and why.
    pub fn reset(reason: &str, sequence: u64) -> Self {
        #[derive(Serialize)]
        struct Data<'a> {
            reason: &'a str,
        }
        Self {
            bytes: write("reset", Some(&sequence), &Data { reason }),
            ..Self::bare(FrameKind::Reset)
        }
    }

    /// Keeps proxies from closing a quiet connection, and lets clients notice a dead one.
    pub fn heartbeat() -> Self {
        Self {
            bytes: Bytes::from_static(b": heartbeat\n\n"),
            ..Self::bare(FrameKind::Comment)
        }
    }

    /// Whether every client gets it, whatever it follows.
    pub fn is_for_everybody(&self) -> bool {
        matches!(self.kind, FrameKind::Reset | FrameKind::Comment)
    }

    fn bare(kind: FrameKind) -> Self {
        Self {
            kind,
            operation: None,
            worker_type: None,
            sequence: 0,
            last: false,
            bytes: Bytes::new(),
        }
    }
}

impl Batch {
    /// Joins frames.
    pub fn new(frames: Vec<Frame>) -> Self {
        let whole = match frames.as_slice() {
            [only] => only.bytes.clone(),
            several => several
                .iter()
                .flat_map(|frame| &frame.bytes)
                .copied()
                .collect(),
        };
        let first_sequence = frames
            .iter()
            .map(|frame| frame.sequence)
            .filter(|sequence| *sequence > 0)
            .min();
        Self {
            frames,
            whole,
            first_sequence,
        }
    }
}

/// The beginning of every stream: after how long to reconnect, and from which sequence on. Browsers
/// do not dispatch an event without data, but they remember its id.
pub fn prelude(sequence: u64) -> Bytes {
    format!("retry: 1000\nid: {sequence}\n\n").into()
}

/// The end of a stream of an operation and its log lines: an id that says that both were sent. It has no data,
/// as [`prelude`].
pub fn all_sent(sequence: u64, cursor: Cursor) -> Bytes {
    format!("id: {sequence}/{cursor}\n\n").into()
}

/// Log lines of an operation, for a client that follows them. `cursor` becomes the id of the event.
pub fn log_lines(data: &impl Serialize, cursor: Option<&str>) -> Bytes {
    let id = cursor.as_ref().map(|cursor| cursor as &dyn Display);
    write("log", id, data)
}

/// The last event for a client that follows log lines: the operation has ended.
/// Without a status when nobody knows how.
pub fn log_end(status: Option<Status>, cursor: &str) -> Bytes {
    #[derive(Serialize)]
    struct Data<'a> {
        #[serde(skip_serializing_if = "Option::is_none")]
        status: Option<Status>,
        cursor: &'a str,
    }
    write("end", Some(&cursor), &Data { status, cursor })
}

fn write(name: &str, id: Option<&dyn Display>, data: &impl Serialize) -> Bytes {
    let mut out = Vec::with_capacity(1024);
    if let Some(id) = id {
        out.extend_from_slice(format!("id: {id}\n").as_bytes());
    }
    out.extend_from_slice(format!("event: {name}\ndata: ").as_bytes());
    let begin = out.len();
    if let Err(error) = serde_json::to_writer(&mut out, data) {
        // Whatever the projection holds was read from JSON, so this cannot happen. If it did, an
        // empty event would do less harm than a broken stream.
        tracing::error!(%error, event = name, "an event cannot be written");
        out.truncate(begin);
        out.extend_from_slice(b"{}");
    }
    // Parameters keep the white space of the client that sent them. A line break in JSON can only
    // be white space, and it would end the event.
    for byte in &mut out[begin..] {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
    out.extend_from_slice(b"\n\n");
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_break_in_parameters_does_not_end_the_event() {
        let raw = serde_json::value::RawValue::from_string("{\r\n  \"a\": \"x\\ny\"\n}".to_owned())
            .unwrap();
        let bytes = write("operation", Some(&7), &raw);
        assert_eq!(
            bytes,
            "id: 7\nevent: operation\ndata: {    \"a\": \"x\\ny\" }\n\n"
        );
    }

    #[test]
    fn a_batch_is_its_frames_in_one_piece() {
        let frames = vec![Frame::heartbeat(), Frame::reset("why", 3)];
        let batch = Batch::new(frames);
        assert_eq!(
            batch.whole,
            ": heartbeat\n\nid: 3\nevent: reset\ndata: {\"reason\":\"why\"}\n\n"
        );
        assert_eq!(batch.first_sequence, None);
    }
}
