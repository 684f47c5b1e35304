//! Descriptions of the routes, in the order of the router: operation ids, summaries, error codes.
//! Parameters and answers come from the types of the handlers.

use ktrdr_http::openapi::{Doc, Header, HeaderValues};

use crate::error::ErrorCode;

const OPERATIONS: &str = "Operations";
const START: &str = "Start";
const WORKERS: &str = "Workers";
const SCHEDULES: &str = "Schedules";
const SYSTEM: &str = "System";
const PAGES: &str = "Pages";

/// The groups, in the order in which they are shown.
pub const TAGS: [(&str, &str); 6] = [
    (
        START,
        "Start operations. Each known worker type has a route of its own.",
    ),
    (OPERATIONS, "Follow, read, cancel and repeat operations."),
    (WORKERS, "Workers and worker types."),
    (SCHEDULES, "Operations that start by the clock."),
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

const KEY_OF_MANY: Header = Header {
    name: "Idempotency-Key",
    description: "A repeated request with the same key starts each operation once. Each token has keys of its own.",
    values: HeaderValues::Matching("^[!-~]([ -~]{0,253}[!-~])?$"),
};

const LAST_EVENT_ID: Header = Header {
    name: "Last-Event-ID",
    description: "The id of the last event that was received; the stream resumes after it.",
    values: HeaderValues::Number,
};

/// That of one operation has a cursor behind it when the events have log lines.
const LAST_OPERATION_EVENT_ID: Header = Header {
    values: HeaderValues::Matching("^[0-9]{1,19}(/[0-9]{1,19}-[0-9]{1,19})?$"),
    ..LAST_EVENT_ID
};

/// That of log lines is a cursor.
const LAST_LOG_EVENT_ID: Header = Header {
    description: "With `follow`: the id of the last event that was received; the stream resumes after it.",
    values: HeaderValues::Matching("^[0-9]{1,19}-[0-9]{1,19}$"),
    ..LAST_EVENT_ID
};

const IF_NONE_MATCH: Header = Header {
    name: "If-None-Match",
    description: "The tag of the version that the client has.",
    values: HeaderValues::Text,
};

pub const LIST_OPERATIONS: Doc = Doc {
    details: "With an archive, the list goes on in it; `warning` says when it cannot.",
    answer: "One page of operations.",
    errors: &[ErrorCode::InvalidCursor],
    ..Doc::new(
        OPERATIONS,
        "listOperations",
        "List operations, newest first",
    )
};

pub const GET_OPERATION: Doc = Doc {
    details: "`wait` holds the answer until the operation has ended or the time is over. `force_refresh` asks its worker first.",
    answer: "The operation now.",
    errors: &[
        ErrorCode::OperationNotFound,
        ErrorCode::OperationDamaged,
        ErrorCode::ArchiveUnavailable,
    ],
    ..Doc::new(OPERATIONS, "getOperation", "Get one operation")
};

pub const CANCEL_OPERATION: Doc = Doc {
    details: "A pending operation ends at once; the worker of a running one is asked to stop. Repeating the request is harmless.",
    answer: "Cancelled or requested; `status` says which.",
    errors: &[
        ErrorCode::OperationNotFound,
        ErrorCode::OperationDamaged,
        ErrorCode::ArchiveUnavailable,
        ErrorCode::AlreadyFinished,
        ErrorCode::OutcomeUnknown,
        ErrorCode::StorageFull,
    ],
    ..Doc::new(OPERATIONS, "cancelOperation", "Cancel an operation")
};

pub const CHANGE_OPERATION: Doc = Doc {
    details: "It is moved behind the operations of this priority that wait already. Repeating the request is harmless.",
    answer: "The operation now.",
    errors: &[
        ErrorCode::OperationNotFound,
        ErrorCode::OperationDamaged,
        ErrorCode::ArchiveUnavailable,
        ErrorCode::NotWaiting,
        ErrorCode::NotRepeatable,
        ErrorCode::TooManyQueues,
        ErrorCode::OutcomeUnknown,
        ErrorCode::StorageFull,
    ],
    ..Doc::new(
        OPERATIONS,
        "changeOperation",
        "Change the priority of an operation that waits",
    )
};

pub const DELETE_OPERATION: Doc = Doc {
    id: "deleteOperation",
    summary: "Cancel an operation (same as `/cancel`)",
    ..CANCEL_OPERATION
};

pub const CANCEL_BY_FILTER: Doc = Doc {
    details: "Those that can be cancelled come first. The answer does not wait for workers.",
    answer: "What became of each operation; `matched` above the number of results says that there are more.",
    errors: &[ErrorCode::Overloaded],
    ..Doc::new(
        OPERATIONS,
        "cancelOperations",
        "Cancel all operations that match a filter",
    )
};

pub const RETRY_BY_FILTER: Doc = Doc {
    details: "Each becomes a new operation, the oldest first. One that was retried before is refused (`not_repeatable`), and so is one that another operation has replaced (`replaced`).",
    headers: &[KEY_OF_MANY],
    summary: "Run all failed and cancelled operations that match a filter again",
    id: "retryOperations",
    ..CANCEL_BY_FILTER
};

pub const RESULTS: Doc = Doc {
    answer: "The result, however large.",
    errors: &[
        ErrorCode::OperationNotFound,
        ErrorCode::OperationDamaged,
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
        ErrorCode::OperationDamaged,
        ErrorCode::ArchiveUnavailable,
        ErrorCode::InvalidCursor,
    ],
    ..Doc::new(
        OPERATIONS,
        "getMetrics",
        "Get the metric points of an operation",
    )
};

pub const LOGS: Doc = Doc {
    details: "What the engine said while it ran the operation. With `follow`, the answer is server-sent events: `log` with lines, \
        and `end` after the last one. The id of an event is its cursor, so a client that connects again continues.",
    answer: "Lines after the cursor, oldest first.",
    headers: &[LAST_LOG_EVENT_ID],
    errors: &[
        ErrorCode::OperationNotFound,
        ErrorCode::ArchiveUnavailable,
        ErrorCode::InvalidCursor,
        ErrorCode::InvalidHeader,
    ],
    ..Doc::new(OPERATIONS, "getLogs", "Get the log lines of an operation")
};

pub const HISTORY: Doc = Doc {
    answer: "The start request, every event and every cancel intent, in stream order.",
    errors: &[
        ErrorCode::OperationNotFound,
        ErrorCode::OperationDamaged,
        ErrorCode::ArchiveUnavailable,
    ],
    ..Doc::new(
        OPERATIONS,
        "getHistory",
        "Get all messages about an operation from the stream",
    )
};

pub const CHECKPOINT: Doc = Doc {
    answer: "Whose checkpoint a resume would begin with.",
    errors: &[
        ErrorCode::OperationNotFound,
        ErrorCode::OperationDamaged,
        ErrorCode::ArchiveUnavailable,
    ],
    ..Doc::new(
        OPERATIONS,
        "getCheckpoint",
        "Find out whether a resume would begin with a checkpoint",
    )
};

pub const OPERATION_EVENTS: Doc = Doc {
    answer: "Events until the operation has ended; docs/events.md lists them.",
    headers: &[LAST_OPERATION_EVENT_ID],
    errors: &[
        ErrorCode::OperationNotFound,
        ErrorCode::OperationDamaged,
        ErrorCode::ArchiveUnavailable,
        ErrorCode::InvalidHeader,
        ErrorCode::InvalidCursor,
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
        ErrorCode::OperationDamaged,
        ErrorCode::ArchiveUnavailable,
        ErrorCode::UnknownDomain,
        ErrorCode::NotRepeatable,
        ErrorCode::TaskIdConflict,
        ErrorCode::IdempotencyMismatch,
        ErrorCode::NotUnique,
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

pub const DRAIN_WORKER: Doc = Doc {
    details: "It finishes what it runs and takes nothing more, until it is told to go on or is restarted. Its status is `DRAINING`.",
    errors: &[ErrorCode::WorkerNotFound, ErrorCode::WorkerNotAnswering],
    ..Doc::new(WORKERS, "drainWorker", "Let a worker take no more work")
};

pub const UNDRAIN_WORKER: Doc = Doc {
    errors: &[ErrorCode::WorkerNotFound, ErrorCode::WorkerNotAnswering],
    ..Doc::new(WORKERS, "undrainWorker", "Let a drained worker go on")
};

const SCHEDULE: Doc = Doc {
    answer: "The schedule.",
    errors: &[ErrorCode::ScheduleNotFound],
    ..Doc::new(SCHEDULES, "", "")
};

pub const LIST_SCHEDULES: Doc = Doc {
    answer: "Schedules by id.",
    ..Doc::new(SCHEDULES, "listSchedules", "List all schedules")
};

pub const GET_SCHEDULE: Doc = Doc {
    id: "getSchedule",
    summary: "Get one schedule",
    ..SCHEDULE
};

pub const PUT_SCHEDULE: Doc = Doc {
    details: "Each slot becomes one operation with the id `<schedule>-<slot as yyyymmddThhmmssZ>`. The body is checked like that of a start.",
    errors: &[
        ErrorCode::UnknownDomain,
        ErrorCode::TaskIdConflict,
        ErrorCode::SchedulesUnsupported,
    ],
    ..Doc::new(SCHEDULES, "putSchedule", "Make or change a schedule")
};

pub const DELETE_SCHEDULE: Doc = Doc {
    details: "Its operations stay.",
    answer: "Deleted.",
    id: "deleteSchedule",
    summary: "Delete a schedule",
    ..SCHEDULE
};

pub const PAUSE_SCHEDULE: Doc = Doc {
    id: "pauseSchedule",
    summary: "Let a schedule start nothing by itself",
    ..SCHEDULE
};

pub const RESUME_SCHEDULE: Doc = Doc {
    details: "Slots that came meanwhile are not made up for.",
    id: "resumeSchedule",
    summary: "Let a paused schedule go on",
    ..SCHEDULE
};

pub const RUN_SCHEDULE: Doc = Doc {
    headers: &[IDEMPOTENCY_KEY],
    errors: &[
        ErrorCode::ScheduleNotFound,
        ErrorCode::UnknownDomain,
        ErrorCode::InvalidRequest,
        ErrorCode::TaskIdConflict,
        ErrorCode::IdempotencyMismatch,
        ErrorCode::NotUnique,
        ErrorCode::NoWorkers,
        ErrorCode::OutcomeUnknown,
        ErrorCode::StorageFull,
    ],
    ..Doc::new(
        SCHEDULES,
        "runSchedule",
        "Start an operation of a schedule now",
    )
};

pub const LIST_QUEUES: Doc = Doc {
    answer: "Queues by worker type and name.",
    ..Doc::new(WORKERS, "listQueues", "List all queues")
};

pub const PAUSE_QUEUES: Doc = Doc {
    details: "What runs goes on. Starts are accepted and wait. All queues of the type are paused, also those that come later.",
    answer: "Paused.",
    errors: &[ErrorCode::WorkerTypeNotFound, ErrorCode::OutcomeUnknown],
    ..Doc::new(WORKERS, "pauseQueues", "Pause the queues of a worker type")
};

pub const RESUME_QUEUES: Doc = Doc {
    answer: "Resumed, or never paused.",
    errors: &[ErrorCode::WorkerTypeNotFound, ErrorCode::OutcomeUnknown],
    ..Doc::new(WORKERS, "resumeQueues", "Let paused queues go on")
};

pub const WORKER_TYPES: Doc = Doc {
    answer: "Worker types by name.",
    ..Doc::new(
        WORKERS,
        "listWorkerTypes",
        "List all worker types with their schemas and queues",
    )
};

pub const FORGET_WORKER_TYPE: Doc = Doc {
    details: "Its domain is free afterwards. Its operations stay; those that have not ended run when a worker of the type starts, \
        which registers the type again.",
    answer: "Forgotten.",
    errors: &[ErrorCode::WorkerTypeNotFound, ErrorCode::WorkerTypeInUse],
    ..Doc::new(
        WORKERS,
        "forgetWorkerType",
        "Forget a worker type that nobody serves",
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
        ErrorCode::IdempotencyMismatch,
        ErrorCode::NotUnique,
        ErrorCode::NoWorkers,
        ErrorCode::OutcomeUnknown,
        ErrorCode::StorageFull,
    ],
    ..Doc::new(START, "start", "Start an operation of any worker type")
};

pub const START_MANY: Doc = Doc {
    details: "Every start is as good as one of its own; a refused one keeps none of the others. They begin about in the order of the body.",
    answer: "What became of each start, in the order of the body.",
    headers: &[KEY_OF_MANY],
    errors: &[ErrorCode::UnknownDomain, ErrorCode::Overloaded],
    ..Doc::new(START, "startMany", "Start many operations of a worker type")
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

pub const DASHBOARD: Doc = Doc {
    id: "dashboard",
    summary: "The dashboard",
    ..PAGE
};

pub const DOCS: Doc = Doc {
    id: "docs",
    summary: "A page that shows this document and sends requests",
    ..PAGE
};
