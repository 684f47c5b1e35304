//! Request ids: the client's own when it is sane, a fresh one otherwise; in every log line of the request and in the answer.

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use ktrdr_shared::trace::{self, TraceParent};
use tracing::Instrument;

/// Where it travels.
pub const HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// Gives the request an id and its log lines a span with it.
pub async fn layer(request: Request, next: Next) -> Response {
    let given = request.headers().get(&HEADER).filter(|value| is_sane(value.as_bytes())).cloned();
    let id = given.unwrap_or_else(fresh);
    let span = tracing::info_span!(
        "request",
        request_id = id.to_str().unwrap_or_default(),
        trace_id = tracing::field::Empty,
        operation_id = tracing::field::Empty,
    );
    if let Some(trace) = trace_of(request.headers()) {
        span.record("trace_id", trace.trace_id());
    }
    let mut response = next.run(request).instrument(span).await;
    response.headers_mut().insert(HEADER, id);
    response
}

/// The trace that the client says the request belongs to.
pub fn trace_of(headers: &HeaderMap) -> Option<TraceParent> {
    TraceParent::parse(headers.get(trace::HEADER)?.to_str().ok()?)
}

/// It ends up in logs and headers, so nothing that could forge either.
fn is_sane(id: &[u8]) -> bool {
    (1..=128).contains(&id.len()) && id.iter().all(|b| b.is_ascii_alphanumeric() || b"-_.:/+=".contains(b))
}

fn fresh() -> HeaderValue {
    let id = uuid::Uuid::new_v4().simple().to_string();
    HeaderValue::from_str(&id).unwrap_or_else(|_| HeaderValue::from_static("unknown"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sane_ids_are_taken_over() {
        assert!(is_sane(b"0af7651916cd43dd8448eb211c80319c"));
        for bad in [&b""[..], b"a b", b"a\"b", &[b'x'; 129], b"\xff"] {
            assert!(!is_sane(bad));
        }
    }
}
