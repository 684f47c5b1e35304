//! Operations and their indexes.

use ktrdr_protocol::execution::ExecutionOptions;

use super::*;
use crate::projection::record::Extent;

fn start(
    model: &mut Model,
    sequence: u64,
    id: &str,
    worker_type: &str,
    origin: &str,
) -> Result<Applied, Skip> {
    start_with(model, sequence, id, (worker_type, origin), None)
}

/// A start that is delayed until `start_at`, in milliseconds.
fn start_with(
    model: &mut Model,
    sequence: u64,
    id: &str,
    (worker_type, origin): (&str, &str),
    start_at: Option<i64>,
) -> Result<Applied, Skip> {
    let request = StartRequest {
        operation_id: OperationId::new(id).unwrap(),
        operation_type: WorkerType::new(worker_type).unwrap(),
        parameters: serde_json::value::RawValue::from_string("{}".into()).unwrap(),
        execution: ExecutionOptions {
            start_at: start_at.map(Timestamp::from_millis),
            ..ExecutionOptions::default()
        },
        created_at: Timestamp::from_millis(sequence as i64),
        schema_digest: None,
        retry_of: None,
        resume_from: None,
        resume_ancestors: Vec::new(),
        schedule_id: None,
        requested_by: None,
        copy: None,
    };
    model.start(sequence, Origin::from_token(origin).unwrap(), request)
}

fn started(id: &str) -> Event {
    Event {
        operation_id: OperationId::new(id).unwrap(),
        at: Timestamp::EPOCH,
        worker_id: Some(WorkerId::new("w").unwrap()),
        attempt: 1,
        claim_id: None,
        kind: ktrdr_protocol::event::EventKind::Started {
            start_sequence: 1,
            delivery: 1,
        },
    }
}

/// The newest operations that match, and how many match.
fn list(
    model: &Model,
    types: Option<&[&str]>,
    status: Option<Status>,
    offset: u64,
    limit: usize,
) -> (u64, Vec<View>) {
    let types = types.map(|types| types.iter().map(|&name| name.to_owned()).collect());
    let filter = Filter {
        types,
        statuses: status.into_iter().collect(),
        ..Filter::default()
    };
    let page = model.list(&Wanted {
        filter,
        order: ListOrder::Newest,
        offset,
        after: None,
        limit,
        bytes: usize::MAX,
        extent: Extent::Whole,
    });
    (page.total, page.views)
}

fn ids(views: &[View]) -> Vec<&str> {
    views.iter().map(|view| view.record.id.as_str()).collect()
}

#[test]
fn newest_first_with_positions_in_the_queue() {
    let mut model = Model::default();
    for (sequence, id) in [(1, "a"), (2, "b"), (3, "c")] {
        start(&mut model, sequence, id, "dummy", "any").unwrap();
    }
    start(&mut model, 4, "d", "training", "gpu").unwrap();
    let (total, page) = list(&model, None, None, 0, 10);
    assert_eq!((total, ids(&page)), (4, vec!["d", "c", "b", "a"]));
    assert_eq!(model.get("c").unwrap().queue_position, Some(3));
    model.event(5, "dummy", started("a")).unwrap();
    assert_eq!(model.get("c").unwrap().queue_position, Some(2));
    let pending = Some(Status::Pending);
    let (total, page) = list(&model, Some(&["dummy"]), pending, 1, 10);
    assert_eq!((total, ids(&page)), (2, vec!["b"]));
    assert_eq!(list(&model, Some(&["nothing"]), None, 0, 10).0, 0);
}

#[test]
fn the_first_start_of_an_id_counts() {
    let mut model = Model::default();
    start(&mut model, 1, "a", "dummy", "any").unwrap();
    assert_eq!(
        start(&mut model, 2, "a", "training", "any").unwrap_err(),
        Skip::Exists
    );
    assert_eq!(
        model.event(3, "training", started("a")).unwrap_err(),
        Skip::OtherType
    );
    assert_eq!(
        model.event(3, "dummy", started("x")).unwrap_err(),
        Skip::Unknown
    );
}

#[test]
fn an_attempt_of_a_second_start_directly_on_a_worker_is_a_direct_one() {
    let mut model = Model::default();
    start(&mut model, 1, "a", "dummy", "any").unwrap();
    assert_eq!(
        start(&mut model, 2, "a", "dummy", "direct").unwrap_err(),
        Skip::Exists
    );
    assert_eq!(model.open_direct().len(), 0, "nobody runs it");
    let mut direct = started("a");
    direct.kind = ktrdr_protocol::event::EventKind::Started {
        start_sequence: 2,
        delivery: 1,
    };
    model.event(3, "dummy", direct).unwrap();
    assert_eq!(model.open_direct().len(), 1);
    // And one of the queue's own is not, though there is the other start.
    start(&mut model, 4, "b", "dummy", "any").unwrap();
    assert_eq!(
        start(&mut model, 5, "b", "dummy", "direct").unwrap_err(),
        Skip::Exists
    );
    model.event(6, "dummy", started("b")).unwrap();
    assert_eq!(model.open_direct().len(), 1);
}

#[test]
fn what_has_left_the_stream_is_forgotten() {
    let mut model = Model::default();
    for (sequence, id) in [(1, "a"), (5, "b"), (9, "c")] {
        start(&mut model, sequence, id, "dummy", "any").unwrap();
    }
    assert_eq!(model.forget_before(6).len(), 2);
    assert!(model.get("a").is_none());
    assert_eq!(model.get("c").unwrap().queue_position, Some(1));
    assert_eq!(list(&model, None, None, 0, 10).0, 1);
    start(&mut model, 10, "a", "dummy", "any").unwrap();
    model.renumber();
    assert_eq!(ids(&list(&model, None, None, 0, 10).1), vec!["a", "c"]);
    assert_eq!(model.get("a").unwrap().queue_position, Some(2));
}

fn completed(id: &str, at: i64) -> Event {
    Event {
        at: Timestamp::from_millis(at),
        kind: ktrdr_protocol::event::EventKind::Completed {
            result: ktrdr_protocol::event::ResultPayload::Inline(
                serde_json::value::RawValue::from_string("1".into()).unwrap(),
            ),
            progress: None,
        },
        ..started(id)
    }
}

/// Starts, runs and ends an operation; it ended at the time of `sequence`.
fn run(model: &mut Model, sequence: u64, id: &str) {
    start(model, sequence, id, "dummy", "any").unwrap();
    model.event(sequence + 1, "dummy", started(id)).unwrap();
    let end = completed(id, sequence as i64);
    model.event(sequence + 2, "dummy", end).unwrap();
}

#[test]
fn operations_are_forgotten_by_their_end_and_open_ones_stay() {
    let mut model = Model::default();
    start(&mut model, 1, "open", "dummy", "any").unwrap();
    for (sequence, id) in [(10, "a"), (20, "b"), (30, "c")] {
        run(&mut model, sequence, id);
    }
    start(&mut model, 40, "last", "dummy", "any").unwrap();

    let forgotten = model.forget_ended(Timestamp::from_millis(25), 1);
    assert_eq!(forgotten.len(), 1, "not more than asked for");
    let forgotten = model.forget_ended(Timestamp::from_millis(25), 100);

    assert_eq!(forgotten[0].id.as_str(), "b");
    assert_eq!(forgotten[0].start_sequence, 20);
    for gone in ["a", "b"] {
        assert!(model.get(gone).is_none());
    }
    let (total, page) = list(&model, None, None, 0, 10);
    assert_eq!((total, ids(&page)), (3, vec!["last", "c", "open"]));
    assert_eq!(model.len(), 3);
    assert_eq!(model.get("last").unwrap().queue_position, Some(2));
    assert_eq!(model.oldest_created(), Some(Timestamp::from_millis(1)));
    // Its log is still in the stream when its start request is gone.
    assert_eq!(
        model.event(50, "dummy", started("a")).unwrap_err(),
        Skip::Unknown
    );

    // Numbered again, the rest is found, and forgotten in its turn.
    model.renumber();
    assert_eq!(
        ids(&list(&model, None, None, 0, 10).1),
        ["last", "c", "open"]
    );
    assert_eq!(model.forget_ended(Timestamp::from_millis(31), 100).len(), 1);
    assert_eq!(model.forget_before(2).len(), 1);
    assert_eq!(model.oldest_created(), Some(Timestamp::from_millis(40)));
    assert_eq!(model.len(), 1);
}

#[test]
fn one_old_operation_costs_little_room() {
    let mut model = Model::default();
    start(&mut model, 1, "open", "dummy", "any").unwrap();
    for number in 1..=300_000_u64 {
        let id = format!("op-{number}");
        run(&mut model, 10 * number, &id);
        model.forget_ended(Timestamp::from_millis(10 * number as i64), 100);
    }

    assert_eq!(model.len(), 2);
    assert!(
        model.records.len() <= MAX_IDLE_GAPS + 10,
        "{}",
        model.records.len()
    );
    assert_eq!(
        ids(&list(&model, None, None, 0, 10).1),
        ["op-300000", "open"]
    );
}

#[test]
fn all_start_requests_of_an_id_are_known() {
    let mut model = Model::default();
    run(&mut model, 1, "a");
    for (sequence, worker_type, origin) in [
        (5, "dummy", "any"),
        (6, "other", "any"),
        (7, "dummy", "direct"),
    ] {
        start(&mut model, sequence, "a", worker_type, origin).unwrap_err();
    }

    let forgotten = model.forget_ended(Timestamp::from_millis(100), 100);

    assert_eq!(forgotten[0].other_starts(), [5, 6, 7]);
}

#[test]
fn worker_ids_are_forgotten_with_the_operations_that_name_them() {
    let mut model = Model::default();
    for number in 1..=10_000_u64 {
        let id = format!("op-{number}");
        start(&mut model, 2 * number, &id, "dummy", "any").unwrap();
        let event = Event {
            worker_id: Some(WorkerId::new(format!("w-{number}")).unwrap()),
            ..started(&id)
        };
        model.event(2 * number + 1, "dummy", event).unwrap();
        model.forget_before((2 * number).saturating_sub(20));
    }

    assert!(model.len() < 20, "{} operations", model.len());
    let most = MAX_IDLE_WORKERS + 100;
    assert!(model.workers.len() < most, "{}", model.workers.len());
}

#[test]
fn worker_ids_are_kept_only_with_events_that_are_applied() {
    let mut model = Model::default();
    start(&mut model, 1, "a", "dummy", "any").unwrap();

    let made_up = |operation: &str, worker: String| Event {
        worker_id: Some(WorkerId::new(worker).unwrap()),
        attempt: 7,
        ..started(operation)
    };
    for number in 0..100_u64 {
        let unknown = made_up("unknown", format!("u{number}"));
        assert!(model.event(2 + number, "dummy", unknown).is_err());
        let rejected = made_up("a", format!("r{number}"));
        assert!(model.event(200 + number, "dummy", rejected).is_err());
    }
    assert!(model.workers.is_empty());

    model.event(400, "dummy", started("a")).unwrap();
    assert_eq!(model.workers.len(), 1);
}

#[test]
fn the_oldest_unfinished_and_the_quietest_running_operation_of_each_type_are_found() {
    let mut model = Model::default();
    for (sequence, id) in [(1, "ended"), (2, "running"), (3, "late"), (4, "waiting")] {
        start(&mut model, sequence, id, "dummy", "any").unwrap();
    }
    start(&mut model, 5, "other", "training", "gpu").unwrap();
    for (sequence, id) in [(6, "ended"), (7, "running"), (8, "late")] {
        model.event(sequence, "dummy", started(id)).unwrap();
    }
    let end = Event {
        kind: ktrdr_protocol::event::EventKind::Cancelled {
            forced: false,
            progress: None,
            requested_by: None,
            reason: None,
        },
        ..started("ended")
    };
    model.event(9, "dummy", end).unwrap();

    let now = Timestamp::from_millis(60_002);
    let mut found = model.unfinished(now, Instant::now());
    found.sort_by(|a, b| a.worker_type.cmp(&b.worker_type));

    let [dummy, training] = found.as_slice() else {
        panic!("{found:?}");
    };
    let oldest = |work: &UnfinishedWork| work.oldest.as_ref().map(|(id, _)| id.to_string());
    assert_eq!(oldest(dummy).as_deref(), Some("running"));
    assert_eq!(dummy.oldest_age(now), 60.0);
    let (quietest, age) = dummy.quietest.as_ref().unwrap();
    assert_eq!((quietest.as_str(), age.as_secs()), ("running", 60));
    assert_eq!(oldest(training).as_deref(), Some("other"));
    assert!(training.quietest.is_none());
}

#[test]
fn what_was_delayed_waits_from_the_time_at_which_it_was_due() {
    let mut model = Model::default();
    let any = ("dummy", "any");
    start_with(&mut model, 1, "due", any, Some(60_000)).unwrap();
    start_with(&mut model, 2, "before", any, Some(40_000)).unwrap();
    let oldest = |model: &Model| model.queues()[0].oldest_pending;
    assert_eq!(oldest(&model), Some(Timestamp::from_millis(40_000)));

    start(&mut model, 30_000, "later", "dummy", "any").unwrap();
    assert_eq!(oldest(&model), Some(Timestamp::from_millis(30_000)));

    // Figures of the past count in the same way.
    let mut begun = started("due");
    begun.at = Timestamp::from_millis(61_000);
    model.event(30_001, "dummy", begun).unwrap();
    let end = Event {
        at: Timestamp::from_millis(62_000),
        kind: ktrdr_protocol::event::EventKind::Cancelled {
            forced: false,
            progress: None,
            requested_by: None,
            reason: None,
        },
        ..started("due")
    };
    model.event(30_002, "dummy", end).unwrap();
    let ended = model.ended_since(None, Timestamp::EPOCH);
    assert_eq!(ended.waiting.unwrap().p50, 1.0);
}
