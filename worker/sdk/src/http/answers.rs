//! Answers to requests that match no route or whose handler panicked.

use std::any::Any;

use axum::http::{Method, Uri};
use axum::response::{IntoResponse, Response};
use ktrdr_http::error::ApiError;
use ktrdr_protocol::rest::ErrorCode;

pub(crate) async fn unknown_route(uri: Uri) -> ApiError {
    let text = format!(
        "There is nothing at {}; GET /openapi.json lists the routes",
        uri.path()
    );
    ApiError::new(ErrorCode::UnknownRoute, text)
}

pub(crate) async fn method_not_allowed(method: Method, uri: Uri) -> ApiError {
    let text = format!("{} does not take {method}", uri.path());
    ApiError::new(ErrorCode::MethodNotAllowed, text)
}

pub(crate) fn panicked(_: Box<dyn Any + Send>) -> Response {
    ApiError::new(
        ErrorCode::Internal,
        "Internal error; the worker's log has the cause",
    )
    .into_response()
}
