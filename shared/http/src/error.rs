//! Error answers of backend and worker: one error document, and the headers that belong to it. The
//! codes are in [`ktrdr_protocol::rest::ErrorCode`].

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use ktrdr_bus::no_room::NoRoom;
use ktrdr_bus::oplog::AppendError;
use ktrdr_protocol::id::OperationId;
use ktrdr_protocol::queue_class::BeyondLargest;
use ktrdr_protocol::rest::{ErrorCode, Problem, Violation};
use ktrdr_protocol::state::Status;
use serde_json::Value;

use crate::body::ReadBodyError;
use crate::schema::UnusableSchema;
use crate::start_body::BodyError;

/// Why a request was refused, as an answer.
#[derive(Debug)]
pub struct ApiError {
    problem: Box<Problem>,
    cause: Option<Cause>,
}

/// The cause of an internal error. It is an extension of the answer: the request log writes it, and
/// the client does not see it.
#[derive(Debug, Clone)]
pub struct Cause(pub String);

impl ApiError {
    /// An error with a text that says what is wrong and what to do about it.
    pub fn new(code: ErrorCode, error: impl Into<String>) -> Self {
        Self {
            problem: Box::new(Problem::new(code, error)),
            cause: None,
        }
    }

    /// The document that the client gets.
    pub fn problem(&self) -> &Problem {
        &self.problem
    }

    /// Adds a field that only this code has.
    #[must_use]
    pub fn with(self, name: &str, value: impl Into<Value>) -> Self {
        Self {
            problem: Box::new(self.problem.with(name, value)),
            ..self
        }
    }

    /// Adds a sentence about what has happened besides.
    #[must_use]
    pub fn also(mut self, sentence: &str) -> Self {
        let first = self.problem.error.trim_end_matches('.');
        self.problem.error = format!("{first}. {sentence}");
        self
    }

    /// A fault of this program. The cause goes to the log and not to the client.
    pub fn internal(cause: impl std::fmt::Display) -> Self {
        let error = Self::new(
            ErrorCode::Internal,
            "Internal error; the server's log has the cause",
        );
        Self {
            cause: Some(Cause(cause.to_string())),
            ..error
        }
    }

    /// Logs the cause of an internal error that is part of an answer with others. The request log writes
    /// that of an answer of its own.
    pub fn log_cause(&self) {
        if let Some(Cause(cause)) = &self.cause {
            tracing::error!(cause, "part of a request failed");
        }
    }

    /// No operation with this id is known.
    pub fn operation_not_found(id: &str) -> Self {
        let shown: String = id.chars().take(128).collect();
        let text = format!(
            "Operation {shown} not found: the id is wrong, or the operation is older than the retention"
        );
        Self::new(ErrorCode::OperationNotFound, text).with("operation_id", shown)
    }

    /// The operation cannot be cancelled: it has ended in this status.
    pub fn already_finished(id: &OperationId, status: Status) -> Self {
        let text = format!("Operation {id} cannot be cancelled: it has already {status}");
        Self::new(ErrorCode::AlreadyFinished, text)
            .with("operation_id", id.as_str())
            .with("status", status.as_str())
    }

    /// The token of the request was valid when it arrived, and no longer is.
    pub fn token_revoked() -> Self {
        Self::new(
            ErrorCode::Unauthorized,
            "The token was removed, changed or has expired since the request arrived",
        )
    }

    /// NATS is not reachable, and nothing was changed.
    pub fn nats_unavailable() -> Self {
        Self::new(
            ErrorCode::NatsUnavailable,
            "NATS is not reachable; nothing was started or changed. Try again",
        )
    }

    /// NATS is not reachable, for a request that only reads.
    pub fn nats_away() -> Self {
        Self::new(ErrorCode::NatsUnavailable, "NATS is not reachable")
    }

    /// The NATS server does not permit this program to publish on `subject`; nothing was changed.
    pub fn not_permitted(subject: &str) -> Self {
        let text = format!(
            "The NATS server does not permit the NATS user of this program to publish {subject}; nothing was started or changed. Give it the permissions of docs/security.md"
        );
        let missing = vec![format!("publish {subject}")];
        Self::new(ErrorCode::NatsUnavailable, text).with("missing_permissions", missing)
    }

    /// NATS did not answer a read; the cause is logged.
    pub fn nats_read(cause: impl std::fmt::Display) -> Self {
        tracing::warn!(%cause, "NATS did not answer");
        Self::new(
            ErrorCode::NatsUnavailable,
            "NATS did not answer in time. Try again",
        )
    }

    /// The backend cannot read the stream, so it could not show the effect of a request.
    pub fn cannot_read(cause: &str) -> Self {
        let text = format!(
            "This backend cannot read the operations: {cause}. Nothing was started. It tries again all the time; ask another backend"
        );
        Self::new(ErrorCode::NotReady, text).with("cause", cause)
    }

    /// The requirements need a queue that does not exist, and the NATS server has no room for it.
    pub fn too_many_queues() -> Self {
        Self::new(
            ErrorCode::TooManyQueues,
            "Nothing was started: these requirements need a queue of their own, and the NATS server has too few consumers left for it. Ask for other requirements, or try again: queues that nobody uses are removed",
        )
    }

    /// No worker is so large.
    pub fn beyond_largest(beyond: BeyondLargest) -> Self {
        BodyError::Violations(vec![Violation {
            path: format!("/execution/requirements/{}", beyond.field),
            message: beyond.to_string(),
        }])
        .into()
    }

    /// A message about this operation was not confirmed as stored.
    pub fn append(error: AppendError, id: &OperationId) -> Self {
        let error = match error {
            AppendError::TooLarge => Self::too_large(None),
            AppendError::Full(cause) => match NoRoom::of(&cause) {
                Some(NoRoom::Server) => Self::server_full(),
                Some(NoRoom::Limit) | None => Self::storage_full(),
            },
            AppendError::Unknown(cause) => {
                tracing::warn!(%cause, "a publish was not confirmed");
                let text = format!(
                    "NATS did not confirm in time; it may have been stored. Repeat the request; for a start with \"task_id\": \"{id}\" in the body, so that there is never a second one"
                );
                Self::new(ErrorCode::OutcomeUnknown, text)
            }
            // Callers decide again on a conflict, and they only encode what can be written.
            error @ (AppendError::Conflict(_)
            | AppendError::Superseded
            | AppendError::Encode(_)) => Self::internal(error),
        };
        error.with("operation_id", id.as_str())
    }

    /// The stream is full, or the remaining room is reserved for operations that were accepted
    /// before.
    pub fn storage_full() -> Self {
        Self::new(
            ErrorCode::StorageFull,
            "The operations stream has reached its limit, KTRDR_STREAM_MAX_BYTES; nothing was stored. Raise it, or lower the retention: ktrdr-backend configure",
        )
    }

    /// The NATS server has no room, whatever the limit of the stream.
    pub fn server_full() -> Self {
        Self::new(
            ErrorCode::StorageFull,
            "The NATS server has no room left: its disk is full, or its own limit is reached (max_file_store); nothing was stored. Give it more, or lower limits and retention: ktrdr-backend configure",
        )
    }

    /// The request schema of this worker type cannot be used, so nothing can be checked or started.
    pub fn schema_unusable(worker_type: &str, reason: &UnusableSchema) -> Self {
        let text = format!(
            "Nothing was started: the request schema that worker type {worker_type} has published cannot be used: {reason}. Correct the worker's schema"
        );
        Self::new(ErrorCode::SchemaUnusable, text)
            .with("worker_type", worker_type)
            .with("reason", reason.to_string())
    }

    /// The body is larger than `limit` bytes; without a limit: larger than NATS takes.
    pub fn too_large(limit: Option<usize>) -> Self {
        match limit {
            Some(limit) => Self::new(
                ErrorCode::BodyTooLarge,
                format!("The request body is larger than {limit} bytes; pass large inputs by path"),
            )
            .with("max_bytes", limit as u64),
            None => Self::new(
                ErrorCode::BodyTooLarge,
                "The request is larger than the NATS server takes (max_payload); pass large inputs by path",
            ),
        }
    }
}

/// For logs: with the cause, which the client does not see.
impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.problem.error)?;
        match &self.cause {
            Some(Cause(cause)) => write!(f, ": {cause}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for ApiError {}

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
            BodyError::NotJson(_) => Self::new(ErrorCode::BadJson, text),
            BodyError::NotAnObject => Self::new(ErrorCode::InvalidBody, text),
            BodyError::Violations(found) => {
                let mut error = Self::new(ErrorCode::InvalidRequest, text);
                error.problem.violations = found;
                error
            }
            BodyError::TooCostly => Self::new(ErrorCode::CheckTimeout, text),
        }
    }
}

impl From<ReadBodyError> for ApiError {
    fn from(error: ReadBodyError) -> Self {
        match error {
            ReadBodyError::TooLarge { limit } => Self::too_large(Some(limit)),
            ReadBodyError::Overloaded => Self::new(
                ErrorCode::Overloaded,
                "Too many large requests are being received. Try again",
            ),
            ReadBodyError::Broken => Self::new(
                ErrorCode::InvalidBody,
                "The body could not be read to its end",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    }

    #[test]
    fn a_sentence_is_added_behind_one_full_stop() {
        for text in ["It is full", "It is full."] {
            let error = ApiError::new(ErrorCode::StorageFull, text).also("Nothing was stored.");

            assert_eq!(error.problem().error, "It is full. Nothing was stored.");
        }
    }

    #[test]
    fn an_answer_with_503_says_when_to_try_again() {
        let unavailable = ApiError::nats_unavailable().into_response();

        assert_eq!(unavailable.headers()[header::RETRY_AFTER], "1");
    }
}
