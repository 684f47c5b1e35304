//! Request ids: the client's own if it is valid, otherwise a new one. Every log line of the request
//! and the answer carry it.

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use ktrdr_protocol::trace::{self, TraceParent};
use tracing::{Level, Span};

/// The header of the request id.
pub const HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// The id of the request with these headers.
pub fn of(headers: &HeaderMap) -> HeaderValue {
    headers
        .get(&HEADER)
        .filter(|value| is_valid(value.as_bytes()))
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

/// The span of a request's log lines. Reads get a DEBUG span: they rarely log, and a span costs 20
/// % of the cheapest one.
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

/// The trace context in the request's headers.
pub fn trace_of(headers: &HeaderMap) -> Option<TraceParent> {
    TraceParent::parse(headers.get(trace::HEADER)?.to_str().ok()?)
}

/// Ids go to logs and headers, so they must not contain characters that could forge either.
fn is_valid(id: &[u8]) -> bool {
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
    fn only_valid_ids_are_accepted() {
        assert!(is_valid(b"0af7651916cd43dd8448eb211c80319c"));
        for bad in [&b""[..], b"a b", b"a\"b", &[b'x'; 129], b"\xff"] {
            assert!(!is_valid(bad));
        }
    }
}
