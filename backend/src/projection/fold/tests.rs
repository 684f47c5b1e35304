//! Events and reports folded into a record, as they are shown.

use std::sync::LazyLock;

use ktrdr_protocol::event::ReleaseReason;
use ktrdr_protocol::execution::ExecutionOptions;
use ktrdr_protocol::id::{OperationId, WorkerType};
use ktrdr_protocol::origin::Origin;
use ktrdr_protocol::start_request::StartRequest;
use serde_json::{Value, json};

use super::super::record::{Extent, QueueInfo, View};
use super::*;

fn record() -> Arc<Record> {
    let queue = Arc::new(QueueInfo::lone(
        WorkerType::new("dummy").unwrap(),
        Origin::from_token("any").unwrap(),
    ));
    let request = StartRequest {
        operation_id: OperationId::new("op").unwrap(),
        operation_type: WorkerType::new("dummy").unwrap(),
        parameters: serde_json::value::RawValue::from_string(r#"{"steps":10}"#.into()).unwrap(),
        execution: ExecutionOptions::default(),
        created_at: Timestamp::from_millis(1000),
        schema_digest: None,
        retry_of: None,
        resume_from: None,
        resume_ancestors: Vec::new(),
        schedule_id: None,
        requested_by: None,
        copy: None,
    };
    Arc::new(Record::new(request, 1, queue))
}

fn worker(name: &str) -> WorkerId {
    WorkerId::new(name).unwrap()
}

fn event(
    worker_name: Option<&str>,
    attempt: u32,
    at: i64,
    kind: EventKind,
) -> (Event, Option<WorkerId>) {
    let id = worker_name.map(worker);
    let event = Event {
        operation_id: OperationId::new("op").unwrap(),
        at: Timestamp::from_millis(at),
        worker_id: id.clone(),
        attempt,
        claim_id: None,
        kind,
    };
    (event, id)
}

fn apply(
    record: &mut Arc<Record>,
    sequence: u64,
    (event, id): (Event, Option<WorkerId>),
) -> Result<(), Rejected> {
    Arc::make_mut(record).apply(sequence, event, id)
}

fn report(
    record: &mut Arc<Record>,
    attempt: u32,
    worker_name: &str,
    number: u64,
    heard_at: i64,
    progress: Progress,
) -> bool {
    static BEGIN: LazyLock<Instant> = LazyLock::new(Instant::now);
    let heard = Duration::from_millis(u64::try_from(heard_at).unwrap());
    let report = ProgressReport {
        worker: &worker(worker_name),
        attempt,
        number,
        heard_at: Timestamp::from_millis(heard_at),
        heard: *BEGIN + heard,
        progress,
    };
    apply_progress(record, report)
}

fn shown(record: &Arc<Record>) -> Value {
    let view = View {
        record: Arc::clone(record),
        queue_position: None,
        waits_for_permit: None,
        retried_as: None,
        archived: false,
        turn: None,
    };
    serde_json::to_value(view.document(Extent::Whole)).unwrap()
}

const STARTED: EventKind = EventKind::Started {
    start_sequence: 1,
    delivery: 1,
};

fn completed() -> EventKind {
    let result = serde_json::value::RawValue::from_string(r#"{"rows":29.0}"#.into()).unwrap();
    EventKind::Completed {
        result: ResultPayload::Inline(result),
        progress: Some(Progress::new(90.0).step("half")),
    }
}

#[test]
fn a_whole_life_is_shown_as_documented() {
    let mut record = record();
    apply(&mut record, 2, event(Some("w1"), 1, 2000, STARTED)).unwrap();
    assert!(report(
        &mut record,
        1,
        "w1",
        1,
        2500,
        Progress::new(45.5).step("half")
    ));
    let running = shown(&record);
    assert_eq!(running["status"], "running");
    assert_eq!(running["progress"]["percentage"], 45.5);
    assert_eq!(running["updated_at"], "1970-01-01T00:00:02.500Z");
    apply(&mut record, 3, event(Some("w1"), 1, 4000, completed())).unwrap();
    let done = shown(&record);
    assert_eq!(done["status"], "completed");
    assert_eq!(
        done["progress"],
        json!({"percentage": 100, "current_step": "half", "estimated_remaining_seconds": 0})
    );
    assert_eq!(done["duration_seconds"], 2.0);
    assert_eq!(done["metadata"], json!({"steps": 10, "worker_id": "w1"}));
    assert_eq!(done["result"], json!({"rows": 29.0}));
    assert_eq!(done["attempts"][0]["outcome"], "completed");
    assert_eq!(done["completed_at"], "1970-01-01T00:00:04.000Z");
}

#[test]
fn a_report_that_was_overtaken_or_says_nothing_new_is_not_taken() {
    let mut record = record();
    apply(&mut record, 2, event(Some("w1"), 1, 2000, STARTED)).unwrap();
    let at = Timestamp::from_millis;
    assert!(report(&mut record, 1, "w1", 2, 3000, Progress::new(50.0)));
    assert!(!report(&mut record, 1, "w1", 1, 3100, Progress::new(40.0)));
    assert!(!report(&mut record, 1, "w1", 3, 3500, Progress::new(50.0)));
    assert_eq!(record.shown_updated_at(), at(3000));
    // This backend's clock was set back; later reports count all the same, and no time shown
    // falls.
    assert!(report(&mut record, 1, "w1", 4, 1000, Progress::new(60.0)));
    assert_eq!(record.shown_updated_at(), at(3000));
    // A worker that does not count.
    assert!(report(&mut record, 1, "w1", 0, 3600, Progress::new(70.0)));
    assert!(!report(&mut record, 1, "w1", 3, 3700, Progress::new(65.0)));
}

#[test]
fn a_made_up_number_hides_the_reports_that_follow_only_for_a_moment() {
    let mut record = record();
    apply(&mut record, 2, event(Some("w1"), 1, 2000, STARTED)).unwrap();
    assert!(report(&mut record, 1, "w1", 7, 3000, Progress::new(10.0)));
    let forged = Progress::new(99.0);
    assert!(report(&mut record, 1, "w1", u64::MAX, 3100, forged));

    let shortly_after = report(&mut record, 1, "w1", 8, 4000, Progress::new(11.0));
    let later = report(&mut record, 1, "w1", 9, 6100, Progress::new(12.0));
    let overtaken = report(&mut record, 1, "w1", 8, 6200, Progress::new(11.0));

    assert!(!shortly_after && later && !overtaken);
    assert_eq!(shown(&record)["progress"]["percentage"], 12);
}

#[test]
fn what_has_ended_is_shown_alike_by_those_that_heard_reports_and_those_that_did_not() {
    let [mut heard, mut deaf] = [record(), record()];
    for record in [&mut heard, &mut deaf] {
        apply(record, 2, event(Some("w1"), 1, 2000, STARTED)).unwrap();
    }
    // A heartbeat that was on its way while the operation ended.
    assert!(report(&mut heard, 1, "w1", 1, 4100, Progress::new(50.0)));
    for record in [&mut heard, &mut deaf] {
        apply(record, 3, event(Some("w1"), 1, 4000, completed())).unwrap();
    }
    assert_eq!(shown(&heard)["updated_at"], "1970-01-01T00:00:04.000Z");
    assert_eq!(shown(&heard)["updated_at"], shown(&deaf)["updated_at"]);
}

#[test]
fn times_never_fall_when_the_streams_clock_is_set_back() {
    let mut record = record();
    apply(&mut record, 2, event(Some("w1"), 1, 5000, STARTED)).unwrap();
    apply(&mut record, 3, event(Some("w1"), 1, 10, completed())).unwrap();
    let done = shown(&record);
    assert_eq!(
        (&done["completed_at"], &done["started_at"]),
        (&done["updated_at"], &done["completed_at"])
    );
    assert_eq!(done["duration_seconds"], 0.0);
}

#[test]
fn completed_without_any_progress_is_100() {
    let mut record = record();
    apply(&mut record, 2, event(Some("w1"), 1, 2000, STARTED)).unwrap();
    apply(&mut record, 3, event(Some("w1"), 1, 4000, completed())).unwrap();
    assert_eq!(shown(&record)["progress"]["percentage"], 100);
}

#[test]
fn a_takeover_marks_the_attempt_before_as_lost_and_ignores_its_progress() {
    let mut record = record();
    apply(&mut record, 2, event(Some("w1"), 1, 2000, STARTED)).unwrap();
    apply(&mut record, 3, event(Some("w2"), 2, 3000, STARTED)).unwrap();
    assert!(!report(&mut record, 1, "w1", 9, 0, Progress::new(99.0)));
    assert!(!report(&mut record, 2, "w1", 9, 0, Progress::new(99.0)));
    let shown = shown(&record);
    assert_eq!(shown["attempts"][0]["outcome"], "lost");
    assert_eq!(shown["attempts"][1]["outcome"], Value::Null);
    assert_eq!(shown["worker_id"], "w2");
    assert_eq!(shown["progress"]["percentage"], 0);
    assert_eq!(
        apply(&mut record, 4, event(Some("w1"), 1, 4000, completed())),
        Err(Rejected::OutOfOrder)
    );
}

#[test]
fn a_hand_back_is_pending_without_a_worker() {
    let mut record = record();
    apply(&mut record, 2, event(Some("w1"), 1, 2000, STARTED)).unwrap();
    let failure = Failure {
        code: "engine_error".into(),
        message: "no".into(),
        permanent: false,
    };
    let due = Some(Timestamp::from_millis(9000));
    let kind = EventKind::Released {
        reason: ReleaseReason::Retry,
        error: Some(failure),
        retry_at: due,
        copy: None,
    };
    apply(&mut record, 3, event(Some("w1"), 1, 3000, kind)).unwrap();
    let pending = shown(&record);
    assert_eq!(pending["status"], "pending");
    assert_eq!(pending["worker_id"], Value::Null);
    assert_eq!(pending["retry_at"], "1970-01-01T00:00:09.000Z");
    assert_eq!(pending["attempts"][0]["outcome"], "failed");
    assert_eq!(pending["attempts"][0]["error"], "no");
    apply(&mut record, 4, event(Some("w2"), 2, 9000, STARTED)).unwrap();
    assert_eq!(shown(&record).get("retry_at"), None);
}

#[test]
fn a_failure_shows_the_progress_and_the_message_of_its_event() {
    let mut record = record();
    apply(&mut record, 2, event(Some("w1"), 1, 2000, STARTED)).unwrap();
    report(&mut record, 1, "w1", 1, 2100, Progress::new(30.0));
    let failure = Failure {
        code: "worker_lost".into(),
        message: "gone".into(),
        permanent: false,
    };
    apply(
        &mut record,
        3,
        event(
            None,
            1,
            3000,
            EventKind::Failed {
                error: failure,
                progress: Some(Progress::new(31.0)),
            },
        ),
    )
    .unwrap();
    let failed = shown(&record);
    assert_eq!(failed["progress"]["percentage"], 31);
    assert_eq!(failed["error_message"], "gone");
    assert_eq!(failed["error"]["code"], "worker_lost");
    assert_eq!(failed["attempts"][0]["outcome"], "lost");
}

#[test]
fn a_pending_cancel_is_asked_for_and_confirmed_at_once() {
    let mut record = record();
    apply(
        &mut record,
        2,
        event(
            None,
            0,
            2000,
            EventKind::Cancelled {
                forced: false,
                progress: None,
                requested_by: None,
                reason: None,
            },
        ),
    )
    .unwrap();
    let cancelled = shown(&record);
    assert_eq!(cancelled["status"], "cancelled");
    assert_eq!(cancelled["cancel_requested_at"], "1970-01-01T00:00:02.000Z");
    assert_eq!(cancelled["duration_seconds"], Value::Null);
}

#[test]
fn the_first_cancel_intent_counts() {
    let mut record = record();
    apply(&mut record, 2, event(Some("w1"), 1, 2000, STARTED)).unwrap();
    let intent = |at| CancelIntent {
        operation_id: OperationId::new("op").unwrap(),
        requested_at: Timestamp::from_millis(at),
        reason: None,
        requested_by: None,
    };
    assert!(Arc::make_mut(&mut record).intend_cancel(&intent(2500)));
    assert!(!Arc::make_mut(&mut record).intend_cancel(&intent(2600)));
    apply(
        &mut record,
        4,
        event(
            None,
            1,
            9000,
            EventKind::Cancelled {
                forced: true,
                progress: None,
                requested_by: None,
                reason: None,
            },
        ),
    )
    .unwrap();
    let cancelled = shown(&record);
    assert_eq!(cancelled["cancel_requested_at"], "1970-01-01T00:00:02.500Z");
    assert_eq!(cancelled["forced"], true);
}
