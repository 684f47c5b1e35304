//! Request ids: the client's own when it is sane, a fresh one otherwise; in every log line of the request and in the answer.

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use ktrdr_protocol::trace::{self, TraceParent};
use tracing::{Level, Span};

/// Where it travels.
pub const HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// The id of a request with these headers.
pub fn of(headers: &HeaderMap) -> HeaderValue {
    headers
        .get(&HEADER)
        .filter(|value| is_sane(value.as_bytes()))
        .cloned()
        .unwrap_or_else(fresh)
}

macro_rules! request_span {
    ($level:expr, $id:expr) => {
        tracing::span!(
            $level,
            "request",
            request_id = $id.to_str().unwrap_or_default(),
            trace_id = tracing::field::Empty,
            operation_id = tracing::field::Empty,
        )
    };
}

/// The span of a request's log lines. That of a read is there only while lines at debug are written: otherwise nearly no read
/// writes any, and a span costs a fifth of the cheapest of them.
pub fn span(id: &HeaderValue, request: &Request) -> Span {
    let span = if request.method().is_safe() {
        request_span!(Level::DEBUG, id)
    } else {
        request_span!(Level::INFO, id)
    };
    if let Some(trace) = trace_of(request.headers()) {
        span.record("trace_id", trace.trace_id());
    }
    span
}

/// The trace that the client says the request belongs to.
pub fn trace_of(headers: &HeaderMap) -> Option<TraceParent> {
    TraceParent::parse(headers.get(trace::HEADER)?.to_str().ok()?)
}

/// It ends up in logs and headers, so nothing that could forge either.
fn is_sane(id: &[u8]) -> bool {
    (1..=128).contains(&id.len())
        && id
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.:/+=".contains(b))
}

fn fresh() -> HeaderValue {
    let mut text = uuid::Uuid::encode_buffer();
    let id = uuid::Uuid::new_v4().simple().encode_lower(&mut text);
    HeaderValue::from_str(id).unwrap_or_else(|_| HeaderValue::from_static("unknown"))
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
