//! Attacks on the rows of the file: a disk may damage them, and others may write them.

use ktrdr_fuzz::Attack;
use ktrdr_protocol::subject::SubjectNames;
use ktrdr_protocol::time::Timestamp;
use serde_json::value::RawValue;

use super::document;
use crate::projection::decode::{Content, decode};
use crate::projection::model::Model;
use crate::projection::record::Extent;

const START: &str = r#"{"operation_id":"a","operation_type":"dummy","parameters":{"steps":3,"worker_id":"p"},"created_at":"2025-11-10T10:30:00Z","retry_of":"b","requested_by":"ci","execution":{"max_attempts":2,"timeout_seconds":9.5}}"#;

const STARTED: &str = r#"{"event":"started","operation_id":"a","at":"2025-11-10T10:30:01Z","worker_id":"w","attempt":1,"claim_id":"c","start_sequence":1,"delivery":1}"#;

const ENDS: [&str; 3] = [
    r#"{"event":"completed","operation_id":"a","at":"2025-11-10T10:30:02Z","worker_id":"w","attempt":1,"claim_id":"c","result":{"rows":7},"progress":{"percentage":100,"current_step":"x","extra":[1]}}"#,
    r#"{"event":"completed","operation_id":"a","at":"2025-11-10T10:30:02Z","worker_id":"w","attempt":1,"claim_id":"c","result_ref":{"bucket":"B","object":"a.1","size":7}}"#,
    r#"{"event":"failed","operation_id":"a","at":"2025-11-10T10:30:02Z","worker_id":"w","attempt":1,"claim_id":"c","error":{"code":"x","message":"why","permanent":true}}"#,
];

/// The row of an operation with this end.
fn row(end: &str) -> String {
    let names = SubjectNames::new("acme").expect("a prefix");
    let mut model = Model::default();
    let messages = [
        ("acme.start.dummy.any", START),
        ("acme.op.dummy.a", STARTED),
        ("acme.op.dummy.a", end),
    ];
    for (sequence, (subject, payload)) in (1..).zip(messages) {
        let read = decode(
            &names,
            sequence,
            Timestamp::EPOCH,
            subject,
            payload.as_bytes(),
        );
        let applied = match read.content.expect("a message") {
            Content::Start { origin, request } => model.start(sequence, origin, request),
            Content::Event { worker_type, event } => model.event(sequence, worker_type, event),
            Content::Cancel { .. } | Content::Key { .. } => unreachable!("none was written"),
        };
        assert!(applied.is_ok(), "{payload}");
    }
    document::write(&model.get("a").expect("the operation").record).expect("a row")
}

#[test]
fn archived_operations() {
    Attack::on("archived operations")
        .with(ENDS.map(row))
        .run(|bytes| {
            let Ok(text) = std::str::from_utf8(bytes) else {
                return;
            };
            let Ok(view) = document::read(text, 1, 3) else {
                return;
            };

            let shown = serde_json::to_vec(&view.document(Extent::Whole)).expect("a document");
            serde_json::from_slice::<&RawValue>(&shown).expect("the document is JSON");
            let size = view.record.size();
            assert!(shown.len() <= 2 * size + 4096, "{} of {size}", shown.len());

            let again = document::write(&view.record).expect("a row");
            let read = document::read(&again, 1, 3).expect("the same operation");
            assert_eq!(document::write(&read.record).expect("a row"), again);
        });
}
