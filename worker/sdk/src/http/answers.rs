//! Answers that are not a success, in the one error shape.

use std::any::Any;

use axum::Json;
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use ktrdr_protocol::problem::Problem;

/// A problem as an answer.
pub(crate) struct Failed(pub(crate) Box<Problem>);

impl Failed {
    pub(crate) fn new(status_code: u16, code: &'static str, error: impl Into<String>) -> Self {
        Self(Box::new(Problem::new(status_code, code, error)))
    }
}

impl From<Box<Problem>> for Failed {
    fn from(problem: Box<Problem>) -> Self {
        Self(problem)
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        let status =
            StatusCode::from_u16(self.0.status_code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let retry = (status == StatusCode::SERVICE_UNAVAILABLE).then_some([("retry-after", "1")]);
        match retry {
            Some(header) => (status, header, Json(self.0)).into_response(),
            None => (status, Json(self.0)).into_response(),
        }
    }
}

pub(crate) async fn not_found(uri: Uri) -> Failed {
    Failed::new(
        404,
        "not_found",
        format!(
            "there is no {} here; see GET /health and GET /api/v1/operations",
            uri.path()
        ),
    )
}

pub(crate) async fn wrong_method(method: Method, uri: Uri) -> Failed {
    Failed::new(
        405,
        "method_not_allowed",
        format!("{} does not take {method}", uri.path()),
    )
}

pub(crate) fn panicked(_: Box<dyn Any + Send>) -> Response {
    Failed::new(
        500,
        "internal",
        "the worker made a mistake; its log says more",
    )
    .into_response()
}
