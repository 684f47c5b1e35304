//! Everything that can go wrong with a request, as the one error shape. The only place that decides failure status codes.
//!
//! Each code is described in `docs/errors.md`; a test compares the two.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use ktrdr_bus::oplog::AppendError;
use ktrdr_http::start_body::BodyError;
use ktrdr_protocol::id::OperationId;
use ktrdr_protocol::problem::Problem;
use serde_json::Value;

macro_rules! codes {
    ($($name:ident = $status:literal $word:literal,)*) => {
        /// What went wrong, for programs; each is described in `docs/errors.md` under its word.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Code { $($name),* }

        impl Code {
            /// All of them.
            #[cfg(test)]
            const ALL: &[Code] = &[$(Code::$name),*];

            /// The word in the answer.
            pub fn word(self) -> &'static str {
                match self { $(Self::$name => $word),* }
            }

            /// The HTTP status.
            pub fn status(self) -> u16 {
                match self { $(Self::$name => $status),* }
            }
        }
    };
}

codes! {
    BadJson = 400 "bad_json",
    InvalidBody = 400 "invalid_body",
    InvalidQuery = 400 "invalid_query",
    InvalidCursor = 400 "invalid_cursor",
    InvalidHeader = 400 "invalid_header",
    UnknownRoute = 404 "unknown_route",
    UnknownDomain = 404 "unknown_domain",
    OperationNotFound = 404 "operation_not_found",
    WorkerNotFound = 404 "worker_not_found",
    MethodNotAllowed = 405 "method_not_allowed",
    TaskIdConflict = 409 "task_id_conflict",
    AlreadyFinished = 409 "already_finished",
    NotFinished = 409 "not_finished",
    NotRepeatable = 409 "not_repeatable",
    NoResult = 409 "no_result",
    ResultGone = 410 "result_gone",
    BodyTooLarge = 413 "body_too_large",
    InvalidRequest = 422 "invalid_request",
    Internal = 500 "internal",
    NotReady = 503 "not_ready",
    NatsUnavailable = 503 "nats_unavailable",
    OutcomeUnknown = 503 "outcome_unknown",
    NoWorkers = 503 "no_workers_available",
    StorageFull = 507 "storage_full",
}

/// A request that was not served.
#[derive(Debug)]
pub struct ApiError {
    problem: Box<Problem>,
    cause: Option<Cause>,
}

/// What the log says of a fault of ours, and the client is not told: an extension of the answer.
#[derive(Debug, Clone)]
pub struct Cause(pub String);

impl ApiError {
    /// An error with a text that says what is wrong and what to do.
    pub fn new(code: Code, error: impl Into<String>) -> Self {
        Self {
            problem: Box::new(Problem::new(code.status(), code.word(), error)),
            cause: None,
        }
    }

    /// The body, as clients see it.
    #[cfg(test)]
    pub fn body(&self) -> Value {
        serde_json::to_value(&*self.problem).unwrap()
    }

    /// With a field of its own.
    #[must_use]
    pub fn with(self, name: &str, value: impl Into<Value>) -> Self {
        Self {
            problem: Box::new(self.problem.with(name, value)),
            ..self
        }
    }

    /// Our own fault. The cause goes to the log, together with the request's id, and not to the client.
    pub fn internal(cause: impl std::fmt::Display) -> Self {
        let error = Self::new(
            Code::Internal,
            "Internal error; the backend's log says more under this request's id",
        );
        Self {
            cause: Some(Cause(cause.to_string())),
            ..error
        }
    }

    /// There is no such operation.
    pub fn operation_not_found(id: &str) -> Self {
        let shown: String = id.chars().take(128).collect();
        let text = format!(
            "Operation {shown} not found: the id is wrong, or the operation is older than the retention"
        );
        Self::new(Code::OperationNotFound, text).with("operation_id", shown)
    }

    /// NATS is away.
    pub fn nats_unavailable() -> Self {
        Self::new(
            Code::NatsUnavailable,
            "NATS is not reachable; nothing was started or changed. Try again",
        )
    }

    /// NATS did not answer a read.
    pub fn nats_read(cause: impl std::fmt::Display) -> Self {
        tracing::warn!(%cause, "NATS did not answer");
        Self::new(
            Code::NatsUnavailable,
            "NATS did not answer in time. Try again",
        )
    }

    /// A publish about this operation that was not confirmed as stored.
    pub fn append(error: AppendError, id: &OperationId) -> Self {
        let error = match error {
            AppendError::TooLarge => Self::too_large(None),
            AppendError::Full(_) => Self::storage_full(),
            AppendError::Unknown(cause) => {
                tracing::warn!(%cause, "a publish was not confirmed");
                let text = format!(
                    "NATS did not confirm in time; it may have been stored. Repeat the request; for a start with \"task_id\": \"{id}\" in the body, so that there is never a second one"
                );
                Self::new(Code::OutcomeUnknown, text)
            }
            // Callers decide anew on a conflict and never encode what cannot be written.
            error @ (AppendError::Conflict(_) | AppendError::Encode(_)) => Self::internal(error),
        };
        error.with("operation_id", id.as_str())
    }

    /// There is no room for it, or what there is is kept for operations that were accepted before.
    pub fn storage_full() -> Self {
        Self::new(
            Code::StorageFull,
            "The operations stream is full; nothing was stored. Raise KTRDR_STREAM_MAX_BYTES or the disk, or lower KTRDR_RETENTION",
        )
    }

    /// A body above the limit.
    pub fn too_large(limit: Option<usize>) -> Self {
        match limit {
            Some(limit) => Self::new(
                Code::BodyTooLarge,
                format!("The request body is larger than {limit} bytes; pass large inputs by path"),
            )
            .with("max_bytes", limit as u64),
            None => Self::new(
                Code::BodyTooLarge,
                "The request is larger than the NATS server takes (max_payload); pass large inputs by path",
            ),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.problem.status_code)
            .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, axum::Json(&*self.problem)).into_response();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if let Some(cause) = self.cause {
            response.extensions_mut().insert(cause);
        }
        response
    }
}

impl From<BodyError> for ApiError {
    fn from(error: BodyError) -> Self {
        let text = error.to_string();
        match error {
            BodyError::NotJson(_) => Self::new(Code::BadJson, text),
            BodyError::NotAnObject => Self::new(Code::InvalidBody, text),
            BodyError::Violations(found) => Self::new(Code::InvalidRequest, text).with(
                "violations",
                serde_json::to_value(found).unwrap_or_default(),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_documented_and_nothing_else_is() {
        let document = include_str!("../../docs/errors.md");
        let documented: Vec<(String, u16)> = document
            .lines()
            .filter_map(|line| line.strip_prefix("| `"))
            .filter_map(|line| {
                let (word, rest) = line.split_once("` | ")?;
                let status = rest.split(' ').next()?.parse().ok()?;
                Some((word.to_owned(), status))
            })
            .collect();
        let known: Vec<(String, u16)> = Code::ALL
            .iter()
            .map(|code| (code.word().to_owned(), code.status()))
            .collect();
        assert_eq!(documented, known);
    }

    #[tokio::test]
    async fn the_shape_is_the_documented_one() {
        let response = ApiError::operation_not_found("abc").into_response();
        assert_eq!(response.status(), 404);
        let body = axum::body::to_bytes(response.into_body(), 10_000)
            .await
            .unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["success"], false);
        assert_eq!(body["code"], "operation_not_found");
        assert_eq!(body["status_code"], 404);
        assert_eq!(body["operation_id"], "abc");
        assert!(body["error"].as_str().unwrap().contains("abc"));
        let unavailable = ApiError::nats_unavailable().into_response();
        assert_eq!(unavailable.headers()[header::RETRY_AFTER], "1");
    }
}
