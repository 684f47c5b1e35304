//! The shapes of answers, where the handler builds them from parts that borrow: for their schemas only. That they are what is
//! really answered is tested on every route (`tests/it/openapi.rs`).
#![expect(dead_code, reason = "only their schemas are used")]

use std::collections::BTreeMap;

use ktrdr_http::schema::Violation;
use ktrdr_protocol::id::{OperationId, WorkerId, WorkerType};
use ktrdr_protocol::metric::MetricPoint;
use ktrdr_protocol::operation::OperationDocument;
use ktrdr_protocol::progress::Progress;
use ktrdr_protocol::state::Status;
use ktrdr_protocol::time::Timestamp;
use schemars::JsonSchema;
use serde_json::{Map, Value};

/// Every answer that is not a success. `code` is for programs; fields of the error's own stand beside it.
#[derive(JsonSchema)]
pub struct Problem {
    #[schemars(extend("const" = false))]
    success: bool,
    /// What went wrong and what to do about it.
    error: String,
    /// A stable word; all of them are in docs/errors.md.
    code: String,
    /// The HTTP status.
    status_code: u16,
    /// With `invalid_request`: every place that does not fit.
    #[schemars(skip_serializing_if = "Vec::is_empty")]
    violations: Vec<Violation>,
    #[schemars(flatten)]
    fields: Map<String, Value>,
}

/// A page of operations, newest first.
#[derive(JsonSchema)]
pub struct OperationList {
    success: bool,
    data: OperationPage,
}

#[derive(JsonSchema)]
pub struct OperationPage {
    operations: Vec<OperationDocument<'static>>,
    /// How many match in all.
    total: u64,
    limit: u64,
    offset: u64,
}

/// One operation; status and progress also stand outside `data`.
#[derive(JsonSchema)]
pub struct OperationShown {
    success: bool,
    operation_id: OperationId,
    status: Status,
    progress: Progress,
    data: OperationDocument<'static>,
    /// What a user should know, for example that its worker does not answer.
    #[schemars(skip_serializing_if = "Option::is_none")]
    warning: Option<String>,
}

/// The operation was accepted, or had been before.
#[derive(JsonSchema)]
pub struct Started {
    success: bool,
    operation_id: OperationId,
    status: Status,
    worker_id: Option<WorkerId>,
    /// While it waits: its place in the queue, from 1.
    #[schemars(skip_serializing_if = "Option::is_none")]
    queue_position: Option<u64>,
    /// For example that no worker could run it now.
    #[schemars(skip_serializing_if = "Option::is_none")]
    warning: Option<String>,
}

/// The operation is cancelled, or its worker was asked to stop.
#[derive(JsonSchema)]
pub struct Cancelled {
    success: bool,
    message: String,
    operation_id: OperationId,
    status: Status,
    cancel_requested_at: Option<Timestamp>,
}

/// Measured points, oldest first.
#[derive(JsonSchema)]
pub struct Metrics {
    success: bool,
    data: MetricsPage,
}

#[derive(JsonSchema)]
pub struct MetricsPage {
    operation_id: OperationId,
    metrics: Vec<MetricPoint>,
    /// Give it back to read on: nothing is missed, nothing repeated.
    cursor: String,
    has_more: bool,
}

/// The result of a completed operation.
#[derive(JsonSchema)]
pub struct ResultShown {
    success: bool,
    operation_id: OperationId,
    status: Status,
    /// What its worker type's result schema says.
    data: Value,
}

/// Everything the stream holds about one operation.
#[derive(JsonSchema)]
pub struct History {
    success: bool,
    data: HistoryData,
}

#[derive(JsonSchema)]
pub struct HistoryData {
    operation_id: OperationId,
    history: Vec<HistoryEntry>,
    /// Whether there is more than is shown.
    truncated: bool,
}

#[derive(JsonSchema)]
pub struct HistoryEntry {
    /// Its place in the stream.
    sequence: u64,
    time: Option<Timestamp>,
    /// `start_requested`, `cancel_requested`, or the event's own word.
    event: String,
    worker_id: Option<String>,
    attempt: Option<u64>,
    /// The message as it was published; `null` when it is no JSON.
    data: Value,
}

/// The catalogue of worker types.
#[derive(JsonSchema)]
pub struct WorkerTypes {
    success: bool,
    data: WorkerTypesData,
}

#[derive(JsonSchema)]
pub struct WorkerTypesData {
    worker_types: Vec<WorkerTypeShown>,
}

#[derive(JsonSchema)]
pub struct WorkerTypeShown {
    worker_type: WorkerType,
    domain: String,
    description: String,
    version: String,
    /// Where to start one.
    start: String,
    /// JSON Schema of the parameters.
    request_schema: Value,
    /// JSON Schema of the result.
    result_schema: Value,
    queues: Vec<TypeQueue>,
    /// How many workers are listed.
    workers: u64,
}

#[derive(JsonSchema)]
pub struct TypeQueue {
    queue: String,
    pending: u64,
    running: u64,
    oldest_pending_seconds: Option<f64>,
}

/// What an overview shows.
#[derive(JsonSchema)]
pub struct Stats {
    success: bool,
    data: StatsData,
}

#[derive(JsonSchema)]
pub struct StatsData {
    /// Operations by status, and `total`.
    operations: BTreeMap<String, u64>,
    by_type: Vec<TypeStats>,
    queues: Vec<QueueStats>,
    /// Workers by status.
    workers: BTreeMap<String, u64>,
    /// The last 60 minutes, oldest first.
    minutes: Vec<MinuteStats>,
    event_streams: EventStreams,
    sequence: u64,
}

#[derive(JsonSchema)]
pub struct TypeStats {
    worker_type: WorkerType,
    workers: u64,
    pending: u64,
    running: u64,
    completed: u64,
    failed: u64,
    cancelled: u64,
}

#[derive(JsonSchema)]
pub struct QueueStats {
    worker_type: WorkerType,
    queue: String,
    pending: u64,
    running: u64,
    oldest_pending_seconds: Option<f64>,
}

#[derive(JsonSchema)]
pub struct MinuteStats {
    minute: Timestamp,
    created: u64,
    completed: u64,
    failed: u64,
    cancelled: u64,
}

#[derive(JsonSchema)]
pub struct EventStreams {
    all: u64,
    operations_followed: u64,
}

/// The process lives; `status` says whether all is well.
#[derive(JsonSchema)]
pub struct Health {
    healthy: bool,
    service: String,
    timestamp: Timestamp,
    /// `operational` or `degraded`.
    status: String,
    version: String,
    ready: bool,
    nats: NatsHealth,
    projection: ProjectionHealth,
}

#[derive(JsonSchema)]
pub struct NatsHealth {
    connected: bool,
    /// How many connections there have been.
    connections: u64,
}

#[derive(JsonSchema)]
pub struct ProjectionHealth {
    caught_up: bool,
    /// The last message that was taken.
    sequence: u64,
    operations: u64,
    /// Messages that could not be read or could not follow.
    skipped_messages: u64,
}

/// The backend can serve.
#[derive(JsonSchema)]
pub struct Ready {
    ready: bool,
    sequence: u64,
}
