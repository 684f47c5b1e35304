//! One [`Doc`] for each route, in the order of the router.

use serde_json::{Map, Value, json};

use super::answers;
use super::doc::{Doc, number, status, wait, worker_status};
use crate::error::Code;
use crate::registry::WorkerDocument;

const OPERATIONS: &str = "Operations";
const START: &str = "Start";
const WORKERS: &str = "Workers";
const SYSTEM: &str = "System";
const PAGES: &str = "Pages";

/// The groups, in the order in which they are shown.
pub const TAGS: [(&str, &str); 5] = [
    (
        START,
        "Start operations. One route for each worker type that workers have made known.",
    ),
    (OPERATIONS, "Follow, read, cancel and repeat operations."),
    (WORKERS, "Who is there, and what kinds of work there are."),
    (
        SYSTEM,
        "Health, figures, live events, metrics, this document.",
    ),
    (PAGES, "For people with a browser."),
];

pub fn list_operations() -> Doc {
    Doc::new(
        OPERATIONS,
        "listOperations",
        "List operations, newest first",
    )
    .query(
        "operation_type",
        json!({"type": "string"}),
        "Only those of one worker type.",
    )
    .query("status", status(), "Only those in one status.")
    .query("limit", number(100, 1, 1000), "How many at most.")
    .query(
        "offset",
        json!({"type": "integer", "minimum": 0, "maximum": u64::MAX, "default": 0}),
        "How many to leave out first.",
    )
    .json::<answers::OperationList>(200, "One page of operations.")
}

pub fn show_operation() -> Doc {
    Doc::new(OPERATIONS, "getOperation", "One operation")
        .details("`wait` holds the answer until the operation has ended, or so many seconds have passed. `force_refresh` asks its worker first.")
        .query("wait", wait(), "Seconds to wait for the end; more than 300 count as 300.")
        .query("force_refresh", json!({"type": "boolean", "default": false}), "Ask the worker for its newest progress.")
        .json::<answers::OperationShown>(200, "The operation as it stands.")
        .error(Code::OperationNotFound)
}

pub fn delete_operation() -> Doc {
    Doc {
        id: "deleteOperation",
        summary: "Cancel an operation (as with /cancel)",
        ..cancel_operation()
    }
}

pub fn cancel_operation() -> Doc {
    Doc::new(OPERATIONS, "cancelOperation", "Cancel an operation")
        .details("At once while it waits; by asking its worker while it runs. Doing it again is harmless.")
        .query("wait", wait(), "Seconds to wait for the worker's confirmation; more than 300 count as 300.")
        .query("reason", json!({"type": "string"}), "Why; also accepted as `{\"reason\": \"…\"}` in the body.")
        .json::<answers::Cancelled>(200, "Cancelled, or asked for: see `status`.")
        .errors(&[Code::OperationNotFound, Code::AlreadyFinished, Code::OutcomeUnknown, Code::StorageFull])
}

pub fn results() -> Doc {
    Doc::new(
        OPERATIONS,
        "getResults",
        "The result of a completed operation",
    )
    .json::<answers::ResultShown>(200, "The result, however large.")
    .errors(&[
        Code::OperationNotFound,
        Code::NotFinished,
        Code::NoResult,
        Code::ResultGone,
    ])
}

pub fn operation_metrics() -> Doc {
    Doc::new(
        OPERATIONS,
        "getMetrics",
        "What an operation measured on its way",
    )
    .query(
        "cursor",
        json!({"type": "string", "pattern": "^[0-9]{1,19}-[0-9]{1,19}$"}),
        "From an earlier answer; leave it out to start over.",
    )
    .query("limit", number(100, 1, 10_000), "How many points at most.")
    .json::<answers::Metrics>(200, "Points after the cursor, oldest first.")
    .errors(&[Code::OperationNotFound, Code::InvalidCursor])
}

pub fn history() -> Doc {
    Doc::new(
        OPERATIONS,
        "getHistory",
        "Every event of an operation's life, read from the stream",
    )
    .json::<answers::History>(
        200,
        "The start request, every event and every cancel, in stream order.",
    )
    .error(Code::OperationNotFound)
}

fn last_event_id(doc: Doc) -> Doc {
    let schema = json!({"type": "integer", "minimum": 0});
    doc.header(
        "Last-Event-ID",
        schema,
        "The last id that was received: go on from there.",
    )
    .text(
        200,
        "text/event-stream",
        "Events until the client leaves; docs/events.md lists them.",
    )
    .error(Code::InvalidHeader)
}

pub fn operation_events() -> Doc {
    last_event_id(Doc::new(
        OPERATIONS,
        "followOperation",
        "One operation, live (server-sent events)",
    ))
    .empty(
        204,
        "The client has seen the end; there is nothing more to come.",
    )
    .error(Code::OperationNotFound)
}

pub fn all_events() -> Doc {
    last_event_id(Doc::new(
        SYSTEM,
        "followAll",
        "All operations and workers, live (server-sent events)",
    ))
    .query(
        "operation_type",
        json!({"type": "string"}),
        "Only operations of one worker type.",
    )
    .query(
        "worker_type",
        json!({"type": "string"}),
        "Only workers of one type.",
    )
}

pub fn stats() -> Doc {
    Doc::new(SYSTEM, "getStats", "The figures of an overview").json::<answers::Stats>(
        200,
        "Counts by status and type, queues, workers, the last 60 minutes.",
    )
}

fn again(id: &'static str, summary: &'static str) -> Doc {
    started(Doc::new(OPERATIONS, id, summary)).errors(&[
        Code::OperationNotFound,
        Code::UnknownDomain,
        Code::NotRepeatable,
        Code::TaskIdConflict,
    ])
}

pub fn retry() -> Doc {
    again(
        "retryOperation",
        "Run a failed or cancelled operation again, as a new one",
    )
}

pub fn resume() -> Doc {
    again(
        "resumeOperation",
        "Run it again from its newest checkpoint, as a new one",
    )
}

pub fn list_workers() -> Doc {
    Doc::new(
        WORKERS,
        "listWorkers",
        "All workers that are alive or were a moment ago",
    )
    .query(
        "worker_type",
        json!({"type": "string"}),
        "Only those of one type.",
    )
    .query("status", worker_status(), "Only those in one status.")
    .json::<Vec<WorkerDocument>>(200, "By id.")
}

pub fn show_worker() -> Doc {
    Doc::new(WORKERS, "getWorker", "One worker")
        .json::<WorkerDocument>(200, "The worker.")
        .error(Code::WorkerNotFound)
}

pub fn worker_types() -> Doc {
    Doc::new(
        WORKERS,
        "listWorkerTypes",
        "All worker types, with their schemas and queues",
    )
    .json::<answers::WorkerTypes>(200, "By name.")
}

fn started(doc: Doc) -> Doc {
    doc.header("Idempotency-Key", idempotency_key(), "The same key again answers the first operation and starts none. Beside a `task_id`, that one is the operation's id.")
        .json::<answers::Started>(202, "Accepted: stored, and visible to the next request.")
        .answer_header("Location", "Where the operation is.")
        .json::<answers::Started>(200, "It was started before; this is how it stands.")
        .answer_header("Location", "Where the operation is.")
        .errors(&[Code::InvalidHeader, Code::BodyTooLarge, Code::NoWorkers, Code::OutcomeUnknown, Code::StorageFull])
}

fn idempotency_key() -> Value {
    json!({"type": "string", "pattern": "^[!-~]([ -~]{0,253}[!-~])?$"})
}

/// The start route of any domain; those that are known are described one by one, see [`crate::openapi`].
pub fn start() -> Doc {
    started(Doc::new(
        START,
        "start",
        "Start an operation of any worker type",
    ))
    .details(
        "The domains that are known now are listed one by one, with the schemas of their requests.",
    )
    .body(
        true,
        start_body(Map::new()),
        "The worker type's own parameters; `task_id` and `execution` are for this API.",
    )
    .errors(&[
        Code::BadJson,
        Code::InvalidBody,
        Code::UnknownDomain,
        Code::TaskIdConflict,
        Code::InvalidRequest,
    ])
}

/// The schema of a start body, around the worker type's own.
pub fn start_body(own: Map<String, Value>) -> Value {
    let mut schema = own;
    schema.entry("type").or_insert_with(|| "object".into());
    let properties = schema.entry("properties").or_insert_with(|| json!({}));
    if let Some(properties) = properties.as_object_mut() {
        let id = json!({
            "type": ["string", "null"], "pattern": "^[A-Za-z0-9_-]{1,128}$",
            "description": "An id of the client's own: the same id again starts nothing twice.",
        });
        let execution = json!({
            "description": "How to run it.",
            "anyOf": [{"$ref": "#/components/schemas/Execution"}, {"type": "null"}],
        });
        properties.insert("task_id".to_owned(), id);
        properties.insert("execution".to_owned(), execution);
    }
    Value::Object(schema)
}

pub fn health() -> Doc {
    Doc::new(SYSTEM, "getHealth", "Whether the process lives")
        .json::<answers::Health>(200, "It does; `status` says whether all is well.")
}

pub fn ready() -> Doc {
    Doc::new(SYSTEM, "getReady", "Whether it can serve")
        .json::<answers::Ready>(200, "It can.")
        .errors(&[Code::NotReady, Code::NatsUnavailable])
}

pub fn openapi() -> Doc {
    Doc::new(SYSTEM, "getOpenApi", "This document").json::<Map<String, Value>>(
        200,
        "OpenAPI 3.1, with every worker type that is known now.",
    )
}

pub fn prometheus() -> Doc {
    Doc::new(SYSTEM, "getPrometheus", "Metrics for Prometheus").text(
        200,
        "text/plain",
        "Text format 0.0.4; docs/monitoring.md explains the names.",
    )
}

fn page(id: &'static str, summary: &'static str) -> Doc {
    Doc::new(PAGES, id, summary)
        .header(
            "If-None-Match",
            json!({"type": "string"}),
            "The tag of the version that is known.",
        )
        .empty(304, "The known version is the newest.")
}

pub fn dashboard() -> Doc {
    page("dashboard", "The dashboard").text(200, "text/html", "A page.")
}

pub fn dashboard_file() -> Doc {
    page("dashboardFile", "A file of the dashboard")
        .text(200, "*/*", "The file.")
        .error(Code::UnknownRoute)
}

pub fn docs() -> Doc {
    page("docs", "This API, to read and to try").text(200, "text/html", "A page.")
}

pub fn docs_file() -> Doc {
    page("docsFile", "A file of the API page")
        .text(200, "*/*", "The file.")
        .error(Code::UnknownRoute)
}
