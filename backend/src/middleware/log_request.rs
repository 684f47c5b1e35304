//! Two log lines per request, at debug: one that hangs is seen too. Failures of ours at warn.

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use tokio::time::Instant;

/// Logs method, path, status and time taken.
pub async fn layer(request: Request, next: Next) -> Response {
    let method = request.method().clone();
    // Shares the text; nothing is copied for a line that is not written.
    let uri = request.uri().clone();
    tracing::debug!(%method, path = uri.path(), "request received");
    let begun = Instant::now();
    let response = next.run(request).await;
    let status = response.status().as_u16();
    let duration_ms = begun.elapsed().as_secs_f64() * 1000.0;
    let path = uri.path();
    if status == 500 {
        tracing::warn!(%method, path, status, duration_ms, "request");
    } else {
        tracing::debug!(%method, path, status, duration_ms, "request");
    }
    response
}
