//! The request log: a debug line when a request arrives, so that a hanging one shows, and a debug
//! line when it is answered. An internal error is an error line with its cause.

use std::time::Duration;

use axum::extract::Request;
use axum::http::{HeaderValue, Method, Uri};
use axum::response::Response;

use crate::error::Cause;

/// A request whose arrival is logged.
pub struct Logged {
    method: Method,
    /// A cheap clone, so that a line that is not written costs nothing.
    uri: Uri,
}

impl Logged {
    /// Logs method and path.
    pub fn begin(request: &Request) -> Self {
        let (method, uri) = (request.method().clone(), request.uri().clone());
        tracing::debug!(%method, path = uri.path(), "request received");
        Self { method, uri }
    }

    /// Logs the answer. The line of an internal error has the request id as a field: not every
    /// request has a span.
    pub fn end(self, id: &HeaderValue, response: &Response, took: Duration) {
        let Self { method, uri } = self;
        let (path, status) = (uri.path(), response.status().as_u16());
        let duration_ms = took.as_secs_f64() * 1000.0;
        if status == 500 {
            let request_id = id.to_str().unwrap_or_default();
            let cause = response
                .extensions()
                .get::<Cause>()
                .map_or("unknown", |Cause(text)| text);
            tracing::error!(request_id, %method, path, status, duration_ms, cause, "internal error");
        } else {
            tracing::debug!(%method, path, status, duration_ms, "request");
        }
    }
}
