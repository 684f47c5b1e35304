//! W3C trace context. It connects the log lines of one operation: from the REST request through
//! NATS to the worker.
//!
//! The programs pass it on and log the trace id. They export no spans, so they need no tracing
//! library, and a caller's own tracing system still finds its id in the logs.

use std::fmt;

/// The name of the header, in HTTP requests and in NATS messages.
pub const HEADER: &str = "traceparent";

/// A checked `traceparent`. It is copied into logs and headers, so nothing else may pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceParent(String);

impl TraceParent {
    /// Reads `00-<trace id>-<parent id>-<flags>`. `None` when the text is not valid. Later versions
    /// may add more parts; those are dropped.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.trim().split('-');
        let (version, trace, parent, flags) =
            (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let hex = |part: &str, length: usize| {
            part.len() == length
                && part
                    .bytes()
                    .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        };
        let zero = |part: &str| part.bytes().all(|b| b == b'0');

        let lengths = hex(version, 2) && hex(trace, 32) && hex(parent, 16) && hex(flags, 2);
        let allowed = version != "ff"
            && !zero(trace)
            && !zero(parent)
            && (version != "00" || parts.next().is_none());
        (lengths && allowed).then(|| Self(format!("00-{trace}-{parent}-{flags}")))
    }

    /// The trace id: the same for all log lines of an operation.
    pub fn trace_id(&self) -> &str {
        self.0.get(3..35).unwrap_or_default()
    }

    /// The text for a header.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_valid_trace_parent_is_accepted() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(
            TraceParent::parse(good).unwrap().trace_id(),
            "4bf92f3577b34da6a3ce929d0e0e4736"
        );
        assert_eq!(
            TraceParent::parse(&format!("{}-later", good.replacen("00", "01", 1)))
                .unwrap()
                .as_str(),
            good
        );
        for bad in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(TraceParent::parse(bad), None, "{bad}");
        }
    }
}
