//! Descriptions of the routes, in the order of the router: operation ids, summaries, error codes.
//! Parameters and answers come from the types of the handlers.

use ktrdr_http::openapi::{Doc, Header, HeaderValues};

use crate::error::ErrorCode;

const OPERATIONS: &str = "Operations";
const START: &str = "Start";
const WORKERS: &str = "Workers";
const SYSTEM: &str = "System";
const PAGES: &str = "Pages";

/// The groups, in the order in which they are shown.
pub const TAGS: [(&str, &str); 5] = [
    (
        START,
        "Start operations. Each known worker type has a route of its own.",
    ),
    (OPERATIONS, "Follow, read, cancel and repeat operations."),
    (WORKERS, "Workers and worker types."),
    (
        SYSTEM,
        "Health, figures, live events, Prometheus metrics, this document.",
    ),
    (PAGES, "Pages for people with a browser."),
];

const IDEMPOTENCY_KEY: Header = Header {
    name: "Idempotency-Key",
    description: "A request with a known key starts nothing and answers with the first operation. With a `task_id` in the \
        body, that is the operation's id. Each token has keys of its own.",
    values: HeaderValues::Matching("^[!-~]([ -~]{0,253}[!-~])?$"),
};

const LAST_EVENT_ID: Header = Header {
    name: "Last-Event-ID",
    description: "The id of the last event that was received; the stream resumes after it.",
    values: HeaderValues::Number,
};

const IF_NONE_MATCH: Header = Header {
    name: "If-None-Match",
    description: "The tag of the version that the client has.",
    values: HeaderValues::Text,
};

pub const LIST_OPERATIONS: Doc = Doc {
    details: "With an archive, the list goes on in it; `warning` says when it cannot.",
    answer: "One page of operations.",
    ..Doc::new(
        OPERATIONS,
        "listOperations",
        "List operations, newest first",
    )
};

pub const GET_OPERATION: Doc = Doc {
    details: "`wait` holds the answer until the operation has ended or the time is over. `force_refresh` asks its worker first.",
    answer: "The operation now.",
    errors: &[ErrorCode::OperationNotFound, ErrorCode::ArchiveUnavailable],
    ..Doc::new(OPERATIONS, "getOperation", "Get one operation")
};

pub const CANCEL_OPERATION: Doc = Doc {
    details: "A pending operation ends at once; the worker of a running one is asked to stop. Repeating the request is harmless.",
    answer: "Cancelled or requested; `status` says which.",
    errors: &[
        ErrorCode::OperationNotFound,
        ErrorCode::ArchiveUnavailable,
        ErrorCode::AlreadyFinished,
        ErrorCode::OutcomeUnknown,
        ErrorCode::StorageFull,
    ],
    ..Doc::new(OPERATIONS, "cancelOperation", "Cancel an operation")
};

pub const DELETE_OPERATION: Doc = Doc {
    id: "deleteOperation",
    summary: "Cancel an operation (same as `/cancel`)",
    ..CANCEL_OPERATION
};

pub const RESULTS: Doc = Doc {
    answer: "The result, however large.",
    errors: &[
        ErrorCode::OperationNotFound,
        ErrorCode::ArchiveUnavailable,
        ErrorCode::NotFinished,
        ErrorCode::NoResult,
        ErrorCode::ResultGone,
        ErrorCode::InvalidResult,
    ],
    ..Doc::new(
        OPERATIONS,
        "getResults",
        "Get the result of a completed operation",
    )
};

pub const OPERATION_METRICS: Doc = Doc {
    answer: "Points after the cursor, oldest first.",
    errors: &[
        ErrorCode::OperationNotFound,
        ErrorCode::ArchiveUnavailable,
        ErrorCode::InvalidCursor,
    ],
    ..Doc::new(
        OPERATIONS,
        "getMetrics",
        "Get the metric points of an operation",
    )
};

pub const HISTORY: Doc = Doc {
    answer: "The start request, every event and every cancel intent, in stream order.",
    errors: &[ErrorCode::OperationNotFound, ErrorCode::ArchiveUnavailable],
    ..Doc::new(
        OPERATIONS,
        "getHistory",
        "Get all messages about an operation from the stream",
    )
};

pub const OPERATION_EVENTS: Doc = Doc {
    answer: "Events until the operation has ended; docs/events.md lists them.",
    headers: &[LAST_EVENT_ID],
    errors: &[
        ErrorCode::OperationNotFound,
        ErrorCode::ArchiveUnavailable,
        ErrorCode::InvalidHeader,
    ],
    ..Doc::new(
        OPERATIONS,
        "followOperation",
        "Follow one operation (server-sent events)",
    )
};

pub const ALL_EVENTS: Doc = Doc {
    answer: "Events until the client leaves; docs/events.md lists them.",
    headers: &[LAST_EVENT_ID],
    errors: &[ErrorCode::InvalidHeader],
    ..Doc::new(
        SYSTEM,
        "followAll",
        "Follow all operations and workers (server-sent events)",
    )
};

pub const STATS: Doc = Doc {
    answer: "Counts by status and type, queues, workers, the last 60 minutes.",
    ..Doc::new(SYSTEM, "getStats", "Get the figures of an overview")
};

pub const RETRY: Doc = Doc {
    headers: &[IDEMPOTENCY_KEY],
    errors: &[
        ErrorCode::InvalidHeader,
        ErrorCode::OperationNotFound,
        ErrorCode::ArchiveUnavailable,
        ErrorCode::UnknownDomain,
        ErrorCode::NotRepeatable,
        ErrorCode::TaskIdConflict,
        ErrorCode::BodyTooLarge,
        ErrorCode::NoWorkers,
        ErrorCode::OutcomeUnknown,
        ErrorCode::StorageFull,
    ],
    ..Doc::new(
        OPERATIONS,
        "retryOperation",
        "Run a failed or cancelled operation again, as a new one",
    )
};

pub const RESUME: Doc = Doc {
    id: "resumeOperation",
    summary: "Run a failed or cancelled operation again from its newest checkpoint, as a new one",
    ..RETRY
};

pub const LIST_WORKERS: Doc = Doc {
    answer: "Workers by id.",
    ..Doc::new(
        WORKERS,
        "listWorkers",
        "List the workers that are alive or were a moment ago",
    )
};

pub const GET_WORKER: Doc = Doc {
    answer: "The worker.",
    errors: &[ErrorCode::WorkerNotFound],
    ..Doc::new(WORKERS, "getWorker", "Get one worker")
};

pub const WORKER_TYPES: Doc = Doc {
    answer: "Worker types by name.",
    ..Doc::new(
        WORKERS,
        "listWorkerTypes",
        "List all worker types with their schemas and queues",
    )
};

/// The start route of any domain; the document has one more route for each known worker type.
pub const START_OPERATION: Doc = Doc {
    details: "Each known domain also has a route of its own, with the schema of its requests.",
    headers: &[IDEMPOTENCY_KEY],
    errors: &[
        ErrorCode::InvalidHeader,
        ErrorCode::UnknownDomain,
        ErrorCode::TaskIdConflict,
        ErrorCode::NoWorkers,
        ErrorCode::OutcomeUnknown,
        ErrorCode::StorageFull,
    ],
    ..Doc::new(START, "start", "Start an operation of any worker type")
};

pub const HEALTH: Doc = Doc {
    answer: "The process lives; `status` says whether all is well.",
    ..Doc::new(SYSTEM, "getHealth", "Whether the process lives")
};

pub const READY: Doc = Doc {
    answer: "The backend can serve.",
    errors: &[ErrorCode::NotReady, ErrorCode::NatsUnavailable],
    ..Doc::new(SYSTEM, "getReady", "Whether the backend can serve")
};

pub const OPENAPI: Doc = Doc {
    answer: "OpenAPI 3.1, with every worker type that is known now.",
    ..Doc::new(SYSTEM, "getOpenApi", "Get this document")
};

pub const PROMETHEUS: Doc = Doc {
    answer: "Text format 0.0.4; docs/monitoring.md explains the names.",
    ..Doc::new(SYSTEM, "getPrometheus", "Get Prometheus metrics")
};

const PAGE: Doc = Doc {
    answer: "The page.",
    headers: &[IF_NONE_MATCH],
    ..Doc::new(PAGES, "", "")
};

const PAGE_FILE: Doc = Doc {
    answer: "The file.",
    errors: &[ErrorCode::UnknownRoute],
    ..PAGE
};

pub const DASHBOARD: Doc = Doc {
    id: "dashboard",
    summary: "The dashboard",
    ..PAGE
};

pub const DASHBOARD_FILE: Doc = Doc {
    id: "dashboardFile",
    summary: "A file of the dashboard",
    ..PAGE_FILE
};

pub const DOCS: Doc = Doc {
    id: "docs",
    summary: "A page that shows this document and sends requests",
    ..PAGE
};

pub const DOCS_FILE: Doc = Doc {
    id: "docsFile",
    summary: "A file of the page that shows this document",
    ..PAGE_FILE
};
