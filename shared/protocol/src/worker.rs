//! How workers describe themselves: capabilities, heartbeats, and the catalogue entry of a worker
//! type.
//!
//! The problem: workers come and go, and backends must know who is there, what each one runs and
//! how to start operations of its type, without being configured or restarted.
//!
//! How it is solved: a worker publishes a [`Heartbeat`] at an interval and after every change. It
//! is complete, so a lost one costs nothing and a backend that has just started knows everything
//! after one interval. Its worker type is a [`WorkerTypeEntry`] in a bucket, with the schemas of
//! parameters and result. The entry stays when the last worker stops, so starts can wait for one.
//!
//! Rejected: registration at a backend over HTTP. A worker would have to know every backend and
//! register again after each restart. Also rejected: presence from NATS connections, because a
//! worker that hangs still has one.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::execution::ExecutionDefaults;
use crate::id::{OperationId, WorkerId, WorkerType};
use crate::json::length;
use crate::progress::Progress;
use crate::schema_digest::SchemaDigest;
use crate::schema_text::SchemaText;
use crate::time::Timestamp;

/// What a worker has: GPU, cores, memory. An operator may add other keys; they are kept and shown.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Capabilities {
    /// Whether it can compute on a GPU. Never true for an engine that was not built for one.
    #[serde(default)]
    pub gpu: bool,
    /// Processor cores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cores: Option<u32>,
    /// Memory in GiB, rounded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_gb: Option<u32>,
    /// Other keys that the operator added.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// Whether a worker can take work.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum WorkerStatus {
    /// It has a free slot.
    Available,
    /// All its slots are taken.
    Busy,
    /// It takes no more work, because somebody asked for that. Backends set this status, for a
    /// heartbeat that says `draining`.
    Draining,
    /// Its heartbeats stopped. Only backends set this status.
    TemporarilyUnavailable,
}

/// A worker's report about itself, on `heartbeat.<worker_type>.<worker_id>`. It is sent at an
/// interval, and at once after every change.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Heartbeat {
    /// The same over a restart of the worker.
    pub worker_id: WorkerId,
    /// The type of operations that it runs.
    pub worker_type: WorkerType,
    /// Unique to the process, so a restarted worker can be told from the process before it.
    pub instance: String,
    /// The address of its REST interface, as others reach it.
    pub endpoint_url: String,
    /// `AVAILABLE` or `BUSY`.
    pub status: WorkerStatus,
    /// Compared with the requirements of operations.
    pub capabilities: Capabilities,
    /// Version of the worker program.
    pub version: String,
    /// The digest of its request schema; absent from a worker that makes none.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "crate::if_valid::read"
    )]
    pub schema_digest: Option<SchemaDigest>,
    /// When the process started.
    pub registered_at: Timestamp,
    /// When the heartbeat was sent, by the worker's clock.
    pub at: Timestamp,
    /// Longest time to the next heartbeat, in seconds. After three missed ones the worker is
    /// unavailable.
    pub interval_seconds: f64,
    /// How many operations it can run at a time.
    pub slots: u32,
    /// The operations that it runs now, oldest first.
    pub running: Vec<RunningOperation>,
    /// When it last pulled from a queue; `None` before the first time. A worker that is `AVAILABLE`
    /// and has not pulled for 90 seconds is "not pulling".
    #[serde(default)]
    pub last_pull_at: Option<Timestamp>,
    /// Number of attempts that have ended since the process started, whatever their outcome.
    #[serde(default)]
    pub finished: u64,
    /// Number of ends that were refused because the attempt was lost.
    #[serde(default)]
    pub fenced: u64,
    /// Slots whose engine does not return although its attempt is over. They take no work until it
    /// does.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub lost_slots: u32,
    /// Start requests that it refused lately because of their signature, at most
    /// [`MAX_REFUSED_STARTS`]. A backend ends the operation of one that made its operation exist.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused_starts: Vec<RefusedStart>,
    /// Whether it takes no more work. Its status is then `BUSY`: a backend of an earlier version
    /// cannot read another one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub draining: bool,
    /// Whether this is the farewell of a worker that stops. Backends then remove it at once.
    #[serde(default)]
    pub leaving: bool,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// Refused start requests in a heartbeat, at most.
pub const MAX_REFUSED_STARTS: usize = 32;

/// A start request that a worker does not run, because no key that it trusts signed it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RefusedStart {
    /// The operation in the message.
    pub operation_id: OperationId,
    /// Stream sequence of the message.
    pub start_sequence: u64,
    /// Why, for people.
    pub why: String,
}

/// The answer of a worker to the verbs [`DRAIN`] and [`UNDRAIN`] of its NATS service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DrainAnswer {
    /// Whether it takes no more work now.
    pub draining: bool,
    /// How many operations it runs.
    pub running: u64,
}

/// The verb that lets a worker take no more work.
pub const DRAIN: &str = "drain";

/// The verb that lets a drained worker go on.
pub const UNDRAIN: &str = "undrain";

/// Longest address of a worker, in bytes.
pub const MAX_ENDPOINT_URL: usize = 2048;

/// Longest instance and longest version, in bytes.
pub const MAX_LABEL: usize = 256;

/// Bytes of a worker's capabilities, written as JSON.
pub const MAX_CAPABILITIES: usize = 16 * 1024;

/// A part of a heartbeat has more bytes than backends accept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{part} has more than {most} bytes")]
pub struct PartTooLarge {
    /// The name of the part.
    pub part: &'static str,
    /// Its bound, in bytes.
    pub most: usize,
}

impl Heartbeat {
    /// Checks the parts that have any size and cannot be shortened; returns how many bytes they
    /// have together.
    ///
    /// # Errors
    /// [`PartTooLarge`], about the first one beyond its bound.
    pub fn check_parts(&self) -> Result<usize, PartTooLarge> {
        let capabilities = length(&self.capabilities);
        let parts = [
            ("endpoint_url", self.endpoint_url.len(), MAX_ENDPOINT_URL),
            ("instance", self.instance.len(), MAX_LABEL),
            ("version", self.version.len(), MAX_LABEL),
            ("capabilities", capabilities, MAX_CAPABILITIES),
        ];
        match parts.into_iter().find(|(_, length, most)| length > most) {
            Some((part, _, most)) => Err(PartTooLarge { part, most }),
            None => Ok(parts.into_iter().map(|(_, length, _)| length).sum()),
        }
    }
}

/// One operation that a worker runs now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunningOperation {
    /// Its id.
    pub operation_id: OperationId,
    /// The number of the attempt, from 1.
    pub attempt: u32,
    /// How often the engine has reported progress in this attempt. It tells which of two reports is
    /// newer. 0 from a worker that does not count.
    #[serde(default)]
    pub report: u64,
    /// The newest progress. A backend that has just started shows it.
    #[serde(default)]
    pub progress: Progress,
}

/// Path segments of the REST interface itself, which no domain may use.
pub const RESERVED_DOMAINS: [&str; 9] = [
    "operations",
    "queues",
    "schedules",
    "workers",
    "worker-types",
    "health",
    "ready",
    "events",
    "stats",
];

/// Whether `domain` can be the path segment of a worker type's start route.
pub fn is_domain(domain: &str) -> bool {
    crate::id::is_name(domain) && !RESERVED_DOMAINS.contains(&domain)
}

/// The key in the bucket `KTRDR_WORKER_TYPES` that records which worker type has a domain. Backends
/// write it. No worker type can have this name, because it has a dot in it.
pub fn domain_key(domain: &str) -> String {
    format!("{DOMAIN_KEY}{domain}")
}

/// The domain whose owner is recorded at this key; `None` for the key of a worker type.
pub fn domain_of_key(key: &str) -> Option<&str> {
    key.strip_prefix(DOMAIN_KEY)
}

const DOMAIN_KEY: &str = "domain.";

/// The key in the bucket `KTRDR_WORKER_TYPES` of one version of a worker type. `version` is made by
/// its workers from their entry. The first of them writes it, and nobody changes it, so its revision
/// says in which order versions came.
pub fn version_key(worker_type: &WorkerType, version: &str) -> String {
    format!("{VERSION_KEY}{worker_type}.{version}")
}

/// The worker type whose version is at this key; `None` for other keys.
pub fn worker_type_of_version_key(key: &str) -> Option<&str> {
    let (worker_type, _version) = key.strip_prefix(VERSION_KEY)?.split_once('.')?;
    Some(worker_type)
}

const VERSION_KEY: &str = "version.";

/// The key in the bucket `KTRDR_WORKER_TYPES` at which backends write their subject prefix, when streams
/// and buckets are provisioned.
pub const PREFIX_KEY: &str = "installation.prefix";

/// A worker type, as its workers publish it in the bucket `KTRDR_WORKER_TYPES` (key: worker type, and
/// [`version_key`] for each version).
///
/// From it every backend routes, checks and documents `POST /api/v1/{domain}/start` without being
/// rebuilt or restarted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WorkerTypeEntry {
    /// The key of the entry.
    pub worker_type: WorkerType,
    /// The segment of its start route, for example `data-processing`.
    pub domain: String,
    /// One sentence for people.
    pub description: String,
    /// JSON Schema (2020-12) of the parameters. `{}` allows everything.
    #[serde(default)]
    pub request_schema: SchemaText,
    /// JSON Schema (2020-12) of the result.
    #[serde(default)]
    pub result_schema: SchemaText,
    /// Version of the worker program that published it.
    pub version: String,
    /// The digest of `request_schema`, as its workers made it; absent from workers that make none.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "crate::if_valid::read"
    )]
    pub schema_digest: Option<SchemaDigest>,
    /// Execution options for start requests that do not set them.
    #[serde(default, skip_serializing_if = "ExecutionDefaults::is_empty")]
    pub execution_defaults: ExecutionDefaults,
}

/// Asks a worker for the newest progress of an operation, on `worker.<worker_id>.operation`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct OperationQuery {
    /// Which operation.
    pub operation_id: OperationId,
}

/// The answer to an [`OperationQuery`].
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct OperationAnswer {
    /// The operation as it is now; `None` when this worker does not run it.
    pub running: Option<RunningOperation>,
}
