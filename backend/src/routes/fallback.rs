//! Answers to requests that match no route.

use axum::http::{Method, Uri};

use crate::error::{ApiError, ErrorCode};

/// No route has this path.
pub async fn unknown_route(uri: Uri) -> ApiError {
    let path = shown(&uri);
    ApiError::new(
        ErrorCode::UnknownRoute,
        format!("There is nothing at {path}"),
    )
}

/// A route has this path, but not with this method.
pub async fn method_not_allowed(method: Method, uri: Uri) -> ApiError {
    let path = shown(&uri);
    ApiError::new(
        ErrorCode::MethodNotAllowed,
        format!("{method} is not possible at {path}; the header Allow says what is"),
    )
}

fn shown(uri: &Uri) -> String {
    uri.path().chars().take(200).collect()
}
