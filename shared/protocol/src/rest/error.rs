//! The error codes of both REST interfaces, and the one error document.
//!
//! `docs/errors.md` describes every code; a test compares that page with [`ErrorCode::ALL`].

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};

macro_rules! error_codes {
    ($($(#[$doc:meta])* $name:ident = $status:literal $word:literal,)*) => {
        /// What went wrong, for programs.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum ErrorCode { $($(#[$doc])* $name),* }

        impl ErrorCode {
            /// All codes, ordered by status.
            pub const ALL: &[ErrorCode] = &[$(ErrorCode::$name),*];

            /// The code as it is written in the document.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $word),* }
            }

            /// The HTTP status of answers with this code.
            pub const fn status(self) -> u16 {
                match self { $(Self::$name => $status),* }
            }
        }
    };
}

error_codes! {
    /// The body is not JSON.
    BadJson = 400 "bad_json",
    /// The body is JSON but not an object, or broke off.
    InvalidBody = 400 "invalid_body",
    /// A query parameter has a value that is not accepted.
    InvalidQuery = 400 "invalid_query",
    /// The route does not take a query parameter of this name.
    UnknownParameter = 400 "unknown_parameter",
    /// The cursor does not come from an earlier answer.
    InvalidCursor = 400 "invalid_cursor",
    /// A request header has a value that is not accepted.
    InvalidHeader = 400 "invalid_header",
    /// Plain HTTP arrived at a port that takes only HTTPS.
    TlsRequired = 400 "tls_required",
    /// The request brings no valid token.
    Unauthorized = 401 "unauthorized",
    /// The token does not allow it.
    Forbidden = 403 "forbidden",
    /// A web page of another origin wants to change something.
    OriginNotAllowed = 403 "origin_not_allowed",
    /// Nothing is served at this path.
    UnknownRoute = 404 "unknown_route",
    /// No worker type with this domain is known.
    UnknownDomain = 404 "unknown_domain",
    /// No operation with this id is known.
    OperationNotFound = 404 "operation_not_found",
    /// No worker with this id is listed.
    WorkerNotFound = 404 "worker_not_found",
    /// No worker type of this name is known.
    WorkerTypeNotFound = 404 "worker_type_not_found",
    /// No schedule with this id is known.
    ScheduleNotFound = 404 "schedule_not_found",
    /// The path does not take this method.
    MethodNotAllowed = 405 "method_not_allowed",
    /// The operation id is taken.
    TaskIdConflict = 409 "task_id_conflict",
    /// The operation with this id was started with another body.
    IdempotencyMismatch = 409 "idempotency_mismatch",
    /// The operation has completed or failed, so it cannot be cancelled.
    AlreadyFinished = 409 "already_finished",
    /// The operation does not wait in a queue, so it has no priority that could change.
    NotWaiting = 409 "not_waiting",
    /// Another operation with the same unique key is open.
    NotUnique = 409 "not_unique",
    /// Workers of the type are alive, so it cannot be forgotten.
    WorkerTypeInUse = 409 "worker_type_in_use",
    /// The operation has no result yet.
    NotFinished = 409 "not_finished",
    /// Only failed and cancelled operations can be retried or resumed.
    NotRepeatable = 409 "not_repeatable",
    /// The operation failed or was cancelled, so it has no result.
    NoResult = 409 "no_result",
    /// The result is no longer in the object store.
    ResultGone = 410 "result_gone",
    /// Workers do not register over REST.
    RegistrationNotUsed = 410 "registration_not_used",
    /// The body is larger than the server or NATS accepts.
    BodyTooLarge = 413 "body_too_large",
    /// A browser sent a body that is not declared as JSON.
    UnsupportedMediaType = 415 "unsupported_media_type",
    /// The request is for a host name that is not this server's.
    HostNotAllowed = 421 "host_not_allowed",
    /// The body does not match the schema.
    InvalidRequest = 422 "invalid_request",
    /// The server has a fault.
    Internal = 500 "internal",
    /// The row of the operation in the archive cannot be read.
    OperationDamaged = 500 "operation_damaged",
    /// The NATS server is too old for schedules.
    SchedulesUnsupported = 501 "schedules_unsupported",
    /// What a worker stored as the result cannot be served.
    InvalidResult = 502 "invalid_result",
    /// The backend has not read the operations yet.
    NotReady = 503 "not_ready",
    /// NATS is not reachable, or does not permit what the request needs; nothing was changed.
    NatsUnavailable = 503 "nats_unavailable",
    /// NATS did not confirm a change in time; it may have been stored.
    OutcomeUnknown = 503 "outcome_unknown",
    /// No worker could run the operation, and the backend does not queue it without one.
    NoWorkers = 503 "no_workers_available",
    /// The requirements need another queue, and the NATS server has no room for it.
    TooManyQueues = 503 "too_many_queues",
    /// The worker is listed and does not answer.
    WorkerNotAnswering = 503 "worker_not_answering",
    /// All slots of the worker are taken (direct start only).
    WorkerBusy = 503 "worker_busy",
    /// The request schema of the worker type cannot be used.
    SchemaUnusable = 503 "schema_unusable",
    /// The request could not be checked in time.
    CheckTimeout = 503 "check_timeout",
    /// The server does as much at a time as it may.
    Overloaded = 503 "overloaded",
    /// The archive cannot be read.
    ArchiveUnavailable = 503 "archive_unavailable",
    /// The operations stream or its disk is full.
    StorageFull = 507 "storage_full",
}

impl ErrorCode {
    /// The code that is written as `word`; `None` for a code of a newer server.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.as_str() == word)
    }

    /// Whether the same request may succeed a moment later, so that a client may repeat it by itself.
    pub const fn is_passing(self) -> bool {
        match self {
            Self::NoWorkers | Self::SchemaUnusable | Self::WorkerNotAnswering => false,
            _ => self.status() == 503,
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for ErrorCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for ErrorCode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = Cow::<str>::deserialize(deserializer)?;
        Self::from_word(&word).ok_or_else(|| D::Error::custom(format!("unknown error code {word}")))
    }
}

impl JsonSchema for ErrorCode {
    fn schema_name() -> Cow<'static, str> {
        "ErrorCode".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let words: Vec<&str> = Self::ALL.iter().map(|code| code.as_str()).collect();
        json_schema!({
            "type": "string",
            "description": "What went wrong, for programs; docs/errors.md describes every code.",
            "enum": words,
        })
    }
}

/// One place where a request does not match its schema.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Violation {
    /// JSON pointer into the body; empty for the body itself.
    pub path: String,
    /// What is wrong there.
    pub message: String,
}

/// The body of every answer that is not a success. `code` is for programs, `error` for people. Some
/// codes add fields of their own, which docs/errors.md names.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Problem {
    /// Always false.
    pub success: bool,
    /// What went wrong and what to do about it.
    pub error: String,
    /// What went wrong, for programs.
    pub code: ErrorCode,
    /// The HTTP status.
    pub status_code: u16,
    /// With `invalid_request`: every place that does not match.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub violations: Vec<Violation>,
    /// Fields that only this code has.
    #[serde(flatten)]
    pub fields: Map<String, Value>,
}

impl Problem {
    /// A problem without fields of its own.
    pub fn new(code: ErrorCode, error: impl Into<String>) -> Self {
        Self {
            success: false,
            error: error.into(),
            code,
            status_code: code.status(),
            violations: Vec::new(),
            fields: Map::new(),
        }
    }

    /// Adds a field of its own.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.fields.insert(name.to_owned(), value.into());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_documented_and_nothing_else_is() {
        let page = include_str!("../../../../docs/errors.md");

        let documented: Vec<(String, u16)> = page
            .lines()
            .filter_map(|line| line.strip_prefix("| `"))
            .filter_map(|line| {
                let (word, rest) = line.split_once("` | ")?;
                let status = rest.split(' ').next()?.parse().ok()?;
                Some((word.to_owned(), status))
            })
            .collect();

        let known: Vec<(String, u16)> = ErrorCode::ALL
            .iter()
            .map(|code| (code.as_str().to_owned(), code.status()))
            .collect();
        assert_eq!(documented, known);
    }

    #[test]
    fn a_problem_is_read_as_it_was_written() {
        let mut problem = Problem::new(ErrorCode::InvalidRequest, "no").with("operation_id", "a");
        problem.violations.push(Violation {
            path: "/steps".to_owned(),
            message: "must not be negative".to_owned(),
        });

        let written = serde_json::to_value(&problem).unwrap();
        let read: Problem = serde_json::from_value(written.clone()).unwrap();

        assert_eq!(
            written,
            serde_json::json!({
                "success": false, "error": "no", "code": "invalid_request", "status_code": 422,
                "violations": [{"path": "/steps", "message": "must not be negative"}],
                "operation_id": "a",
            })
        );
        assert_eq!(serde_json::to_value(read).unwrap(), written);
        assert!(serde_json::from_value::<ErrorCode>("odd".into()).is_err());
    }
}
