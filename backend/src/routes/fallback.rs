//! What is not there.

use axum::http::{Method, Uri};

use crate::error::{ApiError, Code};

/// No such path.
pub async fn unknown_route(uri: Uri) -> ApiError {
    let path = shown(&uri);
    ApiError::new(Code::UnknownRoute, format!("There is nothing at {path}"))
}

/// The path is there, the method is not.
pub async fn method_not_allowed(method: Method, uri: Uri) -> ApiError {
    let path = shown(&uri);
    ApiError::new(
        Code::MethodNotAllowed,
        format!("{method} is not possible at {path}; the header Allow says what is"),
    )
}

fn shown(uri: &Uri) -> String {
    uri.path().chars().take(200).collect()
}
