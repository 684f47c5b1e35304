//! Subjects, and bodies that must agree with them.

use super::*;

#[test]
fn subjects_are_built_and_taken_apart_here() {
    let names = SubjectNames::new("ktrdr").unwrap();
    let worker_type = WorkerType::new("data_processing").unwrap();
    let id = OperationId::new("ABC123").unwrap();
    assert_eq!(names.stream(), "KTRDR");
    assert_eq!(
        names.operation(&worker_type, &id),
        "ktrdr.op.data_processing.ABC123"
    );
    assert_eq!(
        names.parse("ktrdr.op.data_processing.ABC123"),
        Some(Topic::Operation {
            worker_type: "data_processing",
            operation_id: "ABC123"
        })
    );
    assert_eq!(
        names.parse("ktrdr.key.data_processing.unique.2a3b"),
        Some(Topic::Key {
            worker_type: "data_processing",
            tokens: "unique.2a3b"
        })
    );
    for other in [
        "ktrdr",
        "ktrdr.op.a",
        "ktrdr.op.a.b.c",
        "ktrdr.key.a.b",
        "ktrdr.key.a.b.c.d",
        "other.op.a.b",
        "ktrdrx.op.a.b",
        "ktrdr.progress.a.b",
    ] {
        assert_eq!(names.parse(other), None, "{other}");
    }
}

#[test]
fn a_body_must_agree_with_its_subject() {
    let names = SubjectNames::new("ktrdr").unwrap();
    let heartbeat: Heartbeat = serde_json::from_str(
        r#"{"worker_id":"w1","worker_type":"dummy","instance":"i","endpoint_url":"","status":"BUSY",
        "capabilities":{},"version":"1","registered_at":"2025-11-10T10:30:00Z",
        "at":"2025-11-10T10:30:00Z","interval_seconds":1,"slots":1,"running":[]}"#,
    )
    .unwrap();

    let check = |subject: &str| names.check(subject, &heartbeat).map(str::to_owned);

    assert_eq!(check("ktrdr.heartbeat.dummy.w1"), Ok("dummy".to_owned()));
    assert_eq!(
        check("ktrdr.heartbeat.training.w1"),
        Err(SubjectMismatch::Field("worker_type"))
    );
    assert_eq!(
        check("ktrdr.heartbeat.dummy.w2"),
        Err(SubjectMismatch::Field("worker_id"))
    );
    for foreign in [
        "ktrdr.progress.dummy.w1",
        "ktrdr.heartbeat.dummy",
        "ktrdr.heartbeat.dummy.w1.x",
        "other.heartbeat.dummy.w1",
    ] {
        assert_eq!(check(foreign), Err(SubjectMismatch::Foreign), "{foreign}");
    }
}

#[test]
fn another_prefix_is_another_stream() {
    let names = SubjectNames::new("acme.prod").unwrap();
    assert_eq!(names.stream(), "ACME_PROD");
    assert!(names.parse("acme.prod.start.dummy.any").is_some());
    for bad in ["", ".", "a.", "a..b", "a b", "*", "a.>"] {
        assert!(SubjectNames::new(bad).is_err(), "{bad}");
    }
}
