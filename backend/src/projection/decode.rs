//! Reads a message of the stream. Pure: no lock is held meanwhile.
//!
//! A subject is taken apart here and nowhere else: what follows works with the content alone.

use ktrdr_bus::telemetry::short;
use ktrdr_protocol::cancel::CancelIntent;
use ktrdr_protocol::event::Event;
use ktrdr_protocol::id::WorkerType;
use ktrdr_protocol::keys::{KeyDigest, KeyEntry, KeyKind, MAX_HOLDERS, parse_tokens};
use ktrdr_protocol::origin::Origin;
use ktrdr_protocol::start_request::StartRequest;
use ktrdr_protocol::subject::{Addressed, SubjectMismatch, SubjectNames, Topic};
use ktrdr_protocol::time::Timestamp;

/// A message of the stream.
#[derive(Debug)]
pub struct StreamMessage<'a> {
    /// Its sequence in the stream.
    pub sequence: u64,
    /// Its subject, for the log.
    pub subject: &'a str,
    /// The content, or why it cannot be read.
    pub content: Result<Content<'a>, String>,
}

/// The content of a message.
#[derive(Debug)]
pub enum Content<'a> {
    /// A new operation.
    Start {
        /// Queue that holds the request, if any.
        origin: Origin,
        /// The request itself.
        request: StartRequest,
    },
    /// A state change of an operation.
    Event {
        /// The worker type in the subject.
        worker_type: &'a str,
        /// The event itself.
        event: Event,
    },
    /// A request to cancel an operation.
    Cancel {
        /// The worker type in the subject.
        worker_type: &'a str,
        /// The intent itself.
        intent: CancelIntent,
    },
    /// An entry of a key.
    Key {
        /// The worker type.
        worker_type: WorkerType,
        /// What the key is for.
        kind: KeyKind,
        /// Names the key.
        digest: KeyDigest,
        /// Who holds it. Only of a concurrency key: a backend asks the stream for the other.
        entry: Option<KeyEntry>,
    },
}

/// Reads one message. A body that contradicts its subject is refused.
///
/// Every time in the body is replaced by `stored_at`, the time at which the stream stored the
/// message. So all times come from one clock, however many publishers there are and however wrong
/// their clocks are. The publisher's own times remain in the operation's history.
pub fn decode<'a>(
    names: &SubjectNames,
    sequence: u64,
    stored_at: Timestamp,
    subject: &'a str,
    payload: &[u8],
) -> StreamMessage<'a> {
    StreamMessage {
        sequence,
        subject,
        content: read(names, stored_at, subject, payload),
    }
}

fn read<'a>(
    names: &SubjectNames,
    stored_at: Timestamp,
    subject: &'a str,
    payload: &[u8],
) -> Result<Content<'a>, String> {
    let unreadable = |error: serde_json::Error| format!("it cannot be read: {}", short(&error));
    let mismatch = |error: SubjectMismatch| error.to_string();
    let foreign = || SubjectMismatch::Foreign.to_string();

    match names.parse(subject).ok_or_else(foreign)? {
        Topic::Start { worker_type, queue } => {
            let origin = Origin::from_token(queue).map_err(|_| foreign())?;
            let mut request: StartRequest = serde_json::from_slice(payload).map_err(unreadable)?;
            request.agrees(worker_type, queue).map_err(mismatch)?;
            request.created_at = stored_at;
            Ok(Content::Start { origin, request })
        }
        Topic::Operation {
            worker_type,
            operation_id,
        } => {
            let event = Event::decode(payload).map_err(unreadable)?;
            event.agrees(worker_type, operation_id).map_err(mismatch)?;
            let event = event.at_stream_time(stored_at);
            Ok(Content::Event { worker_type, event })
        }
        Topic::Cancel {
            worker_type,
            operation_id,
        } => {
            let mut intent: CancelIntent = serde_json::from_slice(payload).map_err(unreadable)?;
            intent.agrees(worker_type, operation_id).map_err(mismatch)?;
            intent.requested_at = stored_at;
            Ok(Content::Cancel {
                worker_type,
                intent,
            })
        }
        Topic::Key {
            worker_type,
            tokens,
        } => {
            let (kind, digest) = parse_tokens(tokens).ok_or_else(foreign)?;
            let entry = match kind {
                KeyKind::Unique => None,
                KeyKind::Concurrency => {
                    let entry: KeyEntry = serde_json::from_slice(payload).map_err(unreadable)?;
                    entry.agrees(worker_type, tokens).map_err(mismatch)?;
                    if entry.holders.len() > MAX_HOLDERS {
                        return Err("it names too many holders".to_owned());
                    }
                    Some(entry)
                }
            };
            Ok(Content::Key {
                worker_type: WorkerType::new(worker_type).map_err(|_| foreign())?,
                kind,
                digest,
                entry,
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_as<'a>(subject: &'a str, payload: &str) -> Result<Content<'a>, String> {
        decode(
            &SubjectNames::new("acme").unwrap(),
            1,
            Timestamp::EPOCH,
            subject,
            payload.as_bytes(),
        )
        .content
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
                "acme.key.dummy.concurrency.2a3b62b53ddb9f167b63d22202a36081",
                "acme.key.dummy.unique.x",
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
            Ok(Content::Start { .. })
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
            Ok(Content::Cancel { .. })
        ));
        assert!(
            read_as("acme.cancel.dummy.b", cancel)
                .unwrap_err()
                .contains("operation_id")
        );
    }
}
