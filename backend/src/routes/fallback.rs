//! Answers to requests that match no route.

use axum::http::{Method, Uri};

use crate::error::{ApiError, ErrorCode};

/// No route has this path.
pub async fn unknown_route(method: Method, uri: Uri) -> ApiError {
    if is_registration(&method, &uri) {
        return registration_not_used();
    }

    let path = shown(&uri);
    ApiError::new(
        ErrorCode::UnknownRoute,
        format!("There is nothing at {path}"),
    )
}

/// A route has this path, but not with this method.
pub async fn method_not_allowed(method: Method, uri: Uri) -> ApiError {
    // `GET /api/v1/workers/register` is a route: a worker may have this id.
    if is_registration(&method, &uri) {
        return registration_not_used();
    }

    let path = shown(&uri);
    ApiError::new(
        ErrorCode::MethodNotAllowed,
        format!("{method} is not possible at {path}; the header Allow says what is"),
    )
}

/// Workers of the system that this one replaces registered there.
fn is_registration(method: &Method, uri: &Uri) -> bool {
    let path = uri.path();
    *method == Method::POST && (path == "/workers/register" || path == "/api/v1/workers/register")
}

fn registration_not_used() -> ApiError {
    ApiError::new(
        ErrorCode::RegistrationNotUsed,
        "Workers do not register here: they connect to NATS (NATS_URL), and their heartbeats \
         there make them known",
    )
}

fn shown(uri: &Uri) -> String {
    uri.path().chars().take(200).collect()
}
