//! A message of the stream → what it says. Pure; done before the lock is taken.

use async_nats::Subject;
use ktrdr_bus::telemetry::short;
use ktrdr_protocol::cancel::CancelIntent;
use ktrdr_protocol::event::Event;
use ktrdr_protocol::start_request::StartRequest;
use ktrdr_protocol::subject::{SubjectNames, Topic};
use ktrdr_protocol::time::Timestamp;

/// A message that was read.
#[derive(Debug)]
pub struct Decoded {
    /// Its sequence in the stream.
    pub sequence: u64,
    /// Its subject: worker type, and queue or operation.
    pub subject: Subject,
    /// What it says; the text says why it cannot be read.
    pub body: Result<Body, String>,
}

/// What a message says.
#[derive(Debug)]
pub enum Body {
    /// A new operation.
    Start(StartRequest),
    /// A state change.
    Event(Event),
    /// A cancel was asked for.
    Cancel(CancelIntent),
}

/// Reads one message. Body and subject must agree: one that says two things about itself is not believed.
///
/// All times become `stored_at`, when the stream took the message. So they are by one clock however many publishers there are
/// and however wrong theirs; what they said themselves is in the operation's history.
pub fn decode(
    names: &SubjectNames,
    sequence: u64,
    stored_at: Timestamp,
    subject: Subject,
    payload: &[u8],
) -> Decoded {
    let body = read(names, &subject, payload).map(|body| match body {
        Body::Start(request) => Body::Start(StartRequest {
            created_at: stored_at,
            ..request
        }),
        Body::Event(event) => Body::Event(event.at_stream_time(stored_at)),
        Body::Cancel(intent) => Body::Cancel(CancelIntent {
            requested_at: stored_at,
            ..intent
        }),
    });
    Decoded {
        sequence,
        subject,
        body,
    }
}

fn read(names: &SubjectNames, subject: &str, payload: &[u8]) -> Result<Body, String> {
    let unreadable = |error: serde_json::Error| format!("it cannot be read: {}", short(&error));
    let mismatch = |what: &str| Err(format!("its {what} is not that of its subject"));
    match names.parse(subject) {
        Some(Topic::Start { worker_type, .. }) => {
            let request: StartRequest = serde_json::from_slice(payload).map_err(unreadable)?;
            if request.operation_type.as_str() != worker_type {
                return mismatch("operation_type");
            }
            Ok(Body::Start(request))
        }
        Some(Topic::Operation { operation_id, .. }) => {
            let event = Event::decode(payload).map_err(unreadable)?;
            if event.operation_id.as_str() != operation_id {
                return mismatch("operation_id");
            }
            Ok(Body::Event(event))
        }
        Some(Topic::Cancel { operation_id, .. }) => {
            let intent: CancelIntent = serde_json::from_slice(payload).map_err(unreadable)?;
            if intent.operation_id.as_str() != operation_id {
                return mismatch("operation_id");
            }
            Ok(Body::Cancel(intent))
        }
        None => Err("its subject is not one of ours".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_as(subject: &str, payload: &str) -> Result<Body, String> {
        decode(
            &SubjectNames::new("acme").unwrap(),
            1,
            Timestamp::EPOCH,
            subject.into(),
            payload.as_bytes(),
        )
        .body
    }

    #[test]
    fn garbage_is_refused_with_a_reason() {
        for payload in [
            "",
            "null",
            "[]",
            "{}",
            "{\"operation_id\":\"a b\"}",
            "\u{0}\u{1}",
        ] {
            for subject in [
                "acme.start.dummy.any",
                "acme.op.dummy.a",
                "acme.cancel.dummy.a",
                "acme.x",
            ] {
                assert!(read_as(subject, payload).is_err(), "{subject} {payload:?}");
            }
        }
    }

    #[test]
    fn body_and_subject_must_agree() {
        let start = r#"{"operation_id":"a","operation_type":"dummy","parameters":{},"created_at":"2025-11-10T10:30:00Z"}"#;
        assert!(matches!(
            read_as("acme.start.dummy.any", start),
            Ok(Body::Start(_))
        ));
        assert!(
            read_as("acme.start.training.any", start)
                .unwrap_err()
                .contains("operation_type")
        );
        assert!(read_as("acme.start.dummy.any", &start.replace("{}", "7")).is_err());
        let cancel = r#"{"operation_id":"a","requested_at":"2025-11-10T10:30:00Z"}"#;
        assert!(matches!(
            read_as("acme.cancel.dummy.a", cancel),
            Ok(Body::Cancel(_))
        ));
        assert!(
            read_as("acme.cancel.dummy.b", cancel)
                .unwrap_err()
                .contains("operation_id")
        );
    }
}
