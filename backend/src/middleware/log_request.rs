//! Two log lines per request, at debug: one that hangs is seen too. Failures of ours at warn.

use std::time::Duration;

use axum::extract::Request;
use axum::http::{Method, StatusCode, Uri};

/// A request that was received.
pub struct Logged {
    method: Method,
    /// Shares the text; nothing is copied for a line that is not written.
    uri: Uri,
}

impl Logged {
    /// Logs method and path.
    pub fn begin(request: &Request) -> Self {
        let (method, uri) = (request.method().clone(), request.uri().clone());
        tracing::debug!(%method, path = uri.path(), "request received");
        Self { method, uri }
    }

    /// Logs the same with status and time taken.
    pub fn end(self, status: StatusCode, took: Duration) {
        let Self { method, uri } = self;
        let (path, status) = (uri.path(), status.as_u16());
        let duration_ms = took.as_secs_f64() * 1000.0;
        if status == 500 {
            tracing::warn!(%method, path, status, duration_ms, "request");
        } else {
            tracing::debug!(%method, path, status, duration_ms, "request");
        }
    }
}
